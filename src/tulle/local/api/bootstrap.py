"""What a cluster holds before anybody has created anything: namespaces, accounts, roles, the API's own Service. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from tulle.local.api.objects import Obj

__all__ = ["Seed", "cluster_seeds", "kubernetes_endpoints", "namespace_seeds"]

_RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class Seed:
    """An object to create when it is missing."""

    group: str
    plural: str
    obj: Obj


def cluster_seeds(service_address: str, port: int) -> Iterator[Seed]:
    """Yield the objects of a new cluster. `service_address`, `port`: where the Service `kubernetes` is and leads."""
    for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
        yield Seed("", "namespaces", {"metadata": {"name": name}})
    yield from _roles()
    metadata = {"name": "kubernetes", "namespace": "default"}
    labels = {"component": "apiserver", "provider": "kubernetes"}
    ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]
    service = {
        "metadata": {**metadata, "labels": labels},
        "spec": {"clusterIP": service_address, "ports": ports},
    }
    yield Seed("", "services", service)


def namespace_seeds(namespace: str, bundle: str) -> Iterator[Seed]:
    """Yield what every namespace has: the default account, and the certificate of the API for pods."""
    yield Seed("", "serviceaccounts", {"metadata": {"name": "default", "namespace": namespace}})
    note = {
        "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver."
    }
    metadata = {"name": "kube-root-ca.crt", "namespace": namespace, "annotations": note}
    yield Seed("", "configmaps", {"metadata": metadata, "data": {"ca.crt": bundle}})


def kubernetes_endpoints(addresses: list[str], port: int) -> Iterator[Seed]:
    """Yield the endpoints of the Service `kubernetes`: the addresses at which pods reach the API."""
    metadata = {"name": "kubernetes", "namespace": "default"}
    ports = [{"name": "https", "port": port, "protocol": "TCP"}]
    subsets = [{"addresses": [{"ip": address} for address in addresses], "ports": ports}]
    yield Seed("", "endpoints", {"metadata": metadata, "subsets": subsets})
    ready = {"ready": True}
    slices = [{"addresses": [address], "conditions": ready} for address in addresses]
    labels = {"kubernetes.io/service-name": "kubernetes"}
    obj = {
        "metadata": {**metadata, "labels": labels},
        "addressType": "IPv4",
        "endpoints": slices,
        "ports": ports,
    }
    yield Seed("discovery.k8s.io", "endpointslices", obj)


_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_CORE = [
    "configmaps",
    "endpoints",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "replicationcontrollers/scale",
    "serviceaccounts",
    "services",
]
_SEEN = ["bindings", "events", "limitranges", "namespaces", "pods/log", "pods/status", "resourcequotas"]
_APPS = ["daemonsets", "deployments", "deployments/scale", "replicasets", "replicasets/scale", "statefulsets"]
_RUN = ["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "services/proxy", "secrets"]


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> Obj:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}


def _view() -> list[Obj]:
    return [
        _rule([""], [*_CORE, *_SEEN], _READ),
        _rule(["apps"], [*_APPS, "controllerrevisions"], _READ),
        _rule(["batch"], ["cronjobs", "jobs"], _READ),
        _rule(["autoscaling"], ["horizontalpodautoscalers"], _READ),
        _rule(["policy"], ["poddisruptionbudgets"], _READ),
        _rule(["networking.k8s.io"], ["ingresses", "networkpolicies"], _READ),
        _rule(["discovery.k8s.io"], ["endpointslices"], _READ),
    ]


def _edit() -> list[Obj]:
    return [
        *_view(),
        _rule([""], [*_CORE, "secrets"], _WRITE),
        _rule([""], _RUN, [*_READ, "create"]),
        _rule([""], ["serviceaccounts/token", "pods/eviction"], ["create"]),
        _rule([""], ["serviceaccounts"], ["impersonate"]),
        _rule(["apps"], _APPS, _WRITE),
        _rule(["batch"], ["cronjobs", "jobs"], _WRITE),
        _rule(["autoscaling"], ["horizontalpodautoscalers"], _WRITE),
        _rule(["policy"], ["poddisruptionbudgets"], _WRITE),
        _rule(["networking.k8s.io"], ["ingresses", "networkpolicies"], _WRITE),
        _rule(["coordination.k8s.io"], ["leases"], [*_READ, *_WRITE]),
    ]


def _roles() -> Iterator[Seed]:
    reviews = ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]
    health = ["/healthz", "/livez", "/readyz", "/version", "/version/"]
    documents = ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"]
    key_set = ["/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks"]
    roles: dict[str, list[Obj]] = {
        "cluster-admin": [_rule(["*"], ["*"], ["*"]), {"nonResourceURLs": ["*"], "verbs": ["*"]}],
        "admin": [
            *_edit(),
            _rule([_RBAC], ["rolebindings", "roles"], [*_READ, *_WRITE]),
            _rule(["authorization.k8s.io"], ["localsubjectaccessreviews"], ["create"]),
        ],
        "edit": _edit(),
        "view": _view(),
        "system:auth-delegator": [
            _rule(["authentication.k8s.io"], ["tokenreviews"], ["create"]),
            _rule(["authorization.k8s.io"], ["subjectaccessreviews"], ["create"]),
        ],
        "system:basic-user": [
            _rule(["authorization.k8s.io"], reviews, ["create"]),
            _rule(["authentication.k8s.io"], ["selfsubjectreviews"], ["create"]),
        ],
        "system:discovery": [{"nonResourceURLs": [*documents, *health], "verbs": ["get"]}],
        "system:public-info-viewer": [{"nonResourceURLs": health, "verbs": ["get"]}],
        "system:service-account-issuer-discovery": [{"nonResourceURLs": key_set, "verbs": ["get"]}],
    }
    for name, rules in roles.items():
        yield Seed(_RBAC, "clusterroles", {"metadata": _metadata(name), "rules": rules})
    bindings = {
        "cluster-admin": ["system:masters"],
        "system:basic-user": ["system:authenticated"],
        "system:discovery": ["system:authenticated"],
        "system:public-info-viewer": ["system:authenticated", "system:unauthenticated"],
        "system:service-account-issuer-discovery": ["system:serviceaccounts"],
    }
    for name, groups in bindings.items():
        subjects = [{"kind": "Group", "apiGroup": _RBAC, "name": group} for group in groups]
        reference = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": name}
        obj = {"metadata": _metadata(name), "roleRef": reference, "subjects": subjects}
        yield Seed(_RBAC, "clusterrolebindings", obj)


def _metadata(name: str) -> Obj:
    return {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}
