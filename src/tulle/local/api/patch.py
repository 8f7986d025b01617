"""The three patches that describe a change: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch.

All pure: they return a new object and leave the old one alone. Server-side apply is another matter: see apply.py.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from tulle.local.api.errors import ApiError, bad_request
from tulle.local.api.objects import Obj, copy_json
from tulle.local.api.schema import Schema

__all__ = ["MAX_OPERATIONS", "PatchKind", "json_patch", "merge_patch", "strategic_merge"]

PatchKind: TypeAlias = Literal["json", "merge", "strategic", "apply"]

MAX_OPERATIONS = 10_000
"""Operations in one JSON patch; more are refused, as in a cluster."""


def _rejected(why: str) -> ApiError:
    message = f"the server rejected our request due to an error in our request: {why}"
    return ApiError(422, "Invalid", message)


# --- JSON patch ---------------------------------------------------------------------------------------------------


def json_patch(obj: Obj, operations: Any) -> Obj:
    """Apply a JSON patch; raise 400 for a malformed one and 422 for one that does not fit the object."""
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is an array of operations")
    if len(operations) > MAX_OPERATIONS:
        raise ApiError(
            413,
            "RequestEntityTooLarge",
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}",
        )
    document: Any = copy_json(obj)
    for operation in operations:
        if (
            not isinstance(operation, dict)
            or "op" not in operation
            or not isinstance(operation.get("path"), str)
        ):
            raise bad_request("each operation of a JSON patch needs op and path")
        document = _operate(document, operation)
    if not isinstance(document, dict):
        raise _rejected("the patched document is not an object")
    return document


def _operate(document: Any, operation: Obj) -> Any:
    path = _pointer(operation["path"])
    match operation["op"]:
        case "add":
            return _insert(document, path, copy_json(_operand(operation)))
        case "remove":
            return _remove(document, path)
        case "replace":
            _find(document, path)
            value = copy_json(_operand(operation))
            return _insert(_remove(document, path), path, value) if path else value
        case "move":
            origin = _origin(operation)
            if path[: len(origin)] == origin and len(path) > len(origin):
                raise _rejected(f"cannot move {operation['from']} into itself")
            value = _find(document, origin)
            return _insert(_remove(document, origin), path, value)
        case "copy":
            return _insert(document, path, copy_json(_find(document, _origin(operation))))
        case "test":
            if _find(document, path) != _operand(operation):
                raise _rejected(f"testing path {operation['path']} failed")
            return document
        case other:
            raise bad_request(f'unknown JSON patch operation "{other}"')


def _origin(operation: Obj) -> list[str]:
    if not isinstance(operation.get("from"), str):
        raise bad_request(f"the {operation['op']} operation to {operation['path']} needs a from")
    return _pointer(operation["from"])


def _operand(operation: Obj) -> Any:
    if "value" not in operation:
        raise bad_request(f"the {operation['op']} operation at {operation['path']} needs a value")
    return operation["value"]


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise bad_request(f'a JSON pointer starts with "/": {text}')
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _index(items: list[Any], token: str, *, end: int) -> int:
    if (
        not (token == "0" or (token.isdigit() and token.isascii() and not token.startswith("0")))
        or int(token) >= end
    ):
        raise _rejected(f'no index "{token}" in a list of {len(items)}')
    return int(token)


def _find(document: Any, path: Sequence[str]) -> Any:
    for token in path:
        if isinstance(document, dict) and token in document:
            document = document[token]
        elif isinstance(document, list):
            document = document[_index(document, token, end=len(document))]
        else:
            raise _rejected(f"path /{'/'.join(path)} does not exist")
    return document


def _insert(document: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    parent = _find(document, path[:-1])
    if isinstance(parent, dict):
        parent[path[-1]] = value
    elif isinstance(parent, list):
        index = len(parent) if path[-1] == "-" else _index(parent, path[-1], end=len(parent) + 1)
        parent.insert(index, value)
    else:
        raise _rejected(f"path /{'/'.join(path)} is inside a value that is no object or list")
    return document


def _remove(document: Any, path: Sequence[str]) -> Any:
    if not path:
        return None
    parent = _find(document, path[:-1])
    if isinstance(parent, dict) and path[-1] in parent:
        del parent[path[-1]]
    elif isinstance(parent, list):
        del parent[_index(parent, path[-1], end=len(parent))]
    else:
        raise _rejected(f"path /{'/'.join(path)} does not exist")
    return document


# --- merge patch --------------------------------------------------------------------------------------------------


def merge_patch(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch: objects merge, null deletes, everything else replaces."""
    if not isinstance(patch, dict):
        return copy_json(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


# --- strategic merge patch ----------------------------------------------------------------------------------------

_ORDER, _DELETE_FROM = "$setElementOrder/", "$deleteFromPrimitiveList/"


def strategic_merge(schema: Schema, target: Any, patch: Any) -> Any:
    """Apply a strategic merge patch: as a merge patch, but keyed lists merge entry by entry.

    Understands the directives `$patch` (replace, delete, merge), `$retainKeys`, `$setElementOrder/<field>` and
    `$deleteFromPrimitiveList/<field>`; raises 400 for others.
    """
    if not isinstance(patch, dict):
        return copy_json(patch)
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: copy_json(value) for key, value in patch.items() if not key.startswith("$")}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise bad_request(f'unknown $patch directive "{directive}"')
    merged = dict(target) if isinstance(target, dict) else {}
    if "$retainKeys" in patch:
        kept = set(patch["$retainKeys"] or ())
        merged = {key: value for key, value in merged.items() if key in kept}
    for key, value in patch.items():
        if key in ("$patch", "$retainKeys"):
            continue
        if key.startswith(_DELETE_FROM):
            field = key.removeprefix(_DELETE_FROM)
            merged[field] = [item for item in merged.get(field) or () if item not in (value or ())]
        elif key.startswith(_ORDER):
            continue
        elif key.startswith("$"):
            raise bad_request(f'unknown directive "{key}" in a strategic merge patch')
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge_field(schema.child(key), merged.get(key), value)
    for key, order in patch.items():
        if key.startswith(_ORDER):
            field = key.removeprefix(_ORDER)
            if isinstance(merged.get(field), list):
                before = target.get(field) if isinstance(target, dict) else None
                merged[field] = _ordered(schema.child(field), before or [], merged[field], order or [])
    return merged


