"""Quantiles are those of PromQL's histogram_quantile, and agree with the values that were counted."""

from bisect import bisect_left
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from tulle.viz.latency import BOUNDS_MS, BUCKETS, bucket_of, quantile


def cumulative(values: list[float]) -> list[int]:
    counts = [0] * BUCKETS
    for value in values:
        counts[bisect_left(BOUNDS_MS, value)] += 1
    return list(accumulate(counts))


def test_nothing_counted_has_no_quantile() -> None:
    assert quantile(0.5, [0] * BUCKETS) is None


def test_values_are_spread_evenly_inside_their_bucket() -> None:
    # Ten values in (5, 10]: the median lies in the middle of the bucket.
    assert quantile(0.5, cumulative([7.0] * 10)) == 7.5


def test_what_is_above_the_last_bound_counts_as_it() -> None:
    assert quantile(0.99, cumulative([90_000.0])) == 50_000.0


def test_falling_counts_are_lifted() -> None:
    counts: list[float] = [0] * BUCKETS
    counts[0], counts[1] = 10, 4  # a reset between two buckets
    assert quantile(1.0, counts) == 1.0


def test_every_bound_of_the_sidecars_is_known_and_no_other() -> None:
    assert [bucket_of(f"{bound:g}") for bound in BOUNDS_MS] == list(range(BUCKETS - 1))
    assert bucket_of("+Inf") == BUCKETS - 1
    assert [bucket_of(text) for text in ("7", "", "x", "100000", "NaN")] == [None] * 5


@given(st.lists(st.floats(0.001, 49_999), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_the_true_value_lies_in_the_bucket_of_the_estimate(values: list[float], q: float) -> None:
    ranked = sorted(values)
    # The smallest value with at least q of all values at or below it.
    true = next(value for place, value in enumerate(ranked, 1) if place >= q * len(ranked) - 1e-9)
    estimate = quantile(q, cumulative(values))
    assert estimate is not None
    place = bisect_left(BOUNDS_MS, true)
    low, high = (BOUNDS_MS[place - 1] if place else 0.0), BOUNDS_MS[place]
    assert low - 1e-6 <= estimate <= high + 1e-6
