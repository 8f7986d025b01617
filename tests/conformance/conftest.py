"""The conformance suite: what a Kubernetes API must do, seen through kubectl, the official Python client and lightkube.

It always runs against the embedded API. With TULLE_CONFORMANCE_KUBECONFIG=FILE it also runs against the cluster that the
file names (never against a KUBECONFIG that merely happens to be set): it makes namespaces `conformance-*` there, cluster
roles, CRDs of the group `conformance.tulle.dev`, and removes them.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import kubernetes as kubernetes_client
import lightkube
import pytest

from tests.conformance.clients import Cluster, Kubectl, wait_until

kubernetes: Any = kubernetes_client

HISTORY = 200
"""Changes that the embedded API keeps here, so that compaction can be provoked."""

EXTERNAL = os.environ.get("TULLE_CONFORMANCE_KUBECONFIG")


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("embedded")
    path = folder / "kubeconfig"
    command = [sys.executable, str(Path(__file__).with_name("embedded.py")), str(path), str(HISTORY)]
    source = str(Path(__file__).parents[2] / "src")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": source, "PYTHONWARNINGS": "error"},
        )
    try:
        wait_until(path.exists, "the embedded API starts", alive=process)
        yield Cluster(path, embedded=True)
        assert process.poll() is None, "the embedded API died: " + (folder / "log").read_text()
    finally:
        process.terminate()
        process.wait(30)
    complaints = (folder / "log").read_text()
    assert "Traceback" not in complaints, complaints


@pytest.fixture(scope="session", params=["embedded", *(["external"] if EXTERNAL else [])])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    if request.param == "external":
        assert EXTERNAL
        return Cluster(Path(EXTERNAL), embedded=False)
    served: Cluster = request.getfixturevalue("embedded")
    return served


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    name = f"conformance-{secrets.token_hex(4)}"
    kubectl = Kubectl(cluster, "default")
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def kubectl(cluster: Cluster, namespace: str) -> Kubectl:
    return Kubectl(cluster, namespace)


@pytest.fixture
def official(cluster: Cluster) -> Iterator[Any]:
    """The official Python client's ApiClient."""
    client = kubernetes.config.new_client_from_config(str(cluster.kubeconfig))
    client.configuration.retries = False
    yield client
    client.rest_client.pool_manager.clear()
    client.close()


@pytest.fixture
def core(official: Any) -> Any:
    return kubernetes.client.CoreV1Api(official)


@pytest.fixture
def light(cluster: Cluster, namespace: str) -> Iterator[lightkube.Client]:
    config = lightkube.KubeConfig.from_file(str(cluster.kubeconfig))
    client = lightkube.Client(config=config, namespace=namespace, field_manager="conformance")
    yield client
    client._client._client.close()


@pytest.fixture
def http(light: lightkube.Client) -> httpx2.Client:
    """A plain HTTPS client with the credentials of the kubeconfig, for what no library does."""
    client: httpx2.Client = light._client._client
    return client
