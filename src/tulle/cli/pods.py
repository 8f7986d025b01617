"""Finding the pod and the container that a person means: `web-5d8…`, `pod/web-5d8…`, `deploy/web`, `svc/web-svc`."""

from typing import TYPE_CHECKING, Any

from tulle.errors import TulleError, UsageError
from tulle.kube.client import ApiError

if TYPE_CHECKING:
    from tulle.kube.client import Client

__all__ = ["PROXY", "container_of", "find_pod", "meshed_pods"]

PROXY = "linkerd-proxy"
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
# Words before the slash, and the collection below a namespace where the object's selector stands.
_SELECTING = {
    ("deploy", "deployment", "deployments"): "/apis/apps/v1/namespaces/{}/deployments",
    ("sts", "statefulset", "statefulsets"): "/apis/apps/v1/namespaces/{}/statefulsets",
    ("ds", "daemonset", "daemonsets"): "/apis/apps/v1/namespaces/{}/daemonsets",
    ("rs", "replicaset", "replicasets"): "/apis/apps/v1/namespaces/{}/replicasets",
    ("job", "jobs"): "/apis/batch/v1/namespaces/{}/jobs",
    ("svc", "service", "services"): "/api/v1/namespaces/{}/services",
}

Obj = dict[str, Any]


async def find_pod(client: "Client", namespace: str, text: str) -> Obj:
    """Return the pod named, or of a workload or Service its first running pod, ready ones before others.

    :raises UsageError: no such kind.
    :raises TulleError: it is not there, or has no pod.
    """
    kind, slash, name = text.partition("/")
    if not slash:
        kind, name = "pod", text
    if kind in ("po", "pod", "pods"):
        return await _get(client, f"/api/v1/namespaces/{namespace}/pods/{name}", f"pod {name}", namespace)
    collection = next((path for words, path in _SELECTING.items() if kind in words), None)
    if collection is None:
        words = ", ".join(names[0] for names in _SELECTING)
        raise UsageError(f"{text}: {kind!r} has no pods", f"known: pod, {words}", "name the pod itself")
    owner = await _get(client, f"{collection.format(namespace)}/{name}", text, namespace)
    selector = owner["spec"].get("selector") or {}
    labels = selector if kind.startswith(("svc", "service")) else selector.get("matchLabels") or {}
    if not labels:
        raise TulleError(f"{text} in namespace {namespace} selects no pods by labels", "", "name a pod")
    listed = await client.request(
        "GET",
        f"/api/v1/namespaces/{namespace}/pods",
        labelSelector=",".join(f"{key}={value}" for key, value in sorted(labels.items())),
    )
    import msgspec

    pods: list[Obj] = msgspec.json.decode(listed).get("items") or []
    running = sorted(
        (pod for pod in pods if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")),
        key=lambda pod: (not _ready(pod), pod["metadata"]["name"]),
    )
    if not running:
        raise TulleError(
            f"{text} in namespace {namespace} has no running pod",
            f"{len(pods)} pods are selected, none runs" if pods else "nothing carries its labels",
            f"look at it: kubectl describe {text} -n {namespace}",
        )
    return running[0]


async def meshed_pods(client: "Client", namespace: str) -> list[str]:
    """Return the names of the namespace's running pods that have a sidecar.

    :raises TulleError: there is none.
    """
    import msgspec

    listed = await client.request("GET", f"/api/v1/namespaces/{namespace}/pods")
    pods: list[Obj] = msgspec.json.decode(listed).get("items") or []
    names = [
        str(pod["metadata"]["name"])
        for pod in pods
        if (pod.get("status") or {}).get("phase") == "Running" and _is_meshed(pod["spec"])
    ]
    if not names:
        raise TulleError(
            f"no pod with a sidecar runs in namespace {namespace}",
            f"{len(pods)} pods are there" if pods else "there is no pod at all",
            "say another namespace with -n, or a pod with --pod",
        )
    return sorted(names)


def _is_meshed(spec: Obj) -> bool:
    containers = (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    return any(container.get("name") == PROXY for container in containers)


def container_of(pod: Obj, wanted: str | None) -> str:
    """Return the container meant: the one named, the pod's default one, or its first that is not the sidecar.

    :raises TulleError: the pod has no such container.
    """
    spec, metadata = pod["spec"], pod["metadata"]
    main = [str(container["name"]) for container in spec.get("containers") or ()]
    names = main + [
        str(container["name"])
        for kind in ("initContainers", "ephemeralContainers")
        for container in spec.get(kind) or ()
    ]
    if wanted is not None:
        if wanted not in names:
            raise TulleError(
                f"pod {metadata['name']} has no container {wanted}",
                f"it has {', '.join(names)}",
                "choose with -c",
            )
        return wanted
    default = (metadata.get("annotations") or {}).get(_DEFAULT_CONTAINER)
    if default in names:
        return str(default)
    return next((name for name in main if name != PROXY), main[0])


def _ready(pod: Obj) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


async def _get(client: "Client", path: str, what: str, namespace: str) -> Obj:
    try:
        found: Obj = await client.get(path)
    except ApiError as error:
        if error.status != 404:
            raise
        raise TulleError(
            f"{what} is not there in namespace {namespace}",
            error.message,
            "list what there is: tulle stat po -A",
        ) from error
    return found
