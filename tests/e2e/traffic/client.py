"""A pod's client: `client.py VERB AUTHORITY …` prints one JSON object; `VERBS` has them all.

Where nothing is captured it goes through the sidecar as any client that honours `http_proxy` does.
"""

import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

SERVICE = "tulle.test.Traffic"
# Seconds: longer than both sidecars may wait for bytes that never come.
PATIENCE = 25.0


def connect(authority: str) -> socket.socket:
    """Open a TCP connection to an authority, by CONNECT where there is a proxy."""
    host, _, port = authority.rpartition(":")
    proxy = urlsplit(os.environ.get("http_proxy", ""))
    if not proxy.hostname:
        return socket.create_connection((host, int(port)), timeout=PATIENCE)
    connection = socket.create_connection((proxy.hostname, proxy.port or 80), timeout=PATIENCE)
    connection.sendall(f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = connection.recv(1)
        if not part:
            raise ConnectionError(head.decode() or "closed")
        head += part
    if b" 200 " not in head.splitlines()[0]:
        raise ConnectionError(head.decode())
    return connection


def grpc_calls(authority: str) -> dict[str, Any]:
    """Call each kind of method."""
    import grpc

    with grpc.insecure_channel(authority) as channel:
        seen: dict[str, Any] = {}
        call: Any = channel.unary_unary(f"/{SERVICE}/Unary")
        answer, state = call.with_call(b"hello", timeout=30)
        seen["unary"] = [answer.decode(), dict(state.trailing_metadata())]
        try:
            fail: Any = channel.unary_unary(f"/{SERVICE}/Fail")
            fail(b"", timeout=30)
        except grpc.RpcError as error:
            seen["fail"] = [error.code().name, error.details(), dict(_pairs(error))]
        count: Any = channel.unary_stream(f"/{SERVICE}/Count")
        stream = count(b"1000", timeout=20)
        seen["stream"] = sum(int(message) for message in stream)
        seen["stream trailers"] = dict(stream.trailing_metadata())
        # Each message goes out when the answer to the one before has come: nothing may wait for an end.
        heard = threading.Semaphore(1)

        def questions() -> Any:
            for number in range(100):
                heard.acquire()
                yield str(number).encode()

        answers = []
        echo: Any = channel.stream_stream(f"/{SERVICE}/Echo")
        for message in echo(questions(), timeout=20):
            answers.append(message.decode())
            heard.release()
        seen["bidi"] = [len(answers), answers[-1]]
        # The server hears of a client that leaves in the middle, and the connection lives on.
        abandoned = count(b"10000000", timeout=20)
        next(abandoned)
        abandoned.cancel()
        seen["after a cancel"] = call(b"again", timeout=30).decode()
        return seen


def _pairs(error: Any) -> Any:
    return error.trailing_metadata()


def grpc_denied(authority: str) -> dict[str, Any]:
    """Call once and tell the status."""
    import grpc

    with grpc.insecure_channel(authority) as channel:
        try:
            call: Any = channel.unary_unary(f"/{SERVICE}/Unary")
            call(b"hello", timeout=30)
        except grpc.RpcError as error:
            return {"code": error.code().name, "details": error.details(), **dict(_pairs(error))}
        return {"code": "OK"}


def mark(authority: str, marker: str) -> dict[str, Any]:
    """Call once with a marker in the message and in a header."""
    import grpc

    with grpc.insecure_channel(authority) as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/Unary")
        try:
            return {"echo": call(marker.encode(), timeout=30, metadata=(("x-marker", marker),)).decode()}
        except grpc.RpcError as error:
            return {"error": str(error)}


def websocket(authority: str) -> dict[str, Any]:
    """Upgrade and exchange messages; in the open, as a client without CONNECT does."""
    from wsproto import ConnectionType, WSConnection
    from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage

    host, _, port = authority.rpartition(":")
    proxy = urlsplit(os.environ.get("http_proxy", ""))
    address = (proxy.hostname, proxy.port or 80) if proxy.hostname else (host, int(port))
    connection = socket.create_connection(address, timeout=30)
    peer = WSConnection(ConnectionType.CLIENT)
    connection.sendall(peer.send(Request(host=authority, target="/ws")))
    messages: list[str] = []
    text = ""
    while data := connection.recv(65536):
        peer.receive_data(data)
        for event in peer.events():
            match event:
                case AcceptConnection():
                    connection.sendall(peer.send(TextMessage(data="0")))
                case TextMessage():
                    text += event.data
                    if event.message_finished:
                        messages.append(text)
                        text = ""
                        connection.sendall(peer.send(_after(len(messages))))
                case CloseConnection():
                    longest = max(map(len, messages))
                    return {"messages": [m[:20] for m in messages], "closed": True, "longest": longest}
                case _:
                    return {"event": str(event)}
    return {"messages": messages, "closed": False}


def _after(messages: int) -> Any:
    """What follows on so many echoes: numbers, one long message, the end."""
    from wsproto.events import CloseConnection, TextMessage

    if messages == 50:
        return CloseConnection(code=1000)
    return TextMessage(data="x" * 100_000 if messages == 49 else str(messages))


def expect(authority: str) -> dict[str, Any]:
    """Send a body only when told to go on; tell the statuses and how long leave took."""
    with connect(authority) as connection, connection.makefile("rwb") as stream:
        head = "POST /echo HTTP/1.1\r\nHost: {}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        stream.write(head.format(authority).encode())
        stream.flush()
        started = time.monotonic()
        interim, _ = _head(stream)
        after = time.monotonic() - started
        stream.write(b"hello")
        stream.flush()
        final, fields = _head(stream)
        body = stream.read(int(fields["content-length"])).decode()
        return {"statuses": [interim, final], "seconds": after, "body": body}


def ask(authority: str, target: str, host: str) -> dict[str, Any]:
    """Ask for a target as it is written here, with this Host."""
    with connect(authority) as connection, connection.makefile("rwb") as stream:
        stream.write(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        stream.flush()
        status, fields = _head(stream)
        return {"status": status, "fields": fields}


def early(authority: str, megabytes: str) -> dict[str, Any]:
    """Send a large body to a server that answers before it has read it; tell the answer and how much was sent."""
    length, sent = int(megabytes) << 20, 0
    with connect(authority) as connection, connection.makefile("rb") as stream:
        head = f"POST /early HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {length}\r\n\r\n"
        try:
            connection.sendall(head.encode())
            while sent < length:
                sent += connection.send(bytes(min(65536, length - sent)))
        except OSError:
            # A proxy may close behind its answer, which is there to be read all the same.
            pass
        status, fields = _head(stream)
        body = stream.read(int(fields["content-length"])).decode()
        return {"status": status, "body": body, "whole": sent == length}


def _head(stream: Any) -> tuple[int, dict[str, str]]:
    """Read the head of an answer."""
    status = int(stream.readline().split()[1])
    fields: dict[str, str] = {}
    while line := stream.readline().decode().strip():
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    return status, fields


def greet(authority: str) -> dict[str, Any]:
    """Wait for the server to speak first, then exchange lines."""
    started = time.monotonic()
    with connect(authority) as connection, connection.makefile("rwb") as stream:
        greeting = stream.readline().decode().strip()
        after = time.monotonic() - started
        stream.write(b"hello\r\n")
        stream.flush()
        return {"greeting": greeting, "seconds": after, "echo": stream.readline().decode().strip()}


def hold(authority: str, seconds: str) -> dict[str, Any]:
    """Exchange a line every 50 ms on one connection; tell how long it lived."""
    until, lines = time.monotonic() + float(seconds), 0
    with connect(authority) as connection, connection.makefile("rwb") as stream:
        stream.readline()
        while time.monotonic() < until:
            stream.write(b"still there\r\n")
            stream.flush()
            if stream.readline() != b"echo still there\r\n":
                return {"lines": lines, "broken": True}
            lines += 1
            time.sleep(0.05)
    return {"lines": lines, "broken": False}


def load(authority: str, seconds: str, workers: str = "4") -> dict[str, Any]:
    """Send requests in closed loops on kept connections; count the answers and what they lack."""
    host, _, port = authority.rpartition(":")
    proxy = urlsplit(os.environ.get("http_proxy", ""))
    until = time.monotonic() + float(seconds)
    statuses: Counter[str] = Counter()
    failures: list[str] = []
    start = time.monotonic()

    def loop() -> None:
        connection = HTTPConnection(proxy.hostname or host, proxy.port or int(port), timeout=30)
        while time.monotonic() < until:
            try:
                connection.request("GET", "/", headers={"Host": authority})
                answer = connection.getresponse()
                body = answer.read().decode()
                statuses[f"{answer.status} {body}" if answer.status == 200 else str(answer.status)] += 1
                if answer.status != 200:
                    why = answer.headers.get("tulle-reason"), answer.headers.get("l5d-proxy-error")
                    failures.append(f"{time.monotonic() - start:.2f} s: {answer.status} {why}")
            except (OSError, HTTPException) as error:
                connection.close()
                statuses["error"] += 1
                failures.append(f"{time.monotonic() - start:.2f} s: {error!r}")
            time.sleep(0.002)

    threads = [threading.Thread(target=loop) for _ in range(int(workers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"total": sum(statuses.values()), "statuses": dict(statuses), "failures": failures[:20]}


def grpc_load(authority: str, seconds: str, workers: str = "1") -> dict[str, Any]:
    """Call in closed loops on one channel; the same report."""
    import grpc

    until, start = time.monotonic() + float(seconds), time.monotonic()
    statuses: Counter[str] = Counter()
    failures: list[str] = []

    def loop(call: Any) -> None:
        while time.monotonic() < until:
            try:
                call(b"hello", timeout=30)
                statuses["200 OK"] += 1
            except grpc.RpcError as error:
                statuses[error.code().name] += 1
                heard = dict(_pairs(error)) | dict(error.initial_metadata())  # type: ignore[attr-defined]
                failures.append(f"{time.monotonic() - start:.2f} s: {error.details()} {heard}")
            time.sleep(0.002)

    with grpc.insecure_channel(authority) as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/Unary")
        threads = [threading.Thread(target=loop, args=(call,)) for _ in range(int(workers))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return {"total": sum(statuses.values()), "statuses": dict(statuses), "failures": failures[:20]}


VERBS: dict[str, Any] = {
    "grpc": grpc_calls,
    "deny": grpc_denied,
    "mark": mark,
    "websocket": websocket,
    "expect": expect,
    "ask": ask,
    "early": early,
    "greet": greet,
    "hold": hold,
    "load": load,
    "grpc-load": grpc_load,
}
try:
    outcome: dict[str, Any] = VERBS[sys.argv[1]](*sys.argv[2:])
except (OSError, ConnectionError) as error:
    outcome = {"error": str(error)}
sys.stdout.write(json.dumps(outcome) + "\n")
