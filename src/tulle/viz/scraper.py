"""Reads every meshed pod's page in rounds and feeds the store."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import httpx2

from tulle.clock import Clock
from tulle.compile.mesh import Mesh
from tulle.compile.pods import container_ports, meshed
from tulle.kube import kinds
from tulle.kube.objects import Pod, Service
from tulle.kube.world import World
from tulle.viz.answers import Target, Targets
from tulle.viz.exposition import Malformed
from tulle.viz.ingest import Ingest, Observer
from tulle.viz.store import Store, Workload

__all__ = ["Fetch", "ScrapeFailed", "Scraper", "fetch_from", "interval_for", "observer_of"]

ADMIN_PORT_NAME = "linkerd-admin"
DEFAULT_ADMIN_PORT = 4191
PAGE_SECONDS = 2.0
PAGE_MAX_BYTES = 8 * 1024 * 1024
AT_ONCE = 16
# (pods up to, seconds between rounds); more pods than the last: SLOWEST_SECONDS.
PACE = ((20, 1.0), (60, 2.0))
SLOWEST_SECONDS = 10.0

# Fetches http://address:port/metrics. Raises ScrapeFailed.
Fetch = Callable[[str, int], Awaitable[bytes]]


class ScrapeFailed(Exception):
    """A page could not be had: refused, timed out, too large, or not answered with 200."""


def interval_for(pods: int) -> float:
    """Return the seconds between rounds for so many pods."""
    return next((seconds for most, seconds in PACE if pods <= most), SLOWEST_SECONDS)


def observer_of(world: World, mesh: Mesh, pod: Pod) -> Observer:
    """Describe a pod for the reader of its page."""
    kind, name = world.owner(pod)
    return Observer(
        pod.namespace,
        pod.name,
        Workload(pod.namespace, kind, name),
        partial(_service_at, world, pod),
        partial(_service_of, world, mesh, pod.namespace),
        frozenset((mesh.tap_port, mesh.admin_port)),
    )


class Scraper:
    """Owns the store and keeps it fed."""

    def __init__(self, world: World, mesh: Mesh, fetch: Fetch, clock: Clock) -> None:
        self.store = Store()
        self.rounds = 0
        self._ingest = Ingest(self.store)
        self._world, self._mesh, self._fetch, self._clock = world, mesh, fetch, clock
        self._trouble: dict[tuple[str, str], str] = {}
        self._last_round = clock.now().timestamp()

    async def run(self) -> None:
        """Scrape until cancelled; a pod that does not answer is noted, never raised."""
        while True:
            started = self._clock.monotonic()
            pods = await self.round()
            await asyncio.sleep(max(0.05, interval_for(pods) - (self._clock.monotonic() - started)))

    async def round(self) -> int:
        """Read every meshed pod once; return how many there are."""
        pods: list[Pod] = [
            pod
            for pod in self._world.all(kinds.POD)
            if meshed(self._mesh, pod) and not pod.finished and pod.ips
        ]
        present = {(pod.namespace, pod.name) for pod in pods}
        for gone in self._ingest.proxies.keys() - present:
            self._ingest.forget(*gone)
        self._trouble = {key: text for key, text in self._trouble.items() if key in present}
        began = self._clock.now().timestamp()
        self.store.begin(self._clock.monotonic())
        turn = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            for pod in pods:
                tasks.create_task(self._read(pod, turn), name=f"scrape {pod.namespace}/{pod.name}")
        self.store.end(self._clock.monotonic())
        self._last_round = began
        self.rounds += 1
        return len(pods)

    def targets(self) -> Targets:
        """Return the scraper's state."""
        known = self._ingest.proxies
        return Targets(
            interval_seconds=interval_for(len(known)),
            rounds=self.rounds,
            refused_rows=self.store.refused,
            refused_series=self._ingest.refused,
            targets=[
                Target(
                    namespace=key[0],
                    pod=key[1],
                    version=proxy.version if (proxy := known.get(key)) else "",
                    certificate_expiry=proxy.certificate_expiry if proxy else 0.0,
                    pages=proxy.pages if proxy else 0,
                    trouble=self._trouble.get(key, ""),
                )
                for key in sorted(known.keys() | self._trouble.keys())
            ],
        )

    def samples(self) -> Iterable[tuple[str, str, str, float]]:
        """Return the pipeline's own metrics: (name, counter or gauge, help, value)."""
        store, ingest = self.store, self._ingest
        return [
            ("viz_scrape_rounds_total", "counter", "Rounds of reading every sidecar", self.rounds),
            ("viz_targets", "gauge", "Sidecars read", len(ingest.proxies)),
            (
                "viz_targets_failing",
                "gauge",
                "Sidecars whose page could not be had last time",
                len(self._trouble),
            ),
            ("viz_rows", "gauge", "Pods and edges kept", len(store.served) + len(store.edges)),
            ("viz_rows_refused_total", "counter", "Rows that found no room", store.refused),
            ("viz_series", "gauge", "Series followed", ingest.known),
            ("viz_series_refused_total", "counter", "Series that found no room", ingest.refused),
        ]

    async def _read(self, pod: Pod, turn: asyncio.Semaphore) -> None:
        key = (pod.namespace, pod.name)
        async with turn:
            try:
                page = await self._fetch(pod.ips[0], _admin_port(pod))
                self._ingest.take(observer_of(self._world, self._mesh, pod), page, self._last_round)
            except (ScrapeFailed, Malformed) as error:
                self._trouble[key] = str(error)
            else:
                self._trouble.pop(key, None)


