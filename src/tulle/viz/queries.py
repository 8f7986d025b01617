"""The questions that `tulle stat`, the live table and the demo ask: pure functions of the store and the World."""

from collections.abc import Callable, Hashable, Iterator

from tulle.compile.mesh import Mesh
from tulle.compile.pods import meshed
from tulle.kube import kinds
from tulle.kube.objects import Pod, Service
from tulle.kube.world import World
from tulle.viz.answers import EdgeRow, Edges, Golden, ServiceTotal, Stat, StatRow, Summary
from tulle.viz.latency import quantile
from tulle.viz.store import Counts, Store, Workload

__all__ = ["edges", "golden", "stat", "summary"]

Key = tuple[str, str, str]  # namespace, name, kind


def stat(
    store: Store,
    world: World,
    mesh: Mesh,
    kind: str,
    *,
    namespace: str | None = None,
    name: str | None = None,
    seconds: float = 60.0,
) -> Stat:
    """Return the golden metrics of every resource of a kind (of `viz.kinds`), quiet and un-meshed ones included.

    Workloads, pods and namespaces are judged by what their own sidecars served; a Service by what its clients saw, and
    for clients without a sidecar by what its pods served. `namespace` None means all.
    """
    window = store.window(seconds)
    tally = _Tally(window.seconds)
    resources = {
        key: pods
        for key, pods in _resources(world, kind).items()
        if (namespace is None or _home(kind, key) == namespace) and (name is None or key[1] == name)
    }
    if kind == "Service":
        for edge, row in store.edges:
            key = (edge.target.namespace, edge.service, kind)
            if key in resources:
                tally.add(key, row.over(window), edge.secured)
    else:
        key_of = _served_key(kind)
        for served, row in store.served:
            served_key = key_of(served.namespace, served.pod, served.workload)
            if served_key in resources:
                tally.add(served_key, row.over(window), served.secured)
    rows = [
        StatRow(
            namespace=key[0],
            kind=key[2],
            name=key[1],
            meshed=sum(meshed(mesh, pod) for pod in pods),
            pods=len(pods),
            golden=tally.golden(key),
        )
        for key, pods in sorted(resources.items())
    ]
    return Stat(kind=kind, window_seconds=window.seconds, rows=rows)


def edges(store: Store, *, namespace: str | None = None, seconds: float = 60.0, without: str = "") -> Edges:
    """Return who calls whom, busy or with open connections in the window; `namespace` keeps edges that touch it,
    `without` leaves out those that touch that one.
    """
    window = store.window(seconds)
    tally = _Tally(window.seconds)
    keys = set()
    for edge, row in store.edges:
        ends = {edge.source.namespace, edge.target.namespace}
        if (namespace is not None and namespace not in ends) or (without and without in ends):
            continue
        counts = row.over(window)
        if counts.requests or counts.connections or counts.read or counts.write:
            key = (edge.source, edge.target, edge.service)
            keys.add(key)
            tally.add(key, counts, edge.secured)
    rows = [
        EdgeRow(
            source_namespace=source.namespace,
            source_kind=source.kind,
            source=source.name,
            target_namespace=target.namespace,
            target_kind=target.kind,
            target=target.name,
            service=service,
            golden=tally.golden((source, target, service)),
        )
        for source, target, service in sorted(keys)
    ]
    return Edges(window_seconds=window.seconds, rows=rows)


def summary(store: Store, world: World, mesh: Mesh) -> Summary:
    """Return what was counted since the sidecars started, each request once, the control plane's own left out."""
    own = {mesh.control_plane_namespace, "kube-system"}
    total, secured = Counts(), 0
    pairs: set[tuple[Workload, Workload]] = set()
    services: dict[tuple[str, str], list[int]] = {
        (service.namespace, service.name): [0, 0]
        for service in world.all(kinds.SERVICE)
        if service.namespace not in own and _takes_requests(service)
    }
    for edge, row in store.edges:
        if own & {edge.source.namespace, edge.target.namespace}:
            continue
        counts = row.total
        total += counts
        if edge.secured:
            secured += counts.requests
        if counts.requests or counts.connections or counts.read:
            pairs.add((edge.source, edge.target))
        found = services.get((edge.target.namespace, edge.service))
        if found is not None:
            found[0] += counts.requests
            found[1] += counts.requests if edge.secured else 0
    pods = [pod for pod in _running(world) if pod.namespace not in own and meshed(mesh, pod)]
    return Summary(
        requests=total.requests,
        successes=total.success,
        secured_requests=secured,
        latency_p50_ms=quantile(0.5, total.buckets),
        latency_p95_ms=quantile(0.95, total.buckets),
        latency_p99_ms=quantile(0.99, total.buckets),
        edges=len(pairs),
        pods=len(pods),
        services=[
            ServiceTotal(namespace=key[0], name=key[1], requests=found[0], meshed_requests=found[1])
            for key, found in sorted(services.items())
        ],
    )


