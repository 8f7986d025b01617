"""Logs, commands and connections: from real clients to a node, and back. The node here runs commands on this machine."""

import asyncio
import contextlib
import gc
import json
import socket
import threading
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes as kubernetes_client
import pytest
from kubernetes.stream import portforward, stream

from tests.conformance.clients import Cluster, Kubectl, wait_until
from tests.conformance.webhook_server import WebhookServer, deny
from tulle.local.api import Api, ApiError
from tulle.local.api.http.server import ApiServer
from tulle.local.api.kubeconfig import admin_kubeconfig, write_kubeconfig
from tulle.local.api.nodeport import OutputStream

kubernetes: Any = kubernetes_client

pytestmark = pytest.mark.conformance

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "one", "namespace": "default"},
    "spec": {
        "nodeName": "here",
        "containers": [{"name": "main", "image": "none", "ports": [{"containerPort": 80}]}],
    },
}


class Session:
    """A command on this machine."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.sizes: list[tuple[int, int]] = []

    async def output(self) -> AsyncIterator[tuple[OutputStream, bytes]]:
        queue: asyncio.Queue[tuple[OutputStream, bytes]] = asyncio.Queue()

        async def pump(name: OutputStream, reader: asyncio.StreamReader | None) -> None:
            assert reader is not None
            while data := await reader.read(1000):
                await queue.put((name, data))
            await queue.put((name, b""))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pump("stdout", self._process.stdout))
            tasks.create_task(pump("stderr", self._process.stderr))
            ended = 0
            while ended < 2:
                name, data = await queue.get()
                if data:
                    yield name, data
                else:
                    ended += 1

    async def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        if data:
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        else:
            self._process.stdin.close()

    def resize(self, columns: int, rows: int) -> None:
        self.sizes.append((columns, rows))

    async def wait(self) -> int:
        return await self._process.wait()

    async def close(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


class Node:
    """A NodePort whose containers are this machine."""

    def __init__(self) -> None:
        self.lines = [b"first\n", b"second\n"]
        self.more = asyncio.Event()
        self.asked: list[dict[str, Any]] = []

    async def logs(self, namespace: str, pod: str, container: str, **how: Any) -> AsyncIterator[bytes]:
        self.asked.append(how)
        for line in self.lines[-how["tail_lines"] :] if how["tail_lines"] else self.lines:
            yield line
        if how["follow"]:
            await self.more.wait()
            yield b"third\n"

    async def exec(
        self, namespace: str, pod: str, container: str, argv: Sequence[str], *, stdin: bool, tty: bool
    ) -> Session:
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=pipe if stdin else asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
            )
        except FileNotFoundError as error:
            raise ApiError(400, "BadRequest", f"no such program: {argv[0]}") from error
        return Session(process)

    async def dial(self, address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(address, port)

    async def dial_inside(self, address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await self.dial(address, port)


class World:
    """An API with a node, in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self.loop = asyncio.new_event_loop()
        self.api: Api
        self.node: Node
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self.loop.run_until_complete(self._serve())
        self.loop.close()

    async def _serve(self) -> None:
        self._stop, self.node = asyncio.Event(), Node()
        self.api = Api(node=self.node)
        await self.api.seed()
        listener = socket.create_server(("127.0.0.1", 0))
        async with ApiServer(self.api) as server:
            await server.listen(listener)
            url = f"https://127.0.0.1:{listener.getsockname()[1]}"
            await self.api.create("pods", POD)
            status = {"status": {"phase": "Running", "podIP": "127.0.0.1"}}
            await self.api.patch("pods", "one", status, namespace="default", subresource="status")
            write_kubeconfig(self.kubeconfig, admin_kubeconfig(self.api.authority, url))
            await self._stop.wait()

    def start(self) -> None:
        self._thread.start()
        wait_until(self.kubeconfig.exists, "the API with a node starts")

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("world"))
    world.start()
    yield world
    world.stop()


@pytest.fixture
def node_kubectl(world: World) -> Kubectl:
    return Kubectl(Cluster(world.kubeconfig, embedded=True), "default")


@pytest.fixture
def node_core(world: World) -> Iterator[Any]:
    client = kubernetes.config.new_client_from_config(str(world.kubeconfig))
    yield kubernetes.client.CoreV1Api(client)
    client.rest_client.pool_manager.clear()


