"""What this machine allows, found by doing it: in a child that makes the namespaces, a veth pair and a nat rule.

Everything that the child makes ends with it. Takes 15 ms where all works.
"""

import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from typing import NoReturn

from tulle.local.net import kernel
from tulle.local.net.choose import Facts, Wish
from tulle.local.net.rtnetlink import Link

__all__ = ["enter_namespaces", "facts", "find_nft"]

_ALREADY_SAID = -1  # in place of an errno: the grandchild has written why
_TRIED_WITHIN = 5.0  # seconds
_RULES = """
table ip probe {
  map services { type ipv4_addr . inet_proto . inet_service : verdict; }
  chain output { type nat hook output priority -100; ip daddr . meta l4proto . th dport vmap @services; meta l4proto tcp redirect to :4140; }
  chain refuse { type filter hook prerouting priority -90; fib daddr type local accept; reject; }
}
"""


def find_nft() -> str | None:
    """Return the nft program; ordinary users often lack /usr/sbin in their PATH."""
    return shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin:/usr/local/sbin")


def facts(wish: Wish) -> Facts:
    """Try what the wish may need. Call it before threads start: it forks."""
    euid, nft = os.geteuid(), find_nft()
    root, user = "not tried", "not tried"
    if nft is not None and euid == 0 and wish in ("auto", "netns"):
        root = _try(lambda: _rehearse(nft, user_namespace=False))
    if nft is not None and (wish == "userns" or (wish == "auto" and root)):
        user = _try(lambda: _rehearse(nft, user_namespace=True))
    return Facts(euid, nft, root, user)


def enter_namespaces(*, user_namespace: bool) -> None:
    """Move this single-threaded process into namespaces of its own; its next child is the first of the PID namespace.

    :raises OSError: the kernel refused.
    """
    uid, gid = os.geteuid(), os.getegid()
    kinds = kernel.CLONE_NEWNET | kernel.CLONE_NEWNS | kernel.CLONE_NEWPID
    if user_namespace:
        kernel.unshare(kinds | kernel.CLONE_NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    else:
        kernel.unshare(kinds)


def _rehearse(nft: str, *, user_namespace: bool) -> None:
    enter_namespaces(user_namespace=user_namespace)
    if (pid := os.fork()) == 0:
        _child(lambda: _rehearse_inside(nft))
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise OSError(_ALREADY_SAID, "")


def _rehearse_inside(nft: str) -> None:
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.mount("tmpfs", "/run", "tmpfs")
    with open("/proc/sys/net/ipv4/ip_forward", "w") as setting:
        setting.write("1")
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    with Link() as link:
        kernel.unshare(kernel.CLONE_NEWNET)
        link.create_veth("probe", "eth0", os.open("/proc/self/ns/net", os.O_RDONLY))
        kernel.setns(home, kernel.CLONE_NEWNET)
    tried = subprocess.run([nft, "-f", "-"], input=_RULES, text=True, capture_output=True, check=False)
    if tried.returncode:
        raise OSError(0, "nft: " + " ".join(tried.stderr.split())[:300])


_complaints = -1


def _child(work: Callable[[], None]) -> NoReturn:
    status = 1
    try:
        kernel.die_with_parent(signal.SIGKILL, os.getppid())
        work()
        status = 0
    except OSError as error:
        if error.errno != _ALREADY_SAID:
            os.write(_complaints, str(error.strerror or error).encode()[:1000])
    finally:
        os._exit(status)


def _try(work: Callable[[], None]) -> str:
    """Do it in a child. Return an empty text when it worked, else why not."""
    global _complaints
    read, _complaints = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _child(work)
    os.close(_complaints)
    said = b""
    deadline = time.monotonic() + _TRIED_WITHIN
    # The pipe ends when the last of the child's processes has.
    while (left := deadline - time.monotonic()) > 0 and select.select([read], [], [], left)[0]:
        if not (part := os.read(read, 1000)):
            break
        said += part
    else:
        said = said or b"it took too long"
        os.kill(pid, signal.SIGKILL)
    os.close(read)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) == 0:
        return ""
    return said.decode(errors="replace").strip() or "refused without a reason"
