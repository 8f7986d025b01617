"""One container's state inside the pod machine: its process's phase, back-off, probe counts. Pure.

Invariant: `attempt` grows by one with every start; `restarts` counts the starts after the first process ended.
"""

from dataclasses import dataclass, field
from enum import Enum

from tulle.local.pods.spec import ContainerSpec, Probe, ProbeKind, Role

__all__ = [
    "BACKOFF_FIRST_SECONDS",
    "BACKOFF_MOST_SECONDS",
    "BACKOFF_RESET_SECONDS",
    "Container",
    "State",
    "Termination",
]

BACKOFF_FIRST_SECONDS = 10.0
BACKOFF_MOST_SECONDS = 300.0
BACKOFF_RESET_SECONDS = 600.0
"""A container that ran this long is forgiven: its next restart is immediate again."""

START_RETRY_FIRST_SECONDS = 1.0
START_RETRY_MOST_SECONDS = 60.0
"""Pause between attempts to start a container whose configuration or image is missing."""


class State(Enum):
    """What the container's process is doing."""

    WAITING = "waiting"
    """No process; one starts at once or at `start_at`."""
    STARTING = "starting"
    """The shell was told to start a process."""
    RUNNING = "running"
    PRE_STOP = "pre-stop"
    """Running, the preStop hook runs, SIGTERM comes next."""
    TERMINATING = "terminating"
    """Has been told to stop."""
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Termination:
    """How a process ended; times are monotonic seconds."""

    exit_code: int
    signal: int
    reason: str
    message: str
    started_at: float | None
    finished_at: float


@dataclass(slots=True)
class Container:
    """The mutable state of one container."""

    spec: ContainerSpec
    state: State = State.WAITING
    attempt: int = 0
    restarts: int = 0
    start_at: float | None = None
    kill_at: float | None = None
    running_since: float | None = None
    last: Termination | None = None
    waiting_reason: str = ""
    waiting_message: str = ""
    post_start_done: bool = False
    startup_passed: bool = False
    probed_ready: bool = False
    _backoff: float = 0.0
    _start_retry: float = START_RETRY_FIRST_SECONDS
    _streaks: dict[ProbeKind, int] = field(default_factory=dict)

    @property
    def due(self) -> float | None:
        """Return when something is due by time alone."""
        if self.state is State.WAITING:
            return self.start_at
        return self.kill_at

    @property
    def last_ok(self) -> bool:
        """Tell whether the last process ended with exit code 0."""
        return self.last is not None and self.last.exit_code == 0

    @property
    def is_running(self) -> bool:
        """Tell whether there is a process, also one on its way out."""
        return self.state in (State.RUNNING, State.PRE_STOP, State.TERMINATING)

    @property
    def started(self) -> bool:
        """Tell whether the container counts as started: postStart done and startup probe passed."""
        return self.is_running and self.post_start_done and self.startup_passed

    @property
    def ready(self) -> bool:
        """Tell whether the container is ready for traffic (an init container: whether it is done)."""
        if self.spec.role is Role.INIT:
            return self.state is State.ENDED and self.last_ok
        return self.started and (self.probed_ready or ProbeKind.READINESS not in self.spec.probes)

    def starting(self) -> None:
        """A start was asked for."""
        assert self.state is State.WAITING, self
        self.attempt += 1
        self.restarts += self.last is not None
        self.state = State.STARTING
        self.start_at = None
        self.post_start_done = self.startup_passed = self.probed_ready = False
        self._streaks = {}

    def started_running(self, now: float) -> None:
        """The process is there."""
        assert self.state is State.STARTING, self
        self.state = State.RUNNING
        self.running_since = now
        self.waiting_reason = self.waiting_message = ""
        self._start_retry = START_RETRY_FIRST_SECONDS

    def start_failed(self, reason: str, message: str, now: float, *, fatal: bool) -> None:
        """There is no process: try again later, or count it as an exit with 128."""
        if fatal:
            self.running_since = None
            self._end(Termination(128, 0, reason, message, None, now), now)
            return
        self.restarts -= self.last is not None  # nothing was started
        self.state = State.WAITING
        self.waiting_reason, self.waiting_message = reason, message
        self.start_at = now + self._start_retry
        self._start_retry = min(self._start_retry * 2, START_RETRY_MOST_SECONDS)

    def exited(self, exit_code: int, signal: int, message: str, now: float) -> None:
        """The process is gone."""
        if not self.is_running:
            return
        reason = "Completed" if exit_code == 0 else "Error"
        self._end(Termination(exit_code, signal, reason, message, self.running_since, now), now)

    def never_ran(self) -> None:
        """The pod ends before this container got its turn."""
        assert self.state is State.WAITING, self
        self.state = State.ENDED
        self.start_at = None

    def await_restart(self, now: float) -> float:
        """Put an ended container back in the queue; return the pause in seconds (0 for an immediate restart)."""
        assert self.state is State.ENDED and self.last is not None, self
        pause = self._backoff
        if (
            self.last.started_at is not None
            and self.last.finished_at - self.last.started_at >= BACKOFF_RESET_SECONDS
        ):
            pause = 0.0
        self._backoff = min(max(pause * 2, BACKOFF_FIRST_SECONDS), BACKOFF_MOST_SECONDS)
        left = max(self.last.finished_at + pause - now, 0.0)
        self.state = State.WAITING
        self.start_at = now + left if left > 0 else None
        if left > 0:
            self.waiting_reason = "CrashLoopBackOff"
            self.waiting_message = f"back-off {round(pause)}s restarting failed container={self.spec.name}"
        else:
            self.waiting_reason = self.waiting_message = ""
        return left

    def count_probe(self, probe: Probe, *, ok: bool, counts: bool) -> bool | None:
        """Count one result; True or False once its threshold of consecutive results is reached, else None."""
        if not ok and not counts:
            return None
        streak = self._streaks.get(probe.kind, 0)
        streak = max(streak, 0) + 1 if ok else min(streak, 0) - 1
        self._streaks[probe.kind] = streak
        if streak >= probe.success_threshold:
            return True
        if -streak >= probe.failure_threshold:
            return False
        return None

    def _end(self, termination: Termination, now: float) -> None:
        self.state = State.ENDED
        self.last = termination
        self.running_since = self.kill_at = None
        self.post_start_done = self.startup_passed = self.probed_ready = False
        if self.spec.role is Role.INIT and termination.exit_code == 0:
            self._backoff = 0.0
