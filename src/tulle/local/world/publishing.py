"""Ways in from the host: a port of its loopback for each port of each of the user's Services.

The listener is opened by `tulle up`, outside, and handed in; a socket keeps the network it was made in. What
comes through it is relayed to a ready pod of the Service like any client outside the mesh.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from tulle.local.net import Backend, Network, ServiceRoute, Target

__all__ = ["PublishedPort", "Publisher", "preferred_port", "wanted"]

NOT_PUBLISHED = {"linkerd", "kube-system"}
# The control plane's metrics and scrape targets, for a Prometheus on the host.
METRICS = ("linkerd", "tulle-viz")
LOWEST_FREE = 1024

OpenListener = Callable[[int], Awaitable[tuple[int, int] | None]]


@dataclass(frozen=True, order=True)
class PublishedPort:
    """A port of a Service that should be reachable from the host."""

    namespace: str
    service: str
    port: int
    scheme: str


def preferred_port(port: int) -> int:
    """Return the host's port to try first: the same, or for one that needs a privilege the usual stand-in."""
    return port if port >= LOWEST_FREE else 8000 + port


def wanted(routes: Sequence[ServiceRoute]) -> list[PublishedPort]:
    """Choose what to publish: the user's Services with an address, TCP ports only, and the mesh's own metrics."""
    return sorted(
        {
            PublishedPort(route.namespace, route.name, route.port, _scheme(route.port_name))
            for route in routes
            if route.virtual_ip is not None
            and route.protocol == "TCP"
            and (route.namespace not in NOT_PUBLISHED or (route.namespace, route.name) == METRICS)
            and (route.namespace, route.name) != ("default", "kubernetes")
        }
    )


def _scheme(port_name: str) -> str:
    first = port_name.split("-")[0]
    return first if first in ("grpc", "tcp", "https") else "http"


class Publisher:
    """Keeps the published ports in step with the Services. `announce` hears of each new one and its URL.

    `changed` is set when another port was opened, or could not be.
    """

    def __init__(
        self, network: Network, open_listener: OpenListener, announce: Callable[[str, int, str], None]
    ) -> None:
        self._network, self._open, self._announce = network, open_listener, announce
        self._relays: dict[PublishedPort, asyncio.Task[None]] = {}
        self._backends: Mapping[tuple[str, str, int], Sequence[Backend]] = {}
        self._meshed: Collection[str] = ()
        self._handled: set[PublishedPort] = set()
        self.changed = asyncio.Event()
        self._turn = itertools.count()

    async def follow(
        self, routes: Sequence[ServiceRoute], meshed: Collection[str], group: asyncio.TaskGroup
    ) -> None:
        """Open what is new and close what is gone; relays run in `group`.

        `meshed` are the addresses of pods whose sidecar has a port of its own for plain clients; it counts only
        where nothing is captured.
        """
        self._meshed = meshed
        self._backends = {(route.namespace, route.name, route.port): route.backends for route in routes}
        now = set(wanted(routes))
        self._handled &= now
        for gone in self._relays.keys() - now:
            self._relays.pop(gone).cancel()
        for new in sorted(now - self._handled):
            opened = await self._open(preferred_port(new.port))
            self._handled.add(new)
            self.changed.set()
            if opened is None:
                continue
            descriptor, number = opened
            self._relays[new] = group.create_task(self._network.publish(descriptor, self._target_of(new)))
            self._announce(f"{new.service}.{new.namespace}", new.port, f"{new.scheme}://127.0.0.1:{number}")

    def handled(self, routes: Sequence[ServiceRoute]) -> bool:
        """Tell whether each port that these routes want has been opened, or could not be."""
        return self._handled.issuperset(wanted(routes))

    def _target_of(self, published: PublishedPort) -> Callable[[], Target | None]:
        def target() -> Target | None:
            backends = self._backends.get((published.namespace, published.service, published.port)) or ()
            if not backends:
                return None
            chosen = backends[next(self._turn) % len(backends)]
            stands_for = self._network.plain_port if chosen.ip in self._meshed else self._network.app_port
            return chosen.ip, stands_for(chosen.port)

        return target
