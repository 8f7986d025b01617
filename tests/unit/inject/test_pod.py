"""Injection as a function: what comes in, what comes out."""

import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.inject import BadAnnotation, InjectConfig, Injected, Owner, Skipped, inject
from tulle.inject.annotations import SPECS, settings, unknown

CONFIG = InjectConfig(
    trust_anchors="PEM", proxy_image="tulle/proxy:1", proxy_version="1", inject_by_default=True
)
DEFAULT: dict[str, Any] = {"metadata": {"name": "default"}}
POD: dict[str, Any] = {
    "metadata": {"name": "voting-v1-x"},
    "spec": {
        "containers": [{"name": "voting", "image": "v", "ports": [{"containerPort": 80, "name": "http"}]}]
    },
}


def injected(
    pod: dict[str, Any], config: InjectConfig = CONFIG, namespace: dict[str, Any] = DEFAULT
) -> dict[str, Any]:
    outcome = inject(pod, namespace, config, Owner("deployment", "voting-v1"))
    assert isinstance(outcome, Injected)
    return outcome.pod


def annotated(**annotations: str) -> dict[str, Any]:
    pod = copy.deepcopy(POD)
    pod["metadata"]["annotations"] = {
        f"config.linkerd.io/{k.replace('_', '-')}": v for k, v in annotations.items()
    }
    return pod


def env_of(pod: dict[str, Any]) -> dict[str, str]:
    proxy = next(c for c in pod["spec"]["initContainers"] if c["name"] == "linkerd-proxy")
    return {item["name"]: item.get("value", "") for item in proxy["env"]}


def test_an_ordinary_pod_gets_proxy_and_init_container_with_linkerds_names_and_ports() -> None:
    pod = injected(POD)
    init, proxy = pod["spec"]["initContainers"]
    assert (init["name"], proxy["name"]) == ("linkerd-init", "linkerd-proxy")
    assert proxy["restartPolicy"] == "Always"
    assert {port["containerPort"] for port in proxy["ports"]} >= {4140, 4143, 4191}
    assert pod["metadata"]["labels"] == {
        "linkerd.io/control-plane-ns": "linkerd",
        "linkerd.io/workload-ns": "default",
        "linkerd.io/proxy-deployment": "voting-v1",
    }
    assert env_of(pod)["LINKERD2_PROXY_INBOUND_PORTS"] == "80"
    assert env_of(pod)["LINKERD2_PROXY_IDENTITY_LOCAL_NAME"] == (
        "$(_pod_sa).$(_pod_ns).serviceaccount.identity.linkerd.cluster.local"
    )


def test_the_argument_is_left_as_it_was() -> None:
    before = copy.deepcopy(POD)
    inject(POD, DEFAULT, CONFIG)
    assert before == POD


@pytest.mark.parametrize(
    ("pod_value", "namespace_value", "by_default", "expected"),
    [
        (None, None, True, True),
        (None, None, False, False),
        (None, "enabled", False, True),
        (None, "disabled", True, False),
        ("disabled", "enabled", True, False),
        ("enabled", "disabled", False, True),
        ("ingress", None, False, True),
    ],
)
def test_the_pods_annotation_beats_the_namespaces_which_beats_the_default(
    pod_value: str | None, namespace_value: str | None, by_default: bool, expected: bool
) -> None:
    pod, namespace = copy.deepcopy(POD), copy.deepcopy(DEFAULT)
    for obj, value in ((pod, pod_value), (namespace, namespace_value)):
        if value:
            obj["metadata"]["annotations"] = {"linkerd.io/inject": value}
    outcome = inject(pod, namespace, replace(CONFIG, inject_by_default=by_default))
    assert isinstance(outcome, Injected) is expected


def test_a_pod_that_cannot_be_injected_is_skipped_with_its_reason() -> None:
    host = copy.deepcopy(POD)
    host["spec"]["hostNetwork"] = True
    outcome = inject(host, DEFAULT, CONFIG)
    assert isinstance(outcome, Skipped) and outcome.reason == "host_network_enabled"
    again = inject(injected(POD), DEFAULT, CONFIG)
    assert isinstance(again, Skipped) and again.reason == "sidecar_already_exists"
    system = inject(POD, {"metadata": {"name": "kube-system"}}, CONFIG)
    assert isinstance(system, Skipped)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_a_bad_value_is_refused_with_the_annotations_name_and_the_accepted_form(name: str) -> None:
    bad = "\n" if SPECS[name].accepted == "text" else "no such value!"
    with pytest.raises(BadAnnotation) as refused:
        inject(annotated(**{name: bad}), DEFAULT, CONFIG)
    assert f"config.linkerd.io/{name}" in str(refused.value)
    assert SPECS[name].accepted in str(refused.value)


def test_a_bad_inject_value_is_refused_and_a_misspelt_annotation_warned_about() -> None:
    pod = annotated(proxy_cpu_limits="1")
    assert unknown(pod["metadata"]["annotations"]) == ["config.linkerd.io/proxy-cpu-limits"]
    outcome = inject(pod, DEFAULT, CONFIG)
    assert isinstance(outcome, Injected) and "proxy-cpu-limits" in outcome.warnings[0]
    pod["metadata"]["annotations"]["linkerd.io/inject"] = "yes"
    with pytest.raises(BadAnnotation, match="enabled, disabled or ingress"):
        inject(pod, DEFAULT, CONFIG)


