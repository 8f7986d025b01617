"""`tulle controller` as a process: what it says when it cannot start, and an orderly start and end."""

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.fakes.cluster import voting
from tests.fakes.kubernetes import FakeKubernetes
from tests.unit.control.conftest import until
from tulle.cli.controller import command
from tulle.errors import TulleError, UsageError

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "%s"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""
LEASE = "/apis/coordination.k8s.io/v1/namespaces/linkerd/leases/tulle-status-writer"
FREE = [f"--port={name}=0" for name in ("identity", "destination", "policy", "webhook", "admin")]


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG % "http://127.0.0.1:1")
    return path


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("TULLE_", "KUBE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["--roles", "identity,oracle"], UsageError, ["oracle", "choose from"]),
        (["--roles", ""], UsageError, ["--roles"]),
        (["--port", "admin=x"], UsageError, ["NAME=PORT"]),
        (["--kubeconfig", "/nowhere"], TulleError, ["/nowhere", "give --kubeconfig"]),
        ([], TulleError, ["no Kubernetes API", "tulle up"]),
        (["--config-dir", "/nowhere"], TulleError, ["/nowhere/values", "tulle install"]),
    ],
)
def test_what_is_wrong_is_said_in_three_parts(
    arguments: list[str], error: type[TulleError], words: list[str]
) -> None:
    result = CliRunner().invoke(command, [*FREE, *arguments])
    assert type(result.exception) is error
    for word in words:
        assert word in str(result.exception)


def test_the_role_inject_needs_its_files(kubeconfig: Path) -> None:
    result = CliRunner().invoke(command, [*FREE, "--kubeconfig", str(kubeconfig)])
    assert isinstance(result.exception, UsageError) and "--tls-dir" in str(result.exception)


@pytest.mark.parametrize("name", ["admin", "policy"])
def test_a_port_in_use_is_named(kubeconfig: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = [*FREE, f"--port={name}={port}", "--kubeconfig", str(kubeconfig), "--address=127.0.0.1"]
        result = CliRunner().invoke(command, [*arguments, "--roles=policy"])
    assert isinstance(result.exception, TulleError), result.exception
    assert f"127.0.0.1:{port}" in str(result.exception) and "--port" in str(result.exception)


async def test_it_starts_becomes_ready_and_ends_when_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        admin = probe.getsockname()[1]
    async with FakeKubernetes(voting()).serving() as kubernetes:
        path = tmp_path / "kubeconfig"
        path.write_text(KUBECONFIG % kubernetes.url)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tulle", "controller", "--kubeconfig", str(path), "--address=127.0.0.1"),
            *(*FREE, f"--port=admin={admin}", "--roles=destination,policy"),
            env={**os.environ, "PYTHONPATH": "src"},
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stderr is not None
            said = b""
            async with asyncio.timeout(20):
                while b"the cluster has been read" not in said:
                    said += await process.stderr.readline()
            reader, writer = await asyncio.open_connection("127.0.0.1", admin)
            writer.write(b"GET /ready HTTP/1.0\r\n\r\n")
            answer = await reader.read()
            writer.close()
            assert b" 200 " in answer and answer.endswith(b"ready\n")
            await until(lambda: LEASE in kubernetes.other)
        finally:
            process.terminate()
            async with asyncio.timeout(30):
                rest = (await process.communicate())[1]
        assert process.returncode == 0, rest
        assert b"Traceback" not in rest
        assert kubernetes.other[LEASE]["spec"]["holderIdentity"] == "", "given back for the next leader"
