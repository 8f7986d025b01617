"""What a pod machine commands its shell to do."""

from dataclasses import dataclass

from tulle.local.pods.spec import Hook, Probe

__all__ = ["Command", "Emit", "Kill", "Prepare", "Release", "RunHook", "Start", "StartProbe", "StopProbes"]


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make volumes and network."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start the container's process."""

    container: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Send a signal: `hard` is SIGKILL to the whole session, else the stop signal to the process."""

    container: str
    hard: bool = False


@dataclass(frozen=True, slots=True)
class RunHook:
    """Run a lifecycle hook (`postStart` or `preStop`) and tell HookDone."""

    container: str
    attempt: int
    name: str
    hook: Hook


@dataclass(frozen=True, slots=True)
class StartProbe:
    """Probe again and again until StopProbes."""

    container: str
    attempt: int
    probe: Probe


@dataclass(frozen=True, slots=True)
class StopProbes:
    """Stop the container's probes."""

    container: str


@dataclass(frozen=True, slots=True)
class Emit:
    """Record an Event about the pod or one of its containers."""

    type: str
    reason: str
    message: str
    container: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """Every process has ended: give volumes and network back."""


Command = Prepare | Start | Kill | RunHook | StartProbe | StopProbes | Emit | Release
