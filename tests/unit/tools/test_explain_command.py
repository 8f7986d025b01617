"""`tulle explain` against a Kubernetes API over real HTTP."""

import asyncio
import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from starlette.responses import JSONResponse

from tests.fakes.kubernetes import FakeKubernetes
from tests.unit.tools.shop import objects
from tulle.cli.explain import command
from tulle.errors import TulleError, UsageError
from tulle.kube.client import Client
from tulle.kube.kinds import POD, SERVER
from tulle.tools.explain_cluster import read_mesh, read_world

pytestmark = pytest.mark.anyio
CONFIG = "/api/v1/namespaces/linkerd/configmaps/linkerd-config"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def run(kubernetes: FakeKubernetes, folder: Path, *arguments: str) -> Result:
    kubeconfig = folder / "kubeconfig"
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    cluster = {"name": "c", "cluster": {"server": kubernetes.url}}
    user = {"name": "u", "user": {"token": "t"}}
    config = {"clusters": [cluster], "users": [user], "contexts": [context], "current-context": "c"}
    kubeconfig.write_text(yaml.safe_dump(config))
    line = ["--kubeconfig", str(kubeconfig), "-n", "shop", *arguments]
    return await asyncio.to_thread(CliRunner().invoke, command, line)


async def test_the_cluster_is_read_in_pages() -> None:
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"p{n}", "namespace": "shop"}}
        for n in range(1200)
    ]
    async with (
        FakeKubernetes(pods, absent=("servers",)).serving() as kubernetes,
        Client(kubernetes.config()) as client,
    ):
        world = await read_world(client)

    assert (world.count(POD), world.count(SERVER)) == (1200, 0)


async def test_the_meshs_settings_come_from_its_installation() -> None:
    async with FakeKubernetes().serving() as kubernetes, Client(kubernetes.config()) as client:
        assert (await read_mesh(client, "linkerd")).trust_domain == "cluster.local"

        values = {"namespace": "linkerd", "trust_domain": "example.org", "default_inbound_policy": "deny"}
        kubernetes.other[CONFIG] = {"data": {"values": json.dumps(values)}}
        mesh = await read_mesh(client, "linkerd")
        assert (mesh.trust_domain, mesh.default_policy) == ("example.org", "deny")

        values["default_inbound_policy"] = "allow"
        kubernetes.other[CONFIG] = {"data": {"values": json.dumps(values)}}
        with pytest.raises(TulleError, match="linkerd-config cannot be read") as error:
            await read_mesh(client, "linkerd")
        assert "'allow' is not known" in error.value.why

        kubernetes.other[CONFIG] = {"data": {}}
        with pytest.raises(TulleError, match="linkerd-config cannot be read"):
            await read_mesh(client, "linkerd")


async def test_an_api_that_refuses_is_named(tmp_path: Path) -> None:
    async with FakeKubernetes().serving() as kubernetes:
        kubernetes.faults["/api/v1/pods"].append(JSONResponse({"reason": "Forbidden"}, 403))
        refused = await run(kubernetes, tmp_path, "--from", "deploy/web", "--to", "http://voting/")

    assert isinstance(refused.exception, TulleError)
    assert "403 Forbidden" in refused.exception.what


async def test_the_command_prints_text_or_json(tmp_path: Path) -> None:
    asked = ("--from", "deploy/web", "--to", "http://voting/api/vote", "--header", "x-canary: yes")
    async with FakeKubernetes(objects()).serving() as kubernetes:
        text = await run(kubernetes, tmp_path, *asked)
        printed = await run(kubernetes, tmp_path, *asked, "-o", "json")

    assert text.exit_code == 0, text.output
    assert "verdict    allowed" in text.output
    read = json.loads(printed.stdout)
    assert read["outcome"] == "allowed"
    assert read["backends"][0]["name"] == "Service shop/canary:80"
    assert read["outbound"]["rule"]["rule"] == 0


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--from", "deploy/web"],
        ["--to", "http://voting/"],
        ["--pod", "web-1", "--from", "deploy/web", "--to", "http://voting/"],
        ["some-id", "--to", "http://voting/"],
    ],
)
def test_a_question_is_about_a_request_that_was_sent_or_one_that_was_not(words: list[str]) -> None:
    result = CliRunner().invoke(command, words)

    assert isinstance(result.exception, UsageError)
