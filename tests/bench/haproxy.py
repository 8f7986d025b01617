"""HAProxy for one hop."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bench.rivals import Hop

__all__ = ["command"]


def command(binary: str, hop: "Hop", side: str) -> Sequence[str]:
    """Write the configuration; return the command."""
    path = hop.folder / f"haproxy-{side}.cfg"
    path.write_text(_config(hop))
    return (binary, "-db", "-q", "-f", str(path))


def _config(hop: "Hop") -> str:
    http, grpc = hop.app in ("http", "grpc"), hop.app == "grpc"
    bind = f"bind {hop.listen[0]}:{hop.listen[1]}"
    server = f"server next {hop.target[0]}:{hop.target[1]}"
    alpn = "h2" if grpc else "http/1.1"
    tls = f"ca-file {hop.ca} crt {hop.certificate.with_suffix('.pem')} ssl-min-ver TLSv1.3"
    if hop.tls == "in":
        bind += f" ssl {tls} verify required" + (f" alpn {alpn}" if http else "")
        server += " proto h2" if grpc else ""
    elif hop.tls == "out":
        bind += " proto h2" if grpc else ""
        server += f" ssl {tls} verify required verifyhost peer.bench sni str(peer.bench)"
        server += f" alpn {alpn}" if http else ""
    return f"""
global
    nbthread 1
    maxconn 8000
defaults
    mode {"http" if http else "tcp"}
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    {"http-reuse always" if http else ""}
frontend in
    {bind}
    default_backend out
backend out
    {server}
"""
