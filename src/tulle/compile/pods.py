"""One pod's port as a client's proxy sees it: identity, protocol, metric labels."""

from tulle.api import destination_pb2
from tulle.compile import annotations, messages
from tulle.compile.mesh import Mesh
from tulle.kube.kinds import POLICY_GROUP
from tulle.kube.objects import Pod
from tulle.kube.policy_objects import Server
from tulle.kube.world import World

__all__ = ["container_ports", "is_opaque", "meshed", "select_server", "weighted_address"]

CONTROL_PLANE_NS = "linkerd.io/control-plane-ns"
WORKLOAD_KINDS = {
    "deployment",
    "replicaset",
    "job",
    "daemonset",
    "statefulset",
    "cronjob",
    "replicationcontroller",
}


def meshed(mesh: Mesh, pod: Pod) -> bool:
    """Tell whether the pod has a sidecar of this control plane."""
    return pod.labels.get(CONTROL_PLANE_NS) == mesh.control_plane_namespace and not pod.spec.host_network


def inherited(world: World, pod: Pod, name: str) -> str | None:
    """Return an annotation of the pod, else of its namespace."""
    value = pod.annotations.get(name)
    if value is None:
        namespace = world.namespace(pod.namespace)
        value = namespace.annotations.get(name) if namespace else None
    return value


def container_ports(pod: Pod, port: int | str) -> set[int]:
    """Return the container ports that a number or a port's name means; a name may be declared several times."""
    if isinstance(port, int):
        return {port}
    return {
        declared.container_port
        for container in pod.containers
        for declared in container.ports or ()
        if declared.name == port and declared.protocol == "TCP"
    }


def select_server(world: World, pod: Pod, port: int) -> Server | None:
    """Return the Server that describes a pod's port; of several the oldest, then the first by name."""
    for server in world.servers_in(pod.namespace):
        selector = server.spec.pod_selector
        if selector is None or not selector.matches(pod.labels):
            continue
        if port in container_ports(pod, server.spec.port):
            return server
    return None


def is_opaque(world: World, mesh: Mesh, pod: Pod, port: int) -> bool:
    """Tell whether nothing may be assumed of the bytes on a pod's port.

    A Server's proxyProtocol decides; without a Server, the opaque-ports annotation of the pod or its namespace.
    """
    server = select_server(world, pod, port)
    if server is not None and server.spec.proxy_protocol not in (None, "unknown"):
        return server.spec.proxy_protocol in ("opaque", "TLS")
    ports = inherited(world, pod, annotations.OPAQUE_PORTS)
    return annotations.ports_contain(mesh.opaque_ports if ports is None else ports, port, pod.containers)


def _skips_proxy(world: World, mesh: Mesh, pod: Pod, port: int) -> bool:
    skipped = inherited(world, pod, annotations.SKIP_INBOUND_PORTS)
    return port == mesh.admin_port or annotations.ports_contain(
        mesh.skip_inbound_ports if skipped is None else skipped, port
    )


def metric_labels(world: World, pod: Pod) -> dict[str, str]:
    """Return the labels that metrics of traffic to the pod carry (a proxy prefixes them with `dst_`)."""
    kind, owner = world.owner(pod)
    labels = {"pod": pod.name, "serviceaccount": pod.service_account}
    if kind.lower() in WORKLOAD_KINDS:
        labels["k8s_job" if kind == "Job" else kind.lower()] = owner
    if control_plane := pod.labels.get(CONTROL_PLANE_NS):
        labels["control_plane_ns"] = control_plane
    if template_hash := pod.labels.get("pod-template-hash"):
        labels["pod_template_hash"] = template_hash
    return labels


def weighted_address(
    world: World, mesh: Mesh, address: tuple[str, int], pod: Pod | None, labels: dict[str, str]
) -> destination_pb2.WeightedAddr:
    """Describe an endpoint; `labels` are added to the pod's own. Without a pod it is a plain, un-meshed address."""
    message = destination_pb2.WeightedAddr(addr=messages.tcp_address(address), weight=mesh.endpoint_weight)
    if pod is None:
        message.metric_labels.update(labels)
        return message
    message.metric_labels.update(metric_labels(world, pod) | labels)
    message.resource_ref.CopyFrom(messages.resource("", "Pod", pod))
    if not meshed(mesh, pod) or _skips_proxy(world, mesh, pod, address[1]):
        return message
    identity = mesh.identity(pod.namespace, pod.service_account)
    message.tls_identity.dns_like_identity.name = identity
    message.tls_identity.server_name.name = identity
    hint = message.protocol_hint
    if address[1] == mesh.tap_port:
        # Linkerd's tap server asks there through its own proxy, by address, and for this very identity.
        hint.h2.SetInParent()
        return message
    hint.opaque_transport.inbound_port = mesh.inbound_port
    if is_opaque(world, mesh, pod, address[1]):
        hint.opaque.SetInParent()
        return message
    hint.h2.SetInParent()
    keep_alive = message.http2.keep_alive
    keep_alive.interval.CopyFrom(messages.duration(mesh.http2_keepalive_interval))
    keep_alive.timeout.CopyFrom(messages.duration(mesh.http2_keepalive_timeout))
    keep_alive.while_idle = True
    return message


def server_labels(server: Server | None, default: str) -> dict[str, str]:
    """Name a Server, or the default that stands in for it, as metrics do."""
    if server is None:
        return {"group": "", "kind": "default", "name": default}
    return {"group": POLICY_GROUP, "kind": "server", "name": server.name}