def test_annotations_reach_the_sidecar() -> None:
    pod = injected(
        annotated(
            proxy_cpu_limit="1500m",
            proxy_memory_request="20Mi",
            skip_outbound_ports="443,6443",
            opaque_ports="3306,http",
            default_inbound_policy="deny",
            proxy_log_level="debug",
            proxy_admin_shutdown="enabled",
            shutdown_grace_period="30s",
            inbound_port="5143",
            close_wait_timeout="1500ms",
        )
    )
    init, proxy = pod["spec"]["initContainers"]
    env = env_of(pod)
    assert env["LINKERD2_PROXY_CORES"] == "2"
    assert proxy["resources"] == {"requests": {"memory": "20Mi"}, "limits": {"cpu": "1500m"}}
    assert env["LINKERD2_PROXY_INBOUND_DEFAULT_POLICY"] == "deny"
    assert env["LINKERD2_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION"] == "3306,80"
    assert env["LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED"] == "true"
    assert env["LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD"] == "30s"
    assert env["LINKERD2_PROXY_INBOUND_LISTEN_ADDR"].endswith(":5143")
    assert env["LINKERD2_PROXY_LOG"].startswith("debug,")
    arguments = init["args"]
    assert arguments[arguments.index("--outbound-ports-to-ignore") + 1] == "443,6443"
    assert arguments[arguments.index("--incoming-proxy-port") + 1] == "5143"
    assert arguments[arguments.index("--timeout-close-wait-secs") + 1] == "2"


TAP = "tap.linkerd-viz.serviceaccount.identity.linkerd.cluster.local"


@pytest.mark.parametrize(
    ("identity", "pod", "namespace", "served"),
    [
        ("", {}, {}, False),
        (TAP, {}, {}, True),
        (TAP, {"viz.linkerd.io/disable-tap": "true"}, {}, False),
        (TAP, {}, {"viz.linkerd.io/disable-tap": "true"}, False),
        (TAP, {"viz.linkerd.io/disable-tap": "false"}, {"viz.linkerd.io/disable-tap": "true"}, True),
    ],
)
def test_tap_is_served_to_the_installations_identity_unless_the_pod_or_its_namespace_declines(
    identity: str, pod: dict[str, str], namespace: dict[str, str], served: bool
) -> None:
    template = copy.deepcopy(POD)
    template["metadata"]["annotations"] = dict(pod)
    out = injected(
        template,
        replace(CONFIG, tap_identity=identity),
        {"metadata": {"name": "default", "annotations": namespace}},
    )
    env = env_of(out)
    assert env.get("LINKERD2_PROXY_TAP_SVC_NAME") == (TAP if served else None)
    assert env["LINKERD2_PROXY_CONTROL_LISTEN_ADDR"].endswith(":4190")
    enabled = out["metadata"]["annotations"].get("viz.linkerd.io/tap-enabled")
    assert enabled == ("true" if served else None)


def test_a_wish_about_tap_that_cannot_be_read_is_refused() -> None:
    pod = copy.deepcopy(POD)
    pod["metadata"]["annotations"] = {"viz.linkerd.io/disable-tap": "yes"}
    with pytest.raises(BadAnnotation, match=r"viz\.linkerd\.io/disable-tap: 'yes'"):
        inject(pod, DEFAULT, replace(CONFIG, tap_identity=TAP))


def test_a_namespaces_setting_is_inherited_and_the_pods_own_wins() -> None:
    namespace = {"metadata": {"name": "x", "annotations": {"config.linkerd.io/proxy-log-level": "debug"}}}
    assert env_of(injected(POD, namespace=namespace))["LINKERD2_PROXY_LOG"].startswith("debug")
    assert env_of(injected(annotated(proxy_log_level="warn"), namespace=namespace))["LINKERD2_PROXY_LOG"] == (
        "warn,[{headers}]=off,[{request}]=off"
    )


def test_without_native_sidecars_the_proxy_is_the_first_container() -> None:
    pod = injected(POD, replace(CONFIG, native_sidecar=False))
    assert [c["name"] for c in pod["spec"]["containers"]] == ["linkerd-proxy", "voting"]
    assert [c["name"] for c in pod["spec"]["initContainers"]] == ["linkerd-init"]
    assert "restartPolicy" not in pod["spec"]["containers"][0]


def test_without_capture_by_us_there_is_no_init_container_and_no_lock_volume() -> None:
    pod = injected(POD, replace(CONFIG, capture="explicit"))
    assert [c["name"] for c in pod["spec"]["initContainers"]] == ["linkerd-proxy"]
    assert [v["name"] for v in pod["spec"]["volumes"]] == [
        "linkerd-identity-end-entity",
        "linkerd-identity-token",
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(extra=st.dictionaries(st.text(min_size=1, max_size=8), JSON, max_size=4))
def test_fields_the_injector_does_not_know_survive(extra: dict[str, Any]) -> None:
    pod = copy.deepcopy(POD)
    extra = {f"x-{name}": value for name, value in extra.items()}
    pod["spec"].update(extra)
    result = injected(pod)
    assert {name: result["spec"][name] for name in extra} == extra
    assert result["spec"]["containers"] == pod["spec"]["containers"]


@given(text=st.text(max_size=20), name=st.sampled_from(sorted(SPECS)))
def test_any_text_is_either_read_or_refused_by_name(text: str, name: str) -> None:
    try:
        settings({f"config.linkerd.io/{name}": text}, {})
    except BadAnnotation as refused:
        assert refused.name == f"config.linkerd.io/{name}"


def test_another_sidecars_image_does_not_stand_for_the_init_container() -> None:
    init, proxy = injected(annotated(proxy_image="cr.l5d.io/linkerd/proxy"))["spec"]["initContainers"]
    assert (init["image"], proxy["image"]) == ("tulle/proxy:1", "cr.l5d.io/linkerd/proxy:1")
