"""Workloads under `tulle up`, through kubectl: rollouts, Jobs, probes, volumes, logs, what the machine cannot give."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.clients import Cluster, Kubectl, wait_until
from tests.e2e.machine import MODES
from tests.e2e.mesh import mesh

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(150)]

MANIFEST = """
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
data: {index.html: "first page"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      volumes: [{name: page, configMap: {name: page}}]
      containers:
      - name: web
        image: acme/web:1
        ports: [{name: http, containerPort: 8080}]
        env: [{name: ROOT, value: /srv/page}]
        volumeMounts: [{name: page, mountPath: /srv/page}]
        startupProbe: {httpGet: {path: /, port: http}, periodSeconds: 1, failureThreshold: 30}
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 1}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
"""

RULES = """
[[images]]
image = "acme/web"
command = ["{python}", "-u", "serve.py", "{ip}", "{port}"]

[[images]]
image = "acme/web"
for_command = "/app/greet"
command = ["sh", "-c", "echo hello; sleep 0.5; echo goodbye"]
"""

SERVE = """
import os, sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
os.chdir(os.environ["ROOT"])
print("serving", os.environ["ROOT"])
ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), SimpleHTTPRequestHandler).serve_forever()
"""

JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: greet}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: greet, image: acme/web, command: [/app/greet]}]
"""


