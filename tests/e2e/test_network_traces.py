"""However a mesh ends, nothing of it is left: no process, namespace, interface, rule, mount or file."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.machine import MODES, Traces
from tests.e2e.mesh import Mesh, tulle
from tulle.local.net import Mode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

GONE_WITHIN = 20.0

MANIFEST = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: sleeper}
spec:
  replicas: 2
  selector: {matchLabels: {app: sleeper}}
  template:
    metadata:
      labels: {app: sleeper}
      annotations: {linkerd.io/inject: disabled}
    spec:
      containers:
      - name: sleeper
        image: none
        # It starts a child of its own, ignores SIGTERM, and leaves its session: the worst that a container does.
        command: [/bin/sh, -c, "trap '' TERM; setsid sleep 1000 & sleep 1000"]
"""


def by_signal(number: signal.Signals) -> Callable[[Mesh], None]:
    def end(mesh: Mesh) -> None:
        mesh.end(number)

    return end


def by_down(mesh: Mesh) -> None:
    told = tulle(mesh.home, "down", "--name", mesh.name)
    assert told.returncode == 0, told.stderr
    assert mesh.process.wait(30) == 0
    mesh.end()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "end",
    [
        pytest.param(by_signal(signal.SIGINT), id="ctrl-c"),
        pytest.param(by_signal(signal.SIGTERM), id="sigterm"),
        pytest.param(by_down, id="tulle down"),
        pytest.param(by_signal(signal.SIGKILL), id="kill -9"),
    ],
)
def test_nothing_is_left(tmp_path: Path, mode: Mode, end: Callable[[Mesh], None]) -> None:
    traces = Traces(tmp_path / "state")
    manifest = tmp_path / "sleeper.yaml"
    manifest.write_text(MANIFEST)
    mesh = Mesh(tmp_path / "state", ["up", str(manifest), "--mode", mode]).wait_until_ready()
    assert traces.processes(), "the test sees the mesh's processes"
    end(mesh)
    deadline = time.monotonic() + GONE_WITHIN
    while (left := traces.left()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == {}


@pytest.mark.parametrize("mode", MODES)
def test_a_world_that_is_killed_takes_everything_with_it(tmp_path: Path, mode: Mode) -> None:
    traces = Traces(tmp_path / "state")
    manifest = tmp_path / "sleeper.yaml"
    manifest.write_text(MANIFEST)
    mesh = Mesh(tmp_path / "state", ["up", str(manifest), "--mode", mode]).wait_until_ready()
    keeper = _child(mesh.process.pid)
    os.kill(_child(keeper), signal.SIGKILL)
    assert mesh.process.wait(GONE_WITHIN) == 1
    mesh.end()
    assert "the mesh ended unexpectedly" in "\n".join(mesh.lines)
    assert traces.left() == {}


@pytest.mark.parametrize("mode", MODES)
def test_when_the_launcher_of_pods_is_killed_the_mesh_says_so_and_ends(tmp_path: Path, mode: Mode) -> None:
    traces = Traces(tmp_path / "state")
    manifest = tmp_path / "sleeper.yaml"
    manifest.write_text(MANIFEST)
    mesh = Mesh(tmp_path / "state", ["up", str(manifest), "--mode", mode]).wait_until_ready()
    os.kill(_child(_child(_child(mesh.process.pid))), signal.SIGKILL)
    assert mesh.process.wait(GONE_WITHIN) == 1
    mesh.end()
    assert "the process that starts pods has ended" in "\n".join(mesh.lines)
    assert traces.left() == {}


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
