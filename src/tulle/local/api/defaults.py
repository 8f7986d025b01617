"""The values that Kubernetes fills in where a manifest says nothing, for the built-in kinds. In place and pure.

Custom resources take theirs from their schema: see structural.py.
"""

import base64
from collections.abc import Callable
from typing import Any

from tulle.local.api.objects import Obj, lookup
from tulle.local.api.registry import ResourceType

__all__ = ["apply_defaults"]


def apply_defaults(resource: ResourceType, obj: Obj) -> None:
    """Fill in the defaults of a built-in kind."""
    filler = _FILLERS.get(resource.key)
    if filler is not None:
        filler(obj)


def _set(target: Obj, **values: Any) -> None:
    for key, value in values.items():
        if target.get(key) is None:
            target[key] = value


def _section(obj: Obj, key: str) -> Obj:
    value = obj.get(key)
    if value is None:
        value = obj[key] = {}
    assert isinstance(value, dict)
    return value


def _pod(obj: Obj) -> None:
    pod_spec(_section(obj, "spec"))
    spec = obj["spec"]
    _set(spec, enableServiceLinks=True)
    if not spec.get("priority") and spec.get("priorityClassName") is None:
        _set(spec, priority=0, preemptionPolicy="PreemptLowerPriority")
    if spec.get("hostNetwork"):
        for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
            for port in container.get("ports") or ():
                _set(port, hostPort=port.get("containerPort"))
    status = _section(obj, "status")
    _set(status, phase="Pending", qosClass=qos_class(spec))


def pod_spec(spec: Obj) -> None:
    """Fill in a pod's spec, in a pod or in a template."""
    _set(
        spec,
        restartPolicy="Always",
        terminationGracePeriodSeconds=30,
        dnsPolicy="ClusterFirst",
        schedulerName="default-scheduler",
        securityContext={},
    )
    if spec.get("serviceAccountName"):
        _set(spec, serviceAccount=spec["serviceAccountName"])
    elif spec.get("serviceAccount"):
        _set(spec, serviceAccountName=spec["serviceAccount"])
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            _container(container)
    for volume in spec.get("volumes") or ():
        _volume(volume)


def _container(container: Obj) -> None:
    image = str(container.get("image") or "")
    tagged = image.rpartition("/")[2]
    always = "@" not in image and (":" not in tagged or tagged.endswith(":latest"))
    _set(
        container,
        imagePullPolicy="Always" if always else "IfNotPresent",
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        resources={},
    )
    resources = container["resources"]
    for name, value in (resources.get("limits") or {}).items():
        _set(_section(resources, "requests"), **{name: value})
    for kind in ("limits", "requests"):
        if resources.get(kind):
            resources[kind] = {name: str(value) for name, value in resources[kind].items()}
    for port in container.get("ports") or ():
        _set(port, protocol="TCP")
    for variable in container.get("env") or ():
        reference = lookup(variable, ("valueFrom", "fieldRef"))
        if reference is not None:
            _set(reference, apiVersion="v1")
    for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(kind) is not None:
            _probe(container[kind])
    for hook in ("postStart", "preStop"):
        request = lookup(container, ("lifecycle", hook, "httpGet"))
        if request is not None:
            _set(request, path="/", scheme="HTTP")


