"""Who owns which field: sets of field paths, and their form in metadata.managedFields (FieldsV1).

A path is a tuple of elements as FieldsV1 spells them: `f:name` a field or map key, `k:{"name":"x"}` an entry of a keyed
list, `v:"x"` a member of a set. A set holds leaves, atomic values and, besides their fields, the entries of keyed lists.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from tulle.local.api.objects import Obj
from tulle.local.api.schema import Schema

__all__ = [
    "Delta",
    "FieldSet",
    "Path",
    "decode_fields",
    "delta",
    "dotted",
    "encode_fields",
    "entry_key",
    "field_set",
    "holds",
    "is_keyed",
    "set_element",
]

Path: TypeAlias = tuple[str, ...]
FieldSet: TypeAlias = frozenset[Path]

UNOWNED = frozenset(
    {
        ("f:apiVersion",),
        ("f:kind",),
        *(
            ("f:metadata", f"f:{name}")
            for name in (
                "creationTimestamp",
                "deletionGracePeriodSeconds",
                "deletionTimestamp",
                "generateName",
                "generation",
                "managedFields",
                "name",
                "namespace",
                "resourceVersion",
                "selfLink",
                "uid",
            )
        ),
    }
)
"""What identifies an object or is set by the API itself: nobody owns it."""


def is_keyed(schema: Schema, items: list[Any]) -> bool:
    """Tell whether a list merges by keys: its schema says so and every entry is an object."""
    return bool(schema.list_keys) and all(isinstance(item, dict) for item in items)


def entry_key(schema: Schema, item: Obj) -> str:
    """Return the path element of a keyed list's entry; a missing key counts as its default."""
    keys: Obj = {}
    for key in sorted(schema.list_keys):
        value = item.get(key)
        if value is None:
            known = schema.element.child(key)
            value = known.default if known.has_default else _KEY_DEFAULTS.get(key)
        if value is not None:
            keys[key] = value
    return "k:" + msgspec.json.encode(keys).decode()


_KEY_DEFAULTS = {"protocol": "TCP"}


def set_element(value: Any) -> str:
    """Return the path element of a set's member."""
    return "v:" + msgspec.json.encode(value).decode()


def field_set(schema: Schema, value: Any) -> FieldSet:
    """Return the paths that an object sets."""
    return frozenset(path for path in _leaves(schema, value, ()) if path not in UNOWNED)


def _leaves(schema: Schema, value: Any, path: Path) -> Iterator[Path]:
    if isinstance(value, dict) and value and not schema.atomic:
        for key, item in value.items():
            yield from _leaves(schema.child(key), item, (*path, f"f:{key}"))
    elif isinstance(value, list) and value and schema.list_set:
        for item in value:
            yield (*path, set_element(item))
    elif isinstance(value, list) and value and is_keyed(schema, value):
        for item in value:
            here = (*path, entry_key(schema, item))
            yield here
            for key, inner in item.items():
                yield from _leaves(schema.element.child(key), inner, (*here, f"f:{key}"))
    elif path:
        yield path


@dataclass(frozen=True, slots=True)
class Delta:
    """What a write changed: paths set to another value or new, and paths that are gone."""

    changed: FieldSet
    removed: FieldSet


def delta(schema: Schema, old: Any, new: Any) -> Delta:
    """Compare two versions of an object."""
    changed: set[Path] = set()
    removed: set[Path] = set()
    _compare(schema, old, new, (), changed, removed)
    return Delta(frozenset(changed - UNOWNED), frozenset(removed - UNOWNED))


def _compare(schema: Schema, old: Any, new: Any, path: Path, changed: set[Path], removed: set[Path]) -> None:
    if old is new or old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict) and old and new and not schema.atomic:
        for key in old.keys() | new.keys():
            here, child = (*path, f"f:{key}"), schema.child(key)
            if key not in new:
                removed.update(_leaves(child, old[key], here))
            elif key not in old:
                changed.update(_leaves(child, new[key], here))
            else:
                _compare(child, old[key], new[key], here, changed, removed)
    elif (
        isinstance(old, list)
        and isinstance(new, list)
        and old
        and new
        and (schema.list_set or _both_keyed(schema, old, new))
    ):
        before, after = set(_leaves(schema, old, path)), set(_leaves(schema, new, path))
        removed |= before - after
        changed |= after - before
        if schema.list_keys:
            entries = {entry_key(schema, item): item for item in old}
            for item in new:
                key = entry_key(schema, item)
                if key in entries:
                    _compare(schema.element, entries[key], item, (*path, key), changed, removed)
    else:
        before, after = set(_leaves(schema, old, path)), set(_leaves(schema, new, path))
        removed |= before - after
        changed |= after


def _both_keyed(schema: Schema, old: list[Any], new: list[Any]) -> bool:
    return is_keyed(schema, old) and is_keyed(schema, new)


def encode_fields(paths: Iterable[Path]) -> Obj:
    """Write a set as FieldsV1."""
    root: Obj = {}
    for path in sorted(paths):
        node = root
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}
    _fold(root)
    return root


def _fold(node: Obj) -> None:
    for element, inner in node.items():
        if element != ".":
            if len(inner) == 1 and "." in inner:
                inner.clear()
            else:
                _fold(inner)


def decode_fields(fields: Obj) -> FieldSet:
    """Read FieldsV1."""
    return frozenset(_unfold(fields, ()))


def _unfold(node: Obj, path: Path) -> Iterator[Path]:
    if not node and path:
        yield path
    for element, inner in node.items():
        if element == ".":
            yield path
        else:
            yield from _unfold(inner if isinstance(inner, dict) else {}, (*path, element))


def holds(fields: Obj, path: Path) -> bool:
    """Tell whether FieldsV1 holds a path, without reading all of it."""
    node = fields
    for element in path:
        inner = node.get(element)
        if not isinstance(inner, dict):
            return False
        node = inner
    return not node or "." in node


def dotted(path: Path) -> str:
    """Write a path as messages show it: .spec.containers[name="app"].image."""
    text = ""
    for element in path:
        kind, _, rest = element.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            keys = msgspec.json.decode(rest)
            text += (
                "["
                + ",".join(f"{key}={msgspec.json.encode(keys[key]).decode()}" for key in sorted(keys))
                + "]"
            )
        else:
            text += f"[={rest}]"
    return text
