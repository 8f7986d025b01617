"""Admission webhooks: when they are called, with what, and what their answers do. The webhook is a real HTTPS server.

It listens on this machine, so only an API on this machine can call it: the embedded one.
"""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.clients import Cluster, Kubectl
from tests.conformance.webhook_server import WebhookServer, deny, patch

pytestmark = pytest.mark.conformance


@pytest.fixture
def webhook(cluster: Cluster, namespace: str) -> Iterator[WebhookServer]:
    if not cluster.embedded:
        pytest.skip("a cluster elsewhere cannot call a webhook on this machine")
    with WebhookServer([f"hook.{namespace}.svc", "127.0.0.1"]).serving() as server:
        yield server


class Hooks:
    """Registers webhooks for one namespace, and takes them away again."""

    def __init__(self, kubectl: Kubectl, server: WebhookServer) -> None:
        self._kubectl, self._server = kubectl, server
        self._made: list[str] = []

    def register(
        self, kind: str = "Mutating", *, name: str = "hook", rules: Any = None, **fields: Any
    ) -> None:
        namespace = self._kubectl.namespace
        rule = {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
        webhook = {
            "name": f"{name}.conformance.tulle.dev",
            "clientConfig": {
                "url": f"https://127.0.0.1:{self._server.port}/mutate",
                "caBundle": self._server.ca_bundle,
            },
            "rules": rules or [rule],
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "timeoutSeconds": 3,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            **fields,
        }
        obj = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": f"{kind}WebhookConfiguration",
            "metadata": {"name": f"{name}-{namespace}"},
            "webhooks": [webhook],
        }
        self._kubectl("create", "-f", "-", stdin=json.dumps(obj))
        self._made.append(f"{kind.lower()}webhookconfiguration/{name}-{namespace}")

    def remove(self) -> None:
        for made in self._made:
            self._kubectl("delete", made)


@pytest.fixture
def hooks(kubectl: Kubectl, webhook: WebhookServer) -> Iterator[Hooks]:
    made = Hooks(kubectl, webhook)
    yield made
    made.remove()


def test_a_patch_changes_the_object(kubectl: Kubectl, webhook: WebhookServer, hooks: Hooks) -> None:
    hooks.register()
    webhook.answer = patch({"op": "add", "path": "/data", "value": {"added": "yes"}})
    kubectl("create", "configmap", "conf")
    assert kubectl("get", "cm", "conf", "-o", "jsonpath={.data.added}") == "yes"
    request = webhook.requests[0]
    assert (request["operation"], request["namespace"], request["name"]) == (
        "CREATE",
        kubectl.namespace,
        "conf",
    )
    assert request["kind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
    assert request["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
    assert request["object"]["metadata"]["name"] == "conf"
    assert request["oldObject"] is None
    assert request["dryRun"] is False
    assert "system:authenticated" in request["userInfo"]["groups"]
    assert webhook.paths[0] == "/mutate?timeout=3s"


def test_updates_and_deletes_are_asked_about(kubectl: Kubectl, webhook: WebhookServer, hooks: Hooks) -> None:
    kubectl("create", "configmap", "conf")
    hooks.register("Validating")
    kubectl("patch", "cm", "conf", "-p", '{"data":{"a":"b"}}')
    kubectl("delete", "cm", "conf")
    update, delete = webhook.requests
    assert (update["operation"], update["object"]["data"]) == ("UPDATE", {"a": "b"})
    assert "data" not in update["oldObject"]
    assert (delete["operation"], delete["object"]) == ("DELETE", None)
    assert delete["oldObject"]["data"] == {"a": "b"}


def test_a_denial_reaches_the_person(kubectl: Kubectl, webhook: WebhookServer, hooks: Hooks) -> None:
    hooks.register("Validating")
    webhook.answer = deny("config.linkerd.io/proxy-cpu-limit: abc is not a quantity")
    said = kubectl.fails("create", "configmap", "conf")
    text = 'admission webhook "hook.conformance.tulle.dev" denied the request: config.linkerd.io/proxy-cpu-limit: abc'
    assert text in said
    webhook.answer = deny("not here", code=403, reason="Forbidden")
    plain = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"conf"}}'
    assert "Error from server (Forbidden)" in kubectl.fails("create", "-f", "-", stdin=plain)
    assert "NotFound" in kubectl.fails("get", "cm", "conf")


