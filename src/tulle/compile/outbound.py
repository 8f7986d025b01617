"""What a client's proxy does with traffic to one target: `OutboundPolicies.Get` and `.Watch`.

A Service's port has a protocol (appProtocol, else the opaque-ports annotation, else detection), routes (HTTPRoutes
attached to it, else one default route to its own endpoints) and backends. A pod's address is forwarded to that pod.
"""

from dataclasses import dataclass
from typing import Literal

from tulle.api import http_route_pb2, outbound_pb2
from tulle.compile import annotations, balancing, messages, routes
from tulle.compile.annotations import BadValue, Retry, RouteTimeouts
from tulle.compile.backends import Distributions
from tulle.compile.mesh import ClientContext, Mesh
from tulle.compile.names import AddressTarget, ServiceTarget
from tulle.compile.pods import is_opaque, weighted_address
from tulle.kube.objects import Namespace, Pod, Service
from tulle.kube.policy_objects import HTTPRoute, Rule
from tulle.kube.world import World, parent_key

__all__ = ["outbound_policy", "protocol_of", "routes_for", "service_is_opaque"]

Protocol = Literal["detect", "opaque", "http1", "http2"]
APP_PROTOCOLS: dict[str, Protocol] = {
    "http": "http1",
    "kubernetes.io/h2c": "http2",
    "linkerd.io/tcp": "opaque",
    "linkerd.io/opaque": "opaque",
}
RETRY_MAX_BYTES = 64 * 1024
RETRY_MIN_BACKOFF, RETRY_MAX_BACKOFF, RETRY_JITTER = 0.025, 0.25, 1.0


def outbound_policy(
    world: World, mesh: Mesh, target: ServiceTarget | AddressTarget, client: ClientContext
) -> outbound_pb2.OutboundPolicy | None:
    """Compute a target's policy for a client; None when neither a Service nor a pod is meant."""
    if isinstance(target, AddressTarget):
        service = world.service_by_ip(target.ip)
        if service is None:
            pod = world.pod_by_ip(target.ip)
            return _to_pod(world, mesh, pod, target) if pod is not None else None
        return _to_service(world, mesh, service, target.port, client, "")
    service = world.service(target.namespace, target.name)
    if service is None or service.spec.type == "ExternalName":
        return None
    return _to_service(world, mesh, service, target.port, client, target.hostname)


def service_is_opaque(world: World, mesh: Mesh, service: Service, port: int) -> bool:
    """Tell whether a Service's port carries bytes of which nothing may be assumed."""
    return protocol_of(world, mesh, service, port) == "opaque"


def protocol_of(world: World, mesh: Mesh, service: Service, port: int) -> Protocol:
    """Return how the protocol of a Service's port is known. appProtocol beats the opaque-ports annotation.

    A value of appProtocol that Linkerd does not name (`grpc` and `https` among them) means opaque, as there.
    """
    declared = service.port(port)
    if declared is not None and declared.app_protocol:
        return APP_PROTOCOLS.get(declared.app_protocol, "opaque")
    opaque = service.annotations.get(annotations.OPAQUE_PORTS)
    if opaque is None:
        namespace: Namespace | None = world.namespace(service.namespace)
        opaque = namespace.annotations.get(annotations.OPAQUE_PORTS) if namespace else None
    return (
        "opaque"
        if annotations.ports_contain(mesh.opaque_ports if opaque is None else opaque, port)
        else "detect"
    )


def mesh_tls_required(world: World, obj: Service | Pod) -> bool:
    """Tell whether an object, or else its namespace, demands that nothing be sent to it in the clear.

    A demand that cannot be read is one: what is meant to protect must not fail open.
    """
    text = obj.annotations.get(annotations.REQUIRE_MESH_TLS)
    if text is None:
        namespace: Namespace | None = world.namespace(obj.namespace)
        text = namespace.annotations.get(annotations.REQUIRE_MESH_TLS) if namespace else None
    if text is None:
        return False
    try:
        return annotations.demanded(annotations.REQUIRE_MESH_TLS, text)
    except BadValue:
        return True


