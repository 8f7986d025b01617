"""Annotations that are read while compiling: opaque ports, default policy, timeouts, retries. `balancing` reads the balancer's.

A value that cannot be read raises BadValue here; whoever compiles falls back to the default, and `validate` names it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from tulle.kube.objects import Container
from tulle.kube.policy_objects import RuleRetry

__all__ = [
    "OPAQUE_PORTS",
    "BadValue",
    "Retry",
    "RouteTimeouts",
    "demanded",
    "duration",
    "gateway_duration",
    "items",
    "or_default",
    "ports_contain",
    "retry",
    "route_timeouts",
    "rule_retry",
    "seconds",
    "whole",
]

OPAQUE_PORTS = "config.linkerd.io/opaque-ports"
REQUIRE_MESH_TLS = "tulle.dev/require-mesh-tls"
PROXY_PROTOCOL_PORTS = "tulle.dev/proxy-protocol-ports"
SKIP_INBOUND_PORTS = "config.linkerd.io/skip-inbound-ports"
DEFAULT_INBOUND_POLICY = "config.linkerd.io/default-inbound-policy"
REQUIRE_IDENTITY_PORTS = "config.linkerd.io/proxy-require-identity-inbound-ports"
RETRY_HTTP = "retry.linkerd.io/http"
RETRY_GRPC = "retry.linkerd.io/grpc"
RETRY_LIMIT = "retry.linkerd.io/limit"
RETRY_TIMEOUT = "retry.linkerd.io/timeout"
TIMEOUT_REQUEST = "timeout.linkerd.io/request"
TIMEOUT_RESPONSE = "timeout.linkerd.io/response"
TIMEOUT_IDLE = "timeout.linkerd.io/idle"

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MAX_SECONDS = 365 * 86400.0
MAX_ATTEMPTS = 100
# What a retry rule without codes means: answers that a gateway gives in place of the server.
DEFAULT_CODES = (502, 503, 504)
GRPC_CONDITIONS = {
    "cancelled": "cancelled",
    "deadline-exceeded": "deadine_exceeded",  # the field's name in Linkerd's API is misspelt
    "internal": "internal",
    "resource-exhausted": "resource_exhausted",
    "unavailable": "unavailable",
}

Value = TypeVar("Value")


class BadValue(ValueError):
    """A value cannot be read; `name` is the annotation or field and `accepted` the form it should have."""

    def __init__(self, name: str, value: str, accepted: str) -> None:
        super().__init__(f"{value!r} is not valid; accepted: {accepted}")
        self.name, self.value, self.accepted = name, value, accepted


def ports_contain(text: str, port: int, containers: Iterable[Container] = ()) -> bool:
    """Tell whether a list of numbers, ranges and container-port names holds a port; unreadable items match nothing."""
    for item in (part.strip() for part in text.split(",")):
        first, dash, last = item.partition("-")
        if first.isdecimal() and (not dash or last.isdecimal()):
            if int(first) <= port <= int(last or first):
                return True
        elif item and any(
            declared.name == item and declared.container_port == port
            for container in containers
            for declared in container.ports or ()
        ):
            return True
    return False


def duration(name: str, text: str) -> float:
    """Read Linkerd's durations (`250ms`, `5s`, `1m`, `1h`, `1d`), in seconds. Raises BadValue."""
    match = re.fullmatch(r"(\d{1,12})(ms|s|m|h|d)", text.strip(), re.ASCII)
    if match is None or (seconds := int(match[1]) * SECONDS[match[2]]) > MAX_SECONDS:
        raise BadValue(name, text, "an integer with ms, s, m, h or d, at most a year")
    return seconds


def demanded(name: str, text: str) -> bool:
    """Read `true` or `false`. Raises BadValue; of a demand for protection whoever compiles then takes it for `true`."""
    if text not in ("true", "false"):
        raise BadValue(name, text, "true or false")
    return text == "true"


