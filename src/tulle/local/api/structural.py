"""Custom resources' schemas: read from a CRD's openAPIV3Schema into the node model, defaults, checks of values. Pure."""

import math
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from tulle.local.api.errors import Cause
from tulle.local.api.objects import Obj, copy_json
from tulle.local.api.schema import ANYTHING, JsonType, Schema, builtin, mismatches

__all__ = ["apply_defaults", "check_values", "parse", "parse_root", "structural_problems"]


def parse_root(raw: Obj | None) -> Schema:
    """Return the schema of a custom resource: the CRD's, with apiVersion, kind and metadata known."""
    if not raw:
        return ANYTHING
    schema = parse(raw)
    fields = dict(schema.properties)
    fields["apiVersion"] = fields["kind"] = Schema("string")
    fields["metadata"] = builtin("meta_v1.ObjectMeta")
    schema.fields = fields
    schema.type = "object"
    return schema


def parse(raw: Obj) -> Schema:
    """Read one node of an openAPIV3Schema."""
    kind: JsonType = raw.get("type", "")
    schema = Schema(kind, raw=raw, format=str(raw.get("format", "")))
    if raw.get("x-kubernetes-int-or-string"):
        schema.type, schema.format = "string", "int-or-string"
    schema.nullable = bool(raw.get("nullable"))
    schema.preserve_unknown = bool(raw.get("x-kubernetes-preserve-unknown-fields")) or not schema.type
    schema.required = tuple(raw.get("required") or ())
    if raw.get("properties"):
        schema.fields = {key: parse(value) for key, value in raw["properties"].items()}
    additional = raw.get("additionalProperties")
    if isinstance(additional, dict):
        schema.values = parse(additional)
    elif additional is True:
        schema.values = ANYTHING
    if raw.get("x-kubernetes-embedded-resource"):
        schema.embedded = True
        own = {
            "apiVersion": Schema("string"),
            "kind": Schema("string"),
            "metadata": builtin("meta_v1.ObjectMeta"),
        }
        schema.fields = {**schema.properties, **own}
    if isinstance(raw.get("items"), dict):
        schema.items = parse(raw["items"])
    list_type = raw.get("x-kubernetes-list-type", "atomic")
    if schema.type == "array":
        schema.list_keys = tuple(raw.get("x-kubernetes-list-map-keys") or ()) if list_type == "map" else ()
        schema.list_set = list_type == "set"
        schema.atomic = list_type == "atomic"
    elif schema.type == "object":
        schema.atomic = raw.get("x-kubernetes-map-type") == "atomic"
    if "default" in raw:
        schema.default, schema.has_default = raw["default"], True
    return schema


def apply_defaults(schema: Schema, value: Any) -> None:
    """Fill in, in place, the defaults of a schema; null where null is not allowed counts as absent."""
    if isinstance(value, dict):
        for key, child in schema.properties.items():
            if child.has_default and (key not in value or (value[key] is None and not child.nullable)):
                value[key] = copy_json(child.default)
        for key, item in value.items():
            if isinstance(item, (dict, list)):
                apply_defaults(schema.child(key), item)
    elif isinstance(value, list) and schema.items is not None:
        for item in value:
            apply_defaults(schema.items, item)


