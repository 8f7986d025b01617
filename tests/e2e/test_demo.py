"""`tulle demo --for`: it ends by itself, adds up what happened, and fails when a Service had no meshed traffic."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.machine import MODES
from tests.e2e.mesh import Mesh, tulle
from tulle.local.net import Mode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(150)]

SERVICES = {
    "default/emojisvc",
    "default/voting",
    "emojivoto/emoji-svc",
    "emojivoto/voting-svc",
    "emojivoto/web-svc",
}


@pytest.mark.parametrize("mode", MODES)
def test_the_demo_ends_with_its_totals(tmp_path: Path, mode: Mode) -> None:
    done = tulle(tmp_path, "demo", "--for", "12s", "--mode", mode, within=120)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    requests = next(int(line.split()[1]) for line in lines if line.startswith("requests "))
    assert requests >= 20
    assert "mTLS 100.00 % of requests" in lines
    assert "edges 5 between 6 meshed pods" in lines
    totals = {line.partition(":")[0]: line for line in lines if line.endswith(" by mTLS")}
    assert set(totals) == SERVICES
    # Every single request to every Service: "X requests, X by mTLS".
    for line in totals.values():
        words = line.split()
        assert words[1] == words[3] != "0", line


def test_the_demo_fails_when_a_service_had_no_meshed_traffic(tmp_path: Path) -> None:
    running = Mesh(tmp_path, ["demo", "--for", "12s", "--mode", "loopback"])
    try:
        running.wait_until_ready()
        lonely = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "lonely"},
            "spec": {"selector": {"app": "voting"}, "ports": [{"port": 81, "targetPort": 80}]},
        }
        kubectl = [str(Path(sys.executable).with_name("kubectl")), "--kubeconfig", str(running.kubeconfig)]
        subprocess.run(
            [*kubectl, "apply", "-f", "-"],
            input=json.dumps(lonely),
            text=True,
            check=True,
            timeout=20,
            capture_output=True,
        )
        assert running.process.wait(60) == 1
    finally:
        running.end()
    said = "\n".join(running.lines)
    assert "error: the demo did not show a working mesh" in said
    assert "service default/lonely had no meshed traffic" in said
    assert "service default/voting had" not in said
