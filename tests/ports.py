"""Ports for programs that must be told theirs before they start."""

import random
import socket
from contextlib import ExitStack
from pathlib import Path

__all__ = ["free_ports"]

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody listens on, below those that the kernel gives to clients.

    A port of the kernel's own choice may be a client's by the time that the program binds it.
    """
    highest = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.exists() else 32768
    found: list[int] = []
    with ExitStack() as stack:
        while len(found) < count:
            candidate = random.randrange(10_000, max(highest, 20_000))
            probe = stack.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            found.append(candidate)
    return found
