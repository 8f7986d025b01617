"""Server-side apply and the bookkeeping of field managers.

Apply: the configuration is merged into the live object; what the manager applied before and now leaves out is removed,
unless somebody else owns it; a field that another manager owns with another value is a conflict, or changes hands
with `force`. Every other write takes over the fields that it changes.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tulle.local.api.errors import ApiError
from tulle.local.api.objects import Obj, copy_json
from tulle.local.api.ownership import (
    Delta,
    FieldSet,
    Path,
    decode_fields,
    delta,
    dotted,
    encode_fields,
    entry_key,
    field_set,
    holds,
    is_keyed,
    set_element,
)
from tulle.local.api.schema import Schema

__all__ = [
    "MAX_UPDATE_MANAGERS",
    "Manager",
    "apply_configuration",
    "managers_of",
    "track_update",
    "write_managers",
]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

MAX_UPDATE_MANAGERS = 10
"""Managers kept apart for plain updates; the oldest beyond are folded into one named `ancient-changes`."""


class Manager:
    """One entry of metadata.managedFields. Its fields are read and written only when somebody needs them."""

    __slots__ = ("_encoded", "_fields", "api_version", "name", "operation", "subresource", "time")

    def __init__(
        self,
        name: str,
        operation: str,
        api_version: str,
        time: str,
        fields: FieldSet | None = None,
        subresource: str = "",
        encoded: Obj | None = None,
    ) -> None:
        self.name, self.operation, self.subresource = name, operation, subresource
        self.api_version, self.time = api_version, time
        self._fields, self._encoded = fields, encoded

    def __repr__(self) -> str:
        return f"<Manager {self.name} {self.operation} {self.subresource}>"

    @property
    def fields(self) -> FieldSet:
        """Return the paths that the manager owns."""
        if self._fields is None:
            self._fields = decode_fields(self._encoded or {})
        return self._fields

    @property
    def encoded(self) -> Obj:
        """Return the fields as FieldsV1; empty when the manager owns nothing."""
        if self._encoded is None:
            self._encoded = encode_fields(self._fields or ())
        return self._encoded

    def same_as(self, name: str, operation: str, subresource: str) -> bool:
        """Tell whether an entry is this manager's for an operation."""
        return (self.name, self.operation, self.subresource) == (name, operation, subresource)

    def without(self, paths: FieldSet) -> "Manager":
        """Return the manager after it lost some paths; itself when it owned none of them."""
        encoded = self._encoded
        if encoded is not None and not any(holds(encoded, path) for path in paths):
            return self
        left = self.fields - paths
        return Manager(self.name, self.operation, self.api_version, self.time, left, self.subresource)


def managers_of(obj: Obj) -> list[Manager]:
    """Read metadata.managedFields; entries that make no sense are left out."""
    entries = (obj.get("metadata") or {}).get("managedFields") or ()
    return [
        Manager(
            str(entry.get("manager", "")),
            str(entry.get("operation", "Update")),
            str(entry.get("apiVersion", "")),
            str(entry.get("time", "")),
            subresource=str(entry.get("subresource", "")),
            encoded=entry["fieldsV1"],
        )
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("fieldsV1"), dict)
    ]


def write_managers(obj: Obj, managers: Iterable[Manager]) -> None:
    """Set metadata.managedFields, without managers that own nothing."""
    entries: list[Obj] = []
    for manager in _bounded([manager for manager in managers if manager.encoded]):
        entry: Obj = {
            "apiVersion": manager.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": manager.encoded,
            "manager": manager.name,
            "operation": manager.operation,
            "time": manager.time,
        }
        if manager.subresource:
            entry["subresource"] = manager.subresource
        entries.append(entry)
    if entries:
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


def _bounded(managers: list[Manager]) -> list[Manager]:
    updates = [manager for manager in managers if manager.operation == "Update"]
    if len(updates) <= MAX_UPDATE_MANAGERS:
        return managers
    updates.sort(key=lambda manager: manager.time)
    old = updates[: len(updates) - MAX_UPDATE_MANAGERS + 1]
    fields: FieldSet = frozenset().union(*(manager.fields for manager in old))
    kept = [manager for manager in managers if manager not in old]
    return [*kept, Manager("ancient-changes", "Update", old[-1].api_version, old[-1].time, fields)]


def track_update(
    schema: Schema,
    old: Obj | None,
    new: Obj,
    *,
    manager: str,
    api_version: str,
    time: str,
    subresource: str = "",
) -> None:
    """Write into `new` who owns what after a plain create, update or patch by `manager`.

    managedFields that the client sent (an empty list: forget them all) are taken as the state before the write.
    """
    sent = (new.get("metadata") or {}).get("managedFields")
    managers = managers_of(new) if sent is not None else managers_of(old or {})
    changes: Delta = delta(schema, old or {}, new)
    if old is None:
        changes = Delta(field_set(schema, new), frozenset())
    gone = changes.changed | changes.removed
    updated: list[Manager] = []
    mine: Manager | None = None
    for entry in managers:
        if entry.same_as(manager, "Update", subresource):
            mine = entry
        else:
            updated.append(entry.without(gone))
    fields = ((mine.fields if mine else frozenset()) - changes.removed) | changes.changed
    if mine is not None and fields == mine.fields and not changes.changed:
        updated.append(mine)
    else:
        updated.append(Manager(manager, "Update", api_version, time, fields, subresource))
    write_managers(new, updated)


