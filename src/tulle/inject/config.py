"""What the injector knows besides the pod and its namespace: one frozen set of values with Linkerd's defaults.

It owns the defaults of every injected setting (their source: the Linkerd 2.20 chart). It reads nothing.
"""

from dataclasses import dataclass
from typing import Literal

__all__ = ["DEFAULT_OPAQUE_PORTS", "Capture", "InjectConfig"]

DEFAULT_OPAQUE_PORTS = "25,587,3306,4444,5432,6379,9300,11211"

Capture = Literal["init", "cni", "explicit"]


@dataclass(frozen=True)
class InjectConfig:
    """Mesh-wide values of the sidecar.

    `capture` says who redirects the pod's traffic: our init container, a CNI plugin, or nobody (the application is
    told of its proxy by http_proxy, as `tulle up` does where no privilege is to be had).
    `trace_collector` (name:port) gets the spans of traced requests, and must prove to be of
    `trace_collector_service_account` (name, or name.namespace).
    `inject_by_default` injects pods that carry no annotation; namespaces in `never_inject` are left alone unless
    the pod itself asks. `tap_identity` is the one identity that may watch requests as they pass (tap); without it
    sidecars do not serve tap. `beside_controller` is for the control plane's own pods: their proxy finds identity,
    destination and policy on localhost, for it cannot be certified by a service that waits for it.
    """

    trust_anchors: str
    proxy_image: str
    proxy_version: str
    control_plane_namespace: str = "linkerd"
    trust_domain: str = "cluster.local"
    cluster_domain: str = "cluster.local"
    cluster_networks: str = "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fd00::/8"
    image_pull_policy: str = "IfNotPresent"
    inject_by_default: bool = False
    never_inject: tuple[str, ...] = ("kube-system", "cert-manager")
    capture: Capture = "init"
    native_sidecar: bool = True
    proxy_mark: str = ""
    inbound_port: int = 4143
    outbound_port: int = 4140
    admin_port: int = 4191
    control_port: int = 4190
    proxy_uid: int = 2102
    skip_inbound_ports: str = "4567,4568"
    skip_outbound_ports: str = "4567,4568"
    opaque_ports: str = DEFAULT_OPAQUE_PORTS
    default_inbound_policy: str = "all-unauthenticated"
    log_level: str = "warn,tulle=info,linkerd=info"
    log_format: str = "plain"
    tap_identity: str = ""
    trace_collector: str = ""
    trace_collector_service_account: str = "default"
    token_audience: str = "identity.l5d.io"
    token_expiry_seconds: int = 86400
    controller_service_account: str = "tulle-controller"
    beside_controller: bool = False
