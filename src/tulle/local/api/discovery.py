"""Discovery: which groups, versions and resources there are, in the old form and the aggregated one. Pure."""

import platform
from collections.abc import Iterator

from tulle.local.api.errors import no_such_resource
from tulle.local.api.objects import Obj
from tulle.local.api.registry import Registry, ResourceType, version_priority

__all__ = [
    "GIT_VERSION",
    "aggregated",
    "api_versions",
    "group",
    "group_list",
    "resource_list",
    "version_info",
]

GIT_VERSION = "v1.37.0+tulle"
"""The version of Kubernetes whose behaviour the API follows."""

_SUB_KINDS = {
    "scale": ("autoscaling", "v1", "Scale"),
    "binding": ("", "v1", "Binding"),
    "eviction": ("policy", "v1", "Eviction"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
    "attach": ("", "v1", "PodAttachOptions"),
    "exec": ("", "v1", "PodExecOptions"),
    "portforward": ("", "v1", "PodPortForwardOptions"),
}
_SUB_VERBS: dict[str, tuple[str, ...]] = {
    "binding": ("create",),
    "eviction": ("create",),
    "token": ("create",),
    "attach": ("create", "get"),
    "exec": ("create", "get"),
    "portforward": ("create", "get"),
    "log": ("get",),
    "proxy": ("create", "delete", "get", "patch", "update"),
    "finalize": ("update",),
}
_CHANGEABLE = ("get", "patch", "update")


def version_info() -> Obj:
    """Return the answer of /version."""
    major, minor = GIT_VERSION.removeprefix("v").split(".")[:2]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return {
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": str(int(minor) - 1),
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "2025-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": f"CPython {platform.python_version()}",
        "platform": f"linux/{machine}",
    }


def api_versions() -> Obj:
    """Return the answer of /api."""
    addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}


def group(registry: Registry, name: str) -> Obj:
    """Return the answer of /apis/<group>; raise 404."""
    versions = registry.groups().get(name)
    if versions is None:
        raise no_such_resource()
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)}


def group_list(registry: Registry) -> Obj:
    """Return the answer of /apis."""
    groups = [_group(name, versions) for name, versions in registry.groups().items()]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def _group(name: str, versions: list[str]) -> Obj:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def resource_list(registry: Registry, name: str, version: str) -> Obj:
    """Return the answer of /api/v1 and /apis/<group>/<version>; raise 404."""
    served = [resource for resource in registry if resource.group == name and version in resource.versions]
    if not served:
        raise no_such_resource()
    listed: list[Obj] = []
    for resource in sorted(served, key=lambda r: r.plural):
        entry: Obj = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(resource.verbs),
        }
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        listed.append(entry)
        for sub, kind, verbs in _subresources(resource, version):
            shown = {
                "name": f"{resource.plural}/{sub}",
                "singularName": "",
                "namespaced": resource.namespaced,
            }
            owner = {"group": kind[0], "version": kind[1]} if kind[:2] != (name, version) else {}
            listed.append({**shown, **owner, "kind": kind[2], "verbs": list(verbs)})
    group_version = f"{name}/{version}" if name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}


def _subresources(
    resource: ResourceType, version: str
) -> Iterator[tuple[str, tuple[str, str, str], tuple[str, ...]]]:
    names = resource.subresources
    if resource.is_custom:
        names = tuple(sub for sub in ("scale", "status") if resource.has_subresource(sub, version))
    for sub in names:
        kind = _SUB_KINDS.get(sub, (resource.group, version, resource.kind))
        if sub == "proxy":
            kind = (resource.group, version, f"{resource.kind}ProxyOptions")
        yield sub, kind, _SUB_VERBS.get(sub, _CHANGEABLE)


def aggregated(registry: Registry, *, core: bool) -> Obj:
    """Return the answer of /api (core) or /apis for clients that read everything at once."""
    if core:
        groups = [_aggregated_group(registry, "", ["v1"])]
    else:
        groups = [_aggregated_group(registry, name, versions) for name, versions in registry.groups().items()]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": groups,
    }


def _aggregated_group(registry: Registry, name: str, versions: list[str]) -> Obj:
    shown: list[Obj] = []
    for version in sorted(versions, key=version_priority):
        resources: list[Obj] = []
        for resource in registry:
            if resource.group != name or version not in resource.versions:
                continue
            entry: Obj = {
                "resource": resource.plural,
                "responseKind": {"group": name, "version": version, "kind": resource.kind},
                "scope": "Namespaced" if resource.namespaced else "Cluster",
                "singularResource": resource.singular,
                "verbs": list(resource.verbs),
            }
            if resource.short_names:
                entry["shortNames"] = list(resource.short_names)
            if resource.categories:
                entry["categories"] = list(resource.categories)
            subs = [
                {
                    "subresource": sub,
                    "responseKind": {"group": kind[0], "version": kind[1], "kind": kind[2]},
                    "verbs": list(verbs),
                }
                for sub, kind, verbs in _subresources(resource, version)
            ]
            if subs:
                entry["subresources"] = subs
            resources.append(entry)
        shown.append({"version": version, "resources": resources, "freshness": "Current"})
    metadata: Obj = {"name": name, "creationTimestamp": None} if name else {"creationTimestamp": None}
    return {"metadata": metadata, "versions": shown}