def _probe(probe: Obj) -> None:
    _set(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
    if probe.get("httpGet") is not None:
        _set(probe["httpGet"], path="/", scheme="HTTP")
    if probe.get("grpc") is not None:
        _set(probe["grpc"], service="")


_VOLUME_MODES = {
    "configMap": "defaultMode",
    "secret": "defaultMode",
    "projected": "defaultMode",
    "downwardAPI": "defaultMode",
}


def _volume(volume: Obj) -> None:
    if set(volume) == {"name"}:
        volume["emptyDir"] = {}
    for source, mode in _VOLUME_MODES.items():
        if volume.get(source) is not None:
            _set(volume[source], **{mode: 0o644})
    if volume.get("hostPath") is not None:
        _set(volume["hostPath"], type="")
    for source in lookup(volume, ("projected", "sources")) or ():
        if source.get("serviceAccountToken") is not None:
            _set(source["serviceAccountToken"], expirationSeconds=3600)
        for item in lookup(source, ("downwardAPI", "items")) or ():
            if item.get("fieldRef") is not None:
                _set(item["fieldRef"], apiVersion="v1")
    for item in lookup(volume, ("downwardAPI", "items")) or ():
        if item.get("fieldRef") is not None:
            _set(item["fieldRef"], apiVersion="v1")


def qos_class(spec: Obj) -> str:
    """Return the quality of service that a pod's resources amount to."""
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    asked = [(c.get("resources") or {}).get("requests") or {} for c in containers]
    limits = [(c.get("resources") or {}).get("limits") or {} for c in containers]
    if not any(asked) and not any(limits):
        return "BestEffort"
    full = all({"cpu", "memory"} <= set(limit) for limit in limits)
    return (
        "Guaranteed"
        if full and all(a == limit for a, limit in zip(asked, limits, strict=True))
        else "Burstable"
    )


def _template(obj: Obj) -> Obj:
    spec = _section(obj, "spec")
    template = spec.get("template")
    if isinstance(template, dict):
        _section(template, "metadata")
        pod_spec(_section(template, "spec"))
    return spec


def _deployment(obj: Obj) -> None:
    spec = _template(obj)
    _set(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600, strategy={})
    strategy = spec["strategy"]
    _set(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _set(strategy, rollingUpdate={})
        _set(strategy["rollingUpdate"], maxUnavailable="25%", maxSurge="25%")


def _replica_set(obj: Obj) -> None:
    _set(_template(obj), replicas=1)


def _replication_controller(obj: Obj) -> None:
    spec = _template(obj)
    _set(spec, replicas=1)
    labels = lookup(spec, ("template", "metadata", "labels"))
    if labels and not spec.get("selector"):
        spec["selector"] = dict(labels)


def _daemon_set(obj: Obj) -> None:
    spec = _template(obj)
    _set(spec, revisionHistoryLimit=10, updateStrategy={})
    _set(spec["updateStrategy"], type="RollingUpdate")
    if spec["updateStrategy"]["type"] == "RollingUpdate":
        _set(spec["updateStrategy"], rollingUpdate={})
        _set(spec["updateStrategy"]["rollingUpdate"], maxUnavailable=1, maxSurge=0)


def _stateful_set(obj: Obj) -> None:
    spec = _template(obj)
    _set(spec, replicas=1, revisionHistoryLimit=10, podManagementPolicy="OrderedReady", updateStrategy={})
    _set(spec["updateStrategy"], type="RollingUpdate")
    if spec["updateStrategy"]["type"] == "RollingUpdate":
        _set(spec["updateStrategy"], rollingUpdate={})
        _set(spec["updateStrategy"]["rollingUpdate"], partition=0)
    _set(spec, persistentVolumeClaimRetentionPolicy={"whenDeleted": "Retain", "whenScaled": "Retain"})


def _job(obj: Obj) -> None:
    spec = _template(obj)
    job_spec(spec)
    uid = obj["metadata"].get("uid")
    template = spec.get("template")
    if uid and isinstance(template, dict) and not spec.get("selector") and not spec.get("manualSelector"):
        name = obj["metadata"].get("name", "")
        own = {"batch.kubernetes.io/controller-uid": uid}
        spec["selector"] = {"matchLabels": own}
        labels = _section(template["metadata"], "labels")
        labels.update(own | {"batch.kubernetes.io/job-name": name, "controller-uid": uid, "job-name": name})


def job_spec(spec: Obj) -> None:
    """Fill in a Job's spec, in a Job or in a CronJob's template."""
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    _set(spec, parallelism=1, backoffLimit=6, completionMode="NonIndexed", suspend=False)
    _set(spec, manualSelector=False, podReplacementPolicy="TerminatingOrFailed")


def _cron_job(obj: Obj) -> None:
    spec = _section(obj, "spec")
    _set(
        spec, concurrencyPolicy="Allow", suspend=False, successfulJobsHistoryLimit=3, failedJobsHistoryLimit=1
    )
    template = lookup(spec, ("jobTemplate", "spec", "template"))
    if isinstance(template, dict):
        _section(template, "metadata")
        pod_spec(_section(template, "spec"))


def _service(obj: Obj) -> None:
    spec = _section(obj, "spec")
    _set(spec, type="ClusterIP", sessionAffinity="None")
    if spec["sessionAffinity"] == "ClientIP":
        _set(spec, sessionAffinityConfig={"clientIP": {"timeoutSeconds": 10800}})
    if spec["type"] != "ExternalName":
        _set(spec, internalTrafficPolicy="Cluster")
        if spec.get("clusterIP") != "None":
            _set(spec, ipFamilies=["IPv4"], ipFamilyPolicy="SingleStack")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        _set(spec, externalTrafficPolicy="Cluster")
    if spec["type"] == "LoadBalancer":
        _set(spec, allocateLoadBalancerNodePorts=True)
    for port in spec.get("ports") or ():
        _set(port, protocol="TCP")
        if port.get("targetPort") in (None, "", 0):
            port["targetPort"] = port.get("port")
    _set(obj, status={"loadBalancer": {}})


def _namespace(obj: Obj) -> None:
    spec = _section(obj, "spec")
    if "deletionTimestamp" not in obj["metadata"]:
        _set(spec, finalizers=["kubernetes"])
    _set(_section(obj, "status"), phase="Active")
    labels = _section(obj["metadata"], "labels")
    if obj["metadata"].get("name"):
        labels["kubernetes.io/metadata.name"] = obj["metadata"]["name"]


def _secret(obj: Obj) -> None:
    _set(obj, type="Opaque")
    plain = obj.pop("stringData", None) or {}
    if plain:
        data = _section(obj, "data")
        data.update({key: base64.b64encode(str(value).encode()).decode() for key, value in plain.items()})


def _endpoints(obj: Obj) -> None:
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            _set(port, protocol="TCP")


def _endpoint_slice(obj: Obj) -> None:
    for port in obj.get("ports") or ():
        _set(port, name="", protocol="TCP")


def _webhooks(obj: Obj) -> None:
    mutating = obj.get("kind") == "MutatingWebhookConfiguration"
    for webhook in obj.get("webhooks") or ():
        _set(webhook, failurePolicy="Fail", matchPolicy="Equivalent", timeoutSeconds=10)
        _set(webhook, namespaceSelector={}, objectSelector={})
        if mutating:
            _set(webhook, reinvocationPolicy="Never")
        for rule in webhook.get("rules") or ():
            _set(rule, scope="*")
        service = lookup(webhook, ("clientConfig", "service"))
        if isinstance(service, dict):
            _set(service, port=443)


def _binding(obj: Obj) -> None:
    reference = obj.get("roleRef")
    if isinstance(reference, dict):
        _set(reference, apiGroup="rbac.authorization.k8s.io")
    for subject in obj.get("subjects") or ():
        if subject.get("apiGroup") is None:
            subject["apiGroup"] = (
                "" if subject.get("kind") == "ServiceAccount" else "rbac.authorization.k8s.io"
            )
        if not subject["apiGroup"]:
            del subject["apiGroup"]


def _crd(obj: Obj) -> None:
    spec = _section(obj, "spec")
    _set(spec, conversion={"strategy": "None"})
    names = _section(spec, "names")
    kind = str(names.get("kind") or "")
    _set(names, listKind=f"{kind}List", singular=kind.lower())


def _persistent_volume_claim(obj: Obj) -> None:
    _set(_section(obj, "spec"), volumeMode="Filesystem")
    _set(_section(obj, "status"), phase="Pending")


def _ingress(obj: Obj) -> None:
    _set(obj, status={"loadBalancer": {}})


def _network_policy(obj: Obj) -> None:
    spec = _section(obj, "spec")
    if spec.get("policyTypes") is None:
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


_FILLERS: dict[str, Callable[[Obj], None]] = {
    "pods": _pod,
    "deployments.apps": _deployment,
    "replicasets.apps": _replica_set,
    "daemonsets.apps": _daemon_set,
    "statefulsets.apps": _stateful_set,
    "replicationcontrollers": _replication_controller,
    "jobs.batch": _job,
    "cronjobs.batch": _cron_job,
    "services": _service,
    "namespaces": _namespace,
    "secrets": _secret,
    "endpoints": _endpoints,
    "endpointslices.discovery.k8s.io": _endpoint_slice,
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": _webhooks,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": _webhooks,
    "clusterrolebindings.rbac.authorization.k8s.io": _binding,
    "rolebindings.rbac.authorization.k8s.io": _binding,
    "customresourcedefinitions.apiextensions.k8s.io": _crd,
    "persistentvolumeclaims": _persistent_volume_claim,
    "ingresses.networking.k8s.io": _ingress,
    "networkpolicies.networking.k8s.io": _network_policy,
}
