"""Whether the control plane and the sidecars are as they should be: pure judgements of what `check_gather` read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tulle.tools.check import Category, Check, failed, passed, warned

__all__ = ["Answer", "Cluster", "Page", "api", "control_plane", "proxies"]

Obj = dict[str, Any]

CONTROLLER = "tulle-controller"
CONTROL_PLANE_NS = "linkerd.io/control-plane-ns"
PROXY = "linkerd-proxy"
SERVICES = (
    "linkerd-identity",
    "linkerd-identity-headless",
    "linkerd-dst",
    "linkerd-dst-headless",
    "linkerd-policy",
    "linkerd-proxy-injector",
    "tulle-viz",
)
DEFINITIONS = (
    "servers.policy.linkerd.io",
    "authorizationpolicies.policy.linkerd.io",
    "meshtlsauthentications.policy.linkerd.io",
    "networkauthentications.policy.linkerd.io",
    "httproutes.policy.linkerd.io",
    "httproutes.gateway.networking.k8s.io",
)
WEBHOOKS = (
    ("mutatingwebhookconfigurations", "linkerd-proxy-injector-webhook-config"),
    ("validatingwebhookconfigurations", "linkerd-policy-validator-webhook-config"),
)
OLDEST_MINOR = 23  # of Kubernetes 1
LATEST = 1e11  # Unix seconds; what is later is no date
INSTALL = "install it: tulle install | kubectl apply -f -"


@dataclass(frozen=True)
class Answer:
    """What the API said to one question: an object, or why there is none. `status` 404 means that it is not there."""

    found: Obj | None = None
    status: int = 200
    trouble: str = ""


@dataclass(frozen=True)
class Page:
    """What a sidecar or the controller answered on its admin port; `trouble` when it did not."""

    text: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class Cluster:
    """Everything that was read. Pods are the meshed ones of all namespaces; pages are by (namespace, pod)."""

    server: str
    version: Answer
    namespace: str
    objects: Mapping[str, Answer] = field(default_factory=dict)
    pods: Sequence[Obj] = ()
    ready: Mapping[str, Page] = field(default_factory=dict)
    metrics: Mapping[tuple[str, str], Page] = field(default_factory=dict)
    targets: Answer = Answer()
    roots_digest: str = ""


def api(cluster: Cluster) -> Category:
    """Judge the Kubernetes API."""
    checks = []
    if cluster.version.found is None:
        hint = "is the mesh running? start it: tulle up FILE…; or give another --kubeconfig"
        checks.append(failed(f"{cluster.server} answers", cluster.version.trouble, hint))
        return Category("kubernetes-api", checks)
    version = str(cluster.version.found.get("gitVersion", ""))
    checks.append(passed(f"{cluster.server} answers"))
    if _minor(cluster.version.found) < OLDEST_MINOR:
        checks.append(
            failed(
                f"Kubernetes {version} is new enough",
                f"1.{OLDEST_MINOR} is the oldest that works",
                "upgrade it",
            )
        )
    else:
        checks.append(passed(f"Kubernetes {version} is new enough"))
    pods = cluster.objects.get("pods", Answer(status=0, trouble="they were not asked for"))
    if pods.found is None:
        checks.append(failed("pods may be listed", pods.trouble, "use a kubeconfig that may list pods"))
    else:
        checks.append(passed("pods may be listed"))
    return Category("kubernetes-api", checks)


def control_plane(cluster: Cluster, version: str) -> Category:
    """Judge the control plane's objects, its pods, and their versions against this command's."""
    namespace = cluster.namespace
    checks = [_there(cluster, f"namespaces/{namespace}", f"namespace {namespace} is there")]
    if checks[0].outcome == "error":
        return Category("control-plane", checks)
    for kind, names in (
        ("configmaps", ("linkerd-config", "linkerd-identity-trust-roots")),
        ("services", SERVICES),
    ):
        checks.append(_all_there(cluster, kind, names))
    checks.append(_all_there(cluster, "customresourcedefinitions", DEFINITIONS))
    checks += [_there(cluster, f"{kind}/{name}", f"{name} is there") for kind, name in WEBHOOKS]
    checks.append(_deployment(cluster))
    pods = [
        pod
        for pod in cluster.pods
        if pod["metadata"]["namespace"] == namespace
        and _labels(pod).get("linkerd.io/control-plane-component") == "controller"
        and not _finished(pod)
    ]
    for pod in pods:
        name = pod["metadata"]["name"]
        page = cluster.ready.get(name, Page(trouble="it was not asked"))
        what = f"{name} answers and is ready"
        if page.trouble:
            checks.append(failed(what, page.trouble, f"read its log: tulle logs {name} -n {namespace}"))
        else:
            checks.append(passed(what))
    checks.append(_versions(cluster, pods, version))
    checks.append(_scraping(cluster))
    return Category("control-plane", checks)


def proxies(cluster: Cluster, version: str, now: datetime) -> Category:
    """Judge each sidecar: ready, its certificate in force, its version, the trust anchors it was started with."""
    meshed = [pod for pod in cluster.pods if not _finished(pod)]
    checks = [
        _proxy(cluster, pod, version, now)
        for pod in sorted(meshed, key=lambda pod: (pod["metadata"]["namespace"], pod["metadata"]["name"]))
    ]
    if not checks:
        hint = "annotate a namespace linkerd.io/inject=enabled and restart its pods"
        checks.append(warned("pods have a sidecar", "no pod has one", hint))
    return Category("proxies", checks)


def _proxy(cluster: Cluster, pod: Obj, version: str, now: datetime) -> Check:
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    what = f"{namespace}/{name}"
    log = f"read its log: tulle logs {name} -n {namespace} -c {PROXY}"
    if not _proxy_ready(pod):
        return failed(f"{what} is ready", _why_waiting(pod), log)
    page = cluster.metrics.get((namespace, name), Page(trouble="it was not asked"))
    if page.trouble:
        return failed(f"{what} answers on its admin port", page.trouble, log)
    numbers = _numbers(page.text)
    expiry = numbers.get("identity_cert_expiration_timestamp_seconds", 0.0)
    if not 0 < expiry < LATEST:
        return failed(f"{what} has a certificate", "it has obtained none", log)
    until = datetime.fromtimestamp(expiry, tz=now.tzinfo)
    if until <= now:
        return failed(f"{what} has a certificate in force", f"it expired at {until:%Y-%m-%d %H:%M} UTC", log)
    running = _build(page.text)
    text = f"{what} is ready, its certificate valid for {_span(until - now)}, version {running or 'unknown'}"
    restart = f"restart it: kubectl rollout restart its workload in namespace {namespace}"
    if running != version:
        return warned(text, f"this command has version {version}", restart)
    digest = _annotations(pod).get("linkerd.io/trust-root-sha256")
    if digest and cluster.roots_digest and digest != cluster.roots_digest:
        return warned(text, "it was started with other trust anchors than those in force now", restart)
    return passed(text)


def _deployment(cluster: Cluster) -> Check:
    what = f"deployment {CONTROLLER} has all its replicas ready"
    answer = cluster.objects.get(f"deployments/{CONTROLLER}", Answer(status=404, trouble="it is not there"))
    if answer.found is None:
        return failed(what, answer.trouble, INSTALL)
    wanted = int(answer.found.get("spec", {}).get("replicas", 1))
    ready = int((answer.found.get("status") or {}).get("readyReplicas") or 0)
    if ready < wanted:
        hint = f"look: kubectl describe deployment {CONTROLLER} -n {cluster.namespace}"
        return failed(what, f"{ready} of {wanted} are ready", hint)
    return passed(f"deployment {CONTROLLER} has all its replicas ready ({ready}/{wanted})")


def _versions(cluster: Cluster, pods: Sequence[Obj], version: str) -> Check:
    what = "control plane and command have the same version"
    running = {
        str(container["image"]).rpartition(":")[2]
        for pod in pods
        for container in pod["spec"]["containers"]
        if container["name"] == "controller"
    }
    if not running:
        return failed(what, "no pod of the control plane runs", INSTALL)
    if running != {version}:
        reason = f"the control plane has {', '.join(sorted(running))}, this command {version}"
        return warned(what, reason, "install the same version of both")
    return passed(f"{what} ({version})")


def _scraping(cluster: Cluster) -> Check:
    what = "the control plane reads every sidecar's metrics"
    if cluster.targets.found is None:
        return warned(
            what,
            cluster.targets.trouble,
            f"read its log: tulle logs deploy/{CONTROLLER} -n {cluster.namespace}",
        )
    troubled = [target for target in cluster.targets.found.get("targets", ()) if target.get("trouble")]
    if troubled:
        reason = "\n".join(f"{t['namespace']}/{t['pod']}: {t['trouble']}" for t in troubled[:5])
        return warned(what, reason, "tulle stat shows nothing of these pods; look at their sidecars' logs")
    return passed(what)


def _there(cluster: Cluster, key: str, what: str) -> Check:
    answer = cluster.objects.get(key, Answer(status=404, trouble="it is not there"))
    if answer.found is not None:
        return passed(what)
    if answer.status == 404:
        return failed(what, "it is not there", INSTALL)
    return warned(what, answer.trouble, "use a kubeconfig that may read it")


def _all_there(cluster: Cluster, kind: str, names: Sequence[str]) -> Check:
    what = f"{kind} are there: {', '.join(names)}"
    missing = [_there(cluster, f"{kind}/{name}", name) for name in names]
    troubled = [check for check in missing if check.outcome != "success"]
    if not troubled:
        return passed(what)
    reason = "\n".join(f"{check.description}: {check.reason}" for check in troubled)
    worst = failed if any(check.outcome == "error" for check in troubled) else warned
    return worst(what, reason, troubled[0].hint)


def _proxy_ready(pod: Obj) -> bool:
    status = pod.get("status") or {}
    return any(
        container.get("name") == PROXY and container.get("ready")
        for kind in ("initContainerStatuses", "containerStatuses")
        for container in status.get(kind) or ()
    )


def _why_waiting(pod: Obj) -> str:
    status = pod.get("status") or {}
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or ():
            waiting = (container.get("state") or {}).get("waiting")
            if waiting:
                return f"container {container.get('name')}: {waiting.get('reason', '')} {waiting.get('message', '')}".rstrip()
    return f"its sidecar is not ready; the pod is {status.get('phase', 'Unknown')}"


def _numbers(page: str) -> dict[str, float]:
    """Return the samples without labels."""
    found = {}
    for line in page.splitlines():
        name, space, value = line.partition(" ")
        if space and not line.startswith("#") and "{" not in name:
            try:
                found[name] = float(value)
            except ValueError:
                continue  # not a sample of ours; what is looked for is then missing, which is told
    return found


def _build(page: str) -> str:
    line = next((line for line in page.splitlines() if line.startswith("proxy_build_info{")), "")
    return line.partition('version="')[2].partition('"')[0]


def _labels(pod: Obj) -> dict[str, str]:
    return pod["metadata"].get("labels") or {}


def _annotations(pod: Obj) -> dict[str, str]:
    return pod["metadata"].get("annotations") or {}


def _finished(pod: Obj) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _minor(version: Obj) -> int:
    digits = "".join(c for c in str(version.get("minor", "")) if c.isdigit())
    return int(digits) if digits else 0


def _span(left: timedelta) -> str:
    return f"{left.days} days" if left.days else f"{left.seconds // 3600} h {left.seconds % 3600 // 60} min"
