"""System calls that Python 3.11 has no name for, through the C library. Linux only.

Each raises OSError with the call's name, so that a refusal says what was tried.
"""

import ctypes
import errno
import os

__all__ = [
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWUSER",
    "CLONE_NEWUTS",
    "MS_BIND",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_PRIVATE",
    "MS_RDONLY",
    "MS_REC",
    "MS_REMOUNT",
    "become_subreaper",
    "die_with_parent",
    "mount",
    "pivot_root",
    "setns",
    "umount_lazily",
    "unshare",
]

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move this thread (for CLONE_NEWUSER: this single-threaded process) into new namespaces."""
    try:
        _check(_libc.unshare(ctypes.c_int(flags)), "unshare")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            # What the kernel calls "no space" is a limit on the number of namespaces (namespaces(7)).
            raise OSError(
                errno.ENOSPC, "unshare: the limit in /proc/sys/user/max_*_namespaces is reached"
            ) from error
        raise


def setns(fd: int, kind: int) -> None:
    """Move this thread into the namespace that `fd` holds."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns")


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """Mount; see mount(2) for what each argument means."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        data.encode() if data else None,
    )
    _check(result, f"mount {kind or source} on {target}")


def umount_lazily(target: str) -> None:
    """Detach a mount; it ends when its last user lets go."""
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(_MNT_DETACH)), f"umount {target}")


def pivot_root(new_root: str) -> None:
    """Make `new_root` (a mount point) the root and let go of the old one."""
    os.chdir(new_root)
    # pivot_root(".", ".") stacks the old root on the new one, so no directory for it is needed (pivot_root(2)).
    _check(_libc.pivot_root(b".", b"."), f"pivot_root {new_root}")
    umount_lazily(".")
    os.chdir("/")


def die_with_parent(signal_number: int, parent: int) -> None:
    """Have the kernel send `signal_number` when the parent ends; exit now if it already has.

    The setting is cleared by a change of user, so it is made after that.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number), 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os._exit(1)


def become_subreaper() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0), "prctl")
