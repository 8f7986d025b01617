"""What needs running pods, through kubectl: rollouts, logs, commands, forwarded ports. The cluster is `tulle up` itself."""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.clients import Cluster, Kubectl, wait_until
from tests.e2e.machine import MODES
from tests.e2e.mesh import mesh

pytestmark = [pytest.mark.conformance, pytest.mark.e2e]

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: none
        command: [python3, -u, -c]
        args:
        - |
          import http.server, os
          class Handler(http.server.BaseHTTPRequestHandler):
              def do_GET(self):
                  body = ("pod " + os.environ["POD_NAME"]).encode()
                  self.send_response(200)
                  self.send_header("content-length", str(len(body)))
                  self.end_headers()
                  self.wfile.write(body)
                  print("asked for", self.path)
              def log_message(self, *_): pass
          print("listening")
          http.server.ThreadingHTTPServer((os.environ["POD_IP"], 18080), Handler).serve_forever()
        env:
        - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        ports: [{containerPort: 18080, name: http}]
        readinessProbe: {tcpSocket: {port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
"""


@pytest.fixture(scope="module", params=MODES)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    folder = tmp_path_factory.mktemp("whole")
    manifest: Path = folder / "web.yaml"
    manifest.write_text(MANIFEST)
    with mesh(folder, request.param, str(manifest)) as running:
        yield Kubectl(Cluster(running.kubeconfig, embedded=True), "default")


def pods(kubectl: Kubectl) -> set[str]:
    listed = json.loads(kubectl("get", "pods", "-l", "app=web", "-o", "json"))["items"]
    return {item["metadata"]["name"] for item in listed if "deletionTimestamp" not in item["metadata"]}


def test_pods_run_and_tables_say_so(whole: Kubectl) -> None:
    row = whole("get", "pods", "-l", "app=web", "--no-headers", "-o", "wide").split()
    ready, total = row[1].split("/")
    assert (ready, row[2]) == (total, "Running")
    assert re.match(r"\d+\.\d+\.\d+\.\d+$", row[5])
    assert whole("get", "deploy", "web", "--no-headers").split()[1:4] == ["1/1", "1", "1"]
    assert "18080" in whole("get", "endpoints", "web")


def test_rollout_restart_makes_new_pods(whole: Kubectl) -> None:
    before = pods(whole)
    whole("rollout", "restart", "deploy/web")
    assert "successfully rolled out" in whole("rollout", "status", "deploy/web", "--timeout=30s")
    assert not before & pods(whole)
    assert len(whole("rollout", "history", "deploy/web").strip().splitlines()) >= 4


def test_scale_and_wait(whole: Kubectl) -> None:
    whole("scale", "deploy/web", "--replicas=2")
    assert "successfully rolled out" in whole("rollout", "status", "deploy/web", "--timeout=30s")
    assert len(pods(whole)) == 2
    whole("scale", "deploy/web", "--replicas=1")
    wait_until(lambda: len(pods(whole)) == 1, "one pod is left")


def test_exec_and_its_exit_code(whole: Kubectl) -> None:
    assert "web-" in whole("exec", "deploy/web", "-c", "main", "--", "sh", "-c", "echo $POD_NAME")
    assert (
        whole.run("exec", "deploy/web", "-c", "main", "--", "sh", "-c", "exit 5", check=False).returncode == 5
    )
    assert whole.run("exec", "-i", "deploy/web", "-c", "main", "--", "cat", stdin="in\n").stdout == "in\n"


def test_forwarded_ports_and_followed_logs(whole: Kubectl) -> None:
    following = whole.start("logs", "-f", "deploy/web", "-c", "main")
    forwarding = whole.start("port-forward", "svc/web", ":80", "--address=127.0.0.1")
    try:
        assert following.stdout is not None
        assert forwarding.stdout is not None
        assert following.stdout.readline() == "listening\n"
        port = int(forwarding.stdout.readline().split(":")[1].split(" ")[0])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/through", timeout=30) as answer:
            assert answer.read().decode().removeprefix("pod ") in pods(whole)
        assert following.stdout.readline() == "asked for /through\n"
    finally:
        for process in (following, forwarding):
            process.terminate()
            process.communicate(timeout=30)


def test_a_deleted_pod_is_replaced_and_described(whole: Kubectl) -> None:
    (name,) = pods(whole)
    whole("delete", "pod", name)
    other = wait_until(lambda: pods(whole) - {name}, "another pod takes its place")
    whole("wait", "--for=condition=Ready", f"pod/{next(iter(other))}", "--timeout=30s")
    text = whole("describe", "pod", next(iter(other)))
    assert re.search(r"Normal\s+Scheduled", text)
    assert re.search(r"Normal\s+Started", text)


def test_an_update_rolls_out_and_can_be_undone(whole: Kubectl) -> None:
    whole("set", "env", "deploy/web", "COLOUR=red")
    whole("rollout", "status", "deploy/web", "--timeout=30s")
    assert whole("exec", "deploy/web", "-c", "main", "--", "sh", "-c", "echo $COLOUR") == "red\n"
    whole("rollout", "undo", "deploy/web")
    whole("rollout", "status", "deploy/web", "--timeout=30s")
    assert whole("exec", "deploy/web", "-c", "main", "--", "sh", "-c", "echo $COLOUR") == "\n"


def test_deleting_takes_everything_along(whole: Kubectl) -> None:
    whole("delete", "deploy", "web", "--cascade=foreground")
    assert not pods(whole)
    assert "web" not in whole("get", "rs", "-o", "name")
