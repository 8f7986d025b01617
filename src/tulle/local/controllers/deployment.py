"""Deployments: which ReplicaSets there should be and how many pods each. The numbers come from `rollout`.

A template change makes a new ReplicaSet named after the template's hash; RollingUpdate moves pods over within the
bounds, Recreate waits for the old ones to be gone. `kubectl rollout status|restart|undo|history` read what this writes.
"""

from collections.abc import Sequence
from datetime import datetime

from tulle.local.controllers import deployment_status
from tulle.local.controllers.actions import Action, Create, Delete, Emit, Patch, Requeue
from tulle.local.controllers.cluster import DEPLOYMENTS, PODS, REPLICA_SETS, Key, Obj
from tulle.local.controllers.manager import Controller, itself, owner_of_kind
from tulle.local.controllers.metadata import (
    controller_of,
    integer,
    is_deleting,
    labels_of,
    name_of,
    namespace_of,
    owner_reference,
    uid_of,
)
from tulle.local.controllers.pod_template import HASH_LABEL, template_hash, without_hash
from tulle.local.controllers.rollout import (
    Bounds,
    Generation,
    bounds,
    proportional,
    scale_down_old,
    scale_up_new,
)
from tulle.local.controllers.selectors import matches
from tulle.local.controllers.store import Stores

__all__ = ["CONTROLLER", "reconcile"]

REVISION = "deployment.kubernetes.io/revision"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MOST = "deployment.kubernetes.io/max-replicas"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

HISTORY_LIMIT = 10


def reconcile(key: Key, stores: Stores, now: datetime) -> Sequence[Action]:
    """Decide the next step of one Deployment."""
    deployment = stores[DEPLOYMENTS].get(*key)
    if deployment is None or is_deleting(deployment):
        return ()
    owned, adoptions = _replica_sets(deployment, stores)
    if adoptions:
        return adoptions
    spec = deployment["spec"]
    new = _current(deployment, owned)
    old = sorted((rs for rs in owned if rs is not new), key=_age)
    actions = _progress(deployment, new, old, stores)
    if not actions:
        actions = _forget_history(spec, new, old)
    status = deployment_status.compute(deployment, new, old, limits=_bounds(deployment), now=now)
    if status.body != (deployment.get("status") or {}):
        actions.append(Patch(DEPLOYMENTS, key[0], key[1], {"status": status.patch}, subresource="status"))
    if status.look_again_seconds is not None:
        actions.append(Requeue(status.look_again_seconds))
    return actions


def _replica_sets(deployment: Obj, stores: Stores) -> tuple[list[Obj], list[Action]]:
    """Return the Deployment's ReplicaSets, and the adoptions of orphans that its selector matches."""
    owned = [rs for rs in stores[REPLICA_SETS].controlled_by(uid_of(deployment)) if not is_deleting(rs)]
    adoptions: list[Action] = [
        Patch(REPLICA_SETS, namespace_of(rs), name_of(rs),
              {"metadata": {"ownerReferences": [owner_reference(DEPLOYMENTS, deployment)]}}, version=rs["metadata"]["resourceVersion"])
        for rs in stores[REPLICA_SETS].in_namespace(namespace_of(deployment))
        if controller_of(rs) is None and not is_deleting(rs) and matches(deployment["spec"].get("selector"), labels_of(rs))
    ]  # fmt: skip
    return owned, adoptions


def _current(deployment: Obj, owned: Sequence[Obj]) -> Obj | None:
    """Return the ReplicaSet whose template is the Deployment's (the oldest, should there be two)."""
    wanted = without_hash(deployment["spec"]["template"])
    same = [rs for rs in owned if without_hash(rs["spec"]["template"]) == wanted]
    return min(same, key=_age, default=None)


def _progress(deployment: Obj, new: Obj | None, old: Sequence[Obj], stores: Stores) -> list[Action]:
    spec, limits = deployment["spec"], _bounds(deployment)
    paused = bool(spec.get("paused"))
    if not paused:
        if new is None:
            return _create(deployment, old, stores)
        annotated = _annotate(deployment, new, old)
        if annotated:
            return annotated
    everyone = [*old, new] if new is not None else list(old)
    resized = _resize(deployment, everyone, limits)
    if resized or paused or new is None:
        return resized
    if (spec.get("strategy") or {}).get("type") == "Recreate":
        return _recreate(deployment, new, old, stores)
    up = scale_up_new(limits, _generation(new), [_generation(rs) for rs in old])
    if up != _wanted(new):
        return _scale(deployment, new, up)
    down = scale_down_old(limits, _generation(new), [_generation(rs) for rs in old])
    return [action for rs, count in zip(old, down, strict=True) for action in _scale(deployment, rs, count)]


