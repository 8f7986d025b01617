"""The networks in which each pod has a network namespace of its own: netns (as root) and userns (as anybody).

Both run inside the world's namespaces and differ only in who a container's root is. The world's namespace routes
between the pods over point-to-point pairs of interfaces; there is no bridge, because a packet that was redirected
to another pod must come back through the world's connection tracking to be turned back.

    pod 10.42.0.2 ── eth0 ═══ pod2 ┐
                                   ├─ world: 10.42.0.1 gateway, 10.96.0.0/16 Service addresses, 10.96.0.10 DNS
                                   │  (TCP to anywhere else: accepted there, relayed over the host's sockets)
    pod 10.42.0.3 ── eth0 ═══ pod3 ┘
"""

# ruff: noqa: D102 - the contract of each method is Network's

import asyncio
import contextlib
import shutil
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tulle.local.net import dns
from tulle.local.net.dns_server import DnsServer
from tulle.local.net.inside import connect_inside
from tulle.local.net.launcher import GATEWAY
from tulle.local.net.listening import is_listened_on
from tulle.local.net.model import (
    Mode,
    NetworkError,
    PodKey,
    PodNetwork,
    Process,
    ProcessSpec,
    ServiceRoute,
    Target,
)
from tulle.local.net.probe import find_nft
from tulle.local.net.processes import END_GRACE, Launcher
from tulle.local.net.relay import Streams, accept_and_relay
from tulle.local.net.rtnetlink import Link
from tulle.local.net.service_rules import EMPTY, base_rules, change, table_of

__all__ = ["API_ADDRESS", "DNS_ADDRESS", "WAY_OUT", "Connect", "IsolatedNetwork"]

Connect = Callable[[str, int], Awaitable[socket.socket | None]]

DNS_ADDRESS = "10.96.0.10"
API_ADDRESS = ("10.96.0.1", 443)
WAY_OUT = (GATEWAY, 15001)
_OWN_ADDRESSES = {DNS_ADDRESS, API_ADDRESS[0]}
PROXY_MARK = "0x7e11"
_FIRST_SLOT, _LAST_SLOT = 2, 65534  # 10.42.0.2 … 10.42.255.254
_SO_ORIGINAL_DST = 80
_BACKLOG = 128
NFT_WITHIN = 30.0  # seconds