@pytest.fixture(scope="module", params=MODES)
def kubectl(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    folder = tmp_path_factory.mktemp("app")
    (folder / "web.yaml").write_text(MANIFEST)
    (folder / "tulle.toml").write_text(RULES)
    (folder / "serve.py").write_text(SERVE)
    with mesh(tmp_path_factory.mktemp("state"), request.param, str(folder / "web.yaml")) as running:
        yield Kubectl(Cluster(running.kubeconfig, embedded=True), "default")


def pods(kubectl: Kubectl, selector: str) -> list[dict[str, Any]]:
    found = json.loads(kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
    return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]


def names(kubectl: Kubectl, selector: str = "app=web") -> set[str]:
    return {pod["metadata"]["name"] for pod in pods(kubectl, selector)}


def test_every_pod_is_ready_with_its_sidecar(kubectl: Kubectl) -> None:
    for pod in pods(kubectl, "app=web"):
        statuses = [*pod["status"]["initContainerStatuses"], *pod["status"]["containerStatuses"]]
        ready = {status["name"]: status["ready"] for status in statuses}
        # Where nothing can be captured there is no linkerd-init.
        assert ready | {"linkerd-init": True} == {"linkerd-init": True, "linkerd-proxy": True, "web": True}


def test_a_rollout_replaces_every_pod_and_kubectl_sees_it_through(kubectl: Kubectl) -> None:
    before = names(kubectl)
    kubectl("rollout", "restart", "deployment/web")
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    after = names(kubectl)
    assert len(after) == 2 and not before & after
    assert "REVISION" in kubectl("rollout", "history", "deployment/web")


def test_scaling_changes_the_number_of_endpoints(kubectl: Kubectl) -> None:
    def endpoints() -> int:
        found = json.loads(kubectl("get", "endpoints", "web", "-o", "json"))
        return sum(len(subset.get("addresses", ())) for subset in found["subsets"])

    kubectl("scale", "deployment/web", "--replicas=1")
    wait_until(lambda: endpoints() == 1, "one endpoint")
    kubectl("scale", "deployment/web", "--replicas=2")
    wait_until(lambda: endpoints() == 2, "two endpoints")


def test_a_volume_follows_its_config_map(kubectl: Kubectl) -> None:
    def page() -> str:
        return kubectl("exec", "deploy/web", "-c", "web", "--", "sh", "-c", "cat $ROOT/index.html")

    assert page() == "first page"
    kubectl("patch", "configmap", "page", "-p", '{"data": {"index.html": "second page"}}')
    wait_until(lambda: page() == "second page", "the changed page")


def test_a_job_completes_and_its_log_can_be_followed_and_read_afterwards(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=JOB)
    wait_until(lambda: pods(kubectl, "job-name=greet"), "the job's pod")
    wait_until(
        lambda: kubectl.run("logs", "job/greet", "-c", "greet", check=False).returncode == 0, "its log"
    )
    assert kubectl("logs", "-f", "job/greet", "-c", "greet") == "hello\ngoodbye\n"
    kubectl("wait", "--for=condition=Complete", "job/greet", "--timeout=20s")
    (pod,) = pods(kubectl, "job-name=greet")
    assert pod["status"]["phase"] == "Succeeded", "the sidecar ends with the job"
    assert kubectl("logs", "job/greet", "-c", "greet", "--tail=1") == "goodbye\n"
    kubectl("delete", "job", "greet")
    wait_until(lambda: not pods(kubectl, "job-name=greet"), "the pod goes with its job")


def test_a_crash_is_restarted_and_described(kubectl: Kubectl) -> None:
    kubectl("run", "crash", "--image=none", "--command", "--", "sh", "-c", "echo boom; exit 3")
    wait_until(lambda: "CrashLoopBackOff" in kubectl("get", "pod", "crash"), "the back-off")
    described = kubectl("describe", "pod", "crash")
    assert "Exit Code:    3" in described and "Back-off restarting failed container" in described
    assert kubectl("logs", "crash", "-c", "crash", "--previous") == "boom\n"
    kubectl("delete", "pod", "crash", "--grace-period=1")


def test_what_this_machine_cannot_give_is_pending_with_its_reason(kubectl: Kubectl) -> None:
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    container = {"name": "app", "image": "acme/web", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    overrides = json.dumps({"spec": {"volumes": [volume], "containers": [container]}})
    kubectl("run", "greedy", "--image=acme/web", f"--overrides={overrides}")
    wait_until(lambda: "FailedScheduling" in kubectl("describe", "pod", "greedy"), "the reason")
    described = kubectl("describe", "pod", "greedy")
    assert "Pending" in described and "PersistentVolumeClaim" in described and "nvidia.com/gpu" in described
    kubectl("delete", "pod", "greedy")


def test_an_image_that_comes_later_without_a_program_says_what_to_add(kubectl: Kubectl) -> None:
    kubectl("run", "strange", "--image=acme/strange:3")
    wait_until(lambda: "ImagePullBackOff" in kubectl("get", "pod", "strange"), "the waiting reason")
    described = kubectl("describe", "pod", "strange")
    assert 'image = "acme/strange:*"' in described and "tulle.toml" in described
    kubectl("delete", "pod", "strange", "--grace-period=1")


def test_a_pod_is_gone_within_its_grace_period(kubectl: Kubectl) -> None:
    name = sorted(names(kubectl))[0]
    began = time.monotonic()
    kubectl("delete", "pod", name, "--timeout=20s")
    assert 1 <= time.monotonic() - began < 8, "the preStop hook takes a second"
    wait_until(lambda: len(names(kubectl)) == 2, "its replacement")


def test_the_node_is_ready_and_knows_the_machine(kubectl: Kubectl) -> None:
    assert "Ready" in kubectl("get", "nodes") and "tulle" in kubectl("get", "nodes")
    assert "KubeletReady" in kubectl("describe", "node", "tulle")


def test_a_namespace_is_deleted_with_what_is_in_it(kubectl: Kubectl) -> None:
    kubectl("create", "namespace", "brief")
    kubectl("-n", "brief", "run", "sleeper", "--image=none", "--command", "--", "sleep", "60")
    wait_until(lambda: "Running" in kubectl("-n", "brief", "get", "pod", "sleeper"), "the pod")
    kubectl("delete", "namespace", "brief", "--timeout=60s")
    assert "NotFound" in kubectl.fails("get", "namespace", "brief")
