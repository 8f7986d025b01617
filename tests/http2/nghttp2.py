"""nghttp2, the library behind curl, Apache and Envoy's codec, as a reader of the same frames: through ctypes, no binding."""

import ctypes
import ctypes.util
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Deflater", "Inflater", "Message", "Session", "frames", "library"]

DATA_END, HEADERS_END = 0x1, 0x1
SETTINGS_MAX_CONCURRENT_STREAMS, SETTINGS_MAX_HEADER_LIST_SIZE = 3, 6


def library() -> ctypes.CDLL | None:
    """Return the library; `None` where it is not installed."""
    name = ctypes.util.find_library("nghttp2") or "libnghttp2.so.14"
    try:
        found = ctypes.CDLL(name)
    except OSError:
        return None
    for returning_size in ("nghttp2_session_mem_recv", "nghttp2_session_mem_send", "nghttp2_hd_deflate_hd",
                           "nghttp2_hd_inflate_hd2"):  # fmt: skip
        getattr(found, returning_size).restype = ctypes.c_ssize_t
    found.nghttp2_hd_deflate_bound.restype = ctypes.c_size_t
    return found


class FrameHead(ctypes.Structure):
    _fields_ = (
        ("length", ctypes.c_size_t),
        ("stream", ctypes.c_int32),
        ("kind", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8),
    )


class Field(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("value", ctypes.c_void_p),
        ("name_length", ctypes.c_size_t),
        ("value_length", ctypes.c_size_t),
        ("flags", ctypes.c_uint8),
    )


class Setting(ctypes.Structure):
    _fields_ = (("id", ctypes.c_int32), ("value", ctypes.c_uint32))


def fields(pairs: Sequence[tuple[bytes, bytes]]) -> tuple[ctypes.Array[Field], list[object]]:
    """Return the fields as the library takes them, and what has to live as long."""
    kept: list[object] = []
    array = (Field * max(len(pairs), 1))()
    for place, (name, value) in zip(array, pairs, strict=False):
        octets = ctypes.create_string_buffer(value, len(value) + 1)
        kept += [name, octets]
        place.name, place.value = name, ctypes.cast(octets, ctypes.c_void_p)
        place.name_length, place.value_length = len(name), len(value)
    return array, kept


@dataclass
class Message:
    """What was understood of one stream."""

    heads: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    body: bytes = b""
    complete: bool = False
    closed: int | None = None


ON_FRAME = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(FrameHead), ctypes.c_void_p)
ON_HEADER = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(FrameHead), ctypes.POINTER(ctypes.c_uint8), ctypes.c_size_t,
    ctypes.POINTER(ctypes.c_uint8), ctypes.c_size_t, ctypes.c_uint8, ctypes.c_void_p,
)  # fmt: skip
ON_DATA = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_uint8, ctypes.c_int32, ctypes.POINTER(ctypes.c_uint8), ctypes.c_size_t,
    ctypes.c_void_p,
)  # fmt: skip
ON_CLOSE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int32, ctypes.c_uint32, ctypes.c_void_p)


