"""Which pod and which container a person means."""

import json
from typing import Any

import pytest

from tulle.cli.pods import container_of, find_pod
from tulle.errors import TulleError, UsageError
from tulle.kube.client import ApiError

pytestmark = pytest.mark.anyio


def pod(name: str, *, ready: bool = True, phase: str = "Running", **annotations: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "annotations": {key.replace("_", "/"): value for key, value in annotations.items()},
        },
        "spec": {
            "containers": [{"name": "linkerd-proxy"}, {"name": "app"}, {"name": "helper"}],
            "initContainers": [{"name": "linkerd-init"}],
        },
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


class Api:
    """Answers of an API, by path; lists are of the pods that carry app=web."""

    def __init__(self, pods: list[dict[str, Any]]) -> None:
        self.pods = pods
        self.objects = {
            "/api/v1/namespaces/shop/pods/web-1": pod("web-1"),
            "/apis/apps/v1/namespaces/shop/deployments/web": {
                "spec": {"selector": {"matchLabels": {"app": "web", "tier": "front"}}}
            },
            "/api/v1/namespaces/shop/services/web-svc": {"spec": {"selector": {"app": "web"}}},
            "/api/v1/namespaces/shop/services/external": {"spec": {}},
        }
        self.selectors: list[str] = []

    async def get(self, path: str) -> Any:
        if path not in self.objects:
            raise ApiError(404, "NotFound", "not found")
        return self.objects[path]

    async def request(self, method: str, path: str, **params: str) -> bytes:
        assert (method, path) == ("GET", "/api/v1/namespaces/shop/pods")
        self.selectors.append(params["labelSelector"])
        return json.dumps({"items": self.pods}).encode()


async def find(api: Api, text: str) -> str:
    found = await find_pod(api, "shop", text)  # type: ignore[arg-type]
    return str(found["metadata"]["name"])


@pytest.mark.parametrize("text", ["web-1", "pod/web-1", "po/web-1"])
async def test_a_pod_is_named_with_or_without_its_kind(text: str) -> None:
    assert await find(Api([]), text) == "web-1"


async def test_a_workload_means_its_first_ready_pod() -> None:
    api = Api([pod("c", phase="Succeeded"), pod("a", ready=False), pod("d"), pod("b")])
    assert await find(api, "deploy/web") == "b"
    assert await find(api, "svc/web-svc") == "b"
    assert api.selectors == ["app=web,tier=front", "app=web"]


async def test_a_pod_that_is_not_ready_is_better_than_none() -> None:
    assert await find(Api([pod("a", ready=False)]), "deploy/web") == "a"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("web-9", "pod web-9 is not there in namespace shop"),
        ("deploy/none", "deploy/none is not there in namespace shop"),
        ("deploy/web", "deploy/web in namespace shop has no running pod"),
        ("svc/external", "svc/external in namespace shop selects no pods by labels"),
    ],
)
async def test_what_cannot_be_found_is_told_in_words(text: str, said: str) -> None:
    with pytest.raises(TulleError) as raised:
        await find(Api([]), text)
    assert raised.value.what == said


async def test_a_kind_without_pods_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="'ingress' has no pods"):
        await find(Api([]), "ingress/web")


def test_the_container_is_the_applications_unless_said_otherwise() -> None:
    assert container_of(pod("web"), None) == "app"
    assert container_of(pod("web"), "linkerd-init") == "linkerd-init"
    chosen = pod("web")
    chosen["metadata"]["annotations"] = {"kubectl.kubernetes.io/default-container": "helper"}
    assert container_of(chosen, None) == "helper"
    with pytest.raises(TulleError, match="pod web has no container x"):
        container_of(pod("web"), "x")
