"""The launcher of pods: what it refuses does not end it, and nobody who gave up is served all the same."""

import asyncio
import json
import os
import select
import signal
import socket
from collections.abc import AsyncIterator

import pytest

from tulle.local.net.model import NetworkError, PodKey, PodNetwork, ProcessSpec, SpawnError
from tulle.local.net.processes import Launcher

pytestmark = pytest.mark.anyio

POD = PodNetwork(PodKey("default", "a-pod", "uid-1"), "127.0.0.1", 2)


@pytest.fixture
async def running(launcher: socket.socket) -> AsyncIterator[Launcher]:
    started = Launcher(launcher)
    started.start()
    yield started
    started.close()


def program(*argv: str, out: int) -> ProcessSpec:
    return ProcessSpec(argv=argv, env={"PATH": os.defpath}, stdout_fd=out, stderr_fd=out)


@pytest.fixture
def null() -> int:
    return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


async def test_a_process_for_a_pod_that_has_gone_is_refused_and_the_others_live_on(
    running: Launcher, null: int
) -> None:
    await running.add_pod("uid-1", POD.ip, None)
    other = await running.spawn("uid-1", POD, program("sleep", "60", out=null), ())
    with pytest.raises(SpawnError, match="uid-2"):
        await running.spawn("uid-2", POD, program("true", out=null), ())
    assert other.returncode is None
    assert not running.lost.is_set()
    await running.remove_pod("uid-1")
    assert await other.wait() == -signal.SIGKILL


async def test_a_request_that_cannot_be_read_is_refused_and_the_others_live_on(running: Launcher) -> None:
    assert "KeyError" in (await running.ask({"ask": "spawn"}))["error"]
    assert await running.ask({"ask": "remove_pod", "pod": "unknown"})
    assert not running.lost.is_set()


class Silent:
    """A launcher that answers when it is told to."""

    def __init__(self) -> None:
        ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.client = Launcher(ours)
        self.client.start()

    async def asked(self) -> int:
        """Return the number of the next request."""
        self._theirs.setblocking(False)
        await asyncio.get_running_loop().run_in_executor(None, self._readable)
        _, descriptors, _, _ = socket.recv_fds(self._theirs, 1, 4)
        number: int = json.loads(os.pread(descriptors[0], 65536, 0))["id"]
        for descriptor in descriptors:
            os.close(descriptor)
        return number

    def _readable(self) -> None:
        select.select([self._theirs], [], [], 5)

    def answer(self, **said: object) -> None:
        self._theirs.send(json.dumps(said).encode())

    def close(self) -> None:
        self.client.close()
        self._theirs.close()


async def test_whoever_gives_up_as_the_answer_comes_has_given_up() -> None:
    """A probe that went on would start its command in a pod that is no more."""
    silent = Silent()
    asking = asyncio.ensure_future(silent.client.ask({"ask": "remove_pod", "pod": "x"}))
    number = await silent.asked()
    silent.answer(id=number)
    # A timer that is due comes after what was read in the same turn of the loop, and before who waits for it.
    asyncio.get_running_loop().call_later(0, asking.cancel)
    with pytest.raises(asyncio.CancelledError):
        await asking
    silent.close()


async def test_a_process_that_nobody_waits_for_any_more_is_killed(null: int) -> None:
    silent = Silent()
    asking = asyncio.ensure_future(silent.client.spawn("uid-1", POD, program("sleep", "60", out=null), ()))
    number = await silent.asked()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    silent.answer(id=number, pid=4711, pod="uid-1")
    number = await asyncio.wait_for(silent.asked(), 5)
    assert silent.client.running == [4711]
    silent.answer(id=number)
    silent.answer(ended=4711, status=-9)
    silent.close()


async def test_a_launcher_that_says_nothing_is_an_error_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tulle.local.net.processes._ANSWER_WITHIN", 0.05)
    silent = Silent()
    with pytest.raises(NetworkError, match="does not answer"):
        await silent.client.remove_pod("x")
    silent.close()
