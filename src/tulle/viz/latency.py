"""Latency histograms: the bounds that the sidecars use, and quantiles as Prometheus computes them."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

__all__ = ["BOUNDS_MS", "BUCKETS", "bucket_of", "quantile"]

# Linkerd's bounds in milliseconds; `+Inf` is the bucket after the last.
BOUNDS_MS: tuple[float, ...] = (
    *(1, 2, 3, 4, 5),
    *(10, 20, 30, 40, 50),
    *(100, 200, 300, 400, 500),
    *(1_000, 2_000, 3_000, 4_000, 5_000),
    *(10_000, 20_000, 30_000, 40_000, 50_000),
)
BUCKETS = len(BOUNDS_MS) + 1


def bucket_of(le: str) -> int | None:
    """Return the place of an `le` label's bucket; None for a bound that is not Linkerd's."""
    if le == "+Inf":
        return BUCKETS - 1
    try:
        bound = float(le)
    except ValueError:
        return None
    place = bisect_left(BOUNDS_MS, bound)
    return place if place < len(BOUNDS_MS) and BOUNDS_MS[place] == bound else None


def quantile(q: float, cumulative: Sequence[float]) -> float | None:
    """Return the `q` quantile in milliseconds from cumulative counts per bucket; None when nothing was counted.

    Values are taken as evenly spread inside a bucket, and what lies above the last bound counts as that bound:
    PromQL's `histogram_quantile`. Counts that fall from one bucket to the next (a reset between two of them) are
    lifted, as Prometheus does.
    """
    rising = list(accumulate(cumulative, max))
    total = rising[-1] if rising else 0.0
    if total <= 0:
        return None
    rank = q * total
    place = bisect_left(rising, rank)
    if place >= len(BOUNDS_MS):
        return float(BOUNDS_MS[-1])
    below = rising[place - 1] if place else 0.0
    start = BOUNDS_MS[place - 1] if place else 0.0
    inside = rising[place] - below
    if inside <= 0:
        return float(BOUNDS_MS[place])
    return start + (BOUNDS_MS[place] - start) * (rank - below) / inside
