"""Kubernetes objects as plain JSON data: what they are, how they are copied and addressed."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec

__all__ = [
    "EventType",
    "Obj",
    "ObjList",
    "WatchEvent",
    "copy_json",
    "lookup",
    "meta",
    "name_of",
    "namespace_of",
]

Obj: TypeAlias = dict[str, Any]
EventType: TypeAlias = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


@dataclass(slots=True)
class ObjList:
    """A consistent list: the objects and the resource version at which they were read."""

    items: list[Obj]
    resource_version: str
    continue_token: str = ""
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change as a watcher sees it; a BOOKMARK carries only a resource version."""

    type: EventType
    object: Obj = field(repr=False)

    @property
    def resource_version(self) -> str:
        """Return the version to continue a broken watch from."""
        version: str = self.object["metadata"]["resourceVersion"]
        return version


def copy_json(value: Any) -> Any:
    """Return a deep copy of JSON data.

    MessagePack there and back costs a tenth of copy.deepcopy; what it cannot say (huge integers) is copied by hand.
    """
    if not isinstance(value, (dict, list)):
        return value
    try:
        return _unpack(_pack(value))
    except (OverflowError, TypeError, ValueError):
        return _copied(value)


_pack, _unpack = msgspec.msgpack.encode, msgspec.msgpack.decode


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def meta(obj: Obj) -> Obj:
    """Return the object's metadata, made when it is missing or null."""
    metadata = obj.get("metadata")
    if metadata is None:
        metadata = obj["metadata"] = {}
    assert isinstance(metadata, dict)
    return metadata


def name_of(obj: Obj) -> str:
    """Return metadata.name, or an empty string."""
    return str((obj.get("metadata") or {}).get("name") or "")


def namespace_of(obj: Obj) -> str | None:
    """Return metadata.namespace, or None."""
    namespace = (obj.get("metadata") or {}).get("namespace")
    return str(namespace) if namespace else None


def lookup(obj: Any, path: Iterable[str]) -> Any:
    """Return the value at a path of keys, or None where it ends early."""
    for key in path:
        if not isinstance(obj, dict):
            return None
        obj = obj.get(key)
    return obj
