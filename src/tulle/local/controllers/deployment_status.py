"""A Deployment's status: counts and the conditions Available, Progressing and ReplicaFailure. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tulle.local.controllers.cluster import Obj
from tulle.local.controllers.metadata import (
    condition,
    integer,
    name_of,
    parse_time,
    render_time,
    with_condition,
)
from tulle.local.controllers.rollout import Bounds

__all__ = ["Status", "compute"]

PROGRESS_DEADLINE_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Status:
    """The status there should be, the merge patch that leads there, and when a deadline wants another look."""

    body: Obj
    patch: Obj
    look_again_seconds: float | None


def compute(deployment: Obj, new: Obj | None, old: Sequence[Obj], *, limits: Bounds, now: datetime) -> Status:
    """Return the status that the ReplicaSets amount to."""
    before = deployment.get("status") or {}
    everyone = [*old, *([new] if new is not None else [])]
    total, ready = _sum(everyone, "replicas"), _sum(everyone, "readyReplicas")
    available = _sum(everyone, "availableReplicas")
    updated = _sum([new], "replicas") if new is not None else 0
    wanted_total = sum(integer(rs["spec"].get("replicas"), 1) for rs in everyone)
    counts = {
        "replicas": total,
        "updatedReplicas": updated,
        "readyReplicas": ready,
        "availableReplicas": available,
        "unavailableReplicas": max(wanted_total - available, 0),
    }
    moment = render_time(now)
    conditions: list[Obj] = list(before.get("conditions") or ())
    conditions = with_condition(conditions, _available(available, limits), moment)
    progressing, look_again = _progressing(deployment, new, counts, conditions, now)
    if progressing is not None:
        moved = any(
            int(before.get(name) or 0) != count
            for name, count in counts.items()
            if name != "unavailableReplicas"
        )
        conditions = _touch(with_condition(conditions, progressing, moment), moment if moved else None)
    failure = next((c for rs in everyone if (c := condition(rs, "ReplicaFailure")) is not None), None)
    if failure is not None:
        conditions = with_condition(
            conditions, {k: failure[k] for k in ("type", "status", "reason", "message")}, moment
        )
    else:
        conditions = [c for c in conditions if c["type"] != "ReplicaFailure"]
    body: Obj = {"observedGeneration": integer(deployment["metadata"].get("generation"), 1)}
    body.update({name: count for name, count in counts.items() if count})
    body["conditions"] = conditions
    if before.get("collisionCount"):
        body["collisionCount"] = before["collisionCount"]
    patch: dict[str, Any] = {**dict.fromkeys(before, None), **body}
    return Status(body, patch, look_again)


def _available(available: int, limits: Bounds) -> Obj:
    if available >= limits.least_available:
        return {
            "type": "Available",
            "status": "True",
            "reason": "MinimumReplicasAvailable",
            "message": "Deployment has minimum availability.",
        }
    return {
        "type": "Available",
        "status": "False",
        "reason": "MinimumReplicasUnavailable",
        "message": "Deployment does not have minimum availability.",
    }


def _progressing(
    deployment: Obj, new: Obj | None, counts: dict[str, int], conditions: Sequence[Obj], now: datetime
) -> tuple[Obj | None, float | None]:
    """Return the Progressing condition and, while a rollout runs, the seconds until its deadline."""
    spec = deployment["spec"]
    if spec.get("paused"):
        return (
            {
                "type": "Progressing",
                "status": "Unknown",
                "reason": "DeploymentPaused",
                "message": "Deployment is paused",
            },
            None,
        )
    name = name_of(deployment)
    subject = f'ReplicaSet "{name_of(new)}"' if new is not None else f'Deployment "{name}"'
    replicas = integer(spec.get("replicas"), 1)
    complete = (
        new is not None
        and counts["updatedReplicas"] == counts["replicas"] == counts["availableReplicas"] == replicas
        and integer(new["spec"].get("replicas"), 1) == replicas
    )
    if complete:
        reason, message = "NewReplicaSetAvailable", f"{subject} has successfully progressed."
        return {"type": "Progressing", "status": "True", "reason": reason, "message": message}, None
    running = {
        "type": "Progressing",
        "status": "True",
        "reason": "ReplicaSetUpdated",
        "message": f"{subject} is progressing.",
    }
    before = next((c for c in conditions if c["type"] == "Progressing"), None)
    if before is None:
        reason, message = (
            "NewReplicaSetCreated",
            f'Created new replica set "{name_of(new)}"' if new else "Creating",
        )
        return {**running, "reason": reason, "message": message}, _deadline(spec)
    before_status = deployment.get("status") or {}
    moved = any(
        int(before_status.get(field) or 0) < counts[field]
        for field in ("updatedReplicas", "availableReplicas")
    )
    if before.get("reason") == "NewReplicaSetAvailable" or moved:
        return running, _deadline(spec)
    since = parse_time(before.get("lastUpdateTime"))
    left = _deadline(spec) - (now - since).total_seconds() if since is not None else _deadline(spec)
    if before.get("reason") == "ProgressDeadlineExceeded" or left <= 0:
        message = f"{subject} has timed out progressing."
        return {
            "type": "Progressing",
            "status": "False",
            "reason": "ProgressDeadlineExceeded",
            "message": message,
        }, None
    kept = {field: before[field] for field in ("type", "status", "reason", "message")}
    return kept if before.get("status") == "True" else running, left + 1


def _touch(conditions: list[Obj], moment: str | None) -> list[Obj]:
    """Mark that the rollout moved, so that the progress deadline counts from now."""
    if moment is None:
        return conditions
    return [{**c, "lastUpdateTime": moment} if c["type"] == "Progressing" else c for c in conditions]


def _deadline(spec: Obj) -> float:
    return float(integer(spec.get("progressDeadlineSeconds"), PROGRESS_DEADLINE_SECONDS))


def _sum(replica_sets: Sequence[Obj], field: str) -> int:
    return sum(int((rs.get("status") or {}).get(field) or 0) for rs in replica_sets)
