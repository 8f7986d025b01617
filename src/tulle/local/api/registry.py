"""Which resources there are: the table of built-in ones, and the ones that CRDs add while the API runs."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tulle.local.api import schema
from tulle.local.api.errors import no_such_resource
from tulle.local.api.schema import ANYTHING, Schema

__all__ = ["ALL_VERBS", "Registry", "ResourceType", "VersionedSchema"]

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class VersionedSchema:
    """One served version of a custom resource."""

    name: str
    schema: Schema
    columns: tuple[dict[str, object], ...] = ()
    """additionalPrinterColumns as the CRD gives them; empty: the standard ones."""
    status: bool = False
    scale: dict[str, str] | None = None
    selectable: tuple[str, ...] = ()
    deprecated: str = ""
    """The warning that clients get when they use the version; empty when it is not deprecated."""


@dataclass(frozen=True, slots=True)
class ResourceType:
    """One resource of the API. Its objects are stored in `version`, whichever version they are read in."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    schema: Schema = field(default=ANYTHING, repr=False)
    custom: tuple[VersionedSchema, ...] = ()
    """Served versions of a custom resource, storage version or not; empty for built-in kinds."""
    list_kind: str = ""

    @property
    def key(self) -> str:
        """Return the name of the resource's collection in the store: pods, deployments.apps.

        Both groups of events are one collection, kept in the form of the core group.
        """
        if self.group == "events.k8s.io":
            return "events"
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def versions(self) -> tuple[str, ...]:
        """Return the versions in which the resource is served."""
        return tuple(version.name for version in self.custom) or (self.version,)

    @property
    def is_custom(self) -> bool:
        """Tell whether a CRD defines the resource."""
        return bool(self.custom)

    def api_version(self, version: str | None = None) -> str:
        """Return the apiVersion that objects carry in a version (the stored one by default)."""
        version = version or self.version
        return f"{self.group}/{version}" if self.group else version

    def served(self, version: str | None) -> VersionedSchema | None:
        """Return a custom resource's version; None for built-in kinds."""
        wanted = version or self.version
        return next((served for served in self.custom if served.name == wanted), None)

    def schema_of(self, version: str | None = None) -> Schema:
        """Return the schema of a version."""
        served = self.served(version)
        return served.schema if served else self.schema

    def has_subresource(self, name: str, version: str | None = None) -> bool:
        """Tell whether a subresource exists."""
        served = self.served(version)
        if served is not None:
            return (name == "status" and served.status) or (name == "scale" and served.scale is not None)
        return name in self.subresources


_ALL = ("all",)
_API_EXTENSIONS = ("api-extensions",)
_STATUS = ("status",)
_REVIEW = ("create",)

