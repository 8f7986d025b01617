"""The shape of objects: one node model for built-in kinds (from kinds.json) and custom resources (from their CRD).

Everything that needs to know types asks it: unknown fields, pruning, type checks, merge keys of patches, ownership of
server-side apply, OpenAPI. Definitions are read when first used; kinds.json is small (names and types only).
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from tulle.local.api import merge_keys
from tulle.local.api.errors import json_type
from tulle.local.api.objects import Obj

__all__ = [
    "ANYTHING",
    "Schema",
    "TypeMismatch",
    "builtin",
    "definition_names",
    "drop_nulls",
    "mismatches",
    "prune",
    "unknown_fields",
]

JsonType: TypeAlias = Literal["object", "array", "string", "integer", "number", "boolean", ""]


@dataclass(slots=True, eq=False)
class Schema:
    """One node. `type` is empty where any JSON is allowed."""

    type: JsonType = ""
    name: str = ""
    """The definition's name, for built-in kinds (`core_v1.Pod`)."""
    format: str = ""
    """`quantity`, `date-time`, `byte`, `int-or-string`, or an OpenAPI format."""
    fields: Mapping[str, "Schema"] | None = None
    required: tuple[str, ...] = ()
    items: "Schema | None" = None
    values: "Schema | None" = None
    """What a map holds."""
    list_keys: tuple[str, ...] = ()
    list_set: bool = False
    atomic: bool = False
    retain_keys: bool = False
    preserve_unknown: bool = False
    embedded: bool = False
    nullable: bool = False
    default: Any = None
    has_default: bool = False
    raw: Obj = field(default_factory=dict, repr=False)
    """The CRD's own schema object, for checks that only custom resources have."""
    definition: str = field(default="", repr=False)
    """For built-in kinds: where `fields` come from; they are resolved on first use, since definitions are recursive."""

    @property
    def int_or_string(self) -> bool:
        """Tell whether both an integer and a text are fine here."""
        return self.format == "int-or-string"

    @property
    def properties(self) -> Mapping[str, "Schema"]:
        """Return the known fields of an object (empty for maps and free objects)."""
        if self.fields is None:
            self.fields = _resolve(self.definition) if self.definition else {}
        return self.fields

    @property
    def closed(self) -> bool:
        """Tell whether a field that is not in `properties` is unknown."""
        return self.type == "object" and not self.preserve_unknown and self.values is None

    def child(self, key: str) -> "Schema":
        """Return the schema of an object's field or a map's value; anything when it is unknown."""
        return self.properties.get(key) or self.values or ANYTHING

    @property
    def element(self) -> "Schema":
        """Return the schema of a list's entries."""
        return self.items or ANYTHING


ANYTHING = Schema(preserve_unknown=True)


@functools.cache
def _definitions() -> dict[str, dict[str, str]]:
    return msgspec.json.decode(
        Path(__file__).with_name("kinds.json").read_bytes(), type=dict[str, dict[str, str]]
    )


def definition_names() -> Iterator[str]:
    """Yield the names of all built-in definitions, as `core_v1.Pod`."""
    return iter(_definitions())


@functools.cache
def builtin(name: str) -> Schema:
    """Return the schema of a built-in definition (`core_v1.Pod`); raise KeyError for one that kinds.json lacks."""
    fields = _definitions()[name]
    required = tuple(key for key, kind in fields.items() if kind.startswith("!"))
    return Schema("object", name, required=required, atomic=name in merge_keys.ATOMIC_MAPS, definition=name)


def _resolve(name: str) -> dict[str, Schema]:
    keys = merge_keys.LIST_KEYS.get(name, {})
    sets = merge_keys.LIST_SETS.get(name, frozenset())
    retain = merge_keys.RETAIN_KEYS.get(name, frozenset())
    resolved: dict[str, Schema] = {}
    for key, kind in _definitions()[name].items():
        schema = _parse(kind.removeprefix("!"))
        marks: Obj = {}
        if key in keys:
            marks["list_keys"] = keys[key]
        if key in sets:
            marks["list_set"] = True
        if key in retain:
            marks["retain_keys"] = True
        if f"{name}.{key}" in merge_keys.ATOMIC_MAPS:
            marks["atomic"] = True
        if schema.type == "array" and not (key in keys or key in sets):
            marks["atomic"] = True
        resolved[key] = _marked(schema, marks) if marks else schema
    return resolved


