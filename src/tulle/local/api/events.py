"""Events have two forms, core/v1 and events.k8s.io/v1, over one collection, which keeps the core form. Pure."""

from tulle.local.api.objects import Obj

__all__ = ["from_core", "to_core"]

_PAIRS = (
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
)
"""(name in events.k8s.io/v1, name in core/v1); the other fields have the same name in both."""


def to_core(event: Obj) -> Obj:
    """Return an events.k8s.io/v1 Event in the core form."""
    return _renamed(event, dict(_PAIRS), "v1")


def from_core(event: Obj) -> Obj:
    """Return a core Event in the form of events.k8s.io/v1."""
    return _renamed(event, {old: new for new, old in _PAIRS}, "events.k8s.io/v1")


def _renamed(event: Obj, names: dict[str, str], api_version: str) -> Obj:
    return {names.get(key, key): value for key, value in event.items()} | {"apiVersion": api_version}
