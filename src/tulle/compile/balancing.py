"""How a Service's requests are spread over its endpoints, and when an endpoint is left out: read and encoded.

The words are Kubernetes' (`sessionAffinity`, `trafficDistribution`) and Linkerd's (`balancer.linkerd.io/*`, its alpha
ones too); annotations of `tulle.dev/` say what neither has words for. A value that cannot be read counts as absent
here, and `validate` names it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tulle.api import outbound_pb2
from tulle.compile import messages
from tulle.compile.annotations import BadValue, demanded, or_default, seconds, whole
from tulle.compile.mesh import Mesh
from tulle.kube.objects import Service

__all__ = ["bad_values", "balance", "failure_accrual"]

LINKERD = "balancer.linkerd.io/"
ALPHA = "balancer.alpha.linkerd.io/"
FAILURE_ACCRUAL = f"{LINKERD}failure-accrual"
MAX_FAILURES = f"{FAILURE_ACCRUAL}-consecutive-max-failures"
MIN_PENALTY = f"{FAILURE_ACCRUAL}-consecutive-min-penalty"
MAX_PENALTY = f"{FAILURE_ACCRUAL}-consecutive-max-penalty"
JITTER_RATIO = f"{FAILURE_ACCRUAL}-consecutive-jitter-ratio"
THRESHOLD = f"{ALPHA}failure-accrual-success-rate-threshold"
WINDOW = f"{ALPHA}failure-accrual-success-rate-window"
MIN_REQUESTS = f"{ALPHA}failure-accrual-success-rate-min-requests"
HONOR_RETRY_AFTER = f"{ALPHA}failure-accrual-honor-retry-after"
PENALIZE = f"{ALPHA}penalize-failures"
PENALTY = f"{ALPHA}load-biaser-penalty"
MAX_RETRY_AFTER = f"{ALPHA}load-biaser-max-retry-after"
HASH_BY = "tulle.dev/hash-by"
SLOW_START = "tulle.dev/slow-start"
MAX_IN_FLIGHT = "tulle.dev/max-in-flight-per-endpoint"

ZONE_FIRST = ("PreferClose", "PreferSameZone")
NO_BOUND = 1e9
"""Of the load of a hashed endpoint: an affinity that Kubernetes promises is not given up for balance."""


@dataclass(frozen=True, slots=True)
class Accrual:
    """Circuit breaking; durations in seconds. `unified` breaks on the success rate too."""

    unified: bool
    max_failures: int
    min_penalty: float
    max_penalty: float
    jitter_ratio: float
    threshold: float
    window: float
    min_requests: int
    honor_retry_after: bool


def failure_accrual(service: Service) -> outbound_pb2.FailureAccrual | None:
    """Encode a Service's circuit breaker, None when it has none."""
    wanted = or_default(_accrual, service.annotations, None)
    if wanted is None:
        return None
    backoff = outbound_pb2.ExponentialBackoff(
        min_backoff=messages.duration(wanted.min_penalty),
        max_backoff=messages.duration(wanted.max_penalty),
        jitter_ratio=wanted.jitter_ratio,
        respect_retry_after_hint=wanted.honor_retry_after,
    )
    message = outbound_pb2.FailureAccrual()
    if wanted.unified:
        message.unified.success_rate_threshold = wanted.threshold
        message.unified.decay.CopyFrom(messages.duration(wanted.window))
        message.unified.min_requests = wanted.min_requests
        message.unified.max_consecutive_failures = wanted.max_failures
        message.unified.backoff.CopyFrom(backoff)
    else:
        message.consecutive_failures.max_failures = wanted.max_failures
        message.consecutive_failures.backoff.CopyFrom(backoff)
    return message


