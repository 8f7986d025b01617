"""What a user writes in HTTPRoutes and Services happens on the wire: rewrites, mirrors, CORS, retries, affinity."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conformance.clients import wait_until
from tests.e2e.machine import modes_here
from tests.e2e.mesh import Mesh, mesh

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

APPLICATION = """\
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

seen = []

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/seen":
            return self.answer(200, seen)
        seen.append([self.headers["host"], self.path])
        failed = self.path == "/flaky" and len([each for each in seen if each[1] == "/flaky"]) == 1
        self.answer(503 if failed else 200, [os.environ["HOSTNAME"], self.headers["host"], self.path])

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass

ThreadingHTTPServer((os.environ.get("HOST_IP", "0.0.0.0"), 8080), Handler).serve_forever()
"""
WORKLOAD = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
        - name: app
          image: local
          command: ["{python}", "{program}"]
          env:
            - {{name: HOST_IP, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}
            - {{name: HOSTNAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
          ports: [{{containerPort: 8080}}]
          readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  {affinity}
  ports: [{{name: http, port: 8080}}]
---
"""
ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: ways}
spec:
  parentRefs: [{group: "", kind: Service, name: server, port: 8080}]
  rules:
    - matches: [{path: {type: PathPrefix, value: /v1}}]
      filters:
        - type: URLRewrite
          urlRewrite: {hostname: inner, path: {type: ReplacePrefixMatch, replacePrefixMatch: /api}}
        - {type: RequestMirror, requestMirror: {backendRef: {name: shadow, port: 8080}}}
        - {type: CORS, cors: {allowOrigins: ["https://*.shop.example"]}}
    - matches: [{path: {value: /flaky}}]
      retry: {codes: [503], attempts: 1}
    - matches: [{path: {value: /}}]
"""


@pytest.fixture(scope="module", params=modes_here("loopback"))
def routed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("routes")
    (folder / "application.py").write_text(APPLICATION)
    words = {"python": sys.executable, "program": folder / "application.py"}
    (folder / "mesh.yaml").write_text(
        WORKLOAD.format(name="client", replicas=1, affinity="", **words)
        + WORKLOAD.format(name="server", replicas=1, affinity="", **words)
        + WORKLOAD.format(name="shadow", replicas=1, affinity="", **words)
        + WORKLOAD.format(name="sticky", replicas=3, affinity="sessionAffinity: ClientIP", **words)
        + ROUTE
    )
    with mesh(tmp_path_factory.mktemp("state"), request.param, str(folder / "mesh.yaml")) as running:
        yield running


def curl(mesh: Mesh, *words: str) -> str:
    """Run curl in the client's pod and return what it says."""
    kubectl = ["kubectl", "--kubeconfig", str(mesh.kubeconfig), "exec", "deploy/client", "-c", "app", "--"]
    done = subprocess.run(
        [*kubectl, "curl", "-sS", "-m", "5", *words], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, f"{done.stderr}\n{mesh.log}"
    return done.stdout


def test_a_rewritten_request_is_answered_by_the_new_path_and_copied_to_the_mirror(routed: Mesh) -> None:
    _, host, path = json.loads(curl(routed, "http://server:8080/v1/list?x=1"))
    assert (host, path) == ("inner", "/api/list?x=1")
    wait_until(
        lambda: ["inner", "/api/list?x=1"] in json.loads(curl(routed, "http://shadow:8080/seen")),
        "the copy reaches the mirror",
    )


def test_a_preflight_is_answered_by_the_sidecar(routed: Mesh) -> None:
    asked = [
        "-X",
        "OPTIONS",
        "-H",
        "origin: https://a.shop.example",
        "-H",
        "access-control-request-method: GET",
    ]
    answer = curl(routed, "-D", "-", *asked, "http://server:8080/v1/list").lower()
    assert answer.startswith("http/1.1 204")
    assert "access-control-allow-origin: https://a.shop.example" in answer


def test_a_rules_retry_hides_a_failure(routed: Mesh) -> None:
    assert curl(routed, "-o", "/dev/null", "-w", "%{http_code}", "http://server:8080/flaky") == "200"
    flaky = [path for _, path in json.loads(curl(routed, "http://server:8080/seen")) if path == "/flaky"]
    assert len(flaky) == 2


def test_a_service_with_affinity_keeps_a_client_at_one_endpoint(routed: Mesh) -> None:
    answers = [json.loads(curl(routed, "http://sticky:8080/"))[0] for _ in range(8)]
    assert len(set(answers)) == 1, answers
