"""The facts that the shell tells a pod machine.

`attempt` counts a container's starts, so that a late fact about an earlier process is recognised.
"""

from dataclasses import dataclass

from tulle.local.pods.spec import ProbeKind

__all__ = [
    "Delete",
    "Event",
    "Exited",
    "HookDone",
    "PrepareFailed",
    "Prepared",
    "ProbeResult",
    "StartFailed",
    "Started",
    "Tick",
]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Volumes and network are there; `ip` is the pod's address."""

    ip: str


@dataclass(frozen=True, slots=True)
class PrepareFailed:
    """Volumes or network could not be made (yet)."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Started:
    """The container's process runs."""

    container: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    """There is no process; `fatal` when one was tried and refused (counts as an exit with 128)."""

    container: str
    attempt: int
    reason: str
    message: str
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class Exited:
    """The container's process ended; `signal` is 0 when it exited by itself. `message` is its termination message."""

    container: str
    attempt: int
    exit_code: int
    signal: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One probe ran. `counts` is False for an early look that may only succeed."""

    container: str
    attempt: int
    kind: ProbeKind
    ok: bool
    message: str = ""
    counts: bool = True


@dataclass(frozen=True, slots=True)
class HookDone:
    """A lifecycle hook ended."""

    container: str
    attempt: int
    hook: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Delete:
    """The pod shall go; `grace` seconds from now at most."""

    grace: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = Prepared | PrepareFailed | Started | StartFailed | Exited | ProbeResult | HookDone | Delete | Tick
