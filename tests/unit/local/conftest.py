"""The cluster that tests of controllers and pods run in: pods on loopback addresses."""

import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.fakes.local_cluster import Cluster, running
from tulle.local.net.loopback import LoopbackNetwork
from tulle.local.net.processes import fork_launcher


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def launcher() -> Iterator[socket.socket]:
    link = fork_launcher()
    yield link
    link.close()


@pytest.fixture
async def cluster(launcher: socket.socket, tmp_path: Path) -> AsyncIterator[Cluster]:
    network = LoopbackNetwork("a test", launcher, f"test-{tmp_path.name}", ("127.0.0.1", 6443))
    async with running(network, tmp_path) as started:
        yield started
