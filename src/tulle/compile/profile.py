"""What is known of one address: `Destination.GetProfile`.

A Service's address names the Service; a pod's address is an endpoint of its own; anything else is only opaque or not.
"""

from tulle.api import destination_pb2
from tulle.compile import annotations, messages
from tulle.compile.mesh import ClientContext, Mesh
from tulle.compile.names import AddressTarget, ServiceTarget
from tulle.compile.outbound import service_is_opaque
from tulle.compile.pods import is_opaque, weighted_address
from tulle.kube.world import World

__all__ = ["profile"]


def profile(
    world: World, mesh: Mesh, target: ServiceTarget | AddressTarget, client: ClientContext
) -> destination_pb2.DestinationProfile:
    """Compute the profile of an address, or of a Service by name."""
    message = destination_pb2.DestinationProfile()
    if isinstance(target, ServiceTarget):
        service = world.service(target.namespace, target.name)
    else:
        service = world.service_by_ip(target.ip)
    if service is not None:
        message.fully_qualified_name = mesh.service_fqdn(service.namespace, service.name)
        message.opaque_protocol = service_is_opaque(world, mesh, service, target.port)
        message.parent_ref.CopyFrom(messages.resource("", "Service", service, port=target.port))
        return message
    pod = world.pod_by_ip(target.ip) if isinstance(target, AddressTarget) else None
    if pod is not None and isinstance(target, AddressTarget):
        labels = {"namespace": pod.namespace}
        message.endpoint.CopyFrom(weighted_address(world, mesh, (target.ip, target.port), pod, labels))
        message.opaque_protocol = is_opaque(world, mesh, pod, target.port)
        message.parent_ref.CopyFrom(messages.resource("", "Pod", pod, port=target.port))
        return message
    message.opaque_protocol = annotations.ports_contain(mesh.opaque_ports, target.port)
    return message