# group, version, plural, kind, namespaced, short names, categories, subresources
_TABLE: tuple[tuple[str, str, str, str, bool, str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("", "v1", "bindings", "Binding", True, "", (), ()),
    ("", "v1", "configmaps", "ConfigMap", True, "cm", (), ()),
    ("", "v1", "endpoints", "Endpoints", True, "ep", (), ()),
    ("", "v1", "events", "Event", True, "ev", (), ()),
    ("", "v1", "limitranges", "LimitRange", True, "limits", (), ()),
    ("", "v1", "namespaces", "Namespace", False, "ns", (), ("status", "finalize")),
    ("", "v1", "nodes", "Node", False, "no", (), _STATUS),
    ("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, "pvc", (), _STATUS),
    ("", "v1", "persistentvolumes", "PersistentVolume", False, "pv", (), _STATUS),
    (
        "",
        "v1",
        "pods",
        "Pod",
        True,
        "po",
        _ALL,
        (
            "binding",
            "eviction",
            "exec",
            "log",
            "portforward",
            "proxy",
            "status",
        ),
    ),
    ("", "v1", "podtemplates", "PodTemplate", True, "", (), ()),
    ("", "v1", "replicationcontrollers", "ReplicationController", True, "rc", _ALL, ("scale", "status")),
    ("", "v1", "resourcequotas", "ResourceQuota", True, "quota", (), _STATUS),
    ("", "v1", "secrets", "Secret", True, "", (), ()),
    ("", "v1", "serviceaccounts", "ServiceAccount", True, "sa", (), ("token",)),
    ("", "v1", "services", "Service", True, "svc", _ALL, ("proxy", "status")),
    (
        "admissionregistration.k8s.io",
        "v1",
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
        False,
        "",
        _API_EXTENSIONS,
        (),
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        False,
        "",
        _API_EXTENSIONS,
        (),
    ),
    (
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        False,
        "crd,crds",
        _API_EXTENSIONS,
        _STATUS,
    ),
    ("apps", "v1", "controllerrevisions", "ControllerRevision", True, "", (), ()),
    ("apps", "v1", "daemonsets", "DaemonSet", True, "ds", _ALL, _STATUS),
    ("apps", "v1", "deployments", "Deployment", True, "deploy", _ALL, ("scale", "status")),
    ("apps", "v1", "replicasets", "ReplicaSet", True, "rs", _ALL, ("scale", "status")),
    ("apps", "v1", "statefulsets", "StatefulSet", True, "sts", _ALL, ("scale", "status")),
    ("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", False, "", (), ()),
    ("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", False, "", (), ()),
    ("authorization.k8s.io", "v1", "localsubjectaccessreviews", "LocalSubjectAccessReview", True, "", (), ()),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False, "", (), ()),
    ("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", False, "", (), ()),
    ("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", False, "", (), ()),
    ("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", True, "hpa", _ALL, _STATUS),
    ("batch", "v1", "cronjobs", "CronJob", True, "cj", _ALL, _STATUS),
    ("batch", "v1", "jobs", "Job", True, "", _ALL, _STATUS),
    ("coordination.k8s.io", "v1", "leases", "Lease", True, "", (), ()),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", True, "", (), ()),
    ("events.k8s.io", "v1", "events", "Event", True, "ev", (), ()),
    ("networking.k8s.io", "v1", "ingressclasses", "IngressClass", False, "", (), ()),
    ("networking.k8s.io", "v1", "ingresses", "Ingress", True, "ing", (), _STATUS),
    ("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, "netpol", (), ()),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, "pdb", (), _STATUS),
    ("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", False, "", (), ()),
    ("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", False, "", (), ()),
    ("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", True, "", (), ()),
    ("rbac.authorization.k8s.io", "v1", "roles", "Role", True, "", (), ()),
    ("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False, "pc", (), ()),
    ("storage.k8s.io", "v1", "storageclasses", "StorageClass", False, "sc", (), ()),
)

CREATE_ONLY = frozenset(
    {
        "bindings",
        "localsubjectaccessreviews",
        "selfsubjectaccessreviews",
        "selfsubjectreviews",
        "selfsubjectrulesreviews",
        "subjectaccessreviews",
        "tokenreviews",
    }
)
"""Resources that answer a question and store nothing."""

_MODULES = {"": "core_v1", "rbac.authorization.k8s.io": "rbac_v1"}


def _builtin_types() -> Iterator[ResourceType]:
    for group, version, plural, kind, namespaced, short, categories, subresources in _TABLE:
        module = _MODULES.get(group) or f"{group.removesuffix('.k8s.io')}_{version}"
        yield ResourceType(
            group,
            version,
            plural,
            kind,
            namespaced,
            singular=kind.lower(),
            short_names=tuple(filter(None, short.split(","))),
            categories=categories,
            subresources=subresources,
            verbs=_REVIEW if plural in CREATE_ONLY else ALL_VERBS,
            schema=schema.builtin(f"{module}.{kind}"),
            list_kind=f"{kind}List",
        )


class Registry:
    """All resources by (group, plural) and by (group, version, kind)."""

    def __init__(self) -> None:
        self._changes = 0
        self._by_plural: dict[tuple[str, str], ResourceType] = {}
        for resource in _builtin_types():
            self._by_plural[resource.group, resource.plural] = resource

    def __iter__(self) -> Iterator[ResourceType]:
        return iter(tuple(self._by_plural.values()))

    def add(self, resource: ResourceType) -> None:
        """Serve a custom resource from now on, or in its new shape."""
        self._by_plural[resource.group, resource.plural] = resource
        self._changes += 1

    def remove(self, group: str, plural: str) -> None:
        """Stop serving a custom resource."""
        self._by_plural.pop((group, plural), None)
        self._changes += 1

    @property
    def revision(self) -> str:
        """Return a text that changes whenever the resources do, for caches of documents about them."""
        return f"{self._changes:x}"

    def find(self, group: str, plural: str, version: str | None = None) -> ResourceType:
        """Return a resource, served in `version` if one is asked for; raise 404 otherwise."""
        resource = self._by_plural.get((group, plural))
        if resource is None or (version is not None and version not in resource.versions):
            raise no_such_resource()
        return resource

    def of_kind(self, group: str, version: str, kind: str) -> ResourceType | None:
        """Return the resource of a kind, or None."""
        for resource in self._by_plural.values():
            if resource.kind == kind and resource.group == group and version in resource.versions:
                return resource
        return None

    def groups(self) -> dict[str, list[str]]:
        """Return the served versions of each named group, the preferred one first."""
        served: dict[str, list[str]] = {}
        for resource in self._by_plural.values():
            if resource.group:
                versions = served.setdefault(resource.group, [])
                versions.extend(version for version in resource.versions if version not in versions)
        return {group: sorted(versions, key=version_priority) for group, versions in served.items()}


def version_priority(version: str) -> tuple[int, int, int, str]:
    """Order versions as Kubernetes prefers them: v2, v1, v1beta2, v1beta1, v1alpha1, then other words."""
    found = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if found is None:
        return (3, 0, 0, version)
    stage = {None: 0, "beta": 1, "alpha": 2}[found[2]]
    return (stage, -int(found[1]), -int(found[3] or 0), version)