def _recreate(deployment: Obj, new: Obj, old: Sequence[Obj], stores: Stores) -> list[Action]:
    down = [action for rs in old for action in _scale(deployment, rs, 0)]
    if down:
        return down
    if any(stores[PODS].controlled_by(uid_of(rs)) for rs in old):
        return []
    return _scale(deployment, new, integer(deployment["spec"].get("replicas"), 1))


def _create(deployment: Obj, old: Sequence[Obj], stores: Stores) -> list[Action]:
    """Create the ReplicaSet of the current template; a name taken by a stranger counts as a hash collision."""
    spec, namespace = deployment["spec"], namespace_of(deployment)
    collisions = int((deployment.get("status") or {}).get("collisionCount") or 0)
    digest = template_hash(spec["template"], collisions)
    name = f"{name_of(deployment)}-{digest}"
    if stores[REPLICA_SETS].get(namespace, name) is not None:
        body = {"status": {"collisionCount": collisions + 1}}
        return [Patch(DEPLOYMENTS, namespace, name_of(deployment), body, subresource="status")]
    template = spec["template"]
    labels = {**((template.get("metadata") or {}).get("labels") or {}), HASH_LABEL: digest}
    limits = _bounds(deployment)
    recreate = (spec.get("strategy") or {}).get("type") == "Recreate"
    start = 0 if recreate and old else scale_up_new(limits, Generation(0, 0), [_generation(rs) for rs in old])
    revision = str(max((_revision(rs) for rs in old), default=0) + 1)
    replica_set = {
        "apiVersion": REPLICA_SETS.api_version,
        "kind": REPLICA_SETS.name,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels,
            "annotations": {**_inherited(deployment), REVISION: revision, **_size_notes(limits)},
            "ownerReferences": [owner_reference(DEPLOYMENTS, deployment)],
        },
        "spec": {
            "replicas": start,
            "minReadySeconds": integer(spec.get("minReadySeconds"), 0),
            "selector": _with_hash(spec["selector"], digest),
            "template": {**template, "metadata": {**(template.get("metadata") or {}), "labels": labels}},
        },
    }
    made: list[Action] = [Create(REPLICA_SETS, replica_set)]
    made.append(
        Emit(
            DEPLOYMENTS,
            deployment,
            "Normal",
            "ScalingReplicaSet",
            f"Scaled up replica set {name} from 0 to {start}",
        )
    )
    if (deployment["metadata"].get("annotations") or {}).get(REVISION) != revision:
        note = {"metadata": {"annotations": {REVISION: revision}}}
        made.append(Patch(DEPLOYMENTS, namespace, name_of(deployment), note))
    return made


def _annotate(deployment: Obj, new: Obj, old: Sequence[Obj]) -> list[Action]:
    """Give the new ReplicaSet the highest revision (a rollback re-uses an old one) and the Deployment the same."""
    newest_old = max((_revision(rs) for rs in old), default=0)
    revision = str(newest_old + 1 if _revision(new) <= newest_old else _revision(new))
    notes = new["metadata"].get("annotations") or {}
    wanted = {**_inherited(deployment), REVISION: revision}
    actions: list[Action] = []
    if any(notes.get(name) != value for name, value in wanted.items()):
        actions.append(
            Patch(REPLICA_SETS, namespace_of(new), name_of(new), {"metadata": {"annotations": wanted}})
        )
    seconds = integer(deployment["spec"].get("minReadySeconds"), 0)
    if integer(new["spec"].get("minReadySeconds"), 0) != seconds:
        actions.append(
            Patch(REPLICA_SETS, namespace_of(new), name_of(new), {"spec": {"minReadySeconds": seconds}})
        )
    if (deployment["metadata"].get("annotations") or {}).get(REVISION) != revision:
        body = {"metadata": {"annotations": {REVISION: revision}}}
        actions.append(Patch(DEPLOYMENTS, namespace_of(deployment), name_of(deployment), body))
    return actions


