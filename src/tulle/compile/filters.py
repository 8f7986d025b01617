"""An HTTPRoute's filters in the proxy API's words, for both directions.

A rule that asks for something the proxy does not do answers 500 and says so: to pass it on without the filter would be
to ignore what was written (Gateway API, HTTPRouteFilter). `refused_filters` is the one list of these.
"""

import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tulle.api import http_route_pb2, http_types_pb2, inbound_pb2, outbound_pb2
from tulle.kube.policy_objects import Filter, HeaderModifier, HTTPRoute, Redirect

__all__ = ["failure", "inbound_filters", "outbound_filters", "refused_filters"]

REDIRECTS = (301, 302, 303, 307, 308)
# RFC 9110, 5.1 and 5.5: a token; visible characters, blanks and opaque bytes.
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]{0,4096}")
Modifier = TypeVar("Modifier", http_route_pb2.RequestHeaderModifier, http_route_pb2.ResponseHeaderModifier)


def refused_filters(route: HTTPRoute, filters: Iterable[Filter], *, inbound: bool) -> list[str]:
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
                if inbound:
                    refused.append("ResponseHeaderModifier is not supported on routes of a Server")
            case "RequestHeaderModifier" | "RequestRedirect" | "ResponseHeaderModifier":
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
    if redirect.path is not None and redirect.path.type not in ("ReplaceFullPath", "ReplacePrefixMatch"):
        yield f"RequestRedirect path {redirect.path.type!r} is not ReplaceFullPath or ReplacePrefixMatch"


def failure(status: int, message: str) -> http_route_pb2.HttpFailureInjector:
    """Return the filter that answers every request with an error."""
    always = http_route_pb2.Ratio(numerator=1, denominator=1)
    return http_route_pb2.HttpFailureInjector(status=status, message=message, ratio=always)


def outbound_filters(route: HTTPRoute, filters: Iterable[Filter]) -> list[outbound_pb2.HttpRoute.Filter]:
    """Encode a rule's or a backend's filters for the client's proxy."""
    filters = tuple(filters)
    if refused := refused_filters(route, filters, inbound=False):
        return [outbound_pb2.HttpRoute.Filter(failure_injector=failure(500, "; ".join(refused)))]
    encoded = []
    for each in filters:
        message = outbound_pb2.HttpRoute.Filter()
        if each.request_header_modifier is not None:
            _modify(message.request_header_modifier, each.request_header_modifier)
        elif each.response_header_modifier is not None:
            _modify(message.response_header_modifier, each.response_header_modifier)
        elif each.request_redirect is not None:
            message.redirect.CopyFrom(_redirect(each.request_redirect))
        encoded.append(message)
    return encoded


def inbound_filters(route: HTTPRoute, filters: Iterable[Filter]) -> list[inbound_pb2.HttpRoute.Filter]:
    """Encode a rule's filters for the server's proxy."""
    filters = tuple(filters)
    if refused := refused_filters(route, filters, inbound=True):
        return [inbound_pb2.HttpRoute.Filter(failure_injector=failure(500, "; ".join(refused)))]
    encoded = []
    for each in filters:
        message = inbound_pb2.HttpRoute.Filter()
        if each.request_header_modifier is not None:
            _modify(message.request_header_modifier, each.request_header_modifier)
        elif each.request_redirect is not None:
            message.redirect.CopyFrom(_redirect(each.request_redirect))
        encoded.append(message)
    return encoded


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
        if redirect.path.type == "ReplaceFullPath":
            message.path.full = redirect.path.replace_full_path or "/"
        else:
            message.path.prefix = redirect.path.replace_prefix_match or "/"
    return message
