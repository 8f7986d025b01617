"""Reads objects from Kubernetes' protobuf into the same JSON data that everything else speaks. Pure.

The bytes come from outside: every length is checked, nesting is bounded, a message that makes no sense is a 400.
"""

import base64
import functools
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from tulle.local.api.errors import bad_request
from tulle.local.api.objects import Obj
from tulle.local.api.registry import Registry

__all__ = ["MAGIC", "decode_object"]

MAGIC = b"k8s\x00"
MAX_DEPTH = 64
"""Messages inside messages; Kubernetes' deepest kinds stay below twenty."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DELETE = "meta_v1.DeleteOptions"
_MORE = {
    ("v1", "DeleteOptions"): _DELETE,
    ("meta.k8s.io/v1", "DeleteOptions"): _DELETE,
    ("autoscaling/v1", "Scale"): "autoscaling_v1.Scale",
    ("policy/v1", "Eviction"): "policy_v1.Eviction",
    ("authentication.k8s.io/v1", "TokenRequest"): "authentication_v1.TokenRequest",
}


@functools.cache
def _definitions() -> dict[str, dict[int, tuple[str, str]]]:
    raw = msgspec.json.decode(
        Path(__file__).with_name("fields.json").read_bytes(), type=dict[str, dict[str, str]]
    )
    return {
        name: {int(number): _split(text) for number, text in fields.items()} for name, fields in raw.items()
    }


def _split(text: str) -> tuple[str, str]:
    name, _, kind = text.partition(":")
    return name, kind


def decode_object(data: bytes, registry: Registry) -> Obj:
    """Return the object in a protobuf request; raise 400 for bytes that are none of a known kind."""
    if not data.startswith(MAGIC):
        raise bad_request("the request's body is no Kubernetes protobuf")
    api_version = kind = ""
    raw = b""
    for number, value in _fields(memoryview(data)[len(MAGIC) :]):
        if number == 1 and isinstance(value, memoryview):
            for inner, text in _fields(value):
                if isinstance(text, memoryview):
                    api_version, kind = (_text(text), kind) if inner == 1 else (api_version, _text(text))
        elif number == 2 and isinstance(value, memoryview):
            raw = bytes(value)
    definition = _MORE.get((api_version, kind)) or _kind_definition(api_version, kind, registry)
    if definition not in _definitions():
        raise bad_request(f"{kind} in version {api_version} is not known in protobuf: send JSON")
    return {"kind": kind, "apiVersion": api_version, **_message(definition, memoryview(raw), 0)}


def _kind_definition(api_version: str, kind: str, registry: Registry) -> str:
    group, _, version = api_version.rpartition("/")
    resource = registry.of_kind(group, version, kind)
    return resource.schema.name if resource is not None and not resource.is_custom else ""


def _message(definition: str, data: memoryview, depth: int) -> Obj:
    if depth > MAX_DEPTH:
        raise bad_request("the request's protobuf is nested too deeply")
    known = _definitions().get(definition, {})
    result: Obj = {}
    for number, value in _fields(data):
        if number not in known:
            continue
        name, kind = known[number]
        if name == "+":
            result |= _message(kind[1:], _bytes(value), depth + 1)
        elif kind[0] == "[":
            result.setdefault(name, []).extend(_repeated(kind[1:], value, depth))
        elif kind[0] == "{":
            key, entry = _entry(kind[1:], _bytes(value), depth)
            result.setdefault(name, {})[key] = entry
        else:
            converted = _value(kind, value, depth)
            # Go writes empty texts and zero times for fields that were never set.
            if converted is not None and not (kind == "s" and converted == ""):
                result[name] = converted
    return result


def _repeated(kind: str, value: Any, depth: int) -> Iterator[Any]:
    if kind in ("i", "b") and isinstance(value, memoryview):
        position = 0
        while position < len(value):
            number, position = _varint(value, position)
            yield _value(kind, number, depth)
    else:
        yield _value(kind, value, depth)


def _entry(kind: str, data: memoryview, depth: int) -> tuple[str, Any]:
    key: str = ""
    entry: Any = "" if kind in ("s", "y") else ([] if kind == "l" else {})
    if kind == "q":
        entry = "0"
    for number, value in _fields(data):
        if number == 1:
            key = _text(_bytes(value))
        elif number == 2:
            entry = _value(kind, value, depth)
    return key, entry


def _value(kind: str, value: Any, depth: int) -> Any:
    match kind:
        case "s":
            return _text(_bytes(value))
        case "i":
            return _signed(value)
        case "b":
            return bool(value)
        case "d":
            return struct.unpack("<d", _bytes(value))[0]
        case "y":
            return base64.b64encode(_bytes(value)).decode()
        case "t":
            return _time(_bytes(value))
        case "q":
            return next((_text(_bytes(text)) for number, text in _fields(_bytes(value)) if number == 1), "0")
        case "x":
            return _int_or_string(_bytes(value))
        case "l":
            return [_text(_bytes(text)) for number, text in _fields(_bytes(value)) if number == 1]
        case "r":
            return _raw(_bytes(value))
        case _:
            return _message(kind[1:], _bytes(value), depth + 1)


def _raw(data: memoryview) -> Any:
    inner = next((bytes(_bytes(text)) for number, text in _fields(data) if number == 1), b"")
    try:
        return msgspec.json.decode(inner) if inner else {}
    except msgspec.DecodeError as error:
        raise bad_request(f"the request's protobuf holds broken JSON: {error}") from error


def _time(data: memoryview) -> str | None:
    parts = {number: _signed(value) for number, value in _fields(data)}
    seconds, nanos = parts.get(1, 0), parts.get(2, 0)
    if not parts or seconds <= 0:
        return None
    try:
        instant = _EPOCH + timedelta(seconds=seconds)
    except OverflowError as error:
        raise bad_request("the request's protobuf holds a time out of range") from error
    text = instant.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{nanos // 1000:06d}Z" if nanos else f"{text}Z"


def _int_or_string(data: memoryview) -> int | str:
    kind, number, text = 0, 0, ""
    for field, value in _fields(data):
        if field == 1:
            kind = _signed(value)
        elif field == 2:
            number = _signed(value)
        elif field == 3:
            text = _text(_bytes(value))
    return text if kind == 1 else number


# --- the wire -----------------------------------------------------------------------------------------------------


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire_type == 2:
            length, position = _varint(data, position)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise bad_request("the request's protobuf holds a field of unknown form")
        if length > len(data) - position:
            raise bad_request("the request's protobuf is cut short")
        yield number, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise bad_request("the request's protobuf is cut short")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return result, position
        shift += 7


def _signed(value: Any) -> int:
    if not isinstance(value, int):
        raise bad_request("the request's protobuf holds bytes where a number belongs")
    unsigned: int = value & ((1 << 64) - 1)
    return unsigned - (1 << 64) if unsigned >> 63 else unsigned


def _bytes(value: Any) -> memoryview:
    if not isinstance(value, memoryview):
        raise bad_request("the request's protobuf holds a number where bytes belong")
    return value


def _text(data: memoryview) -> str:
    try:
        return bytes(data).decode()
    except UnicodeDecodeError as error:
        raise bad_request("the request's protobuf holds a text that is not UTF-8") from error
