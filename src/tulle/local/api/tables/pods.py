"""The table of pods: READY, STATUS and RESTARTS as kubectl computes them. Pure."""

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
    ready = restarts = sidecar_restarts = init_restarts = 0
    last: str | None = None
    initializing = False
    inits = status.get("initContainerStatuses") or ()
    for index, container in enumerate(inits):
        init_restarts += int(container.get("restartCount") or 0)
        last = max(filter(None, (last, _ended(container))), default=None)
        is_sidecar = container.get("name") in sidecars
        if is_sidecar:
            sidecar_restarts += int(container.get("restartCount") or 0)
            ready += bool(container.get("ready"))
            if container.get("started"):
                continue
        state = container.get("state") or {}
        if lookup(state, ("terminated", "exitCode")) == 0:
            continue
        initializing = True
        if state.get("terminated"):
            end = state["terminated"]
            if end.get("reason"):
                reason = f"Init:{end['reason']}"
            else:
                reason = (
                    f"Init:Signal:{end['signal']}"
                    if end.get("signal")
                    else f"Init:ExitCode:{end.get('exitCode')}"
                )
        elif lookup(state, ("waiting", "reason")) not in (None, "", "PodInitializing"):
            reason = f"Init:{state['waiting']['reason']}"
        else:
            reason = f"Init:{index}/{len(spec.get('initContainers') or ())}"
        break
    if not initializing or _is_initialized(status):
        restarts, running = sidecar_restarts, False
        for container in reversed(status.get("containerStatuses") or ()):
            restarts += int(container.get("restartCount") or 0)
            last = max(filter(None, (last, _ended(container))), default=None)
            state = container.get("state") or {}
            if lookup(state, ("waiting", "reason")):
                reason = state["waiting"]["reason"]
            elif state.get("terminated"):
                end = state["terminated"]
                if end.get("reason"):
                    reason = end["reason"]
                else:
                    reason = (
                        f"Signal:{end['signal']}" if end.get("signal") else f"ExitCode:{end.get('exitCode')}"
                    )
            elif container.get("ready") and state.get("running") is not None:
                running = True
                ready += 1
        if reason == "Completed" and running:
            ok = any(
                c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ()
            )
            reason = "Running" if ok else "NotReady"
    else:
        restarts = init_restarts
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            reason = "Terminating"
    return ready, total, reason, restarts, last


def _ended(container: Obj) -> str | None:
    value = lookup(container, ("lastState", "terminated", "finishedAt"))
    return None if value is None else str(value)


def _is_initialized(status: Obj) -> bool:
    conditions = status.get("conditions") or ()
    return any(c.get("type") == "Initialized" and c.get("status") == "True" for c in conditions)


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
