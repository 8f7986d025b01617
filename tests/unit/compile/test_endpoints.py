"""Endpoints of a Service as one client sees them: who, how to speak to it, and which are near enough."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.cluster import Obj, endpoint, namespace, node, obj, pod, server, service, slice_of, voting
from tulle.api import destination_pb2
from tulle.compile import (
    AddressTarget,
    ClientContext,
    Endpoints,
    Mesh,
    ServiceTarget,
    endpoints,
    messages,
    nearness,
    outbound_policy,
    profile,
)
from tulle.control.destination import difference
from tulle.kube import kinds
from tulle.kube.reflector import Change
from tulle.kube.world import World

MESH = Mesh()
TARGET = ServiceTarget("default", "voting", 80)


def ask(world: World, target: ServiceTarget = TARGET, on_node: str = "n1") -> Endpoints:
    return endpoints(world, MESH, target, nearness(world, target, ClientContext("default", "web", on_node)))


def decoded(found: Endpoints) -> dict[str, destination_pb2.WeightedAddr]:
    return {
        f"{ip}:{port}": destination_pb2.WeightedAddr.FromString(encoded)
        for (ip, port), encoded in found.addresses.items()
    }


def test_a_meshed_pod_is_reached_over_mtls_at_4143_with_its_labels() -> None:
    found = ask(World.of(voting()))
    assert found.labels == {"namespace": "default", "service": "voting"}
    (address,) = decoded(found).values()
    identity = "voting.default.serviceaccount.identity.linkerd.cluster.local"
    assert address.weight == 10_000
    assert address.tls_identity.dns_like_identity.name == identity
    assert address.tls_identity.server_name.name == identity
    assert address.protocol_hint.opaque_transport.inbound_port == 4143
    assert address.protocol_hint.WhichOneof("protocol") == "h2"
    assert (address.http2.keep_alive.interval.seconds, address.http2.keep_alive.timeout.seconds) == (10, 3)
    assert (address.resource_ref.resource.kind, address.resource_ref.resource.name) == ("Pod", "voting-1")
    assert dict(address.metric_labels) == {
        "control_plane_ns": "linkerd",
        "deployment": "voting-v1",
        "pod": "voting-1",
        "pod_template_hash": "abc",
        "serviceaccount": "voting",
        "zone": "zone-a",
        "zone_locality": "local",
    }


@pytest.mark.parametrize(
    ("change", "meshed"),
    [
        ({}, True),
        ({"meshed": False}, False),
        ({"hostNetwork": True}, False),
        ({"annotations": {"config.linkerd.io/skip-inbound-ports": "8000-8100"}}, False),
        ({"annotations": {"config.linkerd.io/skip-inbound-ports": "9"}}, True),
    ],
)
def test_only_what_passes_a_sidecar_has_an_identity(change: dict[str, Any], meshed: bool) -> None:
    world = World.of(
        [
            *voting()[:4],
            pod("voting-1", "10.42.0.3", **change),
            slice_of("voting", [endpoint("voting-1", "10.42.0.3")]),
        ]
    )
    (address,) = decoded(ask(world)).values()
    assert address.HasField("tls_identity") == meshed
    assert address.HasField("protocol_hint") == meshed


@pytest.mark.parametrize(("port", "identity"), [(4190, True), (4191, False)])
def test_a_sidecars_own_ports_are_reached_directly_and_tap_by_its_identity(port: int, identity: bool) -> None:
    """Linkerd's tap server dials a pod's 4190 through its own sidecar and demands the pod's identity of it."""
    world, target = World.of(voting()), AddressTarget("10.42.0.3", port)
    client = ClientContext("linkerd-viz", "tap-1", "n1")
    policy = outbound_policy(world, MESH, target, client)
    assert policy is not None
    direct = policy.protocol.detect.http2.routes[0].rules[0].backends
    (backend,) = direct.first_available.backends
    for found in (profile(world, MESH, target, client).endpoint, backend.backend.forward):
        name = "voting.default.serviceaccount.identity.linkerd.cluster.local" if identity else ""
        assert found.tls_identity.dns_like_identity.name == name
        assert found.tls_identity.server_name.name == name
        assert found.protocol_hint.HasField("h2") == identity
        assert not found.protocol_hint.HasField("opaque_transport")


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([], "h2"),
        ([pod("voting-1", "10.42.0.3", annotations={"config.linkerd.io/opaque-ports": "8080"})], "opaque"),
        ([pod("voting-1", "10.42.0.3", annotations={"config.linkerd.io/opaque-ports": "web"})], "opaque"),
        ([namespace("default", {"config.linkerd.io/opaque-ports": "8080"})], "opaque"),
        ([server("s", 8080, proxyProtocol="opaque")], "opaque"),
        ([server("s", 8080, proxyProtocol="HTTP/1")], "h2"),
    ],
)
def test_the_hint_says_opaque_where_the_port_is(objects: list[Obj], expected: str) -> None:
    (address,) = decoded(ask(World.of(voting(*objects)))).values()
    assert address.protocol_hint.WhichOneof("protocol") == expected
    assert address.protocol_hint.opaque_transport.inbound_port == 4143


