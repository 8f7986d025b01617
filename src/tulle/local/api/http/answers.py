"""Writing answers: JSON, YAML, Status objects, warnings. One ASGI exchange is one Exchange."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

import msgspec
import yaml

from tulle.kube.yaml import Loader
from tulle.local.api.errors import ApiError, bad_request, too_large
from tulle.local.api.registry import Registry
from tulle.local.api.wire.decoding import decode_object

__all__ = ["BODY_SECONDS", "MAX_BODY", "Exchange", "Receive", "Scope", "Send"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY = 3 * 1024 * 1024
"""Bytes of a request body."""

BODY_SECONDS = 60.0
"""Time for a client to send a request body."""


class Exchange:
    """One request and the answer to it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, registry: Registry) -> None:
        self.scope, self._receive, self._send, self._registry = scope, receive, send, registry
        self.started = False
        self.status = 0
        """The code that was answered; 0 when the client went away before."""
        self.verb, self.group, self.plural = "", "", ""
        self.warnings: list[str] = []

    def header(self, name: bytes) -> str:
        """Return a header's value, values of repeated headers joined; empty when absent."""
        return ", ".join(v.decode("latin-1") for n, v in self.scope["headers"] if n == name)

    async def body(self) -> bytes:
        """Read the whole body; raises 413 when it is too large, 408 when it does not arrive."""
        declared = self.header(b"content-length")
        if declared.isdigit() and int(declared) > MAX_BODY:
            raise too_large(MAX_BODY)
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ApiError(400, "BadRequest", "the request's body ended early")
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > MAX_BODY:
                        raise too_large(MAX_BODY)
                    if not message.get("more_body"):
                        return b"".join(chunks)
        except TimeoutError as error:
            raise ApiError(408, "Timeout", "the request's body did not arrive in time") from error

    async def document(self) -> Any:
        """Read the body as JSON, or as YAML when its type says so."""
        data = await self.body()
        kind = self.header(b"content-type").partition(";")[0].strip().lower()
        if kind in ("application/yaml", "application/apply-patch+yaml", "text/yaml"):
            return read_yaml(data)
        if kind == "application/vnd.kubernetes.protobuf":
            return decode_object(data, self._registry) if data else {}
        if kind.endswith("cbor"):
            types = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
            message = "the body of the request was in an unknown format - accepted media types include: "
            raise ApiError(415, "UnsupportedMediaType", message + types)
        return read_json(data)

    async def disconnected(self) -> None:
        """Return when the client has gone away."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(
        self, status: int, content_type: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        """Send the head of the answer."""
        self.started, self.status = True, status
        warned = [(b"warning", _warning(text)) for text in self.warnings[:50]]
        head = [(b"content-type", content_type), (b"cache-control", b"no-cache, private"), *warned, *headers]
        await self._send({"type": "http.response.start", "status": status, "headers": head})

    async def chunk(self, data: bytes, *, more: bool = True) -> None:
        """Send a piece of the answer's body; returns when the connection has room again."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def raw(
        self, data: bytes, status: int = 200, content_type: bytes = b"application/json",
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:  # fmt: skip
        """Send a whole answer."""
        await self.start(status, content_type, [(b"content-length", str(len(data)).encode()), *headers])
        await self.chunk(data, more=False)

    async def answer(
        self, obj: Any, status: int = 200, *, as_yaml: bool = False, content_type: bytes = b""
    ) -> None:
        """Send an object."""
        if as_yaml:
            await self.raw(yaml.safe_dump(obj, sort_keys=False).encode(), status, b"application/yaml")
        else:
            await self.raw(msgspec.json.encode(obj), status, content_type or b"application/json")

    async def refuse(self, error: ApiError) -> None:
        """Send a Status; when the answer has begun already, nothing but its end can be said."""
        if self.started:
            return
        headers = [] if error.retry_after is None else [(b"retry-after", str(error.retry_after).encode())]
        if error.code in (408, 413):
            headers.append((b"connection", b"close"))
        await self.raw(msgspec.json.encode(error.status), error.code, headers=headers)


def _warning(text: str) -> bytes:
    clean = "".join(c if c.isprintable() and ord(c) < 127 else " " for c in text)
    escaped = clean.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{escaped}"'.encode()


def read_json(data: bytes) -> Any:
    """Read JSON; raises 400 that says where it stops making sense."""
    if not data:
        return {}
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise bad_request(f"couldn't read the request's JSON: {error}") from error
    except RecursionError as error:
        raise bad_request("the request's JSON is nested too deeply") from error


def read_yaml(data: bytes) -> Any:
    """Read one YAML document without aliases (a few bytes of which can stand for gigabytes); raises 400."""
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data, Loader)):
            raise bad_request("YAML aliases are not accepted: write the value out")
        return yaml.load(data, Loader)
    except yaml.YAMLError as error:
        raise bad_request(f"error converting YAML to JSON: {error}") from error
    except RecursionError as error:
        raise bad_request("the request's YAML is nested too deeply") from error
