"""Between two meshed pods there is TLS and no plain text; the same capture sees the plain text of a pod without sidecar."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.machine import modes_here
from tests.e2e.mesh import SOURCE, Mesh, mesh
from tulle.local.net import Mode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

ARTICLE = SOURCE / "tulle" / "emojivoto" / "manifests" / "two-services.yaml"
BYSTANDER = """\
apiVersion: v1
kind: Pod
metadata:
  name: bystander
  annotations: {linkerd.io/inject: disabled}
spec:
  containers:
  - name: shell
    image: none
    command: [sleep, "1000"]
"""
TLS_HANDSHAKE = b"\x16\x03"
INBOUND = ":4143"


@dataclass(frozen=True)
class Segment:
    """What one TCP segment carried."""

    source: str
    target: str
    payload: bytes


@contextlib.contextmanager
def capturing(mesh: Mesh, mode: Mode) -> Iterator[list[Segment]]:
    """Capture the traffic between pods, seen from the world's network; complete when the context has ended."""
    keeper = _child(mesh.process.pid)
    enter = [
        "nsenter", "--target", str(_child(keeper)), "--net",
        *(["--user", "--preserve-credentials"] if mode == "userns" else []),
    ]  # fmt: skip
    script = Path(__file__).with_name("wire.py")
    wire = subprocess.Popen(
        [*enter, sys.executable, str(script), "10.42."],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert wire.stdout is not None
    assert json.loads(wire.stdout.readline() or "{}") == {"ready": True}, wire.communicate()[1]
    segments: list[Segment] = []
    yield segments
    said, _ = wire.communicate(timeout=20)
    for line in said.splitlines():
        seen = json.loads(line)
        segments.append(Segment(seen["from"], seen["to"], bytes.fromhex(seen["bytes"])))


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def exec_in(mesh: Mesh, pod: str, container: str, *words: str) -> str:
    run = subprocess.run(
        ["kubectl", "--kubeconfig", str(mesh.kubeconfig), "exec", pod, "-c", container, "--", *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == 0, run.stderr + mesh.log
    return run.stdout


@pytest.mark.parametrize("mode", modes_here("netns", "userns"))
def test_between_meshed_pods_there_is_tls_and_no_plain_text(tmp_path: Path, mode: Mode) -> None:
    bystander = tmp_path / "bystander.yaml"
    bystander.write_text(BYSTANDER)
    secret, open_word = f"secret-{os.urandom(8).hex()}", f"open-{os.urandom(8).hex()}"
    call = ("curl", "-sS", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}")
    with mesh(tmp_path / "state", mode, str(ARTICLE), str(bystander)) as running:
        with capturing(running, mode) as segments:
            for _ in range(5):
                words = (*call, "-H", f"x-word: {secret}", f"http://emojisvc/?{secret}")
                assert exec_in(running, "deploy/voting-v1", "voting", *words) == "200"
            words = (*call, "-H", f"x-word: {open_word}", "http://emojisvc/")
            assert exec_in(running, "bystander", "shell", *words) == "200"
    wire = b"".join(segment.payload for segment in segments)
    assert open_word.encode() in wire, "the capture sees what is not encrypted"
    assert secret.encode() not in wire
    meshed = [s for s in segments if s.target.endswith(INBOUND) or s.source.endswith(INBOUND)]
    assert any(s.payload.startswith(TLS_HANDSHAKE) for s in meshed)
    # The transport header, and after it everything, travels inside TLS: each connection begins with a handshake.
    first: dict[str, bytes] = {}
    for segment in meshed:
        if segment.target.endswith(INBOUND):
            first.setdefault(segment.source, segment.payload)
    assert first
    started_before = {source for source, payload in first.items() if payload[:1] == b"\x17"}
    assert all(
        payload.startswith(TLS_HANDSHAKE) for source, payload in first.items() if source not in started_before
    )
