"""A small shop: its manifest (mesh.yaml), and the pods and endpoints that run for it."""

from pathlib import Path
from typing import Any

from tulle.local.sources import parse

Obj = dict[str, Any]
MANIFEST = Path(__file__).with_name("mesh.yaml")
MESHED = {"linkerd.io/control-plane-ns": "linkerd"}


def pod(name: str, ip: str, *, ready: bool = True, meshed: bool = True, account: str | None = None) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-1",
            "namespace": "shop",
            "labels": {"app": name} | (MESHED if meshed else {}),
            "ownerReferences": [{"kind": "ReplicaSet", "name": f"{name}-5", "uid": "u", "controller": True}],
        },
        "spec": {"serviceAccountName": account or name, "containers": [{"name": name}]},
        "status": {"phase": "Running", "podIP": ip},
    }


def replica_set(name: str) -> Obj:
    owner = {"kind": "Deployment", "name": name, "uid": "d", "controller": True}
    metadata = {"name": f"{name}-5", "namespace": "shop", "ownerReferences": [owner]}
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata}


def endpoint_slice(service: str, pod_name: str, ip: str) -> Obj:
    reference = {"kind": "Pod", "name": pod_name, "namespace": "shop"}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-1",
            "namespace": "shop",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip], "conditions": {"ready": True}, "targetRef": reference}],
    }


def objects() -> list[Obj]:
    """Everything that the API holds."""
    applied = []
    for manifest in parse(MANIFEST.read_text(), str(MANIFEST)):
        manifest.obj["metadata"].setdefault("annotations", {})["tulle.dev/source"] = manifest.where
        applied.append(manifest.obj)
    running = [
        pod("web", "10.42.0.2"),
        pod("bot", "10.42.0.3"),
        pod("old", "10.42.0.4", meshed=False),
        pod("voting", "10.42.0.5"),
        pod("canary", "10.42.0.6", meshed=False),
        *(replica_set(name) for name in ("web", "bot", "old", "voting", "canary")),
        endpoint_slice("voting", "voting-1", "10.42.0.5"),
        endpoint_slice("canary", "canary-1", "10.42.0.6"),
    ]
    return applied + running
