"""Tables of configuration, accounts and access. Pure."""

from datetime import datetime

from tulle.local.api.objects import Obj
from tulle.local.api.tables.printing import NAME, Cells, Printer, age, column, text_columns

__all__ = ["PRINTERS"]


def _created(obj: Obj, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _config_map(obj: Obj, now: datetime) -> Cells:
    count = len(obj.get("data") or ()) + len(obj.get("binaryData") or ())
    return [obj["metadata"]["name"], count, _created(obj, now)]


def _secret(obj: Obj, now: datetime) -> Cells:
    return [obj["metadata"]["name"], obj.get("type", ""), len(obj.get("data") or ()), _created(obj, now)]


def _role(obj: Obj, now: datetime) -> Cells:
    return [obj["metadata"]["name"], obj["metadata"].get("creationTimestamp", "")]


def _binding(obj: Obj, now: datetime) -> Cells:
    subjects: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in obj.get("subjects") or ():
        name = subject.get("name", "")
        if subject.get("kind") == "ServiceAccount":
            name = f"{subject.get('namespace', '')}/{name}"
        subjects.setdefault(subject.get("kind", ""), []).append(name)
    reference = obj["roleRef"]
    shown = [", ".join(subjects[kind]) for kind in ("User", "Group", "ServiceAccount")]
    return [obj["metadata"]["name"], f"{reference['kind']}/{reference['name']}", _created(obj, now), *shown]


def _webhooks(obj: Obj, now: datetime) -> Cells:
    return [obj["metadata"]["name"], len(obj.get("webhooks") or ()), _created(obj, now)]


def _account(obj: Obj, now: datetime) -> Cells:
    return [obj["metadata"]["name"], _created(obj, now)]


def _lease(obj: Obj, now: datetime) -> Cells:
    return [obj["metadata"]["name"], (obj.get("spec") or {}).get("holderIdentity") or "", _created(obj, now)]


def _crd(obj: Obj, now: datetime) -> Cells:
    return [obj["metadata"]["name"], obj["metadata"].get("creationTimestamp", "")]


_BINDING = Printer(text_columns("Role,Age", "Users,Groups,ServiceAccounts"), _binding)
_WEBHOOKS = Printer([NAME, column("Webhooks", "integer"), column("Age")], _webhooks)
_ROLE = Printer([NAME, column("Created At", "string")], _role)

PRINTERS = {
    "configmaps": Printer([NAME, column("Data", "integer"), column("Age")], _config_map),
    "secrets": Printer([NAME, column("Type"), column("Data", "integer"), column("Age")], _secret),
    "serviceaccounts": Printer([NAME, column("Age")], _account),
    "roles.rbac.authorization.k8s.io": _ROLE,
    "clusterroles.rbac.authorization.k8s.io": _ROLE,
    "rolebindings.rbac.authorization.k8s.io": _BINDING,
    "clusterrolebindings.rbac.authorization.k8s.io": _BINDING,
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": _WEBHOOKS,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": _WEBHOOKS,
    "leases.coordination.k8s.io": Printer(text_columns("Holder,Age"), _lease),
    "customresourcedefinitions.apiextensions.k8s.io": Printer([NAME, column("Created At", "string")], _crd),
}
