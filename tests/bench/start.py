"""How long a mesh takes to come up, what it holds in memory, and what a further pod costs its agent."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.bench.processes import cpu_seconds, resident_mb

__all__ = ["report"]

FIRST_REQUEST_SECONDS, RESIDENT_MB, POD_MS = 5.0, 200.0, 100.0
MORE_PODS = 10
ARTICLE = Path(__file__).parents[2] / "src/tulle/emojivoto/manifests/two-services.yaml"


def _descendants(root: int) -> list[int]:
    """Return the processes below `root`, itself included."""
    parents = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it ended meanwhile
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _first_answer(url: str) -> None:
    """Ask until the service answers 200: an application without a readiness probe may listen later than it runs."""
    deadline = time.monotonic() + 15
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                answer.read()
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def report(mode: str = "auto") -> tuple[str, bool]:
    """Start the two services of examples/two-services, ask one, add pods; return the lines and whether every target is met."""
    name = f"bench-start-{os.getpid()}"
    tulle = str(Path(sys.executable).with_name("tulle"))
    began = time.monotonic()
    with subprocess.Popen(
        [tulle, "up", str(ARTICLE), "--mode", mode, "--name", name], stdout=subprocess.PIPE, text=True
    ) as mesh:
        assert mesh.stdout
        url, network, kubeconfig = "", "", ""
        for line in mesh.stdout:
            if line.startswith("network:"):
                network = line.strip()
            if line.startswith("voting.default:80"):
                url = line.split()[1]
            if match := re.search(r"KUBECONFIG=(\S+)", line):
                kubeconfig = match.group(1)
                break
        try:
            _first_answer(url)
            first = time.monotonic() - began
            pods = (b"tulle-proxy", b"tulle.emojivoto")
            # The command line itself shows a table and is none of the three.
            ours = [pid for pid in _descendants(mesh.pid)[1:] if not any(_is(pid, mark) for mark in pods)]
            memory = sum(map(resident_mb, ours))
            agent = max((pid for pid in ours if not _is(pid, b"controller")), key=resident_mb)
            cost = _more_pods(agent, kubeconfig)
        finally:
            mesh.terminate()
            mesh.wait(timeout=60)
    lines = [
        network,
        f"tulle up to the first proxied request: {first:.1f} s (target ≤ {FIRST_REQUEST_SECONDS})",
        f"API, node agent and control plane: {memory:.0f} MB resident (target ≤ {RESIDENT_MB:.0f})",
        f"each further pod: {cost:.0f} ms of agent CPU (target ≤ {POD_MS:.0f})",
    ]
    return "\n".join(lines), first <= FIRST_REQUEST_SECONDS and memory <= RESIDENT_MB and cost <= POD_MS


def _is(pid: int, mark: bytes) -> bool:
    return mark in Path(f"/proc/{pid}/cmdline").read_bytes()


def _more_pods(agent: int, kubeconfig: str) -> float:
    """Scale a deployment up and return the milliseconds of the agent's CPU for each pod that became ready."""
    kubectl = str(Path(sys.executable).with_name("kubectl"))

    def call(*arguments: str) -> str:
        done = subprocess.run(
            [kubectl, "--kubeconfig", kubeconfig, *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return done.stdout

    before = cpu_seconds(agent)
    call("scale", "deployment/emojisvc-v1", f"--replicas={1 + MORE_PODS}")
    call("rollout", "status", "deployment/emojisvc-v1", "--timeout=100s")
    used = cpu_seconds(agent) - before
    ready = json.loads(call("get", "deployment/emojisvc-v1", "-o", "json"))["status"]["readyReplicas"]
    assert ready == 1 + MORE_PODS
    return used / MORE_PODS * 1000
