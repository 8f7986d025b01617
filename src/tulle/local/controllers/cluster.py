"""The narrow port to the Kubernetes API, and the kinds that controllers and the node agent read and write.

Everything in `tulle.local.controllers` and `tulle.local.pods` speaks to the API through `ClusterApi`;
the embedded API satisfies it in-process, tests satisfy it with a scripted fake.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from tulle.local.api.errors import ApiError
from tulle.local.api.lifecycle import Propagation
from tulle.local.api.objects import Obj, ObjList, WatchEvent

__all__ = [
    "CONFIG_MAPS", "CRON_JOBS", "DAEMON_SETS", "DEPLOYMENTS", "ENDPOINTS", "ENDPOINT_SLICES", "EVENTS", "JOBS", "KINDS",
    "NAMESPACES", "NODES", "PODS", "REPLICA_SETS", "SECRETS", "SERVICES", "SERVICE_ACCOUNTS", "STATEFUL_SETS",
    "ApiError", "ClusterApi", "Key", "Kind", "Obj", "ObjList", "WatchEvent",
]  # fmt: skip

Key = tuple[str, str]
"""Namespace (empty for cluster-scoped kinds) and name."""


class ClusterApi(Protocol):
    """What this package asks of a Kubernetes API. Objects in lists and watches are shared: never change them in place.

    Every method raises ApiError for what the API refuses.
    """

    async def create(self, plural: str, obj: Obj, *, group: str = "", namespace: str | None = None) -> Obj:
        """Create an object."""
        ...

    async def get(self, plural: str, name: str, *, group: str = "", namespace: str | None = None) -> Obj:
        """Return an object."""
        ...

    async def list(self, plural: str, *, group: str = "", namespace: str | None = None) -> ObjList:
        """Return all objects and the version from which a watch continues."""
        ...

    async def patch(
        self,
        plural: str,
        name: str,
        body: Any,
        *,
        group: str = "",
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> Obj:
        """Change an object by a merge patch."""
        ...

    async def delete(
        self,
        plural: str,
        name: str,
        *,
        group: str = "",
        namespace: str | None = None,
        grace_period: int | None = None,
        propagation: Propagation = "Background",
    ) -> Obj:
        """Delete an object; return its last form."""
        ...

    def watch(
        self,
        plural: str,
        *,
        group: str = "",
        namespace: str | None = None,
        resource_version: str | None = None,
    ) -> AsyncIterator[WatchEvent]:
        """Yield changes after a version."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind with the address of its collection."""

    name: str
    group: str
    version: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`apiVersion` as objects carry it."""
        return f"{self.group}/{self.version}" if self.group else self.version


PODS = Kind("Pod", "", "v1", "pods")
SERVICES = Kind("Service", "", "v1", "services")
ENDPOINTS = Kind("Endpoints", "", "v1", "endpoints")
ENDPOINT_SLICES = Kind("EndpointSlice", "discovery.k8s.io", "v1", "endpointslices")
NAMESPACES = Kind("Namespace", "", "v1", "namespaces", namespaced=False)
NODES = Kind("Node", "", "v1", "nodes", namespaced=False)
EVENTS = Kind("Event", "", "v1", "events")
CONFIG_MAPS = Kind("ConfigMap", "", "v1", "configmaps")
SECRETS = Kind("Secret", "", "v1", "secrets")
SERVICE_ACCOUNTS = Kind("ServiceAccount", "", "v1", "serviceaccounts")
DEPLOYMENTS = Kind("Deployment", "apps", "v1", "deployments")
REPLICA_SETS = Kind("ReplicaSet", "apps", "v1", "replicasets")
STATEFUL_SETS = Kind("StatefulSet", "apps", "v1", "statefulsets")
DAEMON_SETS = Kind("DaemonSet", "apps", "v1", "daemonsets")
JOBS = Kind("Job", "batch", "v1", "jobs")
CRON_JOBS = Kind("CronJob", "batch", "v1", "cronjobs")

KINDS = (
    PODS, SERVICES, ENDPOINTS, ENDPOINT_SLICES, NAMESPACES, NODES, EVENTS, CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS,
    DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, DAEMON_SETS, JOBS, CRON_JOBS,
)  # fmt: skip
