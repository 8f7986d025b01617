"""What passes between the two proxies: is every connection TLS, and is nothing of the load in the clear?

`python -m tests.bench.capture LINK SECONDS` reads frames from a link and prints one JSON object: `flows` to port 4143
whose beginning was seen, how many of them began with a TLS hello (`tls`), and in how many frames of either direction a
piece of the load was to be read (`clear`).
"""

import contextlib
import json
import socket
import struct
import sys
import time

INBOUND = 4143
_ALL = 0x0003
_SYN, _TCP, _IPV4 = 0x02, 6, 0x0800
MARKS = (b"HTTP/1.1", b"x" * 48, b"/bench.Echo", bytes(64))


def main(link: str, seconds: float) -> None:
    """Read, judge, print."""
    begun: dict[tuple[bytes, int], int] = {}
    hellos: dict[tuple[bytes, int], bool] = {}
    clear = frames = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL)) as sniffer:
        sniffer.bind((link, 0))
        sniffer.settimeout(0.2)
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            frame = b""
            with contextlib.suppress(TimeoutError):
                frame = sniffer.recv(65535)
            if len(frame) < 54 or struct.unpack_from("!H", frame, 12)[0] != _IPV4 or frame[23] != _TCP:
                continue
            tcp = 14 + (frame[14] & 15) * 4
            source, target, sequence = struct.unpack_from("!HHI", frame, tcp)
            if INBOUND not in (source, target):
                continue
            payload = frame[tcp + (frame[tcp + 12] >> 4) * 4 :][: struct.unpack_from("!H", frame, 16)[0]]
            frames += 1
            flow = (frame[26:30], source)
            if target == INBOUND and frame[tcp + 13] & _SYN:
                begun[flow] = (sequence + 1) % 2**32
            elif target == INBOUND and payload and begun.get(flow) == sequence:
                hellos.setdefault(flow, payload[:2] == b"\x16\x03")
            clear += any(mark in payload for mark in MARKS)
    sys.stdout.write(
        json.dumps({"flows": len(hellos), "tls": sum(hellos.values()), "clear": clear, "frames": frames})
        + "\n"
    )


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