def _marked(schema: Schema, marks: Obj) -> Schema:
    copy = Schema(
        schema.type,
        schema.name,
        schema.format,
        required=schema.required,
        items=schema.items,
        values=schema.values,
        preserve_unknown=schema.preserve_unknown,
        atomic=schema.atomic,
        definition=schema.definition,
    )
    for mark, value in marks.items():
        setattr(copy, mark, value)
    return copy


_SCALARS: dict[str, tuple[JsonType, str]] = {
    "s": ("string", ""),
    "i": ("integer", ""),
    "n": ("number", ""),
    "b": ("boolean", ""),
    "t": ("string", "date-time"),
    "y": ("string", "byte"),
    "q": ("string", "quantity"),
    "x": ("string", "int-or-string"),
}


@functools.cache
def _parse(kind: str) -> Schema:
    if kind in _SCALARS:
        json, form = _SCALARS[kind]
        return Schema(json, format=form)
    match kind[0]:
        case "[":
            return Schema("array", items=_parse(kind[1:]))
        case "{":
            return Schema("object", values=_parse(kind[1:]))
        case "@":
            return builtin(kind[1:])
        case "o":
            return Schema("object", preserve_unknown=True, atomic=True)
        case _:
            return ANYTHING


def unknown_fields(schema: Schema, value: Any, path: str = "") -> Iterator[str]:
    """Yield the path of every field that the schema does not have (`spec.template.spec.containers[0].imagee`)."""
    if isinstance(value, dict):
        properties = schema.properties
        if schema.preserve_unknown and not properties:
            return
        closed = schema.closed
        for key, item in value.items():
            where = f"{path}.{key}" if path else key
            if closed and key not in properties:
                yield where
            elif isinstance(item, (dict, list)):
                yield from unknown_fields(schema.child(key), item, where)
    elif isinstance(value, list) and schema.items is not None:
        for index, item in enumerate(value):
            yield from unknown_fields(schema.items, item, f"{path}[{index}]")


def prune(schema: Schema, value: Any) -> None:
    """Remove, in place, every field that the schema does not have."""
    if isinstance(value, dict):
        properties = schema.properties
        if schema.closed:
            for key in [key for key in value if key not in properties]:
                del value[key]
        for key, item in value.items():
            if isinstance(item, (dict, list)):
                prune(schema.child(key), item)
    elif isinstance(value, list) and schema.items is not None:
        for item in value:
            prune(schema.items, item)


def drop_nulls(schema: Schema, value: Any) -> None:
    """Remove, in place, fields that are null, as a typed decoder does; free-form JSON keeps its nulls."""
    if isinstance(value, dict) and not (schema.preserve_unknown and not schema.properties):
        for key in [key for key, item in value.items() if item is None and not schema.child(key).nullable]:
            del value[key]
        for key, item in value.items():
            if isinstance(item, (dict, list)):
                drop_nulls(schema.child(key), item)
    elif isinstance(value, list) and schema.items is not None:
        for item in value:
            drop_nulls(schema.items, item)


@dataclass(frozen=True, slots=True)
class TypeMismatch:
    """A value of another JSON type than its field has."""

    path: str
    expected: str
    value: Any

    @property
    def found(self) -> str:
        """Return the JSON type that was found."""
        return json_type(self.value)


def mismatches(schema: Schema, value: Any, path: str = "") -> Iterator[TypeMismatch]:
    """Yield every value whose JSON type is not the schema's.

    A null field is never one (it means absent), a null in a list is, unless the schema allows it.
    """
    if value is None or not schema.type:
        return
    if not _fits(schema, value):
        yield TypeMismatch(path, "integer or string" if schema.int_or_string else schema.type, value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from mismatches(schema.child(key), item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and schema.items is not None:
        element = schema.items
        for index, item in enumerate(value):
            if item is None and element.type and not element.nullable:
                yield TypeMismatch(f"{path}[{index}]", element.type, item)
            else:
                yield from mismatches(element, item, f"{path}[{index}]")


def _fits(schema: Schema, value: Any) -> bool:
    match schema.type:
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case _:
            if schema.format in ("int-or-string", "quantity"):
                return isinstance(value, (str, int, float)) and not isinstance(value, bool)
            return isinstance(value, str)
