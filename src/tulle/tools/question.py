"""A hypothetical request as a person writes it: `deploy/web`, `http://voting.default:80/path`, `Name: value`."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from tulle.errors import UsageError
from tulle.kube.words import WORKLOAD_KINDS
from tulle.tools.verdict import Request

__all__ = ["Question", "Workload", "parse_request", "parse_workload"]

# RFC 9110 §5.6.2.
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Workload:
    """Who sends."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Question:
    """Who sends what. `request.authority` is the name as the client uses it, `url` what was written."""

    workload: Workload
    request: Request
    url: str


def parse_workload(text: str, namespace: str) -> Workload:
    """Read `KIND/NAME` or `NAMESPACE/KIND/NAME`. Raises UsageError."""
    parts = text.split("/")
    if len(parts) == 3:
        namespace, *parts = parts
    if len(parts) == 2 and all(parts) and namespace:
        for kind, spellings in WORKLOAD_KINDS.items():
            if parts[0].lower() in spellings:
                return Workload(kind, namespace, parts[1])
    raise UsageError(
        f"--from {text}: not a workload",
        "",
        f"write KIND/NAME or NAMESPACE/KIND/NAME, with a kind among {', '.join(s[0] for s in WORKLOAD_KINDS.values())}",
    )


def parse_request(url: str, method: str | None, headers: tuple[str, ...]) -> Request:
    """Read a URL with scheme http (or none) or grpc, and `Name: value` headers. Raises UsageError."""
    text = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"--to {url}: {error}", "", "write http://NAME[:PORT]/PATH") from error
    if parts.scheme == "https":
        raise UsageError(
            f"--to {url}: a proxy sees only the bytes of the application's own TLS",
            "routes and methods inside it are nobody's but the server's",
            "leave the TLS to the mesh, and ask about http://",
        )
    if parts.scheme not in ("http", "grpc") or not parts.hostname or parts.username or parts.fragment:
        raise UsageError(
            f"--to {url}: not a request", "", "write http://NAME[:PORT]/PATH or grpc://NAME/SERVICE/METHOD"
        )
    grpc = parts.scheme == "grpc"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    read = [_header(header) for header in headers]
    if grpc:
        read.append(("content-type", "application/grpc"))
    verb = (method or ("POST" if grpc else "GET")).strip()
    if not TOKEN.fullmatch(verb):
        raise UsageError(f"--method {method}: not a method", "", "write GET, POST or the like")
    path = parts.path or "/"
    return Request(
        method=verb,
        authority=f"{host}:{port}" if port is not None else host,
        path=f"{path}?{parts.query}" if parts.query else path,
        headers=tuple(read),
        http2=grpc,
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not TOKEN.fullmatch(name):
        raise UsageError(f"--header {text}: not a header", "", "write NAME:VALUE")
    return name.lower(), value.strip()
