"""What is refused, and what is named as not carried out, each by the path of its field."""

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
    obj,
    policy,
    route,
    server,
    service,
    voting,
)
from tulle.compile import Mesh
from tulle.compile.status import merged_status, route_status
from tulle.compile.validate import problems
from tulle.kube import kinds
from tulle.kube.world import World

MESH = Mesh()


def paths(each: Obj, *, refused: bool = True) -> list[str]:
    return [problem.path for problem in problems(each) if problem.refused == refused]


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ({"filters": [{"type": "RequestMirror"}]}, "spec.rules[0].filters"),
        (
            {
                "filters": [
                    {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "v"}, "percent": 101}}
                ]
            },
            "spec.rules[0].filters",
        ),
        (
            {
                "filters": [
                    {
                        "type": "RequestMirror",
                        "requestMirror": {
                            "backendRef": {"name": "v"},
                            "fraction": {"numerator": 3, "denominator": 2},
                        },
                    }
                ]
            },
            "spec.rules[0].filters",
        ),
        (
            {"filters": [{"type": "CORS", "cors": {"allowOrigins": ["shop.example"]}}]},
            "spec.rules[0].filters",
        ),
        ({"filters": [{"type": "CORS", "cors": {}}]}, "spec.rules[0].filters"),
        (
            {"filters": [{"type": "URLRewrite", "urlRewrite": {"hostname": "a b"}}]},
            "spec.rules[0].filters",
        ),
        ({"filters": [{"type": "ExtensionRef"}]}, "spec.rules[0].filters"),
        ({"filters": [{"type": "URLRewrite", "urlRewrite": {}}]}, "spec.rules[0].filters"),
        ({"filters": [{"type": "RequestHeaderModifier"}]}, "spec.rules[0].filters"),
        ({"sessionPersistence": {}}, "spec.rules[0].sessionPersistence"),
        ({"retry": {"attempts": 101}}, "spec.rules[0].retry.attempts"),
        ({"retry": {"codes": [200]}}, "spec.rules[0].retry.codes"),
        ({"retry": {"backoff": "soon"}}, "spec.rules[0].retry.backoff"),
        ({"timeouts": {"request": "1 second"}}, "spec.rules[0].timeouts.request"),
        ({"timeouts": {"backendRequest": "-1s"}}, "spec.rules[0].timeouts.backendRequest"),
        (
            {"matches": [{"path": {"type": "RegularExpression", "value": "("}}]},
            "spec.rules[0].matches[0].path.value",
        ),
        (
            {"matches": [{"path": {"type": "RegularExpression", "value": "(?=a)"}}]},
            "spec.rules[0].matches[0].path.value",
        ),
        (
            {"matches": [{"path": {"type": "RegularExpression", "value": r"(a)\1"}}]},
            "spec.rules[0].matches[0].path.value",
        ),
        ({"matches": [{"path": {"value": "vote"}}]}, "spec.rules[0].matches[0].path.value"),
        ({"matches": [{"path": {"type": "Glob", "value": "/*"}}]}, "spec.rules[0].matches[0].path.type"),
        (
            {"matches": [{"headers": [{"name": "a", "value": "b", "type": "Glob"}]}]},
            "spec.rules[0].matches[0].headers[0].type",
        ),
        ({"matches": [{"method": "get"}]}, "spec.rules[0].matches[0].method"),
        ({"backendRefs": [{"name": "v", "port": 80, "weight": -1}]}, "spec.rules[0].backendRefs[0].weight"),
        (
            {"backendRefs": [{"name": "v", "filters": [{"type": "CORS"}]}]},
            "spec.rules[0].backendRefs[0].filters",
        ),
    ],
)
def test_a_rule_that_cannot_be_carried_out_is_refused(rule: Obj, path: str) -> None:
    assert paths(route("r", [rule])) == [path]


def test_rules_that_are_carried_out_have_no_problem() -> None:
    filters = [
        {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/"}}},
        {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "v", "port": 80}, "percent": 10}},
        {"type": "CORS", "cors": {"allowOrigins": ["*", "https://shop.example:8443", "https://*.example"]}},
    ]
    retry = {"codes": [500, 503], "attempts": 3, "backoff": "100ms"}
    assert problems(route("r", [{"filters": filters, "retry": retry}])) == []
    tuned = {
        "balancer.linkerd.io/failure-accrual": "unified",
        "balancer.alpha.linkerd.io/penalize-failures": "true",
        "retry.linkerd.io/http": "5xx",
        "tulle.dev/hash-by": "header:x-user",
    }
    assert problems(service("s", annotations=tuned, sessionAffinity="ClientIP")) == []


