"""Write every frame that this network namespace carries: `capture.py FILE`, until its input ends.

Each frame has four bytes of length before it. Says `capturing` when it is.
"""

import contextlib
import select
import socket
import struct
import sys

ALL_PROTOCOLS = 0x0003
SO_RCVBUFFORCE = 33
BUFFER = 64 * 1024 * 1024


def main(file: str) -> None:
    """Capture until standard input is closed, and then what has arrived by then."""
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS)) as packets,
        open(file, "wb") as out,
    ):
        with contextlib.suppress(OSError):
            packets.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        packets.setblocking(False)
        sys.stdout.write("capturing\n")
        sys.stdout.flush()
        wanted = True
        while wanted:
            ready, _, _ = select.select([packets, sys.stdin], [], [])
            wanted = sys.stdin not in ready
            with contextlib.suppress(BlockingIOError):
                while True:
                    frame = packets.recv(256 * 1024)
                    out.write(struct.pack("!I", len(frame)) + frame)


main(*sys.argv[1:])
