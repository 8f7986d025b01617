"""Shared answers: computed once for all, never queued, and nobody is left with an old one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.cluster import service
from tulle.clock import Clock
from tulle.control.hub import COALESCE, Hub
from tulle.control.limits import Buckets, StreamLimits, TooMany
from tulle.kube import kinds
from tulle.kube.reflector import Change
from tulle.kube.world import World


@asynccontextmanager
async def hub_of(world: World) -> AsyncIterator[Hub]:
    hub = Hub(world)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(hub.run())
        try:
            yield hub
        finally:
            running.cancel()


def put(world: World, hub: Hub, name: str, ip: str) -> None:
    new = World.of([service(name, ip)]).peek(kinds.SERVICE, "default", name)
    hub.touch(world.apply(kinds.SERVICE, [Change(world.peek(kinds.SERVICE, "default", name), new)]))


def ip_of(world: World, name: str) -> str:
    found = world.service("default", name)
    return found.cluster_ips[0] if found else "none"


async def test_a_group_is_computed_once_for_all_and_only_for_what_it_depends_on() -> None:
    world = World()
    async with hub_of(world) as hub:
        compute = lambda: ip_of(world, "a")  # noqa: E731
        with hub.subscribe("a", compute) as one, hub.subscribe("a", compute) as two:
            assert (one.answer, two.answer, hub.computed) == ("none", "none", 1)
            put(world, hub, "b", "10.96.0.9")
            await asyncio.sleep(COALESCE * 3)
            assert hub.computed == 1, "b is nothing to a"
            put(world, hub, "a", "10.96.0.1")
            async with asyncio.timeout(30):
                await one.changed()
                await two.changed()
            assert (one.answer, two.answer, hub.computed) == ("10.96.0.1", "10.96.0.1", 2)
        assert len(hub) == 0 and not hub._by_topic


async def test_a_slow_subscriber_skips_to_the_newest_answer() -> None:
    world = World()
    async with hub_of(world) as hub:
        with hub.subscribe("a", lambda: ip_of(world, "a")) as slow:
            assert slow.answer == "none"
            for last in range(1, 4):
                put(world, hub, "a", f"10.96.0.{last}")
                await asyncio.sleep(COALESCE * 2)
            await slow.changed()
            assert slow.answer == "10.96.0.3"


async def test_a_newcomer_is_not_given_what_changes_have_made_old() -> None:
    world = World()
    async with hub_of(world) as hub:
        with hub.subscribe("a", lambda: ip_of(world, "a")) as early:
            assert early.answer == "none"
            put(world, hub, "a", "10.96.0.1")
            with hub.subscribe("a", lambda: ip_of(world, "a")) as late:
                assert late.answer == "10.96.0.1"
                assert early.answer == "10.96.0.1"


async def test_one_answer_that_cannot_be_computed_stops_nobody_else() -> None:
    world = World()

    def broken() -> str:
        if world.service("default", "a") is not None:
            raise ValueError("one bad object")
        return "fine so far"

    async with hub_of(world) as hub:
        with hub.subscribe("x", broken) as bad, hub.subscribe("a", lambda: ip_of(world, "a")) as good:
            assert (bad.answer, good.answer) == ("fine so far", "none")
            put(world, hub, "a", "10.96.0.1")
            async with asyncio.timeout(30):
                await good.changed()
            assert (bad.answer, good.answer, hub.failed) == ("fine so far", "10.96.0.1", 1)


async def test_a_subscriber_that_leaves_while_waiting_leaves_nothing_behind() -> None:
    world = World()
    async with hub_of(world) as hub, asyncio.TaskGroup() as tasks:

        async def follow() -> None:
            with hub.subscribe("a", lambda: ip_of(world, "a")) as subscription:
                assert subscription.answer
                await subscription.changed()

        waiting = [tasks.create_task(follow()) for _ in range(3)]
        await asyncio.sleep(0)
        assert len(hub) == 1
        for task in waiting:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*waiting)
        assert len(hub) == 0


class Hand:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.at = 0.0

    def monotonic(self) -> float:
        return self.at

    now: object = None


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 10)), max_size=60))
def test_a_bucket_never_gives_more_than_its_burst_and_its_rate(asks: list[tuple[str, float]]) -> None:
    hand = Hand()
    clock: Clock = hand  # type: ignore[assignment]
    buckets = Buckets(clock, rate=0.5, burst=3.0)
    given_to = {"a": 0, "b": 0}
    for key, pause in asks:
        hand.at += pause
        given_to[key] += buckets.take(key)
        assert given_to[key] <= 3.0 + 0.5 * hand.at + 1e-6


def test_buckets_forget_the_key_that_was_asked_longest_ago() -> None:
    hand = Hand()
    clock: Clock = hand  # type: ignore[assignment]
    buckets = Buckets(clock, rate=0.0, burst=1.0, size=2)
    assert [buckets.take(k) for k in ("a", "a", "b", "c", "a")] == [True, False, True, True, True]


def test_limits_count_what_is_open() -> None:
    limits = StreamLimits(per_peer=2, per_workload=1, in_all=3)
    with limits.admit("p", "w"):
        for peer, workload in (("p", "w"), ("q", "w")):
            try:
                with limits.admit(peer, workload):
                    raise AssertionError("over the bound")
            except TooMany as error:
                assert "workload" in str(error)
        with limits.admit("p", "v"):
            assert limits.open == 2
    assert limits.open == 0 and not limits._by_peer and limits.refused == 2