def routes_for(world: World, service: Service, port: int, client_namespace: str) -> list[HTTPRoute]:
    """Return the HTTPRoutes in force, the oldest first.

    Routes in the Service's namespace hold for every client; routes in the client's namespace replace them for it.
    """
    attached = [
        route
        for route in world.routes_of("", "Service", service.namespace, service.name)
        if _names_port(route, service, port)
    ]
    consumer = [route for route in attached if route.namespace == client_namespace != service.namespace]
    return consumer or [route for route in attached if route.namespace == service.namespace]


def _names_port(route: HTTPRoute, service: Service, port: int) -> bool:
    key = ("", "Service", service.namespace, service.name)
    return any(
        parent_key(parent, route.namespace) == key and parent.port in (None, port)
        for parent in route.spec.parent_refs or ()
    )


@dataclass(frozen=True)
class _Context:
    """What the pieces of one Service port's policy share."""

    world: World
    mesh: Mesh
    service: Service
    port: int
    distributions: Distributions


def _to_service(
    world: World, mesh: Mesh, service: Service, port: int, client: ClientContext, hostname: str
) -> outbound_pb2.OutboundPolicy:
    metadata = messages.resource("", "Service", service, port=port)
    policy = outbound_pb2.OutboundPolicy(
        metadata=metadata, require_mesh_tls=mesh_tls_required(world, service)
    )
    if service.port(port) is None and not service.headless:
        forbidden = outbound_pb2.OpaqueRoute(metadata=messages.default_metadata("forbidden"))
        forbidden.rules.add().filters.add().forbidden.SetInParent()
        policy.protocol.opaque.routes.append(forbidden)
        return policy
    own = ServiceTarget(service.namespace, service.name, port, hostname)
    context = _Context(world, mesh, service, port, Distributions(world, mesh, own, service))
    attached = [] if hostname else routes_for(world, service, port, client.namespace)
    http = [_http_route(context, route) for route in attached] or [_default_http(context)]
    accrual = balancing.failure_accrual(service)
    match protocol_of(world, mesh, service, port):
        case "opaque":
            policy.protocol.opaque.routes.append(_default_opaque(context.distributions))
        case "http1":
            policy.protocol.http1.routes.extend(http)
            if accrual is not None:
                policy.protocol.http1.failure_accrual.CopyFrom(accrual)
        case "http2":
            policy.protocol.http2.routes.extend(http)
            if accrual is not None:
                policy.protocol.http2.failure_accrual.CopyFrom(accrual)
        case "detect":
            detect = policy.protocol.detect
            detect.timeout.CopyFrom(messages.duration(mesh.detect_timeout))
            detect.opaque.routes.append(_default_opaque(context.distributions))
            for version in (detect.http1, detect.http2):
                version.routes.extend(http)
                if accrual is not None:
                    version.failure_accrual.CopyFrom(accrual)
    return policy


def _to_pod(world: World, mesh: Mesh, pod: Pod, target: AddressTarget) -> outbound_pb2.OutboundPolicy:
    policy = outbound_pb2.OutboundPolicy(
        metadata=messages.resource("", "Pod", pod, port=target.port),
        require_mesh_tls=mesh_tls_required(world, pod),
    )
    endpoint = weighted_address(world, mesh, (target.ip, target.port), pod, {"namespace": pod.namespace})
    distributions = Distributions(world, mesh, None, None, forward=(pod, target.port, endpoint))
    opaque = _default_opaque(distributions)
    if is_opaque(world, mesh, pod, target.port):
        policy.protocol.opaque.routes.append(opaque)
        return policy
    detect = policy.protocol.detect
    detect.timeout.CopyFrom(messages.duration(mesh.detect_timeout))
    detect.opaque.routes.append(opaque)
    http = outbound_pb2.HttpRoute(metadata=messages.default_metadata("http"))
    rule = http.rules.add(matches=routes.matches(Rule()))
    rule.backends.CopyFrom(distributions.http_own())
    detect.http1.routes.append(http)
    detect.http2.routes.append(http)
    return policy


def _default_opaque(distributions: Distributions) -> outbound_pb2.OpaqueRoute:
    route = outbound_pb2.OpaqueRoute(metadata=messages.default_metadata("opaque"))
    route.rules.add(backends=distributions.opaque_own())
    return route


