"""Statuses and Events as the API gets them, and the election of who writes them."""

import datetime
from typing import Any

import pytest

from tests.fakes.cluster import policy, route, server, service, voting
from tests.fakes.kubernetes import FakeKubernetes
from tests.unit.control.conftest import running, until
from tests.unit.control.test_identity import given
from tulle.kube.lease import LEASE_SECONDS, Take, Wait, decide

NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)


def statuses(kubernetes: FakeKubernetes) -> list[dict[str, Any]]:
    return [each for each in kubernetes.created if each["path"].endswith("/status")]


async def test_a_route_is_judged_and_what_is_not_carried_out_is_named() -> None:
    extended = {
        "filters": [{"type": "ExtensionRef"}],
        "backendRefs": [{"name": "gone", "port": 80}],
    }
    async with FakeKubernetes(voting(route("r", [extended]))).serving() as kubernetes, running(kubernetes):
        await until(lambda: bool(statuses(kubernetes)))
        written = statuses(kubernetes)[0]
        assert written["path"] == "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes/r/status"
        (parent,) = written["status"]["parents"]
        found = {each["type"]: (each["status"], each["reason"]) for each in parent["conditions"]}
        assert found == {
            "Accepted": ("True", "Accepted"),
            "ResolvedRefs": ("False", "BackendNotFound"),
            "PartiallyInvalid": ("True", "UnsupportedValue"),
        }
        assert "spec.rules[0].filters: ExtensionRef is not supported" in parent["conditions"][2]["message"]


async def test_annotations_that_are_not_carried_out_are_an_event_on_their_service() -> None:
    tuned = service("tuned", "10.96.0.9", annotations={"retry.linkerd.io/grpc": "internal"})
    bad = server("bad", 80, externalWorkloadSelector={})
    async with FakeKubernetes(voting(tuned, bad)).serving() as kubernetes, running(kubernetes):

        def told() -> dict[str, str]:
            events = [each for each in kubernetes.created if each["path"].endswith("/events")]
            return {
                f"{e['involvedObject']['kind']}/{e['involvedObject']['name']}": e["message"] for e in events
            }

        await until(lambda: {"Service/tuned", "Server/bad"} <= told().keys())
        assert "retry.linkerd.io/grpc" in told()["Service/tuned"]
        assert "externalWorkloadSelector" in told()["Server/bad"]


async def test_only_one_of_two_replicas_writes() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes:
        async with running(kubernetes) as first:
            await until(lambda: first.controller._election.leading)
            async with running(kubernetes) as second:
                second.controller._election.me = "second"
                await until(lambda: second.controller.views.watcher.synced)
                assert not second.controller._election.leading
        lease = kubernetes.other["/apis/coordination.k8s.io/v1/namespaces/linkerd/leases/tulle-status-writer"]
        assert lease["spec"]["holderIdentity"] == ""  # given back at the end


@pytest.mark.parametrize(
    ("spec", "unchanged_for", "expected"),
    [
        ({}, 0.0, Take),
        ({"holderIdentity": ""}, 0.0, Take),
        ({"holderIdentity": "me"}, 0.0, Take),
        ({"holderIdentity": "other"}, LEASE_SECONDS - 1.0, Wait),
        ({"holderIdentity": "other"}, LEASE_SECONDS + 0.0, Take),
        ({"holderIdentity": "other", "leaseDurationSeconds": 60}, 59.0, Wait),
        ({"holderIdentity": "other", "renewTime": "1999-01-01T00:00:00Z"}, 0.0, Wait),
    ],
)
def test_a_lease_is_taken_when_free_ours_or_seen_unchanged_too_long(
    spec: dict[str, Any], unchanged_for: float, expected: type
) -> None:
    assert isinstance(decide(spec, "me", unchanged_for, NOW), expected)


def test_taking_over_counts_as_a_transition_and_renewing_does_not() -> None:
    taken = decide({"holderIdentity": "other", "leaseTransitions": 3}, "me", 99.0, NOW)
    renewed = decide({"holderIdentity": "me", "leaseTransitions": 3, "acquireTime": "then"}, "me", 0.0, NOW)
    assert isinstance(taken, Take) and taken.spec["leaseTransitions"] == 4
    assert isinstance(renewed, Take)
    assert (renewed.spec["leaseTransitions"], renewed.spec["acquireTime"]) == (3, "then")


async def test_the_same_problem_is_one_event_however_often_the_control_plane_starts() -> None:
    bad = server("bad", 80, externalWorkloadSelector={})
    names = []
    async with FakeKubernetes(voting(bad)).serving() as kubernetes:
        for _ in range(2):
            kubernetes.created.clear()
            async with running(kubernetes):

                def told() -> list[str]:
                    return [
                        e["metadata"]["name"]
                        for e in kubernetes.created
                        if e.get("reason") == "NotCarriedOut"
                    ]

                await until(lambda: bool(told()))
                names += told()
    assert len(set(names)) == 1


async def test_a_policy_that_leads_nowhere_is_told_of() -> None:
    lost = policy("lost", ("Server", "gone"), [])
    async with FakeKubernetes(voting(lost)).serving() as kubernetes, running(kubernetes):

        def told() -> list[str]:
            return [e["message"] for e in kubernetes.created if e.get("reason") == "NotCarriedOut"]

        await until(lambda: bool(told()))
        assert "there is no Server gone here" in told()[0]


async def test_identity_alone_reads_nothing_of_the_cluster() -> None:
    roles = frozenset(("identity",))
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes, given, roles) as plane:
        await until(lambda: not plane.controller.not_ready())
        await plane.controller.views.watcher.wait_synced()
        assert [path for method, path, _ in kubernetes.requests if method == "GET"] == []
