"""Golden metrics, edges and totals against a naive oracle that keeps every request, and as exact examples."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.viz.sidecar import INBOUND, OUTBOUND, PLAIN, Sidecar
from tulle.clock import SystemClock
from tulle.compile.mesh import Mesh
from tulle.kube.world import World
from tulle.viz import queries
from tulle.viz.answers import Golden
from tulle.viz.kinds import UnknownKind, kind_named
from tulle.viz.scraper import Scraper

PODS = {"web-1": "web", "web-2": "web", "api-1": "api"}
START = 1_000_000.0


def pod(name: str, owner: str, *, meshed: bool = True, **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "labels": {"app": owner} | ({"linkerd.io/control-plane-ns": "linkerd"} if meshed else {}),
            "ownerReferences": [{"kind": "ReplicaSet", "name": f"{owner}-7f", "controller": True}],
        },
        "spec": {"containers": [{"name": "app", "ports": [{"containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": f"10.42.{ord(owner[0])}.{name[-1]}"} | more,
    }


def replica_set(owner: str) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{owner}-7f",
            "namespace": "shop",
            "ownerReferences": [{"kind": "Deployment", "name": owner, "controller": True}],
        },
    }


def service(name: str, app: str | None, namespace: str = "shop") -> dict[str, Any]:
    address = {"web-svc": "10.96.0.7", "api-svc": "10.96.0.8"}.get(name, "10.96.0.9")
    spec: dict[str, Any] = {"clusterIP": address, "ports": [{"port": 80, "targetPort": 8080}]}
    if app:
        spec["selector"] = {"app": app}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


OBJECTS = [
    namespace("shop"),
    namespace("linkerd"),
    *(pod(name, owner) for name, owner in PODS.items()),
    pod("bare-1", "bare", meshed=False),
    pod("done-1", "web", phase="Succeeded"),
    *(replica_set(owner) for owner in ("web", "api", "bare")),
    service("web-svc", "web"),
    service("api-svc", "api"),
    service("external", None),
]


class Clock(SystemClock):
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.time = START

    def monotonic(self) -> float:
        return self.time


@dataclass
class Rig:
    """Sidecars that a scraper reads once a second."""

    scraper: Scraper
    sidecars: dict[str, Sidecar]
    clock: Clock

    async def look(self) -> None:
        self.clock.time += 1
        await self.scraper.round()

    def stat(self, kind: str, **more: Any) -> dict[str, Golden]:
        answer = queries.stat(self.scraper.store, WORLD, Mesh(), kind, **more)
        return {row.name: row.golden for row in answer.rows}


WORLD = World.of(OBJECTS)
ADDRESSES = {found.ips[0]: name for name in PODS if (found := WORLD.pod("shop", name)) is not None}


def rig() -> Rig:
    sidecars = {name: Sidecar(started=1.0) for name in PODS}

    async def fetch(address: str, port: int) -> bytes:
        assert port == 4191
        return sidecars[ADDRESSES[address]].page()

    clock = Clock()
    return Rig(Scraper(WORLD, Mesh(), fetch, clock), sidecars, clock)


@dataclass(frozen=True)
class Request:
    """One request of the oracle."""

    server: str
    success: bool
    secured: bool
    milliseconds: int


REQUESTS = st.builds(
    Request,
    st.sampled_from(sorted(PODS)),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 3, 5, 20, 400, 50_000]),
)


def count(sidecar: Sidecar, request: Request) -> None:
    labels = INBOUND if request.secured else PLAIN
    sidecar.answered(labels, request.milliseconds, success=request.success)


@given(st.lists(st.lists(REQUESTS, max_size=12), min_size=1, max_size=8))
@pytest.mark.anyio
async def test_workloads_pods_and_namespaces_add_up_what_their_sidecars_served(
    rounds: list[list[Request]],
) -> None:
    mesh = rig()
    await mesh.look()
    for requests in rounds:
        for request in requests:
            count(mesh.sidecars[request.server], request)
        await mesh.look()
    everything = [request for requests in rounds for request in requests]

    def judge(golden: Golden, served: list[Request]) -> None:
        assert golden.requests == len(served)
        assert golden.rps == len(served) / len(rounds)
        if not served:
            assert golden.success_rate is golden.secured is golden.latency_p95_ms is None
            return
        assert golden.success_rate == sum(request.success for request in served) / len(served)
        assert golden.secured == sum(request.secured for request in served) / len(served)
        assert golden.latency_p99_ms is not None
        assert golden.latency_p99_ms <= max(request.milliseconds for request in served)

    for name, golden in mesh.stat("Pod").items():
        judge(golden, [request for request in everything if request.server == name])
    for name, golden in mesh.stat("Deployment").items():
        judge(golden, [request for request in everything if PODS[request.server] == name])
    judge(mesh.stat("Namespace")["shop"], everything)
    outside = mesh.stat("Service")
    for name, golden in outside.items():
        owner = name.removesuffix("-svc")
        plain = [r for r in everything if PODS[r.server] == owner and not r.secured]
        assert golden.requests == len(plain), "what meshed clients saw is told by their own sidecars"


@pytest.mark.anyio
async def test_every_resource_has_a_row_with_its_meshed_and_running_pods() -> None:
    mesh = rig()
    await mesh.look()

    def rows(kind: str, **more: Any) -> list[tuple[str, int, int]]:
        answer = queries.stat(mesh.scraper.store, WORLD, Mesh(), kind, **more)
        return [(row.name, row.meshed, row.pods) for row in answer.rows]

    assert rows("Deployment") == [("api", 1, 1), ("bare", 0, 1), ("web", 2, 2)]
    assert rows("Workload") == rows("Deployment")
    assert rows("Pod") == [("api-1", 1, 1), ("bare-1", 0, 1), ("web-1", 1, 1), ("web-2", 1, 1)]
    assert rows("Service") == [("api-svc", 1, 1), ("external", 0, 0), ("web-svc", 2, 2)]
    assert rows("Namespace") == [("linkerd", 0, 0), ("shop", 3, 4)]
    assert rows("Deployment", name="web") == [("web", 2, 2)]
    assert rows("Deployment", namespace="other") == []
    assert rows("StatefulSet") == []


@pytest.mark.anyio
async def test_a_service_is_judged_by_what_its_clients_saw() -> None:
    mesh = rig()
    await mesh.look()
    mesh.sidecars["web-1"].answered(OUTBOUND, 4, times=3)
    mesh.sidecars["web-1"].answered(OUTBOUND, 4, success=False)
    mesh.sidecars["api-1"].answered(INBOUND, 1, times=4)
    await mesh.look()
    golden = mesh.stat("Service")["api-svc"]
    assert (golden.requests, golden.success_rate, golden.secured) == (4, 0.75, 1.0)
    [edge] = queries.edges(mesh.scraper.store).rows
    assert (edge.source, edge.target, edge.service, edge.golden.rps) == ("web", "api", "api-svc", 4.0)


@pytest.mark.anyio
async def test_edges_are_kept_by_namespace_and_go_when_quiet() -> None:
    mesh = rig()
    await mesh.look()
    mesh.sidecars["web-1"].answered(OUTBOUND, 4)
    await mesh.look()
    store = mesh.scraper.store
    assert len(queries.edges(store, namespace="shop").rows) == 1
    assert queries.edges(store, namespace="other").rows == []
    assert queries.edges(store, without="shop").rows == []
    for _ in range(3):
        await mesh.look()
    assert queries.edges(store, seconds=2).rows == []


@pytest.mark.anyio
async def test_totals_count_each_request_once_and_leave_the_control_plane_out() -> None:
    mesh = rig()
    mesh.sidecars["web-1"].answered(OUTBOUND, 4, times=8)
    mesh.sidecars["api-1"].answered(INBOUND, 4, times=8)
    mesh.sidecars["web-1"].answered(PLAIN, 4, times=2)
    mesh.sidecars["web-2"].answered(OUTBOUND | {"dst_namespace": "linkerd", "dst_service": "linkerd-dst"}, 4)
    await mesh.look()
    summary = queries.summary(mesh.scraper.store, WORLD, Mesh())
    assert (summary.requests, summary.successes, summary.secured_requests) == (10, 10, 8)
    assert (summary.edges, summary.pods) == (2, 3)
    assert {total.name: (total.requests, total.meshed_requests) for total in summary.services} == {
        "api-svc": (8, 8),
        "web-svc": (2, 0),
    }


@pytest.mark.anyio
async def test_one_look_gives_no_rates() -> None:
    mesh = rig()
    mesh.sidecars["web-1"].answered(INBOUND, 4)
    await mesh.look()
    golden = mesh.stat("Deployment")["web"]
    assert (golden.rps, golden.requests) == (None, 0)


def test_kinds_have_kubectls_names() -> None:
    assert Counter(map(kind_named, ("deploy", "Deployments", "po", "svc", "ns"))) == Counter(
        {"Deployment": 2, "Pod": 1, "Service": 1, "Namespace": 1}
    )
    with pytest.raises(UnknownKind, match="'ingress' is none of deploy"):
        kind_named("ingress")
