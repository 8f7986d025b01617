"""From the pod machine's state to the Pod's status object. Pure; the shell supplies wall-clock times.

Readiness is what EndpointSlices follow: all containers ready (native sidecars too), readiness gates true, and the pod
not on its way out.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from tulle.local.api.objects import Obj
from tulle.local.controllers.metadata import render_time, with_condition
from tulle.local.pods.container import Container, State
from tulle.local.pods.machine import PodMachine, Stage
from tulle.local.pods.spec import Role

__all__ = ["phase", "pod_status"]

WallTime = Callable[[float], datetime]
"""From monotonic seconds to the time that people read."""


def phase(machine: PodMachine) -> str:
    """Return the pod's phase."""
    if machine.stage is Stage.ENDED:
        return "Succeeded" if machine.succeeded else "Failed"
    mains = [c for c in machine.containers.values() if c.spec.role is Role.MAIN]
    if machine.stage in (Stage.PREPARING, Stage.INITIALISING) or all(
        c.attempt == 0 or (c.last is None and not c.is_running) for c in mains
    ):
        return "Pending"
    return "Running"


def pod_status(
    machine: PodMachine,
    *,
    before: Obj,
    host_ip: str,
    images: Callable[[str], str],
    wall: WallTime,
    now: float,
) -> Obj:
    """Return the status to publish; `before` is the published one (its transition times are kept).

    `images` turns an image name into the id shown (which command stands for it).
    """
    moment = render_time(wall(now))
    in_phase = phase(machine)
    init = [c for c in machine.containers.values() if c.spec.role is not Role.MAIN]
    main = [c for c in machine.containers.values() if c.spec.role is Role.MAIN]
    status: Obj = {
        "phase": in_phase,
        "conditions": _conditions(machine, init, main, before.get("conditions") or [], in_phase, moment),
        "qosClass": before.get("qosClass") or _qos(machine),
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
    }
    if machine.started_at is not None:
        status["startTime"] = before.get("startTime") or render_time(wall(machine.started_at))
    if machine.ip:
        status["podIP"], status["podIPs"] = machine.ip, [{"ip": machine.ip}]
    if init:
        status["initContainerStatuses"] = [_container(c, machine, images, wall) for c in init]
    status["containerStatuses"] = [_container(c, machine, images, wall) for c in main]
    if machine.failure is not None:
        status["reason"], status["message"] = machine.failure
    return status


def _conditions(
    machine: PodMachine,
    init: Sequence[Container],
    main: Sequence[Container],
    before: Sequence[Obj],
    in_phase: str,
    moment: str,
) -> list[Obj]:
    conditions = list(before)

    def put(name: str, holds: bool, reason: str = "", message: str = "") -> None:
        nonlocal conditions
        entry = {"type": name, "status": "True" if holds else "False"}
        if not holds and reason:
            entry |= {"reason": reason, "message": message} if message else {"reason": reason}
        conditions = _with(conditions, entry, moment)

    put("PodScheduled", True)
    completed = in_phase == "Succeeded"
    put("PodReadyToStartContainers", bool(machine.ip) and machine.stage is not Stage.ENDED)
    waiting = [c.spec.name for c in init if not (c.started or (c.spec.role is Role.INIT and c.ready))]
    initialised = machine.stage not in (Stage.PREPARING, Stage.INITIALISING)
    put(
        "Initialized",
        initialised,
        "ContainersNotInitialized",
        f"containers with incomplete status: {_listed(waiting)}",
    )
    unready = [c.spec.name for c in (*init, *main) if c.spec.role is not Role.INIT and not c.ready]
    stopped = machine.stage in (Stage.STOPPING, Stage.ENDED)
    reason = "PodCompleted" if completed else "ContainersNotReady"
    message = "" if completed else f"containers with unready status: {_listed(unready)}"
    containers_ready = initialised and not unready and machine.stage is not Stage.ENDED
    put("ContainersReady", containers_ready, reason, message)
    gates = [
        g
        for g in machine.spec.readiness_gates
        if not any(c["type"] == g and c.get("status") == "True" for c in before)
    ]
    if containers_ready and gates:
        put(
            "Ready",
            False,
            "ReadinessGatesNotReady",
            "; ".join(f'the status of pod readiness gate "{g}" is not "True"' for g in gates),
        )
    else:
        put(
            "Ready",
            containers_ready and not stopped,
            "PodTerminating" if containers_ready else reason,
            message,
        )
    return conditions


def _with(conditions: list[Obj], entry: Obj, moment: str) -> list[Obj]:
    made = with_condition(conditions, entry, moment)
    return [{k: v for k, v in c.items() if k != "lastUpdateTime"} for c in made]


def _container(c: Container, machine: PodMachine, images: Callable[[str], str], wall: WallTime) -> Obj:
    status: Obj = {
        "name": c.spec.name,
        "image": c.spec.image,
        "imageID": images(c.spec.name) if c.attempt else "",
        "restartCount": c.restarts,
        "ready": c.ready,
        "started": c.started,
        "state": _state(c, machine, wall),
        "lastState": {},
    }
    if c.attempt:
        status["containerID"] = _container_id(machine, c)
    if c.last is not None and c.state is not State.ENDED:
        status["lastState"] = {"terminated": _terminated(c, machine, wall)}
    return status


def _state(c: Container, machine: PodMachine, wall: WallTime) -> Obj:
    if c.is_running and c.running_since is not None:
        return {"running": {"startedAt": render_time(wall(c.running_since))}}
    if c.state is State.ENDED and c.last is not None:
        return {"terminated": _terminated(c, machine, wall)}
    if c.waiting_reason:
        return {"waiting": {"reason": c.waiting_reason, "message": c.waiting_message}}
    blocked = c.spec.role is Role.MAIN and machine.stage is Stage.INITIALISING
    if machine.prepare_failure is not None and machine.stage is Stage.PREPARING:
        return {"waiting": {"reason": "ContainerCreating", "message": machine.prepare_failure.message}}
    return {
        "waiting": {
            "reason": "PodInitializing"
            if blocked or (c.spec.role is not Role.MAIN and c.attempt == 0)
            else "ContainerCreating"
        }
    }


def _terminated(c: Container, machine: PodMachine, wall: WallTime) -> Obj:
    assert c.last is not None
    last = c.last
    ended: Obj = {
        "exitCode": last.exit_code,
        "reason": last.reason,
        "finishedAt": render_time(wall(last.finished_at)),
    }
    ended["startedAt"] = render_time(
        wall(last.started_at if last.started_at is not None else last.finished_at)
    )
    ended["containerID"] = _container_id(machine, c)
    if last.signal:
        ended["signal"] = last.signal
    if last.message:
        ended["message"] = last.message
    return ended


def _container_id(machine: PodMachine, c: Container) -> str:
    return f"process://{machine.spec.uid}/{c.spec.name}/{c.attempt}"


def _qos(machine: PodMachine) -> str:
    """Return the class that requests and limits amount to."""
    guaranteed, any_set = True, False
    for c in machine.spec.containers:
        resources = c.raw.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        any_set |= bool(limits or requests)
        same = all(
            name in limits and requests.get(name, limits[name]) == limits[name] for name in ("cpu", "memory")
        )
        guaranteed &= same
    return "Guaranteed" if any_set and guaranteed else "Burstable" if any_set else "BestEffort"


def _listed(names: Sequence[str]) -> str:
    return "[" + " ".join(names) + "]"
