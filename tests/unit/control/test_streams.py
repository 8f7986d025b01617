"""Destination and policy streams over real gRPC, while the cluster changes."""

import asyncio
from typing import Any

import grpc
import pytest

from tests.fakes.cluster import endpoint, pod, route, server, service, slice_of, voting
from tests.fakes.kubernetes import FakeKubernetes
from tests.unit.control.conftest import running, until
from tulle.api import (
    DESTINATION_GET,
    DESTINATION_GET_PROFILE,
    INBOUND_GET_PORT,
    INBOUND_WATCH_PORT,
    OUTBOUND_GET,
    OUTBOUND_WATCH,
    destination_pb2,
    inbound_pb2,
    net_pb2,
    outbound_pb2,
)
from tulle.compile.messages import ip_text

VOTING = destination_pb2.GetDestination(
    path="voting.default.svc.cluster.local:80", context_token='{"ns":"default"}'
)
WORKLOAD = '{"ns":"default","pod":"web-1"}'
INBOUND = inbound_pb2.PortSpec(workload='{"ns":"default","pod":"voting-1"}', port=8080)


def addresses(update: destination_pb2.Update) -> list[str]:
    chosen = update.add if update.WhichOneof("update") == "add" else update.remove
    return sorted(
        ip_text((each.addr if isinstance(each, destination_pb2.WeightedAddr) else each).ip)
        for each in chosen.addrs
    )


async def next_of(stream: Any) -> Any:
    async with asyncio.timeout(30):
        return await stream.read()


async def test_endpoints_are_streamed_as_differences() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes) as plane:
        port = plane.controller.settings.ports.destination
        stream = plane.stream(port, DESTINATION_GET, VOTING, destination_pb2.Update)
        first = await next_of(stream)
        assert addresses(first) == ["10.42.0.3"]
        assert dict(first.add.metric_labels) == {"namespace": "default", "service": "voting"}

        both = [endpoint("voting-1", "10.42.0.3", zone="zone-a"), endpoint("voting-2", "10.42.0.4")]
        await kubernetes.apply(pod("voting-2", "10.42.0.4"), slice_of("voting", both))
        second = await next_of(stream)
        assert (second.WhichOneof("update"), addresses(second)) == ("add", ["10.42.0.4"])

        await kubernetes.apply(slice_of("voting", both[1:]))
        third = await next_of(stream)
        assert (third.WhichOneof("update"), addresses(third)) == ("remove", ["10.42.0.3"])

        await kubernetes.apply(slice_of("voting", []))
        assert (await next_of(stream)).no_endpoints.exists
        await kubernetes.delete(service("voting"))
        last = await next_of(stream)
        assert last.WhichOneof("update") == "no_endpoints" and not last.no_endpoints.exists
        stream.cancel()


async def test_an_endpoint_waits_for_its_pod() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes) as plane:
        port = plane.controller.settings.ports.destination
        stream = plane.stream(port, DESTINATION_GET, VOTING, destination_pb2.Update)
        await next_of(stream)
        known = endpoint("voting-1", "10.42.0.3", zone="zone-a")
        await kubernetes.apply(slice_of("voting", [known, endpoint("late", "10.42.0.9")]))
        await asyncio.sleep(0.2)  # longer than changes are collected: an update would have been sent by now
        await kubernetes.apply(pod("late", "10.42.0.9"))
        update = await next_of(stream)
        assert addresses(update) == ["10.42.0.9"]
        assert update.add.addrs[0].tls_identity.dns_like_identity.name.startswith("voting.default.")
        stream.cancel()


async def test_a_watch_that_expired_is_relisted_and_deletions_are_found() -> None:
    both = [endpoint("voting-1", "10.42.0.3", zone="zone-a"), endpoint("voting-2", "10.42.0.4")]
    objects = voting(pod("voting-2", "10.42.0.4"), slice_of("voting", both))
    async with FakeKubernetes(objects).serving() as kubernetes, running(kubernetes) as plane:
        port = plane.controller.settings.ports.destination
        stream = plane.stream(port, DESTINATION_GET, VOTING, destination_pb2.Update)
        assert addresses(await next_of(stream)) == ["10.42.0.3", "10.42.0.4"]
        kubernetes._store("DELETED", pod("voting-2", "10.42.0.4"))
        await kubernetes.compact()
        await kubernetes.cut_watches()
        assert addresses(await next_of(stream)) == ["10.42.0.4"]
        stream.cancel()


