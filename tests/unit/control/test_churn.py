"""Clients that come and go, in every way they may: nothing stays behind and nothing is called a failure."""

import asyncio
import logging
import os

import grpc
import pytest

from tests.fakes.cluster import endpoint, slice_of, voting
from tests.fakes.kubernetes import FakeKubernetes
from tests.unit.control.conftest import running, until
from tests.unit.control.test_streams import VOTING
from tulle.api import DESTINATION_GET, destination_pb2

STREAMS, ROUNDS = 150, 6


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 2**20


async def test_streams_that_are_dropped_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes) as plane:
        port = plane.controller.settings.ports.destination
        sizes = []
        for turn in range(ROUNDS):
            channel = grpc.aio.insecure_channel(
                f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
            )
            call = channel.unary_stream(
                DESTINATION_GET, request_serializer=destination_pb2.GetDestination.SerializeToString
            )  # type: ignore[var-annotated]
            streams = [call(VOTING) for _ in range(STREAMS)]
            async with asyncio.timeout(20):
                await asyncio.gather(*(stream.read() for stream in streams[: STREAMS // 2]))
            # Updates are on their way while half the clients say goodbye and the rest are cut off.
            await kubernetes.apply(slice_of("voting", [endpoint("voting-1", f"10.42.9.{turn}")]))
            for stream in streams[::2]:
                stream.cancel()
            await channel.close()
            await until(lambda: plane.controller.limits.open == 0)
            assert len(plane.controller.views.hub) == 0
            sizes.append(resident())
        assert sizes[-1] - sizes[1] < 30, f"MiB after each round: {sizes}"
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [text for text in told if "issuer" not in text] == []