def fetch_from(client: httpx2.AsyncClient) -> Fetch:
    """Return a Fetch that uses a connection pool."""

    async def fetch(address: str, port: int) -> bytes:
        host = f"[{address}]" if ":" in address else address
        body = bytearray()
        try:
            async with (
                asyncio.timeout(PAGE_SECONDS),
                client.stream("GET", f"http://{host}:{port}/metrics") as answer,
            ):
                if answer.status_code != 200:
                    raise ScrapeFailed(f"http://{host}:{port}/metrics answered {answer.status_code}")
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > PAGE_MAX_BYTES:
                        raise ScrapeFailed(f"the page is larger than {PAGE_MAX_BYTES} bytes")
        except TimeoutError as error:
            raise ScrapeFailed(f"no page within {PAGE_SECONDS:g} s") from error
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            raise ScrapeFailed(f"{type(error).__name__}: {error}") from error
        return bytes(body)

    return fetch


def _admin_port(pod: Pod) -> int:
    ports = (port for container in pod.containers for port in container.ports or ())
    return next((port.container_port for port in ports if port.name == ADMIN_PORT_NAME), DEFAULT_ADMIN_PORT)


def _service_at(world: World, pod: Pod, port: int) -> str:
    """Return the first by name of the Services that send to a port of a pod; empty when there is none."""
    names = (service.name for service in world.services_in(pod.namespace) if _sends_to(service, pod, port))
    return min(names, default="")


def _sends_to(service: Service, pod: Pod, port: int) -> bool:
    selector = service.spec.selector
    if not selector or not selector.items() <= pod.labels.items():
        return False
    return any(
        port in container_ports(pod, declared.port if declared.target_port is None else declared.target_port)
        for declared in service.spec.ports or ()
    )


def _service_of(world: World, mesh: Mesh, home: str, authority: str) -> tuple[str, str]:
    """Return (namespace, name) of the Service that an authority means to a pod in namespace `home`.

    Known forms are those that the mesh routes: an address, `name`, `name.ns`, `name.ns.svc`, the full name; each with or
    without a port.
    """
    host, colon, port = authority.rpartition(":")
    if not colon or not port.isdigit():
        host = authority
    host = host.strip("[]").rstrip(".")
    found = world.service_by_ip(host)
    if found is None:
        short = host.removesuffix(f".{mesh.cluster_domain}").removesuffix(".svc")
        name, _, namespace = short.partition(".")
        found = world.service(namespace or home, name)
    return (found.namespace, found.name) if found is not None else ("", "")
