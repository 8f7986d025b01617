"""gRPC's own interoperability cases, by grpc-go, from a meshed client through two sidecars to a meshed server.

In loopback mode, too: grpc-go then finds its sidecar by HTTPS_PROXY and asks it for a tunnel.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.clients import Cluster, Kubectl
from tests.e2e.machine import modes_here
from tests.e2e.mesh import mesh
from tests.http2.go_programs import built

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(480)]

CASES = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "orca_per_rpc",
    "orca_oob",
    "rpc_soak",
    "channel_soak",
]

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: interop}}
spec:
  selector: {{matchLabels: {{app: interop}}}}
  template:
    metadata: {{labels: {{app: interop}}}}
    spec:
      containers:
      - {{name: app, image: interop, command: [{server}, --port, "10000"], ports: [{{containerPort: 10000}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: interop}}
spec:
  selector: {{app: interop}}
  ports: [{{name: grpc, port: 10001, targetPort: 10000}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: client}}
spec:
  containers: [{{name: app, image: interop, command: [sleep, infinity]}}]
"""


# Where nothing is captured, the sidecar is at the pod's own address.
ASK = "curl -sS --noproxy '*' http://${HOST:-127.0.0.1}:4191/metrics"


@pytest.fixture(scope="module", params=modes_here("netns", "loopback"))
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    server = built("grpc", "google.golang.org/grpc/interop/server")
    built("grpc", "google.golang.org/grpc/interop/client")
    manifest = tmp_path_factory.mktemp("interop") / "pods.yaml"
    manifest.write_text(MANIFEST.format(server=server))
    with mesh(tmp_path_factory.mktemp("state"), request.param, str(manifest)) as running:
        yield Kubectl(Cluster(running.kubeconfig, embedded=True), "default")


def sidecars_requests(client: Kubectl) -> int:
    """Return how many requests the client's sidecar has sent on."""
    page = client("exec", "client", "-c", "app", "--", "sh", "-c", ASK)
    lines = [line for line in page.splitlines() if line.startswith("request_total{") and "outbound" in line]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines)


@pytest.mark.parametrize("case", CASES)
def test_case(client: Kubectl, case: str) -> None:
    program = Path(built("grpc", "google.golang.org/grpc/interop/client"))
    # Load reports are for a balancer that asks for them.
    balancer = '{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}'
    orca = [f"--service_config_json={balancer}"] if "orca" in case else []
    # A connection, its look-ups and its call take 20 to 110 ms on a busy machine; a lost packet would take a second.
    limits = ["--soak_overall_timeout_seconds=120", "--soak_per_iteration_max_acceptable_latency_ms=5000"]
    soak = ["--soak_iterations=50", *limits] if "soak" in case else []
    words = [
        str(program),
        "--server_host=interop",
        "--server_port=10001",
        f"--test_case={case}",
        *orca,
        *soak,
    ]
    done = client.run("exec", "client", "-c", "app", "--", *words, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def test_the_cases_passed_the_sidecars(client: Kubectl) -> None:
    assert sidecars_requests(client) >= len(CASES)
