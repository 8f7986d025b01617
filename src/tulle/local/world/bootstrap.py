"""What this cluster has from its first moment beyond every cluster's: the Service of its DNS."""

from tulle.local.api import Api, ApiError, Obj
from tulle.local.net.isolated import DNS_ADDRESS

__all__ = ["create_dns_service"]

_PORTS = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]


async def create_dns_service(api: Api) -> None:
    """Create the Service where pods find their resolver.

    It has no selector, for the world answers itself, at the Service's address. Its one endpoint says so to sidecars,
    which a question over TCP passes.
    """
    service: Obj = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
        "spec": {"clusterIP": DNS_ADDRESS, "ports": _PORTS},
    }
    endpoints: Obj = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "ports": _PORTS,
        "endpoints": [{"addresses": [DNS_ADDRESS], "conditions": {"ready": True}}],
    }
    await _create(api, "services", "", service)
    await _create(api, "endpointslices", "discovery.k8s.io", endpoints)


async def _create(api: Api, plural: str, group: str, obj: Obj) -> None:
    try:
        await api.create(plural, obj, group=group)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
