"""CronJobs: a Job at every moment of the schedule, within the bounds of its concurrency policy and history limits."""

from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tulle.local.controllers.actions import Action, Create, Delete, Emit, Patch, Requeue
from tulle.local.controllers.cluster import CRON_JOBS, JOBS, Key, Obj
from tulle.local.controllers.manager import Controller, itself, owner_of_kind
from tulle.local.controllers.metadata import (
    condition,
    integer,
    is_deleting,
    name_of,
    namespace_of,
    owner_reference,
    parse_time,
    render_time,
    uid_of,
)
from tulle.local.controllers.schedule import BadSchedule, Schedule, parse_schedule
from tulle.local.controllers.store import Stores

__all__ = ["CONTROLLER", "latest_due", "reconcile"]

MISSED_MOST = 100
"""After so many missed moments (a machine that slept) only the newest counts and nobody looks further back."""

GOOD_HISTORY, BAD_HISTORY = 3, 1


def reconcile(key: Key, stores: Stores, now: datetime) -> Sequence[Action]:
    """Decide what one CronJob starts, replaces and forgets."""
    cron = stores[CRON_JOBS].get(*key)
    if cron is None or is_deleting(cron):
        return ()
    spec = cron["spec"]
    jobs = [job for job in stores[JOBS].controlled_by(uid_of(cron)) if not is_deleting(job)]
    active = [job for job in jobs if not _ended(job)]
    actions: list[Action] = _forget(spec, jobs)
    try:
        schedule, zone = parse_schedule(spec["schedule"]), _zone(spec.get("timeZone"), now)
    except (BadSchedule, ZoneInfoNotFoundError) as error:
        return [*actions, Emit(CRON_JOBS, cron, "Warning", "UnparseableSchedule", str(error))]
    started: Obj | None = None
    due = latest_due(cron, schedule, zone, now)
    if due is not None and not spec.get("suspend"):
        policy = spec.get("concurrencyPolicy") or "Allow"
        late = spec.get("startingDeadlineSeconds")
        job = _job(cron, due)
        if stores[JOBS].get(key[0], name_of(job)) is not None:
            pass
        elif late is not None and (now - due).total_seconds() > late:
            message = f"Missed scheduled time to start a job: {render_time(due)}"
            actions.append(Emit(CRON_JOBS, cron, "Warning", "MissSchedule", message))
        elif policy == "Forbid" and active:
            message = "Not starting job because prior execution is running and concurrency policy is Forbid"
            actions.append(Emit(CRON_JOBS, cron, "Normal", "JobAlreadyActive", message))
        else:
            if policy == "Replace":
                actions.extend(Delete(JOBS, namespace_of(j), name_of(j), cron, CRON_JOBS) for j in active)
                active = []
            started = job
            actions.append(Create(JOBS, job, cron, CRON_JOBS))
    actions.extend(_status(cron, jobs, active, started, due if started is not None else None))
    following = schedule.next_after(now, zone)
    if following is not None:
        actions.append(Requeue((following - now).total_seconds() + 0.05))
    return actions


def latest_due(cron: Obj, schedule: Schedule, zone: tzinfo, now: datetime) -> datetime | None:
    """Return the newest moment of the schedule that has come and has not been started yet."""
    status = cron.get("status") or {}
    since = parse_time(status.get("lastScheduleTime")) or parse_time(
        cron["metadata"].get("creationTimestamp")
    )
    if since is None:
        return None
    newest: datetime | None = None
    moment = schedule.next_after(since, zone)
    for _ in range(MISSED_MOST):
        if moment is None or moment > now:
            return newest
        newest, moment = moment, schedule.next_after(moment, zone)
    return schedule.next_after(now - timedelta(minutes=2), zone) if newest is not None else None


def _zone(name: str | None, now: datetime) -> tzinfo:
    zone = ZoneInfo(name) if name else now.tzinfo
    assert zone is not None
    return zone


def _job(cron: Obj, due: datetime) -> Obj:
    template = cron["spec"]["jobTemplate"]
    metadata = template.get("metadata") or {}
    annotations = {
        **(metadata.get("annotations") or {}),
        "batch.kubernetes.io/cronjob-scheduled-timestamp": render_time(due),
    }
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.name,
        "metadata": {
            "name": f"{name_of(cron)}-{int(due.timestamp()) // 60}",
            "namespace": namespace_of(cron),
            "labels": dict(metadata.get("labels") or {}),
            "annotations": annotations,
            "ownerReferences": [owner_reference(CRON_JOBS, cron)],
        },
        "spec": template.get("spec") or {},
    }


def _status(
    cron: Obj, jobs: Sequence[Obj], active: Sequence[Obj], started: Obj | None, due: datetime | None
) -> list[Action]:
    before = cron.get("status") or {}
    body: Obj = {
        field: before[field] for field in ("lastScheduleTime", "lastSuccessfulTime") if field in before
    }
    if started is not None and due is not None:
        body["lastScheduleTime"] = render_time(due)
    good = [parse_time((job.get("status") or {}).get("completionTime")) for job in jobs]
    newest = max((moment for moment in good if moment is not None), default=None)
    if newest is not None:
        body["lastSuccessfulTime"] = max(render_time(newest), body.get("lastSuccessfulTime", ""))
    references = [
        {
            "apiVersion": JOBS.api_version,
            "kind": JOBS.name,
            "name": name_of(j),
            "namespace": namespace_of(j),
            "uid": uid_of(j),
        }
        for j in sorted(active, key=name_of)
    ]
    if references:
        body["active"] = references
    if body == before:
        return []
    patch = {"status": {**dict.fromkeys(before), **body}}
    return [Patch(CRON_JOBS, namespace_of(cron), name_of(cron), patch, subresource="status")]


def _forget(spec: Obj, jobs: Sequence[Obj]) -> list[Action]:
    actions: list[Action] = []
    for kind, limit in (
        ("Complete", integer(spec.get("successfulJobsHistoryLimit"), GOOD_HISTORY)),
        ("Failed", integer(spec.get("failedJobsHistoryLimit"), BAD_HISTORY)),
    ):
        done = [job for job in jobs if (condition(job, kind) or {}).get("status") == "True"]
        done.sort(key=lambda job: str(job["metadata"].get("creationTimestamp")), reverse=True)
        actions.extend(Delete(JOBS, namespace_of(job), name_of(job)) for job in done[limit:])
    return actions


def _ended(job: Obj) -> bool:
    return any((condition(job, kind) or {}).get("status") == "True" for kind in ("Complete", "Failed"))


CONTROLLER = Controller(
    name="cronjob", watches={CRON_JOBS: itself, JOBS: owner_of_kind(CRON_JOBS)}, reconcile=reconcile
)
