"""What is put to the test: one `tulle-proxy` before an application on loopback, or its HTTP/2 codec alone."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import cpu_seconds
from tests.ports import free_ports
from tulle.local.proxy_binary import find_proxy

__all__ = ["Server", "application", "codec", "sidecar"]


@dataclass(frozen=True)
class Server:
    """A running server of HTTP/2. `admin` is the port of the sidecar's own pages; 0 for the codec, which has none."""

    name: str
    port: int
    pid: int
    admin: int = 0

    def resident(self) -> int:
        """Return the resident memory of its own, in octets."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        (kib,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))
        return kib * 1024

    def cpu_seconds(self) -> float:
        """Return the CPU time it has used, all threads."""
        return cpu_seconds(self.pid)

    def metrics(self) -> str:
        """Return its metrics page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=5) as page:
            return str(page.read().decode())


@contextmanager
def application() -> Iterator[int]:
    """Run `tests.http2.backend`; its port."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.http2.backend"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        try:
            yield int(program.stdout.readline())
        finally:
            program.kill()


@contextmanager
def codec() -> Iterator[Server]:
    """Run the codec as a server of its own (crates/http/examples/h2_serve.rs)."""
    checkout = Path(__file__).parents[2]
    build = [
        "cargo",
        "build",
        "--quiet",
        "--release",
        "--locked",
        "-p",
        "tulle-http",
        "--example",
        "h2_serve",
    ]
    subprocess.run(build, cwd=checkout, check=True, timeout=300)
    target = Path(os.environ.get("CARGO_TARGET_DIR", checkout / "target"))
    program_path = target / "release/examples/h2_serve"
    with subprocess.Popen([program_path], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        try:
            yield Server("codec", int(program.stdout.readline()), program.pid)
            assert program.poll() is None, "the server ended"
        finally:
            program.kill()


@contextmanager
def sidecar(application_port: int, **more: str) -> Iterator[Server]:
    """Run a sidecar before the application on that port; `more` goes into its environment."""
    port, inbound, outbound, admin = free_ports(4)
    environment = {
        "LINKERD2_PROXY_IDENTITY_DISABLED": "1",
        "LINKERD2_PROXY_CORES": "1",
        "LINKERD2_PROXY_INBOUND_LISTEN_ADDR": f"127.0.0.1:{inbound}",
        "LINKERD2_PROXY_OUTBOUND_LISTEN_ADDR": f"127.0.0.1:{outbound}",
        "LINKERD2_PROXY_ADMIN_LISTEN_ADDR": f"127.0.0.1:{admin}",
        "LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD": "100ms",
        "TULLE_PROXY_INBOUND_EXTRA_LISTENERS": f"127.0.0.1:{port}=80",
        "TULLE_PROXY_INBOUND_PORT_MAP": f"80={application_port}",
        **more,
    }
    with tempfile.NamedTemporaryFile(prefix="tulle-proxy-", suffix=".log") as log:
        with subprocess.Popen([find_proxy()], env=environment, stdout=log, stderr=log) as program:
            try:
                _await_listener(port, program, Path(log.name))
                yield Server("sidecar", port, program.pid, admin)
                assert program.poll() is None, f"the sidecar ended: {Path(log.name).read_text()[-2000:]}"
            finally:
                program.kill()


def _await_listener(port: int, program: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline or program.poll() is not None:
                raise AssertionError(f"the sidecar does not listen: {log.read_text()[-2000:]}") from None
            time.sleep(0.02)
