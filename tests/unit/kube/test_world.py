"""The World's indexes and what it says has changed."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.cluster import obj, pod, route, service, slice_of
from tulle.kube import kinds
from tulle.kube.reflector import Change
from tulle.kube.world import World, kind_of


def test_objects_are_found_by_what_they_are_asked_for() -> None:
    world = World.of(
        [
            service("a", "10.96.0.1"),
            pod("p", "10.42.0.1"),
            slice_of("a", []),
            route("r", [{}], {"group": "", "kind": "Service", "name": "a"}),
        ]
    )
    assert world.service_by_ip("10.96.0.1") is world.service("default", "a")
    assert world.pod_by_ip("10.42.0.1") is world.pod("default", "p")
    assert [s.name for s in world.slices_of("default", "a")] == ["a-x"]
    assert [r.name for r in world.routes_of("", "Service", "default", "a")] == ["r"]
    assert world.pods_in("default") and world.services_in("other") == []


def test_an_address_belongs_to_the_pod_that_runs() -> None:
    done = pod("done", "10.42.0.1")
    done["status"]["phase"] = "Succeeded"
    world = World.of([pod("now", "10.42.0.1"), done, pod("host", "10.0.0.9", hostNetwork=True)])
    found = world.pod_by_ip("10.42.0.1")
    assert found is not None and found.name == "now"
    assert world.pod_by_ip("10.0.0.9") is None


def test_owners_are_followed_to_the_workload() -> None:
    world = World.of(
        [
            obj("ReplicaSet", "web-1", "apps/v1", owner=("Deployment", "web")),
            obj("Job", "cron-1", "batch/v1", owner=("CronJob", "cron")),
            obj("Job", "alone", "batch/v1"),
            pod("a", "10.0.0.1", owner=("ReplicaSet", "web-1")),
            pod("b", "10.0.0.2", owner=("Job", "cron-1")),
            pod("c", "10.0.0.3", owner=("Job", "alone")),
            pod("d", "10.0.0.4", owner=("StatefulSet", "db")),
            pod("e", "10.0.0.5", owner=("ReplicaSet", "unknown")),
            pod("f", "10.0.0.6"),
        ]
    )
    owners = {p.name: world.owner(p) for p in world.pods_in("default")}
    assert owners == {
        "a": ("Deployment", "web"),
        "b": ("CronJob", "cron"),
        "c": ("Job", "alone"),
        "d": ("StatefulSet", "db"),
        "e": ("ReplicaSet", "unknown"),
        "f": ("Pod", "f"),
    }


def test_what_is_read_is_noted_even_when_it_is_not_there() -> None:
    world = World()
    with world.reading() as topics:
        assert world.service("default", "a") is None
        assert world.service_by_ip("10.96.0.1") is None
    added = World.of([service("a", "10.96.0.1")]).peek(kinds.SERVICE, "default", "a")
    touched = world.apply(kinds.SERVICE, [Change(None, added)])
    assert len(topics & touched) == 2


def test_the_copy_of_the_manifest_that_kubectl_keeps_is_not_kept() -> None:
    world = World.of(
        [service("a", annotations={"kubectl.kubernetes.io/last-applied-configuration": "x" * 9, "b": "c"})]
    )
    found = world.service("default", "a")
    assert found is not None and found.annotations == {"b": "c"}


def test_kinds_are_told_by_group_and_served_version() -> None:
    assert kind_of({"apiVersion": "policy.linkerd.io/v1beta1", "kind": "Server"}) is kinds.SERVER
    assert kind_of({"apiVersion": "policy.linkerd.io/v9", "kind": "Server"}) is None
    assert kind_of({"apiVersion": "v1", "kind": "ConfigMap"}) is None


SERVICES = st.tuples(
    st.sampled_from("abc"), st.sampled_from(["10.96.0.1", "10.96.0.2", "None"]), st.booleans()
)


@given(st.lists(SERVICES, max_size=30))
def test_indexes_follow_every_change(moves: list[tuple[str, str, bool]]) -> None:
    """Oracle: a scan of all objects."""
    world = World()
    now: dict[str, Any] = {}
    for name, ip, delete in moves:
        old = now.pop(name, None)
        if not delete:
            now[name] = World.of([service(name, ip)]).peek(kinds.SERVICE, "default", name)
        if old is not None or name in now:
            world.apply(kinds.SERVICE, [Change(old, now.get(name))])
    for ip in ("10.96.0.1", "10.96.0.2"):
        owners = sorted(s.name for s in now.values() if ip in s.cluster_ips)
        found = world.service_by_ip(ip)
        assert (found.name if found else None) == (owners[0] if owners else None)
    assert sorted(s.name for s in world.services_in("default")) == sorted(now)
    assert world.count(kinds.SERVICE) == len(now)