class IsolatedNetwork:
    """See `tulle.local.net.model.Network`. Lives in the world's namespaces; `folder` holds the pods' small files."""

    def __init__(
        self,
        mode: Mode,
        reason: str,
        launcher: socket.socket,
        folder: Path,
        resolver: socket.socket | None = None,
    ) -> None:
        self.mode, self.reason = mode, reason
        self.transparent = True
        self.api_address: Target = API_ADDRESS
        # Only one user exists in the user namespace, so the proxy's own traffic is told apart by a mark.
        self.sidecar_env: Mapping[str, str] = {"TULLE_PROXY_MARK": PROXY_MARK} if mode == "userns" else {}
        self._folder = folder
        self._launcher = Launcher(launcher)
        self._dns = DnsServer(DNS_ADDRESS, 53, resolver)
        self._table = EMPTY
        self._pods: dict[PodKey, PodNetwork] = {}
        self._next_slot = _FIRST_SLOT
        self._changing_services = asyncio.Lock()

    async def start(self) -> None:
        _prepare_world()
        self._launcher.start()
        await self._filter(base_rules(WAY_OUT))
        await self._dns.start()

    async def stop(self) -> None:
        await self._launcher.end_all(END_GRACE)
        await self._dns.stop()
        self._launcher.close()

    async def lost(self) -> None:
        await self._launcher.lost.wait()

    async def add_pod(self, key: PodKey) -> PodNetwork:
        if key in self._pods:
            return self._pods[key]
        slot = self._free_slot()
        pod = self._pods[key] = PodNetwork(key, f"10.42.{slot >> 8}.{slot & 255}", slot)
        try:
            await self._launcher.add_pod(key.uid, pod.ip, f"pod{slot}")
            self._write_files(pod)
        except BaseException:
            self._pods.pop(key, None)
            raise
        return pod

    def _free_slot(self) -> int:
        taken = {pod.slot for pod in self._pods.values()}
        if len(taken) > _LAST_SLOT - _FIRST_SLOT:
            raise NetworkError("no pod address is free", f"all of 10.42.0.0/16 is taken by {len(taken)} pods")
        # Onward rather than the lowest free: an address just given back is still in somebody's connections.
        while self._next_slot in taken:
            self._advance()
        slot = self._next_slot
        self._advance()
        return slot

    def _advance(self) -> None:
        self._next_slot = _FIRST_SLOT if self._next_slot == _LAST_SLOT else self._next_slot + 1

    def _pod_folder(self, pod: PodNetwork) -> Path:
        return self._folder / "pods" / pod.key.uid

    def _write_files(self, pod: PodNetwork) -> None:
        folder = self._pod_folder(pod)
        folder.mkdir(parents=True, exist_ok=True)
        search = " ".join(dns.search(pod.key.namespace))
        (folder / "resolv.conf").write_text(f"search {search}\nnameserver {DNS_ADDRESS}\noptions ndots:5\n")
        self._write_hosts(pod, ())

    def _write_hosts(self, pod: PodNetwork, further: Sequence[str]) -> Path:
        lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost", f"{pod.ip} {pod.key.name}", *further]
        path = self._pod_folder(pod) / "hosts"
        path.write_text("".join(line + "\n" for line in lines))
        return path

    async def remove_pod(self, key: PodKey) -> None:
        pod = self._pods.pop(key, None)
        if pod is None:
            return
        await self._launcher.remove_pod(key.uid)
        await asyncio.to_thread(_delete_link, f"pod{pod.slot}")
        await asyncio.to_thread(shutil.rmtree, self._pod_folder(pod), True)

    async def spawn(self, pod: PodNetwork, spec: ProcessSpec) -> Process:
        folder = self._pod_folder(pod)
        hosts = self._write_hosts(pod, spec.hosts) if spec.hosts else folder / "hosts"
        mounts = [
            (str(folder / "resolv.conf"), "/etc/resolv.conf", False),
            (str(hosts), "/etc/hosts", False),
            *((mount.source, mount.target, mount.read_only) for mount in spec.mounts),
        ]
        return await self._launcher.spawn(pod.key.uid, pod, self._with_user(spec), mounts)

    def _with_user(self, spec: ProcessSpec) -> ProcessSpec:
        if self.mode == "netns" or spec.uid is None:
            return spec
        return replace(spec, uid=None, gid=None)

    async def dial(self, ip: str, port: int) -> Streams:
        return await asyncio.open_connection(ip, port)

    async def dial_inside(self, ip: str, port: int) -> Streams:
        uid = next((pod.key.uid for pod in self._pods.values() if pod.ip == ip), "")
        process = self._launcher.process_in(uid)
        if process is None:
            raise ConnectionRefusedError(f"no process runs in the pod at {ip}")
        return await asyncio.open_connection(sock=await asyncio.to_thread(connect_inside, process, ip, port))

    def app_port(self, port: int) -> int:
        return port

    def plain_port(self, port: int) -> int:
        return port

    def listens(self, ip: str, port: int) -> bool:
        uid = next((pod.key.uid for pod in self._pods.values() if pod.ip == ip), "")
        process = self._launcher.process_in(uid)
        return process is not None and is_listened_on(process, ip, self.app_port(port))

    async def set_services(self, services: Sequence[ServiceRoute]) -> None:
        self._dns.set_services(services)
        async with self._changing_services:
            # The API and DNS answer at their Service addresses themselves, in this very namespace.
            wanted = table_of(route for route in services if route.virtual_ip not in _OWN_ADDRESSES)
            script = change(self._table, wanted)
            if script:
                await self._filter(script)
                self._table = wanted

    async def _filter(self, script: str) -> None:
        try:
            nft = await asyncio.create_subprocess_exec(
                find_nft() or "nft",
                "-f",
                "-",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except FileNotFoundError as error:
            raise NetworkError(
                "packet-filter rules could not be set", "the program nft is not installed"
            ) from error
        try:
            async with asyncio.timeout(NFT_WITHIN):
                _, complaint = await nft.communicate(script.encode())
        except TimeoutError:
            nft.kill()
            raise NetworkError(
                "packet-filter rules could not be set", f"nft has not ended after {NFT_WITHIN:g} s"
            ) from None
        if nft.returncode:
            raise NetworkError(
                "packet-filter rules could not be set", complaint.decode(errors="replace").strip()
            )

    async def serve_way_out(self, connect: Connect) -> None:
        """Relay what pods send to addresses outside the mesh, over sockets of the host's network, until cancelled.

        The world has no way out of its own. `connect` opens one connection from the host; None means that nobody
        answers there, and the pod's connection is closed.
        """

        async def dial(accepted: socket.socket) -> Streams | None:
            packed = accepted.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
            port, ip = struct.unpack_from("!2xH4s", packed)
            out = await connect(socket.inet_ntoa(ip), port)
            return await asyncio.open_connection(sock=out) if out is not None else None

        await accept_and_relay(socket.create_server(WAY_OUT, backlog=_BACKLOG), dial)

    async def publish(self, listener_fd: int, target: Callable[[], Target | None]) -> None:
        async def dial(accepted: socket.socket) -> Streams | None:
            there = target()
            return await self.dial(*there) if there else None

        await accept_and_relay(socket.socket(fileno=listener_fd), dial)


def _prepare_world() -> None:
    with Link() as link:
        link.up("lo")
        for ip in (GATEWAY, DNS_ADDRESS, API_ADDRESS[0]):
            link.add_address("lo", ip)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _delete_link(name: str) -> None:
    with contextlib.suppress(OSError), Link() as link:
        link.delete(name)  # it is gone already when its namespace was the first to go
