"""The connection side of the server: uvicorn's HTTP and WebSocket protocols with client certificates and limits.

uvicorn does not show the application the client's certificate, and does not bound the head of a request or the time
it takes; both are added here by overriding its callbacks, nothing else.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

__all__ = ["HEAD_SECONDS", "MAX_HEAD", "ApiProtocol", "ApiWebSocket"]

MAX_HEAD = 64 * 1024
"""Bytes of a request's URL and headers together."""

HEAD_SECONDS = 30.0
"""Time for a client to send the head of a request, from the connection's or the request's first byte."""


class ApiProtocol(HttpToolsProtocol):
    """One HTTP/1.1 connection."""

    head_seconds = HEAD_SECONDS
    _head_size = 0
    _head_timer: asyncio.TimerHandle | None = None
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember whom the client's certificate names, for all requests of the connection."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        self.app_state = {**self.app_state, "client_certificate": certificate}
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._forget_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Start counting the head of a request."""
        super().on_message_begin()
        self._head_size = 0
        self._await_head()

    def on_url(self, url: bytes) -> None:
        """Count the URL."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        super().on_header(name, value)
        self._count(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        """Go on only with a head of acceptable size."""
        self._forget_timer()
        if not self._refused:
            super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Read on, unless the request was refused already."""
        if not self._refused:
            super().data_received(data)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        if not self._refused:
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: clients that find no SPDY here try again without, and get their answer."""

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD and not self._refused:
            self._refused = True
            self._forget_timer()
            self._answer(b"431 Request Header Fields Too Large", b"the head of the request is too large\n")

    def _await_head(self) -> None:
        self._forget_timer()
        self._head_timer = self.loop.call_later(self.head_seconds, self._too_slow)

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        busy = self.cycle is not None and not self.cycle.response_complete
        if not busy and not self.transport.is_closing():
            self._refused = True
            self._answer(b"408 Request Timeout", b"the request did not arrive in time\n")

    def _answer(self, status: bytes, text: bytes) -> None:
        length = str(len(text)).encode()
        self.transport.write(
            b"HTTP/1.1 " + status + b"\r\ncontent-type: text/plain\r\ncontent-length: " + length
            + b"\r\nconnection: close\r\n\r\n" + text
        )  # fmt: skip
        self.transport.close()


class ApiWebSocket(WSProtocol):
    """One WebSocket; the connection's state (the client's certificate) comes from the HTTP protocol it began as."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.default_headers = []