def balance(balancer: outbound_pb2.Backend.BalanceP2c, mesh: Mesh, service: Service) -> None:
    """Say how the endpoints of a Service share its requests."""
    rtt, decay = messages.duration(mesh.ewma_default_rtt), messages.duration(mesh.ewma_decay)
    penalty = or_default(_penalty, service.annotations, None)
    if penalty is None:
        balancer.peak_ewma.default_rtt.CopyFrom(rtt)
        balancer.peak_ewma.decay.CopyFrom(decay)
    else:
        least, longest = penalty
        balancer.penalty_peak_ewma.default_rtt.CopyFrom(rtt)
        balancer.penalty_peak_ewma.decay.CopyFrom(decay)
        balancer.penalty_peak_ewma.penalty.CopyFrom(messages.duration(least))
        balancer.penalty_peak_ewma.max_retry_after.CopyFrom(messages.duration(longest))
    kind, name = or_default(_hash_by, service.annotations, ("", ""))
    match kind:
        case "header":
            balancer.consistent_hash.header = name
        case "cookie":
            balancer.consistent_hash.cookie.name = name
        case "source-address":
            balancer.consistent_hash.source_address.SetInParent()
        case _ if service.spec.session_affinity == "ClientIP":
            balancer.consistent_hash.source_address.SetInParent()
            balancer.consistent_hash.load_bound = NO_BOUND
        case _:
            if service.spec.traffic_distribution in ZONE_FIRST:
                balancer.zone_preference.SetInParent()
            if slow_start := or_default(_slow_start, service.annotations, 0.0):
                balancer.slow_start.CopyFrom(messages.duration(slow_start))
    balancer.max_in_flight_per_endpoint = or_default(_max_in_flight, service.annotations, 0)


def without_effect(service: Service) -> Iterator[str]:
    """Return the annotations and fields that hashing leaves no room for: which endpoint it is, the key decides."""
    hashed = (
        service.spec.session_affinity == "ClientIP" or or_default(_hash_by, service.annotations, ("", ""))[0]
    )
    if hashed and service.spec.traffic_distribution in ZONE_FIRST:
        yield "spec.trafficDistribution"
    if hashed and SLOW_START in service.annotations:
        yield f"metadata.annotations[{SLOW_START}]"


def bad_values(annotations: Mapping[str, str]) -> Iterator[BadValue]:
    """Return the values that cannot be read."""
    for read in (_accrual, _penalty, _hash_by, _slow_start, _max_in_flight):
        try:
            read(annotations)
        except BadValue as error:
            yield error


def _accrual(annotations: Mapping[str, str]) -> Accrual | None:
    mode = annotations.get(FAILURE_ACCRUAL)
    if mode is None:
        return None
    if mode not in ("consecutive", "unified"):
        raise BadValue(FAILURE_ACCRUAL, mode, "consecutive, unified")
    breaker = Accrual(
        unified=mode == "unified",
        max_failures=whole(annotations, MAX_FAILURES, 7),
        min_penalty=seconds(annotations, MIN_PENALTY, 1.0),
        max_penalty=seconds(annotations, MAX_PENALTY, 60.0),
        jitter_ratio=_number(annotations, JITTER_RATIO, 0.5, 100.0),
        threshold=_number(annotations, THRESHOLD, 0.8, 1.0),
        window=seconds(annotations, WINDOW, 10.0),
        min_requests=whole(annotations, MIN_REQUESTS, 5),
        honor_retry_after=demanded(HONOR_RETRY_AFTER, annotations.get(HONOR_RETRY_AFTER, "false")),
    )
    if breaker.min_penalty > breaker.max_penalty:
        text = annotations.get(MIN_PENALTY, "1s")
        raise BadValue(MIN_PENALTY, text, "a duration no longer than the maximum penalty")
    return breaker


def _penalty(annotations: Mapping[str, str]) -> tuple[float, float] | None:
    """Read by how much a failure counts as slow, and the longest Retry-After that is believed, in seconds."""
    values = seconds(annotations, PENALTY, 5.0), seconds(annotations, MAX_RETRY_AFTER, 300.0)
    return values if demanded(PENALIZE, annotations.get(PENALIZE, "false")) else None


def _hash_by(annotations: Mapping[str, str]) -> tuple[str, str]:
    text = annotations.get(HASH_BY)
    if text is None:
        return ("", "")
    if text == "source-address":
        return (text, "")
    found = re.fullmatch(r"(header|cookie):([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256})", text)
    if found is None:
        raise BadValue(HASH_BY, text[:100], "header:NAME, cookie:NAME or source-address")
    return (found[1], found[2].lower() if found[1] == "header" else found[2])


def _slow_start(annotations: Mapping[str, str]) -> float:
    return seconds(annotations, SLOW_START, 0.0)


def _max_in_flight(annotations: Mapping[str, str]) -> int:
    return whole(annotations, MAX_IN_FLIGHT, 0)


def _number(annotations: Mapping[str, str], name: str, default: float, most: float) -> float:
    text = annotations.get(name)
    if text is None:
        return default
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text, re.ASCII) is None or float(text) > most:
        raise BadValue(name, text, f"a number between 0 and {most:g}")
    return float(text)
