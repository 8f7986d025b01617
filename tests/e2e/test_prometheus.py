"""Debian's Prometheus, with the example's configuration, scrapes a running mesh; the dashboard's queries have data."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.mesh import Mesh, mesh
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "prometheus.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "tulle-services.json"
PROMETHEUS = shutil.which("prometheus")
FILLED_WITHIN = 60.0

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(180),
    pytest.mark.skipif(PROMETHEUS is None, reason="the program prometheus is not installed"),
]


def queries() -> list[tuple[str, str]]:
    """Return (panel and reference, query) of the whole dashboard, with Grafana's variables filled in."""
    board = json.loads(DASHBOARD.read_text())
    found = []
    for panel in board["panels"]:
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "20s").replace("$service", ".*")
            assert "$" not in text, f"a variable that Grafana would have to fill in: {text}"
            found.append((f"{panel['title']} {target['refId']}", text))
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert match is not None
            found.append((variable["name"], f"count by ({match[2]}) ({match[1]})"))
    return found


@contextmanager
def prometheus(folder: Path, admin: str) -> Iterator[httpx2.Client]:
    """Run Prometheus with the example's configuration against the control plane at `admin` (host:port)."""
    assert PROMETHEUS is not None
    text = EXAMPLE.read_text()
    assert "127.0.0.1:9990" in text
    config = folder / "prometheus.yml"
    config.write_text(re.sub(r"\b5s\b", "1s", text.replace("127.0.0.1:9990", admin)))
    (port,) = free_ports(1)
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                PROMETHEUS,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                yield client
        finally:
            process.terminate()
            process.wait(20)


def ask(client: httpx2.Client, query: str) -> list[dict[str, Any]]:
    try:
        answer = client.get("/api/v1/query", params={"query": query})
    except httpx2.TransportError:
        return []  # not up yet
    if answer.status_code == 503:
        return []
    assert answer.status_code == 200, f"{query}: {answer.text}"
    result: list[dict[str, Any]] = answer.json()["data"]["result"]
    return [sample for sample in result if sample["value"][1] != "NaN"]


def test_every_query_of_the_dashboard_returns_data(tmp_path: Path) -> None:
    with mesh(tmp_path, "loopback", command="demo") as running:
        admin = running.url("tulle-viz.linkerd").removeprefix("http://")
        with prometheus(tmp_path, admin) as client:
            empty = dict(queries())
            deadline = time.monotonic() + FILLED_WITHIN
            while empty and time.monotonic() < deadline:
                time.sleep(1)
                empty = {name: query for name, query in empty.items() if not ask(client, query)}
            assert not empty, f"no data for {empty}\n{(tmp_path / 'prometheus.log').read_text()[-3000:]}"
            check_edges(running, client)


def check_edges(running: Mesh, client: httpx2.Client) -> None:
    """The edges that Prometheus sees from the golden metrics are those that `tulle` adds up."""
    query = 'sum by (src_pod, dst_pod) (http_requests_total{direction="inbound",src_pod!=""})'
    pairs = {(owner(s["metric"]["src_pod"]), owner(s["metric"]["dst_pod"])) for s in ask(client, query)}
    base = running.url("tulle-viz.linkerd")
    edges = httpx2.get(f"{base}/api/edges", params={"without": "linkerd", "window": "60"}).json()["rows"]
    assert {(edge["source"], edge["target"]) for edge in edges if edge["source"]} == pairs
    assert ("web", "voting") in pairs


def owner(pod: str) -> str:
    return pod.rsplit("-", 2)[0]
