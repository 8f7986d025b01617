"""Outbound policies: protocol, routes in force, backends, and what stands in for what is missing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.cluster import POLICY, Obj, namespace, pod, route, service, voting
from tulle.api import outbound_pb2
from tulle.compile import ClientContext, Mesh, outbound_policy, resolve
from tulle.kube.world import World

MESH = Mesh()
CLIENT = ClientContext("default", "web-1", "n1")


def policy(world: World, authority: str = "voting", client: ClientContext = CLIENT) -> Any:
    target = resolve(world, MESH, authority, client)
    assert target is not None
    return outbound_policy(world, MESH, target, client)


def http_routes(message: Any) -> list[Any]:
    detected = message.protocol.detect
    assert list(detected.http1.routes) == list(detected.http2.routes)
    return list(detected.http1.routes)


def backends(rule: Any) -> dict[str, int]:
    kind = rule.backends.WhichOneof("kind")
    if kind == "first_available":
        return {
            each.backend.balancer.discovery.dst.path: 1 for each in rule.backends.first_available.backends
        }
    return {
        each.backend.backend.balancer.discovery.dst.path
        or f"500: {each.backend.filters[0].failure_injector.message}": each.weight
        for each in rule.backends.random_available.backends
    }


def test_a_service_without_routes_gets_one_default_route_to_itself() -> None:
    message = policy(World.of(voting()))
    assert message.metadata.resource.kind == "Service" and message.metadata.resource.port == 80
    assert message.protocol.detect.timeout.seconds == 10
    (only,) = http_routes(message)
    assert only.metadata.default == "http"
    (rule,) = only.rules
    assert rule.matches[0].path.prefix == "/"
    (backend,) = rule.backends.first_available.backends
    assert backend.backend.queue.capacity == 100
    assert backend.backend.queue.failfast_timeout.seconds == 3
    balancer = backend.backend.balancer
    assert balancer.discovery.dst.path == "voting.default.svc.cluster.local:80"
    assert (balancer.peak_ewma.default_rtt.ToMilliseconds(), balancer.peak_ewma.decay.seconds) == (30, 10)
    (opaque,) = message.protocol.detect.opaque.routes
    assert opaque.rules[0].backends.first_available.backends[0].backend == backend.backend


@pytest.mark.parametrize(
    ("app_protocol", "expected"),
    [
        (None, "detect"),
        ("http", "http1"),
        ("kubernetes.io/h2c", "http2"),
        ("linkerd.io/tcp", "opaque"),
        ("linkerd.io/opaque", "opaque"),
        ("grpc", "opaque"),
        ("https", "opaque"),
    ],
)
def test_app_protocol_decides_the_protocol(app_protocol: str | None, expected: str) -> None:
    port: Obj = {"name": "p", "port": 80, "targetPort": 8080, "protocol": "TCP"}
    if app_protocol:
        port["appProtocol"] = app_protocol
    world = World.of([namespace("default"), service("voting", ports=[port])])
    assert policy(world).protocol.WhichOneof("kind") == expected


@pytest.mark.parametrize(
    ("port", "annotations", "on_namespace", "expected"),
    [
        (3306, None, None, "opaque"),
        (80, None, None, "detect"),
        (80, {"config.linkerd.io/opaque-ports": "70-90"}, None, "opaque"),
        (3306, {"config.linkerd.io/opaque-ports": "80"}, None, "detect"),
        (3306, {"config.linkerd.io/opaque-ports": ""}, None, "detect"),
        (80, None, {"config.linkerd.io/opaque-ports": "80"}, "opaque"),
        (80, {"config.linkerd.io/opaque-ports": "81"}, {"config.linkerd.io/opaque-ports": "80"}, "detect"),
    ],
)
def test_opaque_ports_come_from_the_service_its_namespace_or_the_default(
    port: int, annotations: Any, on_namespace: Any, expected: str
) -> None:
    ports = [{"name": "p", "port": port, "protocol": "TCP"}]
    world = World.of(
        [namespace("default", on_namespace), service("voting", ports=ports, annotations=annotations)]
    )
    assert policy(world, f"voting:{port}").protocol.WhichOneof("kind") == expected


@pytest.mark.parametrize(
    ("own", "of_namespace", "expected"),
    [
        (None, None, False),
        ("true", None, True),
        (None, "true", True),
        ("false", "true", False),
        ("true", "false", True),
        ("yes", None, True),
    ],
)
def test_mutual_tls_is_demanded_by_the_service_else_its_namespace_and_never_fails_open(
    own: str | None, of_namespace: str | None, expected: bool
) -> None:
    name = "tulle.dev/require-mesh-tls"
    world = World.of(
        [
            namespace("default", {name: of_namespace} if of_namespace else None),
            service("voting", annotations={name: own} if own else None),
            pod("voting-1", "10.42.0.3", annotations={name: own} if own else None),
        ]
    )
    assert policy(world).require_mesh_tls is expected
    assert policy(world, "10.42.0.3:8080").require_mesh_tls is expected


def test_app_protocol_beats_the_opaque_ports_annotation() -> None:
    ports = [{"name": "p", "port": 80, "protocol": "TCP", "appProtocol": "http"}]
    annotations = {"config.linkerd.io/opaque-ports": "80"}
    world = World.of([service("voting", ports=ports, annotations=annotations)])
    assert policy(world).protocol.WhichOneof("kind") == "http1"


def test_a_port_that_the_service_does_not_have_is_forbidden() -> None:
    message = policy(World.of(voting()), "voting:81")
    (only,) = message.protocol.opaque.routes
    assert only.rules[0].filters[0].WhichOneof("kind") == "forbidden"


def test_weights_are_kept_and_a_missing_backend_answers_its_share_with_500() -> None:
    refs = [
        {"name": "voting", "port": 80, "weight": 9},
        {"name": "gone", "port": 80, "weight": 1},
        {"name": "voting", "port": 80, "weight": 0},
    ]
    world = World.of(voting(route("canary", [{"backendRefs": refs}])))
    (only,) = http_routes(policy(world))
    assert backends(only.rules[0]) == {
        "voting.default.svc.cluster.local:80": 9,
        "500: Service not found gone in namespace default": 1,
    }
    failing = only.rules[0].backends.random_available.backends[1].backend
    injector = failing.filters[0].failure_injector
    assert (injector.status, injector.ratio.numerator, injector.ratio.denominator) == (500, 1, 1)
    assert failing.backend.metadata.resource.name == "gone"


@pytest.mark.parametrize(
    ("ref", "why"),
    [
        ({"name": "voting"}, "names no port"),
        ({"name": "voting", "port": 81}, "has no port 81"),
        ({"name": "voting", "port": 80, "namespace": "other"}, "not found voting in namespace other"),
        ({"name": "bucket", "kind": "Bucket", "group": "x.example"}, "is not a Service"),
    ],
)
def test_a_backend_that_cannot_be_had_says_why(ref: Obj, why: str) -> None:
    world = World.of(voting(route("r", [{"backendRefs": [ref]}])))
    (rule,) = http_routes(policy(world))[0].rules
    assert why in next(iter(backends(rule)))


def test_all_weights_zero_answers_500() -> None:
    world = World.of(voting(route("r", [{"backendRefs": [{"name": "voting", "port": 80, "weight": 0}]}])))
    (rule,) = http_routes(policy(world))[0].rules
    assert rule.backends.first_available.backends[0].filters[0].failure_injector.status == 500


def test_a_rule_without_backends_leads_to_the_service_itself() -> None:
    world = World.of(voting(route("r", [{"matches": [{"method": "POST"}]}])))
    (rule,) = http_routes(policy(world))[0].rules
    assert backends(rule) == {"voting.default.svc.cluster.local:80": 1}


def test_routes_of_the_clients_namespace_replace_the_producers_for_it_alone() -> None:
    parent = {"group": "", "kind": "Service", "name": "voting", "namespace": "default", "port": 80}
    world = World.of(
        voting(
            route("producer", [{}], parent),
            route("consumer", [{}], parent, ns="web"),
            route("stranger", [{}], parent, ns="other"),
        )
    )
    names = {
        ns: [
            r.metadata.resource.name
            for r in http_routes(policy(world, "voting.default", ClientContext(ns, "x")))
        ]
        for ns in ("default", "web", "elsewhere")
    }
    assert names == {"default": ["producer"], "web": ["consumer"], "elsewhere": ["producer"]}


def test_the_oldest_route_comes_first_then_the_first_by_name() -> None:
    old, new = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
    routes = [
        route("a", [{}], created=new),
        route("z", [{}], created=old),
        route("b", [{}], created=new, group=POLICY),
    ]
    names = [r.metadata.resource.name for r in http_routes(policy(World.of(voting(*routes))))]
    assert names == ["z", "a", "b"]


def test_a_route_for_another_port_is_not_in_force() -> None:
    parent = {"group": "", "kind": "Service", "name": "voting", "port": 443}
    assert http_routes(policy(World.of(voting(route("r", [{}], parent)))))[0].metadata.default == "http"


def test_matches_of_every_sort_are_encoded() -> None:
    match = {
        "path": {"type": "Exact", "value": "/vote"},
        "headers": [
            {"name": "X-Who", "value": "me"},
            {"name": "x-re", "value": "a+", "type": "RegularExpression"},
        ],
        "queryParams": [{"name": "q", "value": "1"}],
        "method": "POST",
    }
    (encoded,) = http_routes(policy(World.of(voting(route("r", [{"matches": [match]}])))))[0].rules[0].matches
    assert encoded.path.exact == "/vote"
    assert [(h.name, h.exact, h.regex) for h in encoded.headers] == [
        ("x-who", b"me", ""),
        ("x-re", b"", "a+"),
    ]
    assert (encoded.query_params[0].name, encoded.query_params[0].exact) == ("q", "1")
    assert encoded.method.registered == 1


def test_filters_that_are_carried_out_are_encoded_in_order() -> None:
    filters = [
        {
            "type": "RequestHeaderModifier",
            "requestHeaderModifier": {"set": [{"name": "X-A", "value": "1"}], "remove": ["X-B"]},
        },
        {
            "type": "ResponseHeaderModifier",
            "responseHeaderModifier": {"add": [{"name": "x-c", "value": "2"}]},
        },
        {
            "type": "RequestRedirect",
            "requestRedirect": {
                "scheme": "https",
                "hostname": "h",
                "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"},
                "port": 8443,
                "statusCode": 301,
            },
        },
    ]
    (rule,) = http_routes(policy(World.of(voting(route("r", [{"filters": filters}])))))[0].rules
    modify, respond, redirect = rule.filters
    assert modify.request_header_modifier.set.headers[0].value == b"1"
    assert list(modify.request_header_modifier.remove) == ["x-b"]
    assert respond.response_header_modifier.add.headers[0].name == "x-c"
    assert (redirect.redirect.path.prefix, redirect.redirect.port, redirect.redirect.status) == (
        "/new",
        8443,
        301,
    )


def test_rewrites_mirrors_and_cors_are_encoded() -> None:
    mirror = {"backendRef": {"name": "shadow", "port": 80}, "fraction": {"numerator": 1, "denominator": 8}}
    filters = [
        {
            "type": "URLRewrite",
            "urlRewrite": {
                "hostname": "inner",
                "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v2"},
            },
        },
        {"type": "RequestMirror", "requestMirror": mirror},
        {
            "type": "CORS",
            "cors": {
                "allowOrigins": ["https://a.example", "https://*.b.example", "*"],
                "allowCredentials": True,
            },
        },
    ]
    objects = voting(service("shadow", "10.96.0.9"), route("r", [{"filters": filters}]))
    (rule,) = http_routes(policy(World.of(objects)))[0].rules
    rewrite, copy, cors = rule.filters
    assert (rewrite.url_rewrite.host, rewrite.url_rewrite.path.prefix) == ("inner", "/v2")
    assert copy.mirror.backend.balancer.discovery.dst.path == "shadow.default.svc.cluster.local:80"
    assert (copy.mirror.ratio.numerator, copy.mirror.ratio.denominator) == (1, 8)
    assert [(o.exact, o.wildcard) for o in cors.cors.allow_origins] == [
        ("https://a.example", ""),
        ("", "https://*.b.example"),
        ("*", ""),
    ]
    assert cors.cors.allow_credentials and cors.cors.max_age.seconds == 5


def test_a_mirror_to_nothing_copies_nothing_and_hurts_nobody() -> None:
    filters = [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "gone", "port": 80}}}]
    (rule,) = http_routes(policy(World.of(voting(route("r", [{"filters": filters}])))))[0].rules
    assert not rule.filters and rule.backends.first_available.backends


def test_a_rules_own_retries_go_before_the_annotations() -> None:
    rule = {"retry": {"codes": [500, 429], "attempts": 3, "backoff": "400ms"}}
    annotated = route("r", [rule], annotations={"retry.linkerd.io/http": "503"})
    retry = http_routes(policy(World.of(voting(annotated))))[0].rules[0].retry
    assert retry.max_retries == 3
    assert [(r.start, r.end) for r in retry.conditions.status_ranges] == [(500, 500), (429, 429)]
    assert (retry.backoff.min_backoff.ToMilliseconds(), retry.backoff.max_backoff.ToMilliseconds()) == (
        400,
        400,
    )


@pytest.mark.parametrize("allowed", [False, True])
def test_requests_may_ask_for_themselves_where_the_installation_lets_them(allowed: bool) -> None:
    mesh = Mesh(allow_l5d_request_headers=allowed)
    for world in (World.of(voting()), World.of(voting(route("r", [{}])))):
        target = resolve(world, mesh, "voting", CLIENT)
        assert target is not None
        (rule,) = http_routes(outbound_policy(world, mesh, target, CLIENT))[0].rules
        assert rule.allow_l5d_request_headers == allowed


def balancer_of(**tuned: Any) -> Any:
    (rule,) = http_routes(policy(World.of([service("voting", **tuned)])))[0].rules
    return rule.backends.first_available.backends[0].backend.balancer


def test_hashing_zones_slow_start_and_limits_come_from_the_service() -> None:
    plain = balancer_of()
    assert not plain.HasField("consistent_hash") and not plain.HasField("zone_preference")
    by_header = balancer_of(annotations={"tulle.dev/hash-by": "header:X-User", "tulle.dev/slow-start": "30s"})
    assert by_header.consistent_hash.header == "x-user" and not by_header.HasField("slow_start")
    assert balancer_of(annotations={"tulle.dev/slow-start": "30s"}).slow_start.seconds == 30
    assert balancer_of(annotations={"tulle.dev/hash-by": "cookie:Sid"}).consistent_hash.cookie.name == "Sid"
    sticky = balancer_of(sessionAffinity="ClientIP").consistent_hash
    assert sticky.HasField("source_address") and sticky.load_bound > 1e6
    assert balancer_of(trafficDistribution="PreferClose").HasField("zone_preference")
    assert (
        balancer_of(annotations={"tulle.dev/max-in-flight-per-endpoint": "9"}).max_in_flight_per_endpoint == 9
    )


def test_failures_are_penalized_and_the_success_rate_breaks_where_asked() -> None:
    alpha = "balancer.alpha.linkerd.io/"
    tuned = {
        "balancer.linkerd.io/failure-accrual": "unified",
        f"{alpha}failure-accrual-success-rate-threshold": "0.9",
        f"{alpha}failure-accrual-honor-retry-after": "true",
        f"{alpha}penalize-failures": "true",
        f"{alpha}load-biaser-penalty": "2s",
    }
    message = policy(World.of([service("voting", annotations=tuned)]))
    unified = message.protocol.detect.http1.failure_accrual.unified
    assert (unified.success_rate_threshold, unified.decay.seconds, unified.min_requests) == (0.9, 10, 5)
    assert unified.max_consecutive_failures == 7 and unified.backoff.respect_retry_after_hint
    balancer = balancer_of(annotations=tuned)
    assert (
        balancer.penalty_peak_ewma.penalty.seconds,
        balancer.penalty_peak_ewma.max_retry_after.seconds,
    ) == (
        2,
        300,
    )


@pytest.mark.parametrize("kind", ["RequestMirror", "URLRewrite", "ExtensionRef", "CORS"])
def test_a_filter_that_is_not_carried_out_fails_its_requests(kind: str) -> None:
    (rule,) = http_routes(policy(World.of(voting(route("r", [{"filters": [{"type": kind}]}])))))[0].rules
    assert rule.filters[0].failure_injector.status == 500
    assert kind in rule.filters[0].failure_injector.message


@pytest.mark.parametrize(
    ("annotations", "on_route", "rule", "milliseconds"),
    [
        ({"timeout.linkerd.io/request": "300ms"}, None, {}, 300),
        ({"timeout.linkerd.io/request": "300ms"}, {"timeout.linkerd.io/request": "2s"}, {}, 2000),
        ({"timeout.linkerd.io/request": "300ms"}, {"retry.linkerd.io/limit": "1"}, {}, 0),
        (None, None, {"timeouts": {"request": "1m30s"}}, 90_000),
        ({"timeout.linkerd.io/request": "300ms"}, None, {"timeouts": {"request": "0s"}}, 0),
        ({"timeout.linkerd.io/request": "soon"}, None, {}, 0),
    ],
)
def test_request_timeouts_come_from_rule_route_or_service(
    annotations: Any, on_route: Any, rule: Obj, milliseconds: int
) -> None:
    objects = [service("voting", annotations=annotations), route("r", [rule], annotations=on_route)]
    (encoded,) = http_routes(policy(World.of(objects)))[0].rules
    assert encoded.timeouts.request.ToMilliseconds() == milliseconds


@pytest.mark.parametrize("refs", [None, [{"name": "voting", "port": 80}]])
@pytest.mark.parametrize(("text", "milliseconds"), [("750ms", 750), ("0s", 0), ("soon", 0)])
def test_a_backends_own_limit_is_passed_on(refs: Any, text: str, milliseconds: int) -> None:
    rule = {"timeouts": {"request": "2s", "backendRequest": text}, "backendRefs": refs}
    (encoded,) = http_routes(policy(World.of(voting(route("r", [rule])))))[0].rules
    kind = encoded.backends.WhichOneof("kind")
    if kind == "first_available":
        backend = encoded.backends.first_available.backends[0]
    else:
        backend = encoded.backends.random_available.backends[0].backend
    assert backend.requestTimeout.ToMilliseconds() == milliseconds
    assert encoded.timeouts.request.seconds == 2


def test_response_and_idle_timeouts_are_annotations() -> None:
    annotations = {"timeout.linkerd.io/response": "1s", "timeout.linkerd.io/idle": "2m"}
    (rule,) = http_routes(policy(World.of([service("voting", annotations=annotations)])))[0].rules
    assert (rule.timeouts.response.seconds, rule.timeouts.idle.seconds) == (1, 120)


def test_retry_and_breaker_annotations_are_passed_on() -> None:
    annotations = {
        "retry.linkerd.io/http": "5xx,429",
        "retry.linkerd.io/limit": "2",
        "retry.linkerd.io/timeout": "400ms",
        "balancer.linkerd.io/failure-accrual": "consecutive",
        "balancer.linkerd.io/failure-accrual-consecutive-max-failures": "3",
    }
    message = policy(World.of([service("voting", annotations=annotations)]))
    retry = http_routes(message)[0].rules[0].retry
    assert (retry.max_retries, retry.max_request_bytes, retry.timeout.ToMilliseconds()) == (2, 65536, 400)
    assert [(r.start, r.end) for r in retry.conditions.status_ranges] == [(500, 599), (429, 429)]
    breaker = message.protocol.detect.http1.failure_accrual.consecutive_failures
    assert (
        breaker.max_failures,
        breaker.backoff.min_backoff.seconds,
        breaker.backoff.max_backoff.seconds,
    ) == (3, 1, 60)


def test_a_pods_address_is_forwarded_to_that_pod() -> None:
    message = policy(World.of(voting()), "10.42.0.3:8080")
    assert message.metadata.resource.kind == "Pod"
    (only,) = http_routes(message)
    endpoint = only.rules[0].backends.first_available.backends[0].backend.forward
    assert (
        endpoint.tls_identity.dns_like_identity.name
        == "voting.default.serviceaccount.identity.linkerd.cluster.local"
    )


def test_what_is_nobodys_address_has_no_policy() -> None:
    world = World.of(voting(pod("done", "10.42.0.9")))
    assert policy(world, "93.184.216.34:443") is None
    assert policy(world, "missing.default.svc.cluster.local") is None


def test_where_an_object_was_written_is_named() -> None:
    written = route("r", [{}], annotations={"tulle.dev/source": "canary.yaml:3"})
    (only,) = http_routes(policy(World.of(voting(written))))
    assert only.metadata.resource.source == "canary.yaml:3"


WEIGHTS = st.lists(
    st.tuples(st.sampled_from(["voting", "emoji", "gone"]), st.integers(0, 1000) | st.none()), max_size=6
)


@given(WEIGHTS)
def test_every_share_is_accounted_for(refs: list[tuple[str, int | None]]) -> None:
    """Oracle: share by share, existing Services get their weight, missing ones a 500 of the same weight."""
    spec = [{"name": n, "port": 80} | ({} if w is None else {"weight": w}) for n, w in refs]
    world = World.of([*voting(service("emoji", "10.96.0.6")), route("r", [{"backendRefs": spec}])])
    (rule,) = http_routes(policy(world))[0].rules
    shares = [(n, 1 if w is None else w) for n, w in refs]
    expected = [(n, w) for n, w in shares if w > 0]
    if not refs:
        assert backends(rule) == {"voting.default.svc.cluster.local:80": 1}
    elif not expected:
        assert rule.backends.first_available.backends[0].filters[0].failure_injector.status == 500
    else:
        got = [
            ("gone" if each.backend.filters else each.backend.backend.metadata.resource.name, each.weight)
            for each in rule.backends.random_available.backends
        ]
        assert got == expected


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_no_annotation_breaks_the_policy(opaque: str, timeout: str, breaker: str) -> None:
    annotations = {
        "config.linkerd.io/opaque-ports": opaque,
        "timeout.linkerd.io/request": timeout,
        "retry.linkerd.io/http": breaker,
        "retry.linkerd.io/limit": timeout,
        "balancer.linkerd.io/failure-accrual": "consecutive",
        "balancer.linkerd.io/failure-accrual-consecutive-min-penalty": breaker,
    }
    message = policy(World.of([service("voting", annotations=annotations)]))
    assert outbound_pb2.OutboundPolicy.FromString(message.SerializeToString()) == message