def _default_http(context: _Context) -> outbound_pb2.HttpRoute:
    route = outbound_pb2.HttpRoute(metadata=messages.default_metadata("http"))
    rule = route.rules.add(matches=routes.matches(Rule()))
    rule.backends.CopyFrom(context.distributions.http_own())
    rule.allow_l5d_request_headers = context.mesh.allow_l5d_request_headers
    _set_timeouts(
        rule, annotations.or_default(annotations.route_timeouts, context.service.annotations, RouteTimeouts())
    )
    _set_retry(rule, annotations.or_default(annotations.retry, context.service.annotations, None))
    return route


def _http_route(context: _Context, route: HTTPRoute) -> outbound_pb2.HttpRoute:
    message = outbound_pb2.HttpRoute(metadata=messages.resource(route.group, "HTTPRoute", route))
    message.hosts.extend(routes.host_matches(route.spec.hostnames or ()))
    # A route that carries any retry or timeout annotation replaces the Service's set as a whole, as in Linkerd.
    own = any(name.startswith(("retry.linkerd.io/", "timeout.linkerd.io/")) for name in route.annotations)
    tuning = route.annotations if own else context.service.annotations
    timeouts = annotations.or_default(annotations.route_timeouts, tuning, RouteTimeouts())
    for rule in route.spec.rules or ():
        encoded = message.rules.add()
        try:
            encoded.matches.extend(routes.matches(rule))
        except routes.BadMatch:
            del message.rules[-1]  # what cannot be matched matches nothing; the route's status names it
            continue
        encoded.filters.extend(context.distributions.filters(route, rule.filters or ()))
        encoded.backends.CopyFrom(context.distributions.http(route, rule))
        encoded.allow_l5d_request_headers = context.mesh.allow_l5d_request_headers
        _set_timeouts(encoded, _with_rule_timeout(timeouts, rule))
        _set_retry(encoded, _rule_retry(rule) or annotations.or_default(annotations.retry, tuning, None))
    return message


def _rule_retry(rule: Rule) -> Retry | None:
    """Read a rule's own retries (GEP-1731), which go before the annotations."""
    if rule.retry is None:
        return None
    try:
        return annotations.rule_retry(rule.retry)
    except BadValue:
        return None


def _with_rule_timeout(timeouts: RouteTimeouts, rule: Rule) -> RouteTimeouts:
    text = rule.timeouts.request if rule.timeouts else None
    if text is None:
        return timeouts
    try:
        seconds = annotations.gateway_duration("timeouts.request", text)
    except BadValue:
        return timeouts
    # Zero means: no timeout at all (GEP-1742).
    return RouteTimeouts(seconds or None, timeouts.response, timeouts.idle)


def _set_timeouts(rule: outbound_pb2.HttpRoute.Rule, timeouts: RouteTimeouts) -> None:
    encoded = http_route_pb2.Timeouts()
    if timeouts.request is not None:
        encoded.request.CopyFrom(messages.duration(timeouts.request))
    if timeouts.response is not None:
        encoded.response.CopyFrom(messages.duration(timeouts.response))
    if timeouts.idle is not None:
        encoded.idle.CopyFrom(messages.duration(timeouts.idle))
    if timeouts != RouteTimeouts():
        rule.timeouts.CopyFrom(encoded)


def _set_retry(rule: outbound_pb2.HttpRoute.Rule, wanted: Retry | None) -> None:
    if wanted is None or not wanted.statuses:
        return
    rule.retry.max_retries = wanted.limit
    rule.retry.max_request_bytes = RETRY_MAX_BYTES
    for start, end in wanted.statuses:
        rule.retry.conditions.status_ranges.add(start=start, end=end)
    if wanted.timeout is not None:
        rule.retry.timeout.CopyFrom(messages.duration(wanted.timeout))
    low = RETRY_MIN_BACKOFF if wanted.backoff is None else wanted.backoff
    rule.retry.backoff.min_backoff.CopyFrom(messages.duration(low))
    rule.retry.backoff.max_backoff.CopyFrom(messages.duration(max(RETRY_MAX_BACKOFF, low)))
    rule.retry.backoff.jitter_ratio = RETRY_JITTER
