"""Tables of the kinds that make pods. Pure."""

from datetime import datetime

from tulle.local.api.objects import Obj, lookup
from tulle.local.api.tables.printing import (
    NAME,
    Cells,
    Printer,
    age,
    column,
    elapsed,
    joined,
    label_text,
)

__all__ = ["PRINTERS"]


def _containers(spec: Obj) -> list[str]:
    containers = lookup(spec, ("template", "spec", "containers")) or ()
    return [joined([c["name"] for c in containers]), joined([c.get("image", "") for c in containers])]


def _common(obj: Obj, now: datetime) -> tuple[str, Obj, Obj, str]:
    created = age(obj["metadata"].get("creationTimestamp"), now)
    return obj["metadata"]["name"], obj.get("spec") or {}, obj.get("status") or {}, created


_POD_COLUMNS = [column("Containers", wide=True), column("Images", wide=True), column("Selector", wide=True)]


def _deployment(obj: Obj, now: datetime) -> Cells:
    name, spec, status, created = _common(obj, now)
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    cells = [name, ready, status.get("updatedReplicas", 0), status.get("availableReplicas", 0), created]
    return [*cells, *_containers(spec), label_text(spec.get("selector"))]


def _replica_set(obj: Obj, now: datetime) -> Cells:
    name, spec, status, created = _common(obj, now)
    counts = [spec.get("replicas", 0), status.get("replicas", 0), status.get("readyReplicas", 0)]
    return [name, *counts, created, *_containers(spec), label_text(spec.get("selector"))]


def _stateful_set(obj: Obj, now: datetime) -> Cells:
    name, spec, status, created = _common(obj, now)
    return [name, f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}", created, *_containers(spec)]


def _daemon_set(obj: Obj, now: datetime) -> Cells:
    name, spec, status, created = _common(obj, now)
    fields = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    counts = [status.get(field, 0) for field in fields]
    selector = label_text(lookup(spec, ("template", "spec", "nodeSelector")))
    return [name, *counts, selector, created, *_containers(spec), label_text(spec.get("selector"))]


def _job(obj: Obj, now: datetime) -> Cells:
    name, spec, status, created = _common(obj, now)
    if spec.get("completions") is not None:
        completions = f"{status.get('succeeded', 0)}/{spec['completions']}"
    else:
        parallel = spec.get("parallelism") or 0
        completions = f"{status.get('succeeded', 0)}/1" + (f" of {parallel}" if parallel > 1 else "")
    conditions = {c.get("type") for c in status.get("conditions") or () if c.get("status") == "True"}
    state = next(
        (c for c in ("Complete", "Failed", "Suspended", "FailureTarget") if c in conditions), "Running"
    )
    if obj["metadata"].get("deletionTimestamp"):
        state = "Terminating"
    took = elapsed(status.get("startTime"), status.get("completionTime"), now)
    return [name, state, completions, took, created, *_containers(spec), label_text(spec.get("selector"))]


def _cron_job(obj: Obj, now: datetime) -> Cells:
    name, spec, status, created = _common(obj, now)
    last = status.get("lastScheduleTime")
    template = lookup(spec, ("jobTemplate", "spec")) or {}
    return [
        name,
        spec.get("schedule", ""),
        spec.get("timeZone") or "<none>",
        str(bool(spec.get("suspend"))),
        len(status.get("active") or ()),
        age(last, now) if last else "<none>",
        created,
        *_containers(template),
        label_text(template.get("selector")),
    ]


def _controller_revision(obj: Obj, now: datetime) -> Cells:
    owner = next((o for o in obj["metadata"].get("ownerReferences") or () if o.get("controller")), None)
    shown = (
        f"{owner['kind'].lower()}.{owner['apiVersion'].partition('/')[0]}/{owner['name']}"
        if owner
        else "<none>"
    )
    return [
        obj["metadata"]["name"],
        shown,
        obj.get("revision", 0),
        age(obj["metadata"].get("creationTimestamp"), now),
    ]


def _autoscaler(obj: Obj, now: datetime) -> Cells:
    name, spec, status, created = _common(obj, now)
    target = spec.get("scaleTargetRef") or {}
    low, high = spec.get("minReplicas", 1), spec.get("maxReplicas", 0)
    return [
        name,
        f"{target.get('kind')}/{target.get('name')}",
        "<unknown>",
        low,
        high,
        status.get("currentReplicas", 0),
        created,
    ]


PRINTERS = {
    "deployments.apps": Printer(
        [
            NAME,
            column("Ready"),
            column("Up-to-date", "integer"),
            column("Available", "integer"),
            column("Age"),
            *_POD_COLUMNS,
        ],
        _deployment,
    ),
    "replicasets.apps": Printer(
        [
            NAME,
            *(column(name, "integer") for name in ("Desired", "Current", "Ready")),
            column("Age"),
            *_POD_COLUMNS,
        ],
        _replica_set,
    ),
    "replicationcontrollers": Printer(
        [
            NAME,
            *(column(name, "integer") for name in ("Desired", "Current", "Ready")),
            column("Age"),
            *_POD_COLUMNS,
        ],
        _replica_set,
    ),
    "statefulsets.apps": Printer([NAME, column("Ready"), column("Age"), *_POD_COLUMNS[:2]], _stateful_set),
    "daemonsets.apps": Printer(
        [
            NAME,
            *(column(name, "integer") for name in ("Desired", "Current", "Ready", "Up-to-date", "Available")),
            column("Node Selector"),
            column("Age"),
            *_POD_COLUMNS,
        ],
        _daemon_set,
    ),
    "jobs.batch": Printer(
        [NAME, column("Status"), column("Completions"), column("Duration"), column("Age"), *_POD_COLUMNS],
        _job,
    ),
    "cronjobs.batch": Printer(
        [
            NAME,
            *(column(name) for name in ("Schedule", "Timezone", "Suspend")),
            column("Active", "integer"),
            column("Last Schedule"),
            column("Age"),
            *_POD_COLUMNS,
        ],
        _cron_job,
    ),
    "controllerrevisions.apps": Printer(
        [NAME, column("Controller"), column("Revision", "integer"), column("Age")], _controller_revision
    ),
    "horizontalpodautoscalers.autoscaling": Printer(
        [
            NAME,
            column("Reference"),
            column("Targets"),
            *(column(name, "integer") for name in ("MinPods", "MaxPods", "Replicas")),
            column("Age"),
        ],
        _autoscaler,
    ),
}
