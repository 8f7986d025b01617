"""What the release binary costs, held to budgets.toml: system calls, memory and size, in a mesh of two pods.

The sidecars are those of `tulle up`: certificates, discovery and policy are real. Load enters at the client pod's
sidecar and leaves at the application behind the other, over mutual TLS. Prints what it measured (`pytest -rP`).
"""

import os
import resource
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.budgets.syscalls import SyscallCount, Untraceable
from tests.e2e.mesh import mesh
from tulle.local.proxy_binary import find_proxy

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

BUDGETS: dict[str, float] = tomllib.loads((Path(__file__).parents[2] / "budgets.toml").read_text())
CONNECTIONS = 1000
REQUESTS = 200
WARM_UP = 100
RETURNED_WITHIN_SECONDS = 20.0

APPLICATION = """
import os, socketserver
BODY = b"x" * 128
class Answers(socketserver.BaseRequestHandler):
    def handle(self):
        held = b""
        while part := self.request.recv(65536):
            held += part
            if not held.startswith(b"GET "):
                self.request.sendall(held)
                held = b""
            elif held.endswith(b"\\r\\n\\r\\n"):
                held = b""
                self.request.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 128\\r\\n\\r\\n" + BODY)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 1024
Server((os.environ["HOST"], int(os.environ["PORT"])), Answers).serve_forever()
"""

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata:
      labels: {{app: {name}}}
      annotations: {{config.linkerd.io/opaque-ports: "9000"}}
    spec:
      containers:
      - {{name: http, image: budgets, command: ["{python}", "{program}"], ports: [{{containerPort: 8080}}]}}
      - {{name: opaque, image: budgets, command: ["{python}", "{program}"], ports: [{{containerPort: 9000}}]}}
---
apiVersion: v1
kind: Service
metadata:
  name: {name}
  annotations: {{config.linkerd.io/opaque-ports: "9000"}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: 8080}}, {{name: opaque, port: 9000}}]
"""


@dataclass(frozen=True)
class Pair:
    """The two sidecars: the client pod's and the application pod's."""

    outbound: int
    inbound: int
    client_ip: str

    def connect(self) -> socket.socket:
        """Open a connection to where the client pod's application would send its requests."""
        return _connect(self.client_ip, 4140)

    def enter(self) -> socket.socket:
        """Open a connection to the application's port as a client without a sidecar does."""
        listeners = environment(self.inbound)["TULLE_PROXY_INBOUND_EXTRA_LISTENERS"].split(",")
        address = next(each.partition("=")[0] for each in listeners if each.endswith("=8080"))
        host, _, port = address.rpartition(":")
        return _connect(host, int(port))


def _connect(host: str, port: int) -> socket.socket:
    connection = socket.create_connection((host, port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def environment(pid: int) -> dict[str, str]:
    """Return what a process was told."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return {name: value for name, _, value in (entry.partition("=") for entry in entries)}


def sidecars(pod_prefix: str) -> list[int]:
    """Return the processes that are the sidecar of a pod whose name begins so."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")[0]
            told = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        named = any(entry.startswith(f"_pod_name={pod_prefix}".encode()) for entry in told)
        if command.endswith(b"tulle-proxy") and named:
            found.append(int(process.name))
    return found


def hold(name: str, measured: float) -> None:
    """Fail when a number is exceeded, and say by how much."""
    allowed = BUDGETS[name]
    print(f"{name} = {measured:,.2f} (budget {allowed:,})")
    assert measured <= allowed, (
        f"{name}: measured {measured:,.2f}, budgets.toml allows {allowed:,}: {measured - allowed:,.2f} too much"
    )


@pytest.fixture
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """New for each test: what an earlier one left in the allocator would be counted."""
    folder = tmp_path_factory.mktemp("budgets")
    (folder / "application.py").write_text(APPLICATION)
    manifest = folder / "pods.yaml"
    words = {"python": sys.executable, "program": folder / "application.py"}
    manifest.write_text(
        "---".join(MANIFEST.format(name=name, **words) for name in ("budgetapp", "budgetcli"))
    )
    with mesh(tmp_path_factory.mktemp("state"), "loopback", str(manifest)):
        (outbound,), (inbound,) = sidecars("budgetcli-"), sidecars("budgetapp-")
        yield Pair(outbound, inbound, environment(outbound)["_pod_ip"])


def resident(pid: int) -> int:
    """Return the resident memory in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def worker(pid: int) -> int:
    """Return the thread that carries requests."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    (found,) = [int(task.name) for task in tasks if (task / "comm").read_text().startswith("tulle-worker")]
    return found


def get(connection: socket.socket) -> None:
    """Send one request and read the whole answer."""
    connection.sendall(b"GET / HTTP/1.1\r\nhost: budgetapp:8080\r\n\r\n")
    held = b""
    while not held.endswith(b"x" * 128):
        part = connection.recv(65536)
        assert part, held
        held += part
    assert held.startswith(b"HTTP/1.1 200 "), held


def greet(connection: socket.socket) -> None:
    """Open a tunnel to the opaque port and hear one echo."""
    for said, heard in (
        (b"CONNECT budgetapp:9000 HTTP/1.1\r\nhost: budgetapp:9000\r\n\r\n", b"\r\n\r\n"),
        (b"hi", b"hi"),
    ):
        connection.sendall(said)
        held = b""
        while not held.endswith(heard):
            part = connection.recv(65536)
            assert part, held
            held += part
        assert said == heard or held.startswith(b"HTTP/1.1 200 "), held


def test_an_idle_sidecar_has_little_of_its_own(pair: Pair) -> None:
    """First, before there was any traffic. What it does not share with the other sidecars of the machine."""
    status = Path(f"/proc/{pair.outbound}/status").read_text()
    (kib,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))
    hold("idle_private_mb", kib * 1024 / 1e6)


