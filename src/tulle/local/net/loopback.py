"""The network that needs no privilege: each pod an address in 127.0.0.0/8, its sidecar reached explicitly.

Nothing is captured. Apps are told by HTTP_PROXY to send to their sidecar's outbound port, which routes by
authority; who listens on all addresses listens on the pod's (`binding`); between sidecars all is as elsewhere. Every mesh of the machine has its own 127.N.0.0/16, held by an
abstract socket that the kernel takes back when the mesh ends.
"""

# ruff: noqa: D102 - the contract of each method is Network's

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tulle.local.net import caller
from tulle.local.net.binding import app_port
from tulle.local.net.dns_server import DnsServer
from tulle.local.net.listening import is_listened_on
from tulle.local.net.model import (
    Mode,
    Mount,
    NetworkError,
    PodKey,
    PodNetwork,
    Process,
    ProcessSpec,
    ServiceRoute,
    Target,
)
from tulle.local.net.processes import END_GRACE, Launcher
from tulle.local.net.relay import Streams, accept_and_relay

__all__ = ["LoopbackNetwork", "app_port", "claim_range", "plain_port", "redirect_paths"]

OUTBOUND_PORT = 4140
_PLAIN_SHIFT = 30000
_FIRST_RANGE, _LAST_RANGE = (
    16,
    254,
)  # 127.16.0.0/16 … 127.254.0.0/16; below lie addresses that people use by hand
_LAST_SLOT = 65534


def plain_port(port: int) -> int:
    """Return the pod's port for plain clients of `port`: its sidecar listens there beside 4143."""
    return port + _PLAIN_SHIFT if port + _PLAIN_SHIFT <= 65535 else port - _PLAIN_SHIFT


def redirect_paths(text: str, mounts: Sequence[Mount]) -> str:
    """Return `text`, or where it is a path at or below a mount's target, the path below its source.

    Nothing can be mounted without a privilege, so the paths in a container's environment and arguments are
    rewritten instead. The longest target wins.
    """
    for mount in sorted(mounts, key=lambda mount: len(mount.target), reverse=True):
        target = mount.target.rstrip("/")
        if text == target or text.startswith(target + "/"):
            return mount.source.rstrip("/") + text[len(target) :]
    return text


def claim_range(name: str) -> tuple[int, socket.socket]:
    """Return N of a free 127.N.0.0/16 and the socket that keeps it ours while it is open.

    :raises NetworkError: all are taken.
    """
    span = _LAST_RANGE - _FIRST_RANGE + 1
    start = sum(name.encode()) % span
    for offset in range(span):
        number = _FIRST_RANGE + (start + offset) % span
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0tulle/127.{number}")
            return number, claim
        except OSError:
            claim.close()
    raise NetworkError(
        "no range of loopback addresses is free", f"{span} meshes run on this machine", "stop one: tulle down"
    )


def _lowest_port() -> int:
    if sys.platform == "linux":
        try:
            return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
        except (OSError, ValueError):
            return 1024
    return 1024


