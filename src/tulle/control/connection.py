"""One HTTP connection to the control plane, with the two bounds that uvicorn lacks: the size and the time of a request.

Bytes are counted as they come in, before the parser sees them, so that a header without end is noticed as well. The
application bounds the body; here it only has to arrive in time.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["MAX_HEAD", "REQUEST_SECONDS", "BoundedHttp"]

MAX_HEAD = 64 * 1024
REQUEST_SECONDS = 15.0


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol; a request that is too large or too slow is answered and its connection closed."""

    _head_bytes = 0
    _in_body = False
    _closed = False
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head, then parse it."""
        if self._closed:
            return
        if not self._in_body:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD + 65_536:  # a read may hold the head and the beginning of the body
                self._end(b"431 Request Header Fields Too Large")
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request begins: its time runs."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._in_body, self._head_bytes = True, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is complete; uvicorn's own timeout watches over the pause until the next."""
        self._in_body, self._head_bytes = False, 0
        self._stop_waiting()
        super().on_message_complete()

    def _wait(self) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self._end, b"408 Request Timeout")

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self, status: bytes) -> None:
        self._stop_waiting()
        self._closed = True
        if not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
            self.transport.close()
