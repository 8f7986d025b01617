"""What happens to an object's metadata, spec and status when it is created, updated and deleted. Pure functions.

Field ownership is in apply.py, defaults in defaults.py, rules per kind in validation/.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from tulle.local.api.errors import ApiError, Cause, conflict, invalid
from tulle.local.api.objects import Obj, copy_json, name_of
from tulle.local.api.registry import ResourceType

__all__ = [
    "Deletion",
    "Propagation",
    "begin_deletion",
    "finish_create",
    "is_released",
    "prepare_create",
    "prepare_update",
    "random_suffix",
    "timestamp",
]

Propagation: TypeAlias = Literal["Background", "Foreground", "Orphan"]

NO_GENERATION = frozenset(
    {
        "configmaps",
        "controllerrevisions",
        "endpoints",
        "endpointslices",
        "events",
        "leases",
        "limitranges",
        "namespaces",
        "nodes",
        "persistentvolumeclaims",
        "persistentvolumes",
        "priorityclasses",
        "resourcequotas",
        "secrets",
        "serviceaccounts",
        "services",
        "clusterroles",
        "clusterrolebindings",
        "roles",
        "rolebindings",
        "storageclasses",
    }
)
"""Built-in kinds whose metadata carries no generation."""

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"


def timestamp(now: datetime) -> str:
    """Return a time as objects carry it: RFC 3339, whole seconds, UTC."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def random_suffix(length: int = 5) -> str:
    """Return the random end of a generated name (no vowels, so no words)."""
    return "".join(secrets.choice(_SUFFIX) for _ in range(length))


def prepare_create(resource: ResourceType, obj: Obj, version: str | None = None) -> None:
    """Take out, in place, what a client may not set on a new object."""
    metadata = obj["metadata"]
    for field in (
        "resourceVersion",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
    ):
        metadata.pop(field, None)
    metadata.pop("generation", None)
    if resource.has_subresource("status", version) and resource.plural not in ("nodes",):
        obj.pop("status", None)


def finish_create(resource: ResourceType, obj: Obj, now: datetime, uid: str) -> None:
    """Give a new object, in place, what the API sets: uid, creation time, generation."""
    metadata = obj["metadata"]
    metadata["uid"] = uid
    metadata["creationTimestamp"] = timestamp(now)
    if resource.is_custom or resource.plural not in NO_GENERATION:
        metadata["generation"] = 1


def prepare_update(
    resource: ResourceType, live: Obj, new: Obj, subresource: str | None, version: str | None = None
) -> Obj:
    """Return the object that an update to `new` would store; raise 409 or 422 for what may not change.

    Identity and times stay; status changes only through its subresource and nothing else does there;
    generation counts changes of what is neither metadata nor status.
    """
    before, after = live["metadata"], new["metadata"]
    if after.get("uid") and after["uid"] != before["uid"]:
        why = f"Precondition failed: UID in precondition: {after['uid']}, UID in object meta: {before['uid']}"
        raise conflict(resource.plural, resource.group, name_of(live), why)
    if subresource == "status":
        result = dict(live)
        result["metadata"] = dict(before)
        if "status" in new:
            result["status"] = new["status"]
        else:
            result.pop("status", None)
        if "managedFields" in after:
            result["metadata"]["managedFields"] = after["managedFields"]
        return result
    result = dict(new)
    result["metadata"] = metadata = dict(after)
    for field in (
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ):
        metadata.pop(field, None)
        if field in before:
            metadata[field] = before[field]
    metadata["resourceVersion"] = before["resourceVersion"]
    metadata.pop("generation", None)
    if "generation" in before:
        metadata["generation"] = before["generation"]
    if resource.has_subresource("status", version) and subresource is None:
        result.pop("status", None)
        if "status" in live:
            result["status"] = live["status"]
    own_status = resource.has_subresource("status", version)
    if "generation" in metadata and _desire(result, own_status) != _desire(live, own_status):
        metadata["generation"] = before["generation"] + 1
    added = set(metadata.get("finalizers") or ()) - set(before.get("finalizers") or ())
    if "deletionTimestamp" in before and added:
        detail = f"no new finalizers can be added if the object is being deleted, found new finalizers {sorted(added)}"
        raise invalid(
            resource.kind, resource.group, name_of(live), [Cause.forbidden("metadata.finalizers", detail)]
        )
    return result


def _desire(obj: Obj, own_status: bool) -> Obj:
    """Return what an object asks for; where status has no door of its own, it is part of that."""
    left_out = ("metadata", "apiVersion", "status") if own_status else ("metadata", "apiVersion")
    return {key: value for key, value in obj.items() if key not in left_out}


def is_released(obj: Obj) -> bool:
    """Tell whether an object that is being deleted waits for nobody any more."""
    metadata = obj["metadata"]
    if "deletionTimestamp" not in metadata or metadata.get("finalizers"):
        return False
    if obj.get("kind") == "Namespace" and (obj.get("spec") or {}).get("finalizers"):
        return False
    return not metadata.get("deletionGracePeriodSeconds")


@dataclass(frozen=True, slots=True)
class Deletion:
    """What a delete request does: the object as it is afterwards, and whether it is gone."""

    obj: Obj
    gone: bool
    changed: bool = True


def begin_deletion(
    resource: ResourceType, live: Obj, now: datetime, *, grace: int | None, propagation: Propagation
) -> Deletion:
    """Decide what a delete does to an object.

    Pods that run get their grace period, and end when the node removes them with grace 0. Objects with finalizers
    (also the ones that `Foreground` and `Orphan` add for the garbage collector) wait for those.
    """
    if grace is not None and grace < 0:
        raise ApiError(400, "BadRequest", "gracePeriodSeconds must not be negative")
    obj = copy_json(live)
    metadata = obj["metadata"]
    seconds = _grace(resource, live, grace)
    finalizers = list(metadata.get("finalizers") or ())
    if propagation in ("Foreground", "Orphan"):
        wanted = "foregroundDeletion" if propagation == "Foreground" else "orphan"
        if wanted not in finalizers and not resource.plural == "namespaces":
            finalizers.append(wanted)
            metadata["finalizers"] = finalizers
    if "deletionTimestamp" in metadata:
        shorter = seconds < (metadata.get("deletionGracePeriodSeconds") or 0)
        if shorter:
            metadata["deletionGracePeriodSeconds"] = seconds
            metadata["deletionTimestamp"] = timestamp(now + timedelta(seconds=seconds))
        return Deletion(obj, is_released(obj), changed=obj != live)
    if (
        not seconds
        and not finalizers
        and not (obj.get("kind") == "Namespace" and obj["spec"].get("finalizers"))
    ):
        return Deletion(obj, gone=True)
    metadata["deletionTimestamp"] = timestamp(now + timedelta(seconds=seconds))
    metadata["deletionGracePeriodSeconds"] = seconds
    if "generation" in metadata:
        metadata["generation"] += 1
    if resource.plural == "namespaces" and resource.group == "":
        obj.setdefault("status", {})["phase"] = "Terminating"
    return Deletion(obj, is_released(obj))


def _grace(resource: ResourceType, live: Obj, grace: int | None) -> int:
    if resource.plural != "pods" or resource.group:
        return 0
    spec = live.get("spec") or {}
    if not spec.get("nodeName") or (live.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    if grace is not None:
        return grace
    return int(spec.get("terminationGracePeriodSeconds", 30))
