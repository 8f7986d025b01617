"""The process that starts every process inside a pod: small, single-threaded, forked before anything large is loaded.

The world is a threaded asyncio program of some hundred megabytes; forking it would copy page tables for
milliseconds and run code in a child of threads. So it asks this server, over a socket pair, to make a pod's
network namespace, to start a process in it, to signal one, and hears from it when one has ended.

Requests are JSON in a memfd (no length limit), descriptors travel beside it. Answers and endings are JSON
datagrams in the other direction. The launcher is the reaper of every orphan, and when it dies all it started die.

Cost, measured on two cores: 1.1 ms for a pod's network, 4 ms from request to a process that has been exec'd.
"""

import array
import errno
import json
import os
import select
import shutil
import signal
import socket
import sys
import traceback
from dataclasses import dataclass, field
from typing import Any, NoReturn

from tulle.local.net import kernel, mounts, seccomp
from tulle.local.net.binding import Binder
from tulle.local.net.model import Mount
from tulle.local.net.rtnetlink import Link

__all__ = ["GATEWAY", "serve"]

GATEWAY = "10.42.0.1"
_MOST_DESCRIPTORS = 4
_FORBIDDEN_ON_EXIT = 127


@dataclass
class _Pod:
    """A network namespace held open, and the processes that were started in it."""

    namespace: int | None
    processes: set[int] = field(default_factory=set)


def serve(requests: socket.socket) -> NoReturn:
    """Serve until the other end closes. Never returns."""
    try:
        _Launcher(requests).run()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


