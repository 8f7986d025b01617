"""Facts of the mesh as a whole that every compiled message rests on, and the defaults with their one home."""

from dataclasses import dataclass

from tulle.kube.words import DefaultPolicy

__all__ = ["ClientContext", "Mesh"]

EVERYWHERE = ("0.0.0.0/0", "::/0")


@dataclass(frozen=True, slots=True)
class Mesh:
    """Names, networks and defaults; durations are seconds. The values are Linkerd's."""

    control_plane_namespace: str = "linkerd"
    trust_domain: str = "cluster.local"
    cluster_domain: str = "cluster.local"
    cluster_networks: tuple[str, ...] = (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "fd00::/8",
    )
    probe_networks: tuple[str, ...] = EVERYWHERE
    default_policy: DefaultPolicy = "all-unauthenticated"
    opaque_ports: str = "25,587,3306,4444,5432,6379,9300,11211"
    skip_inbound_ports: str = "4567,4568"
    inbound_port: int = 4143
    # Ports of the proxy itself, never reached through 4143: tap, which speaks TLS, and admin, which speaks plain text.
    tap_port: int = 4190
    admin_port: int = 4191
    detect_timeout: float = 10.0
    queue_capacity: int = 100
    failfast_timeout: float = 3.0
    ewma_default_rtt: float = 0.03
    ewma_decay: float = 10.0
    http2_keepalive_interval: float = 10.0
    http2_keepalive_timeout: float = 3.0
    endpoint_weight: int = 10_000
    # Whether a request's `l5d-retry-*` and `l5d-*-timeout` go before what its route says.
    allow_l5d_request_headers: bool = False

    def identity(self, namespace: str, service_account: str) -> str:
        """Return the name that the certificate of a service account's pods carries."""
        return f"{service_account}.{namespace}.{self.identity_suffix}"

    @property
    def identity_suffix(self) -> str:
        """What every identity of this mesh ends with."""
        return f"serviceaccount.identity.{self.control_plane_namespace}.{self.trust_domain}"

    def service_fqdn(self, namespace: str, name: str) -> str:
        """Return a Service's full DNS name."""
        return f"{name}.{namespace}.svc.{self.cluster_domain}"


@dataclass(frozen=True, slots=True)
class ClientContext:
    """Who asks: where short names are resolved from, and where "near" is. Empty strings when unknown."""

    namespace: str = ""
    pod: str = ""
    node: str = ""
