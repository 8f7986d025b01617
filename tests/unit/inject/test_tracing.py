"""What an injected proxy is told of tracing."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.inject.test_pod import CONFIG, POD, annotated, env_of, injected
from tulle.inject import BadAnnotation
from tulle.inject.stream import remove

IDENTITY = "serviceaccount.identity.linkerd.cluster.local"


def traced(pod: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in env_of(pod).items() if "_TRACE_" in name}


def test_without_a_collector_nothing_is_added() -> None:
    pod = injected(annotated(trace_collector_service_account="collector"))

    assert traced(pod) == {}
    assert "linkerd-podinfo" not in {volume["name"] for volume in pod["spec"]["volumes"]}


def test_a_pod_with_a_collector_sends_spans_that_name_it() -> None:
    source = annotated(trace_collector="collector.tracing:4317", trace_collector_service_account="otel")
    source["metadata"]["annotations"]["resource.opentelemetry.io/team"] = "votes\nx=y"
    source["metadata"]["labels"] = {"app.kubernetes.io/name": "voting"}
    pod = injected(source)

    told = traced(pod)
    attributes = told.pop("LINKERD2_PROXY_TRACE_EXTRA_ATTRIBUTES").splitlines()
    assert told == {
        "LINKERD2_PROXY_TRACE_COLLECTOR_SVC_ADDR": "collector.tracing:4317",
        "LINKERD2_PROXY_TRACE_COLLECTOR_SVC_NAME": f"otel.tracing.{IDENTITY}",
        "LINKERD2_PROXY_TRACE_PROTOCOL": "opentelemetry",
        "LINKERD2_PROXY_TRACE_SERVICE_NAME": "voting",
        "LINKERD2_PROXY_TRACE_ATTRIBUTES_PATH": "/var/run/linkerd/podinfo/labels",
    }
    assert {"k8s.pod.name=$(_pod_name)", "team=votes x=y"} <= set(attributes)
    proxy = next(c for c in pod["spec"]["initContainers"] if c["name"] == "linkerd-proxy")
    assert {"mountPath": "/var/run/linkerd/podinfo", "name": "linkerd-podinfo"} in proxy["volumeMounts"]
    volume = next(v for v in pod["spec"]["volumes"] if v["name"] == "linkerd-podinfo")
    assert volume["downwardAPI"]["items"][0]["fieldRef"]["fieldPath"] == "metadata.labels"


def test_the_meshs_own_collector_serves_all_and_a_pod_may_choose_another() -> None:
    config = replace(
        CONFIG,
        trace_collector="collector.tracing.svc.cluster.local:4317",
        trace_collector_service_account="a.b",
    )
    name = "LINKERD2_PROXY_TRACE_COLLECTOR_SVC_NAME"

    assert traced(injected(POD, config))[name] == f"a.b.{IDENTITY}"
    other = injected(annotated(trace_collector="mine:4317", trace_collector_service_account="own"), config)
    assert traced(other)[name] == f"own.linkerd.{IDENTITY}"


@pytest.mark.parametrize("address", ["collector", "collector:0", "col lector:1", ":4317", "http://x:4317"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(BadAnnotation, match="trace-collector"):
        injected(annotated(trace_collector=address))


def test_linkerds_older_spelling_is_read() -> None:
    pod = copy.deepcopy(POD)
    pod["metadata"]["annotations"] = {
        "config.linkerd.io/trace-collector": "collector.tracing:4317",
        "config.alpha.linkerd.io/trace-collector-service-account": "otel",
    }

    name = traced(injected(pod))["LINKERD2_PROXY_TRACE_COLLECTOR_SVC_NAME"]
    assert name == f"otel.tracing.{IDENTITY}"


def test_remove_takes_it_away_again() -> None:
    pod, _ = remove({"kind": "Pod", "apiVersion": "v1", **injected(annotated(trace_collector="a.b:1"))})

    assert "volumes" not in pod["spec"]
