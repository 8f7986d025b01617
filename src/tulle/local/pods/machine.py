"""The life of one pod as a pure state machine: facts in, commands out. It knows no process, clock or network.

`PodMachine.tell(event, now)` takes in a fact and returns what the shell (`worker`) must do; `wake_at` says when to
come back with `Tick` should nothing happen before. Order of life, as in a cluster:

- volumes and network first (`Prepare`), then init containers one after the other; a native sidecar lets the next one
  start as soon as it has started (its startup probe succeeded);
- main containers together; one that ends is restarted by policy, first at once, then after 10 s doubling to 5 min;
- on the way out (deletion, deadline, all main containers done): main containers first (preStop, SIGTERM, SIGKILL at
  the end of the grace period), then sidecars in reverse order.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from tulle.local.pods.commands import (
    Command,
    Emit,
    Kill,
    Prepare,
    Release,
    RunHook,
    Start,
    StartProbe,
    StopProbes,
)
from tulle.local.pods.container import Container, State
from tulle.local.pods.facts import (
    Delete,
    Event,
    Exited,
    HookDone,
    Prepared,
    PrepareFailed,
    ProbeResult,
    Started,
    StartFailed,
    Tick,
)
from tulle.local.pods.spec import PodSpec, ProbeKind, Role

__all__ = [
    "Command", "Delete", "Emit", "Event", "Exited", "HookDone", "Kill", "PodMachine", "Prepare", "PrepareFailed", "Prepared",
    "ProbeResult", "Release", "RunHook", "Stage", "Start", "StartFailed", "StartProbe", "Started", "StopProbes", "Tick",
]  # fmt: skip

SIDECAR_GRACE_SECONDS = 2.0
"""Least time that a sidecar gets between SIGTERM and SIGKILL when the main containers used up the grace period."""

PREPARE_RETRY_FIRST_SECONDS = 0.5
PREPARE_RETRY_MOST_SECONDS = 30.0


class Stage(Enum):
    """Where the pod is in its life."""

    PREPARING = "preparing"
    INITIALISING = "initialising"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(slots=True)
class PodMachine:
    """The state of one pod. All times are seconds of one monotonic clock."""

    spec: PodSpec
    stage: Stage = Stage.PREPARING
    ip: str = ""
    containers: dict[str, Container] = field(default_factory=dict)
    prepare_failure: PrepareFailed | None = None
    deleted: bool = False
    forced: bool = False
    """Deleted without any grace: sidecars get none either."""
    failure: tuple[str, str] | None = None
    """Reason and message of a pod that was ended from outside (DeadlineExceeded)."""
    started_at: float | None = None
    _prepare_at: float | None = None
    _prepare_pause: float = PREPARE_RETRY_FIRST_SECONDS
    _kill_at: float | None = None
    _out: list[Command] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.containers = {c.name: Container(c) for c in self.spec.containers}

    def __repr__(self) -> str:
        inside = " ".join(f"{c.spec.name}={c.state.value}" for c in self.containers.values())
        return f"<{self.spec.namespace}/{self.spec.name} {self.stage.value}: {inside}>"

    def begin(self, now: float) -> list[Command]:
        """Start the pod's life."""
        self.started_at = now
        self._out.append(Prepare())
        return self._drain()

    def tell(self, event: Event, now: float) -> list[Command]:
        """Take in one fact; return what to do. Facts about an earlier process of a container change nothing."""
        match event:
            case Prepared(ip):
                self.ip, self.prepare_failure = ip, None
                if self.stage is Stage.PREPARING:
                    self.stage = Stage.INITIALISING
            case PrepareFailed():
                self._failed_to_prepare(event, now)
            case Delete(grace):
                self._delete(grace, now)
            case Tick():
                pass
            case _:
                container = self.containers[event.container]
                if container.attempt == event.attempt:
                    self._tell_container(container, event, now)
        self._advance(now)
        return self._drain()

    def wake_at(self) -> float | None:
        """Return when a Tick is due."""
        times = [self._prepare_at]
        if (
            self.spec.active_deadline is not None
            and self.started_at is not None
            and self.stage not in _LEAVING
        ):
            times.append(self.started_at + self.spec.active_deadline)
        times.extend(container.due for container in self.containers.values())
        return min((moment for moment in times if moment is not None), default=None)

    @property
    def initialised(self) -> bool:
        """Tell whether all init containers are done and all sidecars have started."""
        return all(
            c.started if c.spec.role is Role.SIDECAR else c.state is State.ENDED and c.last_ok
            for c in self._of(Role.INIT, Role.SIDECAR)
        )

    @property
    def succeeded(self) -> bool:
        """Tell whether every main container ended with 0 (for a pod that has ended)."""
        return self.failure is None and all(c.state is State.ENDED and c.last_ok for c in self._of(Role.MAIN))

    def _of(self, *roles: Role) -> Iterator[Container]:
        return (c for c in self.containers.values() if c.spec.role in roles)

    def _drain(self) -> list[Command]:
        out, self._out = self._out, []
        return out

    def _emit(self, type_: str, reason: str, message: str, container: str = "") -> None:
        self._out.append(Emit(type_, reason, message, container))

    def _failed_to_prepare(self, event: PrepareFailed, now: float) -> None:
        if self.stage is not Stage.PREPARING:
            return
        if self.prepare_failure != event:
            self._emit("Warning", event.reason, event.message)
        self.prepare_failure = event
        self._prepare_at = now + self._prepare_pause
        self._prepare_pause = min(self._prepare_pause * 2, PREPARE_RETRY_MOST_SECONDS)

    def _delete(self, grace: float, now: float) -> None:
        self.deleted = True
        self.forced |= grace == 0
        self._leave(grace, now)

    def _leave(self, grace: float, now: float) -> None:
        """Begin to stop, or make a stop under way more urgent."""
        deadline = now + grace
        self._kill_at = deadline if self._kill_at is None else min(self._kill_at, deadline)
        if self.stage not in _LEAVING:
            self.stage = Stage.STOPPING
        self._prepare_at = None

    def _tell_container(self, c: Container, event: Event, now: float) -> None:
        name = c.spec.name
        match event:
            case Started():
                c.started_running(now)
                self._emit("Normal", "Started", f"Started container {name}", name)
                if c.spec.post_start is not None:
                    self._out.append(RunHook(name, c.attempt, "postStart", c.spec.post_start))
                else:
                    self._start_probes(c)
            case StartFailed(reason=reason, message=message, fatal=fatal):
                if c.waiting_reason != reason or c.waiting_message != message:
                    self._emit("Warning", "Failed", message, name)
                c.start_failed(reason, message, now, fatal=fatal)
            case Exited():
                self._out.append(StopProbes(name))
                c.exited(event.exit_code, event.signal, event.message, now)
            case ProbeResult():
                self._probed(c, event, now)
            case HookDone(hook="postStart", error=error):
                if error and c.state is State.RUNNING:
                    self._emit("Warning", "FailedPostStartHook", error, name)
                    self._stop(c, self.spec.grace, now, "FailedPostStartHook")
                elif c.state is State.RUNNING:
                    c.post_start_done = True
                    self._start_probes(c)
            case HookDone(hook="preStop", error=error):
                if error:
                    self._emit("Warning", "FailedPreStopHook", error, name)
                if c.state is State.PRE_STOP:
                    c.state = State.TERMINATING
                    self._out.append(Kill(name))

    def _start_probes(self, c: Container) -> None:
        """Begin with the startup probe alone; without one with all others."""
        c.post_start_done = True
        probes = c.spec.probes
        if ProbeKind.STARTUP in probes and not c.startup_passed:
            self._out.append(StartProbe(c.spec.name, c.attempt, probes[ProbeKind.STARTUP]))
            return
        c.startup_passed = True
        self._out.extend(
            StartProbe(c.spec.name, c.attempt, probes[kind])
            for kind in (ProbeKind.LIVENESS, ProbeKind.READINESS)
            if kind in probes
        )

    def _probed(self, c: Container, event: ProbeResult, now: float) -> None:
        if c.state is not State.RUNNING and event.kind is not ProbeKind.READINESS:
            return
        probe = c.spec.probes[event.kind]
        if not event.ok and event.counts:
            message = f"{event.kind.value} probe failed: {event.message}"
            self._emit("Warning", "Unhealthy", message, c.spec.name)
        verdict = c.count_probe(probe, ok=event.ok, counts=event.counts)
        if verdict is None:
            return
        match event.kind, verdict:
            case ProbeKind.STARTUP, True:
                if not c.startup_passed:
                    c.startup_passed = True
                    self._out.append(StopProbes(c.spec.name))
                    self._start_probes(c)
            case ProbeKind.READINESS, ready:
                c.probed_ready = ready
            case _, False:
                reason = f"Container {c.spec.name} failed {event.kind.value.lower()} probe, will be restarted"
                self._emit("Normal", "Killing", reason, c.spec.name)
                self._stop(c, self.spec.grace if probe.grace is None else probe.grace, now, "")

    def _stop(self, c: Container, grace: float, now: float, why: str) -> None:
        """Ask one running container to end: preStop, then SIGTERM, SIGKILL after `grace`."""
        if why == "FailedPostStartHook":
            self._emit("Normal", "Killing", "FailedPostStartHook", c.spec.name)
        elif why:
            self._emit("Normal", "Killing", why, c.spec.name)
        c.kill_at = now + grace
        if c.spec.role is not Role.SIDECAR or self.stage is not Stage.STOPPING:
            self._out.append(StopProbes(c.spec.name))
        if c.spec.pre_stop is not None and grace > 0 and c.post_start_done:
            c.state = State.PRE_STOP
            self._out.append(RunHook(c.spec.name, c.attempt, "preStop", c.spec.pre_stop))
        else:
            c.state = State.TERMINATING
            self._out.append(Kill(c.spec.name))

    def _advance(self, now: float) -> None:
        """Do whatever the present state allows: start, restart, stop, end."""
        if self._prepare_at is not None and now >= self._prepare_at and self.stage is Stage.PREPARING:
            self._prepare_at = None
            self._out.append(Prepare())
        deadline = self.spec.active_deadline
        if deadline is not None and self.started_at is not None and self.stage not in _LEAVING:
            if now >= self.started_at + deadline:
                message = "Pod was active on the node longer than the specified deadline"
                self.failure = ("DeadlineExceeded", message)
                self._emit("Normal", "DeadlineExceeded", message)
                self._leave(self.spec.grace, now)
        for c in self.containers.values():
            if c.kill_at is not None and now >= c.kill_at and c.state in (State.PRE_STOP, State.TERMINATING):
                c.kill_at = None
                c.state = State.TERMINATING
                self._out.append(Kill(c.spec.name, hard=True))
            if c.start_at is not None and now >= c.start_at:
                c.start_at = None
        if self.stage is Stage.INITIALISING:
            self._initialise(now)
        if self.stage is Stage.RUNNING:
            self._keep_running(now)
        if self.stage is Stage.STOPPING:
            self._shut_down(now)

    def _initialise(self, now: float) -> None:
        for c in self._of(Role.SIDECAR):
            if c.attempt > 0:
                self._keep_up(c, now)
        for c in self._of(Role.INIT, Role.SIDECAR):
            if c.spec.role is Role.SIDECAR:
                self._keep_up(c, now)
                if not c.started:
                    return
            elif c.state is State.ENDED:
                if not c.last_ok:
                    self._retry_init(c, now)
                    return
            else:
                self._keep_up(c, now)
                return
        self.stage = Stage.RUNNING

    def _retry_init(self, c: Container, now: float) -> None:
        if self.spec.restart_policy == "Never":
            self._leave(self.spec.grace, now)
        else:
            c.await_restart(now)
            self._keep_up(c, now)

    def _keep_running(self, now: float) -> None:
        for c in self._of(Role.SIDECAR):
            self._keep_up(c, now)
        done = True
        for c in self._of(Role.MAIN):
            if c.state is State.ENDED and not self._restarts(c):
                continue
            done = False
            self._keep_up(c, now)
        if done:
            self._leave(self.spec.grace, now)

    def _restarts(self, c: Container) -> bool:
        return c.spec.restarts_always or (self.spec.restart_policy == "OnFailure" and not c.last_ok)

    def _keep_up(self, c: Container, now: float) -> None:
        """Start a container that waits and is due; put an ended one back in the queue."""
        if c.state is State.ENDED:
            pause = c.await_restart(now)
            if pause > 0:
                message = f"Back-off restarting failed container {c.spec.name} in pod {self.spec.name}"
                self._emit("Warning", "BackOff", message, c.spec.name)
        if c.state is State.WAITING and c.start_at is None:
            c.starting()
            self._out.append(Start(c.spec.name, c.attempt))

    def _shut_down(self, now: float) -> None:
        assert self._kill_at is not None
        grace = max(self._kill_at - now, 0.0)
        waiting = False
        for c in self._of(Role.INIT, Role.MAIN):
            waiting |= self._bring_down(c, grace, now)
        if waiting:
            return
        for c in reversed(list(self._of(Role.SIDECAR))):
            if self._bring_down(c, 0.0 if self.forced else max(grace, SIDECAR_GRACE_SECONDS), now):
                return
        self.stage = Stage.ENDED
        self._kill_at = None
        self._out.append(Release())

    def _bring_down(self, c: Container, grace: float, now: float) -> bool:
        """Move one container towards its end; True while something of it is still there."""
        match c.state:
            case State.RUNNING:
                self._stop(c, grace, now, f"Stopping container {c.spec.name}")
                return True
            case State.PRE_STOP | State.TERMINATING:
                if c.kill_at is not None:
                    c.kill_at = min(c.kill_at, now + grace)
                return True
            case State.STARTING:
                return True
            case State.WAITING:
                c.never_ran()
                return False
            case State.ENDED:
                return False


_LEAVING = (Stage.STOPPING, Stage.ENDED)
