"""Deployments and their ReplicaSets, step by step and under any order of pods' readiness."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.scripted_world import World
from tulle.local.controllers import deployment, replicaset
from tulle.local.controllers.cluster import DEPLOYMENTS, REPLICA_SETS
from tulle.local.controllers.metadata import condition, pod_is_ready

KEY = ("default", "web")


def template(image: str) -> dict[str, Any]:
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}


class Rollout:
    """One Deployment with its world."""

    def __init__(self, replicas: int = 3, **spec: Any) -> None:
        self.world = World()
        full = {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template("one"),
            **spec,
        }
        self.world.add(DEPLOYMENTS, {"metadata": {"name": "web"}, "spec": full})

    def step(self) -> None:
        self.world.reconcile(deployment.CONTROLLER, KEY)
        for rs in list(self.world.stores[REPLICA_SETS]):
            self.world.reconcile(replicaset.CONTROLLER, ("default", rs["metadata"]["name"]))

    def ready(self) -> None:
        for _ in range(60):
            before = [p["metadata"]["name"] for p in self.world.pods()]
            self.step()
            for pod in self.world.pods():
                if not pod_is_ready(pod):
                    self.world.phase(pod, "Running", ready=True)
            self.world.bury()
            if before == [p["metadata"]["name"] for p in self.world.pods()]:
                self.step()
        self.step()

    def change(self, **spec: Any) -> None:
        self.world.change(DEPLOYMENTS, KEY, {"spec": spec})

    @property
    def status(self) -> dict[str, Any]:
        found = self.world.stores[DEPLOYMENTS].get(*KEY)
        assert found is not None
        return dict(found.get("status") or {})

    def reason(self, name: str) -> str:
        found = self.world.stores[DEPLOYMENTS].get(*KEY)
        assert found is not None
        entry = condition(found, name)
        return entry["reason"] if entry else ""

    def images(self) -> list[str]:
        return sorted(p["spec"]["containers"][0]["image"] for p in self.world.pods())

    def sizes(self) -> dict[str, int]:
        return {
            rs["spec"]["template"]["spec"]["containers"][0]["image"]: rs["spec"]["replicas"]
            for rs in self.world.stores[REPLICA_SETS]
        }


def test_a_new_deployment_has_one_replica_set_with_all_pods() -> None:
    r = Rollout(3)
    r.ready()
    assert r.images() == ["one"] * 3
    assert r.status["availableReplicas"] == 3 == r.status["updatedReplicas"] == r.status["replicas"]
    assert r.reason("Progressing") == "NewReplicaSetAvailable"
    assert r.reason("Available") == "MinimumReplicasAvailable"


def test_the_same_template_again_changes_nothing() -> None:
    r = Rollout(2)
    r.ready()
    r.change(template=template("one"))
    r.ready()
    assert len(list(r.world.stores[REPLICA_SETS])) == 1


def test_a_rollback_takes_the_old_replica_set_and_a_new_revision() -> None:
    r = Rollout(2)
    r.ready()
    r.change(template=template("two"))
    r.ready()
    r.change(template=template("one"))
    r.ready()
    revisions = {
        rs["spec"]["template"]["spec"]["containers"][0]["image"]: rs["metadata"]["annotations"][
            deployment.REVISION
        ]
        for rs in r.world.stores[REPLICA_SETS]
    }
    assert revisions == {"one": "3", "two": "2"}
    assert r.sizes() == {"one": 2, "two": 0}


def test_a_restart_annotation_replaces_every_pod() -> None:
    r = Rollout(2)
    r.ready()
    before = {p["metadata"]["name"] for p in r.world.pods()}
    again = template("one")
    again["metadata"]["annotations"] = {"kubectl.kubernetes.io/restartedAt": "now"}
    r.change(template=again)
    r.ready()
    assert not before & {p["metadata"]["name"] for p in r.world.pods()}


def test_recreate_waits_until_the_old_pods_are_gone() -> None:
    r = Rollout(2, strategy={"type": "Recreate"})
    r.ready()
    r.change(template=template("two"))
    for _ in range(4):
        r.step()
        assert r.images() in (["one", "one"], [])
    assert r.images() == []
    r.world.bury()
    r.ready()
    assert r.images() == ["two", "two"]


def test_pods_that_never_become_ready_stop_the_rollout_and_the_deadline_says_so() -> None:
    r = Rollout(4, progressDeadlineSeconds=60)
    r.ready()
    r.change(template=template("broken"))
    for _ in range(5):
        r.step()
        r.world.bury()
    assert r.sizes() == {"one": 3, "broken": 2}
    assert r.status["availableReplicas"] == 3
    r.world.pass_time(61)
    r.step()
    assert r.reason("Progressing") == "ProgressDeadlineExceeded"


def test_a_paused_deployment_scales_and_does_not_roll() -> None:
    r = Rollout(2)
    r.ready()
    r.change(paused=True, template=template("two"), replicas=4)
    r.ready()
    assert r.images() == ["one"] * 4
    r.change(paused=False)
    r.ready()
    assert r.images() == ["two"] * 4


def test_history_is_kept_to_its_limit() -> None:
    r = Rollout(1, revisionHistoryLimit=1)
    for image in ("one", "two", "three", "four"):
        r.change(template=template(image))
        r.ready()
    assert r.sizes() == {"four": 1, "three": 0}


def test_min_ready_seconds_hold_availability_back() -> None:
    r = Rollout(1, minReadySeconds=10)
    r.step()
    (pod,) = r.world.pods()
    r.world.phase(pod, "Running", ready=True)
    r.step()
    assert "availableReplicas" not in r.status
    r.world.pass_time(10)
    r.step()
    r.step()
    assert r.status["availableReplicas"] == 1


@pytest.mark.parametrize("replicas", [1, 5])
def test_scaling_needs_no_new_replica_set(replicas: int) -> None:
    r = Rollout(3)
    r.ready()
    r.change(replicas=replicas)
    r.ready()
    assert r.images() == ["one"] * replicas


@settings(max_examples=60, deadline=None)
@given(
    replicas=st.integers(1, 5),
    surge=st.integers(0, 2),
    unavailable=st.integers(0, 2),
    data=st.data(),
)
def test_pods_never_exceed_the_surge_nor_fall_below_the_availability(
    replicas: int, surge: int, unavailable: int, data: st.DataObject
) -> None:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    r = Rollout(replicas, strategy={"type": "RollingUpdate", "rollingUpdate": rolling})
    r.ready()
    least = replicas - (unavailable or (1 if surge == 0 else 0))
    images: list[str] = data.draw(st.lists(st.sampled_from(["two", "three", "one"]), min_size=1, max_size=3))
    for image in images:
        r.change(template=template(image))
        for _ in range(data.draw(st.integers(1, 12))):
            r.step()
            assert len(r.world.pods()) <= replicas + surge
            assert sum(pod_is_ready(p) for p in r.world.pods()) >= least
            waiting = [p for p in r.world.pods() if not pod_is_ready(p)]
            coins: list[bool] = data.draw(st.tuples(st.booleans(), st.booleans()).map(list))
            if waiting and coins[0]:
                r.world.phase(data.draw(st.sampled_from(waiting)), "Running", ready=True)
            if coins[1]:
                r.world.bury()
    r.ready()
    assert r.images() == [image] * replicas
