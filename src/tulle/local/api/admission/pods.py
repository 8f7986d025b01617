"""What the API adds to new pods by itself: account, token volume, priority."""

from typing import Any

from tulle.local.api.errors import forbidden
from tulle.local.api.lifecycle import random_suffix
from tulle.local.api.objects import Obj, copy_json
from tulle.local.api.store import Store
from tulle.local.api.targets import AdmissionRequest

__all__ = ["PodAccounts"]

MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_SECONDS = 3607
_SYSTEM_PRIORITIES = {"system-cluster-critical": 2000000000, "system-node-critical": 2000001000}


class PodAccounts:
    """Gives each new pod its ServiceAccount, the account's token as a volume, and its priority."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def mutate(self, request: AdmissionRequest) -> Obj:
        """Complete a pod; raise 403 when its account or priority class does not exist."""
        assert request.obj is not None
        if (
            request.operation != "CREATE"
            or request.target.resource.key != "pods"
            or request.target.subresource
        ):
            return request.obj
        pod: Obj = copy_json(request.obj)
        spec = pod.setdefault("spec", {})
        self._set_priority(request, spec)
        name = spec.get("serviceAccountName") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        record = self._store.get("serviceaccounts", request.target.namespace, name)
        if record is None:
            where = f"{request.target.namespace}/{name}"
            why = f'error looking up service account {where}: serviceaccount "{name}" not found'
            raise forbidden("pods", "", pod["metadata"].get("name") or "", why)
        account = record.obj
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = copy_json(account["imagePullSecrets"])
        wish = spec.get("automountServiceAccountToken")
        if (account.get("automountServiceAccountToken") if wish is None else wish) is not False:
            _mount_token(spec)
        return pod

    async def validate(self, request: AdmissionRequest) -> None:
        """Refuse nothing more."""

    def _set_priority(self, request: AdmissionRequest, spec: Obj) -> None:
        wanted = spec.get("priorityClassName")
        if not wanted:
            return
        value: Any = _SYSTEM_PRIORITIES.get(wanted)
        policy = "PreemptLowerPriority"
        if value is None:
            record = self._store.get("priorityclasses.scheduling.k8s.io", None, wanted)
            if record is None:
                why = f"no PriorityClass with name {wanted} was found"
                raise forbidden(
                    "pods", "", request.obj["metadata"].get("name") or "" if request.obj else "", why
                )
            value, policy = record.obj.get("value", 0), record.obj.get("preemptionPolicy") or policy
        spec["priority"], spec["preemptionPolicy"] = value, policy


def _mount_token(spec: Obj) -> None:
    containers = [c for kind in ("initContainers", "containers") for c in spec.get(kind) or ()]
    lacking = [c for c in containers if all(m.get("mountPath") != MOUNT for m in c.get("volumeMounts") or ())]
    if not lacking:
        return
    volumes = spec.setdefault("volumes", [])
    existing = next((v["name"] for v in volumes if str(v.get("name")).startswith("kube-api-access-")), None)
    name = existing or f"kube-api-access-{random_suffix()}"
    if existing is None:
        volumes.append({"name": name, "projected": {"defaultMode": 0o644, "sources": _sources()}})
    for container in lacking:
        container.setdefault("volumeMounts", []).append({"name": name, "mountPath": MOUNT, "readOnly": True})


def _sources() -> list[Obj]:
    field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    return [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
    ]
