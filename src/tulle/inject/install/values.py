"""The values of an installation: what `tulle install` was asked for, with defaults, and their two other forms.

They are written into the ConfigMap `linkerd-config`, from which the running control plane reads them back.
"""

from dataclasses import dataclass

import msgspec

import tulle
from tulle.inject.config import Capture, InjectConfig

__all__ = ["InstallValues", "inject_config", "read_values", "write_values"]


@dataclass(frozen=True)
class InstallValues:
    """The choices of an installation. Durations are in seconds; ports are fixed, as Linkerd's are."""

    namespace: str = "linkerd"
    trust_domain: str = "cluster.local"
    cluster_domain: str = "cluster.local"
    cluster_networks: str = InjectConfig.cluster_networks
    controller_image: str = f"tulle/controller:{tulle.__version__}"
    proxy_image: str = f"tulle/proxy:{tulle.__version__}"
    proxy_version: str = tulle.__version__
    image_pull_policy: str = "IfNotPresent"
    replicas: int = 1
    issuance_lifetime: int = 86_400
    default_inbound_policy: str = "all-unauthenticated"
    opaque_ports: str = InjectConfig.opaque_ports
    trace_collector: str = ""
    trace_collector_service_account: str = InjectConfig.trace_collector_service_account
    inject_by_default: bool = False
    capture: Capture = "init"
    native_sidecar: bool = True
    proxy_mark: str = ""
    tap_identity: str = ""
    webhook_failure_policy: str = "Ignore"
    gateway_api_crds: bool = True


def write_values(values: InstallValues) -> str:
    """Return the values as the JSON text of the ConfigMap `linkerd-config`, key `values`."""
    return msgspec.json.encode(values).decode()


def read_values(text: str) -> InstallValues:
    """Read what write_values wrote; unknown members are left to newer versions. Raises msgspec.DecodeError."""
    return msgspec.json.decode(text, type=InstallValues)


def inject_config(
    values: InstallValues, trust_anchors: str, *, beside_controller: bool = False
) -> InjectConfig:
    """Return the injector's view of the values; `trust_anchors` is the PEM bundle of the roots."""
    return InjectConfig(
        trust_anchors=trust_anchors,
        proxy_image=values.proxy_image,
        proxy_version=values.proxy_version,
        control_plane_namespace=values.namespace,
        trust_domain=values.trust_domain,
        cluster_domain=values.cluster_domain,
        cluster_networks=values.cluster_networks,
        image_pull_policy=values.image_pull_policy,
        inject_by_default=values.inject_by_default,
        capture=values.capture,
        native_sidecar=values.native_sidecar,
        proxy_mark=values.proxy_mark,
        tap_identity=values.tap_identity,
        opaque_ports=values.opaque_ports,
        default_inbound_policy=values.default_inbound_policy,
        trace_collector=values.trace_collector,
        trace_collector_service_account=values.trace_collector_service_account,
        beside_controller=beside_controller,
    )
