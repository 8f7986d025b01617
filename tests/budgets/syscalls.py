"""Count the system calls of one thread, exactly, with ptrace: no tool has to be there, and no privilege.

The process must be a descendant of ours. One thread does all the tracing, because the kernel ties what is traced to the
thread that seized it.
"""

import ctypes
import os
import signal
import threading
from collections import Counter
from types import TracebackType

__all__ = ["SyscallCount", "Untraceable"]

_SEIZE, _INTERRUPT, _DETACH, _SYSCALL, _SYSCALL_INFO = 0x4206, 0x4207, 17, 24, 0x420E
_MARK_SYSCALLS = 1  # PTRACE_O_TRACESYSGOOD: a stop at a system call is told from a signal
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_WALL = 0x40000000
# struct ptrace_syscall_info: what kind of stop it is, and the call's number when it is an entry.
_INFO_BYTES, _KIND, _ENTRY, _NUMBER = 88, 0, 1, slice(24, 32)


class Untraceable(Exception):
    """The kernel or a container's filter does not let us trace; the message says what it answered."""


class SyscallCount:
    """Counts the system calls that a thread begins while the context is open.

    `numbers` counts each call by its number on this machine's architecture. Raises Untraceable on entry.
    """

    def __init__(self, pid: int, tid: int) -> None:
        self.numbers: Counter[int] = Counter()
        self._pid, self._tid = pid, tid
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self._libc.ptrace.restype = ctypes.c_long
        self._seized = threading.Event()
        self._enough = False
        self._failure: OSError | None = None
        self._tracer = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "SyscallCount":
        self._tracer.start()
        self._seized.wait()
        if self._failure is not None:
            raise Untraceable(str(self._failure)) from self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough = True
        # It may wait for its next event for long: a signal that nobody handles stops it for the tracer to see.
        self._libc.tgkill(self._pid, self._tid, int(signal.SIGCHLD))
        self._tracer.join(10)
        if self._failure is not None:
            raise self._failure

    @property
    def total(self) -> int:
        """How many calls were begun."""
        return sum(self.numbers.values())

    def _run(self) -> None:
        try:
            self._ptrace(_SEIZE, data=_MARK_SYSCALLS)
            self._ptrace(_INTERRUPT)
            self._count()
        except OSError as error:
            self._failure = error
        finally:
            self._seized.set()

    def _count(self) -> None:
        info = ctypes.create_string_buffer(_INFO_BYTES)
        while True:
            _, status = os.waitpid(self._tid, _WALL)
            if not os.WIFSTOPPED(status):
                raise ProcessLookupError("the traced thread has ended")
            stopped_by = os.WSTOPSIG(status)
            if self._enough:
                self._ptrace(_DETACH)
                return
            deliver = 0
            if stopped_by == _SYSCALL_STOP:
                self._ptrace(_SYSCALL_INFO, _INFO_BYTES, ctypes.addressof(info))
                if info.raw[_KIND] == _ENTRY:
                    self.numbers[int.from_bytes(info.raw[_NUMBER], "little")] += 1
            elif status >> 16 == 0:
                deliver = stopped_by
            self._ptrace(_SYSCALL, data=deliver)
            self._seized.set()

    def _ptrace(self, request: int, address: int = 0, data: int = 0) -> None:
        if self._libc.ptrace(request, self._tid, address, data) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"ptrace: {os.strerror(number)}")
