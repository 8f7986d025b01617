"""An HTTP/2 application to stand behind a sidecar: `python -m tests.http2.backend`, prints its port.

`/` answers 200 when the request is complete; `/early` when its head is; `/bytes/N` with N octets; `/hold` never;
`/stats` with how many requests began, were completed and were reset, as JSON.
"""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError

__all__: list[str] = []

STATS: Counter[str] = Counter()


class Application(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.paths: dict[int, str] = {}
        self.bodiless: set[int] = set()
        self.left: dict[int, bytes] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        STATS["connections"] += 1
        self.h2.initiate_connection()
        transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        try:
            for event in self.h2.receive_data(data):
                self.handle(event)
        except ProtocolError:
            STATS["protocol errors"] += 1
            self.transport.write(self.h2.data_to_send())
            self.transport.close()
            return
        self.transport.write(self.h2.data_to_send())

    def handle(self, event: Event) -> None:
        match event:
            case RequestReceived(stream_id=int(stream), headers=headers):
                STATS["began"] += 1
                fields = {str(name): str(value) for name, value in headers or []}
                path = self.paths[stream] = fields[":path"]
                if fields[":method"] == "HEAD":
                    self.bodiless.add(stream)
                if path == "/early":
                    self.answer(stream)
            case DataReceived(stream_id=int(stream), flow_controlled_length=int(length)):
                STATS["octets"] += length
                self.h2.acknowledge_received_data(length, stream)
            case StreamEnded(stream_id=int(stream)):
                STATS["complete"] += 1
                if self.paths.get(stream) not in ("/early", "/hold"):
                    self.answer(stream)
            case StreamReset(stream_id=int(stream)):
                STATS["reset"] += 1
                self.paths.pop(stream, None)
                self.left.pop(stream, None)
            case WindowUpdated():
                for stream in list(self.left):
                    self.pump(stream)
            case ConnectionTerminated():
                self.transport.close()

    def answer(self, stream: int) -> None:
        path = self.paths[stream]
        body = b"all is well"
        if path == "/stats":
            body = json.dumps(STATS).encode()
        elif path.startswith("/bytes/"):
            body = b"x" * int(path.removeprefix("/bytes/"))
        headers = [(":status", "200"), ("content-length", str(len(body)))]
        if stream in self.bodiless:
            self.bodiless.remove(stream)
            body = b""
        self.h2.send_headers(stream, headers, end_stream=not body)
        if body:
            self.left[stream] = body
            self.pump(stream)

    def pump(self, stream: int) -> None:
        with contextlib.suppress(ProtocolError):
            while body := self.left.get(stream):
                size = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
                if size <= 0:
                    return
                self.h2.send_data(stream, body[:size], end_stream=size >= len(body))
                self.left[stream] = body[size:]
            self.left.pop(stream, None)
            if self.paths.pop(stream, None) == "/early":
                self.h2.reset_stream(stream, ErrorCodes.NO_ERROR)


async def main(protocol: Callable[[], asyncio.Protocol]) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Application))
