"""Rules of pods and pod templates. Pure."""

import re
from collections.abc import Iterator
from typing import Any

from tulle.local.api.errors import Cause
from tulle.local.api.objects import Obj
from tulle.local.api.validation.names import LABEL_TEXT, is_dns_label

__all__ = ["check_pod", "check_pod_spec", "check_template"]

_QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i)?")
_QUANTITY_TEXT = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_SOURCES = (
    "awsElasticBlockStore,azureDisk,azureFile,cephfs,cinder,configMap,csi,downwardAPI,emptyDir,ephemeral,fc,flexVolume,"
    "flocker,gcePersistentDisk,gitRepo,glusterfs,hostPath,image,iscsi,nfs,persistentVolumeClaim,photonPersistentDisk,"
    "portworxVolume,projected,quobyte,rbd,scaleIO,secret,storageos,vsphereVolume"
).split(",")


def check_pod(pod: Obj, old: Obj | None) -> Iterator[Cause]:
    """Yield what is wrong with a pod, or with a change to one."""
    yield from check_pod_spec(pod["spec"], "spec", template=False)
    if pod["spec"].get("ephemeralContainers"):
        yield Cause.forbidden("spec.ephemeralContainers", "this API's nodes do not run ephemeral containers")
    if old is not None:
        yield from _check_update(pod, old)


def _check_update(pod: Obj, old: Obj) -> Iterator[Cause]:
    before, after = _mutable_removed(old["spec"], pod["spec"]), _mutable_removed(pod["spec"], pod["spec"])
    if before != after:
        changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        detail = (
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
            "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
            "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative): "
            f"changed here: {', '.join(changed)}"
        )
        yield Cause.forbidden("spec", detail)


def _mutable_removed(spec: Obj, new: Obj) -> Obj:
    """Return a spec without what may change on a living pod."""
    kept = {
        key: value
        for key, value in spec.items()
        if key not in ("activeDeadlineSeconds", "tolerations", "schedulingGates")
    }
    for kind in ("containers", "initContainers"):
        if kind in kept:
            kept[kind] = [{k: v for k, v in c.items() if k not in ("image", "resources")} for c in kept[kind]]
    if not spec.get("nodeName") and new.get("nodeName"):
        kept["nodeName"] = new["nodeName"]
    return kept


def check_template(template: Any, path: str) -> Iterator[Cause]:
    """Yield what is wrong with a pod template whose pods always restart."""
    spec = (template or {}).get("spec")
    if not isinstance(spec, dict):
        return
    yield from check_pod_spec(spec, f"{path}.spec", template=True)


def check_pod_spec(spec: Obj, path: str, *, template: bool) -> Iterator[Cause]:
    """Yield what is wrong with a pod's spec."""
    containers, inits = spec.get("containers") or [], spec.get("initContainers") or []
    if not containers:
        yield Cause.required(f"{path}.containers")
    volumes = spec.get("volumes") or []
    yield from _check_volumes(volumes, f"{path}.volumes")
    names: set[str] = set()
    known = {volume.get("name") for volume in volumes}
    for kind, listed in (("containers", containers), ("initContainers", inits)):
        for index, container in enumerate(listed):
            where = f"{path}.{kind}[{index}]"
            yield from _check_container(container, where, known, init=kind == "initContainers")
            if container.get("name") in names:
                yield Cause.duplicate(f"{where}.name", container["name"])
            names.add(container.get("name", ""))
    if spec.get("restartPolicy") not in ("Always", "OnFailure", "Never"):
        yield Cause.unsupported(
            f"{path}.restartPolicy", spec.get("restartPolicy"), ["Always", "OnFailure", "Never"]
        )
    policies = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]
    if spec.get("dnsPolicy") not in policies:
        yield Cause.unsupported(f"{path}.dnsPolicy", spec.get("dnsPolicy"), policies)
    grace = spec.get("terminationGracePeriodSeconds")
    if isinstance(grace, int) and grace < 0:
        yield Cause.invalid(
            f"{path}.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0"
        )


def _check_volumes(volumes: list[Obj], path: str) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        name = volume.get("name", "")
        if not is_dns_label(name):
            yield Cause.invalid(f"{path}[{index}].name", name, LABEL_TEXT)
        if name in seen:
            yield Cause.duplicate(f"{path}[{index}].name", name)
        seen.add(name)
        given = [source for source in _SOURCES if volume.get(source) is not None]
        if not given:
            yield Cause.required(f"{path}[{index}]", "must specify a volume type")
        for extra in given[1:]:
            yield Cause.forbidden(f"{path}[{index}].{extra}", "may not specify more than 1 volume type")


