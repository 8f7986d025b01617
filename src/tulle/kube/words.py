"""Words that people write in manifests and on command lines: workload kinds and default inbound policies.

They are listed here because who injects, who compiles and who answers questions read the same ones. Imports nothing.
"""

from typing import Literal, get_args

__all__ = ["DEFAULT_POLICIES", "WORKLOAD_KINDS", "DefaultPolicy"]

DefaultPolicy = Literal[
    "all-unauthenticated",
    "all-authenticated",
    "cluster-unauthenticated",
    "cluster-authenticated",
    "deny",
    "audit",
]
"""What a port without a Server lets in: the annotation `default-inbound-policy`, and a Server's `accessPolicy`."""

DEFAULT_POLICIES: tuple[DefaultPolicy, ...] = get_args(DefaultPolicy)

WORKLOAD_KINDS: dict[str, tuple[str, ...]] = {
    "Deployment": ("deploy", "deployment", "deployments"),
    "StatefulSet": ("sts", "statefulset", "statefulsets"),
    "DaemonSet": ("ds", "daemonset", "daemonsets"),
    "ReplicaSet": ("rs", "replicaset", "replicasets"),
    "Job": ("job", "jobs"),
    "CronJob": ("cj", "cronjob", "cronjobs"),
    "Pod": ("po", "pod", "pods"),
}
"""What runs, by every name that kubectl knows for it; the first is the one that messages use."""
