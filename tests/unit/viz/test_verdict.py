"""The demo's verdict: what makes it fail, and how its totals read."""

import pytest

from tulle.viz import verdict
from tulle.viz.answers import ServiceTotal, Summary


def summary(*services: ServiceTotal, requests: int = 10, successes: int = 9, secured: int = 10) -> Summary:
    return Summary(
        requests=requests,
        successes=successes,
        secured_requests=secured,
        latency_p50_ms=1.2 if requests else None,
        latency_p95_ms=3.0 if requests else None,
        latency_p99_ms=8.0 if requests else None,
        edges=2,
        pods=3,
        services=list(services),
    )


def total(name: str, requests: int, meshed: int) -> ServiceTotal:
    return ServiceTotal(namespace="shop", name=name, requests=requests, meshed_requests=meshed)


def test_every_service_called_by_mutual_tls_is_a_working_mesh() -> None:
    assert verdict.failures(summary(total("web", 5, 5), total("api", 5, 1))) == []


@pytest.mark.parametrize(
    ("requests", "said"),
    [
        (0, "service shop/api had no meshed traffic"),
        (4, "service shop/api had no meshed traffic (4 requests without mutual TLS)"),
    ],
)
def test_a_service_without_meshed_traffic_is_a_failure(requests: int, said: str) -> None:
    assert verdict.failures(summary(total("web", 5, 5), total("api", requests, 0))) == [said]


def test_no_service_at_all_is_a_failure() -> None:
    assert verdict.failures(summary()) == ["no service was there to be called"]


def test_totals_name_requests_success_mutual_tls_and_edges() -> None:
    text = "\n".join(verdict.lines(summary(total("web", 10, 10))))
    assert "requests      10" in text
    assert "success rate  90.00 %" in text
    assert "mTLS          100.00 % of requests" in text
    assert "edges         2 between 3 meshed pods" in text
    assert "shop/web: 10 requests, 10 by mTLS" in text


def test_nothing_counted_shows_no_shares() -> None:
    assert "success rate  -" in verdict.lines(summary(requests=0, successes=0, secured=0))
