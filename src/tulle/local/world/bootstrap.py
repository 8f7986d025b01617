"""What this cluster has from its first moment beyond every cluster's: the Service of its DNS."""

from tulle.local.api import Api, ApiError
from tulle.local.controllers.bootstrap import bootstrap as bootstrap_cluster
from tulle.local.net import Network
from tulle.local.net.isolated import DNS_ADDRESS

__all__ = ["bootstrap"]


async def bootstrap(api: Api, network: Network) -> None:
    """Create what is not there yet."""
    await bootstrap_cluster(api, network.api_address)
    if network.transparent:
        await _create_dns(api)


async def _create_dns(api: Api) -> None:
    """Create the Service where pods find their resolver; it has no selector, for this process answers."""
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
