"""A running control plane over real gRPC on loopback, against the scripted Kubernetes API."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc.aio
import pytest

from tests.fakes.kubernetes import FakeKubernetes
from tulle.clock import SystemClock
from tulle.compile.mesh import Mesh
from tulle.control.controller import Controller, Ports, Settings
from tulle.control.issuer import BadIssuer
from tulle.control.issuing import IssuerText
from tulle.kube.client import Client


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Running:
    """A controller and ways to ask it."""

    controller: Controller
    channels: dict[int, grpc.aio.Channel]

    def _channel(self, port: int) -> grpc.aio.Channel:
        if port not in self.channels:
            self.channels[port] = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        return self.channels[port]

    def stream(self, port: int, method: str, request: Any, answer: type[Any]) -> Any:
        """Open a stream; iterate it for decoded answers."""
        call: Any = self._channel(port).unary_stream(
            method,
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        return call(request)

    async def ask(self, port: int, method: str, request: Any, answer: type[Any]) -> Any:
        """Make one call."""
        call: Any = self._channel(port).unary_unary(
            method,
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        return await call(request, timeout=30)


async def until(holds: Callable[[], bool]) -> None:
    """Wait, five seconds at most, for something that another task brings about."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.01)


async def no_issuer() -> IssuerText:
    raise BadIssuer("there is none in this test")


@contextlib.asynccontextmanager
async def running(
    kubernetes: FakeKubernetes | Client,
    issuer: Callable[[], Any] = no_issuer,
    roles: frozenset[Any] | None = None,
) -> AsyncIterator[Running]:
    ports = Ports(identity=0, destination=0, policy=0, webhook=0, admin=0)
    settings = Settings(
        roles=roles or frozenset(("identity", "destination", "policy")),
        mesh=Mesh(),
        address="127.0.0.1",
        ports=ports,
    )
    async with contextlib.AsyncExitStack() as stack:
        if isinstance(kubernetes, Client):
            client = kubernetes
        else:
            client = await stack.enter_async_context(Client(kubernetes.config()))
        controller = Controller(client, settings, SystemClock(), issuer)
        task_group = asyncio.TaskGroup()
        async with task_group:
            task = task_group.create_task(controller.run())
            started = task_group.create_task(controller.started.wait())
            await asyncio.wait((task, started), return_when=asyncio.FIRST_COMPLETED)
            channels: dict[int, grpc.aio.Channel] = {}
            try:
                yield Running(controller, channels)
            finally:
                for channel in channels.values():
                    await channel.close()
                task.cancel()
                started.cancel()
