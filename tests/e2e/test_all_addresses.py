"""Programs that listen on all addresses, as most do, beside each other in loopback mode; and what is said of one that
cannot start."""

import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.e2e.machine import modes_here
from tests.e2e.mesh import Mesh, mesh, tulle
from tulle.local.net import Mode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

SERVER = """\
import http.server, socket, sys, threading
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(sys.argv[1].encode())
how, port = sys.argv[2], int(sys.argv[3])
sockets = []
if how in ("v4", "pair"):
    sockets.append(socket.create_server(("0.0.0.0", port)))
if how == "both":
    sockets.append(socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True))
if how == "pair":  # as nginx and asyncio do: one socket for each family
    sockets.append(socket.create_server(("::", port), family=socket.AF_INET6))
for one in sockets:
    server = http.server.HTTPServer(("", 0), Answer, bind_and_activate=False)
    server.socket = one
    threading.Thread(target=server.serve_forever).start()
"""
PODS = [("one", "v4", 8080), ("two", "both", 8080), ("three", "pair", 8080), ("low", "pair", 80)]


def manifest(name: str, words: list[str], port: int) -> str:
    return f"""\
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: {port}}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
      - {{name: app, image: unused, command: {words!r}, ports: [{{containerPort: {port}}}]}}
---
"""


def pod(folder: Path, name: str, how: str, port: int) -> str:
    return manifest(name, [sys.executable, str(folder / "server.py"), name, how, str(port)], port)


@pytest.mark.parametrize("mode", modes_here("loopback"))
def test_programs_that_listen_on_all_addresses_do_not_meet(tmp_path: Path, mode: Mode) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "app.yaml").write_text("".join(pod(tmp_path, *each) for each in PODS))
    with mesh(tmp_path / "state", mode, str(tmp_path / "app.yaml")) as running:
        for name, _, _ in PODS:
            with urlopen(running.url(f"{name}.default"), timeout=20) as answer:
                assert answer.read().decode() == name, running.log
        assert "nothing listens" not in running.log


@pytest.mark.parametrize("mode", modes_here("loopback"))
def test_a_program_whose_port_is_taken_is_shown_with_its_last_lines_and_what_to_do(
    tmp_path: Path, mode: Mode
) -> None:
    """By name, an address is everybody's: two programs want the same port of 127.0.0.1."""
    program = "import socket, time; socket.create_server(('127.0.0.1', 28461)); time.sleep(600)"
    words = [sys.executable, "-c", program]
    (tmp_path / "app.yaml").write_text(manifest("first", words, 28461) + manifest("second", words, 28461))
    starting = Mesh(tmp_path / "state", ["up", str(tmp_path / "app.yaml"), "--mode", mode])
    try:
        deadline = time.monotonic() + 60
        while "another process has this one" not in starting.log:
            assert time.monotonic() < deadline and starting.process.poll() is None, starting.log
            time.sleep(0.1)
        assert "app ended with 1, restarted" in starting.log
        assert "Address already in use" in starting.log
    finally:
        starting.end()


def test_a_mesh_that_is_not_ready_in_time_ends_with_the_last_lines_of_what_fails(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "raise SystemExit('no till at ' + 'tcp://till:99')"]
    (tmp_path / "app.yaml").write_text(manifest("shop", words, 8080))
    call = ("up", str(tmp_path / "app.yaml"), "--mode", "loopback", "--ready-within", "20")
    told = tulle(tmp_path / "state", *call, within=90)
    assert told.returncode == 1
    assert "app ended with 1, restarted" in told.stdout
    assert "no till at tcp://till:99" in told.stdout
    assert "another process" not in told.stdout
    assert told.stderr.splitlines()[0] == "error: not everything is ready after 20 s"
