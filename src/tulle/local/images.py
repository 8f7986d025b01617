"""From a container's image to the program that stands for it on this machine.

A container's own `command` runs when it names a program that is here. Otherwise the first rule that matches counts:
the user's tulle.toml, then the package's own `images.toml`. docs/images.md tells users about it.
"""

import fnmatch
import os
import shutil
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tulle.errors import TulleError, UsageError
from tulle.local.proxy_binary import find_proxy

__all__ = [
    "FILE_NAME",
    "ImageMap",
    "ImageRule",
    "NoProgram",
    "Program",
    "expand",
    "load_images",
    "pod_specs",
    "require_images",
]

FILE_NAME = "tulle.toml"

Obj = dict[str, Any]  # not imported from tulle.local.api: manifests are read without loading the API

PACKAGED = Path(__file__).with_name("images.toml")


class NoProgram(TulleError):
    """Neither the container's command nor any rule says what to run for an image."""


@dataclass(frozen=True, slots=True)
class ImageRule:
    """One `[[images]]` table.

    `image` is a pattern (`*` and `?`; without a tag it matches every tag). `for_command` narrows the rule to containers
    whose `command` begins with these words. `command` replaces the image's entry point; its words may hold {python},
    {proxy}, {ip}, {port}. The container's `args` follow unless `args` is false. `env` is set in every mode, `loopback_env`
    only where a pod has no network of its own; their values may hold placeholders too.
    """

    image: str
    command: tuple[str, ...]
    source: str
    for_command: tuple[str, ...] = ()
    args: bool = True
    env: Mapping[str, str] = field(default_factory=dict)
    loopback_env: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None

    def matches(self, image: str, command: Sequence[str]) -> bool:
        """Tell whether the rule is meant for this container."""
        if self.for_command and tuple(command[: len(self.for_command)]) != self.for_command:
            return False
        return any(fnmatch.fnmatchcase(name, self.image) for name in _spellings(image))


@dataclass(frozen=True, slots=True)
class Program:
    """What runs for a container: words with their placeholders, where it starts, and why just this."""

    argv: tuple[str, ...]
    directory: Path | None
    env: Mapping[str, str]
    loopback_env: Mapping[str, str]
    because: str


@dataclass(frozen=True, slots=True)
class ImageMap:
    """All rules, the user's first. `path` is the PATH on which commands are looked up."""

    rules: tuple[ImageRule, ...]
    path: str

    def program(self, container: Obj) -> Program:
        """Return what runs for a container.

        Raises NoProgram when nobody says; the error names the container, its image and what to write.
        """
        image = str(container.get("image") or "")
        command = [str(word) for word in container.get("command") or ()]
        args = tuple(str(word) for word in container.get("args") or ())
        # A rule that names this very command knows more than the PATH does.
        named = next((r for r in self.rules if r.for_command and r.matches(image, command)), None)
        if named is None and command and self._on_this_machine(command[0]):
            return Program((*command, *args), None, {}, {}, f"the container's command {command[0]}")
        rule = named or next((r for r in self.rules if not r.for_command and r.matches(image, command)), None)
        if rule is None:
            raise self._no_program(container, image, command)
        words = (*rule.command, *args) if rule.args else rule.command
        return Program(words, rule.directory, rule.env, rule.loopback_env, f"{rule.source}: {rule.image}")

    def _on_this_machine(self, word: str) -> bool:
        return "$(" in word or shutil.which(word, path=self.path) is not None

    def _no_program(self, container: Obj, image: str, command: Sequence[str]) -> NoProgram:
        name = container.get("name", "")
        why = f"images are not run here, and no {FILE_NAME} says which program stands for this one"
        if command:
            why = f"its command {command[0]} is not a program on this machine, and no {FILE_NAME} has a rule for the image"
        return NoProgram(
            f"container {name}: nothing to run for image {image or '(none)'}", why, _advice(image)
        )


def _advice(*images: str) -> str:
    patterns = list(dict.fromkeys(_without_tag(image) or "IMAGE" for image in images))
    rules = "\n".join(
        f'    [[images]]\n    image = "{pattern}:*"\n    command = ["{{python}}", "server.py", "--port", "{{port}}"]'
        for pattern in patterns
    )
    each = "these three lines" if len(patterns) == 1 else "three lines for each image"
    return f"add {each} to a {FILE_NAME} beside the manifest:\n{rules}"


def load_images(manifests: Iterable[Path], *, path: str | None = None) -> ImageMap:
    """Read the tulle.toml files beside the manifests, and the package's own rules behind them.

    Raises UsageError for a file that is not TOML or whose `images` are not as documented (file and entry named).
    """
    directories = list(dict.fromkeys((p if p.is_dir() else p.parent).resolve() for p in manifests))
    files = [directory / FILE_NAME for directory in directories if (directory / FILE_NAME).is_file()]
    rules = [rule for file in files for rule in _read(file, file.parent)]
    rules.extend(_read(PACKAGED, None))
    return ImageMap(tuple(rules), os.environ.get("PATH", os.defpath) if path is None else path)


