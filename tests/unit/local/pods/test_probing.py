"""Probes against real peers: a grpcio server, HTTP answers of every kind, and the rhythm of looks."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import pytest

from tulle.local.pods.grpc_health import HealthError, check_health
from tulle.local.pods.http_get import HttpError, http_status
from tulle.local.pods.probing import ActionFailed, port_number, probe_forever
from tulle.local.pods.spec import parse_pod


@asynccontextmanager
async def grpc_server(answer: bytes | None) -> AsyncIterator[int]:
    """Serve Health/Check with raw bytes; None aborts the call."""

    async def check(request: bytes, context: Any) -> bytes:
        if answer is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no")
        return answer + request[:0] if answer is not None else b""

    handler: Any = grpc.unary_unary_rpc_method_handler(check)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def check(port: int, service: str = "") -> None:
    async with asyncio.timeout(30):
        await check_health(
            await asyncio.open_connection("127.0.0.1", port), authority=f"127.0.0.1:{port}", service=service
        )


async def test_a_service_that_serves_is_healthy() -> None:
    async with grpc_server(b"\x08\x01") as port:
        await check(port)
        await check(port, "a.long.service.Name" * 10)


@pytest.mark.parametrize(
    ("answer", "word"), [(b"\x08\x02", "NOT_SERVING"), (b"", "UNKNOWN"), (b"\x08\x03", "SERVICE_UNKNOWN")]
)
async def test_any_other_status_is_named(answer: bytes, word: str) -> None:
    async with grpc_server(answer) as port:
        with pytest.raises(HealthError, match=word):
            await check(port)


async def test_a_server_without_the_health_service_is_told_apart() -> None:
    async with grpc_server(None) as port:
        with pytest.raises(HealthError, match=r"grpc\.health\.v1"):
            await check(port)


@asynccontextmanager
async def server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]


async def get(port: int) -> int:
    streams = await asyncio.open_connection("127.0.0.1", port)
    return await http_status(streams, host="h", path="/", headers={"X-A": "b", "host": "other"})


async def test_http_sends_the_headers_and_reads_the_status() -> None:
    seen = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with server(serve) as port:
        assert await get(port) == 204
    assert b"X-A: b\r\n" in seen and b"host: other\r\n" in seen and b"Host: h" not in seen


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n", b"x" * 100_000, b"HTTP/2 200\r\n", b"HTTP/1.1 abc\r\n"]
)
async def test_what_is_not_http_is_refused(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async with server(serve) as port:
        with pytest.raises(HttpError):
            await get(port)


async def test_neither_client_understands_the_others_server() -> None:
    async with grpc_server(b"\x08\x01") as port:
        with pytest.raises((HttpError, OSError)):
            await get(port)


class Looks:
    """Actions whose outcome at each moment is scripted; time is counted, not waited for."""

    def __init__(self, ready_at: float) -> None:
        self.now, self.ready_at = 0.0, ready_at
        self.told: list[tuple[float, bool, bool]] = []

    async def perform(self, _action: Any, _timeout: float) -> None:
        if self.now < self.ready_at:
            raise ActionFailed("not yet")


async def looks(field: str, ready_at: float, until: float, **probe: Any) -> Looks:
    script = Looks(ready_at)
    raw = {"tcpSocket": {"port": 1}, "periodSeconds": 2, **probe}
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", field: raw}]}}
    (parsed,) = parse_pod(pod).main[0].probes.values()

    async def sleep(seconds: float) -> None:
        script.now += seconds
        if script.now > until:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await probe_forever(
            script,
            parsed,
            lambda ok, _m, counts: script.told.append((round(script.now, 2), ok, counts)),
            sleep=sleep,
        )
    return script


async def test_readiness_is_seen_soon_and_failures_count_once_per_period() -> None:
    script = await looks("readinessProbe", ready_at=5.0, until=9.0)
    counted = [moment for moment, ok, counts in script.told if counts and not ok]
    assert all(later - earlier >= 2 for earlier, later in itertools.pairwise(counted)) and counted[0] >= 2
    first = next(moment for moment, ok, _ in script.told if ok)
    assert 5.0 <= first <= 7.0
    after = [moment for moment, _, _ in script.told if moment >= first]
    assert all(round(b - a, 6) == 2 for a, b in itertools.pairwise(after))


async def test_a_fast_start_is_seen_within_tenths_of_a_second() -> None:
    script = await looks("startupProbe", ready_at=0.3, until=1.0)
    assert next(moment for moment, ok, _ in script.told if ok) <= 0.5


async def test_liveness_keeps_its_period_and_every_look_counts() -> None:
    script = await looks("livenessProbe", ready_at=99, until=7.0, initialDelaySeconds=1)
    assert script.told == [(1, False, True), (3, False, True), (5, False, True), (7, False, True)]


def test_named_ports_are_the_containers() -> None:
    container = {"ports": [{"name": "web", "containerPort": 80}]}
    assert [port_number(p, container) for p in ("web", "81", 82)] == [80, 81, 82]
    with pytest.raises(ValueError, match="admin"):
        port_number("admin", container)


class ClosesAsTheContainerEnds:
    """A connection whose end and the end of the probe come in the same turn of the loop."""

    def __init__(self, probing: "asyncio.Task[Any]") -> None:
        self._probing = probing

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...

    async def drain(self) -> None: ...

    async def wait_closed(self) -> None:
        self._probing.cancel()


@pytest.mark.parametrize("kind", ["http", "grpc"])
async def test_a_probe_that_is_stopped_as_its_connection_closes_is_stopped(kind: str) -> None:
    """It would go on without its container, and ask whoever has the address next."""

    async def probe() -> None:
        reader = asyncio.StreamReader()
        streams = reader, cast(asyncio.StreamWriter, ClosesAsTheContainerEnds(probing))
        if kind == "http":
            reader.feed_data(b"HTTP/1.1 200 OK\r\n\r\n")
            await http_status(streams, host="h", path="/", headers={})
        else:
            reader.feed_eof()
            with contextlib.suppress(HealthError):
                await check_health(streams, authority="h", service="")
        await asyncio.sleep(60)

    probing = asyncio.ensure_future(probe())
    async with asyncio.timeout(5):
        await asyncio.wait({probing})
    assert probing.cancelled()
