"""Rounds of the scraper: who is read, what a failure does, how often, and what the metrics API answers."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette

from tests.unit.viz.sidecar import INBOUND, Sidecar
from tests.unit.viz.test_questions import ADDRESSES, OBJECTS, WORLD, Clock, rig
from tulle.clock import SystemClock
from tulle.compile.mesh import Mesh
from tulle.kube import kinds
from tulle.kube.reflector import Change
from tulle.kube.world import World
from tulle.viz import scraper as scraper_module
from tulle.viz.scraper import ScrapeFailed, Scraper, fetch_from, interval_for, observer_of
from tulle.viz.service import MetricsApi

pytestmark = pytest.mark.anyio


async def test_only_running_meshed_pods_are_read() -> None:
    asked: list[str] = []

    async def fetch(address: str, port: int) -> bytes:
        asked.append(ADDRESSES[address])
        return Sidecar().page()

    await Scraper(WORLD, Mesh(), fetch, Clock()).round()
    assert sorted(asked) == ["api-1", "web-1", "web-2"]


async def test_a_pod_that_does_not_answer_is_named_and_hinders_no_other() -> None:
    mesh = rig()

    async def fetch(address: str, port: int) -> bytes:
        if ADDRESSES[address] == "web-1":
            raise ScrapeFailed("no page within 2 s")
        if ADDRESSES[address] == "web-2":
            return b"response_total{ 1\n"
        return mesh.sidecars["api-1"].page()

    scraper = Scraper(WORLD, Mesh(), fetch, mesh.clock)
    await scraper.round()
    trouble = {target.pod: target.trouble for target in scraper.targets().targets}
    assert trouble["web-1"] == "no page within 2 s"
    assert trouble["web-2"].startswith("no closing brace")
    assert trouble["api-1"] == ""


async def test_its_own_metrics_tell_what_is_kept_and_what_found_no_room() -> None:
    mesh = rig()
    mesh.sidecars["web-1"].answered(INBOUND, 4)
    await mesh.look()
    samples = {name: value for name, _, _, value in mesh.scraper.samples()}
    assert samples["viz_targets"] == 3
    assert samples["viz_rows"] == 1
    assert samples["viz_series"] > 26
    assert samples["viz_rows_refused_total"] == samples["viz_series_refused_total"] == 0


async def test_a_pod_that_is_gone_is_forgotten_and_its_counts_stay() -> None:
    world = World.of(OBJECTS)
    mesh = rig()

    async def fetch(address: str, port: int) -> bytes:
        return mesh.sidecars[ADDRESSES[address]].page()

    scraper = Scraper(world, Mesh(), fetch, mesh.clock)
    await scraper.round()
    mesh.sidecars["web-1"].answered(INBOUND, 4, times=3)
    await scraper.round()
    world.apply(kinds.POD, [Change(world.pod("shop", "web-1"), None)])
    await scraper.round()
    assert "web-1" not in {target.pod for target in scraper.targets().targets}
    assert sum(row.total.requests for _, row in scraper.store.served) == 3


async def test_at_most_so_many_pages_are_fetched_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraper_module, "AT_ONCE", 2)
    now, most = 0, 0

    async def fetch(address: str, port: int) -> bytes:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return Sidecar().page()

    await Scraper(WORLD, Mesh(), fetch, Clock()).round()
    assert most == 2


@pytest.mark.parametrize(
    ("pods", "seconds"), [(0, 1.0), (20, 1.0), (21, 2.0), (60, 2.0), (61, 10.0), (5000, 10.0)]
)
def test_many_pods_are_read_less_often(pods: int, seconds: float) -> None:
    assert interval_for(pods) == seconds


def test_a_pod_knows_the_service_at_its_port_and_what_an_authority_means() -> None:
    pod = WORLD.pod("shop", "web-1")
    assert pod is not None
    observer = observer_of(WORLD, Mesh(), pod)
    assert (observer.service_at(8080), observer.service_at(9)) == ("web-svc", "")
    for authority in (
        "api-svc",
        "api-svc:80",
        "api-svc.shop",
        "api-svc.shop.svc",
        "api-svc.shop.svc.cluster.local.:80",
    ):
        assert observer.service_of(authority) == ("shop", "api-svc"), authority
    assert observer.service_of("10.96.0.7:80") == ("shop", "web-svc")
    assert observer.service_of("api-svc.other:80") == ("", "")
    assert observer.service_of("nothing.shop.svc.cluster.local:80") == ("", "")
    assert observer.service_of("example.org:443") == ("", "")
    assert observer.workload == ("shop", "Deployment", "web")


@asynccontextmanager
async def served(body: bytes, status: bytes = b"200 OK", *, silent: bool = False) -> AsyncIterator[int]:
    """Serve one answer on a loopback port, or nothing until the client goes away."""
    handled = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 " + status + b"\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        try:
            await reader.readuntil(b"\r\n\r\n")
            if silent:
                await reader.read()
            writer.write(head + body)
            await writer.drain()
        except ConnectionError:
            pass  # the client would not hear more
        finally:
            writer.close()
            handled.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await handled.wait()


async def test_a_page_is_fetched_over_http() -> None:
    async with served(b"a 1\n") as port, httpx2.AsyncClient(trust_env=False) as client:
        assert await fetch_from(client)("127.0.0.1", port) == b"a 1\n"


@pytest.mark.parametrize(
    ("body", "status", "silent", "trouble"),
    [
        (b"", b"503 Unavailable", False, "answered 503"),
        (b"x" * 200, b"200 OK", False, "larger than 100 bytes"),
        (b"a 1\n", b"200 OK", True, "no page within"),
    ],
)
async def test_a_page_that_cannot_be_had_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, body: bytes, status: bytes, silent: bool, trouble: str
) -> None:
    monkeypatch.setattr(scraper_module, "PAGE_MAX_BYTES", 100)
    monkeypatch.setattr(scraper_module, "PAGE_SECONDS", 0.2)
    async with served(body, status, silent=silent) as port:
        async with httpx2.AsyncClient(trust_env=False) as client:
            with pytest.raises(ScrapeFailed, match=trouble):
                await fetch_from(client)("127.0.0.1", port)


async def test_nobody_listening_is_told_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with httpx2.AsyncClient(trust_env=False) as client:
        with pytest.raises(ScrapeFailed, match="ConnectError"):
            await fetch_from(client)("127.0.0.1", port)


async def ask(path: str) -> tuple[int, Any]:
    metrics = MetricsApi(WORLD, Mesh(), SystemClock())
    transport = httpx2.ASGITransport(app=Starlette(routes=list(metrics.routes)))
    async with httpx2.AsyncClient(transport=transport, base_url="http://viz") as client:
        answer = await client.get(path)
    is_json = answer.headers["content-type"] == "application/json"
    return answer.status_code, json.loads(answer.text) if is_json else answer.text


async def test_the_metrics_api_answers_json() -> None:
    status, stat = await ask("/api/stat?kind=deploy&namespace=shop&window=10")
    assert status == 200
    assert [row["name"] for row in stat["rows"]] == ["api", "bare", "web"]
    assert stat["rows"][0]["golden"]["success_rate"] is None
    assert (await ask("/api/edges"))[1]["rows"] == []
    assert (await ask("/api/summary"))[1]["pods"] == 3
    assert (await ask("/api/targets"))[1]["rounds"] == 0


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/stat?kind=ingress", "kind: 'ingress' is none of deploy"),
        ("/api/stat?windw=3", "'windw' is no parameter here; known: kind, namespace, name, window"),
        ("/api/stat?window=long", "window: 'long' is not a number of seconds"),
        ("/api/stat?window=0", "window: 0 is not between 1 and 600 seconds"),
        ("/api/stat?window=nan", "window: nan is not between 1 and 600 seconds"),
        ("/api/summary?x=1", "'x' is no parameter here; known: none"),
    ],
)
async def test_a_wrong_parameter_is_named(path: str, said: str) -> None:
    status, text = await ask(path)
    assert status == 400
    assert text.startswith(said)