def test_warnings_reach_the_person(kubectl: Kubectl, webhook: WebhookServer, hooks: Hooks) -> None:
    hooks.register()
    webhook.answer = lambda _request: {"allowed": True, "warnings": ["this is old-fashioned"]}
    assert "Warning: this is old-fashioned" in kubectl.run("create", "configmap", "conf").stderr


def test_a_service_is_resolved_and_named_in_tls(
    kubectl: Kubectl, webhook: WebhookServer, hooks: Hooks
) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "hook"},
        "spec": {"ports": [{"port": 443}]},
    }
    place = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        "ports": [{"name": "", "port": webhook.port}],
    }
    config = {
        "service": {"name": "hook", "namespace": kubectl.namespace, "path": "/inject"},
        "caBundle": webhook.ca_bundle,
    }
    hooks.register(clientConfig=config)
    said = kubectl.fails("create", "configmap", "conf")
    assert 'failed calling webhook "hook.conformance.tulle.dev"' in said
    assert 'service "hook" not found' in said
    kubectl("create", "-f", "-", stdin=json.dumps(service))
    assert 'no endpoints available for service "hook"' in kubectl.fails("create", "configmap", "conf")
    kubectl("create", "-f", "-", stdin=json.dumps(place))
    kubectl("create", "configmap", "conf")
    assert webhook.paths == ["/inject?timeout=3s"]


def test_a_server_that_others_vouch_for_is_not_believed(
    kubectl: Kubectl, webhook: WebhookServer, hooks: Hooks
) -> None:
    stranger = WebhookServer(["127.0.0.1"])
    url = f"https://127.0.0.1:{webhook.port}/mutate"
    hooks.register(clientConfig={"url": url, "caBundle": stranger.ca_bundle})
    assert "certificate verify failed" in kubectl.fails("create", "configmap", "conf")
    assert not webhook.requests
    stranger._server.server_close()


@pytest.mark.parametrize("policy", ["Fail", "Ignore"])
def test_a_webhook_that_is_away(kubectl: Kubectl, webhook: WebhookServer, hooks: Hooks, policy: str) -> None:
    nowhere = {"url": "https://127.0.0.1:1/mutate", "caBundle": webhook.ca_bundle}
    hooks.register(failurePolicy=policy, clientConfig=nowhere)
    if policy == "Ignore":
        kubectl("create", "configmap", "conf")
    else:
        said = kubectl.fails("create", "configmap", "conf")
        assert 'Internal error occurred: failed calling webhook "hook.conformance.tulle.dev"' in said


def test_a_slow_webhook_times_out(kubectl: Kubectl, webhook: WebhookServer, hooks: Hooks) -> None:
    release = threading.Event()
    hooks.register(timeoutSeconds=1)
    webhook.answer = lambda _request: {"allowed": release.wait(20)}
    try:
        said = kubectl.fails("create", "configmap", "conf")
    finally:
        release.set()
    assert "failed calling webhook" in said


def test_an_answer_that_makes_no_sense(kubectl: Kubectl, webhook: WebhookServer, hooks: Hooks) -> None:
    hooks.register()
    webhook.answer = lambda _request: {"allowed": True, "uid": "another"}
    assert "expected response.uid" in kubectl.fails("create", "configmap", "conf")
    webhook.answer = patch({"op": "replace", "path": "/nothing/here", "value": 1})
    assert "hook.conformance.tulle.dev" in kubectl.fails("create", "configmap", "conf")