@pytest.fixture
def web() -> Iterator[int]:
    """A web server on this machine; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"you asked for {self.path}".encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_logs(node_kubectl: Kubectl, world: World) -> None:
    assert node_kubectl("logs", "one") == "first\nsecond\n"
    assert node_kubectl("logs", "one", "--tail=1", "--timestamps", "--previous") == "second\n"
    asked = world.node.asked[-1]
    assert (asked["tail_lines"], asked["timestamps"], asked["previous"], asked["follow"]) == (
        1,
        True,
        True,
        False,
    )
    assert node_kubectl("logs", "one", "--limit-bytes=3") == "fir"
    assert "container nope is not valid for pod one" in node_kubectl.fails("logs", "one", "-c", "nope")


def test_logs_follow(node_kubectl: Kubectl, world: World) -> None:
    following = node_kubectl.start("logs", "-f", "one")
    assert following.stdout is not None
    assert [following.stdout.readline() for _ in range(2)] == ["first\n", "second\n"]
    world.loop.call_soon_threadsafe(world.node.more.set)
    assert following.stdout.readline() == "third\n"
    assert following.wait(30) == 0
    following.communicate()


def test_exec_runs_a_command(node_kubectl: Kubectl) -> None:
    done = node_kubectl.run("exec", "one", "--", "sh", "-c", "echo out; echo err >&2; exit 3", check=False)
    assert (done.stdout, done.returncode) == ("out\n", 3)
    assert "err\n" in done.stderr
    assert "exit code 3" in done.stderr


def test_exec_hands_input_on(node_kubectl: Kubectl) -> None:
    assert node_kubectl.run("exec", "-i", "one", "--", "cat", stdin="hello\n").stdout == "hello\n"
    big = "x" * 300_000 + "\n"
    assert node_kubectl.run("exec", "-i", "one", "--", "cat", stdin=big).stdout == big


def test_exec_of_nothing_says_so(node_kubectl: Kubectl) -> None:
    assert "not found" in node_kubectl.fails("exec", "none", "--", "true")
    assert "container nope is not valid" in node_kubectl.fails("exec", "one", "-c", "nope", "--", "true")
    assert "no such program: no-such-program" in node_kubectl.fails("exec", "one", "--", "no-such-program")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the client leaks its socket
def test_the_official_client_executes(node_core: Any) -> None:
    api = kubernetes.client.CoreV1Api(node_core.api_client)
    command = ["sh", "-c", "read line; echo got $line; echo bad >&2"]
    session = stream(
        api.connect_get_namespaced_pod_exec,
        "one",
        "default",
        command=command,
        stdin=True,
        stdout=True,
        stderr=True,
        tty=False,
        _preload_content=False,
    )
    session.write_stdin("this\n")
    session.run_forever(timeout=30)
    assert session.read_stdout() == "got this\n"
    assert session.read_stderr() == "bad\n"
    assert session.returncode == 0
    session.close()
    del session
    gc.collect()


def test_a_pod_is_reached_through_the_proxy(node_kubectl: Kubectl, web: int) -> None:
    answer = node_kubectl("get", "--raw", f"/api/v1/namespaces/default/pods/one:{web}/proxy/some/path?q=1")
    assert answer.strip() == "you asked for /some/path?q=1"
    said = node_kubectl.fails("get", "--raw", "/api/v1/namespaces/default/pods/one:1/proxy/")
    assert "ServiceUnavailable" in said


def test_a_service_is_reached_through_the_proxy(node_kubectl: Kubectl, web: int) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"ports": [{"port": 80, "name": "http"}]},
    }
    place = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"]}],
        "ports": [{"name": "http", "port": web}],
    }
    node_kubectl("create", "-f", "-", stdin=json.dumps(service))
    node_kubectl("create", "-f", "-", stdin=json.dumps(place))
    for name in ("web:http", "web:80"):
        answer = node_kubectl("get", "--raw", f"/api/v1/namespaces/default/services/{name}/proxy/x")
        assert answer.strip() == "you asked for /x"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the client leaks its socket
def test_the_official_client_forwards_ports(node_core: Any, web: int) -> None:
    forward = portforward(node_core.connect_get_namespaced_pod_portforward, "one", "default", ports=str(web))
    connection = forward.socket(web)
    connection.setblocking(True)
    connection.sendall(b"GET /forwarded HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    data = b""
    while chunk := connection.recv(1000):
        data += chunk
        if b"forwarded" in data.partition(b"\r\n\r\n")[2]:
            break
    connection.close()
    forward.close()
    assert b"you asked for /forwarded" in data


def test_kubectl_forwards_ports(node_kubectl: Kubectl, web: int) -> None:
    forwarding = node_kubectl.start("port-forward", "pod/one", f":{web}", "--address=127.0.0.1")
    try:
        assert forwarding.stdout is not None
        line = forwarding.stdout.readline()
        port = int(line.split(":")[1].split(" ")[0])
        for number in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/hello{number}", timeout=30) as answer:
                assert answer.read() == f"you asked for /hello{number}".encode()
    finally:
        forwarding.terminate()
        forwarding.communicate(timeout=30)


def test_kubectl_says_when_nothing_listens(node_kubectl: Kubectl) -> None:
    forwarding = node_kubectl.start("port-forward", "pod/one", ":1", "--address=127.0.0.1")
    try:
        assert forwarding.stdout is not None
        port = int(forwarding.stdout.readline().split(":")[1].split(" ")[0])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(b"hello")
            assert connection.recv(10) == b""
    finally:
        forwarding.terminate()
        _, said = forwarding.communicate(timeout=30)
    assert "failed to connect to 127.0.0.1:1" in said


def test_webhooks_are_asked_about_commands(node_kubectl: Kubectl) -> None:
    with WebhookServer(["127.0.0.1"]).serving() as server:
        server.answer = deny("no shells here")
        webhook = {
            "name": "hook.conformance.tulle.dev",
            "clientConfig": {"url": f"https://127.0.0.1:{server.port}/", "caBundle": server.ca_bundle},
            "rules": [
                {
                    "operations": ["CONNECT"],
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "resources": ["pods/exec"],
                }
            ],
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
        }
        kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
        node_kubectl(
            "create", "-f", "-", stdin=json.dumps({**kind, "metadata": {"name": "h"}, "webhooks": [webhook]})
        )
        said = node_kubectl.fails("exec", "one", "--", "true")
        node_kubectl("delete", "validatingwebhookconfiguration", "h")
    assert "denied the request: no shells here" in said
    request = server.requests[0]
    assert (request["operation"], request["kind"]["kind"], request["subResource"]) == (
        "CONNECT",
        "PodExecOptions",
        "exec",
    )
    assert request["object"]["command"] == ["true"]