_FIELDS: dict[str, type | tuple[type, ...]] = {
    "image": str,
    "command": list,
    "for_command": (list, str),
    "args": bool,
    "env": dict,
    "loopback_env": dict,
}


def _read(file: Path, directory: Path | None) -> Iterator[ImageRule]:
    try:
        document = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{file} cannot be read", str(error), "see docs/images.md for its form") from error
    strange = sorted(set(document) - {"images"})
    if strange:
        raise UsageError(
            f"{file}: unknown table {strange[0]}", "known is [[images]]", "see docs/images.md for its form"
        )
    entries = document.get("images", [])
    if not isinstance(entries, list):
        raise UsageError(f"{file}: images is not a list of tables", "write [[images]], with two brackets")
    for number, entry in enumerate(entries, 1):
        yield _rule(file, number, entry, directory)


def _rule(file: Path, number: int, entry: dict[str, Any], directory: Path | None) -> ImageRule:
    where = f"{file}: [[images]] number {number}"
    unknown = sorted(set(entry) - set(_FIELDS))
    if unknown:
        raise UsageError(
            f"{where}: unknown field {unknown[0]}", f"known are {', '.join(_FIELDS)}", "see docs/images.md"
        )
    for name, kind in _FIELDS.items():
        if name in entry and not isinstance(entry[name], kind):
            raise UsageError(
                f"{where}: {name} has the wrong type", f"it is {entry[name]!r}", "see docs/images.md"
            )
    if not entry.get("image") or not entry.get("command"):
        raise UsageError(
            f"{where}: image and command must both be given", "", 'image = "my/app:*", command = ["my-app"]'
        )
    wanted = entry.get("for_command", ())
    return ImageRule(
        image=entry["image"],
        command=tuple(str(word) for word in entry["command"]),
        source=str(file) if directory is not None else "Tulle's own images.toml",
        for_command=(wanted,) if isinstance(wanted, str) else tuple(wanted),
        args=entry.get("args", True),
        env=_texts(entry.get("env", {})),
        loopback_env=_texts(entry.get("loopback_env", {})),
        directory=directory,
    )


def _texts(table: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in table.items()}


def _spellings(image: str) -> Iterator[str]:
    """Yield the forms of an image's name that a pattern may have been written for."""
    bare = image.split("@", 1)[0]
    for name in dict.fromkeys(
        (bare, bare.removeprefix("docker.io/library/"), bare.removeprefix("docker.io/"))
    ):
        yield name
        if _without_tag(name) == name:
            yield f"{name}:latest"
        else:
            yield _without_tag(name)


def _without_tag(image: str) -> str:
    bare = image.split("@", 1)[0]
    head, slash, last = bare.rpartition("/")
    return head + slash + last.split(":", 1)[0]


def pod_specs(obj: Obj) -> Iterator[Obj]:
    """Yield the pod specs that an object holds: a Pod's own, a workload's template, a CronJob's, a List's items'."""
    spec = obj.get("spec") or {}
    match obj.get("kind"):
        case "Pod":
            yield spec
        case "CronJob":
            yield (
                (((spec.get("jobTemplate") or {}).get("spec") or {}).get("template") or {}).get("spec")
            ) or {}
        case "List":
            for item in obj.get("items") or ():
                yield from pod_specs(item)
        case "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" | "ReplicationController":
            yield (spec.get("template") or {}).get("spec") or {}


def require_images(objects: Iterable[tuple[str, Obj]], images: ImageMap) -> None:
    """Check before anything is started that each container of (file, object) pairs has something to run.

    Raises NoProgram that names the file, object, container and image of every one that has not.
    """
    missing: list[tuple[str, Obj, Obj]] = []
    for file, obj in objects:
        for spec in pod_specs(obj):
            for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
                try:
                    images.program(container)
                except NoProgram:
                    missing.append((file, obj, container))
    if not missing:
        return
    lines = [
        f"{file}: {obj.get('kind')} {(obj.get('metadata') or {}).get('name')}: container {c.get('name')}: "
        f"nothing to run for image {c.get('image')}"
        for file, obj, c in missing
    ]
    _, _, first = missing[0]
    try:
        images.program(first)
    except NoProgram as error:
        advice = _advice(*(str(container.get("image") or "") for _, _, container in missing))
        raise NoProgram("\n".join(lines), error.why, advice) from None


def expand(program: Program, words: Iterable[str], *, ip: str, port: int | None) -> tuple[str, ...]:
    """Fill in the placeholders of words (or values of variables) of a program.

    Raises NoProgram when a word needs a port and the container has none, ProxyNotFound when the binary is nowhere.
    """
    return tuple(_filled(program, word, ip, port) for word in words)


def _filled(program: Program, word: str, ip: str, port: int | None) -> str:
    if "{port}" in word and port is None:
        raise NoProgram(
            f"{program.because}: {{port}} stands for nothing",
            "the container has no containerPort",
            "add ports: [{containerPort: …}] to the container",
        )
    if "{proxy}" in word:
        word = word.replace("{proxy}", str(find_proxy()))
    return word.replace("{python}", sys.executable).replace("{ip}", ip).replace("{port}", str(port))
