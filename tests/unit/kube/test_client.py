"""The port to the API over real HTTP: what goes wrong there arrives as one of two exceptions."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from tests.fakes.cluster import service
from tests.fakes.kubernetes import FakeKubernetes
from tulle.clock import SystemClock
from tulle.errors import TulleError
from tulle.kube import client as client_module
from tulle.kube import kinds
from tulle.kube.client import ApiError, Client, Unreachable, load_config
from tulle.kube.watching import Watcher
from tulle.kube.world import World

PATH = "/api/v1/services"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def events(client: Client, silence: float = 5.0) -> list[str]:
    return [
        event.type async for event in client.watch(kinds.SERVICE, "v1", {"watch": "true"}, silence=silence)
    ]


async def test_errors_of_the_api_carry_status_reason_and_patience() -> None:
    async with FakeKubernetes().serving() as kubernetes, Client(kubernetes.config()) as client:
        kubernetes.faults[PATH] = [
            JSONResponse({"reason": "TooManyRequests", "message": "slow down"}, 429, {"Retry-After": "7"}),
            PlainTextResponse("<html>bad gateway</html>", 502),
            PlainTextResponse("not a list"),
            PlainTextResponse('{"metadata": {}, "items": 3}'),
        ]
        with pytest.raises(ApiError, match="slow down") as slow:
            await client.list(kinds.SERVICE, "v1", {})
        assert (slow.value.status, slow.value.reason, slow.value.retry_after) == (429, "TooManyRequests", 7.0)
        with pytest.raises(ApiError, match="bad gateway"):
            await client.list(kinds.SERVICE, "v1", {})
        for _ in range(2):
            with pytest.raises(Unreachable, match="not a Kubernetes list"):
                await client.list(kinds.SERVICE, "v1", {})


async def test_an_api_that_is_not_there_is_unreachable() -> None:
    kubernetes = FakeKubernetes()
    async with kubernetes.serving():
        config = kubernetes.config()
    async with Client(config) as client:
        for call in (client.get(PATH), client.list(kinds.SERVICE, "v1", {}), events(client)):
            with pytest.raises(Unreachable):
                await call


def streaming(*pieces: bytes, then: float = 0.0) -> Response:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
            await asyncio.sleep(0)
        await asyncio.sleep(then)

    return StreamingResponse(body())


LINE = b'{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"9"}}}\n'


async def test_events_are_read_however_the_stream_is_cut() -> None:
    async with FakeKubernetes().serving() as kubernetes, Client(kubernetes.config()) as client:
        for cut in range(1, len(LINE)):
            kubernetes.faults[PATH] = [streaming(LINE[:cut], LINE[cut:] + b"\n" + LINE)]
            assert await events(client) == ["ADDED", "ADDED"]


@pytest.mark.parametrize(
    ("answer", "silence", "why"),
    [
        (lambda: streaming(LINE, LINE[:20]), 5.0, "middle of an event"),
        (lambda: streaming(LINE, b"<html>\n"), 5.0, "not Kubernetes JSON"),
        (lambda: streaming(LINE, then=3.0), 0.2, "Timeout"),
        (lambda: streaming(b"x" * 3000), 5.0, "exceeds 2000 bytes"),
    ],
)
async def test_a_broken_stream_is_unreachable(
    answer: Any, silence: float, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_LINE_BYTES", 2000)
    async with FakeKubernetes().serving() as kubernetes, Client(kubernetes.config()) as client:
        kubernetes.faults[PATH] = [answer()]
        with pytest.raises(Unreachable, match=why):
            await events(client, silence)


async def test_a_watcher_lives_through_every_fault_and_ends_with_the_truth() -> None:
    objects = [service(f"s{i}", f"10.96.0.{i}") for i in range(1, 1201)]
    for index, each in enumerate(objects):
        each["spec"]["clusterIP"] = f"10.96.{index // 250}.{index % 250 + 1}"
    kubernetes = FakeKubernetes(objects)
    world = World()
    kubernetes.faults[PATH] = [
        JSONResponse({"reason": "InternalError", "message": "etcd"}, 500),
        JSONResponse({"reason": "TooManyRequests"}, 429, {"Retry-After": "0"}),
        PlainTextResponse("garbage"),
        JSONResponse({"reason": "Expired"}, 410),
    ]
    async with kubernetes.serving(), Client(kubernetes.config()) as client, asyncio.TaskGroup() as tasks:
        watcher = Watcher(client, [kinds.SERVICE, kinds.SERVER], world.apply, SystemClock(), lambda: 0.01)  # type: ignore[arg-type]
        running = tasks.create_task(watcher.run())
        async with asyncio.timeout(30):
            await watcher.wait_synced()
        assert world.count(kinds.SERVICE) == 1200, "three pages are one list"
        kubernetes._store("DELETED", objects[7])
        await kubernetes.compact()
        await kubernetes.cut_watches()
        await kubernetes.apply(service("late", "10.97.0.1"))
        async with asyncio.timeout(30):
            while world.service("default", "late") is None or world.service("default", "s8") is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert world.count(kinds.SERVICE) == 1200
        assert watcher.reflectors[kinds.SERVICE].relists >= 2
        running.cancel()


def test_a_kubeconfig_that_cannot_be_used_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in ("", "][", "kind: Config", "clusters: []\nusers: []\ncontexts: []\ncurrent-context: gone"):
        path = tmp_path / "kubeconfig"
        path.write_text(text)
        with pytest.raises(TulleError, match="tulle up"):
            load_config(str(path))
    with pytest.raises(TulleError, match="no Kubernetes API"):
        load_config()


def test_a_pod_uses_its_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("token", "secret"), ("namespace", "linkerd"), ("ca.crt", "")):
        (tmp_path / name).write_text(text)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setenv("TULLE_SERVICE_ACCOUNT_DIR", str(tmp_path))
    config = load_config()
    assert config.cluster.server == "https://10.96.0.1:443"
    assert config.user is not None and config.user.token_file == str(tmp_path / "token")
