"""The arithmetic of rollouts: tables, and the two bounds under any order of events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.local.controllers.rollout import (
    Bounds,
    Generation,
    bounds,
    proportional,
    scale_down_old,
    scale_up_new,
)


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (4, None, None, Bounds(4, 1, 1)),
        (1, None, None, Bounds(1, 1, 0)),
        (10, "25%", "25%", Bounds(10, 3, 2)),
        (3, 0, 0, Bounds(3, 0, 1)),
        (3, "0%", "10%", Bounds(3, 0, 1)),
        (2, 5, 5, Bounds(2, 5, 2)),
        (0, "25%", "25%", Bounds(0, 0, 0)),
    ],
)
def test_percentages_round_up_for_surge_and_down_for_unavailable(
    replicas: int, surge: int | str | None, unavailable: int | str | None, expected: Bounds
) -> None:
    assert bounds(replicas, surge, unavailable) == expected


def test_the_new_generation_grows_into_the_surge() -> None:
    assert scale_up_new(Bounds(4, 1, 1), Generation(0, 0), [Generation(4, 4)]) == 1
    assert scale_up_new(Bounds(4, 1, 1), Generation(1, 0), [Generation(4, 4)]) == 1
    assert scale_up_new(Bounds(4, 1, 1), Generation(1, 1), [Generation(3, 3)]) == 2
    assert scale_up_new(Bounds(4, 1, 1), Generation(6, 6), []) == 4


def test_old_pods_that_are_not_available_go_first() -> None:
    assert scale_down_old(Bounds(4, 1, 1), Generation(1, 0), [Generation(4, 2)]) == [3]
    assert scale_down_old(Bounds(4, 1, 0), Generation(1, 0), [Generation(4, 4)]) == [4]
    assert scale_down_old(Bounds(4, 1, 1), Generation(1, 1), [Generation(4, 4)]) == [2]


@given(
    st.integers(0, 8),
    st.integers(0, 4),
    st.integers(0, 4),
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=80),
)
def test_a_rollout_never_leaves_its_bounds_and_ends(
    replicas: int, surge: int, unavailable: int, happenings: list[tuple[int, bool]]
) -> None:
    """Three generations; pods become ready and unready in any order while the controller steps."""
    limits = bounds(replicas, surge, unavailable)
    wanted, ready = [replicas, 0, 0], [replicas, 0, 0]
    newest = 1

    def step() -> None:
        new = Generation(wanted[newest], ready[newest])
        others = [i for i in range(3) if i != newest]
        old = [Generation(wanted[i], ready[i]) for i in others]
        up = scale_up_new(limits, new, old)
        if up != wanted[newest]:
            wanted[newest] = up
            ready[newest] = min(ready[newest], up)
        else:
            available = sum(ready)
            for i, count in zip(others, scale_down_old(limits, new, old), strict=True):
                assert count <= wanted[i]
                # A scale-down takes pods that are not ready first.
                wanted[i] = count
                ready[i] = min(ready[i], count)
            assert sum(ready) >= min(available, limits.least_available)
        assert sum(wanted) <= max(limits.most, replicas)

    for which, good in happenings:
        if good:
            ready[which] = min(ready[which] + 1, wanted[which])
        elif which == 2 and newest == 1:
            newest = 2
        step()
    for _ in range(4 * (replicas + 2)):
        step()
        ready = list(wanted)
    assert wanted[newest] == replicas == sum(wanted)


@given(st.integers(1, 20), st.integers(0, 5), st.lists(st.integers(0, 10), min_size=1, max_size=4))
def test_scaling_in_the_middle_of_a_rollout_reaches_the_bound_exactly(
    replicas: int, surge: int, wanted: list[int]
) -> None:
    limits = Bounds(replicas, surge, 0)
    scaled = proportional(limits, wanted, sum(wanted))
    assert all(count >= 0 for count in scaled)
    assert sum(scaled) == (limits.most if sum(wanted) else 0)
