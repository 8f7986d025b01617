"""Two services in each network: captured or sent explicitly, by name, by authority and from the host."""

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.e2e.machine import MODES, modes_here
from tests.e2e.mesh import SOURCE, Mesh, mesh, tulle
from tulle.local.net import Mode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

MANIFEST = SOURCE / "tulle" / "emojivoto" / "manifests" / "two-services.yaml"
EMOJI = '"shortcode": ":joy:"'


@pytest.fixture(scope="module")
def two_services(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """The manifest of the two services, up."""
    with mesh(tmp_path_factory.mktemp("state"), request.param, str(MANIFEST)) as running:
        yield running


every = pytest.mark.parametrize("two_services", MODES, indirect=True, scope="module")
isolated = pytest.mark.parametrize(
    "two_services", modes_here("netns", "userns"), indirect=True, scope="module"
)
loopback = pytest.mark.parametrize("two_services", modes_here("loopback"), indirect=True, scope="module")


def kubectl(mesh: Mesh, *words: str) -> str:
    run = subprocess.run(
        ["kubectl", "--kubeconfig", str(mesh.kubeconfig), *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == 0, f"{run.stderr}\n{mesh.log}"
    return run.stdout


def inside(mesh: Mesh, *words: str, deployment: str = "voting-v1", container: str = "voting") -> str:
    """Run a command inside a pod and return what it says."""
    return kubectl(mesh, "exec", f"deploy/{deployment}", "-c", container, "--", *words)


CURL = ("curl", "-sS", "--max-time", "5")


@every
def test_every_pod_has_a_sidecar_though_nothing_asks_for_one(two_services: Mesh) -> None:
    pods = json.loads(kubectl(two_services, "get", "pods", "-o", "json"))["items"]
    assert len(pods) == 2
    for pod in pods:
        names = {c["name"] for field in ("containers", "initContainers") for c in pod["spec"].get(field, ())}
        assert "linkerd-proxy" in names
        assert all(status["ready"] for status in pod["status"]["containerStatuses"])


@every
def test_an_object_says_where_it_was_written(two_services: Mesh) -> None:
    voting = json.loads(kubectl(two_services, "get", "deploy", "voting-v1", "-o", "json"))
    file, _, line = voting["metadata"]["annotations"]["tulle.dev/source"].rpartition(":")
    assert Path(file).name == "two-services.yaml"
    assert Path(file).read_text().splitlines()[int(line) - 1].startswith("apiVersion: apps/v1")


@every
def test_kubectl_applies_the_same_file_again_without_a_word_of_warning(two_services: Mesh) -> None:
    run = subprocess.run(
        ["kubectl", "--kubeconfig", str(two_services.kubeconfig), "apply", "-f", str(MANIFEST)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert len(run.stdout.splitlines()) == 4
    assert all(line.endswith(" unchanged") for line in run.stdout.splitlines()), run.stdout


@isolated
@pytest.mark.parametrize(
    "name", ["emojisvc", "emojisvc.default", "emojisvc.default.svc", "emojisvc.default.svc.cluster.local"]
)
def test_a_service_is_reached_by_each_of_its_names(two_services: Mesh, name: str) -> None:
    assert EMOJI in inside(two_services, *CURL, f"http://{name}/")


@isolated
def test_what_leaves_the_app_is_captured(two_services: Mesh) -> None:
    """The sidecar answers for a Service that it knows; the header is its own."""
    answer = inside(two_services, *CURL, "-o", "/dev/null", "-w", "%{http_code}", "http://emojisvc/")
    assert answer == "200"
    before = requests(two_services, "emojisvc-v1", "inbound")
    inside(two_services, *CURL, "-o", "/dev/null", "http://emojisvc/")
    assert requests(two_services, "emojisvc-v1", "inbound") > before


def requests(mesh: Mesh, deployment: str, direction: str) -> float:
    """Sum a sidecar's count of HTTP requests."""
    page = inside(
        mesh,
        *CURL,
        "http://localhost:4191/metrics",
        deployment=deployment,
        container=deployment.split("-")[0],
    )
    return sum(
        float(line.rpartition(" ")[2])
        for line in page.splitlines()
        if line.startswith("http_requests_total{") and f'direction="{direction}"' in line
    )


@loopback
def test_a_client_that_honours_http_proxy_is_in_the_mesh(two_services: Mesh) -> None:
    assert EMOJI in inside(two_services, *CURL, "http://emojisvc/")


@every
@pytest.mark.parametrize("authority", ["emojisvc", "emojisvc.default", "emojisvc:80"])
def test_a_request_to_localhost_4140_is_routed_by_its_authority(two_services: Mesh, authority: str) -> None:
    answer = inside(
        two_services, *CURL, "--noproxy", "*", "-H", f"Host: {authority}", "http://127.0.0.1:4140/"
    )
    assert EMOJI in answer


@pytest.mark.parametrize("mode", modes_here("loopback"))
def test_localhost_4140_serves_the_pods_of_each_mesh(tmp_path: Path, mode: Mode) -> None:
    """There is one such port on a machine; whichever mesh has it, and when that ends the other takes over."""
    words = (
        *CURL,
        "--noproxy",
        "*",
        "-H",
        "Host: emojisvc",
        "--retry",
        "8",
        "--retry-connrefused",
        "--retry-delay",
        "1",
    )
    with mesh(tmp_path, mode, str(MANIFEST)) as first, mesh(tmp_path, mode, str(MANIFEST)) as second:
        for each in (first, second):
            assert EMOJI in inside(each, *words, "http://127.0.0.1:4140/")
        first.end()
        assert EMOJI in inside(second, *words, "http://127.0.0.1:4140/")


@every
def test_a_published_port_leads_into_the_mesh(two_services: Mesh) -> None:
    with urlopen(two_services.url("emojisvc.default"), timeout=20) as answer:
        assert EMOJI in answer.read().decode()


@every
def test_the_kubeconfig_of_a_running_mesh_is_found_by_its_name(two_services: Mesh) -> None:
    told = tulle(two_services.home, "kubeconfig", "--name", two_services.name)
    assert told.stdout.strip() == str(two_services.kubeconfig)
    assert two_services.kubeconfig.stat().st_mode & 0o077 == 0


@every
def test_a_second_mesh_of_the_same_name_is_refused(two_services: Mesh) -> None:
    told = tulle(two_services.home, "up", str(MANIFEST), "--name", two_services.name)
    assert told.returncode == 1
    assert f"a mesh named {two_services.name} is running already" in told.stderr
    assert f"tulle down --name {two_services.name}" in told.stderr


@isolated
def test_a_service_without_endpoints_is_refused_soon(two_services: Mesh) -> None:
    """A meshed caller hears 503 with a reason, by name and by localhost:4140."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "nobody"},
        "spec": {"selector": {"app": "nobody"}, "ports": [{"port": 80}]},
    }
    subprocess.run(
        ["kubectl", "--kubeconfig", str(two_services.kubeconfig), "apply", "-f", "-"],
        input=json.dumps(service),
        text=True,
        check=True,
        capture_output=True,
        timeout=30,
    )
    answer = inside(two_services, *CURL, "-i", "http://nobody/")
    assert " 503 " in answer.splitlines()[0]
    assert "l5d-proxy-error" in answer.lower()


class Outside(BaseHTTPRequestHandler):
    """A server that is no pod."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"from outside")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def own_address() -> str:
    """Return an address of this machine beside its loopback's; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but its loopback's")
        address: str = probe.getsockname()[0]
        return address


@isolated
def test_a_pod_reaches_a_server_outside_the_mesh(two_services: Mesh) -> None:
    with ThreadingHTTPServer((own_address(), 0), Outside) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host, port = server.server_address[:2]
        try:
            assert inside(two_services, *CURL, f"http://{host!s}:{port}/") == "from outside"
        finally:
            server.shutdown()


DNS_BY_TCP = """
import socket, struct
labels = b"".join(bytes([len(l)]) + l for l in b"voting.default.svc.cluster.local".split(b"."))
question = struct.pack("!HHHHHH", 1, 0x100, 1, 0, 0, 0) + labels + bytes(1) + struct.pack("!HH", 1, 1)
with socket.create_connection(("10.96.0.10", 53), 5) as dns:
    dns.sendall(struct.pack("!H", len(question)) + question)
    answer = dns.makefile("rb").read(2 + struct.unpack("!H", dns.recv(2))[0] - 2)
print(socket.inet_ntoa(answer[-4:]))
"""


@isolated
def test_a_meshed_pod_asks_dns_by_tcp_too(two_services: Mesh) -> None:
    """A long answer comes by TCP, which passes the sidecar."""
    address = json.loads(kubectl(two_services, "get", "service", "voting", "-o", "json"))["spec"]["clusterIP"]
    assert inside(two_services, "python3", "-c", DNS_BY_TCP).strip() == address


@isolated
def test_a_meshed_pod_reaches_the_kubernetes_api(two_services: Mesh) -> None:
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = (
        f'curl -sS --max-time 5 --cacert {folder}/ca.crt -H "Authorization: Bearer $(cat {folder}/token)" '
        "https://kubernetes.default.svc/version"
    )
    assert json.loads(inside(two_services, "sh", "-c", script))["major"] == "1"
