"""A pod's application: `server.py http|polite|grpc|greeter PORT`. Binds HOST and PORT where the pod is told them.

- `http`: `/` answers the pod's name, `/slow` after two seconds, a POST its body, one to `/early` 413 before it has read
  any; an upgrade to WebSocket echoes every message.
- `polite`: the same, and at SIGTERM it takes no more connections and ends when it has answered what it was asked.
- `grpc`: method names of service `tulle.test.Traffic` without generated code, messages are plain bytes.
- `polite-grpc`: the same, and at SIGTERM it answers what it is asked until nobody has asked for a while. `Server.stop`
  answers CANCELLED to calls that it has taken in and not begun, and nobody can tell that from an answer.
- `greeter`: the server speaks first: a line, then the echo of every line.
"""

import os
import signal
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SERVICE = "tulle.test.Traffic"
SLOW_SECONDS = 2.0
LONGEST_LAST_SECONDS = 5.0


class Http(BaseHTTPRequestHandler):
    """HTTP/1.1 with keep-alive."""

    protocol_version = "HTTP/1.1"
    # One write per answer.
    wbufsize = 65536

    def do_GET(self) -> None:
        """Answer by path."""
        if self.headers.get("upgrade", "").lower() == "websocket":
            return self._websocket()
        if self.path.startswith("/slow"):
            time.sleep(SLOW_SECONDS)
        self._answer(os.environ.get("NAME", "app").encode())

    def do_POST(self) -> None:
        """Answer with the body."""
        length = int(self.headers.get("content-length", 0))
        if self.path.endswith("/early"):
            self._answer(b"too much", 413)
            while length > 0 and (data := self.rfile.read1(min(length, 65536))):
                length -= len(data)
            return
        self._answer(self.rfile.read(length))

    def handle_expect_100(self) -> bool:
        """Give leave at once."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def _answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name in ("host", "x-marker", "l5d-client-id"):
            if name in self.headers:
                self.send_header(f"seen-{name}", self.headers[name])
        # Octet by octet: both ways as ISO 8859-1.
        self.send_header("seen-target", self.path)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _websocket(self) -> None:
        from wsproto import ConnectionType, WSConnection
        from wsproto.events import AcceptConnection, CloseConnection, Ping, Request, TextMessage

        websocket = WSConnection(ConnectionType.SERVER)
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        websocket.receive_data(f"GET {self.path} HTTP/1.1\r\n{head}\r\n".encode())
        self.close_connection = True
        text = ""
        while True:
            for event in websocket.events():
                match event:
                    case Request():
                        self.connection.sendall(websocket.send(AcceptConnection()))
                    case TextMessage():
                        text += event.data
                        if event.message_finished:
                            self.connection.sendall(websocket.send(TextMessage(data=f"echo {text}")))
                            text = ""
                    case Ping():
                        self.connection.sendall(websocket.send(event.response()))
                    case CloseConnection():
                        self.connection.sendall(websocket.send(event.response()))
                        return
                    case _:
                        pass
            data = self.connection.recv(65536)
            if not data:
                return
            websocket.receive_data(data)

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""


class Http1Server(ThreadingHTTPServer):
    """Takes a burst of connections."""

    request_queue_size = 256
    daemon_threads = True


class Polite(Http):
    """Counts the requests under way."""

    under_way = 0
    counting = threading.Lock()

    def handle_one_request(self) -> None:
        """Count a request from its first bytes to its answer; after SIGTERM the connection ends with it."""
        if not self.rfile.peek(1):  # type: ignore[attr-defined]
            self.close_connection = True
            return
        with Polite.counting:
            Polite.under_way += 1
        try:
            super().handle_one_request()
        finally:
            with Polite.counting:
                Polite.under_way -= 1


def serve_politely(address: tuple[str, int]) -> None:
    """Serve until SIGTERM, then until every request has been answered."""
    server = Http1Server(address, Polite)
    # `shutdown` waits for `serve_forever`, which runs in this very thread.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    server.socket.close()
    quiet = 0
    while quiet < 5:
        quiet = quiet + 1 if Polite.under_way == 0 else 0
        time.sleep(0.05)


class Greeter(socketserver.StreamRequestHandler):
    """Speaks first."""

    def handle(self) -> None:
        """Greet and echo lines until the client leaves."""
        self.wfile.write(f"220 {os.environ.get('NAME', 'app')} greets you\r\n".encode())
        for line in self.rfile:
            self.wfile.write(b"echo " + line)


class TcpServer(socketserver.ThreadingTCPServer):
    """Takes a burst of connections."""

    allow_reuse_address = daemon_threads = True


def serve_grpc(host: str, port: int, *, quiet_seconds: float = 0) -> None:
    """Serve unary, server-streaming and bidirectional methods of bytes."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    last_call = time.monotonic()

    def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
        nonlocal last_call
        last_call = time.monotonic()
        context.set_trailing_metadata((("x-trailer", "after the message"),))
        return b"echo " + request

    def fail(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("x-trailer", "after a failure"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today: ünïcode")

    def count(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for number in range(int(request)):
            yield str(number).encode()
        context.set_trailing_metadata((("x-trailer", "after the stream"),))

    def echo(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield b"echo " + request

    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
    }
    server = grpc.server(ThreadPoolExecutor(32))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_insecure_port(f"{host}:{port}")
    server.start()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    until = time.monotonic() + LONGEST_LAST_SECONDS
    while time.monotonic() < min(until, last_call + quiet_seconds):
        time.sleep(0.01)
    server.stop(grace=5).wait()


def main(kind: str, port: str) -> None:
    """Serve until killed."""
    address = (os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", port)))
    match kind:
        case "http":
            Http1Server(address, Http).serve_forever()
        case "polite":
            serve_politely(address)
        case "grpc":
            serve_grpc(*address)
        case "polite-grpc":
            serve_grpc(*address, quiet_seconds=0.25)
        case "greeter":
            TcpServer(address, Greeter).serve_forever()
        case _:
            raise SystemExit(f"unknown kind {kind}")


main(*sys.argv[1:])
