"""Reading object metadata: names, owners, times, readiness. Pure, and tolerant of fields that are absent."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from tulle.local.controllers.cluster import Key, Kind, Obj

__all__ = [
    "condition", "controller_of", "integer", "is_deleting", "key_of", "labels_of", "name_of", "namespace_of", "owner_reference",
    "parse_time", "phase_of", "pod_is_active", "pod_is_available", "pod_is_ready", "render_time", "uid_of", "version_of",
    "with_condition",
]  # fmt: skip


def name_of(obj: Obj) -> str:
    """Return metadata.name."""
    return str(obj["metadata"].get("name", ""))


def namespace_of(obj: Obj) -> str:
    """Return metadata.namespace, empty for cluster-scoped objects."""
    return obj["metadata"].get("namespace") or ""


def key_of(obj: Obj) -> Key:
    """Return (namespace, name)."""
    return namespace_of(obj), name_of(obj)


def uid_of(obj: Obj) -> str:
    """Return metadata.uid."""
    return str(obj["metadata"].get("uid", ""))


def version_of(obj: Obj) -> int:
    """Return the resource version as a number; the embedded API counts them up."""
    text = str(obj["metadata"].get("resourceVersion", "0"))
    return int(text) if text.isdigit() else 0


def labels_of(obj: Obj) -> dict[str, str]:
    """Return metadata.labels, empty when absent."""
    return obj["metadata"].get("labels") or {}


def is_deleting(obj: Obj) -> bool:
    """Tell whether the object is on its way out."""
    return obj["metadata"].get("deletionTimestamp") is not None


def controller_of(obj: Obj) -> Obj | None:
    """Return the owner reference that has `controller: true`."""
    for reference in obj["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return dict(reference)
    return None


def owner_reference(kind: Kind, owner: Obj) -> Obj:
    """Return the reference with which `owner` controls what it creates."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "name": name_of(owner),
        "uid": uid_of(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def parse_time(text: str | None) -> datetime | None:
    """Parse an RFC 3339 time; None stays None."""
    if not text:
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def render_time(moment: datetime) -> str:
    """Render a time as Kubernetes does: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(obj: Obj, name: str) -> Obj | None:
    """Return status.conditions[type == name]."""
    for entry in (obj.get("status") or {}).get("conditions") or ():
        if entry.get("type") == name:
            return dict(entry)
    return None


def with_condition(conditions: Iterable[Obj], new: Obj, now: str) -> list[Obj]:
    """Return the conditions with `new` in place of the one of its type.

    lastTransitionTime moves only when the status changes, lastUpdateTime when anything does.
    """
    kept = [c for c in conditions if c["type"] != new["type"]]
    old = next((c for c in conditions if c["type"] == new["type"]), None)
    if old is not None and all(old.get(field) == new.get(field) for field in ("status", "reason", "message")):
        return list(conditions)
    moved = old is None or old.get("status") != new["status"]
    entry = {
        **new,
        "lastUpdateTime": now,
        "lastTransitionTime": now if moved else (old or {}).get("lastTransitionTime", now),
    }
    return [*kept, entry]


def phase_of(pod: Obj) -> str:
    """Return status.phase, Pending when nobody has said anything yet."""
    return (pod.get("status") or {}).get("phase") or "Pending"


def pod_is_active(pod: Obj) -> bool:
    """Tell whether the pod counts towards its owner's replicas."""
    return not is_deleting(pod) and phase_of(pod) not in ("Succeeded", "Failed")


def pod_is_ready(pod: Obj) -> bool:
    """Tell whether the pod's Ready condition holds."""
    ready = condition(pod, "Ready")
    return ready is not None and ready.get("status") == "True"


def pod_is_available(pod: Obj, min_ready_seconds: int, now: datetime) -> bool:
    """Tell whether the pod has been ready for `min_ready_seconds`."""
    ready = condition(pod, "Ready")
    if ready is None or ready.get("status") != "True":
        return False
    since = parse_time(ready.get("lastTransitionTime"))
    return min_ready_seconds == 0 or (
        since is not None and (now - since).total_seconds() >= min_ready_seconds
    )


def integer(value: Any, default: int) -> int:
    """Return `value` as a number, `default` when it is absent."""
    return default if value is None else int(value)
