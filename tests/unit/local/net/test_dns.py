"""Questions and answers of the cluster's DNS, as bytes and over real sockets."""

import asyncio
import errno
import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.local.net import Backend, ServiceRoute
from tulle.local.net.dns import Answer, MalformedQuestion, Rcode, Type, Zone, encode, parse
from tulle.local.net.dns_server import DnsServer

ROUTES = [
    ServiceRoute("default", "voting", "http", 80, "TCP", "10.96.0.77", (Backend("10.42.0.5", 80),)),
    ServiceRoute("default", "idle", "http", 80, "TCP", "10.96.0.78"),
    ServiceRoute(
        "data",
        "db",
        "pg",
        5432,
        "TCP",
        None,
        (Backend("10.42.0.8", 5432, "db-0"), Backend("10.42.0.9", 5432, "db-1")),
    ),
    ServiceRoute("data", "bare", "", 0, "TCP", None, (Backend("10.42.0.8", 0),)),
]
ZONE = Zone.of(ROUTES)


def question(name: str, kind: int = Type.A, *, ident: int = 7, extra: bytes = b"") -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label)
    header = struct.pack("!HHHHHH", ident, 0x0100, 1, 0, 0, 1 if extra else 0)
    return header + labels + b"\0" + struct.pack("!HH", kind, 1) + extra


def addresses(answer: Answer) -> list[str]:
    return [socket.inet_ntoa(data) for kind, data in answer.records if kind is Type.A]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("voting.default.svc.cluster.local", ["10.96.0.77"]),
        ("idle.default.svc.cluster.local", ["10.96.0.78"]),
        ("db.data.svc.cluster.local", ["10.42.0.8", "10.42.0.9"]),
        ("db-1.db.data.svc.cluster.local", ["10.42.0.9"]),
        ("bare.data.svc.cluster.local", ["10.42.0.8"]),
        ("10-42-0-9.data.pod.cluster.local", ["10.42.0.9"]),
    ],
)
def test_a_name_has_its_addresses(name: str, expected: list[str]) -> None:
    answer = ZONE.lookup(name, Type.A)
    assert (answer.code, addresses(answer)) == (Rcode.NOERROR, expected)


@pytest.mark.parametrize(
    "name",
    ["voting.default.svc.cluster.local", "default.svc.cluster.local", "_tcp.db.data.svc.cluster.local"],
)
def test_a_name_without_ipv6_says_that_it_exists(name: str) -> None:
    """NXDOMAIN for AAAA would make resolvers forget the A record too (RFC 8020)."""
    answer = ZONE.lookup(name, Type.AAAA)
    assert (answer.code, answer.records) == (Rcode.NOERROR, [])


@pytest.mark.parametrize(
    "name", ["nobody.default.svc.cluster.local", "voting.default", "999-1-1-1.data.pod.cluster.local"]
)
def test_a_name_of_nobody_does_not_exist(name: str) -> None:
    assert ZONE.lookup(name, Type.A).code is Rcode.NXDOMAIN


def test_a_name_outside_the_cluster_is_for_somebody_else() -> None:
    assert not ZONE.lookup("example.com", Type.A).ours
    assert not ZONE.lookup("notcluster.local", Type.A).ours


def test_a_named_port_is_found_by_srv() -> None:
    answer = ZONE.lookup("_http._tcp.voting.default.svc.cluster.local", Type.SRV)
    ((kind, data),) = answer.records
    assert kind is Type.SRV
    assert struct.unpack("!HHH", data[:6]) == (0, 100, 80)
    assert data[6:] == b"\x06voting\x07default\x03svc\x07cluster\x05local\x00"


def test_srv_of_a_headless_service_names_each_pod() -> None:
    answer = ZONE.lookup("_pg._tcp.db.data.svc.cluster.local", Type.SRV)
    assert [data[6:11] for _, data in answer.records] == [b"\x04db-0", b"\x04db-1"]


def test_an_external_name_is_an_alias() -> None:
    """The asker gets what the name stands for, and its addresses where they are the cluster's to tell."""
    inside = ServiceRoute("data", "ballots", "", 0, external_name="voting.default.svc.cluster.local")
    outside = ServiceRoute("data", "shop", "", 0, external_name="shop.example.com")
    zone = Zone.of([*ROUTES, inside, outside])
    asked = parse(question("ballots.data.svc.cluster.local"))
    reply = encode(asked, zone.lookup(asked.name, asked.kind))
    assert reply[6:8] == b"\x00\x02", "two records"
    assert b"\x06voting\x07default\x03svc\x07cluster\x05local\x00" in reply
    assert reply.endswith(socket.inet_aton("10.96.0.77"))
    asked = parse(question("shop.data.svc.cluster.local"))
    reply = encode(asked, zone.lookup(asked.name, asked.kind))
    assert (reply[3] & 15, reply[6:8]) == (Rcode.NOERROR, b"\x00\x01")
    assert reply.endswith(b"\x04shop\x07example\x03com\x00")


def test_an_address_has_a_name() -> None:
    answer = ZONE.lookup("77.0.96.10.in-addr.arpa", Type.PTR)
    assert answer.records[0][1].startswith(b"\x06voting")
    assert ZONE.lookup("1.1.96.10.in-addr.arpa", Type.PTR).code is Rcode.NXDOMAIN
    assert not ZONE.lookup("1.1.1.1.in-addr.arpa", Type.PTR).ours


