"""nginx for one hop."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bench.rivals import Hop
    from tests.bench.scenarios import Scenario

__all__ = ["command", "lacks"]

STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def lacks(scenario: "Scenario") -> str:
    """Return what this machine's nginx lacks for a scenario; empty when nothing."""
    return "" if scenario.http or STREAM.exists() else "no stream module (Debian's libnginx-mod-stream)"


def command(binary: str, hop: "Hop", side: str) -> Sequence[str]:
    """Write the configuration; return the command."""
    path = hop.folder / f"nginx-{side}.conf"
    body = _http(hop) if hop.app in ("http", "grpc") else _stream(hop)
    path.write_text(f"""
daemon off; master_process off; worker_rlimit_nofile 16000;
pid {hop.folder}/nginx-{side}.pid; error_log {hop.folder}/nginx-{side}-error.log;
{f"load_module {STREAM};" if hop.app not in ("http", "grpc") else ""}
events {{ worker_connections 8000; }}
{body}
""")
    return (binary, "-c", str(path), "-p", str(hop.folder))


def _tls(hop: "Hop", verb: str) -> str:
    key = hop.certificate.with_suffix(".key")
    if hop.tls == "in":
        return f"""ssl_protocols TLSv1.3; ssl_certificate {hop.certificate}; ssl_certificate_key {key};
        ssl_client_certificate {hop.ca}; ssl_verify_client on;"""
    if hop.tls == "out":
        return f"""{verb}_ssl_protocols TLSv1.3; {verb}_ssl_certificate {hop.certificate}; {verb}_ssl_certificate_key {key};
        {verb}_ssl_trusted_certificate {hop.ca}; {verb}_ssl_verify on; {verb}_ssl_name peer.bench; {verb}_ssl_server_name on;"""
    return ""


def _http(hop: "Hop") -> str:
    grpc = hop.app == "grpc"
    listen = (
        f"{hop.listen[0]}:{hop.listen[1]}" + (" ssl" if hop.tls == "in" else "") + (" http2" if grpc else "")
    )
    scheme = ("grpc" if grpc else "http") + ("s" if hop.tls == "out" else "")
    verb = "grpc" if grpc else "proxy"
    forward = "" if grpc else 'proxy_http_version 1.1; proxy_set_header Connection "";'
    temp = " ".join(
        f"{kind}_temp_path {hop.folder}/tmp;" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
http {{
    access_log off; keepalive_requests 1000000000; http2_max_concurrent_streams 256; {temp}
    upstream next {{ server {hop.target[0]}:{hop.target[1]}; keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen {listen};
        {_tls(hop, verb)}
        location / {{ {forward} {verb}_pass {scheme}://next; }}
    }}
}}"""


def _stream(hop: "Hop") -> str:
    listen = f"{hop.listen[0]}:{hop.listen[1]}" + (" ssl" if hop.tls == "in" else "")
    return f"""
stream {{
    server {{
        listen {listen};
        {_tls(hop, "proxy")}
        {"proxy_ssl on;" if hop.tls == "out" else ""}
        proxy_pass {hop.target[0]}:{hop.target[1]};
    }}
}}"""
