"""CustomResourceDefinitions: what do they serve, what does their status say. Pure."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from tulle.local.api.lifecycle import timestamp
from tulle.local.api.objects import Obj
from tulle.local.api.registry import ResourceType, VersionedSchema
from tulle.local.api.structural import parse_root

__all__ = ["CLEANUP", "KEY", "is_established", "resource_type", "settle", "warnings_for"]

KEY = "customresourcedefinitions.apiextensions.k8s.io"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
"""The finalizer that holds a definition until its last object is gone."""


def warnings_for(obj: Obj) -> Iterator[str]:
    """Yield what the API does not carry out of a definition."""
    for version in obj["spec"].get("versions") or ():
        found = sum(1 for _ in _rules((version.get("schema") or {}).get("openAPIV3Schema")))
        if found:
            name = f"{obj['metadata']['name']} {version['name']}"
            yield f"{name}: {found} x-kubernetes-validations (CEL) are not evaluated by this API"


def _rules(raw: Any) -> Iterator[Obj]:
    if isinstance(raw, dict):
        if isinstance(raw.get("x-kubernetes-validations"), list):
            yield from raw["x-kubernetes-validations"]
        for value in raw.values():
            yield from _rules(value)
    elif isinstance(raw, list):
        for value in raw:
            yield from _rules(value)


def settle(obj: Obj, others: Iterable[ResourceType], now: datetime) -> None:
    """Write a definition's status and cleanup finalizer, in place: accepted names, conditions, stored versions."""
    spec = obj["spec"]
    metadata = obj["metadata"]
    if "deletionTimestamp" not in metadata and CLEANUP not in (metadata.get("finalizers") or ()):
        metadata["finalizers"] = [*(metadata.get("finalizers") or ()), CLEANUP]
    clash = _clash(spec, others)
    status = dict(obj.get("status") or {})
    stored = next(version["name"] for version in spec["versions"] if version.get("storage"))
    versions = list(status.get("storedVersions") or ())
    status["storedVersions"] = versions if stored in versions else [*versions, stored]
    status["acceptedNames"] = {} if clash else dict(spec["names"])
    before = {condition["type"]: condition for condition in status.get("conditions") or ()}
    accepted = ("False", clash[0], clash[1]) if clash else ("True", "NoConflicts", "no conflicts found")
    if clash:
        established = ("False", "NotAccepted", "not all names are accepted")
    else:
        established = ("True", "InitialNamesAccepted", "the initial names have been accepted")
    status["conditions"] = [
        _condition(before.get(kind), kind, *state, now)
        for kind, state in (("NamesAccepted", accepted), ("Established", established))
    ]
    obj["status"] = status


def _condition(before: Obj | None, kind: str, status: str, reason: str, message: str, now: datetime) -> Obj:
    changed = timestamp(now)
    if before is not None and before.get("status") == status:
        changed = before.get("lastTransitionTime", changed)
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": changed,
    }


def _clash(spec: Obj, others: Iterable[ResourceType]) -> tuple[str, str] | None:
    names = spec["names"]
    for other in others:
        if other.group != spec["group"] or (other.is_custom and other.plural == names["plural"]):
            continue
        if other.plural == names["plural"]:
            return "PluralConflict", f'"{names["plural"]}" is already in use'
        if other.kind == names["kind"]:
            return "KindConflict", f'"{names["kind"]}" is already in use'
        taken = set(other.short_names) & set(names.get("shortNames") or ())
        if taken:
            return "ShortNamesConflict", f'"{min(taken)}" is already in use'
    return None


def is_established(obj: Obj) -> bool:
    """Tell whether a definition's resource is served."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)


def resource_type(obj: Obj) -> ResourceType:
    """Return the resource that a definition describes."""
    spec = obj["spec"]
    names = spec["names"]
    stored = next(version for version in spec["versions"] if version.get("storage"))
    return ResourceType(
        spec["group"],
        stored["name"],
        names["plural"],
        names["kind"],
        spec["scope"] == "Namespaced",
        singular=names.get("singular") or names["kind"].lower(),
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        schema=parse_root((stored.get("schema") or {}).get("openAPIV3Schema")),
        custom=tuple(_served(spec, version) for version in spec["versions"] if version.get("served")),
        list_kind=names.get("listKind") or f"{names['kind']}List",
    )


def _served(spec: Obj, version: Obj) -> VersionedSchema:
    subresources = version.get("subresources") or {}
    api_version = f"{spec['group']}/{version['name']}"
    warning = version.get("deprecationWarning") or f"{api_version} {spec['names']['kind']} is deprecated"
    return VersionedSchema(
        version["name"],
        parse_root((version.get("schema") or {}).get("openAPIV3Schema")),
        tuple(version.get("additionalPrinterColumns") or ()),
        "status" in subresources,
        subresources.get("scale"),
        tuple(str(field["jsonPath"]).lstrip(".") for field in version.get("selectableFields") or ()),
        warning if version.get("deprecated") else "",
    )
