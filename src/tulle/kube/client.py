"""The port to a Kubernetes API: HTTPS with lightkube's configuration and credentials, answers as bytes.

Foreign exceptions end here: callers see `ApiError` (the API said no) or `Unreachable` (it did not answer).
"""

import contextlib
import os
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import yaml
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.core.exceptions import ConfigError

from tulle.errors import TulleError
from tulle.kube.kinds import Kind
from tulle.kube.reflector import Event, Page

__all__ = ["ApiError", "Client", "Unreachable", "load_config"]

SERVICE_ACCOUNT_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"
REQUEST_SECONDS = 10.0
LIST_SECONDS = 60.0
MAX_LINE_BYTES = 8 * 1024 * 1024
# A node that vanished without a FIN is noticed after about 35 s, long before the watch's own timeout.
KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


class ApiError(Exception):
    """The API answered with an error status."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 1.0) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message, self.retry_after = status, reason, message, retry_after


class Unreachable(Exception):
    """The API could not be reached, broke off, or answered with something that is not Kubernetes."""


class _Status(msgspec.Struct):
    reason: str = ""
    message: str = ""


class _ListMetadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str | None = msgspec.field(name="continue", default=None)


class _List(msgspec.Struct):
    metadata: _ListMetadata
    items: tuple[msgspec.Raw, ...] | None = None


class _Line(msgspec.Struct, gc=False):
    type: str
    object: msgspec.Raw


def load_config(kubeconfig: str | None = None, context: str | None = None) -> SingleConfig:
    """Choose the API: the file given, else $KUBECONFIG, else the pod's service account, else ~/.kube/config.

    Raises `TulleError` when there is none or it cannot be read.
    """
    path = kubeconfig or os.environ.get("KUBECONFIG")
    account = os.environ.get("TULLE_SERVICE_ACCOUNT_DIR", SERVICE_ACCOUNT_DIR)
    try:
        if path:
            config = KubeConfig.from_file(path)
        elif os.environ.get("KUBERNETES_SERVICE_HOST") and Path(account, "token").exists():
            config = KubeConfig.from_service_account(account)
        else:
            config = KubeConfig.from_file("~/.kube/config")
        chosen = config.get(context) if context else config.get()
    except (ConfigError, OSError, yaml.YAMLError, msgspec.MsgspecError) as error:
        raise _no_config(path, str(error)) from error
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:  # what lightkube raises for other shapes
        raise _no_config(path, f"it is not a kubeconfig: {error}") from error
    if chosen is None:
        raise _no_config(path, "the kubeconfig has no current context")
    return chosen


def _no_config(path: str | None, why: str) -> TulleError:
    return TulleError(
        f"no Kubernetes API to talk to: {path or 'neither a pod service account nor ~/.kube/config'}",
        why,
        "give --kubeconfig FILE, or start one with `tulle up`",
    )


class Client:
    """A connection pool to one API. Use as an async context manager."""

    def __init__(self, config: SingleConfig) -> None:
        if config.user is None:
            raise _no_config(None, f"context {config.context_name!r} names no user")
        transport = httpx2.AsyncHTTPTransport(
            verify=verify_cluster(config.cluster, config.user, config.abs_file, trust_env=False),
            trust_env=False,
            limits=httpx2.Limits(max_connections=64, max_keepalive_connections=32, keepalive_expiry=30.0),
            socket_options=KEEPALIVE,
        )
        self.server = config.cluster.server
        self._http = httpx2.AsyncClient(
            base_url=config.cluster.server,
            auth=user_auth(config.user),
            transport=transport,
            timeout=REQUEST_SECONDS,
            trust_env=False,
            headers={"User-Agent": "tulle", "Accept": "application/json"},
        )

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._http.aclose()

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        **params: str,
    ) -> bytes:
        """Send one request and return the body. Raises ApiError or Unreachable."""
        content = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": content_type} if content is not None else {}
        try:
            response = await self._http.request(method, path, content=content, params=params, headers=headers)
        except (httpx2.HTTPError, httpx2.StreamError, ConfigError, OSError) as error:
            raise Unreachable(_describe(error)) from error
        if response.status_code >= 400:
            raise _api_error(response.status_code, response.content, response.headers.get("retry-after"))
        return response.content

    async def stream(self, path: str, **params: str) -> AsyncGenerator[bytes, None]:
        """Yield a body as it comes, with no bound on the time between its pieces. Raises ApiError or Unreachable."""
        timeout = httpx2.Timeout(REQUEST_SECONDS, read=None)
        try:
            async with self._http.stream("GET", path, params=params, timeout=timeout) as response:
                if response.status_code >= 400:
                    body = await response.aread()
                    raise _api_error(response.status_code, body, response.headers.get("retry-after"))
                async with contextlib.aclosing(response.aiter_bytes()) as chunks:
                    async for chunk in chunks:
                        yield chunk
        except (httpx2.HTTPError, httpx2.StreamError, ConfigError, OSError) as error:
            raise Unreachable(_describe(error)) from error

    async def get(self, path: str) -> Any:
        """Fetch one object as plain data. Raises ApiError or Unreachable."""
        return _parse(await self.request("GET", path))

    async def create(self, path: str, body: Any) -> Any:
        """Create an object in the collection at `path`. Raises ApiError or Unreachable."""
        return _parse(await self.request("POST", path, body))

    async def update(self, path: str, body: Any) -> Any:
        """Replace an object; its resourceVersion must be current. Raises ApiError or Unreachable."""
        return _parse(await self.request("PUT", path, body))

    async def merge(self, path: str, body: Any, *, field_manager: str = "tulle-controller") -> Any:
        """Merge-patch an object. Raises ApiError or Unreachable."""
        content_type = "application/merge-patch+json"
        return _parse(
            await self.request("PATCH", path, body, content_type=content_type, fieldManager=field_manager)
        )

    async def list(self, kind: Kind, api_version: str, params: dict[str, str]) -> Page:
        """Fetch one page of a list of a kind, from all namespaces. Raises ApiError or Unreachable."""
        try:
            async with self._http.stream(
                "GET", kind.path(api_version), params=params, timeout=LIST_SECONDS
            ) as response:
                body = await response.aread()
        except (httpx2.HTTPError, httpx2.StreamError, ConfigError, OSError) as error:
            raise Unreachable(_describe(error)) from error
        if response.status_code >= 400:
            raise _api_error(response.status_code, body, response.headers.get("retry-after"))
        try:
            listed = msgspec.json.decode(body, type=_List)
        except msgspec.MsgspecError as error:
            raise Unreachable(f"the list of {kind} is not a Kubernetes list: {error}") from error
        return Page(listed.items or (), listed.metadata.resource_version, listed.metadata.continue_ or "")

    async def watch(
        self, kind: Kind, api_version: str, params: dict[str, str], *, silence: float
    ) -> AsyncGenerator[Event, None]:
        """Stream events; ends when the server ends it. Raises ApiError, or Unreachable also after `silence` seconds."""
        timeout = httpx2.Timeout(REQUEST_SECONDS, read=silence)
        try:
            async with self._http.stream(
                "GET", kind.path(api_version), params=params, timeout=timeout
            ) as response:
                if response.status_code >= 400:
                    raise _api_error(
                        response.status_code, await response.aread(), response.headers.get("retry-after")
                    )
                async with contextlib.aclosing(response.aiter_bytes()) as chunks:
                    rest = b""
                    async for chunk in chunks:
                        *lines, rest = (rest + chunk).split(b"\n")
                        for line in lines:
                            if line.strip():
                                yield _read_line(kind, line)
                        if len(rest) > MAX_LINE_BYTES:
                            raise Unreachable(f"a watch event of {kind} exceeds {MAX_LINE_BYTES} bytes")
                if rest.strip():
                    raise Unreachable(f"the watch of {kind} broke off in the middle of an event")
        except (httpx2.HTTPError, httpx2.StreamError, ConfigError, OSError) as error:
            raise Unreachable(_describe(error)) from error


def _read_line(kind: Kind, line: bytes) -> Event:
    try:
        read = msgspec.json.decode(line, type=_Line)
    except msgspec.MsgspecError as error:
        raise Unreachable(f"a watch event of {kind} is not Kubernetes JSON: {error}") from error
    return Event(read.type, read.object)


def _parse(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body) if body else {}
    except msgspec.MsgspecError as error:
        raise Unreachable(f"the API's answer is not JSON: {error}") from error


def _api_error(status: int, body: bytes, retry_after: str | None) -> ApiError:
    try:
        said = msgspec.json.decode(body, type=_Status)
    except msgspec.MsgspecError:
        said = _Status(message=body[:200].decode(errors="replace"))
    seconds = float(retry_after) if retry_after and retry_after.isdecimal() else 1.0
    return ApiError(status, said.reason, said.message, seconds)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
