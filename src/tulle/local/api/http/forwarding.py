"""Port forwarding to a pod, in the two forms that clients speak over a WebSocket.

kubectl tunnels SPDY streams: per connection an error stream and a data stream, paired by their `requestid`.
The channel form has two channels per port (2n data, 2n+1 what went wrong) and one connection per port.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from tulle.local.api.errors import ApiError, bad_request
from tulle.local.api.http.answers import Receive, Scope, Send
from tulle.local.api.http.channels import accept
from tulle.local.api.http.spdy import Data, Ping, Reset, SpdyError, SpdyFrames, StreamOpened
from tulle.local.api.nodeport import NodePort

__all__ = ["forward"]

TUNNEL = "SPDY/3.1+portforward.k8s.io"
PROTOCOLS = (TUNNEL, "v4.channel.k8s.io", "portforward.k8s.io", "v4.portforward.k8s.io")
READ_BYTES = 32 * 1024
MAX_CONNECTIONS = 128
"""Connections through one port-forward at a time."""
WAITING_CHUNKS = 64
"""Pieces of data that wait for one slow pod; then the whole tunnel waits with them."""


async def forward(
    node: NodePort, address: str, ports: Sequence[int], scope: Scope, receive: Receive, send: Send
) -> None:
    """Forward connections to a pod's address until the client goes away."""
    if TUNNEL in (scope.get("subprotocols") or ()):
        await accept(scope, receive, send, PROTOCOLS)
        await _Tunnel(node, address, receive, send).run()
    else:
        await _forward_channels(node, address, ports, scope, receive, send)


# --- SPDY ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Connection:
    """One forwarded connection: its streams, and what the client sent on it (None: it sends no more)."""

    error_stream: int = 0
    data_stream: int = 0
    port: int = 0
    incoming: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(WAITING_CHUNKS))


class _Tunnel:
    """The SPDY connection inside one WebSocket."""

    def __init__(self, node: NodePort, address: str, receive: Receive, send: Send) -> None:
        self._node, self._address, self._receive, self._send = node, address, receive, send
        self._frames = SpdyFrames()
        self._by_request: dict[str, _Connection] = {}
        self._by_stream: dict[int, _Connection] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                message = await self._receive()
                if message["type"] == "websocket.disconnect":
                    break
                try:
                    for event in self._frames.receive(message.get("bytes") or b""):
                        await self._on(event, tasks)
                except SpdyError as error:
                    await self._send({"type": "websocket.close", "code": 1002, "reason": str(error)[:120]})
                    break
            for task in self._tasks.values():
                task.cancel()

    async def _on(self, event: StreamOpened | Data | Reset | Ping, tasks: asyncio.TaskGroup) -> None:
        match event:
            case Ping(number):
                await self._write(self._frames.pong(number))
            case StreamOpened(stream, headers, _):
                await self._open(stream, dict(headers), tasks)
            case Data(stream, data, finished):
                connection = self._by_stream.get(stream)
                if connection is not None and stream == connection.data_stream:
                    if data:
                        await connection.incoming.put(data)
                    if finished:
                        await connection.incoming.put(None)
            case Reset(stream):
                task = self._tasks.get(stream)
                if task is not None:
                    task.cancel()

    async def _open(self, stream: int, headers: dict[str, str], tasks: asyncio.TaskGroup) -> None:
        kind, request, port = headers.get("streamtype"), headers.get("requestid", ""), headers.get("port", "")
        if kind not in ("error", "data") or not port.isdigit() or not 0 < int(port) < 65536:
            raise SpdyError(f"a stream that is neither data nor error of a port: {headers}")
        if len(self._by_request) >= MAX_CONNECTIONS and request not in self._by_request:
            raise SpdyError(f"more than {MAX_CONNECTIONS} connections at a time")
        connection = self._by_request.setdefault(request, _Connection())
        connection.port = int(port)
        self._by_stream[stream] = connection
        await self._write(self._frames.reply(stream))
        if kind == "error":
            connection.error_stream = stream
        else:
            connection.data_stream = stream
            self._tasks[stream] = tasks.create_task(self._serve(request, connection))

    async def _serve(self, request: str, connection: _Connection) -> None:
        try:
            trouble = await self._relay(connection)
            await self._write(self._frames.data(connection.data_stream, b"", finished=True))
            if connection.error_stream:
                await self._write(self._frames.data(connection.error_stream, trouble.encode(), finished=True))
        finally:
            self._tasks.pop(connection.data_stream, None)
            self._by_request.pop(request, None)
            for stream in (connection.data_stream, connection.error_stream):
                self._by_stream.pop(stream, None)

    async def _relay(self, connection: _Connection) -> str:
        """Carry bytes both ways until both ends are done; return what went wrong, or an empty text."""
        try:
            reader, writer = await self._node.dial_inside(self._address, connection.port)
        except OSError as error:
            return f"failed to connect to {self._address}:{connection.port} inside the pod's network: {error}"
        trouble = ""
        try:
            async with asyncio.TaskGroup() as tasks:
                feeding = tasks.create_task(_feed(writer, connection.incoming))
                while data := await reader.read(READ_BYTES):
                    await self._write(self._frames.data(connection.data_stream, data))
                feeding.cancel()
        except* OSError as errors:
            trouble = f"the connection to port {connection.port} broke: {errors.exceptions[0]}"
        finally:
            writer.close()
        return trouble

    async def _write(self, frame: bytes) -> None:
        await self._send({"type": "websocket.send", "bytes": frame})


async def _feed(writer: asyncio.StreamWriter, incoming: "asyncio.Queue[bytes | None]") -> None:
    while (data := await incoming.get()) is not None:
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


# --- channels -----------------------------------------------------------------------------------------------------

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _forward_channels(
    node: NodePort, address: str, ports: Sequence[int], scope: Scope, receive: Receive, send: Send
) -> None:
    if not ports or len(ports) > MAX_CONNECTIONS or any(not 0 < port < 65536 for port in ports):
        raise bad_request('query parameter "ports" is required: a list of port numbers')
    connections: list[_Streams] = []
    try:
        for port in ports:
            try:
                connections.append(await node.dial_inside(address, port))
            except OSError as error:
                raise ApiError(
                    503, "ServiceUnavailable", f"cannot connect to port {port}: {error}"
                ) from error
        await accept(scope, receive, send, PROTOCOLS)
        for index, port in enumerate(ports):
            for channel in (2 * index, 2 * index + 1):
                number = bytes((channel,)) + port.to_bytes(2, "little")
                await send({"type": "websocket.send", "bytes": number})
        async with asyncio.TaskGroup() as tasks:
            pumps = [
                tasks.create_task(_pump(reader, send, 2 * index))
                for index, (reader, _) in enumerate(connections)
            ]
            await _distribute(connections, receive)
            for pump in pumps:
                pump.cancel()
    finally:
        for _, writer in connections:
            writer.close()


async def _pump(reader: asyncio.StreamReader, send: Send, channel: int) -> None:
    while data := await reader.read(READ_BYTES):
        await send({"type": "websocket.send", "bytes": bytes((channel,)) + data})


async def _distribute(connections: Sequence[_Streams], receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        data = message.get("bytes") or b""
        if len(data) > 1 and data[0] % 2 == 0 and data[0] // 2 < len(connections):
            writer = connections[data[0] // 2][1]
            writer.write(data[1:])
            await writer.drain()
