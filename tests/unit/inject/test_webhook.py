"""The webhook over its real application: reviews in, reviews out."""

import base64
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tulle.inject import InjectConfig, Owner
from tulle.inject.patch import diff
from tulle.inject.webhook import MAX_BODY, app

CONFIG = InjectConfig(
    trust_anchors="PEM", proxy_image="tulle/proxy:1", proxy_version="1", inject_by_default=True
)
POD: dict[str, Any] = {
    "metadata": {"generateName": "web-"},
    "spec": {"containers": [{"name": "web", "image": "w"}]},
}


class Cluster:
    """What the webhook asks for, scripted."""

    def config(self) -> InjectConfig:
        return CONFIG

    async def namespace(self, name: str) -> dict[str, Any]:
        annotations = {"config.linkerd.io/opaque-ports": "3306"} if name == "db" else {}
        return {"metadata": {"name": name, "annotations": annotations}}

    async def owner(self, namespace: str, reference: dict[str, Any]) -> Owner:
        return Owner("deployment", "web")

    def problems(self, obj: dict[str, Any]) -> list[str]:
        return ["spec.port: required"] if "spec" not in obj else []


@pytest.fixture
def client() -> TestClient:
    return TestClient(app(Cluster()))


def review(client: TestClient, path: str, kind: str, obj: Any, namespace: str = "default") -> dict[str, Any]:
    request = {"uid": "u1", "kind": {"kind": kind}, "namespace": namespace, "object": obj}
    answer = client.post(
        path, json={"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    )
    assert answer.status_code == 200
    response: dict[str, Any] = answer.json()["response"]
    assert response["uid"] == "u1"
    return response


def applied(obj: Any, operations: list[dict[str, Any]]) -> Any:
    """Apply a patch the plain way, as the oracle."""
    obj = copy.deepcopy(obj)
    for operation in operations:
        *path, last = [p.replace("~1", "/").replace("~0", "~") for p in operation["path"].split("/")[1:]] or [
            None
        ]
        target = obj
        for part in path:
            target = target[part]
        if last is None:
            obj = operation["value"]
        elif operation["op"] == "remove":
            del target[last]
        else:
            target[last] = operation["value"]
    return obj


def test_a_pod_is_answered_with_a_patch_that_adds_the_sidecar(client: TestClient) -> None:
    pod = copy.deepcopy(POD)
    pod["metadata"]["ownerReferences"] = [{"controller": True, "kind": "ReplicaSet", "name": "web-1"}]
    response = review(client, "/mutate", "Pod", pod)
    assert response["allowed"] and response["patchType"] == "JSONPatch"
    result = applied(pod, json.loads(base64.b64decode(response["patch"])))
    assert [c["name"] for c in result["spec"]["initContainers"]] == ["linkerd-init", "linkerd-proxy"]
    assert result["metadata"]["labels"]["linkerd.io/proxy-deployment"] == "web"


def test_a_bad_annotation_is_refused_by_name(client: TestClient) -> None:
    pod = copy.deepcopy(POD)
    pod["metadata"]["annotations"] = {"config.linkerd.io/inbound-port": "x"}
    response = review(client, "/mutate", "Pod", pod)
    assert not response["allowed"]
    message = response["status"]["message"]
    assert "config.linkerd.io/inbound-port" in message and "a port number" in message and "web-" in message


def test_a_service_gets_its_namespaces_opaque_ports_unless_it_has_its_own(client: TestClient) -> None:
    service: dict[str, Any] = {"metadata": {"name": "db"}, "spec": {}}
    response = review(client, "/mutate", "Service", service, namespace="db")
    result = applied(service, json.loads(base64.b64decode(response["patch"])))
    assert result["metadata"]["annotations"] == {"config.linkerd.io/opaque-ports": "3306"}
    assert "patch" not in review(client, "/mutate", "Service", result, namespace="db")


def test_an_object_the_mesh_would_not_carry_out_is_refused(client: TestClient) -> None:
    refused = review(
        client, "/validate", "Server", {"kind": "Server", "metadata": {"name": "s", "namespace": "n"}}
    )
    assert not refused["allowed"] and refused["status"]["message"] == "Server n/s: spec.port: required"
    assert review(client, "/validate", "Server", {"spec": {}})["allowed"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"request":1}', b'{"request":{}}', b"[" * 100_000]
)
def test_a_body_that_is_no_review_is_answered_400(client: TestClient, body: bytes) -> None:
    assert client.post("/mutate", content=body).status_code == 400


@pytest.mark.parametrize("obj", [None, [], "x", 1])
def test_an_object_of_the_wrong_shape_passes_untouched(client: TestClient, obj: object) -> None:
    assert review(client, "/mutate", "Pod", obj) == {"uid": "u1", "allowed": True}


def test_a_body_above_the_bound_is_refused(client: TestClient) -> None:
    assert client.post("/mutate", content=b" " * (MAX_BODY + 1)).status_code == 413


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(before=JSON, after=JSON)
def test_a_patch_leads_from_one_document_to_the_other(before: Any, after: Any) -> None:
    assert applied(before, diff(before, after)) == after
