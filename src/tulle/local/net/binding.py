"""In loopback mode, "all addresses" means the pod's own: a program that listens on 0.0.0.0 meets no neighbour's port.

Pods share the machine's loopback there, and most servers listen on every address. The launcher, which starts every
process of a pod, hears of each `bind` before it is carried out (`seccomp`) and writes the pod's address into it; the
kernel then carries it out. All else a program does is not looked at.

A courtesy to programs, not a wall around them: who names an address gets it. Where the machine allows no such
hearing, everything is bound as it was asked for, and the loser of a port says so.
Cost: a few comparisons in the kernel for each system call, and about 0.1 ms for each `bind`.
"""

import os
import socket
import struct
from dataclasses import dataclass, field

from tulle.local.net import seccomp

__all__ = ["Binder", "app_port", "on_pod_address"]

_APP_SHIFT = 18000
_FAMILY = struct.Struct("=H")
_INET = struct.Struct("!H4s")
_INET6 = struct.Struct("!HI16s")
_ANY4 = bytes(4)
_ANY6 = bytes(16)
_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291, 2.5.5.2
_MOST_BYTES = 28  # of a sockaddr: sockaddr_in6
_MOST_SOCKETS = 256  # that speak IPv6 alone and are remembered for a container; the oldest is forgotten


def app_port(port: int, lowest: int) -> int:
    """Return the port that stands for `port` where ports below `lowest` need a privilege."""
    return port if port >= lowest else port + _APP_SHIFT


def on_pod_address(address: bytes, ip: str, lowest: int, *, v6_only: bool) -> bytes | None:
    """Return the sockaddr to bind instead of `address` in the pod with this address; None: it stays as it is.

    Changed is what names every address and a port; a port below `lowest` becomes what `app_port` says. A socket for
    IPv6 alone, the second of two where a program listens for both, gets a port of ::1 that nobody has: pods have no
    IPv6 here. The answer is as long as `address`.
    """
    family = _FAMILY.unpack_from(address)[0] if len(address) >= _FAMILY.size else socket.AF_UNSPEC
    if family == socket.AF_INET and len(address) >= _FAMILY.size + _INET.size:
        port, host = _INET.unpack_from(address, _FAMILY.size)
        if port == 0 or host != _ANY4:
            return None
        changed = _INET.pack(app_port(port, lowest), socket.inet_aton(ip))
    elif family == socket.AF_INET6 and len(address) >= _FAMILY.size + _INET6.size:
        port, flow, host = _INET6.unpack_from(address, _FAMILY.size)
        if port == 0 or host not in (_ANY6, _MAPPED + _ANY4):
            return None
        changed = (
            _INET6.pack(0, flow, socket.inet_pton(socket.AF_INET6, "::1"))
            if v6_only
            else _INET6.pack(app_port(port, lowest), flow, _MAPPED + socket.inet_aton(ip))
        )
    else:
        return None
    return address[: _FAMILY.size] + changed + address[_FAMILY.size + len(changed) :]


@dataclass
class Binder:
    """Answers for one process and its descendants. `listener` is what `seccomp.notify` returned."""

    listener: int
    ip: str
    lowest: int
    _v6_only: dict[str, None] = field(default_factory=dict)

    def serve_one(self) -> None:
        """Take one call that waits, change what is to be changed, and let it go on.

        A process that cannot be written to (it has ended, or the machine forbids it) binds what it asked for.
        """
        try:
            call = seccomp.next_call(self.listener)
        except OSError:
            return  # it waits no more
        try:
            self._look(call)
        except OSError:
            return
        finally:
            seccomp.let_go_on(self.listener, call)

    def _look(self, call: seccomp.Call) -> None:
        memory = os.open(f"/proc/{call.process}/mem", os.O_RDWR | os.O_CLOEXEC)
        try:
            opened = os.readlink(f"/proc/{call.process}/fd/{call.arguments[0]}")
            if not seccomp.still_waits(self.listener, call):
                return
            if call.name == seccomp.SETSOCKOPT:
                (on,) = struct.unpack("=i", os.pread(memory, 4, call.arguments[3]))
                self._note(opened, v6_only=on != 0)
                return
            _, where, length, *_ = call.arguments
            address = os.pread(memory, min(length, _MOST_BYTES), where)
            changed = on_pod_address(address, self.ip, self.lowest, v6_only=opened in self._v6_only)
            if changed is not None:
                os.pwrite(memory, changed, where)
        finally:
            os.close(memory)

    def _note(self, opened: str, *, v6_only: bool) -> None:
        self._v6_only.pop(opened, None)
        if v6_only:
            self._v6_only[opened] = None
            if len(self._v6_only) > _MOST_SOCKETS:
                del self._v6_only[next(iter(self._v6_only))]
