"""What is measured: the scenarios, each with its application, its load and its targets."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.bench.places import Service

__all__ = ["SCENARIOS", "Scenario"]


@dataclass(frozen=True)
class Scenario:
    """One row of the comparison."""

    name: str
    title: str
    app: str
    """The kind of application: http, grpc, echo or sink."""
    service: Service
    bytes: int = 128
    hops: int = 2
    load: str = ""
    """The kind of load; default: the application's."""
    settings: Mapping[str, int | float] = field(default_factory=dict)
    rate: float = 0
    """Requests per second of the open loop; 0: it has none."""
    unit: str = "CPU µs per request"
    must: float = 1.0
    """The largest share of Envoy's CPU that is allowed."""
    should: float = 1.0
    transparent_only: bool = False
    """Whether it needs connections that are redirected: nothing in an opaque connection names its destination."""

    @property
    def http(self) -> bool:
        """Whether proxies look into it."""
        return self.app in ("http", "grpc")


APP, PLAIN = "10.96.99.1", "10.96.99.2"

SCENARIOS = {
    each.name: each
    for each in (
        Scenario(
            "a", "one hop, HTTP/1.1, plain text, 64 connections, 128 B", "http",
            Service("plain", PLAIN, 8080), hops=1, rate=2000, must=0.33, should=0.29,
        ),
        Scenario(
            "b", "two hops, mutual TLS, HTTP/1.1 outside, 64 connections, 128 B", "http",
            Service("app", APP, 8080), rate=1000, must=0.33, should=0.24,
        ),
        Scenario(
            "f", "two hops, mutual TLS, HTTP/1.1 outside, 64 connections, 10 KiB", "http",
            Service("app", APP, 8090), bytes=10240, rate=1000, must=0.40, should=0.28,
        ),
        Scenario(
            "c", "two hops, mutual TLS, gRPC unary, 8 connections × 8 streams, 64 B", "grpc",
            Service("app", APP, 8081), bytes=64, settings={"connections": 8, "streams": 8}, rate=1000,
            must=0.33, should=0.14,
        ),
        Scenario(
            "d1", "two hops, mutual TLS, opaque TCP, one connection that is filled", "sink",
            Service("app", APP, 8082), settings={"connections": 1}, unit="CPU s per GB",
            must=1.0, should=0.85, transparent_only=True,
        ),
        Scenario(
            "d2", "two hops, mutual TLS, opaque TCP, a connection for each exchange, 16 at once", "echo",
            Service("app", APP, 8083), load="short", bytes=64, settings={"connections": 16},
            unit="CPU µs per connection", must=0.55, should=0.45, transparent_only=True,
        ),
    )
}  # fmt: skip
