"""The keeper: makes the world's namespaces, watches over its owner and its world, and leaves nothing behind.

Its owner is `tulle up`, known by the other end of a pipe: when that end closes, even by kill -9, the keeper gives
the world a moment to end and then kills it; the kernel takes a PID namespace's processes with its first, and the
namespaces, interfaces and rules with the last process. In loopback mode there is no PID namespace: the keeper is
the reaper of every orphan below it instead, and kills until it has no descendant.

Nothing but the standard library is loaded here, and nothing at all before the namespaces are entered.
"""

import os
import select
import shutil
import signal
import sys
import time
import traceback
from typing import NoReturn

from tulle.local.net import kernel
from tulle.local.net.probe import enter_namespaces

__all__ = ["main"]

_GRACE = 8.0  # seconds that a world has to end by itself after its owner has ended


def main(mode: str, control: int, folder: str) -> NoReturn:
    """Run a world of this mode until its owner, or it, ends. `control` is its end of the channel to the owner.

    Standard input is the pipe whose other end the owner holds. Exits with the world's status.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal's Ctrl-C is for the owner, who tells the world
    status = 1
    try:
        kernel.become_subreaper()
        if mode != "loopback":
            enter_namespaces(user_namespace=mode == "userns")
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        keeper = os.getpid()
        world = os.fork()
        if world == 0:
            _be_world(mode, control, keeper)
        os.close(control)
        status = _watch(world, wake_read)
    except BaseException:
        traceback.print_exc()
    finally:
        _kill_descendants()
        if _owner_has_ended():
            shutil.rmtree(folder, ignore_errors=True)  # a living owner does it herself, under her lock
    os._exit(status)


def _be_world(mode: str, control: int, keeper: int) -> NoReturn:
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.close(null)
        # In a PID namespace the parent is outside and has no number.
        kernel.die_with_parent(signal.SIGKILL, keeper if mode == "loopback" else 0)
        if mode != "loopback":
            kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
            kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
        from tulle.local.net.processes import fork_launcher

        launcher = fork_launcher()
        from tulle.local.world.runtime import run

        status = run(control, launcher)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _watch(world: int, wake: int) -> int:
    """Wait for the world's end; when the owner ends first, see to it. Return the world's exit status."""
    poll = select.poll()
    poll.register(0, 0)  # only the hang-up is of interest, and that is always reported
    poll.register(wake, select.POLLIN)
    deadline: float | None = None
    while True:
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        events = poll.poll(timeout)
        if not events:
            os.kill(world, signal.SIGKILL)
        for descriptor, _ in events:
            if descriptor == wake:
                os.read(wake, 4096)
            elif deadline is None:
                deadline = time.monotonic() + _GRACE
                poll.unregister(0)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return 1
            if pid == world:
                return abs(os.waitstatus_to_exitcode(status))
            if pid == 0:
                break


def _owner_has_ended() -> bool:
    poll = select.poll()
    poll.register(0, 0)
    return bool(poll.poll(0))


def _kill_descendants() -> None:
    """Kill and reap until there is no child; orphans become children, so this ends with no descendant."""
    path = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
    while True:
        try:
            with open(path) as file:
                children = [int(word) for word in file.read().split()]
        except FileNotFoundError:
            children = _children_by_search()
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children_by_search() -> list[int]:
    """Find the children where the kernel does not list them (CONFIG_PROC_CHILDREN is optional)."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == os.getpid():
                found.append(int(name))
    return found
