"""The worker over a scripted network: what goes wrong outside becomes a fact, an Event and another try."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.local_cluster import running
from tests.fakes.scripted_network import ScriptedNetwork
from tulle.local.net.model import NetworkError, SpawnError
from tulle.local.pods import Token

POD = """
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers:
  - {name: app, image: none, command: [sleep, "60"]}
"""


def is_running(pod: dict[str, Any]) -> bool:
    return bool(pod["status"].get("phase") == "Running")


async def test_a_network_that_refuses_an_address_is_asked_again(tmp_path: Path) -> None:
    network = ScriptedNetwork()
    network.refusals["add_pod"].append(NetworkError("no address is free"))
    async with running(network, tmp_path) as cluster:
        await cluster.apply(POD)
        await cluster.until("pods", "p", is_running)
        assert ("FailedCreatePodSandBox", "no address is free") in await cluster.events("p")


async def test_a_process_that_cannot_start_ends_with_128_and_is_tried_again(tmp_path: Path) -> None:
    network = ScriptedNetwork()
    network.refusals["spawn"].append(SpawnError("sleep could not be started", "exec: Permission denied"))
    async with running(network, tmp_path) as cluster:
        await cluster.apply(POD)
        pod = await cluster.until("pods", "p", is_running)
        status = pod["status"]["containerStatuses"][0]
        assert status["restartCount"] == 1
        assert status["lastState"]["terminated"]["exitCode"] == 128
        assert "Permission denied" in status["lastState"]["terminated"]["message"]


async def test_a_pod_that_the_agent_stumbles_over_is_named_and_begins_again(tmp_path: Path) -> None:
    network = ScriptedNetwork()
    network.refusals["spawn"].append(NetworkError("the launcher of pods is gone"))
    async with running(network, tmp_path) as cluster:
        await cluster.apply(POD)
        await cluster.until("pods", "p", is_running)
        assert any(
            reason == "FailedSync" and "launcher" in text for reason, text in await cluster.events("p")
        )


@pytest.mark.parametrize("transparent", [True, False])
async def test_capture_rules_are_made_only_where_there_is_something_to_capture(
    tmp_path: Path, transparent: bool
) -> None:
    network = ScriptedNetwork(transparent=transparent)
    async with running(network, tmp_path) as cluster:
        await cluster.apply(
            POD.replace(
                "  containers:",
                "  initContainers: [{name: linkerd-init, image: none, command: [sh, -c, init]}]\n  containers:",
            )
        )
        if transparent:

            async def started() -> bool:
                return bool(network.started)

            await cluster.until_true(started)
            assert network.started[0].spec.argv == ("sh", "-c", "init")
            network.started[0].end(0)
        pod = await cluster.until("pods", "p", is_running)
        assert pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
        assert len(network.started) == (2 if transparent else 1)


async def test_a_token_is_renewed_before_it_ends(tmp_path: Path) -> None:
    issued: list[tuple[str, ...]] = []

    async def tokens(pod: dict[str, Any], *, audiences: Sequence[str], seconds: int) -> Token:
        issued.append(tuple(audiences))
        return Token(f"token {len(issued)}", datetime.now(UTC) + timedelta(seconds=1))

    async with running(ScriptedNetwork(), tmp_path, tokens) as cluster:
        await cluster.apply(
            POD
            + """
  automountServiceAccountToken: false
  volumes: [{name: t, projected: {sources: [{serviceAccountToken: {path: token, audience: mesh}}]}}]
"""
        )
        pod = await cluster.until("pods", "p", is_running)
        file = tmp_path / "pods" / pod["metadata"]["uid"] / "volumes" / "t" / "token"

        async def renewed() -> bool:
            return file.read_text() not in ("token 1", "")

        await cluster.until_true(renewed)
        assert issued[:2] == [("mesh",), ("mesh",)]


async def test_a_readiness_gate_is_somebody_elses_to_open(tmp_path: Path) -> None:
    async with running(ScriptedNetwork(), tmp_path) as cluster:
        await cluster.apply(POD + "  readinessGates: [{conditionType: acme/lb}]\n")
        pod = await cluster.until("pods", "p", is_running)
        conditions = {c["type"]: c["status"] for c in pod["status"]["conditions"]}
        assert (conditions["ContainersReady"], conditions["Ready"]) == ("True", "False")
        gate = {"type": "acme/lb", "status": "True"}
        body = {"status": {"conditions": [*pod["status"]["conditions"], gate]}}
        await cluster.api.patch("pods", "p", body, namespace="default", subresource="status")
        ready = await cluster.until(
            "pods",
            "p",
            lambda p: (
                {"Ready": "True"}.items()
                <= {c["type"]: c["status"] for c in p["status"]["conditions"]}.items()
            ),
        )
        assert (
            gate.items() <= next(c for c in ready["status"]["conditions"] if c["type"] == "acme/lb").items()
        )


async def test_a_hook_ends_with_its_container(tmp_path: Path) -> None:
    """A preStop that sleeps for a minute holds neither the grace period nor the pod's end."""
    async with running(ScriptedNetwork(), tmp_path) as cluster:
        hook = "    lifecycle: {preStop: {sleep: {seconds: 60}}}\n"
        await cluster.apply(
            POD.replace("  containers:", "  terminationGracePeriodSeconds: 1\n  containers:").replace(
                '- {name: app, image: none, command: [sleep, "60"]}',
                '- name: app\n    image: none\n    command: [sleep, "60"]',
            )
            + hook
        )
        await cluster.until("pods", "p", is_running)
        await cluster.api.delete("pods", "p", namespace="default")
        await cluster.until_gone("pods", "p")


async def test_a_sub_path_that_nobody_has_written_is_an_empty_directory(tmp_path: Path) -> None:
    network = ScriptedNetwork()
    async with running(network, tmp_path) as cluster:
        await cluster.apply("""
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - name: app
    image: none
    command: [sleep, "60"]
    volumeMounts: [{name: v, mountPath: /data, subPath: a/b}]
""")
        await cluster.until("pods", "p", is_running)
        (source,) = [m.source for m in network.started[0].spec.mounts if m.target == "/data"]
        assert source.endswith("/v/a/b") and is_empty_directory(source)


def is_empty_directory(path: str) -> bool:
    return list(Path(path).iterdir()) == []
