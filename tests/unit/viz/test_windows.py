"""Windows of rounds, against a list that remembers everything."""

from hypothesis import given
from hypothesis import strategies as st

from tulle.viz.store import ROUNDS, SUCCESS, Served, Store, Workload

KEY = Served("shop", "web-1", Workload("shop", "Deployment", "web"), "", secured=True)


@given(
    st.lists(st.tuples(st.floats(0.1, 20.0), st.integers(0, 50)), max_size=3 * ROUNDS),
    st.floats(0.5, 700.0),
    st.booleans(),
)
def test_a_window_holds_the_newest_rounds_that_begin_in_it(
    rounds: list[tuple[float, int]], seconds: float, under_way: bool
) -> None:
    store, ends, rises, now = Store(), [], [], 0.0
    for pause, rise in rounds:
        now += pause
        store.begin(now)
        row = store.row(store.served, KEY)
        assert row is not None
        row.users = 1
        row.add(store.slot, SUCCESS, rise, now)
        store.end(now)
        ends.append(now)
        rises.append(rise)
    if under_way:
        store.begin(now + 1)
        row = store.row(store.served, KEY)
        assert row is not None
        row.add(store.slot, SUCCESS, 1_000_000, now + 1)

    window = store.window(seconds)

    kept = ROUNDS - 1 if under_way else ROUNDS
    ends, rises = ends[-kept:], rises[-kept:]
    # The oracle: rounds whose end is younger than `seconds`; the one before them is where the span starts.
    inside = [place for place, end in enumerate(ends) if place > 0 and ends[-1] - end < seconds]
    expected_span = ends[-1] - ends[inside[0] - 1] if inside else 0.0
    assert window.seconds == expected_span
    found = store.served.rows[KEY].over(window).success if rounds else 0
    assert found == sum(rises[place] for place in inside)


def test_totals_outlive_the_ring() -> None:
    store = Store()
    for now in range(3 * ROUNDS):
        store.begin(now)
        row = store.row(store.served, KEY)
        assert row is not None
        row.add(store.slot, SUCCESS, 1, now)
        store.end(now)
    assert store.served.rows[KEY].total.success == 3 * ROUNDS
