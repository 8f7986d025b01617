"""What breaks the rules of HTTP or JSON gets an error answer or a closed connection, and the API goes on."""

import json
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from tests.conformance.clients import Cluster
from tulle.clock import SystemClock
from tulle.local.api.auth.certificates import Authority

pytestmark = pytest.mark.conformance


@pytest.fixture(autouse=True)
def only_embedded(cluster: Cluster, http: Any) -> Iterator[None]:
    if not cluster.embedded:
        pytest.skip("limits are each server's own")
    yield
    assert http.get("/readyz").text == "ok", "the API goes on"


@pytest.fixture
def connect(official: Any) -> Iterator[Any]:
    """Opens TLS connections with the kubeconfig's certificate, or with another one, or with none."""
    configuration = official.configuration
    host, port = configuration.host.removeprefix("https://").split(":")
    opened: list[ssl.SSLSocket] = []

    def open_one(
        certificate: str | None = configuration.cert_file, key: str | None = configuration.key_file
    ) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if certificate:
            context.load_cert_chain(certificate, key)
        plain = socket.create_connection((host, int(port)), timeout=30)
        opened.append(context.wrap_socket(plain, server_hostname=host))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def answer_to(connection: ssl.SSLSocket, request: bytes) -> bytes:
    try:
        connection.sendall(request)
    except OSError:
        pass
    data = b""
    try:
        while chunk := connection.recv(65536):
            data += chunk
    except OSError:
        pass
    return data


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: localhost", *lines, "", ""]).encode()


def test_a_megabyte_of_headers(connect: Any) -> None:
    huge = head("GET", "/version", *(f"x-{number}: {'y' * 1000}" for number in range(1000)))
    assert b" 431 " in answer_to(connect(), huge).split(b"\r\n")[0]


def test_a_long_url(connect: Any) -> None:
    assert b" 431 " in answer_to(connect(), head("GET", "/version?" + "a" * 200_000)).split(b"\r\n")[0]


def test_what_is_no_http(connect: Any) -> None:
    assert b" 400 " in answer_to(connect(), b"\x16\x03\x01 nonsense\r\n\r\n").split(b"\r\n")[0]


def test_a_body_cut_short(connect: Any) -> None:
    connection = connect()
    lines = ("content-type: application/json", "content-length: 1000")
    connection.sendall(head("POST", "/api/v1/namespaces", *lines) + b'{"metadata":')
    connection.close()


def test_a_body_too_large(http: Any, namespace: str) -> None:
    body = json.dumps({"metadata": {"name": "big"}, "data": {"a": "x" * 4_000_000}})
    answer = http.post(
        f"/api/v1/namespaces/{namespace}/configmaps",
        content=body,
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 413
    assert answer.json()["reason"] == "RequestEntityTooLarge"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ('{"metadata": {"name": ', "application/json"),
        ("[1, 2]", "application/json"),
        ('"text"', "application/json"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "application/json"),
        ('{"metadata":{"name":"x"},"data":' + '{"a":' * 500 + "1" + "}" * 500 + "}", "application/json"),
        ("a: [1, 2", "application/yaml"),
        ("a: &x [1]\nb: *x\n", "application/yaml"),
        ('{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x"}}', "application/json"),
        ('{"metadata":"text"}', "application/json"),
        ('{"metadata":{"name":"x","labels":["a"]}}', "application/json"),
        ('{"metadata":{"name":7}}', "application/json"),
        (b"\xff\xfe{}", "application/json"),
        (b"k8s\x00\x0a\xff\xff\xff\xff\x0f", "application/vnd.kubernetes.protobuf"),
        (
            b"k8s\x00\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x05\x0a\x7f\x0a\x01x",
            "application/vnd.kubernetes.protobuf",
        ),
        (b"plain", "application/vnd.kubernetes.protobuf"),
    ],
)
def test_a_body_that_makes_no_sense(http: Any, namespace: str, content: Any, kind: str) -> None:
    answer = http.post(
        f"/api/v1/namespaces/{namespace}/configmaps", content=content, headers={"content-type": kind}
    )
    assert answer.status_code == 400, answer.text
    assert answer.json()["kind"] == "Status"


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/api/v1/nonsense", 404),
        ("GET", "/apis/nobody.example/v1/things", 404),
        ("GET", "/nonsense", 404),
        ("GET", "/api/v1/namespaces/default/pods/none/nonsense", 404),
        ("GET", "/api/v1/namespaces/default/pods/none", 404),
        ("PUT", "/api/v1/namespaces/default/configmaps", 405),
        ("POST", "/api/v1/namespaces/default/configmaps/x", 405),
        ("POST", "/api/v1/configmaps", 405),
        ("PATCH", "/api/v1/namespaces/default/configmaps/x", 415),
        ("GET", "/api/v1/namespaces/default/configmaps?limit=x", 400),
        ("GET", "/api/v1/namespaces/default/configmaps?resourceVersion=x", 400),
        ("GET", "/api/v1/namespaces/default/configmaps?labelSelector=((", 400),
        ("GET", "/api/v1/namespaces/default/configmaps?watch=1&resourceVersionMatch=Exact", 400),
        ("DELETE", "/api/v1/namespaces/default/configmaps/none", 404),
        ("TRACE", "/api/v1/namespaces/default/configmaps/none", 405),
    ],
)
def test_a_request_that_makes_no_sense(http: Any, method: str, path: str, code: int) -> None:
    answer = http.request(method, path)
    assert answer.status_code == code, answer.text
    assert answer.json()["code"] == code


