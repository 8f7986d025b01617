"""The kinds that the mesh watches: where each is served and into which view it is read."""

from dataclasses import dataclass

from tulle.kube import objects, policy_objects

__all__ = ["ALL", "CONTROLLER", "GATEWAY_GROUP", "POLICY_GROUP", "Kind"]

GATEWAY_GROUP = "gateway.networking.k8s.io"
POLICY_GROUP = "policy.linkerd.io"


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """A kind: `versions` are those that we can read, the best first; `custom` ones may be absent from a cluster."""

    name: str
    group: str
    plural: str
    versions: tuple[str, ...]
    view: type[objects.View]
    custom: bool = False
    namespaced: bool = True

    def path(self, version: str, namespace: str | None = None) -> str:
        """Return the collection's URL path for one API version, in one namespace or in all."""
        root = f"/apis/{self.group}/{version}" if self.group else f"/api/{version}"
        return f"{root}/namespaces/{namespace}/{self.plural}" if namespace else f"{root}/{self.plural}"

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


POD = Kind("Pod", "", "pods", ("v1",), objects.Pod)
SERVICE = Kind("Service", "", "services", ("v1",), objects.Service)
NAMESPACE = Kind("Namespace", "", "namespaces", ("v1",), objects.Namespace, namespaced=False)
NODE = Kind("Node", "", "nodes", ("v1",), objects.Node, namespaced=False)
SERVICE_ACCOUNT = Kind("ServiceAccount", "", "serviceaccounts", ("v1",), objects.ServiceAccount)
ENDPOINT_SLICE = Kind("EndpointSlice", "discovery.k8s.io", "endpointslices", ("v1",), objects.EndpointSlice)
DEPLOYMENT = Kind("Deployment", "apps", "deployments", ("v1",), objects.Deployment)
REPLICA_SET = Kind("ReplicaSet", "apps", "replicasets", ("v1",), objects.ReplicaSet)
STATEFUL_SET = Kind("StatefulSet", "apps", "statefulsets", ("v1",), objects.StatefulSet)
DAEMON_SET = Kind("DaemonSet", "apps", "daemonsets", ("v1",), objects.DaemonSet)
JOB = Kind("Job", "batch", "jobs", ("v1",), objects.Job)
CRON_JOB = Kind("CronJob", "batch", "cronjobs", ("v1",), objects.CronJob)
GATEWAY_HTTP_ROUTE = Kind(
    "HTTPRoute", GATEWAY_GROUP, "httproutes", ("v1", "v1beta1"), policy_objects.HTTPRoute, custom=True
)
POLICY_HTTP_ROUTE = Kind(
    "HTTPRoute",
    POLICY_GROUP,
    "httproutes",
    ("v1beta3", "v1beta2", "v1beta1"),
    policy_objects.HTTPRoute,
    custom=True,
)
SERVER = Kind(
    "Server", POLICY_GROUP, "servers", ("v1beta3", "v1beta2", "v1beta1"), policy_objects.Server, custom=True
)
AUTHORIZATION_POLICY = Kind(
    "AuthorizationPolicy",
    POLICY_GROUP,
    "authorizationpolicies",
    ("v1alpha1",),
    policy_objects.AuthorizationPolicy,
    custom=True,
)
MESH_TLS_AUTHENTICATION = Kind(
    "MeshTLSAuthentication",
    POLICY_GROUP,
    "meshtlsauthentications",
    ("v1alpha1",),
    policy_objects.MeshTLSAuthentication,
    custom=True,
)
NETWORK_AUTHENTICATION = Kind(
    "NetworkAuthentication",
    POLICY_GROUP,
    "networkauthentications",
    ("v1alpha1",),
    policy_objects.NetworkAuthentication,
    custom=True,
)

# What the controller needs to answer proxies; ReplicaSets and Jobs only to find the owner of a Pod's owner.
CONTROLLER: tuple[Kind, ...] = (
    NAMESPACE,
    NODE,
    SERVICE,
    POD,
    ENDPOINT_SLICE,
    REPLICA_SET,
    JOB,
    GATEWAY_HTTP_ROUTE,
    POLICY_HTTP_ROUTE,
    SERVER,
    AUTHORIZATION_POLICY,
    MESH_TLS_AUTHENTICATION,
    NETWORK_AUTHENTICATION,
)
ALL: tuple[Kind, ...] = (*CONTROLLER, SERVICE_ACCOUNT, DEPLOYMENT, STATEFUL_SET, DAEMON_SET, CRON_JOB)
