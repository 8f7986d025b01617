"""Tables of nodes, namespaces, events, volumes and budgets. Pure."""

from datetime import datetime

from tulle.local.api.objects import Obj, lookup
from tulle.local.api.tables.printing import NAME, Cells, Printer, age, column, text_columns

__all__ = ["PRINTERS"]

_ROLE_LABEL = "node-role.kubernetes.io/"


def _created(obj: Obj, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _namespace(obj: Obj, now: datetime) -> Cells:
    return [obj["metadata"]["name"], lookup(obj, ("status", "phase")) or "", _created(obj, now)]


def _node(obj: Obj, now: datetime) -> Cells:
    status = obj.get("status") or {}
    ready = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), None)
    state = "Unknown" if ready is None else ("Ready" if ready.get("status") == "True" else "NotReady")
    if lookup(obj, ("spec", "unschedulable")):
        state += ",SchedulingDisabled"
    labels = obj["metadata"].get("labels") or {}
    roles = sorted(key.removeprefix(_ROLE_LABEL) for key in labels if key.startswith(_ROLE_LABEL))
    addresses = {a.get("type"): a.get("address") for a in reversed(status.get("addresses") or ())}
    info = status.get("nodeInfo") or {}
    return [
        obj["metadata"]["name"],
        state,
        ",".join(roles) or "<none>",
        _created(obj, now),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", "<none>"),
        addresses.get("ExternalIP", "<none>"),
        info.get("osImage") or "<unknown>",
        info.get("kernelVersion") or "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]


def _event(obj: Obj, now: datetime) -> Cells:
    subject = obj.get("involvedObject") or {}
    source = obj.get("source") or {}
    first = obj.get("firstTimestamp") or obj.get("eventTime") or obj["metadata"].get("creationTimestamp")
    series = obj.get("series") or {}
    last = series.get("lastObservedTime") or obj.get("lastTimestamp") or first
    count = series.get("count") or obj.get("count") or 1
    origin = source.get("component") or obj.get("reportingComponent") or ""
    return [
        age(last, now),
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{str(subject.get('kind', '')).lower()}/{subject.get('name', '')}",
        subject.get("fieldPath", ""),
        f"{origin}, {source['host']}" if source.get("host") else origin,
        str(obj.get("message", "")).strip(),
        age(first, now),
        count,
        obj["metadata"]["name"],
    ]


def _claim(obj: Obj, now: datetime) -> Cells:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    modes = ",".join(_MODES.get(mode, mode) for mode in status.get("accessModes") or ())
    return [
        obj["metadata"]["name"],
        "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", ""),
        spec.get("volumeName", ""),
        lookup(status, ("capacity", "storage")) or "",
        modes,
        spec.get("storageClassName") or "",
        spec.get("volumeAttributesClassName") or "<unset>",
        _created(obj, now),
        spec.get("volumeMode") or "<unset>",
    ]


_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _budget(obj: Obj, now: datetime) -> Cells:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    low, high = spec.get("minAvailable", "N/A"), spec.get("maxUnavailable", "N/A")
    return [
        obj["metadata"]["name"],
        str(low),
        str(high),
        status.get("disruptionsAllowed", 0),
        _created(obj, now),
    ]


def _priority(obj: Obj, now: datetime) -> Cells:
    policy = obj.get("preemptionPolicy") or "PreemptLowerPriority"
    return [
        obj["metadata"]["name"],
        obj.get("value", 0),
        bool(obj.get("globalDefault")),
        _created(obj, now),
        policy,
    ]


PRINTERS = {
    "namespaces": Printer(text_columns("Status,Age"), _namespace),
    "nodes": Printer(
        text_columns(
            "Status,Roles,Age,Version", "Internal-IP,External-IP,OS-Image,Kernel-Version,Container-Runtime"
        ),
        _node,
    ),
    "events": Printer(
        [
            column("Last Seen"),
            column("Type"),
            column("Reason"),
            column("Object"),
            column("Subobject", wide=True),
            column("Source", wide=True),
            column("Message"),
            column("First Seen", wide=True),
            column("Count", wide=True),
            {**NAME, "priority": 1},
        ],
        _event,
    ),
    "persistentvolumeclaims": Printer(
        text_columns(
            "Status,Volume,Capacity,Access Modes,StorageClass,VolumeAttributesClass,Age", "VolumeMode"
        ),
        _claim,
    ),
    "poddisruptionbudgets.policy": Printer(
        text_columns("Min Available,Max Unavailable,Allowed Disruptions,Age"), _budget
    ),
    "priorityclasses.scheduling.k8s.io": Printer(
        [
            NAME,
            column("Value", "integer"),
            column("Global-Default", "boolean"),
            column("Age"),
            column("PreemptionPolicy"),
        ],
        _priority,
    ),
}
