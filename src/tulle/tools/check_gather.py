"""Reads from a Kubernetes API what the checks judge: a bounded number of questions at a time, none that is fatal."""

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from tulle.kube.client import ApiError, Client, Unreachable
from tulle.tools.check_cluster import (
    CONTROL_PLANE_NS,
    CONTROLLER,
    DEFINITIONS,
    SERVICES,
    WEBHOOKS,
    Answer,
    Cluster,
    Page,
)

__all__ = ["Certificates", "gather"]

AT_ONCE = 16
ADMIN_PORT, CONTROLLER_ADMIN_PORT = 4191, 9990
ISSUER, WEBHOOK_SECRET = "linkerd-identity-issuer", "linkerd-proxy-injector-k8s-tls"
# Linkerd's own scheme, then kubernetes.io/tls.
_FILES = (("crt.pem", "key.pem"), ("tls.crt", "tls.key"))

Obj = dict[str, Any]
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Certificates:
    """PEM texts as far as they could be read; `trouble` names what could not."""

    roots: bytes = b""
    issuer: bytes = b""
    issuer_key: bytes = b""
    serving: bytes = b""
    bundles: tuple[bytes, ...] = ()
    trouble: tuple[tuple[str, str], ...] = ()


async def gather(client: Client, namespace: str) -> tuple[Cluster, Certificates]:
    """Read everything. Trouble is part of the result, never raised."""
    version = await _ask(client, "/version")
    if version.found is None:
        return Cluster(client.server, version, namespace), Certificates()
    core = f"/api/v1/namespaces/{namespace}"
    paths = {
        f"namespaces/{namespace}": f"/api/v1/namespaces/{namespace}",
        f"deployments/{CONTROLLER}": f"/apis/apps/v1/namespaces/{namespace}/deployments/{CONTROLLER}",
        "configmaps/linkerd-config": f"{core}/configmaps/linkerd-config",
        "configmaps/linkerd-identity-trust-roots": f"{core}/configmaps/linkerd-identity-trust-roots",
        f"secrets/{ISSUER}": f"{core}/secrets/{ISSUER}",
        f"secrets/{WEBHOOK_SECRET}": f"{core}/secrets/{WEBHOOK_SECRET}",
    }
    paths |= {f"services/{name}": f"{core}/services/{name}" for name in SERVICES}
    paths |= {
        f"customresourcedefinitions/{name}": f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        for name in DEFINITIONS
    }
    paths |= {
        f"{kind}/{name}": f"/apis/admissionregistration.k8s.io/v1/{kind}/{name}" for kind, name in WEBHOOKS
    }
    paths["targets"] = f"{core}/services/tulle-viz:{CONTROLLER_ADMIN_PORT}/proxy/api/targets"
    objects = await _each(paths, lambda path: _ask(client, path))
    # Only what has a sidecar of this control plane: a large cluster's other pods are none of our business.
    objects["pods"] = await _ask(client, "/api/v1/pods", labelSelector=f"{CONTROL_PLANE_NS}={namespace}")
    pods: list[Obj] = (objects["pods"].found or {}).get("items") or []
    own = [
        pod["metadata"]["name"]
        for pod in pods
        if pod["metadata"]["namespace"] == namespace
        and _label(pod, "linkerd.io/control-plane-component") == "controller"
    ]
    ready = await _each(
        {name: f"{core}/pods/{name}:{CONTROLLER_ADMIN_PORT}/proxy/ready" for name in own},
        lambda path: _page(client, path),
    )
    metrics = await _each(
        {
            (where, name): f"/api/v1/namespaces/{where}/pods/{name}:{ADMIN_PORT}/proxy/metrics"
            for pod in pods
            if (pod.get("status") or {}).get("phase") == "Running"
            for where, name in [(pod["metadata"]["namespace"], pod["metadata"]["name"])]
        },
        lambda path: _page(client, path),
    )
    certificates = _certificates(objects)
    cluster = Cluster(
        client.server,
        version,
        namespace,
        objects,
        pods,
        ready,
        metrics,
        objects["targets"],
        hashlib.sha256(certificates.roots).hexdigest() if certificates.roots else "",
    )
    return cluster, certificates


def _certificates(objects: dict[str, Answer]) -> Certificates:
    """Take the PEM texts out of the objects read."""
    trouble = []

    def secret(name: str) -> tuple[bytes, bytes]:
        answer = objects[f"secrets/{name}"]
        data = (answer.found or {}).get("data") or {}
        for certificate, key in _FILES:
            if certificate in data:
                return base64.b64decode(data[certificate]), base64.b64decode(data.get(key, ""))
        trouble.append((f"Secret {name}", answer.trouble or "it holds neither crt.pem nor tls.crt"))
        return b"", b""

    issuer, key = secret(ISSUER)
    serving, _ = secret(WEBHOOK_SECRET)
    roots = objects["configmaps/linkerd-identity-trust-roots"]
    text = ((roots.found or {}).get("data") or {}).get("ca-bundle.crt", "")
    if not text:
        trouble.append(
            ("ConfigMap linkerd-identity-trust-roots", roots.trouble or "it holds no ca-bundle.crt")
        )
    bundles = tuple(
        base64.b64decode((hook.get("clientConfig") or {}).get("caBundle") or "")
        for kind, name in WEBHOOKS
        for hook in (objects[f"{kind}/{name}"].found or {}).get("webhooks") or ()
    )
    return Certificates(text.encode(), issuer, key, serving, bundles, tuple(trouble))


async def _each(paths: dict[K, str], ask: Callable[[str], Awaitable[V]]) -> dict[K, V]:
    turn = asyncio.Semaphore(AT_ONCE)
    answers: dict[K, V] = {}

    async def one(key: K, path: str) -> None:
        async with turn:
            answers[key] = await ask(path)

    async with asyncio.TaskGroup() as tasks:
        for key, path in paths.items():
            tasks.create_task(one(key, path))
    return answers


async def _ask(client: Client, path: str, **params: str) -> Answer:
    try:
        return Answer(found=msgspec.json.decode(await client.request("GET", path, **params), type=Obj))
    except ApiError as error:
        return Answer(status=error.status, trouble=error.message.strip() or str(error))
    except Unreachable as error:
        return Answer(status=0, trouble=str(error))
    except msgspec.MsgspecError as error:
        return Answer(status=0, trouble=f"the answer is not a JSON object: {error}")


async def _page(client: Client, path: str) -> Page:
    try:
        return Page(text=(await client.request("GET", path)).decode(errors="replace"))
    except ApiError as error:
        return Page(trouble=error.message.strip() or str(error))
    except Unreachable as error:
        return Page(trouble=str(error))


def _label(pod: Obj, name: str) -> str | None:
    value = (pod["metadata"].get("labels") or {}).get(name)
    return None if value is None else str(value)
