"""Says of objects that are stored here and not carried out that this is so: an Event, once, instead of silence."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from tulle.local.controllers.actions import Action, Emit
from tulle.local.controllers.cluster import Key, Kind
from tulle.local.controllers.manager import Controller, itself
from tulle.local.controllers.metadata import is_deleting
from tulle.local.controllers.store import Stores

__all__ = ["CONTROLLERS", "NOT_CARRIED_OUT"]

NOT_CARRIED_OUT: Mapping[Kind, str] = {
    Kind(
        "HorizontalPodAutoscaler", "autoscaling", "v2", "horizontalpodautoscalers"
    ): "replicas stay as the workload says",
    Kind("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies"): (
        "no traffic is filtered by it; use Server and AuthorizationPolicy"
    ),
    Kind(
        "Ingress", "networking.k8s.io", "v1", "ingresses"
    ): "there is no ingress controller; use the published ports",
    Kind("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims"): (
        "there is no storage provisioner; use emptyDir or hostPath"
    ),
    Kind("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets"): "this node is never drained",
    Kind("ResourceQuota", "", "v1", "resourcequotas"): "nothing is counted against it",
    Kind("LimitRange", "", "v1", "limitranges"): "containers get no defaults from it",
    Kind(
        "ReplicationController", "", "v1", "replicationcontrollers"
    ): "no pods are made for it; use a Deployment",
}
"""Kinds that the API takes and no controller acts on, each with what that means."""


def _controller(kind: Kind, meaning: str) -> Controller:
    told: set[str] = set()

    def reconcile(key: Key, stores: Stores, now: datetime) -> Sequence[Action]:
        obj = stores[kind].get(*key)
        if obj is None or is_deleting(obj) or obj["metadata"]["uid"] in told:
            return ()
        told.add(obj["metadata"]["uid"])
        message = f"{kind.name} is stored but not carried out on this machine: {meaning}"
        return (Emit(kind, obj, "Warning", "NotCarriedOut", message),)

    return Controller(name="notice", watches={kind: itself}, reconcile=reconcile)


CONTROLLERS = tuple(_controller(kind, meaning) for kind, meaning in NOT_CARRIED_OUT.items())