def test_object_selectors(kubectl: Kubectl, webhook: WebhookServer, hooks: Hooks) -> None:
    hooks.register(objectSelector={"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]})
    kubectl(
        "create",
        "-f",
        "-",
        stdin='{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","labels":{"skip":"me"}}}',
    )
    assert not webhook.requests
    kubectl("create", "configmap", "b")
    assert len(webhook.requests) == 1


def test_other_namespaces_are_left_alone(kubectl: Kubectl, webhook: WebhookServer, hooks: Hooks) -> None:
    hooks.register(namespaceSelector={"matchLabels": {"nobody": "has-this"}})
    kubectl("create", "configmap", "a")
    assert not webhook.requests


def test_rules_tell_resources_apart(kubectl: Kubectl, webhook: WebhookServer, hooks: Hooks) -> None:
    rule = {
        "operations": ["UPDATE"],
        "apiGroups": [""],
        "apiVersions": ["*"],
        "resources": ["secrets", "pods/status"],
    }
    hooks.register(rules=[rule])
    kubectl("create", "secret", "generic", "s")
    kubectl("create", "configmap", "conf")
    kubectl("run", "one", "--image=nginx")
    kubectl("label", "pod", "one", "a=b")
    assert not webhook.requests
    kubectl("label", "secret", "s", "a=b")
    kubectl("patch", "pod", "one", "--subresource=status", "-p", '{"status":{"reason":"R"}}')
    secret, status = webhook.requests
    assert (secret["resource"]["resource"], secret.get("subResource")) == ("secrets", None)
    assert (status["resource"]["resource"], status["subResource"]) == ("pods", "status")


def test_dry_run_says_so(kubectl: Kubectl, webhook: WebhookServer, hooks: Hooks) -> None:
    hooks.register()
    kubectl("create", "configmap", "conf", "--dry-run=server")
    assert webhook.requests[0]["dryRun"] is True


def test_a_pod_is_seen_with_its_account_and_before_its_name(
    kubectl: Kubectl, webhook: WebhookServer, hooks: Hooks
) -> None:
    rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
    hooks.register(rules=[rule])
    webhook.answer = patch(
        {"op": "add", "path": "/spec/containers/-", "value": {"name": "side", "image": "proxy:1"}}
    )
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-"}}
    pod["spec"] = {"containers": [{"name": "main", "image": "nginx"}]}
    name = kubectl("create", "-f", "-", "-o", "jsonpath={.metadata.name}", stdin=json.dumps(pod))
    seen = webhook.requests[0]["object"]
    assert "name" not in seen["metadata"]
    assert seen["spec"]["serviceAccountName"] == "default"
    assert (
        seen["spec"]["containers"][0]["volumeMounts"][0]["mountPath"]
        == "/var/run/secrets/kubernetes.io/serviceaccount"
    )
    stored = json.loads(kubectl("get", "pod", name, "-o", "json"))
    side = stored["spec"]["containers"][1]
    assert (side["name"], side["imagePullPolicy"]) == ("side", "IfNotPresent"), (
        "what a webhook adds is defaulted too"
    )


def test_an_invalid_patched_object_is_refused(kubectl: Kubectl, webhook: WebhookServer, hooks: Hooks) -> None:
    hooks.register()
    webhook.answer = patch({"op": "add", "path": "/metadata/labels", "value": {"bad key": "x"}})
    assert "name part must consist of alphanumeric characters" in kubectl.fails("create", "configmap", "conf")


def test_webhooks_do_not_see_webhook_configurations(
    kubectl: Kubectl, webhook: WebhookServer, hooks: Hooks
) -> None:
    rule = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}
    hooks.register(rules=[rule], namespaceSelector={}, failurePolicy="Ignore")
    webhook.requests.clear()
    hooks.register("Validating", name="second", failurePolicy="Ignore")
    assert not [r for r in webhook.requests if r["kind"]["kind"].endswith("WebhookConfiguration")]


def test_what_cannot_be_carried_out_is_refused(kubectl: Kubectl, hooks: Hooks) -> None:
    with pytest.raises(AssertionError, match="does not evaluate CEL expressions"):
        hooks.register(matchConditions=[{"name": "c", "expression": "true"}])
