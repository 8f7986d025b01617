"""ReplicaSets: keep as many pods as asked for, adopt those that match, remove the least useful first."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from tulle.local.controllers.actions import Action, Create, Delete, Patch, Requeue
from tulle.local.controllers.cluster import PODS, REPLICA_SETS, Key, Obj
from tulle.local.controllers.manager import Controller, itself, owner_of_kind
from tulle.local.controllers.metadata import (
    controller_of,
    integer,
    is_deleting,
    key_of,
    labels_of,
    name_of,
    namespace_of,
    owner_reference,
    phase_of,
    pod_is_active,
    pod_is_available,
    pod_is_ready,
    render_time,
    uid_of,
    with_condition,
)
from tulle.local.controllers.pod_template import pod_from_template
from tulle.local.controllers.selectors import matches
from tulle.local.controllers.store import Stores

__all__ = ["BURST", "CONTROLLER", "reconcile", "removal_order"]

BURST = 500
"""Most pods created or deleted by one reconcile; Kubernetes' number."""

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def reconcile(key: Key, stores: Stores, now: datetime) -> Sequence[Action]:
    """Decide which pods to create, adopt, release and delete for one ReplicaSet, and its status."""
    rs = stores[REPLICA_SETS].get(*key)
    if rs is None or is_deleting(rs):
        return ()
    selector, actions = rs["spec"].get("selector"), list[Action]()
    pods: list[Obj] = []
    for pod in stores[PODS].controlled_by(uid_of(rs)):
        if matches(selector, labels_of(pod)):
            pods.append(pod)
        elif not is_deleting(pod):
            actions.append(_own(pod, None))
    for pod in stores[PODS].in_namespace(key[0]):
        if controller_of(pod) is None and pod_is_active(pod) and matches(selector, labels_of(pod)):
            actions.append(_own(pod, owner_reference(REPLICA_SETS, rs)))
            pods.append(pod)
    active = [pod for pod in pods if pod_is_active(pod)]
    wanted = integer(rs["spec"].get("replicas"), 1)
    missing = wanted - len(active)
    actions.extend(_status(rs, active, now))
    if missing > 0:
        pod = pod_from_template(REPLICA_SETS, rs, rs["spec"]["template"])
        refused = partial(_failure, rs, now)
        actions.extend(Create(PODS, pod, rs, REPLICA_SETS, refused) for _ in range(min(missing, BURST)))
    elif missing < 0:
        surplus = removal_order(active)[: min(-missing, BURST)]
        actions.extend(Delete(PODS, namespace_of(pod), name_of(pod), rs, REPLICA_SETS) for pod in surplus)
    return actions


def removal_order(pods: Sequence[Obj]) -> list[Obj]:
    """Return the pods in the order in which a scale-down removes them.

    Unscheduled, then pending, then not ready, then cheap (deletion cost), then restarted often, then young.
    """

    def rank(pod: Obj) -> tuple[Any, ...]:
        spec, notes = pod.get("spec") or {}, pod["metadata"].get("annotations") or {}
        phase = {"Pending": 0, "Unknown": 1}.get(phase_of(pod), 2)
        restarts = max(
            (c.get("restartCount", 0) for c in (pod.get("status") or {}).get("containerStatuses") or ()),
            default=0,
        )
        created = pod["metadata"].get("creationTimestamp") or ""
        cost = str(notes.get(DELETION_COST, "0"))
        return (
            bool(spec.get("nodeName")),
            phase,
            pod_is_ready(pod),
            int(cost) if cost.lstrip("-").isdigit() else 0,
            -restarts,
            [-ord(character) for character in created],
            name_of(pod),
        )

    return sorted(pods, key=rank)


def _failure(rs: Obj, now: datetime, message: str) -> Obj:
    """Return the status of a ReplicaSet whose pods the API refuses."""
    entry = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    conditions = with_condition((rs.get("status") or {}).get("conditions") or [], entry, render_time(now))
    return {"conditions": [{k: v for k, v in c.items() if k != "lastUpdateTime"} for c in conditions]}


def _own(pod: Obj, reference: Obj | None) -> Patch:
    kept = [r for r in pod["metadata"].get("ownerReferences") or () if not r.get("controller")]
    references = [*kept, reference] if reference is not None else kept
    body = {"metadata": {"ownerReferences": references}}
    return Patch(PODS, namespace_of(pod), name_of(pod), body, version=pod["metadata"]["resourceVersion"])


def _status(rs: Obj, active: Sequence[Obj], now: datetime) -> list[Action]:
    seconds = integer(rs["spec"].get("minReadySeconds"), 0)
    template_labels = (rs["spec"]["template"].get("metadata") or {}).get("labels") or {}
    ready = [pod for pod in active if pod_is_ready(pod)]
    available = [pod for pod in ready if pod_is_available(pod, seconds, now)]
    counts = {
        "fullyLabeledReplicas": sum(template_labels.items() <= labels_of(pod).items() for pod in active),
        "readyReplicas": len(ready),
        "availableReplicas": len(available),
    }
    body: Obj = {"replicas": len(active), **{name: count for name, count in counts.items() if count}}
    body["observedGeneration"] = integer(rs["metadata"].get("generation"), 1)
    before = rs.get("status") or {}
    if before.get("conditions") and len(active) < integer(rs["spec"].get("replicas"), 1):
        body["conditions"] = before["conditions"]  # the refusal stands until the pods are there
    actions: list[Action] = []
    if body != before:
        patch = {"status": {**dict.fromkeys(before, None), **body}}
        actions.append(Patch(REPLICA_SETS, namespace_of(rs), name_of(rs), patch, subresource="status"))
    if len(available) < len(ready):
        actions.append(Requeue(1.0))
    return actions


def _owners(pod: Obj, stores: Stores) -> Iterable[Key]:
    """Yield the ReplicaSet that controls a pod, or those that would adopt it."""
    if controller_of(pod) is not None:
        yield from owner_of_kind(REPLICA_SETS)(pod, stores)
        return
    for rs in stores[REPLICA_SETS].in_namespace(namespace_of(pod)):
        if matches(rs["spec"].get("selector"), labels_of(pod)):
            yield key_of(rs)


CONTROLLER = Controller(
    name="replicaset",
    watches={REPLICA_SETS: itself, PODS: _owners},
    reconcile=reconcile,
    gathers=frozenset({PODS}),
)