async def test_outbound_policy_follows_routes_and_ends_with_its_service() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes) as plane:
        port = plane.controller.settings.ports.policy
        spec = outbound_pb2.TrafficSpec(source_workload=WORKLOAD, authority="voting")
        stream = plane.stream(port, OUTBOUND_WATCH, spec, outbound_pb2.OutboundPolicy)
        first = await next_of(stream)
        assert first.protocol.detect.http1.routes[0].metadata.default == "http"
        await kubernetes.apply(route("canary", [{"backendRefs": [{"name": "nowhere", "port": 80}]}]))
        second = await next_of(stream)
        assert second.protocol.detect.http1.routes[0].metadata.resource.name == "canary"
        await kubernetes.delete(service("voting"))
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            while True:
                assert await next_of(stream) is not grpc.aio.EOF
        assert ended.value.code() == grpc.StatusCode.NOT_FOUND


async def test_unknown_targets_and_malformed_requests_are_refused_by_status() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes) as plane:
        port = plane.controller.settings.ports.policy
        address = net_pb2.TcpAddress(ip=net_pb2.IPAddress(ipv4=0x08080808), port=443)
        for spec, code in (
            (outbound_pb2.TrafficSpec(source_workload=WORKLOAD, addr=address), grpc.StatusCode.NOT_FOUND),
            (outbound_pb2.TrafficSpec(source_workload=WORKLOAD, authority="nope"), grpc.StatusCode.NOT_FOUND),
            (
                outbound_pb2.TrafficSpec(source_workload="{", authority="voting"),
                grpc.StatusCode.INVALID_ARGUMENT,
            ),
            (outbound_pb2.TrafficSpec(source_workload=WORKLOAD), grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await plane.ask(port, OUTBOUND_GET, spec, outbound_pb2.OutboundPolicy)
            assert refused.value.code() == code, spec


async def test_a_service_that_was_created_a_moment_ago_is_waited_for() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes) as plane:
        port = plane.controller.settings.ports.policy
        spec = outbound_pb2.TrafficSpec(source_workload=WORKLOAD, authority="emoji")
        await until(lambda: plane.controller.views.watcher.synced)
        stream = plane.stream(port, OUTBOUND_WATCH, spec, outbound_pb2.OutboundPolicy)
        reading = asyncio.ensure_future(next_of(stream))
        await asyncio.sleep(0.05)
        await kubernetes.apply(service("emoji", "10.96.0.6"))
        assert (await reading).metadata.resource.name == "emoji"
        stream.cancel()


async def test_inbound_policy_follows_servers() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes) as plane:
        port = plane.controller.settings.ports.policy
        got = await plane.ask(port, INBOUND_GET_PORT, INBOUND, inbound_pb2.Server)
        assert list(got.services) == ["voting"]
        stream = plane.stream(port, INBOUND_WATCH_PORT, INBOUND, inbound_pb2.Server)
        assert (await next_of(stream)).labels["name"] == "all-unauthenticated"
        await kubernetes.apply(server("voting-web", "web"))
        closed = await next_of(stream)
        assert closed.labels["name"] == "voting-web" and not closed.authorizations
        stream.cancel()


async def test_profile_of_a_pod_address_is_its_endpoint() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes) as plane:
        request = destination_pb2.GetDestination(path="10.42.0.3:8080")
        port = plane.controller.settings.ports.destination
        stream = plane.stream(port, DESTINATION_GET_PROFILE, request, destination_pb2.DestinationProfile)
        profile = await next_of(stream)
        assert profile.endpoint.metric_labels["deployment"] == "voting-v1"
        stream.cancel()


async def test_a_restarted_controller_answers_the_same_and_finds_what_changed_meanwhile() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes:
        async with running(kubernetes) as plane:
            port = plane.controller.settings.ports.destination
            stream = plane.stream(port, DESTINATION_GET, VOTING, destination_pb2.Update)
            before = await next_of(stream)
            stream.cancel()
        await kubernetes.apply(pod("voting-2", "10.42.0.4"))
        both = [endpoint("voting-1", "10.42.0.3", zone="zone-a"), endpoint("voting-2", "10.42.0.4")]
        await kubernetes.apply(slice_of("voting", both))
        async with running(kubernetes) as plane:
            port = plane.controller.settings.ports.destination
            stream = plane.stream(port, DESTINATION_GET, VOTING, destination_pb2.Update)
            after = await next_of(stream)
            stream.cancel()
    assert addresses(before) == ["10.42.0.3"]
    assert addresses(after) == ["10.42.0.3", "10.42.0.4"]


