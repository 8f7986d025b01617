"""The same pages read by Tulle and by Debian's Prometheus give the same answers.

Pages get exact times by way of `promtool tsdb create-blocks-from openmetrics`, so nothing waits and nothing is
extrapolated: the window begins and ends on a sample.
"""

import asyncio
import json
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import pytest

from tests.unit.viz.sidecar import INBOUND, OUTBOUND, PLAIN, Sidecar
from tests.unit.viz.test_questions import ADDRESSES, PODS, WORLD, Clock
from tulle.clock import SystemClock
from tulle.compile.mesh import Mesh
from tulle.viz import queries
from tulle.viz.answers import Golden
from tulle.viz.exposition import name_of
from tulle.viz.scraper import Scraper
from tulle.viz.store import Store

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
ROUNDS, EVERY, WINDOW = 12, 10, 100
TYPES = {
    "response_total": "counter",
    "response_latency_ms_bucket": "histogram",
    "tcp_open_connections": "gauge",
}

pytestmark = pytest.mark.skipif(
    PROMETHEUS is None or PROMTOOL is None, reason="the programs prometheus and promtool are not installed"
)


@dataclass(frozen=True)
class Both:
    """A store and a Prometheus that have read the same pages; `end` is the Unix time of the last."""

    store: Store
    url: str
    end: float

    def ask(self, query: str) -> dict[tuple[str, ...], float]:
        """Return the values by their labels' values, in the order of the labels' names."""
        opener = build_opener(ProxyHandler({}))
        parameters = urlencode({"query": query, "time": self.end})
        with opener.open(f"{self.url}/api/v1/query?{parameters}", timeout=30) as answer:
            found = json.load(answer)["data"]["result"]
        return {
            tuple(value for _, value in sorted(sample["metric"].items())): float(sample["value"][1])
            for sample in found
        }


def traffic(sidecars: dict[str, Sidecar], chance: random.Random) -> None:
    for sidecar in sidecars.values():
        for labels in (INBOUND, PLAIN, OUTBOUND):
            for success in (True, False):
                took = chance.choice([0.4, 2.5, 8, 45, 350, 2_500])
                sidecar.answered(labels, took, success=success, times=chance.randrange(9))
        for tls in ("true", "no_identity"):
            labels_text = f'direction="inbound",peer="src",tls="{tls}",client_id="x",target_port="8080"'
            sidecar.lines[f"tcp_open_connections{{{labels_text}}}"] = chance.randrange(5)


def stamped(pages: list[tuple[float, dict[str, bytes]]]) -> str:
    """Write pages as OpenMetrics with times, as a scraper would store them."""
    families: dict[str, list[str]] = {name: [] for name in TYPES}
    for at, page_of in pages:
        for pod, page in page_of.items():
            for line in page.decode().splitlines():
                series, _, value = line.rpartition(" ")
                name = name_of(series.encode())
                if name in TYPES:
                    labels = series.partition("{")[2].removesuffix("}")
                    target = f'namespace="shop",pod="{pod}",deployment="{PODS[pod]}"'
                    families[name].append(f"{name}{{{target},{labels}}} {value} {at}")
    written = []
    for name, lines in families.items():
        base = name.removesuffix("_total").removesuffix("_bucket")
        # A histogram without sum and count is no OpenMetrics histogram; to storage its buckets are plain series.
        kind = "unknown" if name.endswith("_bucket") else TYPES[name]
        written += [f"# TYPE {base if kind != 'unknown' else name} {kind}", *sorted(lines, key=by_series)]
    return "\n".join([*written, "# EOF", ""])


