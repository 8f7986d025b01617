"""What one sees between two pods, seen from outside of both: TLS 1.3 with a post-quantum key share, and no plain text.

The capture stands in the mesh's own network (or on loopback); a client without a sidecar shows that it would have seen
plain text.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.clients import Cluster, Kubectl, wait_until
from tests.e2e.machine import MODES, Traces
from tests.e2e.mesh import Mesh, mesh
from tests.e2e.wire import TLS13, X25519MLKEM768, Flow, flows, read_hello

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

PROGRAMS = Path(__file__).parent / "traffic"
MESH_PORT, ADMIN_PORT, OUTBOUND_PORT = 4143, 4191, 4140

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: server}}
spec:
  selector: {{matchLabels: {{app: server}}}}
  template:
    metadata: {{labels: {{app: server}}}}
    spec:
      containers:
      - {{name: http, image: wire, command: [{python}, {server}, http, "8080"], ports: [{{containerPort: 8080}}]}}
      - {{name: grpc, image: wire, command: [{python}, {server}, grpc, "9090"], ports: [{{containerPort: 9090}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: server}}
spec:
  selector: {{app: server}}
  ports: [{{name: http, port: 8080}}, {{name: grpc, port: 9090}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: meshed}}
spec:
  containers: [{{name: app, image: wire, command: [sleep, infinity]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: plain, annotations: {{linkerd.io/inject: disabled}}}}
spec:
  containers: [{{name: app, image: wire, command: [sleep, infinity]}}]
"""


@dataclass(frozen=True)
class Wire:
    """What was captured while requests with two markers were made: one by the meshed pod, one by the plain one."""

    flows: list[Flow]
    pods: dict[str, str]
    loopback: bool
    meshed_marker: bytes
    plain_marker: bytes

    def between(self) -> list[Flow]:
        """Return the flows that clients opened from one pod to another; the page of metrics is not traffic."""
        if self.loopback:
            # All pods are this machine: what leaves a pod for another goes to that one's inbound port.
            return [f for f in self.flows if f.target[1] == MESH_PORT and f.target[0] in self.pods.values()]
        ips = {ip for name, ip in self.pods.items() if name != "plain"}
        return [
            f
            for f in self.flows
            if f.source[0] in ips
            and f.target[0] in ips
            and f.source[0] != f.target[0]
            and ADMIN_PORT not in (f.source[1], f.target[1])
            and f.source[1] > f.target[1]
        ]

    def answer(self, flow: Flow) -> Flow:
        """Return the other direction."""
        return next(f for f in self.flows if (f.source, f.target) == (flow.target, flow.source))


def world_of(running: Mesh) -> int:
    """Return a process in the network namespace that all pods' traffic passes."""
    ours = os.readlink("/proc/self/ns/net")
    for line in Traces(running.folder).processes():
        pid, _, words = line.partition(" ")
        with contextlib.suppress(OSError):
            if "tulle.local.world" in words and os.readlink(f"/proc/{pid}/ns/net") != ours:
                return int(pid)
    raise AssertionError("the world's process was not found")


@contextlib.contextmanager
def capture(file: Path, running: Mesh, mode: str) -> Iterator[None]:
    """Capture all frames of the mesh's network meanwhile."""
    enter: list[str] = []
    if mode != "loopback":
        pid = str(world_of(running))
        user = ["--user", "--preserve-credentials"] if mode == "userns" else []
        enter = ["nsenter", "--target", pid, *user, "--net"]
    program = subprocess.Popen(
        [*enter, sys.executable, str(PROGRAMS / "capture.py"), str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert program.stdin is not None and program.stdout is not None
    try:
        assert program.stdout.readline() == b"capturing\n"
        yield
    finally:
        program.stdin.close()
        program.wait(30)
        program.stdout.close()


@pytest.fixture(scope="module", params=MODES)
def wire(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    mode: str = request.param
    if mode == "loopback" and os.geteuid() != 0:
        pytest.skip("capturing on this machine's own loopback needs root")
    if mode != "loopback" and shutil.which("nsenter") is None:
        pytest.skip("nsenter (util-linux) is not installed")
    folder = tmp_path_factory.mktemp("wire")
    words = {"python": sys.executable, "server": PROGRAMS / "server.py"}
    (folder / "pods.yaml").write_text(MANIFEST.format(**words))
    meshed, plain = uuid.uuid4().hex, uuid.uuid4().hex
    with mesh(tmp_path_factory.mktemp("state"), request.param, str(folder / "pods.yaml")) as running:
        kubectl = Kubectl(Cluster(running.kubeconfig, embedded=True), "default")
        listed = json.loads(kubectl("get", "pods", "-A", "-o", "json"))["items"]
        pods = {pod["metadata"]["name"].split("-")[0]: pod["status"]["podIP"] for pod in listed}
        with capture(folder / "frames", running, mode):
            ask(kubectl, "meshed", meshed, "server:8080")
            client = (sys.executable, str(PROGRAMS / "client.py"), "mark", "server:9090", meshed)
            seen = wait_until(
                lambda: json.loads(kubectl("exec", "meshed", "-c", "app", "--", *client)).get("echo"), "gRPC"
            )
            assert seen == f"echo {meshed}"
            plain_server = f"{pods['server']}:8080" if mode == "loopback" else "server:8080"
            ask(kubectl, "plain", plain, plain_server)
    yield Wire(flows(folder / "frames"), pods, mode == "loopback", meshed.encode(), plain.encode())


def ask(kubectl: Kubectl, pod: str, marker: str, authority: str) -> None:
    """Send a marker in path, header and body, and see that it came back."""
    curl = ("curl", "-sS", "--max-time", "5", "-H", f"x-marker: {marker}", "-d", f"body {marker}")
    answer = ("exec", pod, "-c", "app", "--", *curl, f"http://{authority}/{marker}?q={marker}")
    wait_until(lambda: kubectl.run(*answer, check=False).stdout == f"body {marker}", "the answer")


def test_the_capture_sees_plain_text_where_there_is_any(wire: Wire) -> None:
    assert any(wire.plain_marker in flow.data for flow in wire.flows)


def test_every_connection_between_pods_begins_with_tls_1_3_and_a_post_quantum_key_share(wire: Wire) -> None:
    between = wire.between()
    to_server = [flow for flow in between if flow.target == (wire.pods["server"], MESH_PORT)]
    assert to_server, [(f.source, f.target) for f in wire.flows]
    for flow in between:
        if not flow.data:
            continue
        offered, chosen = read_hello(flow.data), read_hello(wire.answer(flow).data)
        assert offered is not None, (flow.source, flow.target, flow.data[:80])
        assert offered.versions == (TLS13,) and offered.groups[0] == X25519MLKEM768, offered
        assert chosen is not None and chosen.versions == (TLS13,) and chosen.groups == (X25519MLKEM768,), (
            chosen
        )


def test_what_meshed_pods_say_is_nowhere_in_clear(wire: Wire) -> None:
    between = wire.between()
    carried = sum(len(flow.data) + len(wire.answer(flow).data) for flow in between)
    assert carried > 4_000
    for flow in between:
        for direction in (flow, wire.answer(flow)):
            assert wire.meshed_marker not in direction.data, (direction.source, direction.target)
    if not wire.loopback:
        assert not any(wire.meshed_marker in flow.data for flow in wire.flows)
