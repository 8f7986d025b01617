"""What the metrics API answers, in the shapes that cross the wire. Rates are per second, latencies milliseconds.

None stands for "cannot be said": a rate before two rounds have been seen, a quantile of no requests.
"""

import msgspec

__all__ = ["EdgeRow", "Edges", "Golden", "ServiceTotal", "Stat", "StatRow", "Summary", "Target", "Targets"]


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """The golden metrics of one thing over a window."""

    requests: int = 0
    success_rate: float | None = None
    rps: float | None = None
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    latency_p99_ms: float | None = None
    tcp_connections: int = 0
    read_bytes_per_second: float | None = None
    write_bytes_per_second: float | None = None
    # Share of the requests that came by mutual TLS.
    secured: float | None = None


class StatRow(msgspec.Struct, frozen=True, kw_only=True):
    """One resource: how many of its running pods are meshed, and what they served."""

    namespace: str
    kind: str
    name: str
    meshed: int
    pods: int
    golden: Golden


class Stat(msgspec.Struct, frozen=True, kw_only=True):
    """Resources of one kind. `window_seconds` is the span that was really looked at."""

    kind: str
    window_seconds: float
    rows: list[StatRow]


class EdgeRow(msgspec.Struct, frozen=True, kw_only=True):
    """Calls from one workload to another. An empty source lies outside the mesh, an empty target could not be
    reached; `service` is empty when the target was called by its address.
    """

    source_namespace: str
    source_kind: str
    source: str
    target_namespace: str
    target_kind: str
    target: str
    service: str
    golden: Golden


class Edges(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls whom."""

    window_seconds: float
    rows: list[EdgeRow]


class ServiceTotal(msgspec.Struct, frozen=True, kw_only=True):
    """Requests to one Service since its clients and pods started."""

    namespace: str
    name: str
    requests: int
    meshed_requests: int


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Everything counted since the sidecars started, without the control plane's own traffic."""

    requests: int
    successes: int
    secured_requests: int
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    edges: int
    pods: int
    services: list[ServiceTotal]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One sidecar as the scraper knows it. Times are Unix seconds, 0 when unknown; `trouble` is empty when all is well."""

    namespace: str
    pod: str
    version: str = ""
    certificate_expiry: float = 0.0
    pages: int = 0
    trouble: str = ""


class Targets(msgspec.Struct, frozen=True, kw_only=True):
    """The scraper's state. `refused_*` count what found no room within the bounds of `docs/metrics.md`."""

    interval_seconds: float
    rounds: int
    refused_rows: int
    refused_series: int
    targets: list[Target]
