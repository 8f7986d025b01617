"""A small HTTP/1.1 server for the example's pages: keep-alive, GET and POST without a body to speak of.

The example shows the mesh, not a web framework; what faces the world in a real application is a real server.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

__all__ = ["Answer", "serve_http"]

MAX_HEAD = 16 * 1024
MAX_BODY = 64 * 1024
IDLE_SECONDS = 75
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(frozen=True)
class Answer:
    """A response: status, content type and body."""

    status: int
    content_type: str
    body: bytes


async def serve_http(host: str, port: int, handle: Callable[[str, str], Awaitable[Answer]]) -> None:
    """Serve `handle(method, target) → Answer` on host:port until cancelled."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await _exchange(reader, writer, handle):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass  # the peer went away or sends what is not HTTP: closing is the answer
        finally:
            writer.close()

    server = await asyncio.start_server(connection, host, port, limit=MAX_HEAD)
    async with server:
        await server.serve_forever()


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    handle: Callable[[str, str], Awaitable[Answer]],
) -> bool:
    """Answer one request; return whether the connection stays open."""
    async with asyncio.timeout(IDLE_SECONDS):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request_line, *lines = head.split("\r\n")
    method, _, rest = request_line.partition(" ")
    target = rest.partition(" ")[0]
    fields = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    length = fields.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY or "transfer-encoding" in fields:
        answer, keep = Answer(400, "text/plain", b"this example takes no such body\n"), False
    else:
        await reader.readexactly(int(length))
        answer, keep = await handle(method, target), fields.get("connection", "").lower() != "close"
    closing = "" if keep else "connection: close\r\n"
    writer.write(
        (
            f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Status')}\r\n"
            f"content-type: {answer.content_type}\r\ncontent-length: {len(answer.body)}\r\n"
            f"{closing}\r\n"
        ).encode()
        + (b"" if method == "HEAD" else answer.body)
    )
    await writer.drain()
    return keep