def apply_configuration(
    schema: Schema,
    live: Obj | None,
    config: Obj,
    *,
    manager: str,
    api_version: str,
    time: str,
    force: bool,
    subresource: str = "",
) -> Obj:
    """Return the live object after `manager` applied `config`; raise 409 that lists conflicts with other managers.

    `live` None: the object is created. The result carries the new managedFields.
    """
    applied = field_set(schema, config)
    managers = managers_of(live or {})
    mine = next((m for m in managers if m.same_as(manager, "Apply", subresource)), None)
    others = [m for m in managers if m is not mine]
    if live is not None:
        changed = delta(schema, live, _merged(schema, live, config)).changed
        contested = [(other, other.fields & applied & changed) for other in others]
        clashes = [(other, paths) for other, paths in contested if paths]
        if clashes and not force and not _upgrades(schema, live, manager, clashes):
            raise _conflicts(clashes)
        others = [m.without(applied & changed) for m in others]
    result: Obj = _merged(schema, live or {}, config)
    if mine is not None:
        kept: FieldSet = applied.union(*(other.fields for other in others))
        _remove(schema, result, (), mine.fields - applied, kept)
    if mine is not None and mine.fields == applied:
        own = mine
    else:
        own = Manager(manager, "Apply", api_version, time, applied, subresource)
    result["metadata"] = dict(result.get("metadata") or {})
    write_managers(result, [*others, own])
    return result


def _upgrades(schema: Schema, live: Obj, manager: str, clashes: Sequence[tuple[Manager, FieldSet]]) -> bool:
    """Tell whether conflicts are only with what kubectl itself applied before, on the client's side: it may go on."""
    last = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
    if manager != "kubectl" or not last:
        return False
    try:
        before = field_set(schema, msgspec.json.decode(last, type=dict[str, Any]))
    except msgspec.DecodeError:
        return False
    return all(paths <= before for _, paths in clashes)


def _merged(schema: Schema, live: Any, config: Any) -> Any:
    if isinstance(config, dict) and isinstance(live, dict) and not schema.atomic:
        merged = dict(live)
        for key, value in config.items():
            merged[key] = _merged(schema.child(key), live[key], value) if key in live else copy_json(value)
        return merged
    if isinstance(config, list) and isinstance(live, list):
        if schema.list_set:
            return [*live, *(item for item in config if item not in live)]
        if schema.list_keys and is_keyed(schema, live) and is_keyed(schema, config):
            return _merged_entries(schema, live, config)
    return copy_json(config)


def _merged_entries(schema: Schema, live: list[Any], config: list[Any]) -> list[Any]:
    """Merge keyed lists: applied entries in the applied order, entries of others before the one they preceded."""
    wanted = {entry_key(schema, item): item for item in config}
    present = {entry_key(schema, item): item for item in live}
    result: list[Any] = []
    queue = [entry_key(schema, item) for item in config]
    for key, item in present.items():
        if key not in wanted:
            result.append(item)
            continue
        while queue:
            first = queue.pop(0)
            result.append(_merged(schema.element, present.get(first, {}), wanted[first]))
            if first == key:
                break
    result.extend(_merged(schema.element, present.get(key, {}), wanted[key]) for key in queue)
    return result


def _remove(schema: Schema, value: Any, path: Path, gone: FieldSet, kept: FieldSet) -> bool:
    """Take paths out of an object in place; tell whether this value is left empty by it and may go as well."""
    if isinstance(value, dict) and not schema.atomic:
        before = len(value)
        for key in list(value):
            here = (*path, f"f:{key}")
            if _goes(here, gone, kept):
                if _within(here, kept):
                    value[key] = _copied_level(value[key])
                    _remove(schema.child(key), value[key], here, gone, kept)
                else:
                    del value[key]
            elif _within(here, gone):
                value[key] = _copied_level(value[key])
                if _remove(schema.child(key), value[key], here, gone, kept) and not _within(here, kept):
                    del value[key]
        return bool(before) and not value
    if isinstance(value, list) and (schema.list_set or is_keyed(schema, value)):
        before = len(value)
        left: list[Any] = []
        for item in value:
            element = entry_key(schema, item) if schema.list_keys else set_element(item)
            here = (*path, element)
            if _goes(here, gone, kept) and not _within(here, kept):
                continue
            if schema.list_keys and _within(here, gone):
                item = dict(item)
                _remove(schema.element, item, here, gone, kept)
            left.append(item)
        value[:] = left
        return bool(before) and not value
    return False


def _copied_level(value: Any) -> Any:
    return value.copy() if isinstance(value, (dict, list)) else value


def _goes(path: Path, gone: FieldSet, kept: FieldSet) -> bool:
    return path in gone and path not in kept


def _within(path: Path, paths: FieldSet) -> bool:
    depth = len(path)
    return any(other[:depth] == path for other in paths)


def _conflicts(clashes: Sequence[tuple[Manager, FieldSet]]) -> ApiError:
    causes: list[Obj] = []
    lines: list[str] = []
    for other, paths in clashes:
        using = f" using {other.api_version}" if other.operation == "Update" else ""
        using += f" at {other.time}" if other.operation == "Update" and other.time else ""
        through = f' with subresource "{other.subresource}"' if other.subresource else ""
        who = f'conflict with "{other.name}"{through}{using}'
        causes += [
            {"reason": "FieldManagerConflict", "message": who, "field": dotted(path)}
            for path in sorted(paths)
        ]
        listed = "\n".join(f"- {dotted(path)}" for path in sorted(paths))
        lines.append(f'conflicts with "{other.name}"{through}{using}:\n{listed}')
    count = len(causes)
    noun = "conflict" if count == 1 else "conflicts"
    if count == 1:
        text = f"{causes[0]['message']}: {causes[0]['field']}"
    else:
        text = "\n".join(lines)
    return ApiError(409, "Conflict", f"Apply failed with {count} {noun}: {text}", {"causes": causes})
