"""An HTTPRoute's hosts and matches in the proxy API's words, for both directions."""

from collections.abc import Iterable, Iterator

from tulle.api import http_route_pb2, http_types_pb2
from tulle.kube.policy_objects import Match, Rule, ValueMatch

__all__ = ["BadMatch", "host_matches", "matches"]

MATCH_ANYTHING = Match()


class BadMatch(ValueError):
    """A match has a type that the API does not define."""


def host_matches(hostnames: Iterable[str]) -> Iterator[http_route_pb2.HostMatch]:
    """Encode hostnames; `*.example.com` is a suffix of reversed labels."""
    for name in hostnames:
        if name.startswith("*."):
            labels = name[2:].lower().split(".")[::-1]
            yield http_route_pb2.HostMatch(suffix=http_route_pb2.HostMatch.Suffix(reverse_labels=labels))
        else:
            yield http_route_pb2.HostMatch(exact=name.lower())


def matches(rule: Rule) -> list[http_route_pb2.HttpRouteMatch]:
    """Encode a rule's matches, any of which suffices; no match means every request. Raises BadMatch."""
    return [_match(match) for match in rule.matches or (MATCH_ANYTHING,)]


def _match(match: Match) -> http_route_pb2.HttpRouteMatch:
    message = http_route_pb2.HttpRouteMatch()
    path_type = (match.path and match.path.type) or "PathPrefix"
    value = (match.path and match.path.value) or "/"
    match path_type:
        case "PathPrefix":
            message.path.prefix = value
        case "Exact":
            message.path.exact = value
        case "RegularExpression":
            message.path.regex = value
        case other:
            raise BadMatch(f"path match type {other!r}")
    for header in match.headers or ():
        encoded = message.headers.add(name=header.name.lower())
        if _is_regex(header):
            encoded.regex = header.value
        else:
            encoded.exact = header.value.encode()
    for param in match.query_params or ():
        wanted = message.query_params.add(name=param.name)
        if _is_regex(param):
            wanted.regex = param.value
        else:
            wanted.exact = param.value
    if match.method:
        message.method.CopyFrom(http_method(match.method))
    return message


def _is_regex(match: ValueMatch) -> bool:
    match match.type:
        case None | "Exact":
            return False
        case "RegularExpression":
            return True
        case other:
            raise BadMatch(f"match type {other!r} of {match.name}")


def http_method(name: str) -> http_types_pb2.HttpMethod:
    """Encode a method by number when it is a registered one."""
    if name in http_types_pb2.HttpMethod.Registered.keys():
        return http_types_pb2.HttpMethod(registered=name)
    return http_types_pb2.HttpMethod(unregistered=name)
