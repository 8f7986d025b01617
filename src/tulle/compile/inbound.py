"""What a server's proxy does with traffic to one of its ports: `InboundServerPolicies.GetPort` and `.WatchPort`.

A Server object decides when one selects the port, else the default policy of the pod, its namespace or the mesh.
Probe routes stay whatever routes a user attaches: a kubelet that is refused kills a healthy pod.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

from tulle.api import grpc_route_pb2, inbound_pb2
from tulle.compile import annotations, filters, messages, routes
from tulle.compile.authorization import (
    Inert,
    authorize,
    default_authorizations,
    probe_authorization,
    route_policies,
    server_policies,
)
from tulle.compile.mesh import Mesh
from tulle.compile.pods import container_ports, inherited, is_opaque, select_server, server_labels
from tulle.kube.kinds import POLICY_GROUP
from tulle.kube.objects import Pod
from tulle.kube.policy_objects import AuthorizationPolicy, HTTPRoute, Match, PathMatch, Rule, Server
from tulle.kube.words import DEFAULT_POLICIES, DefaultPolicy
from tulle.kube.world import World

__all__ = ["default_policy", "inbound_server", "services_of"]

Protocol = Literal["detect", "opaque", "tls", "http1", "http2", "grpc"]
PROTOCOLS: dict[str | None, Protocol] = {
    None: "detect",
    "unknown": "detect",
    "HTTP/1": "http1",
    "HTTP/2": "http2",
    "gRPC": "grpc",
    "opaque": "opaque",
    "TLS": "tls",
}


def inbound_server(
    world: World, mesh: Mesh, namespace: str, pod_name: str, port: int
) -> inbound_pb2.Server | None:
    """Compute the policy of a pod's port; None when there is no such pod."""
    pod = world.pod(namespace, pod_name)
    if pod is None:
        return None
    server = select_server(world, pod, port)
    fallback = default_policy(world, mesh, pod, port)
    fronted = inherited(world, pod, annotations.PROXY_PROTOCOL_PORTS)
    message = inbound_pb2.Server(
        proxy_protocol=fronted is not None and annotations.ports_contain(fronted, port, pod.containers),
        server_ips=[messages.ip(ip) for ip in pod.ips if messages.is_address(ip)],
        labels=server_labels(server, fallback),
        services=services_of(world, pod, port),
    )
    if server is None:
        message.authorizations.extend(default_authorizations(mesh, fallback))
        protocol: Protocol = "opaque" if is_opaque(world, mesh, pod, port) else "detect"
    else:
        message.authorizations.extend(_policies(world, mesh, server_policies(world, server)))
        message.authorizations.extend(default_authorizations(mesh, _access_policy(server)))
        protocol = PROTOCOLS.get(server.spec.proxy_protocol, "opaque")
    _set_protocol(world, mesh, message, protocol, pod, port, server)
    return message


def default_policy(world: World, mesh: Mesh, pod: Pod, port: int) -> DefaultPolicy:
    """Return the policy for a port without a Server: the pod's annotation, its namespace's, else the mesh's.

    Ports that the workload lists as requiring identity let nobody in without one.
    """
    policy = _one_of(inherited(world, pod, annotations.DEFAULT_INBOUND_POLICY)) or mesh.default_policy
    required = inherited(world, pod, annotations.REQUIRE_IDENTITY_PORTS)
    if required and annotations.ports_contain(required, port, pod.containers):
        stricter: dict[DefaultPolicy, DefaultPolicy] = {
            "all-unauthenticated": "all-authenticated",
            "cluster-unauthenticated": "cluster-authenticated",
            "audit": "all-authenticated",
        }
        return stricter.get(policy, policy)
    return policy


def services_of(world: World, pod: Pod, port: int) -> list[str]:
    """Return the names of the Services that select the pod and lead to this port, sorted."""
    return sorted(
        service.name
        for service in world.services_in(pod.namespace)
        if service.spec.selector
        and all(pod.labels.get(key) == value for key, value in service.spec.selector.items())
        and any(
            port
            in container_ports(pod, declared.port if declared.target_port is None else declared.target_port)
            for declared in service.spec.ports or ()
            if declared.protocol == "TCP"
        )
    )