def test_an_idle_sidecar_is_small(pair: Pair) -> None:
    hold("idle_resident_mb", max(resident(pair.outbound), resident(pair.inbound)) / 1e6)


def test_memory_is_given_back_after_a_burst(pair: Pair) -> None:
    """A thousand connections that were used and closed: the allocator returns their pages within its delay."""
    with open_files(CONNECTIONS + 100), ExitStack() as stack:
        for _ in range(CONNECTIONS):
            get(stack.enter_context(pair.connect()))
    deadline = time.monotonic() + RETURNED_WITHIN_SECONDS
    measured = BUDGETS["resident_after_burst_mb"] + 1
    while measured > BUDGETS["resident_after_burst_mb"] and time.monotonic() < deadline:
        time.sleep(0.5)
        measured = max(resident(pair.outbound), resident(pair.inbound)) / 1e6
    hold("resident_after_burst_mb", measured)


def test_the_stripped_binary_is_small(tmp_path: Path) -> None:
    if shutil.which("strip") is None:
        pytest.skip("strip (binutils) is not installed")
    stripped = tmp_path / "tulle-proxy"
    subprocess.run(["strip", "-o", stripped, find_proxy()], check=True, timeout=30)
    hold("stripped_binary_mb", stripped.stat().st_size / 1e6)


def test_a_request_makes_few_system_calls(pair: Pair) -> None:
    with pair.connect() as connection:
        for _ in range(WARM_UP):
            get(connection)
        figures = {}
        for name, pid in (("syscalls_outbound", pair.outbound), ("syscalls_inbound", pair.inbound)):
            try:
                with SyscallCount(pid, worker(pid)) as count:
                    for _ in range(REQUESTS):
                        get(connection)
            except Untraceable as refused:
                pytest.skip(str(refused))
            figures[name] = count.total / REQUESTS
    for name, figure in figures.items():
        hold(name, figure)


@contextmanager
def open_files(wanted: int) -> Iterator[None]:
    """Allow this process so many open files for a while."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < wanted:
        pytest.skip(f"{wanted} open files are needed, {most} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before, wanted), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


def slope(
    pair: Pair, use: Callable[[socket.socket], None], connect: Callable[[], socket.socket]
) -> dict[str, float]:
    """Return bytes per connection of both sidecars, over a thousand that were used once and are idle.

    The first hundred are not counted: they pay for what all share.
    """
    with open_files(CONNECTIONS + WARM_UP + 100), ExitStack() as stack:

        def grow(count: int) -> dict[str, int]:
            for _ in range(count):
                use(stack.enter_context(connect()))
            # Buffers that were given back are returned to the system within the allocator's decay.
            time.sleep(0.5)
            return {"outbound": resident(pair.outbound), "inbound": resident(pair.inbound)}

        first = grow(WARM_UP)
        second = grow(CONNECTIONS)
    return {side: (second[side] - first[side]) / CONNECTIONS for side in first}


def test_an_idle_http_connection_holds_little(pair: Pair) -> None:
    """The client's connections end at its sidecar; all of them share the one to the other."""
    hold("idle_h1_outbound_bytes", slope(pair, get, pair.connect)["outbound"])


def test_an_idle_http_connection_from_outside_the_mesh_holds_little(pair: Pair) -> None:
    hold("idle_h1_inbound_bytes", slope(pair, get, pair.enter)["inbound"])


def test_an_idle_opaque_connection_holds_little(pair: Pair) -> None:
    """Each has a connection of its own between the sidecars, with its TLS session."""
    figures = slope(pair, greet, pair.connect)
    hold("idle_opaque_outbound_bytes", figures["outbound"])
    hold("idle_opaque_inbound_bytes", figures["inbound"])
