"""What people type."""

import json
import re

import pytest
import yaml

from tests.conformance.clients import Kubectl, wait_until

pytestmark = pytest.mark.conformance

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: main, image: "nginx:1", ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, name: http}]
"""


def test_apply_creates_then_leaves_alone_then_changes(kubectl: Kubectl) -> None:
    assert "deployment.apps/web created" in kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    assert "deployment.apps/web unchanged" in kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    changed = DEPLOYMENT.replace("nginx:1", "nginx:2").replace("  replicas: 2\n", "")
    assert "deployment.apps/web configured" in kubectl("apply", "-f", "-", stdin=changed)
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={..image}") == "nginx:2"
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "1", (
        "a removed field is defaulted again"
    )


def test_apply_keeps_what_others_added_to_keyed_lists(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "extra", "image": "busybox"}]}}}}
    kubectl("patch", "deploy", "web", "-p", json.dumps(patch))
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT.replace("nginx:1", "nginx:2"))
    assert set(kubectl("get", "deploy", "web", "-o", "jsonpath={..image}").split()) == {"busybox", "nginx:2"}


def test_tables_have_the_columns_people_know(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    kubectl("run", "one", "--image=nginx")
    heads = {
        "deploy": "NAME READY UP-TO-DATE AVAILABLE AGE",
        "svc": "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE",
        "pods": "NAME READY STATUS RESTARTS AGE",
        "cm": "NAME DATA AGE",
        "ns": "NAME STATUS AGE",
        "sa": "NAME AGE",
    }
    for resource, head in heads.items():
        first = kubectl("get", resource).splitlines()[0]
        assert first.split() == head.split(), resource
    wide = kubectl("get", "pods", "-o", "wide").splitlines()[0]
    assert re.split(r"\s{2,}", wide.strip())[5:] == ["IP", "NODE", "NOMINATED NODE", "READINESS GATES"]
    row = next(line for line in kubectl("get", "pods").splitlines() if line.startswith("one"))
    assert row.split()[1:3] in (["0/1", "Pending"], ["0/1", "ContainerCreating"], ["1/1", "Running"])


def test_output_forms(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "conf", "--from-literal=a=b")
    assert yaml.safe_load(kubectl("get", "cm", "conf", "-o", "yaml"))["data"] == {"a": "b"}
    assert json.loads(kubectl("get", "cm", "conf", "-o", "json"))["kind"] == "ConfigMap"
    assert kubectl("get", "cm", "conf", "-o", "name") == "configmap/conf\n"
    assert kubectl("get", "cm", "conf", "-o", "jsonpath={.data.a}") == "b"
    assert json.loads(kubectl("get", "cm", "-o", "json"))["kind"] == "List"


def test_selectors(kubectl: Kubectl) -> None:
    for name, tier in (("one", "front"), ("two", "back")):
        kubectl("create", "configmap", name)
        kubectl("label", "configmap", name, f"tier={tier}")
    assert kubectl("get", "cm", "-l", "tier=front", "-o", "name") == "configmap/one\n"
    assert kubectl("get", "cm", "-l", "tier in (back, other)", "-o", "name") == "configmap/two\n"
    assert kubectl("get", "cm", "-l", "tier,tier!=back", "-o", "name") == "configmap/one\n"
    assert kubectl("get", "cm", "--field-selector", "metadata.name=two", "-o", "name") == "configmap/two\n"
    assert "field label not supported" in kubectl.fails("get", "pods", "--field-selector", "spec.nothing=x")


def test_patch_label_annotate_scale(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    kubectl(
        "patch",
        "deploy",
        "web",
        "--type",
        "json",
        "-p",
        '[{"op":"replace","path":"/spec/replicas","value":3}]',
    )
    kubectl("patch", "deploy", "web", "--type", "merge", "-p", '{"spec":{"minReadySeconds":4}}')
    kubectl("annotate", "deploy", "web", "note=hello")
    kubectl("label", "deploy", "web", "tier=front")
    kubectl("label", "deploy", "web", "app-")
    obj = json.loads(kubectl("get", "deploy", "web", "-o", "json"))
    assert (obj["spec"]["replicas"], obj["spec"]["minReadySeconds"]) == (3, 4)
    assert obj["metadata"]["annotations"]["note"] == "hello"
    assert obj["metadata"]["labels"] == {"tier": "front"}
    kubectl("scale", "deploy", "web", "--replicas=5")
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "5"
    assert (
        "expected replicas"
        in kubectl.fails("scale", "deploy", "web", "--current-replicas=9", "--replicas=1").lower()
    )


def test_an_unknown_field_is_named(kubectl: Kubectl) -> None:
    broken = DEPLOYMENT.replace("replicas: 2", "replica: 2").replace("image:", "imagee:")
    said = kubectl.fails("apply", "-f", "-", stdin=broken)
    assert 'unknown field "spec.replica"' in said
    assert 'unknown field "spec.template.spec.containers[0].imagee"' in said
    warned = kubectl.run(
        "apply", "--validate=warn", "-f", "-", stdin=DEPLOYMENT.replace("replicas: 2", "replica: 2")
    )
    assert 'unknown field "spec.replica"' in warned.stderr
    assert "deployment.apps/web created" in warned.stdout


def test_an_unknown_kind_is_named(kubectl: Kubectl) -> None:
    said = kubectl.fails(
        "apply", "-f", "-", stdin="apiVersion: apps/v1\nkind: Deploymentt\nmetadata: {name: x}\n"
    )
    assert 'no matches for kind "Deploymentt" in version "apps/v1"' in said


def test_a_wrong_type_is_named(kubectl: Kubectl) -> None:
    said = kubectl.fails("apply", "-f", "-", stdin=DEPLOYMENT.replace("replicas: 2", "replicas: two"))
    assert "cannot unmarshal string into Go struct field" in said
    assert "replicas" in said


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            ("app: web}}\n  template", "app: web, x: z}}\n  template"),
            "`selector` does not match template `labels`",
        ),
        (("name: main", "name: Main"), "spec.template.spec.containers[0].name: Invalid value"),
        (("containerPort: 80", "containerPort: 80000"), "must be between 1 and 65535"),
        ((', image: "nginx:1"', ""), "spec.template.spec.containers[0].image: Required value"),
        (("replicas: 2", "replicas: -1"), "must be greater than or equal to 0"),
        (("metadata: {name: web, labels", "metadata: {name: WEB, labels"), "a lowercase RFC 1123 subdomain"),
    ],
)
def test_a_broken_rule_is_explained(kubectl: Kubectl, change: tuple[str, str], complaint: str) -> None:
    deployment = DEPLOYMENT.partition("---")[0]
    assert change[0] in deployment
    assert complaint in kubectl.fails("apply", "-f", "-", stdin=deployment.replace(*change))


def test_what_is_immutable_stays(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    said = kubectl.fails("patch", "svc", "web", "-p", '{"spec":{"clusterIP":"10.96.200.200"}}')
    assert "spec.clusterIPs[0]: Invalid value" in said
    selector = {
        "spec": {
            "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}},
        }
    }
    assert "field is immutable" in kubectl.fails("patch", "deploy", "web", "-p", json.dumps(selector))


def test_describe(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    text = kubectl("describe", "deploy", "web")
    assert re.search(r"Selector:\s+app=web", text)
    assert re.search(r"Image:\s+nginx:1", text)
    assert re.search(r"Port:\s+http\s+80/TCP", kubectl("describe", "svc", "web"))
    kubectl("run", "one", "--image=nginx")
    assert re.search(
        r"Mounts:\s+/var/run/secrets/kubernetes.io/serviceaccount", kubectl("describe", "pod", "one")
    )


def test_describe_shows_events_of_the_object(kubectl: Kubectl) -> None:
    kubectl("run", "one", "--image=nginx")
    pod = json.loads(kubectl("get", "pod", "one", "-o", "json"))
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "one", "namespace": kubectl.namespace}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "one.told"},
        "involvedObject": {**reference, "uid": pod["metadata"]["uid"]},
        "reason": "Told",
        "message": "something was said",
        "type": "Normal",
        "source": {"component": "conformance"},
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "count": 1,
    }
    kubectl("create", "-f", "-", stdin=json.dumps(event))
    assert "something was said" in kubectl("describe", "pod", "one")
    assert "something was said" in kubectl("get", "events", "--field-selector", "involvedObject.name=one")
    assert "something was said" in kubectl("get", "events.v1.events.k8s.io", "-o", "jsonpath={..note}")


def test_get_w_shows_changes_as_they_come(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "seen")
    watching = kubectl.start("get", "cm", "seen", "-w", "--output-watch-events")
    try:
        assert watching.stdout is not None
        lines = [watching.stdout.readline() for _ in range(2)]
        assert lines[1].split()[:2] == ["ADDED", "seen"]
        kubectl("patch", "cm", "seen", "-p", '{"data":{"a":"b"}}')
        assert watching.stdout.readline().split()[:3] == ["MODIFIED", "seen", "1"]
        kubectl("delete", "cm", "seen")
        assert watching.stdout.readline().split()[:2] == ["DELETED", "seen"]
    finally:
        watching.kill()
        watching.communicate()


def test_dry_run_stores_nothing(kubectl: Kubectl) -> None:
    said = kubectl("apply", "--dry-run=server", "-f", "-", stdin=DEPLOYMENT)
    assert "deployment.apps/web created (server dry run)" in said
    assert "NotFound" in kubectl.fails("get", "deploy", "web")


def test_server_side_apply_refuses_and_forces(kubectl: Kubectl) -> None:
    deployment = DEPLOYMENT.partition("---")[0]
    kubectl("apply", "--server-side", "--field-manager=one", "-f", "-", stdin=deployment)
    other = deployment.replace("nginx:1", "nginx:2")
    said = kubectl.fails("apply", "--server-side", "--field-manager=two", "-f", "-", stdin=other)
    assert 'conflict with "one"' in said
    assert '.spec.template.spec.containers[name="main"].image' in said
    kubectl("apply", "--server-side", "--field-manager=two", "--force-conflicts", "-f", "-", stdin=other)
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={..image}") == "nginx:2"


def test_client_side_apply_can_become_server_side_apply(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    kubectl("apply", "--server-side", "-f", "-", stdin=DEPLOYMENT.replace("nginx:1", "nginx:2"))
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={..image}") == "nginx:2"


def test_diff_shows_what_would_change(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    done = kubectl.run("diff", "-f", "-", stdin=DEPLOYMENT.replace("nginx:1", "nginx:7"), check=False)
    assert done.returncode == 1
    assert re.search(r"^\+\s+- image: nginx:7$|^\+\s+image: nginx:7$", done.stdout, re.MULTILINE)


def test_rollout_restart_and_history(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    kubectl("rollout", "restart", "deploy/web")
    annotations = kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.template.metadata.annotations}")
    assert "kubectl.kubernetes.io/restartedAt" in annotations
    wait_until(
        lambda: "REVISION" in kubectl("rollout", "history", "deploy/web"), "the history has a revision"
    )


def test_wait_for_a_condition(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    waiting = kubectl.start("wait", "--for=condition=Tested", "deploy/web", "--timeout=20s")
    condition = {"type": "Tested", "status": "True"}
    patch = json.dumps({"status": {"conditions": [condition]}})
    kubectl("patch", "deploy", "web", "--subresource=status", "-p", patch)
    output, error = waiting.communicate(timeout=25)
    assert "condition met" in output, error
    kubectl("delete", "svc", "web", "--wait")
    assert "NotFound" in kubectl.fails("get", "svc", "web")


def test_api_resources_and_explain(kubectl: Kubectl) -> None:
    listed = kubectl("api-resources", "--no-headers")
    assert re.search(r"^deployments\s+deploy\s+apps/v1\s+true\s+Deployment$", listed, re.MULTILINE)
    assert re.search(r"^pods\s+po\s+v1\s+true\s+Pod$", listed, re.MULTILINE)
    assert "apps/v1" in kubectl("api-versions").split()
    assert re.search(r"imagePullPolicy\s+<string>", kubectl("explain", "pod.spec.containers"))


def test_get_all(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    listed = kubectl("get", "all", "-o", "name")
    assert {"service/web", "deployment.apps/web"} <= set(listed.split())


def test_create_reads_every_generator(kubectl: Kubectl) -> None:
    kubectl("create", "secret", "generic", "s", "--from-literal=k=v")
    assert kubectl("get", "secret", "s", "-o", "jsonpath={.data.k}") == "dg=="
    kubectl("create", "serviceaccount", "bob")
    kubectl("create", "job", "j", "--image=busybox", "--", "true")
    kubectl("create", "cronjob", "c", "--image=busybox", "--schedule=*/5 * * * *")
    kubectl("create", "service", "clusterip", "s", "--tcp=80:8080")
    kubectl("create", "deployment", "d", "--image=nginx", "--replicas=0", "--port=80")
    kubectl("expose", "deployment", "d")
    kubectl("create", "quota", "q", "--hard=pods=3")
    kubectl("create", "ingress", "i", "--rule=a.example/*=s:80")
    kubectl("create", "poddisruptionbudget", "p", "--selector=app=x", "--min-available=1")
    assert kubectl("get", "svc", "d", "-o", "jsonpath={.spec.ports[0].targetPort}") == "80"
    assert kubectl("get", "svc", "s", "-o", "jsonpath={.spec.ports[0].targetPort}") == "8080"
    assert kubectl("get", "quota", "q", "-o", "jsonpath={.spec.hard.pods}") == "3"
