"""What the controllers stand on: stores, queues, ownership, scheduling, Events."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.clock import SystemClock
from tulle.local.controllers.cluster import CONFIG_MAPS, DEPLOYMENTS, PODS, REPLICA_SETS, ApiError, ClusterApi
from tulle.local.controllers.events import KEPT_EVENTS, stale_events
from tulle.local.controllers.garbage import Drop, Edit, Node, Ownership
from tulle.local.controllers.node import keep_node, node_facts
from tulle.local.controllers.queue import RETRY_FIRST_SECONDS, RETRY_MOST_SECONDS, WorkQueue
from tulle.local.controllers.scheduling import obstacles
from tulle.local.controllers.selectors import matches
from tulle.local.controllers.store import Store

Obj = dict[str, Any]


def obj(name: str, version: int, uid: str = "u", **metadata: Any) -> Obj:
    return {
        "metadata": {"name": name, "namespace": "d", "uid": uid, "resourceVersion": str(version), **metadata}
    }


def test_a_store_never_goes_back_and_never_raises_the_dead() -> None:
    store = Store(PODS)
    heard: list[tuple[int | None, int | None]] = []

    def version(o: Obj | None) -> int | None:
        return None if o is None else int(o["metadata"]["resourceVersion"])

    store.listen(lambda old, new: heard.append((version(old), version(new))))
    store.observe(obj("a", 2))
    store.observe(obj("a", 1))
    store.observe(obj("a", 3))
    store.forget(obj("a", 4))
    store.observe(obj("a", 5))
    assert heard == [(None, 2), (2, 3), (3, None)]
    store.observe(obj("a", 6, uid="another"))
    assert store.get("d", "a") is not None


def test_a_list_tells_of_what_was_deleted_while_nobody_watched() -> None:
    store = Store(PODS)
    store.observe(obj("a", 1, "ua"))
    store.observe(obj("b", 2, "ub"))
    store.replace([obj("b", 2, "ub"), obj("c", 3, "uc")])
    assert sorted(o["metadata"]["name"] for o in store) == ["b", "c"]


def test_owners_are_indexed() -> None:
    store = Store(PODS)
    owned = obj("a", 1, ownerReferences=[{"uid": "rs", "controller": True}])
    store.observe(owned)
    assert store.controlled_by("rs") == [owned]
    store.observe(obj("a", 2))
    assert store.controlled_by("rs") == []


async def test_a_key_is_in_the_queue_once_and_never_with_two_workers() -> None:
    queue = WorkQueue(asyncio.get_running_loop().time)
    for _ in range(3):
        queue.add(("d", "a"))
    assert await queue.get() == ("d", "a")
    queue.add(("d", "a"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.02)
    queue.done(("d", "a"))
    assert await queue.get() == ("d", "a")


async def test_failures_wait_longer_and_longer_up_to_a_bound_until_one_succeeds() -> None:
    queue = WorkQueue(lambda: 0.0)
    pauses = [queue.retry(("d", "a")) for _ in range(20)]
    assert pauses[:3] == [RETRY_FIRST_SECONDS, RETRY_FIRST_SECONDS * 2, RETRY_FIRST_SECONDS * 4]
    assert pauses[-1] == RETRY_MOST_SECONDS
    queue.done(("d", "a"))
    assert queue.retry(("d", "a")) == RETRY_FIRST_SECONDS


async def test_what_is_due_later_comes_later() -> None:
    now = [0.0]
    queue = WorkQueue(lambda: now[0])
    queue.add_after(("d", "late"), 10)
    queue.add_after(("d", "soon"), 1)
    now[0] = 11.0
    assert [await queue.get(), await queue.get()] == [("d", "soon"), ("d", "late")]


def node(
    name: str, owners: dict[str, bool] | None = None, finalizers: tuple[str, ...] = (), deleting: bool = False
) -> Node:
    kind = {"d": DEPLOYMENTS, "r": REPLICA_SETS}.get(name[0], CONFIG_MAPS)
    references = tuple({"uid": uid, "blockOwnerDeletion": blocks} for uid, blocks in (owners or {}).items())
    return Node(kind, "default", name, name, owners or {}, finalizers, deleting, references)


def gone(_uid: str) -> bool:
    return True


def test_an_object_whose_last_owner_is_gone_is_deleted() -> None:
    graph = Ownership()
    graph.put(node("d1"))
    graph.put(node("r1", {"d1": True}))
    assert graph.step("r1", gone) is None
    assert "r1" in graph.remove("d1")
    assert graph.step("r1", gone) == Drop(node("r1", {"d1": True}))
    assert graph.step("r1", lambda _uid: False) is None, "an owner that may only be late is waited for"


def test_one_of_two_owners_going_only_takes_its_reference() -> None:
    graph = Ownership()
    graph.put(node("d1"))
    graph.put(node("c", {"d1": False, "d2": False}))
    step = graph.step("c", gone)
    assert isinstance(step, Edit) and [r["uid"] for r in step.metadata["ownerReferences"]] == ["d1"]


def test_foreground_deletion_waits_for_blocking_dependents() -> None:
    graph = Ownership()
    going = node("d1", finalizers=("foregroundDeletion",), deleting=True)
    graph.put(going)
    graph.put(node("r1", {"d1": True}))
    assert graph.step("d1", gone) is None
    assert isinstance(graph.step("r1", gone), Drop)
    graph.remove("r1")
    assert graph.step("d1", gone) == Edit(going, {"finalizers": []})


def test_orphaned_dependents_forget_their_owner_before_it_goes() -> None:
    graph = Ownership()
    going = node("d1", finalizers=("orphan",), deleting=True)
    graph.put(going)
    graph.put(node("r1", {"d1": True}))
    assert graph.step("r1", gone) is None
    assert graph.step("d1", gone) == Edit(node("r1", {"d1": True}), {"ownerReferences": []})
    graph.put(node("r1"))
    assert graph.step("d1", gone) == Edit(going, {"finalizers": []})


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sets(st.sampled_from("abcdef"), max_size=2), st.booleans()),
        max_size=30,
    )
)
def test_collection_in_any_order_leaves_only_what_still_has_an_owner(
    story: list[tuple[str, set[str], bool]],
) -> None:
    """Objects appear with owners and vanish; after collecting, nothing remains whose owners have all gone."""
    graph, living = Ownership(), dict[str, set[str]]()
    for name, owners, vanish in story:
        if vanish:
            graph.remove(name)
            living.pop(name, None)
        else:
            kept = owners - {name}
            graph.put(node(name, dict.fromkeys(sorted(kept), False)))
            living[name] = kept
    for _ in range(20):
        for name in list(living):
            step = graph.step(name, gone)
            if isinstance(step, Drop):
                graph.remove(name)
                del living[name]
            elif isinstance(step, Edit):
                living[name] = {r["uid"] for r in step.metadata["ownerReferences"]}
                graph.put(node(name, dict.fromkeys(sorted(living[name]), False)))
    assert all(owners <= set(living) for owners in living.values())


NODE: Obj = {"metadata": {"name": "tulle", "labels": {"kubernetes.io/os": "linux", "cores": "8"}}}


def pod(name: str = "p", **spec: Any) -> Obj:
    return {"metadata": {"name": name, "namespace": "d"}, "spec": {"containers": [{"name": "c"}], **spec}}


def affinity(operator: str, key: str, *values: str) -> Obj:
    term = {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({}, ""),
        ({"volumes": [{"name": "v", "emptyDir": {}}]}, ""),
        (
            {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]},
            'PersistentVolumeClaim "data"',
        ),
        ({"volumes": [{"name": "v", "nfs": {"server": "s"}}]}, "kind nfs"),
        (
            {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1", "nvidia.com/gpu": 1}}}]},
            "nvidia.com/gpu",
        ),
        ({"nodeSelector": {"kubernetes.io/os": "linux"}}, ""),
        ({"nodeSelector": {"kubernetes.io/os": "windows"}}, "kubernetes.io/os=windows"),
        ({"affinity": affinity("In", "kubernetes.io/os", "linux")}, ""),
        ({"affinity": affinity("Gt", "cores", "4")}, ""),
        ({"affinity": affinity("DoesNotExist", "cores")}, "nodeAffinity"),
    ],
)
def test_what_the_machine_cannot_give_is_named(spec: Obj, reason: str) -> None:
    found = list(obstacles(pod(**spec), NODE, []))
    assert found == [] if not reason else len(found) == 1 and reason in found[0]


def test_a_node_has_room_for_so_many_pods() -> None:
    full = {**NODE, "status": {"allocatable": {"pods": "2"}}}
    running = [pod(name, nodeName="tulle") for name in ("a", "b")]
    assert list(obstacles(pod(), full, running)) == ["too many pods: 2 run already"]
    assert list(obstacles(pod(), full, [running[0], pod("waiting")])) == []


def test_a_host_port_can_be_had_once() -> None:
    ports = [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}]}]
    other = pod("other", containers=ports, nodeName="tulle")
    (reason,) = obstacles(pod(containers=ports), NODE, [other])
    assert "8080/TCP" in reason and "d/other" in reason


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["2"]}]}, True),
        ({"matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}, True),
    ],
)
def test_selectors(selector: Obj | None, expected: bool) -> None:
    assert matches(selector, {"a": "1"}) is expected


def test_events_are_kept_for_an_hour_and_only_so_many() -> None:
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def event(name: str, seconds: float) -> Obj:
        return {"metadata": {"name": name}, "lastTimestamp": (now - timedelta(seconds=seconds)).isoformat()}

    assert stale_events([event("new", 10), event("old", 3600)], now) == [event("old", 3600)]
    many = [event(str(n), n / 10) for n in range(KEPT_EVENTS + 3)]
    assert [e["metadata"]["name"] for e in stale_events(many, now)] == [
        str(KEPT_EVENTS + n) for n in range(3)
    ]


async def test_a_heartbeat_that_is_refused_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A webhook may refuse what it likes; the controllers beside go on."""
    monkeypatch.setattr("tulle.local.controllers.node.AGAIN_SECONDS", 0.0)
    told = asyncio.Event()

    class Api:
        refusals = 2

        async def get(self, *_: Any, **__: Any) -> Obj:
            return {}

        async def patch(self, *_: Any, **__: Any) -> Obj:
            if self.refusals:
                self.refusals -= 1
                raise ApiError(403, "Forbidden", "not today")
            told.set()
            return {}

    beating = asyncio.ensure_future(keep_node(cast(ClusterApi, Api()), SystemClock(), node_facts(tmp_path)))
    async with asyncio.timeout(5):
        await told.wait()
    beating.cancel()