def test_a_gateways_route_is_left_to_its_controller() -> None:
    parent = {"name": "ingress"}
    assert problems(route("r", [{"filters": [{"type": "URLRewrite"}]}], parent)) == []


@pytest.mark.parametrize(
    ("each", "path"),
    [
        (
            route("r", [{}], annotations={"retry.linkerd.io/grpc": "internal"}),
            "metadata.annotations[retry.linkerd.io/grpc]",
        ),
        (service("s", trafficDistribution="PreferSameNode"), "spec.trafficDistribution"),
        (
            service("s", sessionAffinity="ClientIP", trafficDistribution="PreferClose"),
            "spec.trafficDistribution",
        ),
        (
            service("s", ports=[{"name": "g", "port": 1, "appProtocol": "grpc", "protocol": "TCP"}]),
            "spec.ports[0].appProtocol",
        ),
        (
            service("s", annotations={"balancer.linkerd.io/failure-accrual": "always"}),
            "metadata.annotations[balancer.linkerd.io/failure-accrual]",
        ),
    ],
)
def test_what_has_no_effect_is_named_and_not_refused(each: Obj, path: str) -> None:
    assert paths(each, refused=False) == [path]
    assert paths(each) == []


@pytest.mark.parametrize(
    ("each", "path"),
    [
        (server("s", 70000), "spec.port"),
        (server("s", 80, proxyProtocol="HTTP/3"), "spec.proxyProtocol"),
        (server("s", 80, accessPolicy="open"), "spec.accessPolicy"),
        (server("s", 80, externalWorkloadSelector={}), "spec.externalWorkloadSelector"),
        (policy("p", ("Namespace", "other"), []), "spec.targetRef.name"),
        (networks("n", "10.0.0.0/33"), "spec.networks[0].cidr"),
        (networks("n", "10.0.0.0/8", except_=["11.0.0.0/16"]), "spec.networks[0].except[0]"),
        (networks("n"), "spec.networks"),
        (mesh_tls("m"), "spec"),
        (mesh_tls("m", identities=["spiffe://x/ y"]), "spec.identities[0]"),
        (mesh_tls("m", identities=["spiffe://x/y", "spiffe://X/y"]), "spec.identities[1]"),
        (mesh_tls("m", identities=["spiffe://x"]), "spec.identities[0]"),
        (mesh_tls("m", identities=["spiffe://x/../y"]), "spec.identities[0]"),
        (mesh_tls("m", identities=["a*b"]), "spec.identities[0]"),
        (mesh_tls("m", identityRefs=[{"kind": "User", "name": "x"}]), "spec.identityRefs[0].kind"),
        (
            namespace("n", {"config.linkerd.io/default-inbound-policy": "open"}),
            "metadata.annotations[config.linkerd.io/default-inbound-policy]",
        ),
        (obj("Server", "s", f"{POLICY}/v1beta3", spec={"port": {"a": 1}}), "spec.port"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(each: Obj, path: str) -> None:
    assert paths(each) == [path]


def test_a_policy_may_target_and_require_only_what_is_defined() -> None:
    wrong = policy("p", ("Server", "s"), [{"group": "x", "kind": "Oracle", "name": "o"}])
    wrong["spec"]["targetRef"]["kind"] = "GRPCRoute"
    assert paths(wrong) == ["spec.targetRef", "spec.requiredAuthenticationRefs[0]"]
    twice = [{"group": POLICY, "kind": "NetworkAuthentication", "name": n} for n in "ab"]
    assert paths(policy("p", ("Server", "s"), twice)) == ["spec.requiredAuthenticationRefs[1]"]


@pytest.mark.parametrize(
    "each",
    [
        route(
            "r",
            [{"matches": [{"path": {"type": "RegularExpression", "value": "/a/[0-9]+"}}]}],
            hostnames=["x"],
        ),
        server("s", "web", proxyProtocol="gRPC", accessPolicy="audit"),
        policy("p", ("Namespace", "default"), []),
        networks("n", "10.0.0.0/8", "fd00::/8", except_=["10.1.0.0/16"]),
        mesh_tls("m", identities=["*", "*.x.y", "a.b"]),
        service("s"),
    ],
)
def test_what_is_carried_out_has_no_problem(each: Obj) -> None:
    assert problems(each) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda x: (
        st.lists(x, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "port", "kind", "type", "rules", "value"]), x, max_size=3)
    ),
    max_leaves=10,
)