def test_endpoints_that_are_not_ready_are_left_out_and_unknown_readiness_counts_as_ready() -> None:
    pods = [pod(f"p{i}", f"10.42.1.{i}") for i in range(3)]
    listed = [
        endpoint("p0", "10.42.1.0"),
        endpoint("p1", "10.42.1.1", ready=False),
        endpoint("p2", "10.42.1.2"),
    ]
    del listed[2]["conditions"]
    world = World.of([service("voting"), *pods, slice_of("voting", listed)])
    assert decoded(ask(world)).keys() == {"10.42.1.0:8080", "10.42.1.2:8080"}


def test_several_slices_are_one_set_and_ports_follow_their_names() -> None:
    ports = [
        {"name": "grpc", "port": 8080, "targetPort": "g", "protocol": "TCP"},
        {"name": "prom", "port": 9, "protocol": "TCP"},
    ]
    many = [
        {"name": "prom", "port": 8801, "protocol": "TCP"},
        {"name": "grpc", "port": 8080, "protocol": "TCP"},
    ]
    world = World.of(
        [
            service("voting", ports=ports),
            pod("a", "10.42.1.1"),
            pod("b", "10.42.1.2"),
            slice_of("voting", [endpoint("a", "10.42.1.1")], ports=many),
            slice_of(
                "voting", [endpoint("a", "10.42.1.1"), endpoint("b", "10.42.1.2")], ports=many, suffix="y"
            ),
        ]
    )
    assert decoded(ask(world, ServiceTarget("default", "voting", 9))).keys() == {
        "10.42.1.1:8801",
        "10.42.1.2:8801",
    }
    assert decoded(ask(world, ServiceTarget("default", "voting", 8080))).keys() == {
        "10.42.1.1:8080",
        "10.42.1.2:8080",
    }
    assert decoded(ask(world, ServiceTarget("default", "voting", 1))) == {}


def test_a_headless_hostname_is_one_pod_on_any_port() -> None:
    listed = [endpoint("db-0", "10.42.1.1", hostname="db-0"), endpoint("db-1", "10.42.1.2", hostname="db-1")]
    world = World.of(
        [service("db", "None"), pod("db-0", "10.42.1.1"), pod("db-1", "10.42.1.2"), slice_of("db", listed)]
    )
    assert decoded(ask(world, ServiceTarget("default", "db", 5432, "db-1"))).keys() == {"10.42.1.2:5432"}


def test_selectorless_endpoints_are_plain_addresses() -> None:
    listed = [{"addresses": ["192.0.2.7"], "conditions": {"ready": True}}]
    world = World.of([service("voting"), slice_of("voting", listed)])
    (address,) = decoded(ask(world)).values()
    assert not address.HasField("tls_identity") and not address.HasField("resource_ref")


def test_a_service_that_is_missing_or_an_external_name_does_not_exist() -> None:
    assert not ask(World.of([])).exists
    assert not ask(World.of([service("voting", "", type="ExternalName", externalName="x.example")])).exists
    assert ask(World.of([service("voting")])).exists


