"""StatefulSets: pods with ordinals, made in order and replaced from the last to the first.

Their volume claims are written into the pods as in a cluster; this machine has no storage for claims, so such pods stay
Pending and say so.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tulle.local.controllers.actions import Action, Create, Delete, Patch, Requeue
from tulle.local.controllers.cluster import PODS, STATEFUL_SETS, Key, Obj
from tulle.local.controllers.manager import Controller, itself, owner_of_kind
from tulle.local.controllers.metadata import (
    integer,
    is_deleting,
    labels_of,
    name_of,
    namespace_of,
    phase_of,
    pod_is_available,
    pod_is_ready,
    uid_of,
)
from tulle.local.controllers.pod_template import REVISION_LABEL, pod_from_template, template_hash
from tulle.local.controllers.store import Stores

__all__ = ["CONTROLLER", "reconcile"]


def reconcile(key: Key, stores: Stores, now: datetime) -> Sequence[Action]:
    """Decide the next step of one StatefulSet."""
    owner = stores[STATEFUL_SETS].get(*key)
    if owner is None or is_deleting(owner):
        return ()
    spec = owner["spec"]
    revision = f"{key[1]}-{template_hash(spec['template'])}"
    pods = {_ordinal(owner, pod): pod for pod in stores[PODS].controlled_by(uid_of(owner))}
    first = integer((spec.get("ordinals") or {}).get("start"), 0)
    wanted = range(first, first + integer(spec.get("replicas"), 1))
    actions = _steps(owner, pods, wanted, revision, now)
    actions.extend(_status(owner, pods, wanted, revision, now))
    return actions


def _steps(owner: Obj, pods: dict[int, Obj], wanted: range, revision: str, now: datetime) -> list[Action]:
    spec = owner["spec"]
    parallel = spec.get("podManagementPolicy") == "Parallel"
    seconds = integer(spec.get("minReadySeconds"), 0)
    made: list[Action] = []
    for ordinal in wanted:
        pod = pods.get(ordinal)
        if pod is None:
            made.append(Create(PODS, _pod(owner, ordinal, revision), owner, STATEFUL_SETS))
        elif phase_of(pod) in ("Failed", "Succeeded") and not is_deleting(pod):
            made.append(_delete(owner, pod))
        healthy = pod is not None and not is_deleting(pod) and pod_is_available(pod, seconds, now)
        if not healthy and not parallel:
            return made or _unblock(owner, pod, revision)
    if made:
        return made
    surplus = [pods[ordinal] for ordinal in sorted(pods, reverse=True) if ordinal not in wanted]
    if surplus:
        going = surplus if parallel else surplus[:1]
        return [_delete(owner, pod) for pod in going if not is_deleting(pod)]
    return _roll(owner, pods, wanted, revision, seconds, now)


def _unblock(owner: Obj, pod: Obj | None, revision: str) -> list[Action]:
    """Replace a pod of an old revision that never became ready: waiting for it would wait for ever."""
    if pod is None or is_deleting(pod) or pod_is_ready(pod) or labels_of(pod).get(REVISION_LABEL) == revision:
        return []
    return [_delete(owner, pod)] if _strategy(owner)[0] else []


def _roll(
    owner: Obj, pods: dict[int, Obj], wanted: range, revision: str, seconds: int, now: datetime
) -> list[Action]:
    rolling, partition = _strategy(owner)
    if not rolling:
        return []
    for ordinal in reversed(wanted):
        if ordinal < partition:
            return []
        pod = pods[ordinal]
        if labels_of(pod).get(REVISION_LABEL) != revision:
            return [] if is_deleting(pod) else [_delete(owner, pod)]
        if not pod_is_available(pod, seconds, now):
            return []
    return []


def _strategy(owner: Obj) -> tuple[bool, int]:
    """Return whether pods are replaced by themselves, and the first ordinal that is."""
    strategy = owner["spec"].get("updateStrategy") or {}
    partition = integer((strategy.get("rollingUpdate") or {}).get("partition"), 0)
    return (strategy.get("type") or "RollingUpdate") == "RollingUpdate", partition


def _pod(owner: Obj, ordinal: int, revision: str) -> Obj:
    spec, name = owner["spec"], f"{name_of(owner)}-{ordinal}"
    labels = {
        REVISION_LABEL: revision,
        "statefulset.kubernetes.io/pod-name": name,
        "apps.kubernetes.io/pod-index": str(ordinal),
    }
    pod = pod_from_template(STATEFUL_SETS, owner, spec["template"], name=name, labels=labels)
    inner = {**pod["spec"], "hostname": name}
    if spec.get("serviceName"):
        inner["subdomain"] = spec["serviceName"]
    claims = [
        {"name": name_of(claim), "persistentVolumeClaim": {"claimName": f"{name_of(claim)}-{name}"}}
        for claim in spec.get("volumeClaimTemplates") or ()
    ]
    claimed = {volume["name"] for volume in claims}
    if claims:
        inner["volumes"] = [*(v for v in inner.get("volumes") or () if v["name"] not in claimed), *claims]
    return {**pod, "spec": inner}


def _ordinal(owner: Obj, pod: Obj) -> int:
    suffix = name_of(pod).removeprefix(f"{name_of(owner)}-")
    return int(suffix) if suffix.isdigit() else -1


def _delete(owner: Obj, pod: Obj) -> Delete:
    return Delete(PODS, namespace_of(pod), name_of(pod), owner, STATEFUL_SETS)


def _status(owner: Obj, pods: dict[int, Obj], wanted: range, revision: str, now: datetime) -> list[Action]:
    seconds = integer(owner["spec"].get("minReadySeconds"), 0)
    living = [pod for pod in pods.values() if not is_deleting(pod)]
    ready = [pod for pod in living if pod_is_ready(pod)]
    available = [pod for pod in ready if pod_is_available(pod, seconds, now)]
    updated = [pod for pod in living if labels_of(pod).get(REVISION_LABEL) == revision]
    before = owner.get("status") or {}
    current = before.get("currentRevision") or revision
    if len(updated) == len(wanted) == len(ready):
        current = revision
    body: dict[str, Any] = {
        "observedGeneration": integer(owner["metadata"].get("generation"), 1),
        "replicas": len(living),
        "availableReplicas": len(available),
        "currentRevision": current,
        "updateRevision": revision,
        "collisionCount": 0,
    }
    same = sum(labels_of(pod).get(REVISION_LABEL) == current for pod in living)
    counts = {"readyReplicas": len(ready), "currentReplicas": same, "updatedReplicas": len(updated)}
    body |= {name: count for name, count in counts.items() if count}
    actions: list[Action] = []
    if body != before:
        patch = {"status": {**dict.fromkeys(before), **body}}
        actions.append(Patch(STATEFUL_SETS, namespace_of(owner), name_of(owner), patch, subresource="status"))
    if len(available) < len(ready):
        actions.append(Requeue(1.0))
    return actions


CONTROLLER = Controller(
    name="statefulset",
    watches={STATEFUL_SETS: itself, PODS: owner_of_kind(STATEFUL_SETS)},
    reconcile=reconcile,
)
