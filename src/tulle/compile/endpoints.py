"""The endpoints behind a name, as one client sees them: `Destination.Get`.

Topology: `internalTrafficPolicy: Local` keeps to the client's node; zone hints are followed when every endpoint has
one and some name the client's zone. Both as kube-proxy does it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address

from tulle.compile import messages
from tulle.compile.mesh import ClientContext, Mesh
from tulle.compile.names import ServiceTarget
from tulle.compile.pods import weighted_address
from tulle.kube.objects import Endpoint, Service
from tulle.kube.world import World

__all__ = ["Endpoints", "Nearness", "endpoints", "nearness"]

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Nearness:
    """What of a client's place its answer depends on: its zone, and its node when the Service is node-local."""

    zone: str = ""
    local: bool = False
    node: str = ""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Encoded WeightedAddrs by address. `exists` is about the Service; `labels` are shared by all endpoints.

    `local` says that the answer holds for clients of one node only.
    """

    exists: bool
    addresses: dict[Address, bytes] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    local: bool = False


def nearness(world: World, target: ServiceTarget, client: ClientContext) -> Nearness:
    """Return what clients must have in common with this one to get the same endpoints."""
    node = world.node(client.node) if client.node else None
    zone = node.zone if node else ""
    service = world.service(target.namespace, target.name)
    if service is not None and _is_local(service):
        return Nearness(zone, local=True, node=client.node)
    return Nearness(zone)


def endpoints(world: World, mesh: Mesh, target: ServiceTarget, near: Nearness) -> Endpoints:
    """Compute the ready endpoints of a Service's port for clients at one place."""
    service = world.service(target.namespace, target.name)
    if service is None or service.spec.type == "ExternalName":
        return Endpoints(exists=False)
    candidates = list(_candidates(world, service, target))
    local = _is_local(service)
    if local:
        candidates = [c for c in candidates if c[1].node_name == near.node]
    else:
        candidates = _in_zone(candidates, near.zone)
    addresses = {}
    for address, endpoint in _one_family(candidates).items():
        encoded = _encode(world, mesh, address, endpoint, near.zone)
        if encoded is not None:
            addresses[address] = encoded
    labels = {"namespace": target.namespace, "service": target.name}
    return Endpoints(True, addresses, labels, local)


def _is_local(service: Service) -> bool:
    return service.spec.type != "ExternalName" and service.spec.internal_traffic_policy == "Local"


def _candidates(world: World, service: Service, target: ServiceTarget) -> Iterator[tuple[Address, Endpoint]]:
    declared = service.port(target.port)
    for piece in world.slices_of(target.namespace, target.name):
        if piece.address_type not in ("IPv4", "IPv6"):
            continue
        if declared is not None:
            ports = [p.port for p in piece.ports or () if (p.name or "") == declared.name and p.port]
        else:
            # DNS hands out a headless Service's pods, and a client may dial any of their ports.
            ports = [target.port] if service.headless else []
        for endpoint in piece.endpoints or ():
            if not endpoint.ready or (target.hostname and endpoint.hostname != target.hostname):
                continue
            for ip in endpoint.addresses or ():
                for port in ports:
                    if messages.is_address(ip, port):
                        yield (ip, port), endpoint


def _in_zone(candidates: list[tuple[Address, Endpoint]], zone: str) -> list[tuple[Address, Endpoint]]:
    if not zone or not all(endpoint.hints and endpoint.hints.for_zones for _, endpoint in candidates):
        return candidates
    near = [
        (address, endpoint)
        for address, endpoint in candidates
        if endpoint.hints and any(hint.name == zone for hint in endpoint.hints.for_zones or ())
    ]
    return near or candidates


def _one_family(candidates: Iterable[tuple[Address, Endpoint]]) -> dict[Address, Endpoint]:
    by_address = dict(candidates)
    v4 = {a: e for a, e in by_address.items() if isinstance(ip_address(a[0]), IPv4Address)}
    return v4 or by_address


def _encode(world: World, mesh: Mesh, address: Address, endpoint: Endpoint, client_zone: str) -> bytes | None:
    ref = endpoint.target_ref
    pod = None
    if ref is not None and ref.kind == "Pod":
        pod = world.pod(ref.namespace, ref.name)
        if pod is None:
            # The slice came before its pod. Handed out now, the endpoint would be spoken to in plain text.
            return None
    labels = {}
    if endpoint.zone:
        labels["zone"] = endpoint.zone
    if not client_zone or not endpoint.zone:
        labels["zone_locality"] = "unknown"
    else:
        labels["zone_locality"] = "local" if endpoint.zone == client_zone else "remote"
    return weighted_address(world, mesh, address, pod, labels).SerializeToString(deterministic=True)
