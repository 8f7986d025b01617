"""Scale, binding, eviction and finalize: small doors to an object, each with its own kind. The writes are ordinary ones."""

from typing import Any

from tulle.local.api.disruptions import disruptions_allowed
from tulle.local.api.errors import ApiError, Cause, bad_request, conflict, invalid
from tulle.local.api.objects import Obj, copy_json, lookup
from tulle.local.api.patch import PatchKind, json_patch, merge_patch
from tulle.local.api.registry import ResourceType
from tulle.local.api.tables.printing import label_text
from tulle.local.api.targets import Target, WriteOptions
from tulle.local.api.writes import Writer

__all__ = ["bind", "evict", "finalize", "scale_of", "set_scale"]

_REPLICAS: dict[str, tuple[str, ...]] = {
    "spec": ("spec", "replicas"),
    "status": ("status", "replicas"),
    "selector": ("status", "selector"),
}


def _paths(resource: ResourceType, version: str | None) -> dict[str, tuple[str, ...]]:
    served = resource.served(version)
    if served is None or served.scale is None:
        return _REPLICAS
    names = (
        ("spec", "specReplicasPath"),
        ("status", "statusReplicasPath"),
        ("selector", "labelSelectorPath"),
    )
    return {key: tuple(filter(None, served.scale.get(name, "").split("."))) for key, name in names}


def scale_of(resource: ResourceType, obj: Obj, version: str | None = None) -> Obj:
    """Return an object's Scale."""
    paths = _paths(resource, version)
    if resource.is_custom:
        selector = lookup(obj, paths["selector"]) if paths["selector"] else ""
    else:
        text = label_text(lookup(obj, ("spec", "selector")))
        selector = "" if text == "<none>" else text
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    metadata = {key: obj["metadata"][key] for key in kept if key in obj["metadata"]}
    status: Obj = {"replicas": lookup(obj, paths["status"]) or 0}
    if selector:
        status["selector"] = selector
    spec = {"replicas": lookup(obj, paths["spec"]) or 0}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": spec,
        "status": status,
    }


async def set_scale(
    writer: Writer, target: Target, kind: PatchKind | None, body: Any, options: WriteOptions
) -> Obj:
    """Change an object's replica count by a Scale (`kind` None) or a patch of one; return the object as stored."""
    resource = target.resource
    main = Target(resource, target.namespace, target.name, None, target.version)
    path = _paths(resource, target.version)["spec"]
    live = writer.current(main)
    scale = scale_of(resource, live, target.version)
    match kind:
        case None:
            wanted = body
        case "json":
            wanted = json_patch(scale, body)
        case _:
            wanted = merge_patch(scale, body)
    if not isinstance(wanted, dict) or wanted.get("kind", "Scale") != "Scale":
        raise bad_request("the body is not a Scale")
    replicas = lookup(wanted, ("spec", "replicas")) or 0
    if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
        cause = Cause.invalid("spec.replicas", replicas, "must be greater than or equal to 0")
        raise invalid("Scale", "autoscaling", target.name, [cause])
    change: Any = replicas
    for key in reversed(path):
        change = {key: change}
    version = lookup(wanted, ("metadata", "resourceVersion"))
    if version and version != live["metadata"]["resourceVersion"]:
        raise conflict(resource.plural, resource.group, target.name)
    return await writer.patch(main, "merge", change, options)


async def bind(writer: Writer, target: Target, body: Obj, options: WriteOptions) -> None:
    """Put a pod on a node, as a scheduler does."""
    node = lookup(body, ("target", "name"))
    if not node:
        raise invalid("Binding", "", target.name, [Cause.required("target.name")])
    main = Target(target.resource, target.namespace, target.name)
    live = writer.current(main)
    if lookup(live, ("spec", "nodeName")):
        why = f'pod {target.name} is already assigned to node "{live["spec"]["nodeName"]}"'
        raise conflict("pods/binding", "", target.name, why)
    pod = copy_json(live)
    pod["spec"]["nodeName"] = node
    pod["metadata"].setdefault("annotations", {}).update(lookup(body, ("metadata", "annotations")) or {})
    if not pod["metadata"]["annotations"]:
        del pod["metadata"]["annotations"]
    await writer.update(main, pod, options)


async def evict(writer: Writer, target: Target, body: Obj, options: WriteOptions) -> None:
    """Delete a pod, unless a PodDisruptionBudget that selects it allows no disruption now (429)."""
    main = Target(target.resource, target.namespace, target.name)
    pod = writer.current(main)
    for budget, pods in writer.budgets_of(pod):
        allowed, needed, healthy = disruptions_allowed(budget, pods)
        if allowed <= 0 and lookup(pod, ("status", "phase")) == "Running":
            name = budget["metadata"]["name"]
            message = "Cannot evict pod as it would violate the pod's disruption budget."
            error = ApiError(429, "TooManyRequests", message, retry_after=10)
            why = f"The disruption budget {name} needs {needed} healthy pods and has {healthy} currently"
            error.details["causes"] = [{"reason": "DisruptionBudget", "message": why}]
            raise error
    asked = body.get("deleteOptions") or {}
    await writer.delete(main, options, grace=asked.get("gracePeriodSeconds"))


async def finalize(writer: Writer, target: Target, body: Obj, options: WriteOptions) -> Obj:
    """Set a namespace's spec.finalizers; the last one gone ends a namespace that is being deleted."""
    main = Target(target.resource, None, target.name, "finalize")
    namespace = copy_json(writer.current(main))
    namespace["spec"] = {"finalizers": list(lookup(body, ("spec", "finalizers")) or ())}
    return await writer.update(main, namespace, options)
