"""The HTTPS server's own manners: slow heads, an orderly end."""

import asyncio
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tulle.local.api import Api
from tulle.local.api.auth.users import MASTERS
from tulle.local.api.http.server import ApiServer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    made = Api()
    await made.seed()
    yield made


async def connect(api: Api, listener: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.create_default_context(cadata=api.authority.bundle.decode())
    return await asyncio.open_connection(
        *listener.getsockname()[:2], ssl=context, server_hostname="localhost"
    )


async def test_a_slow_head_is_given_up(api: Api) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    async with ApiServer(api, head_seconds=0.1) as server:
        await server.listen(listener)
        reader, writer = await connect(api, listener)
        writer.write(b"GET /version HTTP/1.1\r\nhost: a\r\nx-slow")
        async with asyncio.timeout(30):
            assert (await reader.read()).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        writer.close()


async def test_an_answer_under_way_is_not_a_slow_head(api: Api) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    async with ApiServer(api, head_seconds=0.1) as server:
        await server.listen(listener)
        token = (await api.request_token("default", "default"))["status"]["token"]
        binding = {
            "metadata": {"name": "all"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
        }
        await api.create("clusterrolebindings", binding, group="rbac.authorization.k8s.io")
        reader, writer = await connect(api, listener)
        path = "/api/v1/namespaces/default/configmaps?watch=true&timeoutSeconds=20"
        writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n".encode())
        async with asyncio.timeout(30):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.3)
            await api.create("configmaps", {"metadata": {"name": "late", "namespace": "default"}})
            while b"late" not in await reader.readline():
                pass
        writer.close()


async def test_the_end_of_the_server_ends_its_watches(api: Api) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = ApiServer(api)
    await server.listen(listener)
    credential = api.authority.client("root", [MASTERS])
    context = ssl.create_default_context(cadata=api.authority.bundle.decode())

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pair.pem"
        path.write_bytes(credential.certificate + credential.key)
        context.load_cert_chain(path)
    host, port = listener.getsockname()[:2]
    reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname="localhost")
    writer.write(b"GET /api/v1/namespaces?watch=true HTTP/1.1\r\nhost: a\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    async with asyncio.timeout(30):
        await server.close()
        try:
            await reader.read()
        except ConnectionError:
            pass
    writer.close()
    with pytest.raises(OSError):
        socket.create_connection((host, port), timeout=1).close()


async def test_the_service_of_the_api_comes_back(api: Api) -> None:
    before = await api.get("services", "kubernetes", namespace="default")
    await api.delete("services", "kubernetes", namespace="default")
    after = await api.get("services", "kubernetes", namespace="default")
    assert after["spec"] == before["spec"]
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
