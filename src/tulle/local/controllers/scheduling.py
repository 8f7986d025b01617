"""Binds pods to the one node, or says what this machine cannot give. Pure but for the actions it returns.

The node has no resource limits of its own: a laptop is shared, and requests are not enforced. What is refused is what
could never work here: volumes of a cluster's storage, devices, other nodes, a host port that is taken.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from tulle.local.controllers.actions import Action, Emit, Patch, Requeue
from tulle.local.controllers.cluster import NODES, PODS, Key, Obj
from tulle.local.controllers.manager import Controller, itself
from tulle.local.controllers.metadata import (
    condition,
    is_deleting,
    key_of,
    labels_of,
    name_of,
    namespace_of,
    pod_is_active,
    render_time,
    uid_of,
    with_condition,
)
from tulle.local.controllers.selectors import expression_holds
from tulle.local.controllers.store import Stores

__all__ = ["CONTROLLER", "NODE_NAME", "obstacles", "placement", "reconcile"]

NODE_NAME = "tulle"
RETRY_SECONDS = 30.0

SCHEDULERS = ("", "default-scheduler")

SHARED_RESOURCES = ("cpu", "memory", "ephemeral-storage")
"""Resources that every machine has; anything else is a device that a cluster's plugin would offer."""

LOCAL_VOLUMES = ("emptyDir", "hostPath", "configMap", "secret", "projected", "downwardAPI")


def reconcile(key: Key, stores: Stores, now: datetime) -> Sequence[Action]:
    """Bind one pod, or note why not."""
    pod = stores[PODS].get(*key)
    if pod is None or is_deleting(pod) or pod["spec"].get("nodeName"):
        return ()
    if (pod["spec"].get("schedulerName") or "") not in SCHEDULERS or pod["spec"].get("schedulingGates"):
        return ()
    node = stores[NODES].get("", NODE_NAME)
    if node is None:
        return (Requeue(0.1),)
    reasons = list(obstacles(pod, node, stores[PODS]))
    moment = render_time(now)
    if not reasons:
        # From the binding on the node agent alone writes the status, PodScheduled included.
        binding = {"metadata": {"uid": uid_of(pod)}, "spec": {"nodeName": NODE_NAME}}
        return (
            Patch(PODS, key[0], key[1], binding),
            Emit(PODS, pod, "Normal", "Scheduled", f"Successfully assigned {key[0]}/{key[1]} to {NODE_NAME}"),
        )
    message = "0/1 nodes are available: " + "; ".join(reasons)
    before = condition(pod, "PodScheduled")
    if before is not None and before.get("message") == message:
        return (Requeue(RETRY_SECONDS),)
    refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return (
        Patch(PODS, key[0], key[1], _conditions(pod, refused, moment), subresource="status"),
        Emit(PODS, pod, "Warning", "FailedScheduling", message),
        Requeue(RETRY_SECONDS),
    )


def obstacles(pod: Obj, node: Obj, pods: Iterable[Obj]) -> Iterator[str]:
    """Yield, one sentence each, why the node cannot have the pod."""
    spec = pod["spec"]
    pods = [other for other in pods if other["spec"].get("nodeName") and pod_is_active(other)]
    most = ((node.get("status") or {}).get("allocatable") or {}).get("pods")
    if most is not None and len(pods) >= int(most):
        yield f"too many pods: {most} run already"
    yield from _volumes(spec)
    yield from _devices(spec)
    yield from placement(spec, labels_of(node))
    yield from _host_ports(pod, pods)


def _volumes(spec: Obj) -> Iterator[str]:
    for volume in spec.get("volumes") or ():
        kind = next((field for field in volume if field != "name"), "emptyDir")
        if kind == "persistentVolumeClaim":
            claim = volume[kind].get("claimName")
            yield (
                f'volume "{volume["name"]}" wants PersistentVolumeClaim "{claim}", and this machine has no storage '
                "provisioner (use emptyDir or hostPath here)"
            )
        elif kind not in LOCAL_VOLUMES:
            yield f'volume "{volume["name"]}" is of kind {kind}, which needs a cluster (use emptyDir or hostPath here)'


def _devices(spec: Obj) -> Iterator[str]:
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        resources = container.get("resources") or {}
        named = {*(resources.get("limits") or {}), *(resources.get("requests") or {})}
        for name in sorted(named - set(SHARED_RESOURCES)):
            yield f"container {container['name']} wants {name}, which this machine does not offer to pods"


def placement(spec: Obj, labels: dict[str, str]) -> Iterator[str]:
    """Yield what keeps a pod off a node with these labels: its nodeSelector, its required affinity."""
    for name, value in sorted((spec.get("nodeSelector") or {}).items()):
        if labels.get(name) != value:
            yield f"nodeSelector {name}={value} does not match node {NODE_NAME}"
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    terms = (affinity or {}).get("nodeSelectorTerms") or ()
    if terms and not any(_term(term, labels) for term in terms):
        yield f"the required nodeAffinity does not match node {NODE_NAME}"


def _term(term: Obj, labels: dict[str, str]) -> bool:
    fields = all(_holds(e, {"metadata.name": NODE_NAME}) for e in term.get("matchFields") or ())
    return fields and all(_holds(e, labels) for e in term.get("matchExpressions") or ())


def _holds(expression: Obj, labels: dict[str, str]) -> bool:
    """Tell whether a requirement holds: one of a label selector, or a comparison of numbers."""
    value, values = labels.get(expression["key"], ""), expression.get("values") or [""]
    match expression["operator"]:
        case "In" | "NotIn" | "Exists" | "DoesNotExist":
            return expression_holds(expression, labels)
        case "Gt":
            return value.isdigit() and int(value) > int(values[0])
        case "Lt":
            return value.isdigit() and int(value) < int(values[0])
    return False


def _host_ports(pod: Obj, pods: Iterable[Obj]) -> Iterator[str]:
    wanted = set(_ports(pod))
    if not wanted:
        return
    for other in pods:
        if key_of(other) != key_of(pod):
            for protocol, port in sorted(wanted & set(_ports(other))):
                yield f"host port {port}/{protocol} is taken by pod {namespace_of(other)}/{name_of(other)}"


def _ports(pod: Obj) -> Iterator[tuple[str, int]]:
    for container in pod["spec"].get("containers") or ():
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                yield port.get("protocol") or "TCP", int(port["hostPort"])


def _conditions(pod: Obj, entry: Obj, moment: str) -> Obj:
    conditions = with_condition((pod.get("status") or {}).get("conditions") or [], entry, moment)
    kept = [{k: v for k, v in c.items() if k != "lastUpdateTime"} for c in conditions]
    return {"status": {"conditions": kept}}


CONTROLLER = Controller(name="scheduler", watches={PODS: itself}, reconcile=reconcile, reads=(NODES,))