class _Tally:
    """Counts added up by key, with the part of them that came by mutual TLS."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._counts: dict[Hashable, Counts] = {}
        self._secured: dict[Hashable, int] = {}

    def add(self, key: Hashable, counts: Counts, secured: bool) -> None:
        known = self._counts.get(key)
        self._counts[key] = counts if known is None else known + counts
        self._secured[key] = self._secured.get(key, 0) + (counts.requests if secured else 0)

    def golden(self, key: Hashable) -> Golden:
        return golden(self._counts.get(key, Counts()), self._secured.get(key, 0), self._seconds)


def golden(counts: Counts, secured: int, seconds: float) -> Golden:
    """Return what counts of so many seconds mean; `secured` of the requests came by mutual TLS."""
    requests = counts.requests
    return Golden(
        requests=requests,
        success_rate=counts.success / requests if requests else None,
        rps=requests / seconds if seconds else None,
        latency_p50_ms=quantile(0.5, counts.buckets),
        latency_p95_ms=quantile(0.95, counts.buckets),
        latency_p99_ms=quantile(0.99, counts.buckets),
        tcp_connections=counts.connections,
        read_bytes_per_second=counts.read / seconds if seconds else None,
        write_bytes_per_second=counts.write / seconds if seconds else None,
        secured=secured / requests if requests else None,
    )


def _served_key(kind: str) -> Callable[[str, str, Workload], Key | None]:
    """Return how a pod's row is added up for a kind."""
    match kind:
        case "Pod":
            return lambda namespace, pod, workload: (namespace, pod, kind)
        case "Namespace":
            return lambda namespace, pod, workload: ("", namespace, kind)
        case "Workload":
            return lambda namespace, pod, workload: (namespace, workload.name, workload.kind)
        case _:
            return lambda namespace, pod, workload: (
                (namespace, workload.name, kind) if workload.kind == kind else None
            )


def _resources(world: World, kind: str) -> dict[Key, list[Pod]]:
    """Return every resource of a kind with its running pods. Workloads are known by their pods."""
    found: dict[Key, list[Pod]] = {}
    if kind == "Service":
        for service in world.all(kinds.SERVICE):
            found[service.namespace, service.name, kind] = _selected(world, service)
        return found
    if kind == "Namespace":
        for namespace in world.all(kinds.NAMESPACE):
            found["", namespace.name, kind] = []
    for pod in _running(world):
        owner_kind, owner = world.owner(pod)
        if kind == "Pod":
            found[pod.namespace, pod.name, kind] = [pod]
        elif kind == "Namespace":
            found.setdefault(("", pod.namespace, kind), []).append(pod)
        elif kind in (owner_kind, "Workload"):
            found.setdefault((pod.namespace, owner, owner_kind), []).append(pod)
    return found


def _home(kind: str, key: Key) -> str:
    return key[1] if kind == "Namespace" else key[0]


def _selected(world: World, service: Service) -> list[Pod]:
    selector = service.spec.selector
    if not selector:
        return []
    return [
        pod
        for pod in world.pods_in(service.namespace)
        if not pod.finished and selector.items() <= pod.labels.items()
    ]


def _takes_requests(service: Service) -> bool:
    return bool(service.spec.selector) and service.spec.type != "ExternalName"


def _running(world: World) -> Iterator[Pod]:
    pods: list[Pod] = world.all(kinds.POD)
    return (pod for pod in pods if not pod.finished)
