"""Does somebody listen there? Read from the kernel's table of a pod's sockets, without touching the port.

A connection would not tell: in front of a meshed app its sidecar accepts whatever comes.
"""

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

__all__ = ["is_listened_on", "listeners"]

_LISTEN = "0A"


def listeners(table: str) -> Iterator[tuple[str, int]]:
    """Yield address and port of each listening socket in the text of /proc/net/tcp or tcp6; "" is every address."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] == _LISTEN:
            address, _, port = fields[1].partition(":")
            # The last four bytes hold an IPv4 address also in the IPv6 table (mapped, RFC 4291); each word of four
            # is written as a number of this machine's byte order.
            last = socket.inet_ntoa(struct.pack("=I", int(address[-8:], 16)))
            yield ("" if int(address, 16) == 0 else last), int(port, 16)


def is_listened_on(process: int, ip: str, port: int) -> bool:
    """Tell whether a socket in the network of this process listens on the port of the address."""
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            table = Path(f"/proc/{process}/net/{name}").read_text()
            if any(bound == port and address in ("", ip) for address, bound in listeners(table)):
                return True
    return False