def _merge_field(schema: Schema, target: Any, value: Any) -> Any:
    if isinstance(value, list):
        return _merge_list(schema, target if isinstance(target, list) else [], value)
    if isinstance(value, dict):
        return strategic_merge(schema, target if isinstance(target, dict) else {}, value)
    return copy_json(value)


def _merge_list(schema: Schema, target: list[Any], patch: list[Any]) -> list[Any]:
    if any(isinstance(entry, dict) and entry.get("$patch") == "replace" for entry in patch):
        return [copy_json(e) for e in patch if not (isinstance(e, dict) and e.get("$patch") == "replace")]
    if schema.list_set:
        return target + [entry for entry in patch if entry not in target]
    if not schema.list_keys:
        return [_plain(entry) for entry in patch]
    key = schema.list_keys[0]
    merged = list(target)
    for entry in patch:
        if not isinstance(entry, dict) or key not in entry:
            raise bad_request(f"map: {entry} does not contain declared merge key: {key}")
        position = next(
            (i for i, old in enumerate(merged) if isinstance(old, dict) and old.get(key) == entry[key]), -1
        )
        if entry.get("$patch") == "delete":
            merged = [old for old in merged if not (isinstance(old, dict) and old.get(key) == entry[key])]
        elif position < 0:
            merged.append(strategic_merge(schema.element, {}, entry))
        else:
            merged[position] = strategic_merge(schema.element, merged[position], entry)
    return merged


def _plain(value: Any) -> Any:
    """Copy a value into the object without the directives that only a merge would have read."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if not key.startswith("$")}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _ordered(schema: Schema, before: list[Any], merged: list[Any], order: list[Any]) -> list[Any]:
    """Return the merged list in the order that the patch asks for; entries it does not know keep their place."""
    key = schema.list_keys[0] if schema.list_keys else None

    def identity(entry: Any) -> Any:
        return entry.get(key) if key and isinstance(entry, dict) else entry

    wanted = {identity(entry): index for index, entry in enumerate(order)}
    place = {identity(entry): index for index, entry in enumerate(before)}
    named = sorted((e for e in merged if identity(e) in wanted), key=lambda e: wanted[identity(e)])
    others = [e for e in merged if identity(e) not in wanted]
    result: list[Any] = []
    while named and others:
        here = place.get(identity(named[0]))
        there = place.get(identity(others[0]))
        if here is not None and there is not None and there < here:
            result.append(others.pop(0))
        else:
            result.append(named.pop(0))
    return result + named + others
