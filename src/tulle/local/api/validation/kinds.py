"""Which rules hold for which built-in kind. Pure."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from tulle.local.api.errors import Cause
from tulle.local.api.objects import Obj
from tulle.local.api.registry import ResourceType
from tulle.local.api.validation import config, definitions, pods, services, workloads

__all__ = ["check_kind"]

Check: TypeAlias = Callable[[Obj, Obj | None], Iterator[Cause]]


def check_kind(resource: ResourceType, obj: Obj, old: Obj | None) -> Iterator[Cause]:
    """Yield what is wrong with an object of a built-in kind; `old` is the object before an update."""
    check = _CHECKS.get(resource.key)
    if check is not None:
        yield from check(obj, old)


_CHECKS: dict[str, Check] = {
    "pods": pods.check_pod,
    "deployments.apps": workloads.check_deployment,
    "replicasets.apps": workloads.check_replicas,
    "statefulsets.apps": workloads.check_replicas,
    "daemonsets.apps": workloads.check_selected_template,
    "jobs.batch": workloads.check_job,
    "cronjobs.batch": workloads.check_cron_job,
    "services": services.check_service,
    "endpointslices.discovery.k8s.io": services.check_endpoint_slice,
    "configmaps": config.check_config_map,
    "secrets": config.check_secret,
    "roles.rbac.authorization.k8s.io": config.check_role,
    "clusterroles.rbac.authorization.k8s.io": config.check_role,
    "rolebindings.rbac.authorization.k8s.io": config.check_binding,
    "clusterrolebindings.rbac.authorization.k8s.io": config.check_binding,
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": config.check_webhooks,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": config.check_webhooks,
    "customresourcedefinitions.apiextensions.k8s.io": definitions.check_definition,
}
