"""The store's log, and what watchers make of it."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tulle.local.api.errors import ApiError
from tulle.local.api.objects import copy_json
from tulle.local.api.reads import visible
from tulle.local.api.selectors import Selector, parse_labels
from tulle.local.api.store import Change, Record, Store


def obj(name: str, **labels: str) -> Any:
    return {"metadata": {"name": name, "namespace": "ns", "labels": labels}}


def test_every_write_has_its_own_revision() -> None:
    store = Store()
    first = store.put("pods", "ns", "a", obj("a"))
    second = store.put("services", "ns", "a", obj("a"))
    third = store.put("pods", "ns", "a", obj("a"))
    assert first.revision < second.revision < third.revision
    assert third.obj["metadata"]["resourceVersion"] == str(third.revision)


def test_changes_come_in_order_and_only_the_newer_ones() -> None:
    store = Store()
    start = store.revision
    store.put("pods", "ns", "a", obj("a"))
    middle = store.put("pods", "ns", "a", obj("a")).revision
    store.remove("pods", "ns", "a", obj("a"))
    pods = store.collection("pods")
    assert [change.type for change in store.changes_since(pods, start)] == ["ADDED", "MODIFIED", "DELETED"]
    assert [change.type for change in store.changes_since(pods, middle)] == ["DELETED"]
    assert store.changes_since(pods, store.revision) == []


def test_the_log_has_a_bound_and_who_is_behind_it_is_told() -> None:
    store = Store(history=3)
    start = store.revision
    for _ in range(4):
        store.put("pods", "ns", "a", obj("a"))
    pods = store.collection("pods")
    assert len(store.changes_since(pods, start + 1)) == 3
    with pytest.raises(ApiError) as raised:
        store.changes_since(pods, start)
    assert (raised.value.code, raised.value.reason) == (410, "Expired")


def test_a_busy_resource_does_not_push_out_a_quiet_one() -> None:
    store = Store(history=3)
    start = store.revision
    store.put("pods", "ns", "a", obj("a"))
    for _ in range(9):
        store.put("events", "ns", "e", obj("e"))
    assert len(store.changes_since(store.collection("pods"), start)) == 1


def test_versions_share_what_did_not_change() -> None:
    store = Store()
    first = store.put("pods", "ns", "a", {**obj("a", tier="x"), "spec": {"big": ["x"]}, "status": {"n": 1}})
    second = store.put("pods", "ns", "a", {**obj("a", tier="x"), "spec": {"big": ["x"]}, "status": {"n": 2}})
    assert second.obj["spec"] is first.obj["spec"]
    assert second.obj["metadata"]["labels"] is first.obj["metadata"]["labels"]
    assert (first.obj["status"], second.obj["status"]) == ({"n": 1}, {"n": 2})
    third = store.put("pods", "ns", "a", copy_json(second.obj) | {"status": {"n": 3}})
    versions = [record.obj["metadata"]["resourceVersion"] for record in (first, second, third)]
    assert versions == [str(record.revision) for record in (first, second, third)], "each keeps its own"


def test_a_dropped_resource_ends_its_watches() -> None:
    store = Store()
    cogs = store.collection("cogs")
    start = store.revision
    store.drop("cogs")
    with pytest.raises(ApiError):
        store.changes_since(cogs, start)


FRONT = Selector(parse_labels("tier=front"))


@pytest.mark.parametrize(
    ("type_", "before", "after", "seen"),
    [
        ("ADDED", None, "front", "ADDED"),
        ("ADDED", None, "back", None),
        ("MODIFIED", "front", "front", "MODIFIED"),
        ("MODIFIED", "back", "front", "ADDED"),
        ("MODIFIED", "front", "back", "DELETED"),
        ("MODIFIED", "back", "back", None),
        ("DELETED", "front", "front", "DELETED"),
        ("DELETED", "back", "back", None),
    ],
)
def test_what_a_selection_sees_of_a_change(
    type_: Any, before: str | None, after: str, seen: str | None
) -> None:
    previous = None if before is None else Record(obj("a", tier=before), 1)
    change = Change(2, type_, Record(obj("a", tier=after), 2), previous)
    event = visible(change, "ns", FRONT)
    assert (event.type if event else None) == seen
    assert visible(change, "other", FRONT) is None


class Watchers(RuleBasedStateMachine):
    """A watcher that reads the log at any moment ends with what the store holds, or is told to list again."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store(history=4)
        self.seen: dict[str, str] = {}
        self.revision = self.store.revision
        self.expired = 0

    @rule(name=st.sampled_from("abc"), tier=st.sampled_from(["front", "back"]))
    def put(self, name: str, tier: str) -> None:
        self.store.put("pods", "ns", name, obj(name, tier=tier))

    @precondition(lambda self: self.store.collection("pods").records)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        _, name = data.draw(st.sampled_from(sorted(self.store.collection("pods").records)))
        last = self.store.get("pods", "ns", name)
        assert last is not None
        self.store.remove("pods", "ns", name, obj(name, **last.obj["metadata"]["labels"]))

    @rule()
    def compact(self) -> None:
        self.store.compact()

    @rule()
    def read(self) -> None:
        pods = self.store.collection("pods")
        try:
            changes = self.store.changes_since(pods, self.revision)
        except ApiError:
            self.seen = {
                name: r.obj["metadata"]["resourceVersion"]
                for (_, name), r in pods.records.items()
                if FRONT.matches(r.obj)
            }
            self.revision = self.store.revision
            return
        for change in changes:
            self.revision = change.revision
            event = visible(change, None, FRONT)
            if event is None:
                continue
            assert event.record is not None
            name = event.record.obj["metadata"]["name"]
            if event.type == "DELETED":
                del self.seen[name]
            else:
                assert (name in self.seen) is (event.type == "MODIFIED")
                self.seen[name] = event.record.obj["metadata"]["resourceVersion"]
        expected = {
            n: r.obj["metadata"]["resourceVersion"]
            for (_, n), r in pods.records.items()
            if FRONT.matches(r.obj)
        }
        assert self.seen == expected

    @invariant()
    def bounded(self) -> None:
        assert len(self.store.collection("pods").log) <= 4


Watchers.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestWatchers = Watchers.TestCase
