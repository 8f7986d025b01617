"""Is everything that was asked for there? A pure look at Deployments, their kin, and pods."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

__all__ = ["pods_ready", "ports_to_hear", "stands_alone", "unready"]

Obj = Mapping[str, Any]
LastLines = Callable[[Any, str], Sequence[str]]
"""What a container of a pod wrote last before it ended."""

_INDENT = "  "
_TAKEN = ("address already in use", "address in use", "eaddrinuse", "only one usage of each socket address")
_PORT_TAKEN = (
    "pods of this network share the machine's ports, and another process has this one: let the program listen on "
    "all addresses or on $HOST (docs/networks.md), or take --mode userns"
)


def unready(workloads: Iterable[Obj]) -> list[str]:
    """Return a line for each workload that does not have all its pods ready and up to date."""
    lines = []
    for obj in workloads:
        metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
        name = f"{obj['kind'].lower()}/{metadata['name']}"
        if metadata.get("namespace") not in (None, "default"):
            name += f" in {metadata['namespace']}"
        kind = obj["kind"]
        if kind == "Job":
            wanted, there = spec.get("completions", 1), status.get("succeeded", 0)
            if there < wanted and not status.get("active"):
                lines.append(f"{name}: {there}/{wanted} completed")
            continue
        if kind == "DaemonSet":
            wanted, there = status.get("desiredNumberScheduled", 1), status.get("numberReady", 0)
        else:
            wanted, there = (
                spec.get("replicas", 1),
                min(status.get("readyReplicas", 0), status.get("updatedReplicas", 0)),
            )
        observed = status.get("observedGeneration", 0) >= metadata.get("generation", 0)
        if there < wanted or not observed:
            lines.append(f"{name}: {there}/{wanted} ready")
    return lines


def pods_ready(
    pods: Iterable[Obj],
    events: Iterable[Obj] = (),
    last_lines: LastLines = lambda pod, container: (),
    *,
    share_ports: bool = False,
) -> list[str]:
    """Return lines for each pod that is not ready, with the reason that its containers or its last warning give.

    Below a pod whose container keeps ending stand that container's last lines. `share_ports`: all pods listen in one
    network, so a port that is taken may be another pod's.
    """
    warnings = {
        event["involvedObject"].get("uid"): f"{event.get('reason', '')}: {event.get('message', '')}"
        for event in events
        if event.get("type") == "Warning"
    }
    lines = []
    for pod in pods:
        status = pod.get("status") or {}
        if status.get("phase") == "Succeeded" or pod["metadata"].get("deletionTimestamp"):
            continue
        conditions = {condition["type"]: condition["status"] for condition in status.get("conditions") or ()}
        if conditions.get("Ready") == "True":
            continue
        why, fallen = _why(status)
        words = last_lines(pod, fallen) if fallen else ()
        warning = None if words else warnings.get(pod["metadata"].get("uid"))
        lines.append(f"pod/{pod['metadata']['name']}: {why}" + (f" ({warning})" if warning else ""))
        lines += [_INDENT + word for word in words]
        if share_ports and any(taken in word.lower() for word in words for taken in _TAKEN):
            lines.append(_INDENT + _PORT_TAKEN)
    return lines


def stands_alone(pod: Obj) -> bool:
    """Tell whether nobody else answers for the pod: no workload has made it."""
    return not pod["metadata"].get("ownerReferences")


def ports_to_hear(pods: Iterable[Obj]) -> list[tuple[str, str, int]]:
    """Return pod name, address and port of each TCP port that running apps declare and no readiness probe watches.

    Such a pod counts as ready from its first moment, before anybody can listen in it.
    """
    found = []
    for pod in pods:
        ip = (pod.get("status") or {}).get("podIP")
        if not ip or pod["metadata"].get("deletionTimestamp"):
            continue
        for container in pod["spec"].get("containers") or ():
            if container.get("readinessProbe"):
                continue
            found += [
                (pod["metadata"]["name"], ip, int(port["containerPort"]))
                for port in container.get("ports") or ()
                if port.get("protocol", "TCP") == "TCP"
            ]
    return found


def _why(status: Obj) -> tuple[str, str]:
    """Return why a pod is not ready, and the container that has ended, if it is for that."""
    for field in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(field) or ():
            name, state = container["name"], container.get("state") or {}
            waiting, ended = state.get("waiting"), state.get("terminated")
            if waiting and waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
                message = waiting.get("message") or ""
                before = (container.get("lastState") or {}).get("terminated")
                if before:
                    code, again = before.get("exitCode"), container.get("restartCount", 0)
                    return (
                        f"{name} ended with {code}, restarted {again} times: {waiting['reason']} {message}",
                        name,
                    )
                return f"{name}: {waiting['reason']} {message}".strip(), ""
            if ended and ended.get("exitCode"):
                return f"{name} ended with {ended['exitCode']}", name
    for field in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(field) or ():
            if not container.get("ready") and not (container.get("state") or {}).get("terminated"):
                return f"{container['name']} is not ready", ""
    return str(status.get("reason") or status.get("phase") or "Pending"), ""