def _check_container(container: Obj, path: str, volumes: set[Any], *, init: bool) -> Iterator[Cause]:
    name = container.get("name") or ""
    if not is_dns_label(name):
        yield Cause.invalid(f"{path}.name", name, LABEL_TEXT)
    image = container.get("image")
    if not image:
        yield Cause.required(f"{path}.image")
    elif image != image.strip():
        yield Cause.invalid(f"{path}.image", image, "must not have leading or trailing whitespace")
    policies = ["Always", "IfNotPresent", "Never"]
    if container.get("imagePullPolicy") not in policies:
        yield Cause.unsupported(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), policies)
    yield from _check_ports(container.get("ports") or [], f"{path}.ports")
    for index, variable in enumerate(container.get("env") or []):
        yield from _check_variable(variable, f"{path}.env[{index}]")
    paths: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or []):
        where = f"{path}.volumeMounts[{index}]"
        if mount.get("name") not in volumes:
            yield Cause(f"{where}.name", "FieldValueNotFound", f'Not found: "{mount.get("name")}"')
        if mount.get("mountPath") in paths:
            yield Cause.invalid(f"{where}.mountPath", mount.get("mountPath"), "must be unique")
        paths.add(mount.get("mountPath", ""))
    restart = container.get("restartPolicy")
    if (
        restart is not None
        and not (init and restart == "Always")
        and restart not in ("Never", "OnFailure", "Always")
    ):
        yield Cause.unsupported(f"{path}.restartPolicy", restart, ["Always", "Never", "OnFailure"])
    for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(kind) is not None:
            yield from _check_probe(container[kind], f"{path}.{kind}", kind)
    for kind in ("limits", "requests"):
        for resource, value in ((container.get("resources") or {}).get(kind) or {}).items():
            if not _QUANTITY.fullmatch(str(value)):
                yield Cause.invalid(f"{path}.resources.{kind}[{resource}]", value, _QUANTITY_TEXT)
            elif str(value).startswith("-"):
                yield Cause.invalid(
                    f"{path}.resources.{kind}[{resource}]", value, "must be greater than or equal to 0"
                )


def _check_ports(ports: list[Obj], path: str) -> Iterator[Cause]:
    names: set[str] = set()
    for index, port in enumerate(ports):
        where = f"{path}[{index}]"
        number = port.get("containerPort")
        if not isinstance(number, int) or not 0 < number < 65536:
            yield Cause.invalid(f"{where}.containerPort", number, "must be between 1 and 65535, inclusive")
        host = port.get("hostPort")
        if host and not 0 < host < 65536:
            yield Cause.invalid(f"{where}.hostPort", host, "must be between 1 and 65535, inclusive")
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            yield Cause.unsupported(f"{where}.protocol", port.get("protocol"), ["SCTP", "TCP", "UDP"])
        name = port.get("name")
        if name:
            if len(name) > 15 or not _PORT_NAME.fullmatch(name) or "--" in name:
                detail = "must be an IANA service name: at most 15 lower case letters, digits and single '-', with a letter"
                yield Cause.invalid(f"{where}.name", name, detail)
            if name in names:
                yield Cause.duplicate(f"{where}.name", name)
            names.add(name)


def _check_variable(variable: Obj, path: str) -> Iterator[Cause]:
    name = variable.get("name") or ""
    if not name or not all(" " <= c < "\x7f" and c != "=" for c in name):
        detail = "environment variable names are printable ASCII characters other than '='"
        yield Cause.invalid(f"{path}.name", name, detail)
    source = variable.get("valueFrom")
    if source is None:
        return
    given = [key for key, value in source.items() if value is not None]
    if variable.get("value"):
        yield Cause.invalid(f"{path}.valueFrom", "", "may not be specified when `value` is not empty")
    if len(given) != 1:
        many = "may not have more than one field specified at a time"
        yield Cause.invalid(
            f"{path}.valueFrom",
            "",
            many if given else "must specify one of: `fieldRef`, `configMapKeyRef` or another source",
        )


def _check_probe(probe: Obj, path: str, kind: str) -> Iterator[Cause]:
    handlers = [key for key in ("exec", "grpc", "httpGet", "tcpSocket") if probe.get(key) is not None]
    if not handlers:
        yield Cause.required(path, "must specify a handler type")
    for extra in handlers[1:]:
        yield Cause.forbidden(f"{path}.{extra}", "may not specify more than 1 handler type")
    for field in (
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ):
        value = probe.get(field)
        if isinstance(value, int) and value < 0:
            yield Cause.invalid(f"{path}.{field}", value, "must be greater than or equal to 0")
    if kind != "readinessProbe" and probe.get("successThreshold", 1) != 1:
        yield Cause.invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1")