def hinted(zones: list[str | None]) -> list[Obj]:
    listed = []
    for index, zone in enumerate(zones):
        each = endpoint(f"p{index}", f"10.42.1.{index}", nodeName=f"n{index % 2}")
        if zone:
            each["hints"] = {"forZones": [{"name": zone}]}
        listed.append(each)
    return [
        node("n0", "a"),
        node("n1", "b"),
        *[pod(f"p{i}", f"10.42.1.{i}") for i in range(len(zones))],
        slice_of("voting", listed),
    ]


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=6), st.sampled_from(["n0", "n1", "n9", ""]))
def test_zone_hints_are_followed_only_when_all_have_one_and_one_matches(
    zones: list[str | None], on_node: str
) -> None:
    world = World.of([service("voting"), *hinted(zones)])
    zone = {"n0": "a", "n1": "b"}.get(on_node)
    every = {f"10.42.1.{i}:8080" for i in range(len(zones))}
    near = {f"10.42.1.{i}:8080" for i, hint in enumerate(zones) if hint == zone}
    expected = near if zone and near and all(zones) else every
    assert decoded(ask(world, on_node=on_node)).keys() == expected


@given(st.integers(0, 5), st.sampled_from(["n0", "n1", "n9"]))
def test_local_traffic_policy_keeps_to_the_clients_node(count: int, on_node: str) -> None:
    world = World.of([service("voting", internalTrafficPolicy="Local"), *hinted([None] * count)])
    expected = {f"10.42.1.{i}:8080" for i in range(count) if f"n{i % 2}" == on_node}
    found = ask(world, on_node=on_node)
    assert found.local and decoded(found).keys() == expected


ADDRESSES = st.dictionaries(
    st.tuples(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"]), st.sampled_from([80, 81])),
    st.sampled_from([b"\x18\x01", b"\x18\x02"]),
)


@given(st.lists(st.tuples(st.booleans(), ADDRESSES), min_size=1, max_size=6))
def test_updates_lead_a_client_to_the_newest_state(
    states: list[tuple[bool, dict[tuple[str, int], bytes]]],
) -> None:
    """Oracle: a client that applies every Update to a set of addresses ends with the last state, whatever was skipped."""
    sent: Endpoints | None = None
    client: set[tuple[str, int]] = set()
    exists: bool | None = None
    for known, addresses in states:
        now = Endpoints(known or bool(addresses), encoded(addresses))
        for raw in difference(sent, now):
            update = destination_pb2.Update.FromString(raw)
            match update.WhichOneof("update"):
                case "add":
                    client |= {(messages.ip_text(a.addr.ip), a.addr.port) for a in update.add.addrs}
                case "remove":
                    client -= {(messages.ip_text(a.ip), a.port) for a in update.remove.addrs}
                case "no_endpoints":
                    client, exists = set(), update.no_endpoints.exists
        sent = now
        assert client == set(addresses)
        if not addresses:
            assert exists == now.exists


def encoded(addresses: dict[tuple[str, int], bytes]) -> dict[tuple[str, int], bytes]:
    return {
        address: destination_pb2.WeightedAddr(addr=messages.tcp_address(address)).SerializeToString() + weight
        for address, weight in addresses.items()
    }


def test_joined_bytes_are_the_message_that_protobuf_would_encode() -> None:
    world = World.of(voting())
    found = ask(world)
    update = destination_pb2.Update.FromString(messages.added(found.addresses.values(), found.labels))
    assert update.add.addrs[0] == decoded(found)["10.42.0.3:8080"]
    assert dict(update.add.metric_labels) == found.labels


def test_the_topics_of_an_answer_are_touched_by_exactly_what_it_depends_on() -> None:
    world = World.of(voting(service("other", "10.96.0.7"), pod("other-1", "10.42.0.8")))
    with world.reading() as topics:
        ask(world)

    def touched(kind: Any, name: str) -> bool:
        view = world.peek(kind, "default", name)
        return bool(world.apply(kind, [Change(view, None)]) & topics)

    assert (
        touched(kinds.POD, "voting-1")
        and touched(kinds.SERVICE, "voting")
        and touched(kinds.ENDPOINT_SLICE, "voting-x")
    )
    assert not touched(kinds.POD, "other-1") and not touched(kinds.SERVICE, "other")
    added = World.of([obj("Server", "s", "policy.linkerd.io/v1beta3", spec={"port": 1})]).peek(
        kinds.SERVER, "default", "s"
    )
    assert world.apply(kinds.SERVER, [Change(None, added)]) & topics
