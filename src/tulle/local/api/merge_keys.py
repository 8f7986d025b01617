"""How the lists and maps of the built-in kinds merge: which lists are keyed, which are sets, which maps are one value.

These facts are part of the Kubernetes API (`x-kubernetes-patch-merge-key`, `x-kubernetes-list-type`,
`x-kubernetes-map-type`) and stand here by hand, since typed models do not carry them.
A list that is not named is atomic: a patch replaces it whole.
"""

__all__ = ["ATOMIC_MAPS", "LIST_KEYS", "LIST_SETS", "RETAIN_KEYS"]

_CONTAINER = {"ports": ("containerPort", "protocol"), "env": ("name",), "volumeMounts": ("mountPath",)} | {
    "volumeDevices": ("devicePath",)
}
_CONDITIONED = (
    "core_v1.PodStatus",
    "core_v1.NodeStatus",
    "core_v1.NamespaceStatus",
    "core_v1.ServiceStatus",
    "core_v1.PersistentVolumeClaimStatus",
    "core_v1.ReplicationControllerStatus",
    "apps_v1.DeploymentStatus",
    "apps_v1.ReplicaSetStatus",
    "apps_v1.DaemonSetStatus",
    "apps_v1.StatefulSetStatus",
    "batch_v1.JobStatus",
    "policy_v1.PodDisruptionBudgetStatus",
    "apiextensions_v1.CustomResourceDefinitionStatus",
    "autoscaling_v2.HorizontalPodAutoscalerStatus",
)

LIST_KEYS: dict[str, dict[str, tuple[str, ...]]] = {
    "meta_v1.ObjectMeta": {"ownerReferences": ("uid",)},
    "core_v1.PodSpec": {
        "containers": ("name",),
        "initContainers": ("name",),
        "ephemeralContainers": ("name",),
        "volumes": ("name",),
        "imagePullSecrets": ("name",),
        "hostAliases": ("ip",),
        "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
        "schedulingGates": ("name",),
        "resourceClaims": ("name",),
    },
    "core_v1.Container": _CONTAINER,
    "core_v1.EphemeralContainer": _CONTAINER,
    "core_v1.ServiceSpec": {"ports": ("port", "protocol")},
    "core_v1.ServiceAccount": {"secrets": ("name",)},
    "core_v1.PodStatus": {"podIPs": ("ip",)},
    "core_v1.NodeStatus": {"addresses": ("type",)},
    "core_v1.ResourceRequirements": {"claims": ("name",)},
    "admissionregistration_v1.MutatingWebhookConfiguration": {"webhooks": ("name",)},
    "admissionregistration_v1.ValidatingWebhookConfiguration": {"webhooks": ("name",)},
    "admissionregistration_v1.MutatingWebhook": {"matchConditions": ("name",)},
    "admissionregistration_v1.ValidatingWebhook": {"matchConditions": ("name",)},
}
"""Lists whose entries are told apart by these fields (server-side apply)."""
for _status in _CONDITIONED:
    LIST_KEYS.setdefault(_status, {})["conditions"] = ("type",)


LIST_SETS: dict[str, frozenset[str]] = {
    "meta_v1.ObjectMeta": frozenset({"finalizers"}),
    "core_v1.NodeSpec": frozenset({"podCIDRs"}),
}
"""Lists of plain values that merge by union."""

RETAIN_KEYS: dict[str, frozenset[str]] = {
    "apps_v1.DeploymentSpec": frozenset({"strategy"}),
    "apps_v1.DaemonSetSpec": frozenset({"updateStrategy"}),
    "core_v1.PodSpec": frozenset({"volumes"}),
}
"""Unions, where a patch names with `$retainKeys` what is left."""

ATOMIC_MAPS = frozenset(
    {
        "meta_v1.LabelSelector",
        "meta_v1.OwnerReference",
        "core_v1.ObjectReference",
        "core_v1.LocalObjectReference",
        "core_v1.TypedLocalObjectReference",
        "core_v1.SecretReference",
        "core_v1.SecretKeySelector",
        "core_v1.ConfigMapKeySelector",
        "core_v1.ObjectFieldSelector",
        "core_v1.ResourceFieldSelector",
        "core_v1.NodeSelector",
        "core_v1.NodeSelectorTerm",
        "core_v1.ScopeSelector",
        "core_v1.ScopedResourceSelectorRequirement",
        "core_v1.EndpointAddress",
        "core_v1.EndpointPort",
        "discovery_v1.EndpointPort",
        "rbac_v1.RoleRef",
        "rbac_v1.Subject",
        "core_v1.ServiceSpec.selector",
        "core_v1.ReplicationControllerSpec.selector",
        "core_v1.PodSpec.nodeSelector",
    }
)
"""Objects and maps that server-side apply owns as one value."""