def gateway_duration(name: str, text: str) -> float:
    """Read the Gateway API's durations (`1h30m`, `500ms`), in seconds. Raises BadValue."""
    if re.fullmatch(r"([0-9]{1,5}(h|m|s|ms)){1,4}", text, re.ASCII) is None:
        raise BadValue(name, text, "up to four numbers with h, m, s or ms, such as 1h30m or 500ms")
    return sum(int(number) * SECONDS[unit] for number, unit in re.findall(r"([0-9]+)(ms|h|m|s)", text))


@dataclass(frozen=True, slots=True)
class RouteTimeouts:
    """Seconds, or None where there is no limit."""

    request: float | None = None
    response: float | None = None
    idle: float | None = None


def route_timeouts(annotations: Mapping[str, str]) -> RouteTimeouts:
    """Read the timeout annotations. Raises BadValue."""
    return RouteTimeouts(
        *(seconds(annotations, n, None) for n in (TIMEOUT_REQUEST, TIMEOUT_RESPONSE, TIMEOUT_IDLE))
    )


@dataclass(frozen=True, slots=True)
class Retry:
    """When and how often a request is tried again; `statuses` are inclusive ranges."""

    statuses: tuple[tuple[int, int], ...]
    grpc: tuple[str, ...]
    limit: int
    timeout: float | None
    backoff: float | None = None


def rule_retry(written: RuleRetry) -> Retry:
    """Read the retries of a rule (Gateway API, GEP-1731): once when it does not say how often. Raises BadValue."""
    for code in written.codes or ():
        if not 400 <= code <= 599:
            raise BadValue("retry.codes", str(code), "a status between 400 and 599")
    attempts = 1 if written.attempts is None else written.attempts
    if not 0 <= attempts <= MAX_ATTEMPTS:
        raise BadValue("retry.attempts", str(attempts), f"a number between 0 and {MAX_ATTEMPTS}")
    backoff = gateway_duration("retry.backoff", written.backoff) if written.backoff is not None else None
    codes = written.codes or DEFAULT_CODES
    return Retry(tuple((code, code) for code in codes), (), attempts, None, backoff)


def retry(annotations: Mapping[str, str]) -> Retry | None:
    """Read the retry annotations, None when there are none. Raises BadValue."""
    if not any(name in annotations for name in (RETRY_HTTP, RETRY_GRPC, RETRY_LIMIT, RETRY_TIMEOUT)):
        return None
    statuses = tuple(_status_range(item) for item in items(annotations.get(RETRY_HTTP, "")))
    grpc = tuple(items(annotations.get(RETRY_GRPC, "")))
    for item in grpc:
        if item not in GRPC_CONDITIONS:
            raise BadValue(RETRY_GRPC, item, ", ".join(GRPC_CONDITIONS))
    limit = whole(annotations, RETRY_LIMIT, 1)
    return Retry(statuses, grpc, limit, seconds(annotations, RETRY_TIMEOUT, None))


def seconds(annotations: Mapping[str, str], name: str, default: Value) -> float | Value:
    """Read a duration, in seconds. Raises BadValue."""
    text = annotations.get(name)
    return duration(name, text) if text is not None else default


def or_default(
    read: Callable[[Mapping[str, str]], Value], annotations: Mapping[str, str], default: Value
) -> Value:
    """Read annotations; what cannot be read counts as absent, and `validate` names it."""
    try:
        return read(annotations)
    except BadValue:
        return default


def whole(annotations: Mapping[str, str], name: str, default: int) -> int:
    """Read a whole number of at most nine digits. Raises BadValue."""
    text = annotations.get(name)
    if text is None:
        return default
    if re.fullmatch(r"\d{1,9}", text, re.ASCII) is None:
        raise BadValue(name, text, "a whole number")
    return int(text)


def items(text: str) -> list[str]:
    """Split a list at its commas."""
    return [item.strip() for item in text.split(",") if item.strip()]


def _status_range(item: str) -> tuple[int, int]:
    if item == "5xx":
        return (500, 599)
    if item == "gateway-error":
        return (502, 504)
    match = re.fullmatch(r"([1-5]\d\d)(?:-([1-5]\d\d))?", item, re.ASCII)
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise BadValue(
            RETRY_HTTP, item, "5xx, gateway-error, a status or a range of statuses such as 500-504"
        )
    return (int(match[1]), int(match[2] or match[1]))
