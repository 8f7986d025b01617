"""Writes fields.json, the field numbers of the built-in kinds in Kubernetes' protobuf.

Run `python -m tulle.local.api.wire.source FOLDER…` with the folders of the Go modules k8s.io/api and
k8s.io/apimachinery (`go mod download`), of the same release as lightkube-models. Only names, numbers and types are taken.
A field is `name:type`: types are those of kinds.json plus `d` (double), `l` (a list inside
a message) and `r` (JSON inside bytes); a `+` instead of the name marks a message whose fields belong to the enclosing object.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tulle.local.api.kinds_source import MODULES
from tulle.local.api.schema import builtin, definition_names

__all__ = ["TARGET", "render"]

TARGET = Path(__file__).with_name("fields.json")

_MESSAGE = re.compile(r"^message (\w+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(
    r"^  (?:optional |repeated )?(?P<type>map<string, ?[\w.]+>|[\w.]+) (?P<name>\w+) = (?P<number>\d+);",
    re.MULTILINE,
)
_SCALARS = {
    "string": "s",
    "bool": "b",
    "int32": "i",
    "int64": "i",
    "uint32": "i",
    "bytes": "y",
    "double": "d",
}
_SPECIAL = {
    "k8s.io.apimachinery.pkg.apis.meta.v1.Time": "t",
    "k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime": "t",
    "k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1": "r",
    "k8s.io.apimachinery.pkg.runtime.RawExtension": "r",
    "k8s.io.apimachinery.pkg.util.intstr.IntOrString": "x",
    "k8s.io.apimachinery.pkg.api.resource.Quantity": "q",
}
_LISTS = frozenset({"ExtraValue", "Verbs"})
_EMBEDDED_ONLY = frozenset({"apiextensions_v1"})


def render(folders: list[Path]) -> str:
    """Return the text of fields.json."""
    wanted = {module for module in MODULES if module not in _EMBEDDED_ONLY}
    messages: dict[str, str] = {}
    for folder in folders:
        for path in sorted(folder.rglob("generated.proto")):
            text = path.read_text()
            package = re.search(r"^package (\S+);", text, re.MULTILINE)
            assert package is not None
            module = _module(package[1])
            if module in wanted:
                for name, body in _MESSAGE.findall(text):
                    messages[f"{module}.{name}"] = body
    known = set(definition_names())
    rendered = {
        name: dict(_fields(name, body, known, messages))
        for name, body in messages.items()
        if not name.endswith("List")
    }
    return json.dumps(rendered, separators=(",", ":"), sort_keys=True).replace('},"', '},\n"') + "\n"


def _module(package: str) -> str:
    group, version = package.split(".")[-2:]
    return f"{group}_{version}"


def _fields(name: str, body: str, known: set[str], messages: dict[str, str]) -> Iterator[tuple[str, str]]:
    properties = builtin(name).properties if name in known else {}
    lower = {key.lower(): key for key in properties}
    for field in _FIELD.finditer(body):
        kind = _type(name, field["type"], messages)
        if kind is None:
            continue
        shown = field["name"]
        if name in known:
            json_name = lower.get(shown.lower())
            if json_name is None and kind.startswith("@"):
                json_name = "+"
            if json_name is None:
                continue
            shown = json_name
        if "repeated " in field[0]:
            kind = f"[{kind}"
        yield field["number"], f"{shown}:{kind}"


def _type(owner: str, text: str, messages: dict[str, str]) -> str | None:
    if text.startswith("map<"):
        inner = _type(owner, text[4:-1].split(",")[1].strip(), messages)
        return None if inner is None else "{" + inner
    if text in _SCALARS:
        return _SCALARS[text]
    module = owner.partition(".")[0]
    name = text.rpartition(".")[2]
    if "." not in text:
        if name in ("Time", "MicroTime", "FieldsV1"):
            return "r" if name == "FieldsV1" else "t"
        return "l" if name in _LISTS else f"@{module}.{name}"
    full = text.lstrip(".")
    if full in _SPECIAL:
        return _SPECIAL[full]
    if name in _LISTS:
        return "l"
    reference = f"{_module(full.rpartition('.')[0])}.{name}"
    return f"@{reference}" if reference in messages else None


if __name__ == "__main__":
    TARGET.write_text(render([Path(argument) for argument in sys.argv[1:]]))