class Session:
    """One end of a connection, with our codec's settings."""

    def __init__(self, lib: ctypes.CDLL, *, server: bool) -> None:
        self.lib = lib
        self.messages: dict[int, Message] = {}
        self.written = b""
        self.callbacks = ctypes.c_void_p()
        assert lib.nghttp2_session_callbacks_new(ctypes.byref(self.callbacks)) == 0
        self.kept: list[object] = []
        for name, kind, does in (
            ("on_begin_headers", ON_FRAME, self.begun),
            ("on_header", ON_HEADER, self.header),
            ("on_frame_recv", ON_FRAME, self.received),
            ("on_data_chunk_recv", ON_DATA, self.data),
            ("on_stream_close", ON_CLOSE, self.closed),
        ):
            function = kind(does)
            self.kept.append(function)
            getattr(lib, f"nghttp2_session_callbacks_set_{name}_callback")(self.callbacks, function)
        self.session = ctypes.c_void_p()
        make = lib.nghttp2_session_server_new if server else lib.nghttp2_session_client_new
        assert make(ctypes.byref(self.session), self.callbacks, None) == 0
        told = (Setting * 2)(
            Setting(SETTINGS_MAX_CONCURRENT_STREAMS, 1024), Setting(SETTINGS_MAX_HEADER_LIST_SIZE, 65536)
        )
        assert lib.nghttp2_submit_settings(self.session, 0, told, 2) == 0
        assert lib.nghttp2_submit_window_update(self.session, 0, 0, (1 << 20) - 65535) == 0

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.lib.nghttp2_session_del(self.session)
        self.lib.nghttp2_session_callbacks_del(self.callbacks)

    def begun(self, _: int, frame: "ctypes._Pointer[FrameHead]", __: int) -> int:
        self.messages.setdefault(frame.contents.stream, Message()).heads.append([])
        return 0

    def header(
        self, _: int, frame: "ctypes._Pointer[FrameHead]", name: "ctypes._Pointer[ctypes.c_uint8]", name_length: int,
        value: "ctypes._Pointer[ctypes.c_uint8]", value_length: int, __: int, ___: int,
    ) -> int:  # fmt: skip
        pair = bytes(name[:name_length]), bytes(value[:value_length])
        self.messages[frame.contents.stream].heads[-1].append(pair)
        return 0

    def received(self, _: int, frame: "ctypes._Pointer[FrameHead]", __: int) -> int:
        head = frame.contents
        if head.kind in (0, 1) and head.flags & DATA_END and head.stream in self.messages:
            self.messages[head.stream].complete = True
        return 0

    def data(
        self, _: int, __: int, stream: int, octets: "ctypes._Pointer[ctypes.c_uint8]", length: int, ___: int
    ) -> int:
        self.messages[stream].body += bytes(octets[:length])
        return 0

    def closed(self, _: int, stream: int, code: int, __: int) -> int:
        if stream in self.messages and self.messages[stream].closed is None:
            self.messages[stream].closed = code
        return 0

    def request(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """Open a stream with a request that has no body."""
        array, kept = fields(pairs)
        assert self.lib.nghttp2_submit_request(self.session, None, array, len(pairs), None, None) > 0
        del kept

    def feed(self, octets: bytes) -> bool:
        """Take what the peer sent; `False` when the connection is lost."""
        self.write()
        taken = self.lib.nghttp2_session_mem_recv(self.session, octets, ctypes.c_size_t(len(octets)))
        self.write()
        return int(taken) == len(octets) and not self.goaway()

    def write(self) -> None:
        """Gather what it has to say."""
        data = ctypes.POINTER(ctypes.c_uint8)()
        while (count := self.lib.nghttp2_session_mem_send(self.session, ctypes.byref(data))) > 0:
            self.written += bytes(data[:count])

    def goaway(self) -> bool:
        """Return whether it has ended the connection for an error."""
        return any(kind == 7 and payload[4:8] != bytes(4) for kind, _, payload in frames(self.written))


def frames(octets: bytes) -> list[tuple[int, int, bytes]]:
    """Return kind, stream and payload of each whole frame."""
    found = []
    octets = octets.removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    while len(octets) >= 9:
        length = int.from_bytes(octets[:3], "big")
        found.append((octets[3], int.from_bytes(octets[5:9], "big"), octets[9 : 9 + length]))
        octets = octets[9 + length :]
    return found


class Inflater:
    """Reads header blocks of one connection."""

    def __init__(self, lib: ctypes.CDLL) -> None:
        self.lib = lib
        self.state = ctypes.c_void_p()
        assert lib.nghttp2_hd_inflate_new(ctypes.byref(self.state)) == 0

    def read(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """Return the fields of a whole block."""
        found = []
        while True:
            one, flags = Field(), ctypes.c_int(0)
            taken = self.lib.nghttp2_hd_inflate_hd2(
                self.state, ctypes.byref(one), ctypes.byref(flags), block, ctypes.c_size_t(len(block)), 1
            )
            assert taken >= 0, taken
            block = block[taken:]
            if flags.value & 2:
                name = ctypes.string_at(one.name, one.name_length)
                found.append((name, ctypes.string_at(one.value, one.value_length)))
            if flags.value & 1:
                self.lib.nghttp2_hd_inflate_end_headers(self.state)
                return found


class Deflater:
    """Writes header blocks of one connection."""

    def __init__(self, lib: ctypes.CDLL) -> None:
        self.lib = lib
        self.state = ctypes.c_void_p()
        assert lib.nghttp2_hd_deflate_new(ctypes.byref(self.state), ctypes.c_size_t(4096)) == 0

    def resize(self, size: int) -> None:
        """Change the size of the table; the next block says so."""
        assert self.lib.nghttp2_hd_deflate_change_table_size(self.state, ctypes.c_size_t(size)) == 0

    def write(self, pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Return the block of these fields."""
        array, kept = fields(pairs)
        room = self.lib.nghttp2_hd_deflate_bound(self.state, array, ctypes.c_size_t(len(pairs)))
        block = ctypes.create_string_buffer(room)
        count = self.lib.nghttp2_hd_deflate_hd(
            self.state, block, ctypes.c_size_t(room), array, ctypes.c_size_t(len(pairs))
        )
        assert count >= 0, count
        del kept
        return block.raw[:count]
