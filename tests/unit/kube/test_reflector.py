"""The list-and-watch machine: conversations with a scripted API, and any order of faults ends in the truth."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.cluster import service
from tulle.kube import kinds
from tulle.kube.objects import View
from tulle.kube.reflector import (
    Absent,
    Change,
    Event,
    Expired,
    List,
    Page,
    Pause,
    Phase,
    Reflector,
    Throttled,
    Trouble,
    Watch,
)

KEY = tuple[str, str]


def raw(obj: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(obj).encode())


def at(version: int, name: str = "a", cluster_ip: str = "10.96.0.1") -> dict[str, Any]:
    obj = service(name, cluster_ip)
    obj["metadata"]["resourceVersion"] = str(version)
    return obj


def reflector(kind: Any = kinds.SERVICE) -> Reflector:
    return Reflector(kind, random=lambda: 0.5)


def listed(*objects: dict[str, Any], version: int = 10) -> Reflector:
    machine = reflector()
    assert machine.next_step() == List("v1", "0")
    machine.page(Page(tuple(raw(o) for o in objects), str(version)))
    return machine


def names(changes: list[Change]) -> list[tuple[str | None, str | None]]:
    return [(c.old.name if c.old else None, c.new.name if c.new else None) for c in changes]


def test_a_first_list_comes_from_the_cache_and_a_watch_goes_on_from_it() -> None:
    machine = listed(at(3), at(4, "b"))
    assert machine.synced and sorted(machine.store) == [("default", "a"), ("default", "b")]
    assert machine.next_step() == Watch("v1", "10", 290)


def test_pages_are_one_list_and_the_store_waits_for_the_last() -> None:
    machine = reflector()
    assert machine.page(Page((raw(at(1)),), "5", "more")) == []
    assert not machine.synced and machine.store == {}
    assert machine.next_step() == List("v1", "", "more")
    assert names(machine.page(Page((raw(at(2, "b")),), "5"))) == [(None, "a"), (None, "b")]


def test_events_change_the_store_and_advance_the_version() -> None:
    machine = listed(at(3))
    changed = machine.event(Event("MODIFIED", raw(at(11, cluster_ip="10.96.0.2"))))
    assert names(changed) == [("a", "a")]
    assert names(machine.event(Event("ADDED", raw(at(12, "b"))))) == [(None, "b")]
    assert names(machine.event(Event("DELETED", raw(at(13))))) == [("a", None)]
    assert machine.event(Event("DELETED", raw(at(14)))) == []
    machine.ended(60.0)
    assert machine.next_step() == Watch("v1", "14", 290)


def test_a_bookmark_moves_only_the_version() -> None:
    machine = listed(at(3))
    assert machine.event(Event("BOOKMARK", raw({"metadata": {"resourceVersion": "99"}}))) == []
    machine.ended(60.0)
    assert machine.next_step() == Watch("v1", "99", 290)


@pytest.mark.parametrize("in_stream", [True, False])
def test_410_relists_at_once_from_the_newest_state_and_finds_deletions(in_stream: bool) -> None:
    machine = listed(at(3), at(4, "gone"))
    if in_stream:
        machine.event(Event("ERROR", raw({"kind": "Status", "code": 410, "reason": "Expired"})))
    else:
        machine.failed(Expired())
    assert machine.next_step() == List("v1", "")
    assert sorted(machine.store) == [("default", "a"), ("default", "gone")], "kept until the list is complete"
    assert names(machine.page(Page((raw(at(3)), raw(at(20, "new"))), "20"))) == [
        ("gone", None),
        (None, "new"),
    ]


def test_a_second_410_without_progress_is_not_asked_again_at_once() -> None:
    machine = listed(at(3))
    machine.failed(Expired())
    machine.page(Page((), "11"))
    machine.failed(Expired())
    assert isinstance(machine.next_step(), Pause)
    assert machine.next_step() == List("v1", "")


def test_an_expired_continue_token_starts_the_list_again() -> None:
    machine = reflector()
    machine.page(Page((raw(at(1)),), "5", "token"))
    machine.failed(Expired())
    assert machine.next_step() == List("v1", "")
    assert names(machine.page(Page((raw(at(7, "b")),), "7"))) == [(None, "b")]


def test_other_failures_back_off_and_resume_where_they_were() -> None:
    machine = listed(at(3))
    pauses = []
    for _ in range(12):
        machine.failed(Trouble("connection reset"))
        step = machine.next_step()
        assert isinstance(step, Pause)
        pauses.append(step.seconds)
        assert machine.next_step() == Watch("v1", "10", 290)
    assert pauses[0] < 1 and pauses == sorted(pauses) and pauses[-1] == 15.0
    assert machine.trouble == "connection reset" and machine.synced
    machine.event(Event("ADDED", raw(at(11, "b"))))
    assert machine.trouble == ""


def test_429_waits_as_long_as_it_was_told_within_reason() -> None:
    for told, waited in ((7.0, 7.0), (9999.0, 60.0)):
        machine = reflector()
        machine.failed(Throttled(told))
        assert machine.next_step() == Pause(waited)


def test_a_custom_kind_that_is_absent_counts_as_synced_and_is_asked_for_again() -> None:
    machine = reflector(kinds.SERVER)
    for version in ("v1beta3", "v1beta2", "v1beta1"):
        assert machine.next_step() == List(version, "0")
        machine.failed(Absent())
    assert machine.synced and machine.absent
    assert isinstance(machine.next_step(), Pause)
    assert machine.next_step() == List("v1beta3", "0")
    machine.page(Page((), "7"))
    assert not machine.absent


def test_a_custom_kind_that_goes_away_takes_its_objects_with_it() -> None:
    machine = reflector(kinds.GATEWAY_HTTP_ROUTE)
    machine.page(Page((raw({"metadata": {"name": "r", "namespace": "default"}}),), "7"))
    machine.failed(Absent())
    assert names(machine.failed(Absent())) == [("r", None)]


def test_a_core_kind_that_is_absent_is_trouble() -> None:
    machine = reflector()
    machine.failed(Absent())
    assert not machine.synced and "services" in machine.trouble
    assert isinstance(machine.next_step(), Pause)


def test_a_stream_that_ends_at_once_is_not_opened_again_at_once() -> None:
    machine = listed(at(3))
    machine.ended(0.01)
    assert isinstance(machine.next_step(), Pause)
    machine.ended(5.0)
    assert isinstance(machine.next_step(), Watch)


def test_an_object_that_cannot_be_read_keeps_its_last_state_and_is_named() -> None:
    machine = listed(at(3))
    broken = at(11)
    broken["spec"]["ports"] = "eighty"
    assert machine.event(Event("MODIFIED", raw(broken))) == []
    assert machine.resource_version == "11"
    assert list(machine.unreadable) == ["default/a"] and "ports" in machine.unreadable["default/a"]
    machine.failed(Expired())
    assert machine.page(Page((raw(broken),), "12")) == []
    assert names(machine.event(Event("DELETED", raw(broken)))) == [("a", None)]
    assert machine.unreadable == {}


def test_null_lists_and_unknown_fields_are_read() -> None:
    machine = reflector(kinds.ENDPOINT_SLICE)
    obj: dict[str, Any] = {
        "metadata": {"name": "x", "namespace": "d", "labels": None},
        "endpoints": None,
        "ports": None,
        "later": [{}],
    }
    (change,) = machine.page(Page((raw(obj),), "1"))
    assert change.new is not None and change.new.labels == {}


@dataclass
class Cluster:
    """The truth, with its history; what was compacted can no longer be watched."""

    version: int = 10
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    compacted: int = 0

    def change(self, name: str, delete: bool) -> None:
        self.version += 1
        if delete:
            if (obj := self.objects.pop(name, None)) is None:
                return
            event = "DELETED"
        else:
            event = "MODIFIED" if name in self.objects else "ADDED"
            obj = self.objects[name] = at(self.version, name, f"10.96.0.{self.version % 250}")
        gone = json.loads(json.dumps(obj))
        gone["metadata"]["resourceVersion"] = str(self.version)
        self.history.append((self.version, event, gone))


@dataclass
class Conversation:
    """Drives a reflector against the cluster as the shell would, with the faults that hypothesis chooses."""

    cluster: Cluster = field(default_factory=Cluster)
    machine: Reflector = field(default_factory=reflector)
    told: dict[KEY, View] = field(default_factory=dict)
    pages: dict[str, Iterator[Any]] = field(default_factory=dict)
    snapshot: list[dict[str, Any]] = field(default_factory=list)
    snapshot_version: int = 0

    def take(self, changes: list[Change]) -> None:
        for change in changes:
            view = change.new or change.old
            assert view is not None
            key = (view.namespace, view.name)
            assert self.told.get(key) == change.old, "every change begins where the last one ended"
            if change.new is None:
                del self.told[key]
            else:
                self.told[key] = change.new
        assert self.told == self.machine.store

    def step(self, fault: str, size: int) -> None:
        step = self.machine.next_step()
        match fault:
            case "reset":
                self.take(self.machine.failed(Trouble("reset")))
                return
            case "429":
                self.take(self.machine.failed(Throttled(1.0)))
                return
            case "410":
                self.take(self.machine.failed(Expired()))
                return
            case "compact":
                self.cluster.compacted = self.cluster.version
        match step:
            case List():
                self.list(step, size)
            case Watch():
                self.watch(step, fault, size)
            case Pause():
                pass

    def list(self, step: List, size: int) -> None:
        if not step.continue_token:
            # A paged list is a snapshot, as with etcd.
            self.snapshot, self.snapshot_version = list(self.cluster.objects.values()), self.cluster.version
            start = 0
        else:
            start = int(step.continue_token)
        end = start + size
        more = str(end) if end < len(self.snapshot) else ""
        items = tuple(raw(o) for o in self.snapshot[start:end])
        self.take(self.machine.page(Page(items, str(self.snapshot_version), more)))

    def watch(self, step: Watch, fault: str, size: int) -> None:
        since = int(step.resource_version)
        if since < self.cluster.compacted:
            self.take(self.machine.event(Event("ERROR", raw({"code": 410, "reason": "Expired"}))))
            return
        events = [h for h in self.cluster.history if h[0] > since]
        for _, kind, obj in events[:size]:
            self.take(self.machine.event(Event(kind, raw(obj))))
        if fault == "error":
            self.take(self.machine.event(Event("ERROR", raw({"code": 500, "message": "etcd"}))))
        elif len(events) <= size:
            self.machine.event(
                Event("BOOKMARK", raw({"metadata": {"resourceVersion": str(self.cluster.version)}}))
            )
            self.machine.ended(30.0)
        else:
            self.machine.ended(0.1)


MOVES = st.one_of(
    st.tuples(st.just("change"), st.sampled_from("abcdef"), st.booleans()),
    st.tuples(
        st.just("step"),
        st.sampled_from(["", "", "", "reset", "429", "410", "compact", "error"]),
        st.integers(1, 4),
    ),
)


@settings(max_examples=300)
@given(st.lists(MOVES, max_size=60))
def test_whatever_is_lost_the_store_ends_as_the_truth(moves: list[tuple[Any, ...]]) -> None:
    talk = Conversation()
    for move in moves:
        if move[0] == "change":
            talk.cluster.change(move[1], move[2])
        else:
            talk.step(move[1], move[2])
    for _ in range(60):
        talk.step("", 100)
    truth = {
        ("default", name): obj["metadata"]["resourceVersion"] for name, obj in talk.cluster.objects.items()
    }
    assert {key: view.metadata.resource_version for key, view in talk.machine.store.items()} == truth
    assert talk.machine.phase is Phase.WATCHING and talk.machine.trouble == ""