def test_case_and_transaction_number_come_back_as_they_were_asked() -> None:
    asked = question("VoTing.default.svc.cluster.local", ident=0xBEEF)
    parsed = parse(asked)
    reply = encode(parsed, ZONE.lookup(parsed.name, parsed.kind))
    assert reply[:2] == b"\xbe\xef"
    assert b"\x06VoTing" in reply
    assert reply.endswith(socket.inet_aton("10.96.0.77"))


def test_an_answer_that_does_not_fit_asks_to_come_again_by_tcp() -> None:
    many = tuple(Backend(f"10.42.1.{number}", 80) for number in range(1, 100))
    zone = Zone.of([ServiceRoute("default", "big", "http", 80, "TCP", None, many)])
    plain = parse(question("big.default.svc.cluster.local"))
    answer = zone.lookup(plain.name, plain.kind)
    cut = encode(plain, answer)
    assert len(cut) <= 512
    assert cut[2] & 0x02, "the truncation bit"
    assert len(encode(plain, answer, stream=True)) > 1500
    opt = b"\0" + struct.pack("!HHIH", Type.OPT, 4096, 0, 0)
    assert len(encode(parse(question("big.default.svc.cluster.local", extra=opt)), answer)) > 1500


@given(st.binary(max_size=80))
def test_no_bytes_bring_the_parser_down(message: bytes) -> None:
    try:
        parsed = parse(message)
    except MalformedQuestion:
        return
    encode(parsed, ZONE.lookup(parsed.name, parsed.kind))


@pytest.mark.parametrize("size", range(12, len(question("a.b"))))
def test_a_question_cut_short_is_malformed(size: int) -> None:
    with pytest.raises(MalformedQuestion):
        parse(question("a.b")[:size])


async def ask_udp(port: int, message: bytes) -> bytes:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.setblocking(False)
    with client:
        client.connect(("127.0.0.1", port))
        client.send(message)
        async with asyncio.timeout(30):
            return await asyncio.get_running_loop().sock_recv(client, 4096)


async def ask_tcp(port: int, message: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(struct.pack("!H", len(message)) + message)
    async with asyncio.timeout(30):
        (size,) = struct.unpack("!H", await reader.readexactly(2))
        reply = await reader.readexactly(size)
    writer.close()
    await writer.wait_closed()
    return reply


async def test_the_server_answers_over_udp_and_tcp() -> None:
    server = DnsServer("127.0.0.1", 0)
    server.set_services(ROUTES)
    await server.start()
    try:
        for ask in (ask_udp, ask_tcp):
            reply = await ask(server.port, question("voting.default.svc.cluster.local"))
            assert reply.endswith(socket.inet_aton("10.96.0.77"))
    finally:
        await server.stop()


async def test_a_changed_service_is_answered_at_once() -> None:
    server = DnsServer("127.0.0.1", 0)
    await server.start()
    try:
        before = await ask_udp(server.port, question("voting.default.svc.cluster.local"))
        server.set_services(ROUTES)
        after = await ask_udp(server.port, question("voting.default.svc.cluster.local"))
    finally:
        await server.stop()
    assert (before[3] & 15, after[3] & 15) == (Rcode.NXDOMAIN, Rcode.NOERROR)


async def test_a_taken_port_is_said_and_nothing_is_left_open() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            await DnsServer("127.0.0.1", port).start()
    server = DnsServer("127.0.0.1", port)
    await server.start()
    await server.stop()


async def test_where_any_port_will_do_one_is_found_that_is_free_for_tcp_and_udp() -> None:
    """Each port that the kernel offers for TCP is taken for UDP by others, until the fourth."""
    loop = asyncio.get_running_loop()
    real = loop.create_datagram_endpoint
    refused: list[int] = []

    async def taken_thrice(factory: Any, local_addr: tuple[str, int]) -> Any:
        if len(refused) < 3:
            refused.append(local_addr[1])
            raise OSError(errno.EADDRINUSE, "address already in use")
        return await real(factory, local_addr=local_addr)

    server = DnsServer("127.0.0.1", 0)
    server.set_services(ROUTES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "create_datagram_endpoint", taken_thrice)
        await server.start()
    try:
        assert server.port not in refused
        for ask in (ask_udp, ask_tcp):
            await ask(server.port, question("voting.default.svc.cluster.local"))
    finally:
        await server.stop()


async def test_names_outside_are_asked_of_the_hosts_resolver() -> None:
    upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    upstream.bind(("127.0.0.1", 0))
    upstream.setblocking(False)
    to_upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    to_upstream.connect(upstream.getsockname())
    server = DnsServer("127.0.0.1", 0, to_upstream)
    await server.start()
    loop = asyncio.get_running_loop()

    async def resolve() -> None:
        message, asker = await loop.sock_recvfrom(upstream, 4096)
        parsed = parse(message)
        assert parsed.name == "example.com"
        reply = encode(parsed, Answer(Rcode.NOERROR, [(Type.A, b"\x5d\xb8\xd8\x22")], ours=False))
        await loop.sock_sendto(upstream, reply, asker)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(resolve())
            reply = await ask_udp(server.port, question("example.com", ident=0x1234))
    finally:
        await server.stop()
        upstream.close()
    assert reply[:2] == b"\x12\x34", "the asker's number, not the one used upstream"
    assert reply.endswith(b"\x5d\xb8\xd8\x22")


async def test_without_a_resolver_names_outside_fail_at_once() -> None:
    server = DnsServer("127.0.0.1", 0)
    await server.start()
    try:
        reply = await ask_udp(server.port, question("example.com"))
    finally:
        await server.stop()
    assert reply[3] & 15 == Rcode.SERVFAIL