def by_series(line: str) -> tuple[str, float]:
    series, _, rest = line.partition("} ")
    return series, float(rest.split()[1])


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    assert PROMETHEUS is not None and PROMTOOL is not None
    folder, chance = tmp_path_factory.mktemp("prometheus"), random.Random(7)
    sidecars = {name: Sidecar(started=1.0) for name in PODS}
    start = float(int(SystemClock().now().timestamp()) - 600)
    clock, pages = Clock(), []

    async def fetch(address: str, port: int) -> bytes:
        return sidecars[ADDRESSES[address]].page()

    scraper = Scraper(WORLD, Mesh(), fetch, clock)
    for number in range(ROUNDS):
        traffic(sidecars, chance)
        if number == 7:  # counters begin anew in the middle of the window
            sidecars["web-2"].restart(at=start + 65)
            traffic({"web-2": sidecars["web-2"]}, chance)
        clock.time += EVERY
        at = start + number * EVERY
        pages.append((at, {name: sidecar.page() for name, sidecar in sidecars.items()}))
        asyncio.run(scraper.round())
    (folder / "pages.om").write_text(stamped(pages))
    subprocess.run(
        [PROMTOOL, "tsdb", "create-blocks-from", "openmetrics", "pages.om", "tsdb"],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=30,
    )
    (folder / "empty.yml").write_text("scrape_configs: []\n")
    with Server(folder) as url:
        yield Both(scraper.store, url, start + (ROUNDS - 1) * EVERY)


class Server:
    """A Prometheus over the folder's blocks."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        self.folder = folder

    def __enter__(self) -> str:
        assert PROMETHEUS is not None
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    PROMETHEUS,
                    "--config.file=empty.yml",
                    "--storage.tsdb.path=tsdb",
                    f"--web.listen-address={self.address}",
                ],
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        host, port = self.address.split(":")
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection((host, int(port)), 1).close()
                opener = build_opener(ProxyHandler({}))
                opener.open(f"http://{self.address}/-/ready", timeout=2).close()
                return f"http://{self.address}"
            except OSError:
                time.sleep(0.1)
        self.__exit__()
        raise AssertionError((self.folder / "log").read_text())

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)


def deployments(both: Both) -> dict[str, Golden]:
    answer = queries.stat(both.store, WORLD, Mesh(), "Deployment", seconds=WINDOW)
    assert answer.window_seconds == WINDOW
    return {row.name: row.golden for row in answer.rows if row.meshed}


def test_requests_and_success_by_workload(both: Both) -> None:
    increase = f'sum by (deployment) (increase(response_total{{direction="inbound"%s}}[{WINDOW}s]))'
    requests = both.ask(increase % "")
    successes = both.ask(increase % ',classification="success"')
    found = deployments(both)
    assert set(requests) == {(name,) for name in found} == {("web",), ("api",)}
    for name, golden in found.items():
        assert golden.requests == pytest.approx(requests[name,]), name
        assert golden.success_rate == pytest.approx(successes[name,] / requests[name,]), name


def test_latency_quantiles_by_workload(both: Both) -> None:
    found = deployments(both)
    for q, field in ((0.5, "latency_p50_ms"), (0.95, "latency_p95_ms"), (0.99, "latency_p99_ms")):
        expected = both.ask(
            f"histogram_quantile({q}, sum by (deployment, le) "
            f'(increase(response_latency_ms_bucket{{direction="inbound"}}[{WINDOW}s])))'
        )
        for name, golden in found.items():
            assert getattr(golden, field) == pytest.approx(expected[name,]), (name, field)


def test_share_of_mutual_tls_and_open_connections(both: Both) -> None:
    secured = both.ask(
        f'sum by (deployment) (increase(response_total{{direction="inbound",tls="true"}}[{WINDOW}s]))'
    )
    connections = both.ask('sum by (deployment) (tcp_open_connections{direction="inbound",peer="src"})')
    for name, golden in deployments(both).items():
        assert golden.secured == pytest.approx(secured[name,] / golden.requests), name
        assert golden.tcp_connections == connections[name,], name


def test_edges(both: Both) -> None:
    expected = both.ask(
        "sum by (deployment, dst_deployment, dst_service) "
        f'(increase(response_total{{direction="outbound"}}[{WINDOW}s]))'
    )
    found = {
        (edge.source, edge.target, edge.service): edge.golden.requests
        for edge in queries.edges(both.store, seconds=WINDOW).rows
        if edge.source
    }
    assert found == pytest.approx(expected)
