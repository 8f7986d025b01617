"""The pod machine as conversations: facts in, exact commands out."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tulle.local.pods import machine as m
from tulle.local.pods.container import State
from tulle.local.pods.machine import PodMachine, Stage
from tulle.local.pods.spec import ProbeKind, parse_pod


def pod(*containers: dict[str, Any], init: tuple[dict[str, Any], ...] = (), **spec: Any) -> PodMachine:
    full = {"containers": list(containers), "initContainers": list(init), **spec}
    return PodMachine(
        parse_pod({"metadata": {"name": "p", "namespace": "default", "uid": "u"}, "spec": full})
    )


def c(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "i", **fields}


def sidecar(name: str, **fields: Any) -> dict[str, Any]:
    return c(name, restartPolicy="Always", **fields)


def quiet(commands: list[m.Command]) -> list[m.Command]:
    """Events are for people; these tests are about what is done."""
    return [command for command in commands if not isinstance(command, m.Emit)]


def started(machine: PodMachine, *names: str, now: float = 0.0) -> None:
    """Bring a fresh pod up to running containers `names`, in this order."""
    assert quiet(machine.begin(now)) == [m.Prepare()]
    machine.tell(m.Prepared("10.0.0.1"), now)
    for name in names:
        assert machine.containers[name].state is State.STARTING, machine
        machine.tell(m.Started(name, 1), now)


def test_init_containers_run_one_after_the_other_before_the_main_ones() -> None:
    p = pod(c("app"), init=(c("a"), c("b")))
    assert quiet(p.begin(0)) == [m.Prepare()]
    assert quiet(p.tell(m.Prepared("10.0.0.1"), 0)) == [m.Start("a", 1)]
    assert quiet(p.tell(m.Started("a", 1), 0)) == []
    assert quiet(p.tell(m.Exited("a", 1, 0), 1)) == [m.StopProbes("a"), m.Start("b", 1)]
    p.tell(m.Started("b", 1), 1)
    assert quiet(p.tell(m.Exited("b", 1, 0), 2)) == [m.StopProbes("b"), m.Start("app", 1)]
    assert p.stage is Stage.RUNNING


def test_a_native_sidecar_lets_the_next_container_start_when_its_startup_probe_succeeds() -> None:
    probe = {"httpGet": {"port": 4191}, "periodSeconds": 1, "failureThreshold": 120}
    p = pod(c("app"), init=(sidecar("proxy", startupProbe=probe), c("setup")))
    started(p)
    assert p.containers["proxy"].state is State.STARTING
    (probing,) = quiet(p.tell(m.Started("proxy", 1), 0))
    assert isinstance(probing, m.StartProbe) and probing.probe.kind is ProbeKind.STARTUP
    assert quiet(p.tell(m.ProbeResult("proxy", 1, ProbeKind.STARTUP, False, "not yet"), 1)) == []
    commands = quiet(p.tell(m.ProbeResult("proxy", 1, ProbeKind.STARTUP, True), 2))
    assert commands == [m.StopProbes("proxy"), m.Start("setup", 1)]
    p.tell(m.Started("setup", 1), 2)
    assert m.Start("app", 1) in p.tell(m.Exited("setup", 1, 0), 3)


def test_a_sidecar_that_crashes_while_an_init_container_runs_is_restarted_at_once() -> None:
    p = pod(c("app"), init=(sidecar("proxy"), c("setup")))
    started(p, "proxy", "setup")
    assert quiet(p.tell(m.Exited("proxy", 1, 1), 5)) == [m.StopProbes("proxy"), m.Start("proxy", 2)]
    assert p.containers["setup"].state is State.RUNNING


def test_the_first_restart_is_immediate_then_ten_seconds_doubling_to_five_minutes() -> None:
    p = pod(c("app"))
    started(p, "app")
    now, pauses = 0.0, []
    for attempt in range(1, 9):
        commands = quiet(p.tell(m.Exited("app", attempt, 1), now))
        began = now
        while m.Start("app", attempt + 1) not in commands:
            due = p.wake_at()
            assert due is not None and due > now
            now = due
            commands = quiet(p.tell(m.Tick(), now))
        pauses.append(now - began)
        p.tell(m.Started("app", attempt + 1), now)
    assert pauses == [0, 10, 20, 40, 80, 160, 300, 300]
    assert p.containers["app"].restarts == 8


def test_ten_minutes_of_running_are_forgiven() -> None:
    p = pod(c("app"))
    started(p, "app")
    p.tell(m.Exited("app", 1, 1), 1)
    p.tell(m.Started("app", 2), 1)
    p.tell(m.Exited("app", 2, 1), 2)
    assert p.containers["app"].waiting_reason == "CrashLoopBackOff"
    p.tell(m.Tick(), 12)
    p.tell(m.Started("app", 3), 12)
    assert m.Start("app", 4) in p.tell(m.Exited("app", 3, 1), 12 + 600)


@pytest.mark.parametrize(
    ("policy", "code", "restarts"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 1, False),
    ],
)
def test_the_restart_policy_decides(policy: str, code: int, restarts: bool) -> None:
    p = pod(c("app"), restartPolicy=policy)
    started(p, "app")
    commands = p.tell(m.Exited("app", 1, code), 1)
    assert (m.Start("app", 2) in commands) is restarts
    assert (p.stage is Stage.ENDED) is not restarts


def test_when_the_main_containers_are_done_sidecars_stop_in_reverse_order_and_the_pod_succeeded() -> None:
    p = pod(c("work"), init=(sidecar("first"), sidecar("second")), restartPolicy="Never")
    started(p, "first", "second", "work")
    assert quiet(p.tell(m.Exited("work", 1, 0), 1)) == [m.StopProbes("work"), m.Kill("second")]
    assert quiet(p.tell(m.Exited("second", 1, 143, 15), 2)) == [m.StopProbes("second"), m.Kill("first")]
    assert quiet(p.tell(m.Exited("first", 1, 143, 15), 3)) == [m.StopProbes("first"), m.Release()]
    assert p.stage is Stage.ENDED and p.succeeded


def test_deletion_stops_main_containers_before_sidecars_and_kills_after_the_grace_period() -> None:
    p = pod(c("app"), init=(sidecar("proxy"),))
    started(p, "proxy", "app")
    assert quiet(p.tell(m.Delete(30), 100)) == [m.StopProbes("app"), m.Kill("app")]
    assert p.wake_at() == 130
    assert quiet(p.tell(m.Tick(), 130)) == [m.Kill("app", hard=True)]
    assert quiet(p.tell(m.Exited("app", 1, 137, 9), 130)) == [m.StopProbes("app"), m.Kill("proxy")]
    assert p.wake_at() == 132, "the sidecar gets two seconds although the grace period is over"
    assert quiet(p.tell(m.Tick(), 132)) == [m.Kill("proxy", hard=True)]
    assert quiet(p.tell(m.Exited("proxy", 1, 137, 9), 132)) == [m.StopProbes("proxy"), m.Release()]


def test_a_second_deletion_can_only_shorten_the_grace_period() -> None:
    p = pod(c("app"))
    started(p, "app")
    p.tell(m.Delete(30), 0)
    p.tell(m.Delete(5), 10)
    assert p.wake_at() == 15
    p.tell(m.Delete(60), 11)
    assert p.wake_at() == 15


def test_the_pre_stop_hook_runs_before_the_signal() -> None:
    p = pod(c("app", lifecycle={"preStop": {"sleep": {"seconds": 2}}}))
    started(p, "app")
    commands = quiet(p.tell(m.Delete(30), 0))
    assert [type(command) for command in commands] == [m.StopProbes, m.RunHook]
    assert quiet(p.tell(m.HookDone("app", 1, "preStop"), 2)) == [m.Kill("app")]


def test_a_pre_stop_hook_that_hangs_is_cut_short_by_the_grace_period() -> None:
    p = pod(c("app", lifecycle={"preStop": {"exec": {"command": ["sleep", "99"]}}}))
    started(p, "app")
    p.tell(m.Delete(3), 0)
    assert quiet(p.tell(m.Tick(), 3)) == [m.Kill("app", hard=True)]


def test_a_failed_post_start_hook_kills_the_container() -> None:
    p = pod(c("app", lifecycle={"postStart": {"exec": {"command": ["false"]}}}))
    started(p, "app")
    assert quiet(p.tell(m.HookDone("app", 1, "postStart", "exit 1"), 1)) == [
        m.StopProbes("app"),
        m.Kill("app"),
    ]


def test_liveness_failures_in_a_row_restart_the_container() -> None:
    p = pod(c("app", livenessProbe={"tcpSocket": {"port": 1}, "failureThreshold": 2}))
    started(p, "app")
    fail = m.ProbeResult("app", 1, ProbeKind.LIVENESS, False, "refused")
    assert quiet(p.tell(fail, 1)) == []
    assert quiet(p.tell(m.ProbeResult("app", 1, ProbeKind.LIVENESS, True), 2)) == []
    assert quiet(p.tell(fail, 3)) == []
    assert quiet(p.tell(fail, 4)) == [m.StopProbes("app"), m.Kill("app")]
    assert quiet(p.tell(m.Exited("app", 1, 143, 15), 5)) == [m.StopProbes("app"), m.Start("app", 2)]


def test_a_failure_that_does_not_count_changes_nothing() -> None:
    p = pod(c("app", readinessProbe={"tcpSocket": {"port": 1}, "failureThreshold": 1}))
    started(p, "app")
    p.tell(m.ProbeResult("app", 1, ProbeKind.READINESS, True), 1)
    assert p.containers["app"].ready
    p.tell(m.ProbeResult("app", 1, ProbeKind.READINESS, False, "", counts=False), 2)
    assert p.containers["app"].ready
    p.tell(m.ProbeResult("app", 1, ProbeKind.READINESS, False), 3)
    assert not p.containers["app"].ready


def test_a_late_fact_about_an_earlier_process_changes_nothing() -> None:
    p = pod(c("app", livenessProbe={"tcpSocket": {"port": 1}, "failureThreshold": 1}))
    started(p, "app")
    p.tell(m.Exited("app", 1, 1), 1)
    p.tell(m.Started("app", 2), 1)
    assert p.tell(m.ProbeResult("app", 1, ProbeKind.LIVENESS, False), 2) == []
    assert p.tell(m.Exited("app", 1, 1), 2) == []
    assert p.containers["app"].state is State.RUNNING


def test_missing_configuration_is_tried_again_with_pauses() -> None:
    p = pod(c("app"))
    started(p)
    assert quiet(p.tell(m.StartFailed("app", 1, "CreateContainerConfigError", "no map"), 0)) == []
    assert p.wake_at() == 1
    assert quiet(p.tell(m.Tick(), 1)) == [m.Start("app", 2)]
    p.tell(m.StartFailed("app", 2, "CreateContainerConfigError", "no map"), 1)
    assert p.wake_at() == 3


def test_a_program_that_cannot_be_executed_counts_as_an_exit_with_128() -> None:
    p = pod(c("app"), restartPolicy="Never")
    started(p)
    p.tell(m.StartFailed("app", 1, "StartError", "permission denied", fatal=True), 0)
    last = p.containers["app"].last
    assert p.stage is Stage.ENDED and not p.succeeded and last is not None and last.exit_code == 128


def test_a_failing_init_container_of_a_pod_that_never_restarts_fails_the_pod() -> None:
    p = pod(c("app"), init=(c("setup"),), restartPolicy="Never")
    started(p, "setup")
    assert quiet(p.tell(m.Exited("setup", 1, 1), 1)) == [m.StopProbes("setup"), m.Release()]
    assert p.stage is Stage.ENDED and not p.succeeded


def test_volumes_that_cannot_be_made_are_tried_again_and_named_once() -> None:
    p = pod(c("app"))
    p.begin(0)
    failed = m.PrepareFailed("FailedMount", "no such map")
    assert p.tell(failed, 0) == [m.Emit("Warning", "FailedMount", "no such map")]
    assert quiet(p.tell(m.Tick(), 0.5)) == [m.Prepare()]
    assert p.tell(failed, 0.5) == []


def test_the_active_deadline_ends_the_pod() -> None:
    p = pod(c("app"), activeDeadlineSeconds=60)
    started(p, "app")
    assert p.wake_at() == 60
    assert quiet(p.tell(m.Tick(), 60)) == [m.StopProbes("app"), m.Kill("app")]
    p.tell(m.Exited("app", 1, 143, 15), 61)
    assert p.failure is not None and p.failure[0] == "DeadlineExceeded" and not p.succeeded


def test_a_pod_deleted_while_a_process_starts_waits_for_it() -> None:
    p = pod(c("app"))
    started(p)
    assert quiet(p.tell(m.Delete(5), 1)) == []
    assert quiet(p.tell(m.Started("app", 1), 2)) == [m.StopProbes("app"), m.Kill("app")]


def test_a_pod_deleted_before_it_has_volumes_is_released_at_once() -> None:
    p = pod(c("app"))
    p.begin(0)
    assert quiet(p.tell(m.Delete(5), 1)) == [m.Release()]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_happens_a_deleted_pod_is_released_once_and_never_starts_again(data: st.DataObject) -> None:
    probe = {"tcpSocket": {"port": 1}, "failureThreshold": 1}
    p = pod(
        c("app", livenessProbe=probe, lifecycle={"preStop": {"sleep": {"seconds": 1}}}),
        init=(sidecar("proxy", startupProbe=probe), c("setup")),
        restartPolicy=data.draw(st.sampled_from(["Always", "OnFailure", "Never"])),
    )
    now, released, deleted = 0.0, 0, False
    pending: list[m.Event] = []
    commands = p.begin(now)
    for _ in range(data.draw(st.integers(5, 60))):
        for command in commands:
            match command:
                case m.Prepare():
                    pending.append(m.Prepared("10.0.0.1"))
                case m.Start(name, attempt):
                    assert not deleted or p.containers[name].state is State.STARTING
                    works = data.draw(st.booleans())
                    pending.append(
                        m.Started(name, attempt) if works else m.StartFailed(name, attempt, "E", "m")
                    )
                case m.Kill(name, _):
                    pending.append(m.Exited(name, p.containers[name].attempt, 143, 15))
                case m.RunHook(name, attempt, hook, _):
                    pending.append(m.HookDone(name, attempt, hook))
                case m.StartProbe(name, attempt, found):
                    pending.append(m.ProbeResult(name, attempt, found.kind, data.draw(st.booleans())))
                case m.Release():
                    released += 1
        choices: list[m.Event] = [m.Tick(), *pending]
        running = [n for n, k in p.containers.items() if k.is_running]
        choices += [m.Exited(n, p.containers[n].attempt, data.draw(st.integers(0, 1))) for n in running]
        if not deleted:
            choices.append(m.Delete(data.draw(st.sampled_from([0.0, 3.0]))))
        event = data.draw(st.sampled_from(choices))
        if event in pending:
            pending.remove(event)
        if isinstance(event, m.Delete):
            deleted = True
        now += data.draw(st.sampled_from([0.0, 0.5, 4.0]))
        starts_before = {n: k.attempt for n, k in p.containers.items()}
        commands = p.tell(event, now)
        if deleted:
            assert {n: k.attempt for n, k in p.containers.items()} == starts_before
    assert released <= 1
    assert (p.stage is Stage.ENDED) == (released + sum(isinstance(x, m.Release) for x in commands) == 1)
