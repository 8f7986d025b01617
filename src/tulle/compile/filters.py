"""An HTTPRoute's filters in the proxy API's words, for both directions.

A rule that asks for something the proxy does not do answers 500 and says so: to pass it on without the filter would be
to ignore what was written (Gateway API, HTTPRouteFilter). `refused_filters` is the one list of these.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tulle.api import http_route_pb2, http_types_pb2, inbound_pb2, outbound_pb2
from tulle.compile import messages
from tulle.kube.policy_objects import (
    BackendObject,
    Cors,
    Filter,
    Fraction,
    HeaderModifier,
    MirrorTo,
    PathModifier,
    Redirect,
    Rewrite,
)

__all__ = ["failure", "inbound_filters", "outbound_filters", "refused_filters"]

REDIRECTS = (301, 302, 303, 307, 308)
# RFC 9110, 5.1 and 5.5: a token; visible characters, blanks and opaque bytes.
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]{0,4096}")
HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
ORIGIN = re.compile(
    r"\*|[a-z][a-z0-9+.-]{0,31}://(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?"
)
MAX_INT32 = 2**31 - 1
CARRIED_OUT = frozenset(
    (
        "CORS",
        "RequestHeaderModifier",
        "RequestMirror",
        "RequestRedirect",
        "ResponseHeaderModifier",
        "URLRewrite",
    )
)
Modifier = TypeVar("Modifier", http_route_pb2.RequestHeaderModifier, http_route_pb2.ResponseHeaderModifier)


def refused_filters(filters: Iterable[Filter], *, inbound: bool) -> list[str]:
    """Name the filters that are not carried out, with the reason; requests that meet one are answered 500."""
    refused: list[str] = []
    for each in filters:
        match each.type:
            case "RequestHeaderModifier" if each.request_header_modifier is not None:
                refused.extend(_bad_headers(each.request_header_modifier))
            case "RequestRedirect" if each.request_redirect is not None:
                refused.extend(_bad_redirect(each.request_redirect))
            case "ResponseHeaderModifier" if each.response_header_modifier is not None:
                refused.extend(_bad_headers(each.response_header_modifier))
            case "URLRewrite" if each.url_rewrite is not None:
                refused.extend(_bad_rewrite(each.url_rewrite))
            case "RequestMirror" if inbound:
                refused.append("RequestMirror is not supported on routes of a Server: it has no backends")
            case "RequestMirror" if each.request_mirror is not None:
                refused.extend(_bad_mirror(each.request_mirror))
            case "CORS" if each.cors is not None:
                refused.extend(_bad_cors(each.cors))
            case other if other in CARRIED_OUT:
                refused.append(f"{each.type} without its field")
            case other:
                refused.append(f"{other} is not supported")
    return refused


def _bad_headers(modifier: HeaderModifier) -> Iterator[str]:
    for header in (*(modifier.set or ()), *(modifier.add or ())):
        if HEADER_NAME.fullmatch(header.name) is None:
            yield f"{header.name[:100]!r} is not a header name"
        if HEADER_VALUE.fullmatch(header.value) is None:
            yield f"the value of {header.name[:100]!r} has characters that headers may not have"
    for name in modifier.remove or ():
        if HEADER_NAME.fullmatch(name) is None:
            yield f"{name[:100]!r} is not a header name"


def _bad_redirect(redirect: Redirect) -> Iterator[str]:
    if redirect.status_code is not None and redirect.status_code not in REDIRECTS:
        yield f"RequestRedirect status {redirect.status_code} is not one of {', '.join(map(str, REDIRECTS))}"
    if redirect.port is not None and not 1 <= redirect.port <= 65535:
        yield f"RequestRedirect port {redirect.port} is not a port"
    yield from _bad_path("RequestRedirect", redirect.path)


def _bad_path(of: str, path: PathModifier | None) -> Iterator[str]:
    if path is not None and path.type not in ("ReplaceFullPath", "ReplacePrefixMatch"):
        yield f"{of} path {path.type!r} is not ReplaceFullPath or ReplacePrefixMatch"


def _bad_rewrite(rewrite: Rewrite) -> Iterator[str]:
    yield from _bad_path("URLRewrite", rewrite.path)
    if rewrite.hostname is not None and HOSTNAME.fullmatch(rewrite.hostname) is None:
        yield f"URLRewrite hostname {rewrite.hostname[:100]!r} is not a host name"
    if rewrite.hostname is None and rewrite.path is None:
        yield "URLRewrite changes neither hostname nor path"


def _bad_mirror(mirror: MirrorTo) -> Iterator[str]:
    if mirror.percent is not None and mirror.fraction is not None:
        yield "RequestMirror has both percent and fraction: give one"
    if mirror.percent is not None and not 0 <= mirror.percent <= 100:
        yield f"RequestMirror percent {mirror.percent} is not between 0 and 100"
    if mirror.fraction is not None:
        numerator, denominator = mirror.fraction.numerator, _denominator(mirror.fraction)
        if not 0 <= numerator <= denominator <= MAX_INT32 or denominator == 0:
            yield f"RequestMirror fraction {numerator}/{denominator} is not between 0 and 1"


def _bad_cors(cors: Cors) -> Iterator[str]:
    if not cors.allow_origins:
        yield "CORS without allowOrigins lets nobody in"
    for origin in cors.allow_origins or ():
        if ORIGIN.fullmatch(origin) is None:
            yield (
                f"CORS origin {origin[:100]!r} is not *, a scheme and host such as https://shop.example, "
                "or one with a wildcard such as https://*.example"
            )
    for names in (cors.allow_methods, cors.allow_headers, cors.expose_headers):
        for name in names or ():
            if HEADER_NAME.fullmatch(name) is None:
                yield f"CORS: {name[:100]!r} is neither * nor a name"
    if cors.max_age is not None and not 0 < cors.max_age <= MAX_INT32:
        yield f"CORS maxAge {cors.max_age} is not a number of seconds above 0"


def _denominator(fraction: Fraction) -> int:
    return 100 if fraction.denominator is None else fraction.denominator


def failure(status: int, message: str) -> http_route_pb2.HttpFailureInjector:
    """Return the filter that answers every request with an error."""
    always = http_route_pb2.Ratio(numerator=1, denominator=1)
    return http_route_pb2.HttpFailureInjector(status=status, message=message, ratio=always)


def outbound_filters(
    filters: Iterable[Filter],
    mirror: Callable[[BackendObject], outbound_pb2.Backend | None],
) -> list[outbound_pb2.HttpRoute.Filter]:
    """Encode a rule's or a backend's filters for the client's proxy.

    `mirror` finds the backend of a mirror, None where there is none: then nothing is copied, and the route's status
    says why (`ResolvedRefs`).
    """
    filters = tuple(filters)
    if refused := refused_filters(filters, inbound=False):
        return [outbound_pb2.HttpRoute.Filter(failure_injector=failure(500, "; ".join(refused)))]
    encoded = []
    for each in filters:
        message = outbound_pb2.HttpRoute.Filter()
        if each.request_mirror is not None:
            backend = mirror(each.request_mirror.backend_ref)
            if backend is None:
                continue
            message.mirror.backend.CopyFrom(backend)
            message.mirror.ratio.CopyFrom(_share(each.request_mirror))
        else:
            _encode(message, each)
        encoded.append(message)
    return encoded


def inbound_filters(filters: Iterable[Filter]) -> list[inbound_pb2.HttpRoute.Filter]:
    """Encode a rule's filters for the server's proxy."""
    filters = tuple(filters)
    if refused := refused_filters(filters, inbound=True):
        return [inbound_pb2.HttpRoute.Filter(failure_injector=failure(500, "; ".join(refused)))]
    encoded = []
    for each in filters:
        message = inbound_pb2.HttpRoute.Filter()
        _encode(message, each)
        encoded.append(message)
    return encoded


def _encode(message: outbound_pb2.HttpRoute.Filter | inbound_pb2.HttpRoute.Filter, each: Filter) -> None:
    """Encode a filter that both directions have."""
    if each.request_header_modifier is not None:
        _modify(message.request_header_modifier, each.request_header_modifier)
    elif each.response_header_modifier is not None:
        _modify(message.response_header_modifier, each.response_header_modifier)
    elif each.request_redirect is not None:
        message.redirect.CopyFrom(_redirect(each.request_redirect))
    elif each.url_rewrite is not None:
        message.url_rewrite.host = each.url_rewrite.hostname or ""
        if each.url_rewrite.path is not None:
            _set_path(message.url_rewrite.path, each.url_rewrite.path)
    elif each.cors is not None:
        message.cors.CopyFrom(_cors(each.cors))


def _share(mirror: MirrorTo) -> http_route_pb2.Ratio:
    if mirror.fraction is not None:
        return http_route_pb2.Ratio(
            numerator=mirror.fraction.numerator, denominator=_denominator(mirror.fraction)
        )
    return http_route_pb2.Ratio(numerator=100 if mirror.percent is None else mirror.percent, denominator=100)


def _cors(cors: Cors) -> http_route_pb2.Cors:
    message = http_route_pb2.Cors(
        allow_methods=cors.allow_methods or (),
        allow_headers=cors.allow_headers or (),
        expose_headers=cors.expose_headers or (),
        allow_credentials=cors.allow_credentials or False,
        max_age=messages.duration(5 if cors.max_age is None else cors.max_age),
    )
    for origin in cors.allow_origins or ():
        if "*" in origin and origin != "*":
            message.allow_origins.add(wildcard=origin)
        else:
            message.allow_origins.add(exact=origin)
    return message


def _modify(message: Modifier, modifier: HeaderModifier) -> None:
    message.SetInParent()
    for header in modifier.add or ():
        message.add.headers.add(name=header.name.lower(), value=header.value.encode())
    for header in modifier.set or ():
        message.set.headers.add(name=header.name.lower(), value=header.value.encode())
    message.remove.extend(name.lower() for name in modifier.remove or ())


def _redirect(redirect: Redirect) -> http_route_pb2.RequestRedirect:
    message = http_route_pb2.RequestRedirect(
        host=redirect.hostname or "", port=redirect.port or 0, status=redirect.status_code or 302
    )
    match (redirect.scheme or "").lower():
        case "":
            pass
        case "http":
            message.scheme.registered = http_types_pb2.Scheme.HTTP
        case "https":
            message.scheme.registered = http_types_pb2.Scheme.HTTPS
        case other:
            message.scheme.unregistered = other
    if redirect.path is not None:
        _set_path(message.path, redirect.path)
    return message


def _set_path(message: http_route_pb2.PathModifier, path: PathModifier) -> None:
    if path.type == "ReplaceFullPath":
        message.full = path.replace_full_path or "/"
    else:
        message.prefix = path.replace_prefix_match or "/"