class _Launcher:
    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._pods: dict[str, _Pod] = {}
        self._home: int | None = None
        self._pod_of: dict[int, str] = {}
        self._binders: dict[int, Binder] = {}
        self._poll = select.poll()

    def run(self) -> None:
        # Linux gives fork's child the parent's handlers; the world's are not wanted here.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        kernel.become_subreaper()
        self._poll.register(self._requests, select.POLLIN)
        self._poll.register(wake_read, select.POLLIN)
        while True:
            for descriptor, event in self._poll.poll():
                if descriptor == wake_read:
                    os.read(wake_read, 4096)
                    self._reap()
                elif descriptor in self._binders:
                    self._bind(descriptor, event)
                elif not self._serve_one():
                    return

    def _bind(self, listener: int, event: int) -> None:
        if event & select.POLLIN:
            self._binders[listener].serve_one()
        else:  # the last of its processes has ended
            self._poll.unregister(listener)
            del self._binders[listener]
            os.close(listener)

    def _serve_one(self) -> bool:
        body, ancillary, _, _ = self._requests.recvmsg(1, socket.CMSG_SPACE(_MOST_DESCRIPTORS * 4))
        if not body:
            return False
        descriptors = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        try:
            size = os.fstat(descriptors[0]).st_size
            request: dict[str, Any] = json.loads(os.pread(descriptors[0], size, 0))
            try:
                answer = self._answer(request, list(descriptors[1:]))
            except OSError as error:
                answer = {"errno": error.errno or 0, "error": str(error.strerror or error)}
            except Exception as error:
                # This process holds every pod: what it cannot do for one must not end the others.
                traceback.print_exc()
                answer = {"errno": 0, "error": repr(error)}
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._tell({"id": request["id"], **answer})
        return True

    def _tell(self, message: dict[str, Any]) -> None:
        self._requests.sendall(json.dumps(message).encode())

    def _answer(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        what = request["ask"]
        if what == "spawn":
            return self._spawn(request, descriptors)
        if what == "signal":
            self._signal(request["pid"], request["number"], request["session"])
        elif what == "add_pod":
            self._add_pod(request)
        elif what == "remove_pod":
            self._remove_pod(request["pod"])
        return {}

    def _add_pod(self, request: dict[str, Any]) -> None:
        if request["veth"] is None:
            self._pods[request["pod"]] = _Pod(None)
            return
        if self._home is None:
            self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        veth, ip = request["veth"], request["ip"]
        try:
            kernel.unshare(kernel.CLONE_NEWNET)
            namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            with Link() as inside:
                kernel.setns(self._home, kernel.CLONE_NEWNET)
                with Link() as outside:
                    outside.create_veth(veth, "eth0", namespace)
                    outside.up(veth)
                    outside.add_route(veth, ip, source=GATEWAY)
                kernel.setns(namespace, kernel.CLONE_NEWNET)
                for name in ("lo", "eth0"):
                    inside.up(name)
                inside.add_address("eth0", ip)
                inside.add_route("eth0", GATEWAY)
                inside.add_route("eth0", None, gateway=GATEWAY)
            # As container runtimes do: a process that is not root may serve port 80 of its own pod.
            with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", "w") as setting:
                setting.write("0")
        finally:
            kernel.setns(self._home, kernel.CLONE_NEWNET)
        self._pods[request["pod"]] = _Pod(namespace)

    def _remove_pod(self, name: str) -> None:
        pod = self._pods.pop(name, None)
        if pod is None:
            return
        for pid in pod.processes:
            self._kill_session(pid)
        if pod.namespace is not None:
            os.close(pod.namespace)

    def _spawn(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        pod = self._pods.get(request["pod"])
        if pod is None:
            return {"errno": errno.ESRCH, "step": "enter the pod", "error": f"pod {request['pod']} has ended"}
        failed_read, failed_write = os.pipe2(os.O_CLOEXEC)
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become(request, descriptors, pod.namespace, parent, failed_write, there)
        os.close(failed_write)
        there.close()
        try:
            failure = os.read(failed_read, 4096)  # empty as soon as exec has closed the other end
            if not failure and request["all_addresses"] is not None:
                self._hear(here, request)
        finally:
            os.close(failed_read)
            here.close()
        if failure:
            os.waitpid(pid, 0)
            return dict(json.loads(failure))
        pod.processes.add(pid)
        self._pod_of[pid] = request["pod"]
        return {"pid": pid, "pod": request["pod"]}

    def _hear(self, child: socket.socket, request: dict[str, Any]) -> None:
        """Answer for what a new process binds, if it could arrange to be heard."""
        listeners = socket.recv_fds(child, 1, 1, socket.MSG_DONTWAIT)[1]
        for listener in listeners:
            os.set_inheritable(listener, False)
            self._binders[listener] = Binder(listener, request["all_addresses"], request["lowest_port"])
            self._poll.register(listener, select.POLLIN)

    def _signal(self, pid: int, number: int, session: bool) -> None:
        if pid not in self._pod_of:
            return  # it has ended, and its number may be another's by now
        if session and number == signal.SIGKILL:
            self._kill_session(pid)
        elif session:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)

    def _kill_session(self, leader: int) -> None:
        for pid in _session_members(leader):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            pod = self._pod_of.pop(pid, None)
            if pod is None:
                continue  # an orphan
            if pod in self._pods:
                self._pods[pod].processes.discard(pid)
            # A container ends with its first process; what that left behind must not hold its ports.
            self._kill_session(pid)
            self._tell({"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def _session_members(leader: int) -> list[int]:
    """Return the processes of a session, its leader among them if it is still there."""
    members = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The command may hold spaces and brackets; the fields after the last ")" are numbers.
                    session = int(file.read().rpartition(b")")[2].split()[3])
            except OSError:
                continue  # it has ended since
            if session == leader:
                members.append(int(name))
    return members


def _become(
    request: dict[str, Any],
    descriptors: list[int],
    namespace: int | None,
    parent: int,
    failed: int,
    launcher: socket.socket,
) -> NoReturn:
    """In the forked child: turn into the wished process, or write why not to `failed`."""
    step = "start"
    try:
        step = "session"
        os.setsid()
        signal.set_wakeup_fd(-1)
        if namespace is not None:
            step = "enter the pod's network"
            kernel.setns(namespace, kernel.CLONE_NEWNET)
            step = "mount"
            kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS)
            socket.sethostname(request["hostname"])
            _mount(request)
        step = "standard streams"
        stdin, stdout, stderr = descriptors
        for number, descriptor in enumerate((stdin, stdout, stderr)):
            os.dup2(descriptor, number, inheritable=True)
        if request["controlling_terminal"]:
            _take_terminal()
        step = f"change to directory {request['cwd']}"
        os.chdir(request["cwd"])
        if request["uid"] is not None:
            step = f"become user {request['uid']}"
            os.setgroups([])
            os.setgid(request["gid"] if request["gid"] is not None else request["uid"])
            os.setuid(request["uid"])
        # After the change of user, which would clear it.
        kernel.die_with_parent(signal.SIGKILL, parent)
        step = "signals"
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if signal.getsignal(number) is not signal.SIG_DFL:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.umask(0o022)
        if request["all_addresses"] is not None:
            step = "have its ports arranged"
            _be_heard(launcher)
        step = f"run {request['argv'][0]}"
        os.closerange(3, failed)
        os.closerange(failed + 1, 1 << 20)
        os.execvpe(request["argv"][0], request["argv"], request["env"])
    except BaseException as error:
        number = error.errno if isinstance(error, OSError) and error.errno else 0
        why = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
        os.write(failed, json.dumps({"errno": number, "step": step, "error": why}).encode()[:4096])
        sys.stdout = sys.stderr = None
        os._exit(_FORBIDDEN_ON_EXIT)


def _be_heard(launcher: socket.socket) -> None:
    """Hand the launcher what tells of this process's binds, or nothing where the machine does not allow that."""
    try:
        told = [seccomp.notify()]
    except OSError:
        told = []
    socket.send_fds(launcher, [b"."], told)


def _mount(request: dict[str, Any]) -> None:
    wanted = [Mount(*fields) for fields in request["mounts"]]
    steps = mounts.plan(
        wanted, real_path=os.path.realpath, exists=os.path.lexists, is_directory=os.path.isdir
    )
    uid = request["uid"]
    if uid:
        program = shutil.which(request["argv"][0], path=request["env"].get("PATH")) or request["argv"][0]
        paths = [path for path in (program, request["cwd"]) if os.path.exists(path)]
        gid = uid if request["gid"] is None else request["gid"]
        closed = mounts.closed_directories(paths, uid, gid, os.stat, _read_link)
        # After the private /run, which holds the copies, and before anything is mounted below them.
        after = next(number for number, step in enumerate(steps) if step.action == "tmpfs") + 1
        steps[after:after] = [mounts.Step("open", path) for path in closed]
    mounts.carry_out(steps)


def _read_link(path: str) -> str | None:
    return os.readlink(path) if os.path.islink(path) else None


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