def check_values(schema: Schema, value: Any, path: str = "") -> Iterator[Cause]:
    """Yield what is wrong with a custom resource's values, as its schema says."""
    if value is None:
        if not schema.nullable and schema.type and path:
            yield Cause.wrong_type(path, value, schema.type)
        return
    raw = schema.raw
    if isinstance(value, dict):
        yield from _check_object(schema, value, path)
    elif isinstance(value, list):
        yield from _check_list(schema, value, path)
    elif isinstance(value, str):
        yield from _check_text(raw, value, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _check_number(raw, value, path)
    if raw.get("enum") is not None and value not in raw["enum"]:
        yield Cause.unsupported(path, value, [str(item) for item in raw["enum"]])
    yield from _check_combinations(raw, value, path)


def _check_object(schema: Schema, value: Obj, path: str) -> Iterator[Cause]:
    raw = schema.raw
    for key in schema.required:
        if key not in value:
            yield Cause.required(f"{path}.{key}" if path else key)
    if "minProperties" in raw and len(value) < raw["minProperties"]:
        yield Cause.invalid(
            path, len(value), f"{path} in body should have at least {raw['minProperties']} properties"
        )
    if "maxProperties" in raw and len(value) > raw["maxProperties"]:
        yield Cause(
            path,
            "FieldValueTooMany",
            f"Too many: {len(value)}: must have at most {raw['maxProperties']} items",
        )
    for key, item in value.items():
        if path or key not in ("metadata", "apiVersion", "kind"):
            yield from check_values(schema.child(key), item, f"{path}.{key}" if path else key)


def _check_list(schema: Schema, value: list[Any], path: str) -> Iterator[Cause]:
    raw = schema.raw
    if "minItems" in raw and len(value) < raw["minItems"]:
        yield Cause.invalid(path, len(value), f"{path} in body should have at least {raw['minItems']} items")
    if "maxItems" in raw and len(value) > raw["maxItems"]:
        yield Cause(
            path, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {raw['maxItems']} items"
        )
    seen: list[Any] = []
    for index, item in enumerate(value):
        key: Any = item
        if schema.list_keys and isinstance(item, dict):
            key = {name: item.get(name) for name in schema.list_keys}
        if (schema.list_set or schema.list_keys or raw.get("uniqueItems")) and key in seen:
            yield Cause.duplicate(f"{path}[{index}]", key)
        seen.append(key)
        yield from check_values(schema.element, item, f"{path}[{index}]")


def _check_text(raw: Obj, value: str, path: str) -> Iterator[Cause]:
    if "maxLength" in raw and len(value) > raw["maxLength"]:
        yield Cause(path, "FieldValueTooLong", f"Too long: may not be more than {raw['maxLength']} bytes")
    if "minLength" in raw and len(value) < raw["minLength"]:
        yield Cause.invalid(path, value, f"{path} in body should be at least {raw['minLength']} chars long")
    if "pattern" in raw and not _search(raw["pattern"], value):
        yield Cause.invalid(path, value, f"{path} in body should match '{raw['pattern']}'")
    if raw.get("format") in _FORMATS and not _FORMATS[raw["format"]](value):
        yield Cause.invalid(path, value, f'{path} in body must be of type {raw["format"]}: "{value}"')


_LONGEST_PATTERN_INPUT = 65536


def _search(pattern: str, value: str) -> bool:
    # Patterns come from whoever may create CRDs; Python's engine backtracks, so what it is given is bounded.
    try:
        return re.search(pattern, value[:_LONGEST_PATTERN_INPUT]) is not None
    except re.error:
        return True


def _is_time(value: str) -> bool:
    try:
        datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return False
    return "T" in value


_FORMATS: dict[str, Callable[[str], bool]] = {
    "date-time": _is_time,
    "uuid": lambda value: (
        re.fullmatch(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}", value) is not None
    ),
    "ipv4": lambda value: re.fullmatch(r"(\d{1,3}\.){3}\d{1,3}", value) is not None,
}


def _check_number(raw: Obj, value: float, path: str) -> Iterator[Cause]:
    low, high = raw.get("minimum"), raw.get("maximum")
    if low is not None and (value < low or (raw.get("exclusiveMinimum") and value == low)):
        word = "greater than" if raw.get("exclusiveMinimum") else "greater than or equal to"
        yield Cause.invalid(path, value, f"{path} in body should be {word} {low}")
    if high is not None and (value > high or (raw.get("exclusiveMaximum") and value == high)):
        word = "less than" if raw.get("exclusiveMaximum") else "less than or equal to"
        yield Cause.invalid(path, value, f"{path} in body should be {word} {high}")
    step = raw.get("multipleOf")
    if step and not math.isclose(value / step, round(value / step)):
        yield Cause.invalid(path, value, f"{path} in body should be a multiple of {step}")
    if raw.get("format") == "int32" and not -(2**31) <= value < 2**31:
        yield Cause.invalid(path, value, f"{path} in body must be of type int32")


def _check_combinations(raw: Obj, value: Any, path: str) -> Iterator[Cause]:
    for part in raw.get("allOf") or ():
        yield from check_values(parse(part), value, path or "")
    for word, wanted in (("anyOf", "at least one"), ("oneOf", "exactly one")):
        parts = raw.get(word)
        if not parts:
            continue
        fitting = sum(_fits(part, value, path) for part in parts)
        if fitting == 0 or (word == "oneOf" and fitting > 1):
            yield Cause.invalid(path, "object", f'"{path}" must validate {wanted} schema ({word})')
    if raw.get("not") and _fits(raw["not"], value, path):
        yield Cause.invalid(path, "object", f'"{path}" must not validate the schema (not)')


def _fits(raw: Obj, value: Any, path: str) -> bool:
    schema = parse(raw)
    return (
        next(mismatches(schema, value, path), None) is None
        and next(check_values(schema, value, path), None) is None
    )


def structural_problems(raw: Any, path: str) -> Iterator[Cause]:
    """Yield why a CRD's schema is not structural: a type must stand at every node."""
    if not isinstance(raw, dict):
        yield Cause.invalid(path, raw, "must be a schema object")
        return
    free = raw.get("x-kubernetes-int-or-string") or raw.get("x-kubernetes-preserve-unknown-fields")
    if not raw.get("type") and not free:
        yield Cause.required(f"{path}.type", "must not be empty for specified object fields")
    for key, child in (raw.get("properties") or {}).items():
        yield from structural_problems(child, f"{path}.properties[{key}]")
    if isinstance(raw.get("additionalProperties"), dict):
        if raw.get("properties"):
            yield Cause.forbidden(
                f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive"
            )
        yield from structural_problems(raw["additionalProperties"], f"{path}.additionalProperties")
    if raw.get("type") == "array":
        if not isinstance(raw.get("items"), dict):
            yield Cause.required(f"{path}.items", "must be specified")
        else:
            yield from structural_problems(raw["items"], f"{path}.items")
    for pattern in filter(None, [raw.get("pattern")]):
        try:
            re.compile(pattern)
        except re.error as error:
            yield Cause.invalid(
                f"{path}.pattern", pattern, f"must be a valid regular expression, but isn't: {error}"
            )