@given(st.sampled_from(kinds.ALL), JSON)
def test_no_object_breaks_validation(kind: Any, spec: Any) -> None:
    api = f"{kind.group}/{kind.versions[0]}" if kind.group else kind.versions[0]
    each = {"apiVersion": api, "kind": kind.name, "metadata": {"name": "x"}, "spec": spec}
    for problem in problems(each):
        assert problem.path and problem.message


CONDITIONS = tuple[str, bool, str]


def judged(*objects: Obj) -> list[CONDITIONS]:
    world = World.of(voting(*objects))
    (each,) = [r for kind in (kinds.GATEWAY_HTTP_ROUTE, kinds.POLICY_HTTP_ROUTE) for r in world.all(kind)]
    (status,) = route_status(world, MESH, each)
    return [(c.type, c.status, c.reason) for c in status.conditions]


@pytest.mark.parametrize(
    ("each", "accepted", "resolved"),
    [
        (route("r", [{}]), (True, "Accepted"), (True, "ResolvedRefs")),
        (
            route("r", [{}], {"kind": "Service", "group": "", "name": "gone"}),
            (False, "NoMatchingParent"),
            (True, "ResolvedRefs"),
        ),
        (
            route("r", [{}], {"kind": "Service", "group": "", "name": "voting", "port": 9}),
            (False, "NoMatchingParent"),
            (True, "ResolvedRefs"),
        ),
        (
            route("r", [{}], {"kind": "Server", "group": POLICY, "name": "s"}),
            (False, "NoMatchingParent"),
            (True, "ResolvedRefs"),
        ),
        (
            route("r", [{"backendRefs": [{"name": "gone", "port": 80}]}]),
            (True, "Accepted"),
            (False, "BackendNotFound"),
        ),
        (
            route("r", [{"backendRefs": [{"kind": "Bucket", "group": "x", "name": "b"}]}]),
            (True, "Accepted"),
            (False, "InvalidKind"),
        ),
    ],
)
def test_a_routes_status_judges_parents_and_backends(each: Obj, accepted: Any, resolved: Any) -> None:
    assert judged(each) == [("Accepted", *accepted), ("ResolvedRefs", *resolved)]


@pytest.mark.parametrize(
    "objects",
    [
        [
            server("s", 8080, proxyProtocol="opaque"),
            route("r", [{}], {"kind": "Server", "group": POLICY, "name": "s"}),
        ],
        [service("voting", annotations={"config.linkerd.io/opaque-ports": "80"}), route("r", [{}])],
        [
            service("voting", ports=[{"name": "g", "port": 80, "appProtocol": "grpc", "protocol": "TCP"}]),
            route("r", [{}], {"kind": "Service", "group": "", "name": "voting"}),
        ],
    ],
)
def test_a_route_of_a_parent_that_carries_no_http_says_so(objects: list[Obj]) -> None:
    assert judged(*objects)[2] == ("PartiallyInvalid", True, "UnsupportedValue")


def test_a_headless_parent_is_of_the_wrong_kind() -> None:
    parent = {"kind": "Service", "group": "", "name": "db"}
    assert judged(service("db", "None"), route("r", [{}], parent))[0] == ("Accepted", False, "InvalidKind")


def test_a_status_is_written_once_and_keeps_what_others_wrote() -> None:
    other = {"controllerName": "x.example/gateway", "parentRef": {"name": "g"}, "conditions": []}
    written = route("r", [{}])
    written["status"] = {"parents": [other]}
    world = World.of(voting(written))
    view = world.peek(kinds.GATEWAY_HTTP_ROUTE, "default", "r")
    first = merged_status(view, route_status(world, MESH, view), "2026-01-01T00:00:00Z")
    assert first is not None and first["parents"][0] == other

    written["status"] = first
    again = World.of(voting(written))
    same = again.peek(kinds.GATEWAY_HTTP_ROUTE, "default", "r")
    assert merged_status(same, route_status(again, MESH, same), "2027-01-01T00:00:00Z") is None

    without_service = World.of([written])
    flipped = merged_status(same, route_status(without_service, MESH, same), "2027-01-01T00:00:00Z")
    assert flipped is not None
    accepted, resolved = flipped["parents"][1]["conditions"]
    assert (accepted["status"], accepted["lastTransitionTime"]) == ("False", "2027-01-01T00:00:00Z")
    assert (resolved["status"], resolved["lastTransitionTime"]) == ("True", "2026-01-01T00:00:00Z")
