"""An answer knows what it depends on: a change that alters it touches one of its topics, whatever the change was."""

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.cluster import (
    POLICY,
    Obj,
    endpoint,
    mesh_tls,
    namespace,
    networks,
    node,
    obj,
    pod,
    policy,
    route,
    server,
    service,
    slice_of,
    voting,
)
from tulle.compile import (
    AddressTarget,
    ClientContext,
    Mesh,
    ServiceTarget,
    endpoints,
    inbound_server,
    nearness,
    outbound_policy,
    profile,
)
from tulle.compile.status import route_status
from tulle.kube import kinds
from tulle.kube.kinds import Kind
from tulle.kube.objects import View
from tulle.kube.reflector import Change
from tulle.kube.world import World, kind_of

MESH = Mesh()
CLIENT = ClientContext("default", "web-1", "n1")
TARGET = ServiceTarget("default", "voting", 80)
SERVER_REF = {"group": POLICY, "kind": "Server", "name": "s"}

QUESTIONS: dict[str, Callable[[World], Any]] = {
    "outbound": lambda w: outbound_policy(w, MESH, TARGET, CLIENT),
    "outbound of another namespace": lambda w: outbound_policy(w, MESH, TARGET, ClientContext("web", "x")),
    "outbound by address": lambda w: outbound_policy(w, MESH, AddressTarget("10.96.0.5", 80), CLIENT),
    "outbound by pod": lambda w: outbound_policy(w, MESH, AddressTarget("10.42.0.3", 8080), CLIENT),
    "endpoints": lambda w: endpoints(w, MESH, TARGET, nearness(w, TARGET, CLIENT)),
    "profile": lambda w: profile(w, MESH, AddressTarget("10.96.0.5", 80), CLIENT),
    "profile of a pod": lambda w: profile(w, MESH, AddressTarget("10.42.0.3", 8080), CLIENT),
    "inbound": lambda w: inbound_server(w, MESH, "default", "voting-1", 8080),
    "status": lambda w: [route_status(w, MESH, r) for r in w.routes_of("", "Service", "default", "voting")],
}

OPAQUE = {"config.linkerd.io/opaque-ports": "80,8080"}
DENY = {"config.linkerd.io/default-inbound-policy": "deny"}
TIMEOUT = {"timeout.linkerd.io/request": "1s"}
TO_VOTING = {"group": "", "kind": "Service", "name": "voting", "namespace": "default"}
REFS = [
    {"group": POLICY, "kind": "MeshTLSAuthentication", "name": "m"},
    {"group": POLICY, "kind": "NetworkAuthentication", "name": "n"},
]

VARIANTS: list[Obj] = [
    namespace("default"),
    namespace("default", OPAQUE),
    namespace("default", DENY),
    node("n1"),
    node("n1", "zone-b"),
    obj("ReplicaSet", "voting-abc", "apps/v1"),
    obj("ReplicaSet", "voting-abc", "apps/v1", owner=("Deployment", "renamed")),
    service("voting", annotations=OPAQUE),
    service("voting", annotations=TIMEOUT),
    service("voting", "10.96.0.99"),
    service("voting", "None"),
    service("voting", internalTrafficPolicy="Local"),
    service("voting", ports=[{"name": "http", "port": 80, "targetPort": 9, "appProtocol": "http", "protocol": "TCP"}]),
    service("emoji", "10.96.0.6", selector={"app": "voting"}),
    service("emoji", "10.96.0.5"),
    pod("voting-1", "10.42.0.3"),
    pod("voting-1", "10.42.0.3", annotations=OPAQUE),
    pod("voting-1", "10.42.0.3", annotations=DENY),
    pod("voting-1", "10.42.0.3", meshed=False),
    pod("voting-1", "10.42.0.4"),
    pod("voting-1", "10.42.0.3", app="emoji"),
    pod("voting-2", "10.42.0.3"),
    slice_of("voting", []),
    slice_of("voting", [endpoint("voting-1", "10.42.0.3", zone="zone-b"), endpoint("voting-2", "10.42.0.9")]),
    slice_of("voting", [endpoint("voting-1", "10.42.0.3", nodeName="n2")], suffix="y"),
    route("r", [{}], TO_VOTING),
    route("r", [{"backendRefs": [{"name": "emoji", "port": 80}]}], TO_VOTING),
    route("r", [{}], TO_VOTING | {"port": 81}),
    route("c", [{}], TO_VOTING, ns="web"),
    route("i", [{"matches": [{"method": "GET"}]}], SERVER_REF),
    server("s", 8080),
    server("s", "web", proxyProtocol="opaque"),
    server("s", 8080, accessPolicy="all-authenticated"),
    server("t", 8080, created="2025-01-01T00:00:00Z"),
    policy("p", ("Server", "s"), REFS),
    policy("p", ("Namespace", "default"), []),
    policy("q", ("HTTPRoute", "i"), REFS[:1]),
    mesh_tls("m", identities=["a.b"]),
    mesh_tls("m", identityRefs=[{"kind": "Namespace", "name": "x"}]),
    networks("n", "10.0.0.0/8"),
    networks("n", "192.168.0.0/16"),
]  # fmt: skip


def viewed(each: Obj) -> tuple[Kind, View]:
    kind = kind_of(each)
    assert kind is not None
    metadata = each["metadata"]
    view: View = World.of([each]).peek(kind, metadata.get("namespace", ""), metadata["name"])
    return kind, view


MOVES = st.lists(st.tuples(st.sampled_from(VARIANTS), st.booleans()), min_size=1, max_size=8)


@settings(max_examples=400)
@given(MOVES)
def test_no_change_of_an_answer_goes_unnoticed(moves: list[tuple[Obj, bool]]) -> None:
    world = World.of(voting())
    for each, delete in moves:
        kind, view = viewed(each)
        old = world.peek(kind, view.namespace, view.name)
        if delete and old is None:
            continue
        before = {}
        for name, question in QUESTIONS.items():
            with world.reading() as topics:
                answer = question(world)
            before[name] = (answer, set(topics))
        touched = world.apply(kind, [Change(old, None if delete else view)])
        for name, question in QUESTIONS.items():
            answer, topics = before[name]
            if question(world) != answer:
                assert topics & touched, (
                    f"{name} changed unnoticed by {'deleting' if delete else 'applying'} {each}"
                )


def test_heartbeats_statuses_and_counters_touch_nothing() -> None:
    world = World.of(voting(route("r", [{}])))
    beat, ready, judged, counted = node("n1", "zone-a"), voting()[4], route("r", [{}]), service("voting")
    beat["metadata"]["resourceVersion"] = "77"
    ready["status"]["containerStatuses"] = [{"name": "c", "ready": True}]
    judged["status"] = {"parents": []}
    counted["metadata"]["generation"] = 3
    for each in (beat, ready, judged, counted):
        kind, view = viewed(each)
        old = world.peek(kind, view.namespace, view.name)
        assert old != view, "the view itself has changed"
        assert world.apply(kind, [Change(old, view)]) == set()
        assert world.peek(kind, view.namespace, view.name) is view, "it is kept all the same"
    done = voting()[4]
    done["status"]["phase"] = "Succeeded"
    _, view = viewed(done)
    assert world.apply(kinds.POD, [Change(world.pod("default", "voting-1"), view)])
