"""Inbound servers: which Server decides, who is authorized, which routes there are, and probes that stay."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.cluster import (
    POLICY,
    Obj,
    mesh_tls,
    namespace,
    networks,
    pod,
    policy,
    route,
    server,
    service,
    voting,
)
from tulle.api import inbound_pb2
from tulle.compile import Mesh, inbound_server, messages
from tulle.kube.world import World

MESH = Mesh()
TO_SERVER = {"group": POLICY, "kind": "Server", "name": "s"}
MESH_REF = {"group": POLICY, "kind": "MeshTLSAuthentication", "name": "clients"}
NET_REF = {"group": POLICY, "kind": "NetworkAuthentication", "name": "nets"}
SUFFIX = "serviceaccount.identity.linkerd.cluster.local"


def ask(*objects: Obj, port: int = 8080, pod_name: str = "voting-1") -> inbound_pb2.Server:
    message = inbound_server(World.of(voting(*objects)), MESH, "default", pod_name, port)
    assert message is not None
    return message


def allowed(message: Any, client: str | None, ip: str = "10.1.1.1", route_name: str | None = None) -> bool:
    """A naive reading of the message: may a client (an identity, or None) from an address speak to the server?"""
    authorizations = list(message.authorizations)
    if route_name is not None:
        for each in message.protocol.detect.http_routes:
            if each.metadata.resource.name == route_name:
                authorizations += each.authorizations
    return any(_permits(each, client, ip) for each in authorizations)


def _permits(authz: Any, client: str | None, ip: str) -> bool:
    def within(net: Any) -> bool:
        return ip_address(ip) in ip_network(f"{messages.ip_text(net.ip)}/{net.prefix_len}")

    if not any(within(n.net) and not any(within(e) for e in getattr(n, "except")) for n in authz.networks):
        return False
    if authz.authentication.WhichOneof("permit") == "unauthenticated":
        return True
    if client is None:
        return False
    identities = authz.authentication.meshTLS.identities
    labels = client.split(".")
    return any(i.name == client for i in identities.identities) or any(
        len(labels) > len(s.parts) and list(s.parts) == labels[len(labels) - len(s.parts) :]
        for s in identities.suffixes
    )


def test_without_a_server_the_mesh_default_and_detection_apply() -> None:
    message = ask()
    assert dict(message.labels) == {"group": "", "kind": "default", "name": "all-unauthenticated"}
    assert message.protocol.detect.timeout.seconds == 10
    assert [r.metadata.default for r in message.protocol.detect.http_routes] == ["default"]
    assert [messages.ip_text(ip) for ip in message.server_ips] == ["10.42.0.3"]
    assert allowed(message, None)


@pytest.mark.parametrize(
    ("policy_name", "anybody", "meshed", "outside"),
    [
        ("all-unauthenticated", True, True, True),
        ("all-authenticated", False, True, False),
        ("cluster-unauthenticated", True, True, False),
        ("cluster-authenticated", False, True, False),
        ("deny", False, False, False),
        ("audit", True, True, True),
        ("nonsense", True, True, True),
    ],
)
def test_default_policies_of_pod_and_namespace(
    policy_name: str, anybody: bool, meshed: bool, outside: bool
) -> None:
    annotation = {"config.linkerd.io/default-inbound-policy": policy_name}
    for objects in (
        [pod("voting-1", "10.42.0.3", annotations=annotation)],
        [namespace("default", annotation)],
    ):
        message = ask(*objects)
        assert allowed(message, None) == anybody
        assert allowed(message, f"web.default.{SUFFIX}") == meshed
        assert allowed(message, None, "203.0.113.9") == outside


def test_ports_that_require_identity_let_nobody_in_without() -> None:
    annotation = {"config.linkerd.io/proxy-require-identity-inbound-ports": "8080"}
    message = ask(pod("voting-1", "10.42.0.3", annotations=annotation))
    assert message.labels["name"] == "all-authenticated"
    assert not allowed(message, None) and allowed(message, "x.y")


@pytest.mark.parametrize(
    ("ports", "expected"), [(None, False), ("8080", True), ("443,8000-9000", True), ("443", False)]
)
def test_the_proxy_protocol_is_asked_for_where_an_annotation_lists_the_port(
    ports: str | None, expected: bool
) -> None:
    annotations = {"tulle.dev/proxy-protocol-ports": ports} if ports else {}
    assert ask(pod("voting-1", "10.42.0.3", annotations=annotations)).proxy_protocol is expected


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        (None, "detect"),
        ("unknown", "detect"),
        ("HTTP/1", "http1"),
        ("HTTP/2", "http2"),
        ("gRPC", "grpc"),
        ("opaque", "opaque"),
        ("TLS", "tls"),
    ],
)
def test_a_server_names_the_protocol_and_closes_the_port(protocol: str | None, expected: str) -> None:
    spec = {"proxyProtocol": protocol} if protocol else {}
    message = ask(server("s", "web", **spec))
    assert message.protocol.WhichOneof("kind") == expected
    assert dict(message.labels) == {"group": POLICY, "kind": "server", "name": "s"}
    assert not message.authorizations


def test_of_several_servers_the_oldest_then_the_first_by_name_decides() -> None:
    new = "2026-03-01T00:00:00Z"
    assert ask(server("b", 8080), server("a", 8080)).labels["name"] == "a"
    assert ask(server("b", 8080), server("a", 8080, created=new)).labels["name"] == "b"
    assert ask(server("x", 9090), server("y", 8080, app="other")).labels["kind"] == "default"


def test_an_access_policy_opens_a_server_and_a_wrong_one_does_not() -> None:
    assert allowed(ask(server("s", 8080, accessPolicy="all-unauthenticated")), None)
    assert not allowed(ask(server("s", 8080, accessPolicy="all-welcome")), "x.y")


def test_opaque_ports_apply_without_a_server_and_a_server_overrides_them() -> None:
    opaque = pod("voting-1", "10.42.0.3", annotations={"config.linkerd.io/opaque-ports": "8080"})
    assert ask(opaque).protocol.WhichOneof("kind") == "opaque"
    assert ask(opaque, server("s", 8080, proxyProtocol="HTTP/1")).protocol.WhichOneof("kind") == "http1"


@pytest.mark.parametrize("target", [("Server", "s"), ("Namespace", "default")])
def test_a_policy_authorizes_the_identities_that_it_names(target: tuple[str, str]) -> None:
    clients = mesh_tls(
        "clients",
        identities=["*.ops." + SUFFIX, "exact.name"],
        identityRefs=[
            {"kind": "ServiceAccount", "name": "web"},
            {"kind": "ServiceAccount", "name": "bot", "namespace": "bots"},
            {"kind": "Namespace", "name": "trusted"},
        ],
    )
    message = ask(server("s", 8080), clients, policy("p", target, [MESH_REF]))
    (authz,) = message.authorizations
    assert authz.metadata.resource.kind == "authorizationpolicy" and authz.labels["name"] == "p"
    for name in (
        "web.default." + SUFFIX,
        "bot.bots." + SUFFIX,
        "any.trusted." + SUFFIX,
        "x.ops." + SUFFIX,
        "exact.name",
    ):
        assert allowed(message, name), name
    for stranger in (
        "web.other." + SUFFIX,
        "bot.default." + SUFFIX,
        "ops." + SUFFIX.replace("linkerd", "evil"),
        None,
    ):
        assert not allowed(message, stranger), stranger


def test_networks_and_identities_must_both_hold() -> None:
    objects = [
        server("s", 8080),
        mesh_tls("clients", identities=["*"]),
        networks("nets", "10.0.0.0/8", except_=["10.9.0.0/16"]),
        policy("p", ("Server", "s"), [MESH_REF, NET_REF]),
    ]
    message = ask(*objects)
    assert allowed(message, "x.y", "10.1.1.1")
    assert not allowed(message, None, "10.1.1.1")
    assert not allowed(message, "x.y", "10.9.1.1")
    assert not allowed(message, "x.y", "192.0.2.1")


def test_a_service_account_may_be_required_directly() -> None:
    ref = {"group": "", "kind": "ServiceAccount", "name": "web"}
    message = ask(server("s", 8080), policy("p", ("Server", "s"), [ref]))
    assert allowed(message, f"web.default.{SUFFIX}") and not allowed(message, f"bot.default.{SUFFIX}")


def test_no_required_authentication_lets_everybody_in() -> None:
    assert allowed(ask(server("s", 8080), policy("p", ("Server", "s"), [])), None)


@pytest.mark.parametrize(
    "required",
    [
        [MESH_REF],
        [NET_REF],
        [
            {"group": "", "kind": "ServiceAccount", "name": "a"},
            {"group": "", "kind": "ServiceAccount", "name": "b"},
        ],
        [{"group": "x.example", "kind": "Oracle", "name": "o"}],
    ],
)
def test_a_policy_that_cannot_be_carried_out_authorizes_nobody(required: list[Obj]) -> None:
    assert not ask(server("s", 8080), policy("p", ("Server", "s"), required)).authorizations


def test_policies_of_another_namespace_or_server_do_not_count() -> None:
    others = [policy("p", ("Server", "other"), []), policy("q", ("Server", "s"), [], ns="elsewhere")]
    assert not ask(server("s", 8080), *others).authorizations


def test_a_route_of_a_server_carries_its_own_authorizations() -> None:
    attached = route("admin", [{"matches": [{"path": {"type": "Exact", "value": "/admin"}}]}], TO_SERVER)
    message = ask(
        server("s", 8080),
        attached,
        mesh_tls("clients", identities=["ops.x"]),
        policy("p", ("HTTPRoute", "admin"), [MESH_REF]),
    )
    (only,) = message.protocol.detect.http_routes
    assert only.metadata.resource.name == "admin"
    assert only.rules[0].matches[0].path.exact == "/admin"
    assert allowed(message, "ops.x", route_name="admin") and not allowed(message, "ops.x")


def test_http_routes_of_a_grpc_server_hold_by_path() -> None:
    attached = route("vote", [{"matches": [{"path": {"value": "/emojivoto.v1.VotingService"}}]}], TO_SERVER)
    message = ask(server("s", 8080, proxyProtocol="gRPC"), attached)
    (only,) = message.protocol.http2.routes
    assert only.rules[0].matches[0].path.prefix == "/emojivoto.v1.VotingService"


PROBED = [
    {
        "name": "app",
        "ports": [{"name": "web", "containerPort": 8080}],
        "livenessProbe": {"httpGet": {"path": "/live?x=1", "port": "web"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}},
        "startupProbe": {"httpGet": {"path": "/secret", "port": 8080, "scheme": "HTTPS"}},
    },
    {"name": "side", "livenessProbe": {"httpGet": {"path": "/other", "port": 9999}}},
]


@pytest.mark.parametrize("attached", [[], [route("admin", [{}], TO_SERVER)]])
def test_probes_stay_authorized_whatever_is_attached(attached: list[Obj]) -> None:
    message = ask(pod("voting-1", "10.42.0.3", containers=PROBED), server("s", 8080), *attached)
    probe, *rest = message.protocol.detect.http_routes
    assert probe.metadata.default == "probe"
    assert [(m.path.exact, m.method.registered) for m in probe.rules[0].matches] == [
        ("/live", 0),
        ("/ready", 0),
    ]
    assert _permits(probe.authorizations[0], None, "192.0.2.1")
    assert [r.metadata.resource.name or r.metadata.default for r in rest] == (
        ["admin"] if attached else ["default"]
    )


def test_services_that_lead_to_the_port_are_named_in_order() -> None:
    more = [
        service(
            "voting-b", "10.96.0.6", selector={"app": "voting"}, ports=[{"port": 8080, "protocol": "TCP"}]
        ),
        service(
            "voting-a",
            "10.96.0.7",
            selector={"app": "voting"},
            ports=[{"port": 1, "targetPort": "web", "protocol": "TCP"}],
        ),
        service(
            "elsewhere",
            "10.96.0.8",
            selector={"app": "voting"},
            ports=[{"port": 8080, "targetPort": 1, "protocol": "TCP"}],
        ),
        service("other", "10.96.0.9", selector={"app": "other"}, ports=[{"port": 8080, "protocol": "TCP"}]),
        service("none", "10.96.0.10", selector=None, ports=[{"port": 8080, "protocol": "TCP"}]),
        service("voting", "10.96.9.9", ns="twin", ports=[{"port": 8080, "protocol": "TCP"}]),
    ]
    assert list(ask(*more).services) == ["voting", "voting-a", "voting-b"]


def test_an_unknown_pod_has_no_policy() -> None:
    assert inbound_server(World.of(voting()), MESH, "default", "gone", 8080) is None


IDENTITIES = st.sampled_from(["a.x", "b.x", "a.y", "a.b.x"])


@given(
    st.lists(st.lists(st.sampled_from(["*", "a.x", "b.x", "*.x", "*.b.x"]), max_size=3), max_size=3),
    st.none() | IDENTITIES,
)
def test_authorizations_only_add_up(policies: list[list[str]], client: str | None) -> None:
    """Oracle: a client is let in exactly when one of the policies' identities names it."""
    objects: list[Obj] = [server("s", 8080)]
    for index, names in enumerate(policies):
        objects.append(mesh_tls(f"m{index}", identities=names))
        ref = {"group": POLICY, "kind": "MeshTLSAuthentication", "name": f"m{index}"}
        objects.append(policy(f"p{index}", ("Server", "s"), [ref]))
    named = {name for names in policies for name in names}
    expected = client is not None and (
        "*" in named or client in named or any(n.startswith("*.") and client.endswith(n[1:]) for n in named)
    )
    assert allowed(ask(*objects), client) == expected
