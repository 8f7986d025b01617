"""What a network of pods is: the words and the one port (`Network`) that the rest of the laptop speaks to.

Nothing here acts. The three networks are `isolated` (netns and userns) and `loopback`.
"""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from tulle.errors import TulleError

if TYPE_CHECKING:
    # The launcher imports this module and must stay small: asyncio alone would double it.
    import asyncio

__all__ = [
    "Backend",
    "Mode",
    "Mount",
    "Network",
    "NetworkError",
    "PodKey",
    "PodNetwork",
    "Process",
    "ProcessSpec",
    "ServiceRoute",
    "SpawnError",
    "Target",
]

Mode = Literal["netns", "userns", "loopback"]
Target = tuple[str, int]


class NetworkError(TulleError):
    """A network could not be made or changed."""


class SpawnError(TulleError):
    """A process could not be started; `step` names the system call that refused and `errno` its number."""

    def __init__(
        self, what: str, why: str = "", next_step: str = "", *, step: str = "", errno: int = 0
    ) -> None:
        super().__init__(what, why, next_step)
        self.step, self.errno = step, errno


@dataclass(frozen=True)
class PodKey:
    """One pod; two pods of the same name that follow one another differ in `uid`."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class PodNetwork:
    """A pod's place in the network; `ip` is its one IPv4 address, `slot` its number among all pods ever added."""

    key: PodKey
    ip: str
    slot: int


@dataclass(frozen=True)
class Mount:
    """A file or directory of this machine that a container sees at `target` (absolute)."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class ProcessSpec:
    """What to start. `env` is the whole environment, descriptors are the caller's and stay the caller's.

    `uid`/`gid` None mean root of the world (in loopback mode: the user herself, always).
    `controlling_terminal` makes `stdin_fd`, a pseudo-terminal, the terminal of the process's session.
    `hosts` are further lines of the container's /etc/hosts (hostAliases).
    `all_addresses` is the one address that listening on all of them means (loopback mode); None: all of them.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    stdout_fd: int
    stderr_fd: int
    cwd: str = "/"
    uid: int | None = None
    gid: int | None = None
    mounts: Sequence[Mount] = ()
    stdin_fd: int | None = None
    controlling_terminal: bool = False
    hosts: Sequence[str] = ()
    all_addresses: str | None = None


class Process(Protocol):
    """A started process, leader of its own session."""

    @property
    def pid(self) -> int:
        """Its number as the world sees it."""
        ...

    @property
    def returncode(self) -> int | None:
        """Exit status, or minus the number of the signal that ended it; None while it runs."""
        ...

    async def wait(self) -> int:
        """Return `returncode` when the process has ended. Any number of callers may wait."""
        ...

    async def signal(self, number: signal.Signals, *, session: bool = False) -> None:
        """Send a signal to the process, or to every process of its session; nothing happens after its end."""
        ...


@dataclass(frozen=True, order=True)
class Backend:
    """One endpoint of a Service port. `hostname` is set for pods that have a name below a headless Service."""

    ip: str
    port: int
    hostname: str = ""


@dataclass(frozen=True)
class ServiceRoute:
    """One port of one Service: where clients dial and who answers now.

    `virtual_ip` is None for a headless Service, which has a name and no address.
    `backends` holds the ready endpoints only, unless the Service publishes those that are not ready.
    `external_name` is set for a Service that is another name for something else, and then nothing else is.
    """

    namespace: str
    name: str
    port_name: str
    port: int
    protocol: Literal["TCP", "UDP"] = "TCP"
    virtual_ip: str | None = None
    backends: Sequence[Backend] = field(default=())
    external_name: str = ""


class Network(Protocol):
    """Addresses, processes inside pods, Service addresses and names, and ways in from the host."""

    @property
    def mode(self) -> Mode:
        """Which of the three this is."""
        ...

    @property
    def reason(self) -> str:
        """Why this one was chosen, in a person's words."""
        ...

    @property
    def transparent(self) -> bool:
        """True where packet-filter rules can capture a pod's traffic; False in loopback mode."""
        ...

    @property
    def sidecar_env(self) -> Mapping[str, str]:
        """Environment that the sidecar and its init container need in this network, beyond the manifest's."""
        ...

    @property
    def api_address(self) -> Target:
        """Where a pod reaches the Kubernetes API (KUBERNETES_SERVICE_HOST and _PORT)."""
        ...

    async def start(self) -> None:
        """Make the network ready for pods."""
        ...

    async def stop(self) -> None:
        """End every process and take away whatever would outlive the world."""
        ...

    async def lost(self) -> None:
        """Return when the network has broken down and no process can be started in it any more."""
        ...

    async def add_pod(self, key: PodKey) -> PodNetwork:
        """Give a pod its place; asked twice for the same key, answer the same.

        :raises NetworkError: the kernel refused, or every address is taken.
        """
        ...

    async def remove_pod(self, key: PodKey) -> None:
        """Take the place back. Processes still running in it are killed."""
        ...

    async def spawn(self, pod: PodNetwork, spec: ProcessSpec) -> Process:
        """Start a process inside a pod.

        :raises SpawnError: it could not be started; the message names the step that failed.
        """
        ...

    async def dial(self, ip: str, port: int) -> "tuple[asyncio.StreamReader, asyncio.StreamWriter]":
        """Connect to a pod's port as the manifest names it (probes, webhooks).

        :raises OSError: nobody answers there.
        """
        ...

    async def dial_inside(self, ip: str, port: int) -> "tuple[asyncio.StreamReader, asyncio.StreamWriter]":
        """Connect to a pod's port as a process of the pod does (port-forward): by loopback, past its sidecar.

        :raises OSError: nobody answers there.
        """
        ...

    def app_port(self, port: int) -> int:
        """Port that the app must bind so that the mesh's `port` reaches it; differs in loopback mode only."""
        ...

    def plain_port(self, port: int) -> int:
        """Port of the pod at which a plain client from the host reaches `port` through the sidecar."""
        ...

    def listens(self, ip: str, port: int) -> bool:
        """Tell whether the app of the pod with this address listens on the port that stands for `port`."""
        ...

    async def set_services(self, services: Sequence[ServiceRoute]) -> None:
        """Replace all Service addresses and names; what is unchanged is not touched."""
        ...

    async def publish(self, listener_fd: int, target: Callable[[], Target | None]) -> None:
        """Relay each connection of a listening socket to what `target()` answers then, until cancelled.

        While `target()` answers None, connections are closed. The descriptor becomes the network's.
        """
        ...
