"""Where the two sides of the comparison run: two network namespaces and a veth between them, or loopback.

In the namespaces the client dials a Service address, which the packet filter redirects to the outbound proxy at 4140; in
loopback it dials that proxy itself. Everything else is the same. The namespaces carry this process's id in their names
and are gone afterwards.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

__all__ = ["OUTBOUND", "Places", "Service", "loopback", "namespaces", "tracked", "why_no_namespaces"]

OUTBOUND = 4140
_SERVICES = "10.96.99.0/24"


@dataclass(frozen=True)
class Service:
    """What a client asks for: a Service's address and port, and its name as an authority."""

    name: str
    address: str
    port: int


@dataclass(frozen=True)
class Places:
    """The client's side and the application's: how to start a program there, and its address."""

    client: Sequence[str]
    app: Sequence[str]
    client_ip: str
    app_ip: str
    plain_ip: str
    """A second address at the application's side, of an application without a sidecar."""
    transparent: bool
    """Whether connections to a Service's address get to the outbound proxy by themselves."""

    def entry(self, service: Service) -> str:
        """Return where a client connects to reach a Service through the outbound proxy."""
        if self.transparent:
            return f"{service.address}:{service.port}"
        return f"{self.client_ip}:{OUTBOUND}"


def why_no_namespaces() -> str:
    """Return what the machine lacks for `namespaces`; empty when nothing."""
    if os.geteuid() != 0:
        return "not root"
    missing = [tool for tool in ("ip", "nft", "nsenter") if shutil.which(tool) is None]
    return f"no {', '.join(missing)}" if missing else ""


def loopback() -> Places:
    """Return two addresses of this machine's loopback."""
    return Places((), (), "127.99.0.1", "127.99.0.2", "127.99.0.3", transparent=False)


@contextmanager
def namespaces() -> Iterator[Places]:
    """Make two namespaces with a veth between them, and the redirection of Service addresses in the client's."""
    client, app = (f"tulle-bench-{side}-{os.getpid()}" for side in ("client", "app"))
    with ExitStack() as stack:
        for name in (client, app):
            _run("ip", "netns", "add", name)
            stack.callback(_run, "ip", "netns", "del", name)
        _run(
            "ip", "link", "add", "veth-client", "netns", client,
            "type", "veth", "peer", "name", "veth-app", "netns", app,
        )  # fmt: skip
        for name, link, addresses in (
            (client, "veth-client", ("10.99.0.1",)),
            (app, "veth-app", ("10.99.0.2", "10.99.0.3")),
        ):
            for address in addresses:
                _run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", link)
            _run("ip", "-n", name, "link", "set", link, "up")
            _run("ip", "-n", name, "link", "set", "lo", "up")
            # BBR, where it is the default, paces bulk: what would be measured then is the pacing.
            _run("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno")
            # Short connections leave ports behind for a minute.
            _run("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.ip_local_port_range=5000 65000")
            _run("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1")
        _run("ip", "-n", client, "route", "add", _SERVICES, "via", "10.99.0.2")
        rules = (
            "table ip bench { chain output { type nat hook output priority -100; "
            f"ip daddr {_SERVICES} tcp dport 1-65535 redirect to :{OUTBOUND}; }}; }}"
        )
        _run("ip", "netns", "exec", client, "nft", rules)
        yield Places(_enter(client), _enter(app), "10.99.0.1", "10.99.0.2", "10.99.0.3", transparent=True)


@contextmanager
def tracked(places: Places) -> Iterator[None]:
    """Have the kernel keep account of connections at the application's side.

    linkerd2-proxy asks it of each connection where that was meant to go, and closes those that it does not know. The
    others take an unknown one as meant for them, so they are not made to pay for it.
    """
    if not places.transparent:
        yield
        return
    rules = "table ip tracked { chain prerouting { type filter hook prerouting priority 0; ct state new accept; }; }"
    _run(*places.app, "nft", rules)
    try:
        yield
    finally:
        _run(*places.app, "nft", "delete table ip tracked")


def _enter(name: str) -> Sequence[str]:
    return ("nsenter", f"--net=/run/netns/{name}")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=10)
