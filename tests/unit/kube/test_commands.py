"""Commands in containers: the closing status, and the channels over a real WebSocket to a scripted API."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from lightkube.config.kubeconfig import KubeConfig
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    RejectConnection,
    RejectData,
    Request,
)

from tulle.kube.client import ApiError, Unreachable
from tulle.kube.commands import CommandFailed, exit_code, run_command

pytestmark = pytest.mark.anyio

SUCCESS = {"metadata": {}, "status": "Success"}


def failure(code: int) -> dict[str, Any]:
    return {
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def test_the_closing_status_tells_the_exit_code() -> None:
    assert exit_code(json.dumps(SUCCESS).encode()) == 0
    assert exit_code(json.dumps(failure(137)).encode()) == 137


@pytest.mark.parametrize(
    "status",
    [
        b"",
        b"[]",
        b'{"status":"Failure","message":"no such program"}',
        b'{"status":"Failure","reason":"InternalError"}',
    ],
)
def test_a_command_that_did_not_run_has_no_exit_code(status: bytes) -> None:
    with pytest.raises(CommandFailed):
        exit_code(status)


class Streams:
    """Ends of streams that remember."""

    tty = False

    def __init__(self, *pieces: bytes, stdin: bool = True) -> None:
        self.stdin, self.pieces, self.written = stdin, pieces, {1: b"", 2: b""}

    def write(self, stream: int, data: bytes) -> None:
        self.written[stream] += data

    def size(self) -> tuple[int, int]:
        return 80, 24

    def on_resize(self, call: Callable[[], None]) -> None:
        raise AssertionError("there is no terminal")

    async def input(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


class Peer:
    """The API's end of one WebSocket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ws, self.reader, self.writer = WSConnection(ConnectionType.SERVER), reader, writer

    async def event(self) -> Any:
        while True:
            for event in self.ws.events():
                return event
            data = await self.reader.read(65536)
            self.ws.receive_data(data or None)

    def send(self, event: Any) -> None:
        self.writer.write(self.ws.send(event))


@asynccontextmanager
async def api(script: Callable[[Peer, Request], Any]) -> AsyncIterator[Any]:
    """Serve one WebSocket by a script; yield the configuration that leads to it."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            peer = Peer(reader, writer)
            await script(peer, await peer.event())
        finally:
            writer.close()
            done.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield KubeConfig.from_server(f"http://127.0.0.1:{port}").get()
        await done.wait()


async def run(config: Any, streams: Streams) -> int:
    # A kubeconfig without a user is refused by Client; one without credentials is what the scripted API needs.
    from lightkube.config.models import User

    config = config._replace(user=User(token="secret"))
    return await run_command(config, "shop", "web-1", "app", ["sh", "-c", "x y"], streams)


async def test_output_error_output_input_and_exit_code_are_passed_on() -> None:
    async def script(peer: Peer, request: Request) -> None:
        assert request.target == (
            "/api/v1/namespaces/shop/pods/web-1/exec?container=app&stdout=true&command=sh&command=-c&command=x+y"
            "&stdin=true&stderr=true"
        )
        assert (b"authorization", b"Bearer secret") in request.extra_headers
        assert request.subprotocols == ["v5.channel.k8s.io", "v4.channel.k8s.io"]
        peer.send(AcceptConnection(subprotocol="v5.channel.k8s.io"))
        assert (await peer.event()).data == b"\x00one"
        assert (await peer.event()).data == b"\x00two"
        assert (await peer.event()).data == b"\xff\x00", "the end of standard input"
        peer.send(BytesMessage(b"\x01out"))
        peer.send(BytesMessage(b"\x02er", message_finished=False))
        peer.send(BytesMessage(b"r"))
        peer.send(BytesMessage(b"\x03" + json.dumps(failure(7)).encode()))
        peer.send(CloseConnection(1000))

    streams = Streams(b"one", b"two")
    async with api(script) as config:
        assert await run(config, streams) == 7
    assert streams.written == {1: b"out", 2: b"err"}


async def test_a_refusal_is_the_apis_error() -> None:
    async def script(peer: Peer, request: Request) -> None:
        body = b'{"kind":"Status","reason":"Forbidden","message":"pods/exec is not for you"}'
        peer.send(
            RejectConnection(status_code=403, headers=[(b"content-length", b"%d" % len(body))], has_body=True)
        )
        peer.send(RejectData(body))

    async with api(script) as config:
        with pytest.raises(ApiError) as raised:
            await run(config, Streams(stdin=False))
    assert (raised.value.status, raised.value.message) == (403, "pods/exec is not for you")


async def test_a_connection_that_breaks_off_is_told() -> None:
    async def script(peer: Peer, request: Request) -> None:
        peer.send(AcceptConnection(subprotocol="v5.channel.k8s.io"))
        peer.send(BytesMessage(b"\x01half"))

    async with api(script) as config:
        with pytest.raises(Unreachable):
            await run(config, Streams(stdin=False))


async def test_a_close_without_a_status_is_told() -> None:
    async def script(peer: Peer, request: Request) -> None:
        peer.send(AcceptConnection(subprotocol="v4.channel.k8s.io"))
        peer.send(CloseConnection(1000))
        await peer.event()

    async with api(script) as config:
        with pytest.raises(Unreachable, match="before the command had ended"):
            await run(config, Streams(b"x"))