def _resize(deployment: Obj, everyone: Sequence[Obj], limits: Bounds) -> list[Action]:
    """Follow a change of spec.replicas that came in the middle of a rollout, in proportion."""
    active = [rs for rs in everyone if _wanted(rs) > 0]
    changed = any(
        (rs["metadata"].get("annotations") or {}).get(DESIRED) not in (None, str(limits.replicas))
        for rs in active
    )
    if not active or not (changed or deployment["spec"].get("paused")):
        return []
    if len(active) == 1:
        return _scale(deployment, active[0], limits.replicas)
    if not changed:
        return []
    before = max(int((rs["metadata"].get("annotations") or {}).get(MOST) or 0) for rs in active)
    counts = proportional(limits, [_wanted(rs) for rs in active], before)
    return [
        action for rs, count in zip(active, counts, strict=True) for action in _scale(deployment, rs, count)
    ]


def _scale(deployment: Obj, rs: Obj, count: int) -> list[Action]:
    notes, limits = rs["metadata"].get("annotations") or {}, _bounds(deployment)
    sizes = _size_notes(limits)
    before = _wanted(rs)
    stale = count > 0 and any(notes.get(name) != value for name, value in sizes.items())
    if count == before and not stale:
        return []
    body: Obj = {"metadata": {"annotations": sizes}, "spec": {"replicas": count}}
    actions: list[Action] = [
        Patch(REPLICA_SETS, namespace_of(rs), name_of(rs), body, version=rs["metadata"]["resourceVersion"])
    ]
    if count != before:
        direction = "up" if count > before else "down"
        message = f"Scaled {direction} replica set {name_of(rs)} from {before} to {count}"
        actions.append(Emit(DEPLOYMENTS, deployment, "Normal", "ScalingReplicaSet", message))
    return actions


def _forget_history(spec: Obj, new: Obj | None, old: Sequence[Obj]) -> list[Action]:
    if new is None:
        return []
    idle = [
        rs for rs in old
        if _wanted(rs) == 0 and int((rs.get("status") or {}).get("replicas") or 0) == 0 and not is_deleting(rs)
    ]  # fmt: skip
    surplus = len(idle) - integer(spec.get("revisionHistoryLimit"), HISTORY_LIMIT)
    oldest = sorted(idle, key=_revision)[: max(surplus, 0)]
    return [Delete(REPLICA_SETS, namespace_of(rs), name_of(rs)) for rs in oldest]


def _bounds(deployment: Obj) -> Bounds:
    spec = deployment["spec"]
    rolling = (spec.get("strategy") or {}).get("rollingUpdate") or {}
    return bounds(integer(spec.get("replicas"), 1), rolling.get("maxSurge"), rolling.get("maxUnavailable"))


def _generation(rs: Obj) -> Generation:
    return Generation(_wanted(rs), int((rs.get("status") or {}).get("availableReplicas") or 0))


def _wanted(rs: Obj) -> int:
    return integer(rs["spec"].get("replicas"), 1)


def _revision(rs: Obj) -> int:
    text = (rs["metadata"].get("annotations") or {}).get(REVISION) or "0"
    return int(text) if text.isdigit() else 0


def _age(rs: Obj) -> tuple[str, str]:
    return str(rs["metadata"].get("creationTimestamp") or ""), name_of(rs)


def _inherited(deployment: Obj) -> dict[str, str]:
    skipped = (REVISION, DESIRED, MOST, LAST_APPLIED)
    notes = deployment["metadata"].get("annotations") or {}
    return {name: value for name, value in notes.items() if name not in skipped}


def _size_notes(limits: Bounds) -> dict[str, str]:
    return {DESIRED: str(limits.replicas), MOST: str(limits.most)}


def _with_hash(selector: Obj, digest: str) -> Obj:
    return {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), HASH_LABEL: digest}}


CONTROLLER = Controller(
    name="deployment",
    watches={DEPLOYMENTS: itself, REPLICA_SETS: owner_of_kind(DEPLOYMENTS)},
    reconcile=reconcile,
    reads=(PODS,),
    gathers=frozenset({REPLICA_SETS}),
)
