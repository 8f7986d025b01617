"""A request to a port inside a pod, over a real WebSocket to a scripted API."""

from typing import Any

import pytest
from lightkube.config.models import User
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Request

from tests.unit.kube.test_commands import Peer, api
from tulle.kube.client import Unreachable
from tulle.kube.forward import get_inside, whole_answer

pytestmark = pytest.mark.anyio

PORT = (4191).to_bytes(2, "little")


async def get(config: Any) -> tuple[int, bytes]:
    return await get_inside(config._replace(user=User(token="t")), "shop", "web-1", 4191, "/explain/x")


async def test_the_answer_is_put_together_from_its_pieces() -> None:
    async def script(peer: Peer, request: Request) -> None:
        assert request.target == "/api/v1/namespaces/shop/pods/web-1/portforward?ports=4191"
        peer.send(AcceptConnection(subprotocol="v4.channel.k8s.io"))
        question = (await peer.event()).data
        assert question.startswith(b"\x00GET /explain/x HTTP/1.1\r\nhost: localhost:4191\r\n")
        for channel in (b"\x00", b"\x01"):
            peer.send(BytesMessage(channel + PORT))
        for piece in (b"HTTP/1.1 404 Not Found\r\nContent-", b"Length: 5\r\n\r\nno", b"ne\n"):
            peer.send(BytesMessage(b"\x00" + piece))

    async with api(script) as config:
        assert await get(config) == (404, b"none\n")


async def test_trouble_in_the_pod_is_told() -> None:
    async def script(peer: Peer, request: Request) -> None:
        peer.send(AcceptConnection(subprotocol="v4.channel.k8s.io"))
        for message in (b"\x00" + PORT, b"\x01" + PORT, b"\x01nobody listens on 4191\n"):
            peer.send(BytesMessage(message))

    async with api(script) as config:
        with pytest.raises(Unreachable, match="nobody listens on 4191"):
            await get(config)


async def test_an_answer_that_stops_half_way_is_none() -> None:
    async def script(peer: Peer, request: Request) -> None:
        peer.send(AcceptConnection(subprotocol="v4.channel.k8s.io"))
        peer.send(BytesMessage(b"\x00" + PORT))
        peer.send(BytesMessage(b"\x00HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"))
        peer.send(CloseConnection(1000))

    async with api(script) as config:
        with pytest.raises(Unreachable, match="ended before"):
            await get(config)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    ],
)
def test_what_is_no_answer_with_a_length_is_refused(answer: bytes) -> None:
    with pytest.raises(Unreachable):
        whole_answer(answer)
