"""What a pod's volumes hold: from the manifest to files, directories and mounts. Pure, but for `write_files`.

A volume that one machine cannot give raises VolumeError with the reason that the Event shows.
"""

import base64
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tulle.local.api.objects import Obj
from tulle.local.net.model import Mount
from tulle.local.pods.environment import ConfigError, Lookup, expand, field_value, resource_value
from tulle.local.pods.spec import quantity

__all__ = [
    "API_MOUNT",
    "API_VOLUME",
    "API_VOLUMES",
    "Directory",
    "File",
    "Files",
    "HostPath",
    "TokenWish",
    "VolumeContent",
    "VolumeError",
    "api_access",
    "config_map_data",
    "content",
    "mounts",
    "secret_data",
    "token_wishes",
    "write_files",
]  # fmt: skip

API_VOLUMES = "kube-api-access-"
"""How the names of automatic token volumes begin, also of those that an API writes into pods itself."""

API_VOLUME = f"{API_VOLUMES}tulle"
API_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_SECONDS = 3607
"""Life of the automatic token: an hour and the seven seconds by which a cluster marks it."""

MEMORY_BYTES = 64 * 2**20
"""Size of an emptyDir in memory without a sizeLimit."""


class VolumeError(Exception):
    """A volume cannot be made (yet); the text says which and why."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a volume; `mode` as in chmod."""

    data: bytes
    mode: int


@dataclass(frozen=True, slots=True)
class Files:
    """A volume of files by relative path."""

    files: Mapping[str, File]


@dataclass(frozen=True, slots=True)
class Directory:
    """An empty directory; `memory_bytes` when it shall live in memory."""

    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class HostPath:
    """A path of this machine; `kind` is the manifest's type, for instance DirectoryOrCreate."""

    path: str
    kind: str


VolumeContent = Files | Directory | HostPath


@dataclass(frozen=True, slots=True)
class TokenWish:
    """A service-account token that a projected volume wants."""

    audience: str
    seconds: int
    path: str


def api_access(pod: Obj, service_account: Obj | None) -> Obj | None:
    """Return the volume that gives a pod its API token, unless it or its account opted out."""
    wish = pod["spec"].get("automountServiceAccountToken")
    if wish is None and service_account is not None:
        wish = service_account.get("automountServiceAccountToken")
    if wish is False:
        return None
    ca = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    namespace = {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
        {"configMap": ca},
        {"downwardAPI": {"items": [namespace]}},
    ]
    return {"name": API_VOLUME, "projected": {"sources": sources, "defaultMode": 0o644}}


def token_wishes(volume: Obj) -> Iterator[TokenWish]:
    """Yield the tokens that a volume needs before `content` can be asked."""
    for source in (volume.get("projected") or {}).get("sources") or ():
        wish = source.get("serviceAccountToken")
        if wish:
            yield TokenWish(
                wish.get("audience") or "", int(wish.get("expirationSeconds") or 3600), wish["path"]
            )


def content(volume: Obj, lookup: Lookup, tokens: Mapping[TokenWish, str]) -> VolumeContent:
    """Return what a volume holds.

    Raises VolumeError when something it names is missing, or a volume of this kind needs a cluster.
    """
    name = volume["name"]
    try:
        if "emptyDir" in volume:
            empty = volume["emptyDir"] or {}
            if empty.get("medium") == "Memory":
                return Directory(
                    int(quantity(empty["sizeLimit"])) if empty.get("sizeLimit") else MEMORY_BYTES
                )
            return Directory(None)
        if volume.get("hostPath"):
            return HostPath(volume["hostPath"]["path"], volume["hostPath"].get("type") or "")
        if volume.get("configMap"):
            return Files(
                dict(_config_map(volume["configMap"], lookup, volume["configMap"].get("defaultMode")))
            )
        if volume.get("secret"):
            secret = volume["secret"]
            named = {**secret, "name": secret.get("secretName")}
            return Files(dict(_keyed(named, lookup.secret, "secret", secret.get("defaultMode"))))
        if volume.get("downwardAPI"):
            api = volume["downwardAPI"]
            return Files(dict(_downward(api.get("items") or (), lookup, api.get("defaultMode"))))
        if volume.get("projected"):
            return Files(dict(_projected(volume["projected"], lookup, tokens)))
    except ConfigError as error:
        raise VolumeError(f'MountVolume.SetUp failed for volume "{name}": {error}') from error
    kind = next((field for field in volume if field != "name"), "")
    if not kind:
        return Directory(None)
    raise VolumeError(f'volume "{name}": {kind} volumes need a cluster; use emptyDir or hostPath here')