def _one_of(text: str | None) -> DefaultPolicy | None:
    return next((policy for policy in DEFAULT_POLICIES if policy == text), None)


def _access_policy(server: Server) -> DefaultPolicy:
    # What cannot be read must not open a port.
    return _one_of(server.spec.access_policy) or "deny"


def _policies(
    world: World, mesh: Mesh, policies: Iterable[AuthorizationPolicy]
) -> Iterator[inbound_pb2.Authz]:
    for policy in policies:
        try:
            yield authorize(world, mesh, policy)
        except Inert:
            continue


def _set_protocol(
    world: World,
    mesh: Mesh,
    message: inbound_pb2.Server,
    protocol: Protocol,
    pod: Pod,
    port: int,
    server: Server | None,
) -> None:
    match protocol:
        case "opaque":
            message.protocol.opaque.SetInParent()
        case "tls":
            message.protocol.tls.SetInParent()
        case "grpc" if not _attached(world, server) and not _probe_paths(pod, port):
            default = message.protocol.grpc.routes.add(metadata=messages.default_metadata("default"))
            # Every call. Linkerd's proxy wants that said by an empty part, not by a missing one.
            default.rules.add(matches=[grpc_route_pb2.GrpcRouteMatch(rpc=grpc_route_pb2.GrpcRpcMatch())])
        case "http1":
            message.protocol.http1.routes.extend(_http_routes(world, mesh, pod, port, server))
        case "http2" | "grpc":
            # gRPC is HTTP/2: HTTPRoutes of a gRPC Server hold by their paths, /package.Service/Method.
            message.protocol.http2.routes.extend(_http_routes(world, mesh, pod, port, server))
        case "detect":
            message.protocol.detect.timeout.CopyFrom(messages.duration(mesh.detect_timeout))
            message.protocol.detect.http_routes.extend(_http_routes(world, mesh, pod, port, server))


def _attached(world: World, server: Server | None) -> list[HTTPRoute]:
    if server is None:
        return []
    routes_of_server = world.routes_of(POLICY_GROUP, "Server", server.namespace, server.name)
    return [route for route in routes_of_server if route.namespace == server.namespace]


def _http_routes(
    world: World, mesh: Mesh, pod: Pod, port: int, server: Server | None
) -> Iterator[inbound_pb2.HttpRoute]:
    if paths := _probe_paths(pod, port):
        probe = inbound_pb2.HttpRoute(metadata=messages.default_metadata("probe"))
        probe.authorizations.append(probe_authorization(mesh))
        exact = tuple(Match(path=PathMatch("Exact", path), method="GET") for path in paths)
        probe.rules.add(matches=routes.matches(Rule(matches=exact)))
        yield probe
    attached = _attached(world, server)
    if not attached:
        default = inbound_pb2.HttpRoute(metadata=messages.default_metadata("default"))
        default.rules.add(matches=routes.matches(Rule()))
        yield default
    for route in attached:
        yield _http_route(world, mesh, route)


def _http_route(world: World, mesh: Mesh, route: HTTPRoute) -> inbound_pb2.HttpRoute:
    message = inbound_pb2.HttpRoute(metadata=messages.resource(route.group, "HTTPRoute", route))
    message.hosts.extend(routes.host_matches(route.spec.hostnames or ()))
    message.authorizations.extend(_policies(world, mesh, route_policies(world, route)))
    for rule in route.spec.rules or ():
        try:
            encoded = message.rules.add(matches=routes.matches(rule))
        except routes.BadMatch:
            continue  # what cannot be matched matches nothing; the route's status names it
        encoded.filters.extend(filters.inbound_filters(rule.filters or ()))
    return message


def _probe_paths(pod: Pod, port: int) -> list[str]:
    paths = set()
    for container in pod.containers:
        for probe in container.probes:
            target = probe.http_get
            if target is None or target.scheme.upper() != "HTTP":
                continue
            named = {p.container_port for p in container.ports or () if p.name == target.port}
            if target.port == port or port in named:
                paths.add(target.path.partition("?")[0] or "/")
    return sorted(paths)
