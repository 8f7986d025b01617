"""Jobs, CronJobs, StatefulSets, DaemonSets: one behaviour each."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.fakes.scripted_world import World
from tulle.local.controllers import cron_job, daemon_set, job, replicaset, stateful_set
from tulle.local.controllers.cluster import (
    CRON_JOBS,
    DAEMON_SETS,
    JOBS,
    NODES,
    PODS,
    REPLICA_SETS,
    STATEFUL_SETS,
)
from tulle.local.controllers.metadata import condition
from tulle.local.controllers.schedule import BadSchedule, parse_schedule

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {"containers": [{"name": "c", "image": "one"}], "restartPolicy": "Never"},
}
KEY = ("default", "it")


def a_job(**spec: Any) -> World:
    world = World()
    world.add(
        JOBS,
        {
            "metadata": {"name": "it"},
            "spec": {"completions": 1, "parallelism": 1, "template": TEMPLATE, **spec},
        },
    )
    world.settle((job.CONTROLLER, KEY))
    return world


def ended(world: World) -> str:
    found = world.stores[JOBS].get(*KEY)
    assert found is not None
    for kind in ("Complete", "Failed"):
        entry = condition(found, kind)
        if entry is not None:
            return f"{kind}: {entry['reason']}"
    return ""


def test_a_job_runs_so_many_pods_at_once_until_enough_have_succeeded() -> None:
    world = a_job(completions=3, parallelism=2)
    assert len(world.pods()) == 2
    for _ in range(3):
        running = next(p for p in world.pods() if "status" not in p)
        world.phase(running, "Succeeded")
        world.settle((job.CONTROLLER, KEY))
    assert ended(world) == "Complete: CompletionsReached"
    assert len(world.pods()) == 3


def test_failures_are_retried_with_growing_pauses_up_to_the_limit() -> None:
    world = a_job(backoffLimit=1)
    world.phase(world.pods()[0], "Failed")
    world.settle((job.CONTROLLER, KEY))
    assert len(world.pods()) == 1 and world.requeued
    world.pass_time(10)
    world.settle((job.CONTROLLER, KEY))
    assert len(world.pods()) == 2
    world.phase(world.pods()[1], "Failed")
    world.settle((job.CONTROLLER, KEY))
    assert ended(world) == "Failed: BackoffLimitExceeded"


def test_a_deadline_ends_a_job_and_its_pods() -> None:
    world = a_job(activeDeadlineSeconds=5)
    world.pass_time(5)
    world.settle((job.CONTROLLER, KEY))
    assert ended(world) == "Failed: DeadlineExceeded" and world.pods() == []


def test_a_finished_job_goes_after_its_time_to_live() -> None:
    world = a_job(ttlSecondsAfterFinished=30)
    world.phase(world.pods()[0], "Succeeded")
    world.settle((job.CONTROLLER, KEY))
    world.pass_time(29)
    world.settle((job.CONTROLLER, KEY))
    assert world.stores[JOBS].get(*KEY) is not None
    world.pass_time(1)
    world.settle((job.CONTROLLER, KEY))
    assert world.stores[JOBS].get(*KEY) is None


def test_a_suspended_job_has_no_pods_until_it_is_resumed() -> None:
    world = a_job(suspend=True)
    assert world.pods() == []
    world.change(JOBS, KEY, {"spec": {"suspend": False}})
    world.settle((job.CONTROLLER, KEY))
    assert len(world.pods()) == 1


def test_indexed_jobs_tell_each_pod_its_index_and_run_each_once() -> None:
    world = a_job(completions=2, parallelism=2, completionMode="Indexed")
    indexes = {p["metadata"]["annotations"][job.INDEX] for p in world.pods()}
    assert indexes == {"0", "1"}
    failed = world.pods()[0]
    world.phase(failed, "Failed")
    world.pass_time(20)
    world.settle((job.CONTROLLER, KEY))
    active = [p for p in world.pods() if "status" not in p]
    assert sorted(p["metadata"]["annotations"][job.INDEX] for p in active) == ["0", "1"]
    assert {"name": "JOB_COMPLETION_INDEX", "value": "1"} in next(
        p for p in active if p["metadata"]["annotations"][job.INDEX] == "1"
    )["spec"]["containers"][0]["env"]


def a_stateful_set(**spec: Any) -> World:
    world = World()
    full = {
        "replicas": 2,
        "serviceName": "db",
        "selector": {"matchLabels": {"a": "b"}},
        "template": TEMPLATE,
        **spec,
    }
    world.add(STATEFUL_SETS, {"metadata": {"name": "it"}, "spec": full})
    world.settle((stateful_set.CONTROLLER, KEY))
    return world


def names(world: World) -> list[str]:
    return [p["metadata"]["name"] for p in world.pods()]


def test_ordinals_come_one_after_the_other_and_go_in_reverse() -> None:
    world = a_stateful_set()
    assert names(world) == ["it-0"]
    world.phase(world.pods()[0], "Running", ready=True)
    world.settle((stateful_set.CONTROLLER, KEY))
    assert names(world) == ["it-0", "it-1"]
    assert world.pods()[1]["spec"]["hostname"] == "it-1" and world.pods()[1]["spec"]["subdomain"] == "db"
    world.phase(world.pods()[1], "Running", ready=True)
    world.change(STATEFUL_SETS, KEY, {"spec": {"replicas": 1}})
    world.settle((stateful_set.CONTROLLER, KEY))
    assert names(world) == ["it-0"]


def test_a_new_template_replaces_the_last_ordinal_first_and_waits_for_it() -> None:
    world = a_stateful_set(podManagementPolicy="Parallel")
    for pod in world.pods():
        world.phase(pod, "Running", ready=True)
    new = {**TEMPLATE, "spec": {**TEMPLATE["spec"], "containers": [{"name": "c", "image": "two"}]}}
    world.change(STATEFUL_SETS, KEY, {"spec": {"template": new}})
    world.settle((stateful_set.CONTROLLER, KEY))
    assert names(world) == ["it-0"]
    world.bury()
    world.settle((stateful_set.CONTROLLER, KEY))
    assert [p["spec"]["containers"][0]["image"] for p in world.pods()] == ["one", "two"]


def test_volume_claims_are_written_into_the_pods() -> None:
    world = a_stateful_set(volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": {}}])
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data-it-0"}}
    assert world.pods()[0]["spec"]["volumes"] == [volume]


def a_daemon_set(**spec: Any) -> World:
    world = World()
    world.add(NODES, {"metadata": {"name": "tulle", "namespace": "", "labels": {"disk": "ssd"}}})
    template = {**TEMPLATE, "spec": {**TEMPLATE["spec"], **spec}}
    full = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    world.add(DAEMON_SETS, {"metadata": {"name": "it"}, "spec": full})
    world.settle((daemon_set.CONTROLLER, KEY))
    return world


def test_a_daemon_set_has_one_pod_where_its_node_selector_matches() -> None:
    assert len(a_daemon_set(nodeSelector={"disk": "ssd"}).pods()) == 1
    assert a_daemon_set(nodeSelector={"disk": "tape"}).pods() == []


def test_a_daemon_set_replaces_its_pod_when_the_template_changes() -> None:
    world = a_daemon_set()
    world.change(
        DAEMON_SETS, KEY, {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "two"}]}}}}
    )
    world.settle((daemon_set.CONTROLLER, KEY))
    assert world.pods() == []
    world.bury()
    world.settle((daemon_set.CONTROLLER, KEY))
    assert [p["spec"]["containers"][0]["image"] for p in world.pods()] == ["two"]


def a_cron_job(**spec: Any) -> World:
    world = World()
    full = {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": TEMPLATE}}, **spec}
    world.add(CRON_JOBS, {"metadata": {"name": "it"}, "spec": full})
    return world


def test_a_cron_job_starts_a_job_when_it_is_due_and_only_once() -> None:
    world = a_cron_job()
    world.settle((cron_job.CONTROLLER, KEY))
    assert list(world.stores[JOBS]) == []
    world.pass_time(301)
    world.settle((cron_job.CONTROLLER, KEY))
    world.settle((cron_job.CONTROLLER, KEY))
    assert len(list(world.stores[JOBS])) == 1


@pytest.mark.parametrize(("policy", "jobs"), [("Allow", 2), ("Forbid", 1), ("Replace", 1)])
def test_concurrency_is_as_its_policy_says(policy: str, jobs: int) -> None:
    world = a_cron_job(concurrencyPolicy=policy)
    for _ in range(2):
        world.pass_time(301)
        world.reconcile(cron_job.CONTROLLER, KEY)
    assert len(list(world.stores[JOBS])) == jobs


def test_schedules_name_the_next_moment() -> None:
    start = datetime(2026, 2, 27, 22, 58, tzinfo=UTC)
    for text, expected in {
        "* * * * *": "2026-02-27 22:59", "0 * * * *": "2026-02-27 23:00", "@daily": "2026-02-28 00:00",
        "30 4 1,15 * *": "2026-03-01 04:30", "0 0 * * mon": "2026-03-02 00:00", "0 12 13 * fri": "2026-03-06 12:00",
        "0 0 29 2 *": "2028-02-29 00:00", "15-45/15 9-17 * * 1-5": "2026-03-02 09:15",
    }.items():  # fmt: skip
        found = parse_schedule(text).next_after(start, UTC)
        assert found is not None and found.strftime("%Y-%m-%d %H:%M") == expected, text
    assert parse_schedule("0 0 31 2 *").next_after(start, UTC) is None


@pytest.mark.parametrize(
    "text", ["", "* * * *", "60 * * * *", "* * 0 * *", "*/0 * * * *", "a * * * *", "5-1 * * * *"]
)
def test_a_schedule_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadSchedule):
        parse_schedule(text)


def test_a_scale_down_takes_the_least_useful_pods_first() -> None:
    world = World()
    spec = {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}
    world.add(REPLICA_SETS, {"metadata": {"name": "it"}, "spec": spec})
    made = [
        world.add(PODS, {"metadata": {"name": n, "labels": {"a": "b"}}, "spec": {"nodeName": "tulle"}})
        for n in "abc"
    ]
    world.phase(made[0], "Running", ready=True)
    world.phase(made[1], "Running")
    world.phase(made[2], "Pending")
    assert [p["metadata"]["name"] for p in replicaset.removal_order(world.pods())] == ["c", "b", "a"]


def test_orphans_that_match_are_adopted() -> None:
    world = World()
    orphan = world.add(PODS, {"metadata": {"name": "o", "labels": {"a": "b"}}, "spec": {}})
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}
    owner = world.add(REPLICA_SETS, {"metadata": {"name": "it"}, "spec": spec})
    world.settle((replicaset.CONTROLLER, KEY))
    (pod,) = world.pods()
    assert pod["metadata"]["uid"] == orphan["metadata"]["uid"]
    assert pod["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"]
