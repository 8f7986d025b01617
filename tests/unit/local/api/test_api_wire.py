"""Kubernetes' protobuf and SPDY: what peers send, and what they might send."""

import base64
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.local.api.errors import ApiError
from tulle.local.api.http.spdy import DICTIONARY, Data, Ping, SpdyError, SpdyFrames, StreamOpened
from tulle.local.api.registry import Registry
from tulle.local.api.wire.decoding import MAGIC, decode_object

REGISTRY = Registry()


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    return MAGIC + field(1, field(1, api_version) + field(2, kind)) + field(2, raw)


def test_a_config_map() -> None:
    metadata = field(1, field(1, "conf") + field(11, field(1, "app") + field(2, "web")))
    data = field(2, field(1, "key") + field(2, "value"))
    binary = field(3, field(1, "blob") + field(2, b"\x00\xff"))
    obj = decode_object(envelope("v1", "ConfigMap", metadata + data + binary), REGISTRY)
    assert obj == {
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {"name": "conf", "labels": {"app": "web"}},
        "data": {"key": "value"},
        "binaryData": {"blob": base64.b64encode(b"\x00\xff").decode()},
    }


def test_inlined_messages_numbers_times_and_unions() -> None:
    probe = field(1, field(2, field(1, "/live") + field(2, field(1, 1) + field(3, "http")))) + field(2, 5)
    limits = field(1, field(1, "cpu") + field(2, field(1, "500m")))
    container = field(1, "main") + field(2, "nginx") + field(8, limits) + field(10, probe)
    volume = field(1, "v") + field(2, field(2, b""))
    spec = field(1, volume) + field(2, container) + field(4, -1)
    metadata = field(1, field(1, "p") + field(8, field(1, 1_700_000_000)))
    obj = decode_object(envelope("v1", "Pod", metadata + field(2, spec)), REGISTRY)
    assert obj["metadata"] == {"name": "p", "creationTimestamp": "2023-11-14T22:13:20Z"}
    assert obj["spec"]["terminationGracePeriodSeconds"] == -1
    assert obj["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]
    assert obj["spec"]["containers"][0]["livenessProbe"] == {
        "httpGet": {"path": "/live", "port": "http"},
        "initialDelaySeconds": 5,
    }
    assert obj["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "500m"}}


def test_kinds_without_a_resource_of_their_own() -> None:
    options = decode_object(envelope("v1", "DeleteOptions", field(1, 5) + field(4, "Foreground")), REGISTRY)
    assert (options["gracePeriodSeconds"], options["propagationPolicy"]) == (5, "Foreground")
    scale = decode_object(envelope("autoscaling/v1", "Scale", field(2, field(1, 3))), REGISTRY)
    assert scale["spec"] == {"replicas": 3}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"plain",
        MAGIC,
        envelope("v1", "Nonsense", b""),
        envelope("v1", "Pod", b"\xff"),
        envelope("v1", "Pod", b"\x0a\x7fshort"),
        envelope("v1", "Pod", field(1, 7)),
        envelope("v1", "Pod", field(1, field(1, b"\xff\xfe"))),
        envelope("v1", "Pod", b"\x0b"),
        envelope("v1", "Pod", field(1, field(8, field(1, 1 << 62)))),
        envelope("apps/v1", "ControllerRevision", field(2, field(1, b"{broken"))),
    ],
)
def test_broken_protobuf_is_refused(data: bytes) -> None:
    with pytest.raises(ApiError) as raised:
        decode_object(data, REGISTRY)
    assert raised.value.code == 400


@given(st.sampled_from(["Pod", "Service", "Secret", "Namespace"]), st.binary(max_size=60))
def test_any_bytes_are_an_object_or_refused(kind: str, raw: bytes) -> None:
    try:
        json.dumps(decode_object(envelope("v1", kind, raw), REGISTRY))
    except ApiError as error:
        assert error.code == 400


# --- SPDY ---------------------------------------------------------------------------------------------------------


def test_the_dictionary_is_the_one_of_the_standard() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


class Peer:
    """The client's side of SPDY, written from the standard."""

    def __init__(self) -> None:
        self._pack = zlib.compressobj(zdict=DICTIONARY)

    def open(self, stream: int, **headers: str) -> bytes:
        raw = len(headers).to_bytes(4, "big")
        for name, value in headers.items():
            raw += (
                len(name).to_bytes(4, "big") + name.encode() + len(value).to_bytes(4, "big") + value.encode()
            )
        packed = self._pack.compress(raw) + self._pack.flush(zlib.Z_SYNC_FLUSH)
        payload = stream.to_bytes(4, "big") + bytes(6) + packed
        return b"\x80\x03\x00\x01\x00" + len(payload).to_bytes(3, "big") + payload


@given(st.data())
def test_frames_arrive_whole_however_they_are_cut(data: st.DataObject) -> None:
    peer, frames = Peer(), SpdyFrames()
    sent = peer.open(1, streamtype="error", port="80") + peer.open(3, streamtype="data", port="80")
    sent += SpdyFrames().data(3, b"hello") + SpdyFrames().data(3, b"", finished=True) + SpdyFrames().pong(7)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=5)))
    pieces = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    events = [event for piece in pieces for event in frames.receive(piece)]
    assert events == [
        StreamOpened(1, {"streamtype": "error", "port": "80"}, False),
        StreamOpened(3, {"streamtype": "data", "port": "80"}, False),
        Data(3, b"hello", False),
        Data(3, b"", True),
        Ping(7),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02\x00\x01\x00\x00\x00\x0a" + bytes(10),
        b"\x80\x03\x00\x01\x00\x00\x00\x02ab",
        b"\x80\x03\x00\x01\x00\x00\x00\x10" + bytes(10) + b"abcdef",
        b"\x00\x00\x00\x01\x00\xff\xff\xff",
        b"\x80\x03\x00\x06\x00\x00\x00\x01a",
    ],
)
def test_what_is_no_spdy_is_refused(data: bytes) -> None:
    with pytest.raises(SpdyError):
        list(SpdyFrames().receive(data))


def test_headers_that_unpack_to_too_much_are_refused() -> None:
    with pytest.raises(SpdyError, match="more than"):
        list(SpdyFrames().receive(Peer().open(1, big="x" * 100_000)))


@given(st.binary(max_size=80))
def test_any_bytes_are_frames_or_refused(data: bytes) -> None:
    frames: Any = SpdyFrames()
    try:
        list(frames.receive(data))
    except SpdyError:
        pass
