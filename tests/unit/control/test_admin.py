"""The admin HTTP server: readiness, scrape targets, the relay, and requests that mean harm."""

import asyncio
import ssl
from pathlib import Path

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fakes.cluster import pod, voting
from tests.fakes.kubernetes import FakeKubernetes
from tests.unit.control.conftest import Running, running, until
from tests.unit.control.test_identity import Authority, authority, given
from tulle.control import connection
from tulle.control.http import bind, serve
from tulle.control.serving import ServingCertificate
from tulle.errors import TulleError

PAGE = Path("docs/control-plane.md").read_text()


async def get(plane: Running, path: str, **headers: str) -> httpx2.Response:
    port = plane.controller.settings.ports.admin
    async with httpx2.AsyncClient(trust_env=False) as client:
        return await client.get(f"http://127.0.0.1:{port}{path}", headers=headers)


async def test_ready_only_when_every_kind_is_listed_and_there_is_an_issuer() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes) as plane:
        assert (await get(plane, "/live")).status_code == 200
        await until(lambda: plane.controller.views.watcher.synced)
        answer = await get(plane, "/ready")
        assert answer.status_code == 503 and "issuer" in answer.text and "not listed" not in answer.text
    async with (
        FakeKubernetes(voting(), absent=("servers",)).serving() as kubernetes,
        running(kubernetes, given) as plane,
    ):
        await until(lambda: not plane.controller.not_ready())
        assert (await get(plane, "/ready")).text == "ready\n"


async def test_meshed_pods_are_scrape_targets_directly_or_through_the_relay() -> None:
    objects = voting(pod("plain", "10.42.0.7", meshed=False), pod("voting-2", "10.42.0.8", ns="other"))
    async with FakeKubernetes(objects).serving() as kubernetes, running(kubernetes) as plane:
        await until(lambda: plane.controller.views.watcher.synced)
        direct = (await get(plane, "/sd")).json()
        assert [t["targets"] for t in direct] == [["10.42.0.3:4191"], ["10.42.0.8:4191"]]
        assert direct[0]["labels"]["deployment"] == "voting-v1"
        relayed = (await get(plane, "/sd?via=host", Host="tulle.example:9")).json()
        assert relayed[0]["targets"] == ["tulle.example:9"]
        assert relayed[0]["labels"]["__metrics_path__"] == "/proxy/default/voting-1/metrics"
        assert (await get(plane, "/sd?via=magic")).status_code == 400


async def test_the_relay_fetches_a_proxys_page_and_no_other_page() -> None:
    async def page(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b"request_total 7\n"})  # type: ignore[operator]

    listener = bind("127.0.0.1", 0)
    admin = {
        "name": "linkerd-proxy",
        "ports": [{"name": "linkerd-admin", "containerPort": listener.getsockname()[1]}],
    }
    near = pod("near", "127.0.0.1", containers=[admin])
    objects = voting(
        near, pod("plain", "127.0.0.1", meshed=False, containers=[admin]), pod("away", "127.0.0.2")
    )
    async with (
        FakeKubernetes(objects).serving() as kubernetes,
        running(kubernetes) as plane,
        asyncio.TaskGroup() as tasks,
    ):
        server = tasks.create_task(serve(page, listener))
        await until(lambda: plane.controller.views.watcher.synced)
        assert (await get(plane, "/proxy/default/near/metrics")).text == "request_total 7\n"
        assert (await get(plane, "/proxy/default/plain/metrics")).status_code == 404
        assert (await get(plane, "/proxy/default/gone/metrics")).status_code == 404
        assert (await get(plane, "/proxy/default/away/metrics")).status_code == 502
        server.cancel()


async def test_own_metrics_are_valid_exposition() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes, given) as plane:
        await until(lambda: not plane.controller.not_ready())
        text = (await get(plane, "/metrics")).text
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        values = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}
        assert values['kube_reflector_objects{kind="pods"}'] == 1
        assert values["issuer_cert_ttl_seconds"] > 0
        assert len(values) == len(lines), "no series twice"
        families = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
        assert [name for name in sorted(families) if f"`{name}" not in PAGE] == [], "each is documented"


async def raw(plane: Running, *pieces: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", plane.controller.settings.ports.admin)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(30):
            return await reader.read()
    except ConnectionResetError:
        return b"reset"
    finally:
        writer.close()


async def test_a_megabyte_of_headers_is_refused() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes) as plane:
        head = b"GET /live HTTP/1.1\r\nHost: x\r\n"
        for attack in (
            b"".join(b"a%d: %s\r\n" % (i, b"b" * 1000) for i in range(1000)),
            b"a: " + b"b" * 1_000_000,
        ):
            answer = await raw(plane, head, attack)
            assert answer == b"reset" or answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400")), answer[:60]
        assert (await get(plane, "/live")).status_code == 200


async def test_a_slow_client_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.2)
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes) as plane:
        for beginning in (
            b"",
            b"GET /live HT",
            b"POST /live HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc",
        ):
            answer = await raw(plane, beginning)
            assert b"408" in answer or b"405" in answer, (beginning, answer)


def write(directory: Path, pair: Authority) -> None:
    (directory / "tls.crt").write_bytes(pair.pem)
    (directory / "tls.key").write_bytes(pair.key_pem)


def test_a_new_serving_certificate_is_taken_over_and_a_broken_one_is_left(tmp_path: Path) -> None:
    with pytest.raises(TulleError):
        ServingCertificate(tmp_path)
    write(tmp_path, authority("one"))
    certificate = ServingCertificate(tmp_path)
    assert not certificate.refresh()
    (tmp_path / "tls.key").write_bytes(
        Authority(authority("x").certificate, ec.generate_private_key(ec.SECP256R1())).key_pem
    )
    assert not certificate.refresh(), "the key does not belong to the certificate"
    write(tmp_path, authority("two"))
    assert certificate.refresh()
    assert isinstance(certificate.context, ssl.SSLContext)