class LoopbackNetwork:
    """See `tulle.local.net.model.Network`."""

    def __init__(self, reason: str, launcher: socket.socket, name: str, api_address: Target) -> None:
        self.mode: Mode = "loopback"
        self.reason = reason
        self.transparent = False
        self.sidecar_env: Mapping[str, str] = {}
        self._dns: DnsServer | None = None
        self.api_address = api_address
        self._name = name
        self._launcher = Launcher(launcher)
        self._pods: dict[PodKey, PodNetwork] = {}
        self._next_slot = 2
        self._range = 0
        self._claim: socket.socket | None = None
        self._lowest = _lowest_port()
        self._routes: Sequence[ServiceRoute] = ()

    async def start(self) -> None:
        self._range, self._claim = claim_range(self._name)
        self._launcher.start()
        # Sidecars ask it for the control plane's names; apps have the machine's resolver and never ask.
        self._dns = DnsServer(f"127.{self._range}.0.1", 0)
        await self._dns.start()
        self.sidecar_env = {"TULLE_PROXY_DNS_SERVER": f"127.{self._range}.0.1:{self._dns.port}"}

    async def stop(self) -> None:
        await self._launcher.end_all(END_GRACE)
        self._launcher.close()
        if self._dns is not None:
            await self._dns.stop()
        if self._claim is not None:
            self._claim.close()

    async def lost(self) -> None:
        await self._launcher.lost.wait()

    async def add_pod(self, key: PodKey) -> PodNetwork:
        if key in self._pods:
            return self._pods[key]
        taken = {pod.slot for pod in self._pods.values()}
        if len(taken) >= _LAST_SLOT - 2:
            raise NetworkError("no pod address is free", f"all of 127.{self._range}.0.0/16 is taken")
        while self._next_slot in taken:
            self._next_slot = self._next_slot % _LAST_SLOT + 1
        slot = self._next_slot
        self._next_slot = self._next_slot % _LAST_SLOT + 1
        pod = self._pods[key] = PodNetwork(key, f"127.{self._range}.{slot >> 8}.{slot & 255}", slot)
        await self._launcher.add_pod(key.uid, pod.ip, None)
        return pod

    async def remove_pod(self, key: PodKey) -> None:
        if self._pods.pop(key, None) is not None:
            await self._launcher.remove_pod(key.uid)

    async def spawn(self, pod: PodNetwork, spec: ProcessSpec) -> Process:
        spec = replace(
            spec,
            uid=None,
            gid=None,
            env={
                **{name: redirect_paths(value, spec.mounts) for name, value in spec.env.items()},
                caller.POD_ADDRESS: pod.ip,
            },
            argv=[redirect_paths(word, spec.mounts) for word in spec.argv],
            cwd=redirect_paths(spec.cwd, spec.mounts),
        )
        return await self._launcher.spawn(pod.key.uid, pod, spec, (), lowest_port=self._lowest)

    async def dial(self, ip: str, port: int) -> Streams:
        return await asyncio.open_connection(ip, self.app_port(port))

    async def dial_inside(self, ip: str, port: int) -> Streams:
        return await self.dial(ip, port)  # all pods are on the loopback of this machine

    def app_port(self, port: int) -> int:
        return app_port(port, self._lowest)

    def plain_port(self, port: int) -> int:
        return plain_port(port)

    def listens(self, ip: str, port: int) -> bool:
        uid = next((pod.key.uid for pod in self._pods.values() if pod.ip == ip), "")
        process = self._launcher.process_in(uid)
        return process is not None and is_listened_on(process, ip, self.app_port(port))

    async def set_services(self, services: Sequence[ServiceRoute]) -> None:
        self._routes = tuple(services)  # no packet filter here: sidecars route by authority
        if self._dns is not None:
            self._dns.set_services(services)

    async def publish(self, listener_fd: int, target: Callable[[], Target | None]) -> None:
        async def dial(accepted: socket.socket) -> Streams | None:
            there = target()
            return await asyncio.open_connection(*there) if there else None

        await accept_and_relay(socket.socket(fileno=listener_fd), dial)

    async def relay_localhost(self, listener_fd: int) -> None:
        """Serve the host's localhost:4140: hand each connection to the sidecar of the pod that dialled it."""
        listener = socket.socket(fileno=listener_fd)
        here = listener.getsockname()

        async def dial(accepted: socket.socket) -> Streams | None:
            pod = await asyncio.to_thread(_caller, accepted.getpeername(), here)
            return await asyncio.open_connection(pod, OUTBOUND_PORT) if pod else None

        await accept_and_relay(listener, dial)


def _caller(peer: Target, here: Target) -> str | None:
    """Return the address of the pod whose process dialled; None for a process that is no pod's."""
    inode = caller.inode_of(Path("/proc/net/tcp").read_text(), peer, here)
    process = caller.process_with(inode) if inode else None
    for pid in caller.ancestors(process) if process is not None else ():
        with contextlib.suppress(OSError):
            address = caller.pod_address(Path(f"/proc/{pid}/environ").read_bytes())
            if address is not None:
                return address
    return None
