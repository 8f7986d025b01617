"""Says of what is stored here and not carried out that this is so: an Event, once, instead of silence.

Whole kinds that no controller acts on, and fields of kinds that controllers do act on. (What a pod asks for is the node
agent's to say, see `tulle.local.pods.notices`.)
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from tulle.local.controllers.actions import Action, Emit
from tulle.local.controllers.cluster import DAEMON_SETS, JOBS, SERVICES, STATEFUL_SETS, Key, Kind, Obj
from tulle.local.controllers.manager import Controller, itself
from tulle.local.controllers.metadata import is_deleting
from tulle.local.controllers.store import Stores

__all__ = ["CONTROLLERS", "KINDS_NOT_CARRIED_OUT", "fields_not_carried_out"]

KINDS_NOT_CARRIED_OUT: Mapping[Kind, str] = {
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

_FIELDS: Mapping[Kind, Mapping[str, str]] = {
    JOBS: {
        "podFailurePolicy": "every failure counts against backoffLimit",
        "successPolicy": "all completions are needed",
        "backoffLimitPerIndex": "failures of all indexes count together",
        "maxFailedIndexes": "failures of all indexes count together",
        "managedBy": "this controller manages it all the same",
    },
    DAEMON_SETS: {"updateStrategy.rollingUpdate.maxSurge": "the old pod goes before the new one comes"},
    STATEFUL_SETS: {"updateStrategy.rollingUpdate.maxUnavailable": "one pod is replaced at a time"},
    SERVICES: {
        "externalIPs": "reach it by its published port",
        "loadBalancerIP": "reach it by its published port",
        "loadBalancerSourceRanges": "published ports listen on loopback only",
        "sessionAffinityConfig": "requests are balanced one by one",
        "trafficDistribution": "there is one node",
    },
}

_PLAIN: Mapping[tuple[Kind, str], tuple[Any, ...]] = {
    (STATEFUL_SETS, "updateStrategy.rollingUpdate.maxUnavailable"): (1,),
    (DAEMON_SETS, "updateStrategy.rollingUpdate.maxSurge"): (0, "0%"),
}
"""Values that ask for nothing beyond what happens anyway."""


def fields_not_carried_out(kind: Kind, obj: Obj) -> Iterable[str]:
    """Yield one sentence for each field of an object's spec that nobody acts on."""
    for path, meaning in _FIELDS.get(kind, {}).items():
        value: Any = obj.get("spec") or {}
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value not in (None, "", [], {}) and value not in _PLAIN.get((kind, path), ()):
            yield f"spec.{path}: {meaning}"
    if kind == SERVICES:
        for number, port in enumerate((obj.get("spec") or {}).get("ports") or ()):
            if port.get("protocol") == "SCTP":
                yield f"spec.ports[{number}].protocol: SCTP is not carried; the port has no address here"


def _controller(kind: Kind) -> Controller:
    told: dict[Key, str] = {}

    def reconcile(key: Key, stores: Stores, now: datetime) -> Sequence[Action]:
        obj = stores[kind].get(*key)
        if obj is None or is_deleting(obj):
            told.pop(key, None)
            return ()
        if kind in KINDS_NOT_CARRIED_OUT:
            message = (
                f"{kind.name} is stored but not carried out on this machine: {KINDS_NOT_CARRIED_OUT[kind]}"
            )
        else:
            message = "; ".join(fields_not_carried_out(kind, obj))
            message = f"not carried out on this machine: {message}" if message else ""
        if not message or told.get(key) == message:
            return ()
        told[key] = message
        return (Emit(kind, obj, "Warning", "NotCarriedOut", message),)

    return Controller(name="notice", watches={kind: itself}, reconcile=reconcile)


CONTROLLERS = tuple(_controller(kind) for kind in (*KINDS_NOT_CARRIED_OUT, *_FIELDS))
