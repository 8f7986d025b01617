"""Client libraries' own machinery: dynamic clients, informers, bulk creation."""

import asyncio
import threading
from contextlib import aclosing
from pathlib import Path
from typing import Any

import kubernetes as kubernetes_client
import lightkube
import msgspec
import pytest
from kubernetes import dynamic, utils
from lightkube import codecs
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Service

from tests.conformance.clients import Cluster
from tulle.kube.client import Client, load_config
from tulle.kube.kinds import SERVICE_ACCOUNT

pytestmark = pytest.mark.conformance
kubernetes: Any = kubernetes_client

MANIFEST = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: nginx}]}
"""


def test_the_dynamic_client_discovers_and_works(official: Any, namespace: str) -> None:
    make: Any = dynamic.DynamicClient
    client = make(official)
    maps = client.resources.get(api_version="v1", kind="ConfigMap")
    maps.create(body={"metadata": {"name": "dyn"}, "data": {"a": "b"}}, namespace=namespace)
    assert maps.get(name="dyn", namespace=namespace).data.a == "b"
    maps.patch(
        name="dyn",
        namespace=namespace,
        body={"data": {"a": "c"}},
        content_type="application/merge-patch+json",
    )
    assert {item.metadata.name for item in maps.get(namespace=namespace).items} >= {"dyn"}
    applied = maps.server_side_apply(
        namespace=namespace,
        body={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dyn"}, "data": {"d": "e"}},
        field_manager="dynamic",
    )
    assert applied.data.to_dict() == {"a": "c", "d": "e"}
    deployments = client.resources.get(api_version="apps/v1", kind="Deployment")
    assert "deploy" in deployments.short_names
    maps.delete(name="dyn", namespace=namespace)


def test_a_manifest_is_created_in_bulk(official: Any, namespace: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(MANIFEST)
    create: Any = utils.create_from_yaml
    create(official, str(path), namespace=namespace)
    apps = kubernetes.client.AppsV1Api(official)
    assert apps.read_namespaced_deployment("web", namespace).spec.replicas == 0
    scale = apps.patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": 1}})
    assert scale.spec.replicas == 1
    assert kubernetes.client.VersionApi(official).get_code().major == "1"


def test_lightkube_loads_applies_watches_and_waits(light: Any, namespace: str) -> None:
    for obj in codecs.load_all_yaml(MANIFEST):
        light.apply(obj)
    assert light.get(Service, "web").spec.clusterIP
    seen: list[tuple[str, str]] = []

    def follow() -> None:
        for event, obj in light.watch(ConfigMap, server_timeout=30):
            seen.append((event, obj.metadata.name))
            if obj.metadata.name == "last":
                return

    thread = threading.Thread(target=follow)
    thread.start()
    light.create(ConfigMap.from_dict({"metadata": {"name": "last"}}))
    thread.join(30)
    assert ("ADDED", "last") in seen
    patch = {"status": {"conditions": [{"type": "Tested", "status": "True"}]}}
    light.patch(Deployment.Status, "web", patch)
    light.wait(Deployment, "web", for_conditions=["Tested"])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_the_asynchronous_lightkube(cluster: Cluster, namespace: str) -> None:
    config = lightkube.KubeConfig.from_file(str(cluster.kubeconfig))
    client: Any = lightkube.AsyncClient(config=config, namespace=namespace)
    await client.create(ConfigMap.from_dict({"metadata": {"name": "a"}}))
    names = {item.metadata.name async for item in client.list(ConfigMap)}
    assert "a" in names
    async with asyncio.timeout(30):
        async for event, obj in client.watch(ConfigMap):
            assert event == "ADDED"
            if obj.metadata.name == "a":
                break
    await client.close()


async def test_the_control_plane_s_client_lists_pages_and_watches(
    cluster: Cluster, core: Any, namespace: str
) -> None:
    for number in range(3):
        core.create_namespaced_service_account(namespace, {"metadata": {"name": f"a{number}"}})
    async with Client(load_config(str(cluster.kubeconfig), None)) as client:
        found: list[tuple[str, str]] = []
        parameters = {"limit": "2"}
        while True:
            page = await client.list(SERVICE_ACCOUNT, "v1", parameters)
            raw = [msgspec.json.decode(item) for item in page.items]
            found += [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in raw]
            if not page.continue_token:
                break
            parameters = {"limit": "2", "continue": page.continue_token}
        assert {(namespace, f"a{number}") for number in range(3)} <= set(found)
        assert len(found) == len(set(found))
        watching = {"watch": "true", "resourceVersion": page.resource_version, "timeoutSeconds": "5"}
        core.create_namespaced_service_account(namespace, {"metadata": {"name": "late"}})
        async with aclosing(client.watch(SERVICE_ACCOUNT, "v1", watching, silence=10)) as events:
            # Other namespaces may be going at the same time: their accounts' ends are on this stream too.
            async for event in events:
                metadata = msgspec.json.decode(event.object)["metadata"] if event.object else {}
                if (metadata.get("namespace"), metadata.get("name")) == (namespace, "late"):
                    break
        assert event.type == "ADDED"
