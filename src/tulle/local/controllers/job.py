"""Jobs: pods that run to completion, so many at once, with a limit on failures and on time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tulle.local.controllers.actions import Action, Create, Delete, Emit, Patch, Requeue
from tulle.local.controllers.cluster import JOBS, PODS, Key, Obj
from tulle.local.controllers.manager import Controller, itself, owner_of_kind
from tulle.local.controllers.metadata import (
    condition,
    integer,
    is_deleting,
    name_of,
    namespace_of,
    parse_time,
    phase_of,
    pod_is_active,
    pod_is_ready,
    render_time,
    uid_of,
)
from tulle.local.controllers.pod_template import pod_from_template
from tulle.local.controllers.store import Stores

__all__ = ["CONTROLLER", "Tally", "reconcile"]

BACKOFF_LIMIT = 6
BACKOFF_FIRST_SECONDS = 10.0
BACKOFF_MOST_SECONDS = 360.0

INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True, slots=True)
class Tally:
    """How far a Job is: its pods by state, and which completion indexes are done (Indexed jobs)."""

    active: tuple[Obj, ...]
    succeeded: int
    failed: int
    indexes_done: frozenset[int]
    indexes_active: frozenset[int]
    restarts: int
    last_failure: datetime | None


def reconcile(key: Key, stores: Stores, now: datetime) -> Sequence[Action]:
    """Decide the next step of one Job."""
    job = stores[JOBS].get(*key)
    if job is None or is_deleting(job):
        return ()
    if _finished(job):
        return _expire(job, now)
    pods = stores[PODS].controlled_by(uid_of(job))
    tally = _tally(job, pods)
    spec, status = job["spec"], dict(job.get("status") or {})
    if spec.get("suspend"):
        return _suspend(job, tally, now)
    started = parse_time(status.get("startTime")) or now
    status["startTime"] = render_time(started)
    actions: list[Action] = []
    verdict = _verdict(job, tally, started, now)
    if verdict is not None:
        actions.extend(Delete(PODS, namespace_of(p), name_of(p), job, JOBS) for p in tally.active)
        return [*actions, *_conclude(job, status, tally, verdict, now)]
    actions.extend(_steps(job, tally, now))
    actions.extend(_publish(job, status, tally, now))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None:
        actions.append(Requeue(max((started + timedelta(seconds=deadline) - now).total_seconds(), 0) + 0.1))
    return actions


@dataclass(frozen=True, slots=True)
class _Verdict:
    complete: bool
    reason: str
    message: str


def _verdict(job: Obj, tally: Tally, started: datetime, now: datetime) -> _Verdict | None:
    spec = job["spec"]
    limit = integer(spec.get("backoffLimit"), BACKOFF_LIMIT)
    deadline = spec.get("activeDeadlineSeconds")
    on_failure = (spec["template"].get("spec") or {}).get("restartPolicy") == "OnFailure"
    if tally.failed > limit or (on_failure and tally.restarts > 0 and tally.restarts > limit):
        return _Verdict(False, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    if deadline is not None and (now - started).total_seconds() >= deadline:
        return _Verdict(False, "DeadlineExceeded", "Job was active longer than specified deadline")
    completions = spec.get("completions")
    done = (
        tally.succeeded >= completions
        if completions is not None
        else tally.succeeded > 0 and not tally.active
    )
    if done:
        return _Verdict(True, "CompletionsReached", "Reached expected number of succeeded pods")
    return None


def _steps(job: Obj, tally: Tally, now: datetime) -> list[Action]:
    """Create missing pods or delete surplus ones; after a failure wait first."""
    spec, active = job["spec"], len(tally.active)
    parallelism, completions = integer(spec.get("parallelism"), 1), spec.get("completions")
    if completions is None:
        wanted = active if tally.succeeded else parallelism
    else:
        wanted = min(parallelism, completions - tally.succeeded)
    if active > wanted:
        surplus = sorted(tally.active, key=lambda p: (pod_is_ready(p), name_of(p)))[: active - wanted]
        return [Delete(PODS, namespace_of(p), name_of(p), job, JOBS) for p in surplus]
    if active == wanted:
        return []
    if tally.last_failure is not None:
        pause = min(BACKOFF_FIRST_SECONDS * 2 ** max(tally.failed - 1, 0), BACKOFF_MOST_SECONDS)
        left = (tally.last_failure + timedelta(seconds=pause) - now).total_seconds()
        if left > 0:
            return [Requeue(left + 0.05)]
    if spec.get("completionMode") == "Indexed":
        free = [i for i in range(completions or 0) if i not in tally.indexes_done | tally.indexes_active]
        return [Create(PODS, _indexed_pod(job, index), job, JOBS) for index in free[: wanted - active]]
    return [
        Create(PODS, pod_from_template(JOBS, job, spec["template"]), job, JOBS)
        for _ in range(wanted - active)
    ]


def _indexed_pod(job: Obj, index: int) -> Obj:
    template = job["spec"]["template"]
    pod = pod_from_template(JOBS, job, template, labels={INDEX: str(index)})
    pod["metadata"]["generateName"] = f"{name_of(job)}-{index}-"
    pod["metadata"]["annotations"] = {**(pod["metadata"].get("annotations") or {}), INDEX: str(index)}
    variable = {"name": "JOB_COMPLETION_INDEX", "value": str(index)}
    spec = dict(pod["spec"])
    spec.setdefault("hostname", f"{name_of(job)}-{index}")
    for field in ("initContainers", "containers"):
        if spec.get(field):
            spec[field] = [{**c, "env": [*(c.get("env") or ()), variable]} for c in spec[field]]
    return {**pod, "spec": spec}


def _tally(job: Obj, pods: Sequence[Obj]) -> Tally:
    status = job.get("status") or {}
    active = tuple(p for p in pods if pod_is_active(p))
    good = [p for p in pods if phase_of(p) == "Succeeded"]
    bad = [p for p in pods if phase_of(p) == "Failed"]
    done = frozenset(_index(p) for p in good)
    succeeded = len(done) if job["spec"].get("completionMode") == "Indexed" else len(good)
    restarts = sum(
        int(c.get("restartCount") or 0)
        for p in active
        for c in (p.get("status") or {}).get("containerStatuses") or ()
    )
    return Tally(
        active=active,
        # A pod that somebody deleted after its end still counts.
        succeeded=max(succeeded, int(status.get("succeeded") or 0)),
        failed=max(len(bad), int(status.get("failed") or 0)),
        indexes_done=done,
        indexes_active=frozenset(_index(p) for p in active),
        restarts=restarts,
        last_failure=max((t for p in bad if (t := _ended(p)) is not None), default=None),
    )


def _index(pod: Obj) -> int:
    return int((pod["metadata"].get("annotations") or {}).get(INDEX, -1))


def _ended(pod: Obj) -> datetime | None:
    ends = [
        parse_time(((c.get("state") or {}).get("terminated") or {}).get("finishedAt"))
        for c in (pod.get("status") or {}).get("containerStatuses") or ()
    ]
    return max((end for end in ends if end is not None), default=None)


def _counts(tally: Tally, active: Sequence[Obj]) -> Obj:
    counts = {
        "active": len(active),
        "ready": sum(pod_is_ready(p) for p in active),
        "succeeded": tally.succeeded,
        "failed": tally.failed,
    }
    return {name: count for name, count in counts.items() if count or name == "ready"}


def _publish(job: Obj, status: Obj, tally: Tally, now: datetime) -> list[Action]:
    kept = {field: status[field] for field in ("startTime",) if field in status}
    conditions = [c for c in status.get("conditions") or () if c["type"] != "Suspended"]
    if any(c["type"] == "Suspended" and c["status"] == "True" for c in status.get("conditions") or ()):
        conditions.append(_condition("Suspended", "False", "JobResumed", "Job resumed", now))
    return _write(
        job, {**kept, **_counts(tally, tally.active), **({"conditions": conditions} if conditions else {})}
    )


def _write(job: Obj, body: Obj) -> list[Action]:
    before = job.get("status") or {}
    if body == before:
        return []
    patch: dict[str, Any] = {**dict.fromkeys(before), **body}
    return [Patch(JOBS, namespace_of(job), name_of(job), {"status": patch}, subresource="status")]


def _conclude(job: Obj, status: Obj, tally: Tally, verdict: _Verdict, now: datetime) -> list[Action]:
    first, last = ("SuccessCriteriaMet", "Complete") if verdict.complete else ("FailureTarget", "Failed")
    conditions = [_condition(kind, "True", verdict.reason, verdict.message, now) for kind in (first, last)]
    body: Obj = {"startTime": status["startTime"], **_counts(tally, ()), "conditions": conditions}
    if verdict.complete:
        body["completionTime"] = render_time(now)
        event = Emit(JOBS, job, "Normal", "Completed", "Job completed")
    else:
        event = Emit(JOBS, job, "Warning", verdict.reason, verdict.message)
    actions: list[Action] = [*_write(job, body), event]
    if job["spec"].get("ttlSecondsAfterFinished") is not None:
        actions.append(Requeue(float(job["spec"]["ttlSecondsAfterFinished"]) + 0.1))
    return actions


def _suspend(job: Obj, tally: Tally, now: datetime) -> list[Action]:
    actions: list[Action] = [Delete(PODS, namespace_of(p), name_of(p), job, JOBS) for p in tally.active]
    if not _is_suspended(job):
        entry = _condition("Suspended", "True", "JobSuspended", "Job suspended", now)
        actions.extend(_write(job, {**_counts(tally, ()), "conditions": [entry]}))
        actions.append(Emit(JOBS, job, "Normal", "Suspended", "Job suspended"))
    return actions


def _is_suspended(job: Obj) -> bool:
    return (condition(job, "Suspended") or {}).get("status") == "True"


def _condition(kind: str, status: str, reason: str, message: str, now: datetime) -> Obj:
    moment = render_time(now)
    entry = {"type": kind, "status": status, "reason": reason, "message": message}
    return {**entry, "lastProbeTime": moment, "lastTransitionTime": moment}


def _finished(job: Obj) -> bool:
    return any((condition(job, kind) or {}).get("status") == "True" for kind in ("Complete", "Failed"))


def _expire(job: Obj, now: datetime) -> Sequence[Action]:
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    ended = max(
        (
            t
            for kind in ("Complete", "Failed")
            if (t := parse_time((condition(job, kind) or {}).get("lastTransitionTime")))
        ),
        default=None,
    )
    if ttl is None or ended is None:
        return ()
    left = (ended + timedelta(seconds=ttl) - now).total_seconds()
    return (Requeue(left + 0.1),) if left > 0 else (Delete(JOBS, namespace_of(job), name_of(job)),)


CONTROLLER = Controller(name="job", watches={JOBS: itself, PODS: owner_of_kind(JOBS)}, reconcile=reconcile)
