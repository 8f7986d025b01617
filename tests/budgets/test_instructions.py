"""Instructions per request of the release binary, counted by callgrind and held to budgets.toml.

One sidecar of a pair runs under valgrind, the other does not; both are real, under the real control plane, with mutual
TLS between them. Counting begins after the first requests, so what is counted is the path of a request and nothing of
the start. Only instructions of the process itself are counted: the kernel's part is not in them.
"""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.load import load_generator
from tests.bench.measure import served
from tests.bench.places import loopback
from tests.bench.processes import until
from tests.bench.scenarios import SCENARIOS, Scenario
from tests.bench.sidecars import control_plane, sidecar_pair
from tests.budgets.test_budgets import hold
from tulle.local.proxy_binary import find_proxy

WARM_SECONDS, SECONDS = 1.0, 3.0

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(240),
    pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed"),
]


@pytest.fixture(scope="module")
def load() -> Path:
    return load_generator()


@pytest.fixture(scope="module")
def plane() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tulle-instructions-") as folder:
        with control_plane(loopback(), Path(folder)):
            yield Path(folder)


@pytest.mark.parametrize("counted", ["outbound", "inbound"])
@pytest.mark.parametrize("name", ["b", "c"])
def test_instructions_per_request(name: str, counted: str, load: Path, plane: Path) -> None:
    scenario, places = SCENARIOS[name], loopback()
    proxy, out = str(find_proxy()), plane / f"callgrind-{name}-{counted}"
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", proxy]
    commands = {"client": [proxy], "app": [proxy]} | {"client" if counted == "outbound" else "app": valgrind}
    with served(scenario, places, load, plane), sidecar_pair(commands, scenario, places, plane) as pair:
        process = pair[0 if counted == "outbound" else 1]
        _run(load, scenario, WARM_SECONDS)
        subprocess.run(
            ["callgrind_control", "-z", str(process.pid)], check=True, capture_output=True, timeout=30
        )
        requests = _run(load, scenario, SECONDS)
        process.terminate()
        until("valgrind's account", lambda: process.poll() is not None, process, out)
    collected = re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.MULTILINE)
    assert collected is not None
    assert requests > 200
    hold(f"instructions_{counted}_{'h1' if name == 'b' else 'grpc'}", int(collected[1]) / requests)


def _run(load: Path, scenario: Scenario, seconds: float) -> int:
    """One connection and one request at a time: how they fall together on a slow machine changes nothing."""
    places, service = loopback(), scenario.service
    words = [
        f"address={places.entry(service)}",
        f"host={service.name}:{service.port}",
        f"bytes={scenario.bytes}",
    ]
    command = [str(load), "run", scenario.app, *words, "connections=1", "warm=0", f"seconds={seconds}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["errors"] == 0
    return int(seen["requests"])