def mounts(
    container: Obj, volumes: Mapping[str, Path], read_only: frozenset[str], env: Mapping[str, str]
) -> list[Mount]:
    """Return a container's mounts; `volumes` maps a volume to where it lies, `read_only` names those of files.

    Raises VolumeError for a mount of a volume that the pod does not have or a subPath that leaves it.
    """
    made = []
    for mount in container.get("volumeMounts") or ():
        name = mount["name"]
        if name not in volumes:
            raise VolumeError(
                f'container {container["name"]} mounts volume "{name}", which the pod does not have'
            )
        source = volumes[name]
        below = mount.get("subPath") or (
            expand(mount["subPathExpr"], env) if mount.get("subPathExpr") else ""
        )
        if below:
            parts = PurePosixPath(below)
            if parts.is_absolute() or ".." in parts.parts:
                raise VolumeError(
                    f'container {container["name"]}: subPath {below!r} leads out of volume "{name}"'
                )
            source = source / parts
        made.append(Mount(str(source), mount["mountPath"], bool(mount.get("readOnly")) or name in read_only))
    return made


def config_map_data(obj: Obj | None) -> Mapping[str, bytes] | None:
    """Return a ConfigMap's entries as bytes."""
    if obj is None:
        return None
    text = {name: value.encode() for name, value in (obj.get("data") or {}).items()}
    return text | {name: base64.b64decode(value) for name, value in (obj.get("binaryData") or {}).items()}


def secret_data(obj: Obj | None) -> Mapping[str, bytes] | None:
    """Return a Secret's entries, decoded."""
    if obj is None:
        return None
    return {name: base64.b64decode(value or "") for name, value in (obj.get("data") or {}).items()}


def write_files(directory: Path, files: Mapping[str, File], stamp: str) -> None:
    """Replace a volume's files all at once: readers see the old set or the new one, never a mixture.

    The layout is a cluster's: the files lie in a stamped directory, `..data` links to it, and each top-level name links
    through `..data`; one rename of that link changes everything.
    """
    directory.mkdir(parents=True, exist_ok=True)
    fresh = directory / f"..{stamp}"
    fresh.mkdir()
    for path, file in files.items():
        target = fresh / _inside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as out:
            out.write(file.data)
        target.chmod(file.mode)
    link = directory / "..data"
    before = os.readlink(link) if link.is_symlink() else None
    pending = directory / "..data_tmp"
    pending.symlink_to(fresh.name)
    os.replace(pending, link)
    wanted = {PurePosixPath(path).parts[0] for path in files}
    for name in wanted:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")
    for entry in directory.iterdir():
        if not entry.name.startswith("..") and entry.name not in wanted:
            entry.unlink()
    if before is not None:
        shutil.rmtree(directory / before, ignore_errors=True)


def _inside(path: str) -> PurePosixPath:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise VolumeError(f"the path {path!r} leads out of its volume")
    return parts


Data = Callable[[str], Mapping[str, bytes] | None]


def _config_map(source: Obj, lookup: Lookup, mode: int | None) -> Iterator[tuple[str, File]]:
    return _keyed(source, lookup.config_map, "configmap", mode)


def _keyed(source: Obj, find: Data, kind: str, mode: int | None) -> Iterator[tuple[str, File]]:
    name, optional = source.get("name") or "", bool(source.get("optional"))
    data = find(name)
    if data is None:
        if optional:
            return
        raise ConfigError(f'{kind} "{name}" not found')
    default = 0o644 if mode is None else mode
    if not source.get("items"):
        for key, value in data.items():
            yield key, File(value, default)
        return
    for item in source["items"]:
        if item["key"] not in data:
            if optional:
                continue
            raise ConfigError(f'{kind} "{name}" has no key {item["key"]}')
        yield item["path"], File(data[item["key"]], default if item.get("mode") is None else item["mode"])


def _downward(
    items: Iterator[Obj] | tuple[Obj, ...], lookup: Lookup, mode: int | None
) -> Iterator[tuple[str, File]]:
    default = 0o644 if mode is None else mode
    for item in items:
        if item.get("fieldRef"):
            text = field_value(item["fieldRef"]["fieldPath"], lookup.pod)
        else:
            text = resource_value(item["resourceFieldRef"], {}, lookup)
        yield item["path"], File(text.encode(), default if item.get("mode") is None else item["mode"])


def _projected(volume: Obj, lookup: Lookup, tokens: Mapping[TokenWish, str]) -> Iterator[tuple[str, File]]:
    mode = volume.get("defaultMode")
    default = 0o644 if mode is None else mode
    wishes = {wish.path: wish for wish in token_wishes({"name": "", "projected": volume})}
    for source in volume.get("sources") or ():
        if source.get("serviceAccountToken"):
            path = source["serviceAccountToken"]["path"]
            yield path, File(tokens[wishes[path]].encode(), default)
        elif source.get("configMap"):
            yield from _keyed(source["configMap"], lookup.config_map, "configmap", mode)
        elif source.get("secret"):
            yield from _keyed(source["secret"], lookup.secret, "secret", mode)
        elif source.get("downwardAPI"):
            yield from _downward(source["downwardAPI"].get("items") or (), lookup, mode)
        else:
            raise ConfigError(f"projected source {', '.join(source)} is not carried out here")
