"""The one node: this machine, as `kubectl get nodes` and `describe node` show it."""

import asyncio
import logging
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from tulle import __version__
from tulle.clock import Clock
from tulle.local.api.lifecycle import timestamp
from tulle.local.controllers.cluster import NODES, ApiError, ClusterApi, Obj
from tulle.local.controllers.scheduling import NODE_NAME

__all__ = ["MAX_PODS", "NodeFacts", "keep_node", "node_facts", "node_object"]

MAX_PODS = 250
HEARTBEAT_SECONDS = 300.0
AGAIN_SECONDS = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the machine is: processors, memory and disk in bytes, and its names."""

    processors: int
    memory_bytes: int
    disk_bytes: int
    architecture: str
    kernel: str
    os_image: str
    address: str

    @property
    def capacity(self) -> dict[str, str]:
        """Return the machine's resources as a node reports them."""
        return {
            "cpu": str(self.processors),
            "memory": f"{self.memory_bytes // 1024}Ki",
            "ephemeral-storage": f"{self.disk_bytes // 1024}Ki",
            "pods": str(MAX_PODS),
        }


def node_facts(state: Path, address: str = "127.0.0.1") -> NodeFacts:
    """Look at the machine; `state` is the folder whose disk counts."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return NodeFacts(
        processors=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        disk_bytes=shutil.disk_usage(state).total,
        architecture=machine,
        kernel=platform.release(),
        os_image=_os_image(),
        address=address,
    )


def _os_image() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def node_object(facts: NodeFacts, now: str) -> Obj:
    """Return the Node."""
    system = platform.system().lower()
    reasons = {
        "MemoryPressure": ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        "DiskPressure": ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        "PIDPressure": ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        "Ready": ("True", "KubeletReady", "the node agent runs pods as processes"),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": NODE_NAME,
            "labels": {
                "kubernetes.io/hostname": NODE_NAME,
                "kubernetes.io/os": system,
                "kubernetes.io/arch": facts.architecture,
            },
        },
        "spec": {},
        "status": {
            "capacity": facts.capacity,
            "allocatable": facts.capacity,
            "addresses": [
                {"type": "InternalIP", "address": facts.address},
                {"type": "Hostname", "address": NODE_NAME},
            ],
            "conditions": [
                {
                    "type": name, "status": status, "reason": reason, "message": message,
                    "lastHeartbeatTime": now, "lastTransitionTime": now,
                }
                for name, (status, reason, message) in reasons.items()
            ],
            "nodeInfo": {
                "architecture": facts.architecture,
                "operatingSystem": system,
                "kernelVersion": facts.kernel,
                "osImage": facts.os_image,
                "containerRuntimeVersion": f"process://{__version__}",
                "kubeletVersion": f"v1.34.0-tulle.{__version__}",
                "kubeProxyVersion": "",
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
            },
        },
    }  # fmt: skip


async def keep_node(api: ClusterApi, clock: Clock, facts: NodeFacts) -> None:
    """Make the Node, then renew its heartbeat until cancelled; a deleted one is made again."""
    while True:
        try:
            await _tell_of_node(api, node_object(facts, timestamp(clock.now())))
        except ApiError as error:
            # An admission webhook may refuse it, as it may refuse anything.
            log.warning("the node's heartbeat was refused: %s", error.message)
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            await asyncio.sleep(HEARTBEAT_SECONDS)


async def _tell_of_node(api: ClusterApi, node: Obj) -> None:
    try:
        await api.get(NODES.plural, NODE_NAME)
    except ApiError as error:
        if error.code != 404:
            raise
        await api.create(NODES.plural, node)
    await api.patch(NODES.plural, NODE_NAME, {"status": node["status"]}, subresource="status")
