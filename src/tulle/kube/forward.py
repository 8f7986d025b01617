"""One HTTP request to a port inside a pod, over the API's port forwarding: what the pod's own network may ask.

The channel form over a WebSocket: two channels for the port, 0 for data and 1 for what went wrong, each of which begins
with a message that says the port's number.
"""

import asyncio

from lightkube.config.kubeconfig import SingleConfig

from tulle.kube.client import Unreachable
from tulle.kube.sockets import Socket, open_socket

__all__ = ["get_inside"]

DATA, TROUBLE = 0, 1
PROTOCOLS = ("v4.channel.k8s.io",)
ANSWER_SECONDS = 10.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024


async def get_inside(
    config: SingleConfig, namespace: str, pod: str, port: int, path: str
) -> tuple[int, bytes]:
    """GET a path from a pod's port as a process of the pod would, and return status and body.

    :raises ApiError: the API does not let us.
    :raises Unreachable: nobody answers there, or not with a whole HTTP answer.
    """
    forward = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward"
    question = f"GET {path} HTTP/1.1\r\nhost: localhost:{port}\r\naccept: */*\r\nconnection: close\r\n\r\n"
    async with open_socket(config, forward, [("ports", str(port))], PROTOCOLS) as socket:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await socket.send(bytes((DATA,)) + question.encode())
                return await _answer(socket)
        except TimeoutError as error:
            raise Unreachable(
                f"port {port} of pod {pod} did not answer within {ANSWER_SECONDS:g} s"
            ) from error


async def _answer(socket: Socket) -> tuple[int, bytes]:
    numbered: set[int] = set()
    received = bytearray()
    async for message in socket.messages():
        if not message:
            continue
        channel, data = message[0], message[1:]
        if channel not in numbered:
            numbered.add(channel)
        elif channel == TROUBLE and data:
            raise Unreachable(data.decode(errors="replace").strip())
        elif channel == DATA:
            received += data
            if len(received) > MAX_ANSWER_BYTES:
                raise Unreachable(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
            if (whole := whole_answer(bytes(received))) is not None:
                return whole
    raise Unreachable("the connection ended before the answer did")


def whole_answer(received: bytes) -> tuple[int, bytes] | None:
    """Return status and body of an HTTP/1 answer that says its length; None while some of it is still to come.

    :raises Unreachable: it is not such an answer.
    """
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return None
    first, *fields = head.decode("latin-1").split("\r\n")
    lengths = [
        value.strip()
        for name, _, value in (field.partition(":") for field in fields)
        if name.strip().lower() == "content-length"
    ]
    words = first.split(" ")
    if len(words) < 2 or not words[1].isdecimal() or len(lengths) != 1 or not lengths[0].isdecimal():
        raise Unreachable(f"not an HTTP answer with a length: {first[:80]!r}")
    length = int(lengths[0])
    return (int(words[1]), body[:length]) if len(body) >= length else None