def test_a_version_of_the_future(http: Any) -> None:
    answer = http.get("/api/v1/namespaces/default/configmaps?resourceVersion=999999999")
    assert answer.status_code == 504
    assert answer.json()["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


def test_what_nobody_speaks(http: Any) -> None:
    assert http.get("/api/v1/namespaces", headers={"accept": "image/png"}).status_code == 406


def test_a_certificate_of_another_authority(connect: Any, tmp_path: Path) -> None:
    foreign = Authority(SystemClock()).client("tulle-admin", ["system:masters"])
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    certificate.write_bytes(foreign.certificate)
    key.write_bytes(foreign.key)
    connection = None
    try:
        connection = connect(str(certificate), str(key))
        answered = answer_to(connection, head("GET", "/api/v1/namespaces", "connection: close"))
    except ssl.SSLError:
        answered = b""
    assert answered == b"", "the handshake is refused"
    assert serialization.load_pem_private_key(foreign.key, None)


def test_no_certificate_is_anonymous(connect: Any) -> None:
    answered = answer_to(connect(None, None), head("GET", "/api/v1/namespaces", "connection: close"))
    assert b" 401 " in answered.split(b"\r\n")[0]


def test_plain_http_is_refused(official: Any) -> None:
    host, port = official.configuration.host.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head("GET", "/version"))
        try:
            assert not connection.recv(100).startswith(b"HTTP/1.1 200")
        except ConnectionResetError:
            pass


def test_a_client_that_says_nothing_does_not_stop_others(connect: Any, http: Any) -> None:
    silent = [connect() for _ in range(20)]
    for connection in silent:
        connection.sendall(b"GET /api/v1/na")
    assert http.get("/api/v1/namespaces").status_code == 200


def test_refusals_are_counted(connect: Any, http: Any) -> None:
    def count() -> int:
        page = http.get("/metrics").text
        found = re.search(
            r'apiserver_request_total\{verb="list",group="",resource="secrets",code="401"\} (\d+)', page
        )
        return int(found[1]) if found else 0

    before = count()
    answer_to(connect(None, None), head("GET", "/api/v1/secrets", "connection: close"))
    assert count() == before + 1
    for number in range(3):
        http.get(f"/apis/made.up{number}/v1/things")
    assert "made.up" not in http.get("/metrics").text, "labels never come from a request"
    assert answer_to(connect(None, None), head("GET", "/metrics", "connection: close")).startswith(
        b"HTTP/1.1 401"
    )
