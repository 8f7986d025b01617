"""What an injected proxy is told of tracing: where its spans go, and what they say of the pod. As Linkerd's injector.

Without a collector, by annotation or for the whole mesh, nothing is added.
"""

from collections.abc import Mapping
from typing import Any

from tulle.inject.annotations import Settings
from tulle.inject.config import InjectConfig

__all__ = ["trace"]

Obj = dict[str, Any]

PODINFO = "linkerd-podinfo"
PODINFO_DIR = "/var/run/linkerd/podinfo"
RESOURCE_PREFIX = "resource.opentelemetry.io/"
# The proxy knows them of its own pod; it reads pairs, one on a line.
_POD = {
    "k8s.pod.name": "$(_pod_name)",
    "k8s.pod.uid": "$(_pod_uid)",
    "k8s.pod.ip": "$(_pod_ip)",
    "k8s.namespace.name": "$(_pod_ns)",
    "k8s.node.name": "$(_pod_nodeName)",
    "k8s.container.name": "linkerd-proxy",
}


def trace(proxy: Obj, metadata: Obj, config: InjectConfig, values: Settings) -> list[Obj]:
    """Add the collector to the environment of `proxy` and return the volumes that this needs."""
    address = str(values.get("trace-collector", config.trace_collector))
    if not address:
        return []
    account = str(values.get("trace-collector-service-account", config.trace_collector_service_account))
    variables = {
        "LINKERD2_PROXY_TRACE_COLLECTOR_SVC_ADDR": address,
        "LINKERD2_PROXY_TRACE_COLLECTOR_SVC_NAME": _identity(account, address, config),
        "LINKERD2_PROXY_TRACE_PROTOCOL": "opentelemetry",
        "LINKERD2_PROXY_TRACE_SERVICE_NAME": _service_name(metadata.get("labels") or {}),
        "LINKERD2_PROXY_TRACE_ATTRIBUTES_PATH": f"{PODINFO_DIR}/labels",
        "LINKERD2_PROXY_TRACE_EXTRA_ATTRIBUTES": _attributes(metadata.get("annotations") or {}),
    }
    # Before what a user adds: that wins, as for every variable.
    known = {item["name"] for item in proxy["env"]}
    added = [{"name": name, "value": value} for name, value in variables.items() if name not in known]
    proxy["env"] = [*proxy["env"], *added]
    proxy["volumeMounts"].append({"mountPath": PODINFO_DIR, "name": PODINFO})
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    return [{"name": PODINFO, "downwardAPI": {"items": [labels]}}]


def _identity(account: str, address: str, config: InjectConfig) -> str:
    """Return the identity of the ServiceAccount, which is in the collector's own namespace unless it names one."""
    name, _, namespace = account.partition(".")
    host = address.rpartition(":")[0].split(".")
    namespace = namespace or (host[1] if len(host) > 1 else config.control_plane_namespace)
    control_plane = f"{config.control_plane_namespace}.{config.trust_domain}"
    return f"{name}.{namespace}.serviceaccount.identity.{control_plane}"


def _service_name(labels: Mapping[str, str]) -> str:
    for label in ("app.kubernetes.io/instance", "app.kubernetes.io/name"):
        if labels.get(label):
            return labels[label]
    return "linkerd-proxy"


def _attributes(annotations: Mapping[str, str]) -> str:
    own = {
        name.removeprefix(RESOURCE_PREFIX): text
        for name, text in sorted(annotations.items())
        if name.startswith(RESOURCE_PREFIX)
    }
    # A value of several lines would be several attributes.
    return "\n".join(f"{name}={' '.join(text.split())}" for name, text in {**_POD, **own}.items())
