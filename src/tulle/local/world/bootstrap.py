"""What every cluster has from its first moment: namespaces, and the Services of the API itself and of DNS."""

from tulle.local.api import Api, ApiError, Obj
from tulle.local.net import Network
from tulle.local.net.isolated import API_ADDRESS, DNS_ADDRESS

__all__ = ["bootstrap"]

_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


async def bootstrap(api: Api, network: Network) -> None:
    """Create what is not there yet."""
    for name in _NAMESPACES:
        await _create(
            api, "namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        )
    for service in _services(network):
        await _create(api, "services", service)


async def _create(api: Api, plural: str, obj: Obj) -> None:
    try:
        await api.create(plural, obj)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise


def _services(network: Network) -> list[Obj]:
    """Return the Services of the API and, where pods ask it, of DNS.

    Neither has a selector: the first is answered by this process, and so is the second.
    """
    services = [
        _service("default", "kubernetes", API_ADDRESS[0], [{"name": "https", "port": 443, "protocol": "TCP"}])
    ]
    if network.transparent:
        ports = [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        ]
        services.append(_service("kube-system", "kube-dns", DNS_ADDRESS, ports))
    return services


def _service(namespace: str, name: str, ip: str, ports: list[Obj]) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": ip, "ports": ports},
    }
