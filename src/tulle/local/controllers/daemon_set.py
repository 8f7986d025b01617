"""DaemonSets: one pod on the one node, where the template's nodeSelector matches it."""

from collections.abc import Sequence
from datetime import datetime

from tulle.local.controllers.actions import Action, Create, Delete, Patch, Requeue
from tulle.local.controllers.cluster import DAEMON_SETS, NODES, PODS, Key, Obj
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
from tulle.local.controllers.scheduling import NODE_NAME, placement
from tulle.local.controllers.store import Stores

__all__ = ["CONTROLLER", "reconcile"]


def reconcile(key: Key, stores: Stores, now: datetime) -> Sequence[Action]:
    """Decide the next step of one DaemonSet."""
    owner = stores[DAEMON_SETS].get(*key)
    if owner is None or is_deleting(owner):
        return ()
    node = stores[NODES].get("", NODE_NAME)
    if node is None:
        return (Requeue(0.1),)
    template = owner["spec"]["template"]
    revision = template_hash(template)
    wanted = not list(placement(template.get("spec") or {}, labels_of(node)))
    pods = stores[PODS].controlled_by(uid_of(owner))
    living = [pod for pod in pods if not is_deleting(pod)]
    rolling = ((owner["spec"].get("updateStrategy") or {}).get("type") or "RollingUpdate") == "RollingUpdate"
    stale = [
        pod
        for pod in living
        if not wanted
        or phase_of(pod) in ("Failed", "Succeeded")
        or (rolling and labels_of(pod).get(REVISION_LABEL) != revision)
    ]
    keep = [pod for pod in living if pod not in stale]
    actions: list[Action] = [_delete(owner, pod) for pod in (*stale, *sorted(keep, key=name_of)[1:])]
    if wanted and not pods:
        pod = pod_from_template(DAEMON_SETS, owner, template, labels={REVISION_LABEL: revision})
        actions.append(Create(PODS, pod, owner, DAEMON_SETS))
    actions.extend(_status(owner, living, revision, wanted=wanted, now=now))
    return actions


def _delete(owner: Obj, pod: Obj) -> Delete:
    return Delete(PODS, namespace_of(pod), name_of(pod), owner, DAEMON_SETS)


def _status(owner: Obj, living: Sequence[Obj], revision: str, *, wanted: bool, now: datetime) -> list[Action]:
    seconds = integer(owner["spec"].get("minReadySeconds"), 0)
    ready = any(pod_is_ready(pod) for pod in living)
    available = any(pod_is_available(pod, seconds, now) for pod in living)
    updated = any(labels_of(pod).get(REVISION_LABEL) == revision for pod in living)
    body: Obj = {
        "currentNumberScheduled": int(wanted and bool(living)),
        "numberMisscheduled": int(not wanted and bool(living)),
        "desiredNumberScheduled": int(wanted),
        "numberReady": int(ready),
        "observedGeneration": integer(owner["metadata"].get("generation"), 1),
    }
    if updated:
        body["updatedNumberScheduled"] = 1
    if available:
        body["numberAvailable"] = 1
    elif wanted:
        body["numberUnavailable"] = 1
    before = owner.get("status") or {}
    actions: list[Action] = []
    if body != before:
        patch = {"status": {**dict.fromkeys(before), **body}}
        actions.append(Patch(DAEMON_SETS, namespace_of(owner), name_of(owner), patch, subresource="status"))
    if ready and not available:
        actions.append(Requeue(1.0))
    return actions


CONTROLLER = Controller(
    name="daemonset",
    watches={DAEMON_SETS: itself, PODS: owner_of_kind(DAEMON_SETS)},
    reconcile=reconcile,
    reads=(NODES,),
)
