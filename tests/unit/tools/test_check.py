"""What `tulle check` finds: judgements of facts, certificates and what an API said."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tulle.inject.install.certificates import Pair, make_issuer, make_serving, make_trust_anchor
from tulle.tools import check_certificates
from tulle.tools.check import Category, Check, as_json, as_text, failed, passed, succeeded, warned
from tulle.tools.check_cluster import (
    DEFINITIONS,
    SERVICES,
    WEBHOOKS,
    Answer,
    Cluster,
    Page,
    api,
    control_plane,
    proxies,
)
from tulle.tools.check_machine import MachineFacts, machine

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
GOOD = MachineFacts(
    system="Linux",
    kernel="6.1",
    python=(3, 11, 7),
    version="0.1.0",
    proxy_path="/bin/tulle-proxy",
    proxy_version="0.1.0",
    proxy_trouble="",
    engine_trouble="",
    network="netns",
    network_reason="running as root",
    loopback_trouble="",
    state_folder="/home/ann/.local/state/tulle",
    state_trouble="",
)


def outcomes(category: Category) -> set[str]:
    return {check.outcome for check in category.checks}


def worst(category: Category) -> Check:
    """Return the one check that is not all well."""
    [found] = [check for check in category.checks if check.outcome != "success"]
    assert found.reason and found.hint, "trouble has a reason and a hint"
    return found


# --- how it reads -----------------------------------------------------------------------------------------------------


CATEGORIES = [
    Category("machine", [passed("runs Linux"), warned("network", "no root", "use sudo")]),
    Category("proxies", [failed("shop/web is ready", "CrashLoopBackOff\nexit 1", "read its log")]),
]


def test_text_has_a_sign_per_line_and_a_hint_where_it_helps() -> None:
    assert as_text(CATEGORIES).splitlines() == [
        "machine",
        "-------",
        "√ runs Linux",
        "‼ network",
        "    no root",
        "    hint: use sudo",
        "",
        "proxies",
        "-------",
        "× shop/web is ready",
        "    CrashLoopBackOff",
        "    exit 1",
        "    hint: read its log",
        "",
        "Status check results are ×",
    ]


def test_json_has_the_shape_of_linkerd_check() -> None:
    assert as_json(CATEGORIES[:1]) == {
        "success": True,
        "categories": [
            {
                "categoryName": "machine",
                "checks": [
                    {"description": "runs Linux", "result": "success"},
                    {"description": "network", "result": "warning", "error": "no root", "hint": "use sudo"},
                ],
            }
        ],
    }


def test_warnings_do_not_fail() -> None:
    assert succeeded(CATEGORIES[:1])
    assert not succeeded(CATEGORIES)


# --- the machine ------------------------------------------------------------------------------------------------------


def test_a_machine_that_has_all_passes() -> None:
    assert outcomes(machine(GOOD)) == {"success"}


@pytest.mark.parametrize(
    ("trouble", "outcome", "reason"),
    [
        (replace(GOOD, system="Darwin"), "error", "needs Linux"),
        (replace(GOOD, python=(3, 10, 1)), "error", "3.11 is the oldest"),
        (replace(GOOD, proxy_trouble="the program tulle-proxy is not installed"), "error", "not installed"),
        (replace(GOOD, proxy_version="0.0.9"), "warning", "the command has version 0.1.0"),
        (replace(GOOD, engine_trouble="No module named tulle._engine"), "warning", "No module"),
        (replace(GOOD, network="loopback", network_reason="not root"), "warning", "http_proxy"),
        (replace(GOOD, loopback_trouble="Cannot assign requested address"), "error", "Cannot assign"),
        (replace(GOOD, state_trouble="/home may not be written"), "error", "/home may not"),
    ],
)
def test_each_lack_of_a_machine_is_one_line(trouble: MachineFacts, outcome: str, reason: str) -> None:
    found = worst(machine(trouble))
    assert found.outcome == outcome
    assert reason in found.reason


# --- certificates -----------------------------------------------------------------------------------------------------


ANCHOR = make_trust_anchor("cluster.local", NOW)
ISSUER = make_issuer(ANCHOR, "linkerd", "cluster.local", NOW)


def judge(at: timedelta, anchor: Pair = ANCHOR, issuer: Pair = ISSUER) -> Category:
    now, roots = NOW + at, anchor.certificate_pem.encode()
    checks = check_certificates.anchors(roots, now)
    checks += check_certificates.issuer(issuer.certificate_pem.encode(), issuer.key_pem.encode(), roots, now)
    return Category("certificates", checks)


def test_fresh_certificates_pass_and_tell_how_long() -> None:
    category = judge(timedelta(0))
    assert outcomes(category) == {"success"}
    assert any(
        "364 days left" in check.description or "365 days left" in check.description
        for check in category.checks
    )


def test_sixty_days_before_the_end_it_warns_and_after_it_fails() -> None:
    assert outcomes(judge(timedelta(days=330))) == {"success", "warning"}
    assert "error" in outcomes(judge(timedelta(days=400)))


def test_a_clock_that_runs_behind_is_named() -> None:
    found = judge(timedelta(days=-2)).checks[0]
    assert (found.outcome, found.hint) == ("error", "set this machine's clock")


def test_an_issuer_of_another_anchor_fails() -> None:
    other = make_trust_anchor("cluster.local", NOW)
    assert "no trust anchor has issued" in worst(judge(timedelta(0), anchor=other)).reason


def test_a_key_that_is_not_the_issuers_fails() -> None:
    other = make_issuer(ANCHOR, "linkerd", "cluster.local", NOW)
    assert "key" in worst(judge(timedelta(0), issuer=Pair(ISSUER.certificate, other.key))).reason


def test_what_is_no_certificate_fails() -> None:
    assert check_certificates.anchors(b"nothing", NOW)[0].outcome == "error"
    assert (
        check_certificates.issuer(b"nothing", b"", ANCHOR.certificate_pem.encode(), NOW)[0].outcome == "error"
    )


def test_the_webhooks_certificate_must_be_trusted_by_every_configuration() -> None:
    authority, serving = make_serving(["linkerd-proxy-injector.linkerd.svc"], NOW)
    pem, bundle = serving.certificate_pem.encode(), authority.certificate_pem.encode()
    good = check_certificates.serving("the webhook", pem, [bundle, bundle], NOW)
    assert {check.outcome for check in good} == {"success"}
    bad = check_certificates.serving("the webhook", pem, [bundle, ANCHOR.certificate_pem.encode()], NOW)
    assert [check.outcome for check in bad] == ["success", "error"]


# --- API, control plane, sidecars -------------------------------------------------------------------------------------


def pod(name: str, namespace: str = "shop", *, ready: bool = True, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"linkerd.io/control-plane-ns": "linkerd"}
            | {f"linkerd.io/{key.replace('_', '-')}": value for key, value in labels.items()},
            "annotations": {"linkerd.io/trust-root-sha256": "abc"},
        },
        "spec": {"containers": [{"name": "controller", "image": "registry:5000/tulle/controller:0.1.0"}]},
        "status": {
            "phase": "Running",
            "initContainerStatuses": [
                {"name": "linkerd-proxy", "ready": ready}
                | (
                    {}
                    if ready
                    else {"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "exit 1"}}}
                )
            ],
        },
    }


def page(expiry: datetime = NOW + timedelta(hours=23), version: str = "0.1.0") -> Page:
    return Page(
        f"# HELP x y\nidentity_cert_expiration_timestamp_seconds {expiry.timestamp()}\n"
        f'proxy_build_info{{version="{version}",vendor="tulle"}} 1\n'
    )


HERE = Answer(found={"spec": {"replicas": 1}, "status": {"readyReplicas": 1}})
OBJECTS = {
    "namespaces/linkerd": HERE,
    "deployments/tulle-controller": HERE,
    "pods": Answer(found={"items": []}),
    "configmaps/linkerd-config": HERE,
    "configmaps/linkerd-identity-trust-roots": HERE,
    **{f"services/{name}": HERE for name in SERVICES},
    **{f"customresourcedefinitions/{name}": HERE for name in DEFINITIONS},
    **{f"{kind}/{name}": HERE for kind, name in WEBHOOKS},
}
CLUSTER = Cluster(
    server="https://127.0.0.1:6443",
    version=Answer(found={"minor": "31+", "gitVersion": "v1.31.0"}),
    namespace="linkerd",
    objects=OBJECTS,
    pods=[pod("tulle-controller-1", "linkerd", control_plane_component="controller"), pod("web-1")],
    ready={"tulle-controller-1": Page("ready\n")},
    metrics={("linkerd", "tulle-controller-1"): page(), ("shop", "web-1"): page()},
    targets=Answer(found={"targets": [{"namespace": "shop", "pod": "web-1", "trouble": ""}]}),
    roots_digest="abc",
)


def with_object(key: str, answer: Answer) -> Cluster:
    return replace(CLUSTER, objects={**OBJECTS, key: answer})


def test_a_healthy_mesh_passes_everywhere() -> None:
    for category in (api(CLUSTER), control_plane(CLUSTER, "0.1.0"), proxies(CLUSTER, "0.1.0", NOW)):
        assert outcomes(category) == {"success"}, category


def test_an_api_that_does_not_answer_is_one_failure() -> None:
    down = replace(CLUSTER, version=Answer(status=0, trouble="ConnectError: refused"))
    assert worst(api(down)).reason == "ConnectError: refused"


def test_an_old_api_and_forbidden_pods_fail() -> None:
    assert "oldest" in worst(api(replace(CLUSTER, version=Answer(found={"minor": "19"})))).reason
    forbidden = with_object("pods", Answer(status=403, trouble="pods is forbidden"))
    assert worst(api(forbidden)).reason == "pods is forbidden"


GONE = Answer(status=404, trouble="not found")


@pytest.mark.parametrize(
    ("cluster", "outcome", "reason"),
    [
        (with_object("namespaces/linkerd", GONE), "error", "it is not there"),
        (with_object("services/linkerd-policy", GONE), "error", "linkerd-policy: it is not there"),
        (
            with_object(f"customresourcedefinitions/{DEFINITIONS[0]}", GONE),
            "error",
            f"{DEFINITIONS[0]}: it is not",
        ),
        (
            with_object("configmaps/linkerd-config", Answer(status=403, trouble="forbidden")),
            "warning",
            "forbidden",
        ),
        (
            with_object(
                "deployments/tulle-controller", Answer(found={"spec": {"replicas": 2}, "status": {}})
            ),
            "error",
            "0 of 2 are ready",
        ),
        (
            replace(CLUSTER, ready={"tulle-controller-1": Page(trouble="not ready: pods")}),
            "error",
            "not ready: pods",
        ),
        (replace(CLUSTER, targets=Answer(status=503, trouble="no endpoints")), "warning", "no endpoints"),
        (
            replace(
                CLUSTER,
                targets=Answer(
                    found={"targets": [{"namespace": "shop", "pod": "web-1", "trouble": "refused"}]}
                ),
            ),
            "warning",
            "shop/web-1: refused",
        ),
    ],
)
def test_each_lack_of_the_control_plane_is_one_line(cluster: Cluster, outcome: str, reason: str) -> None:
    found = worst(control_plane(cluster, "0.1.0"))
    assert found.outcome == outcome
    assert reason in found.reason


def test_another_version_of_the_control_plane_warns() -> None:
    assert "0.1.0, this command 0.2.0" in worst(control_plane(CLUSTER, "0.2.0")).reason


def broken(change: Callable[[dict[str, Any]], object] | None = None, answer: Page | None = None) -> Cluster:
    web = pod("web-1")
    if change is not None:
        change(web)
    return replace(CLUSTER, pods=[web], metrics={("shop", "web-1"): answer or page()})


@pytest.mark.parametrize(
    ("cluster", "outcome", "reason"),
    [
        (replace(CLUSTER, pods=[pod("web-1", ready=False)]), "error", "CrashLoopBackOff exit 1"),
        (broken(answer=Page(trouble="connection refused")), "error", "connection refused"),
        (broken(answer=Page("nothing")), "error", "it has obtained none"),
        (broken(answer=page(NOW - timedelta(hours=1))), "error", "it expired at 2026-05-01 11:00 UTC"),
        (broken(answer=page(version="0.0.9")), "warning", "this command has version 0.1.0"),
        (
            broken(
                lambda web: web["metadata"]["annotations"].update({"linkerd.io/trust-root-sha256": "old"})
            ),
            "warning",
            "other trust anchors",
        ),
        (replace(CLUSTER, pods=[]), "warning", "no pod has one"),
    ],
)
def test_each_trouble_of_a_sidecar_is_one_line(cluster: Cluster, outcome: str, reason: str) -> None:
    found = worst(proxies(cluster, "0.1.0", NOW))
    assert found.outcome == outcome
    assert reason in found.reason


def test_finished_pods_are_not_judged() -> None:
    done = broken(lambda web: web["status"].update({"phase": "Succeeded"}))
    assert worst(proxies(done, "0.1.0", NOW)).reason == "no pod has one"


def test_a_cluster_without_a_control_plane_is_one_failure() -> None:
    empty = replace(CLUSTER, objects={"pods": Answer(found={"items": []})}, pods=[])
    category = control_plane(empty, "0.1.0")
    assert [check.outcome for check in category.checks] == ["error"], "one line is enough"
