"""What a pod asks for and this machine does not carry out: named once per pod in an Event, never passed over. Pure."""

from collections.abc import Iterator, Mapping

from tulle.local.api.objects import Obj
from tulle.local.net.model import Mode
from tulle.local.pods.loopback import PROXY_CONTAINER, PROXY_INIT

__all__ = ["not_carried_out"]

_POD_FIELDS: Mapping[str, str] = {
    "hostNetwork": "the pod keeps an address of its own",
    "hostPID": "processes see what the mode shows them",
    "hostIPC": "nothing is separated",
    "shareProcessNamespace": "nothing is separated",
    "hostUsers": "users are the machine's",
    "dnsConfig": "names are asked as with dnsPolicy ClusterFirst",
    "runtimeClassName": "containers are processes of this machine",
    "setHostnameAsFQDN": "the host name is the pod's name",
    "ephemeralContainers": "use kubectl exec",
    "overhead": "nothing is accounted",
    "resourceClaims": "this machine has no devices for pods",
}

_CONTAINER_FIELDS: Mapping[str, str] = {
    "volumeDevices": "this machine has no block devices for pods",
    "stdin": "standard input is empty",
    "tty": "output is a pipe",
    "resizePolicy": "resources are not limited",
}


ONE_USER = "without root there is one user, you"


def not_carried_out(pod: Obj, mode: Mode) -> Iterator[str]:
    """Yield one sentence for each field of the manifest that is not carried out. The sidecar's own are left out."""
    spec = pod["spec"]
    for name, meaning in _POD_FIELDS.items():
        if spec.get(name):
            yield f"spec.{name}: {meaning}"
    if spec.get("dnsPolicy") not in (None, "", "ClusterFirst", "ClusterFirstWithHostNet"):
        yield f"spec.dnsPolicy {spec['dnsPolicy']}: names are asked as with ClusterFirst"
    security = spec.get("securityContext") or {}
    for name in ("sysctls", "fsGroup", "supplementalGroups", "seLinuxOptions"):
        if security.get(name):
            yield f"spec.securityContext.{name}: not enforced"
    if mode != "netns" and security.get("runAsUser") is not None:
        yield f"spec.securityContext.runAsUser: {ONE_USER}"
    for field in ("initContainers", "containers"):
        for container in spec.get(field) or ():
            if container["name"] not in (PROXY_CONTAINER, PROXY_INIT):
                yield from _container(container, f"{field} {container['name']}", mode)


def _container(container: Obj, where: str, mode: Mode) -> Iterator[str]:
    for name, meaning in _CONTAINER_FIELDS.items():
        if container.get(name):
            yield f"{where}: {name}: {meaning}"
    if (container.get("resources") or {}).get("limits"):
        yield f"{where}: resources.limits: not enforced"
    if any(port.get("hostPort") for port in container.get("ports") or ()):
        yield f"{where}: hostPort: reach it by its Service's published port"
    if (container.get("lifecycle") or {}).get("stopSignal"):
        yield f"{where}: lifecycle.stopSignal: SIGTERM is sent"
    security = container.get("securityContext") or {}
    for name in ("privileged", "readOnlyRootFilesystem", "capabilities", "seLinuxOptions", "procMount"):
        if security.get(name):
            yield f"{where}: securityContext.{name}: not enforced"
    if mode != "netns" and security.get("runAsUser") is not None:
        yield f"{where}: securityContext.runAsUser: {ONE_USER}"
    for mount in container.get("volumeMounts") or ():
        if mount.get("mountPropagation") not in (None, "None"):
            yield f"{where}: mountPropagation {mount['mountPropagation']} of {mount['mountPath']}: mounts stay private"
