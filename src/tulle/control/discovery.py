"""Scrape targets for Prometheus: every meshed pod's proxy, as HTTP service discovery (`/sd`).

With `via=host` the target of all is the address that Prometheus asked, and the path is the relay of the control plane
(`/proxy/<ns>/<pod>/metrics`): so a Prometheus outside the pod network can scrape as well.
"""

from typing import Any

from tulle.compile.mesh import Mesh
from tulle.compile.pods import meshed
from tulle.kube import kinds
from tulle.kube.objects import Pod
from tulle.kube.world import World

__all__ = ["admin_port", "scrape_targets"]

ADMIN_PORT_NAME = "linkerd-admin"
DEFAULT_ADMIN_PORT = 4191


def admin_port(pod: Pod) -> int:
    """Return the port of a pod's proxy that serves /metrics."""
    for container in pod.containers:
        for port in container.ports or ():
            if port.name == ADMIN_PORT_NAME:
                return port.container_port
    return DEFAULT_ADMIN_PORT


def scrape_targets(world: World, mesh: Mesh, via: str | None = None) -> list[dict[str, Any]]:
    """Return Prometheus' http_sd document, ordered by namespace and pod. `via` is the relay's `host:port`."""
    targets = []
    pods: list[Pod] = world.all(kinds.POD)
    for pod in sorted(pods, key=lambda pod: (pod.namespace, pod.name)):
        if not meshed(mesh, pod) or pod.finished or not pod.ips:
            continue
        kind, owner = world.owner(pod)
        labels = {
            "namespace": pod.namespace,
            "pod": pod.name,
            ("k8s_job" if kind == "Job" else kind.lower()): owner,
            "control_plane_ns": mesh.control_plane_namespace,
        }
        if via is not None:
            labels["__metrics_path__"] = f"/proxy/{pod.namespace}/{pod.name}/metrics"
            labels["instance"] = f"{pod.ips[0]}:{admin_port(pod)}"
        host = f"[{pod.ips[0]}]" if ":" in pod.ips[0] else pod.ips[0]
        targets.append({"targets": [via or f"{host}:{admin_port(pod)}"], "labels": labels})
    return targets
