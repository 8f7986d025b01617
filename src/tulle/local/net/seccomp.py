"""Hearing of a process's system calls before they are carried out: seccomp's user notification, without any privilege.

`notify` is called by a process about itself, and holds for it and all that it starts; who has the descriptor hears of
each call (`next_call`) and lets it go on (`let_go_on`). Linux 5.5, on x86-64 and arm64. See seccomp_unotify(2).
"""

import ctypes
import errno
import fcntl
import os
import re
import struct
from dataclasses import dataclass
from typing import Final

__all__ = ["BIND", "SETSOCKOPT", "Call", "let_go_on", "next_call", "notify", "still_waits"]

BIND: Final = "bind"
SETSOCKOPT: Final = "setsockopt"


@dataclass(frozen=True, slots=True)
class Call:
    """A call that waits. `process` is the number of the thread that made it, `arguments` are its six."""

    number: int
    process: int
    name: str
    arguments: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Machine:
    """What an architecture calls itself and its system calls (linux/audit.h, asm/unistd.h)."""

    audit: int
    seccomp: int
    bind: int
    setsockopt: int


_MACHINES = {
    "x86_64": _Machine(audit=0xC000003E, seccomp=317, bind=49, setsockopt=54),
    "aarch64": _Machine(audit=0xC00000B7, seccomp=277, bind=200, setsockopt=208),
}

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_ALLOW, _USER_NOTIF = 0x7FFF0000, 0x7FC00000
_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
_NR, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_INSTRUCTION = struct.Struct("=HBBI")
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")
_RECEIVE, _SEND, _ID_VALID = 0xC0502100, 0xC0182101, 0x40082102
_CONTINUE = 1
_IPPROTO_IPV6, _IPV6_V6ONLY = 41, 26

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def _machine() -> _Machine:
    here = os.uname()
    machine = _MACHINES.get(here.machine)
    if machine is None:
        raise OSError(errno.ENOSYS, f"no numbers of system calls for {here.machine}")
    # Before, a call that was told of could be answered and not be let go on.
    if tuple(int(number) for number in re.findall(r"\d+", here.release)[:2]) < (5, 5):
        raise OSError(errno.ENOSYS, f"Linux {here.release} cannot let a call go on; 5.5 can")
    return machine


def _filter(machine: _Machine) -> bytes:
    """Return the program that lets everything pass but `bind`, and `setsockopt` of IPV6_V6ONLY."""
    steps = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUALS, 0, 8, machine.audit),
        (_LOAD, 0, 0, _NR),
        (_EQUALS, 5, 0, machine.bind),
        (_EQUALS, 0, 5, machine.setsockopt),
        # Little-endian on both machines: the lower half of an argument comes first.
        (_LOAD, 0, 0, _ARGUMENTS + 8),
        (_EQUALS, 0, 3, _IPPROTO_IPV6),
        (_LOAD, 0, 0, _ARGUMENTS + 16),
        (_EQUALS, 0, 1, _IPV6_V6ONLY),
        (_RETURN, 0, 0, _USER_NOTIF),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(_INSTRUCTION.pack(*step) for step in steps)


def notify() -> int:
    """Have this process and its descendants told of; return the descriptor that tells (closed on exec).

    They can gain no privilege from then on (`sudo`, set-user-ID programs).

    :raises OSError: the kernel or who started us does not allow it.
    """
    machine = _machine()
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl: no_new_privs")
    instructions = _filter(machine)
    program = _Program(len(instructions) // _INSTRUCTION.size, instructions)
    descriptor = _libc.syscall(
        ctypes.c_long(machine.seccomp),
        ctypes.c_uint(_SET_MODE_FILTER),
        ctypes.c_uint(_NEW_LISTENER),
        ctypes.byref(program),
    )
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
    return int(descriptor)


def next_call(listener: int) -> Call:
    """Return the next call that waits; blocks until there is one.

    :raises OSError: ENOENT: it waits no more; it may have been interrupted, or its process has ended.
    """
    machine = _machine()
    buffer = bytearray(_NOTIFICATION.size)
    fcntl.ioctl(listener, _RECEIVE, buffer, True)
    number, process, _, call, _, _, *arguments = _NOTIFICATION.unpack(buffer)
    return Call(number, process, BIND if call == machine.bind else SETSOCKOPT, tuple(arguments))


def still_waits(listener: int, call: Call) -> bool:
    """Tell whether the call waits still: what was opened of its process is that process's, and not of a later one."""
    try:
        fcntl.ioctl(listener, _ID_VALID, struct.pack("=Q", call.number))
    except OSError:
        return False
    return True


def let_go_on(listener: int, call: Call) -> None:
    """Have the kernel carry the call out; nothing happens if it waits no more."""
    try:
        fcntl.ioctl(listener, _SEND, _ANSWER.pack(call.number, 0, 0, _CONTINUE))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
