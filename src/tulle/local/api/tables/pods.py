"""The table of pods: READY, STATUS and RESTARTS as kubectl computes them. Pure."""

from dataclasses import dataclass
from datetime import datetime

from tulle.local.api.objects import Obj, lookup
from tulle.local.api.tables.printing import Cells, Printer, age, text_columns

__all__ = ["PRINTERS", "pod_status"]


def pod_status(pod: Obj) -> tuple[int, int, str, int, str | None]:
    """Return (ready containers, containers, STATUS, restarts, time of the last restart)."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    sidecars = {c["name"] for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
    total = len(spec.get("containers") or ()) + len(sidecars)
    reason = str(status.get("reason") or status.get("phase") or "Unknown")
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    begun = _init_containers(pod, sidecars)
    ready, restarts, last = begun.ready, begun.restarts, begun.last
    reason = begun.waits_for or reason
    if begun.waits_for is None or _has(status, "Initialized"):
        running = False
        restarts = begun.sidecar_restarts
        for container in reversed(status.get("containerStatuses") or ()):
            restarts += int(container.get("restartCount") or 0)
            last = _later(last, container)
            state = container.get("state") or {}
            if lookup(state, ("waiting", "reason")):
                reason = state["waiting"]["reason"]
            elif state.get("terminated"):
                reason = _end(state["terminated"])
            elif container.get("ready") and state.get("running") is not None:
                running = True
                ready += 1
        if reason == "Completed" and running:
            reason = "Running" if _has(status, "Ready") else "NotReady"
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            reason = "Terminating"
    return ready, total, reason, restarts, last


@dataclass(frozen=True, slots=True)
class _Begun:
    """How far the init containers are; `waits_for` is what holds the pod up, as STATUS says it."""

    ready: int
    restarts: int
    sidecar_restarts: int
    last: str | None
    waits_for: str | None


def _init_containers(pod: Obj, sidecars: set[str]) -> _Begun:
    count = len((pod.get("spec") or {}).get("initContainers") or ())
    ready = restarts = sidecar_restarts = 0
    last: str | None = None
    for index, container in enumerate((pod.get("status") or {}).get("initContainerStatuses") or ()):
        again = int(container.get("restartCount") or 0)
        restarts += again
        last = _later(last, container)
        if container.get("name") in sidecars:
            sidecar_restarts += again
            ready += bool(container.get("ready"))
            if container.get("started"):
                continue
        state = container.get("state") or {}
        if lookup(state, ("terminated", "exitCode")) == 0:
            continue
        if state.get("terminated"):
            why = _end(state["terminated"])
        elif lookup(state, ("waiting", "reason")) not in (None, "", "PodInitializing"):
            why = state["waiting"]["reason"]
        else:
            why = f"{index}/{count}"
        return _Begun(ready, restarts, sidecar_restarts, last, f"Init:{why}")
    return _Begun(ready, restarts, sidecar_restarts, last, None)


def _end(end: Obj) -> str:
    """Say how a container ended, in one word."""
    if end.get("reason"):
        return str(end["reason"])
    return f"Signal:{end['signal']}" if end.get("signal") else f"ExitCode:{end.get('exitCode')}"


def _later(last: str | None, container: Obj) -> str | None:
    return max(filter(None, (last, _ended(container))), default=None)


def _ended(container: Obj) -> str | None:
    value = lookup(container, ("lastState", "terminated", "finishedAt"))
    return None if value is None else str(value)


def _has(status: Obj, condition: str) -> bool:
    conditions = status.get("conditions") or ()
    return any(c.get("type") == condition and c.get("status") == "True" for c in conditions)


def _cells(pod: Obj, now: datetime) -> Cells:
    ready, total, reason, restarts, last = pod_status(pod)
    metadata, status = pod["metadata"], pod.get("status") or {}
    gates = (pod.get("spec") or {}).get("readinessGates") or ()
    met = {c.get("type") for c in status.get("conditions") or () if c.get("status") == "True"}
    gate_text = f"{sum(g['conditionType'] in met for g in gates)}/{len(gates)}" if gates else "<none>"
    return [
        metadata["name"],
        f"{ready}/{total}",
        reason,
        f"{restarts} ({age(last, now)} ago)" if restarts and last else str(restarts),
        age(metadata.get("creationTimestamp"), now),
        status.get("podIP") or "<none>",
        (pod.get("spec") or {}).get("nodeName") or "<none>",
        status.get("nominatedNodeName") or "<none>",
        gate_text,
    ]


_COLUMNS = text_columns("Ready,Status,Restarts,Age", "IP,Node,Nominated Node,Readiness Gates")

PRINTERS = {
    "pods": Printer(_COLUMNS, _cells),
    "podtemplates": Printer(
        [*text_columns("Containers,Images,Pod Labels")],
        lambda obj, now: [
            obj["metadata"]["name"],
            ",".join(c["name"] for c in obj["template"]["spec"]["containers"]),
            ",".join(c.get("image", "") for c in obj["template"]["spec"]["containers"]),
            "",
        ],
    ),
}
