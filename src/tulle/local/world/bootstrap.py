"""What this cluster has from its first moment beyond every cluster's: the Service of its DNS."""

from tulle.local.api import Api, ApiError
from tulle.local.net.isolated import DNS_ADDRESS

__all__ = ["create_dns_service"]


async def create_dns_service(api: Api) -> None:
    """Create the Service where pods find their resolver; it has no selector, for the world answers itself."""
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
        "spec": {"clusterIP": DNS_ADDRESS, "ports": ports},
    }
    try:
        await api.create("services", service)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