async def test_streams_over_the_bound_are_refused_and_closed_streams_make_room() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes) as plane:
        plane.controller.limits.per_workload = 2
        port = plane.controller.settings.ports.destination
        streams = [plane.stream(port, DESTINATION_GET, VOTING, destination_pb2.Update) for _ in range(2)]
        for stream in streams:
            await next_of(stream)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await next_of(plane.stream(port, DESTINATION_GET, VOTING, destination_pb2.Update))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(plane.controller.views.hub) == 1
        for stream in streams:
            stream.cancel()
        await until(lambda: plane.controller.limits.open == 0)
        assert len(plane.controller.views.hub) == 0


async def test_what_is_no_request_is_refused_and_harms_nobody() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes) as plane:
        port = plane.controller.settings.ports.destination
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        deep = b"\x0a\x7f" * 200
        attacks = {
            b"\xff" * 50: grpc.StatusCode.INVALID_ARGUMENT,
            deep: grpc.StatusCode.INVALID_ARGUMENT,
            b"\x12" + b"\xff" * 9: grpc.StatusCode.INVALID_ARGUMENT,
            VOTING.SerializeToString()
            + b"\x1a\xfe\xff\x03"
            + b"x" * 65534: grpc.StatusCode.RESOURCE_EXHAUSTED,
            b"\x12\x04a..b": grpc.StatusCode.INVALID_ARGUMENT,
            b"": grpc.StatusCode.INVALID_ARGUMENT,
        }
        for body, code in attacks.items():
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                call: Any = channel.unary_stream(DESTINATION_GET)
                await next_of(call(body))
            assert refused.value.code() == code, body[:20]
        await channel.close()
        stream = plane.stream(port, DESTINATION_GET, VOTING, destination_pb2.Update)
        assert addresses(await next_of(stream)) == ["10.42.0.3"]
        stream.cancel()
        await until(lambda: plane.controller.limits.open == 0)


async def test_an_answer_that_cannot_be_computed_is_an_error_without_internals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any) -> Any:
        raise ValueError("secret detail")

    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes) as plane:
        monkeypatch.setattr("tulle.control.policy.inbound_server", broken)
        port = plane.controller.settings.ports.policy
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await plane.ask(port, INBOUND_GET_PORT, INBOUND, inbound_pb2.Server)
        assert failed.value.code() == grpc.StatusCode.INTERNAL
        assert "secret" not in (failed.value.details() or "")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await next_of(plane.stream(port, INBOUND_WATCH_PORT, INBOUND, inbound_pb2.Server))
        assert failed.value.code() == grpc.StatusCode.INTERNAL and plane.controller.limits.open == 0


async def test_a_client_that_does_not_read_costs_one_suspended_stream() -> None:
    listed = [endpoint("voting-1", f"10.42.1.{i}", zone="zone-a") for i in range(200)]
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes) as plane:
        port = plane.controller.settings.ports.destination
        stalled = plane.stream(port, DESTINATION_GET, VOTING, destination_pb2.Update)
        await next_of(stalled)
        awake = plane.stream(port, DESTINATION_GET, VOTING, destination_pb2.Update)
        await next_of(awake)
        hub = plane.controller.views.hub
        for turn in range(30):
            published = hub.published
            await kubernetes.apply(slice_of("voting", listed if turn % 2 == 0 else listed[:1]))
            await until(lambda seen=published: hub.published > seen)  # type: ignore[misc]
            await next_of(awake)
        # It skipped what it did not read: far fewer messages than versions wait for it, and they lead to the newest state.
        client = {"10.42.0.3"}
        received = 0
        with pytest.raises(TimeoutError):
            while True:
                async with asyncio.timeout(0.5):
                    update = await stalled.read()
                received += 1
                client = (
                    client | set(addresses(update))
                    if update.HasField("add")
                    else client - set(addresses(update))
                )
        assert client == {"10.42.1.0"}
        assert received < 62
        stalled.cancel()
        awake.cancel()
