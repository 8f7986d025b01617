"""The settings of an installation, as the mesh that they describe. One place for the controller and for the tools."""

from tulle.compile.mesh import Mesh
from tulle.inject.install.values import InstallValues
from tulle.kube.words import DEFAULT_POLICIES

__all__ = ["mesh_of"]


def mesh_of(values: InstallValues) -> Mesh:
    """Return what a control plane installed with these values takes the mesh to be. Raises ValueError."""
    policy = next((name for name in DEFAULT_POLICIES if name == values.default_inbound_policy), None)
    if policy is None:
        raise ValueError(f"default inbound policy {values.default_inbound_policy!r} is not known")
    return Mesh(
        control_plane_namespace=values.namespace,
        trust_domain=values.trust_domain,
        cluster_domain=values.cluster_domain,
        cluster_networks=tuple(part.strip() for part in values.cluster_networks.split(",")),
        default_policy=policy,
        opaque_ports=values.opaque_ports,
    )
