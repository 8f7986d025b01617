"""Envoy for one hop."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from tests.bench.rivals import Hop

__all__ = ["command"]

_TYPE = "type.googleapis.com/envoy.extensions."


def command(binary: str, hop: "Hop", side: str) -> Sequence[str]:
    """Write the configuration; return the command."""
    path = hop.folder / f"envoy-{side}.yaml"
    path.write_text(yaml.safe_dump(_config(hop)))
    return (binary, "-c", str(path), "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning")


def _tls(context: str, ca: Path, certificate: Path, *, http: bool) -> dict[str, Any]:
    common: dict[str, Any] = {
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
            "ecdh_curves": ["X25519MLKEM768", "X25519"],
        },
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(certificate)},
                "private_key": {"filename": str(certificate.with_suffix(".key"))},
            }
        ],
        "validation_context": {
            "trusted_ca": {"filename": str(ca)},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "peer.bench"}}],
        },
    }
    if http:
        common["alpn_protocols"] = ["h2"]
    config: dict[str, Any] = {
        "@type": f"{_TYPE}transport_sockets.tls.v3.{context}",
        "common_tls_context": common,
    }
    if context == "DownstreamTlsContext":
        config["require_client_certificate"] = True
    else:
        config["sni"] = "peer.bench"
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def _address(address: tuple[str, int]) -> dict[str, Any]:
    return {"socket_address": {"address": address[0], "port_value": address[1]}}


def _http_filter(name: str, kind: str) -> dict[str, Any]:
    return {
        "name": f"envoy.filters.http.{name}",
        "typed_config": {"@type": f"{_TYPE}filters.http.{name}.v3.{kind}"},
    }


def _manager(*, http2: bool) -> dict[str, Any]:
    """Return a connection manager with the filters that a mesh always has: faults, CORS and the router."""
    config = {
        "@type": f"{_TYPE}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "codec_type": "HTTP2" if http2 else "HTTP1",
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "next"}}]}
            ]
        },
        "http_filters": [
            _http_filter("fault", "HTTPFault"), _http_filter("cors", "Cors"), _http_filter("router", "Router"),
        ],
    }  # fmt: skip
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def _relay() -> dict[str, Any]:
    config = {
        "@type": f"{_TYPE}filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "bench",
        "cluster": "next",
    }
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": config}


def _config(hop: "Hop") -> dict[str, Any]:
    http, grpc = hop.app in ("http", "grpc"), hop.app == "grpc"
    chain: dict[str, Any] = {"filters": [_manager(http2=grpc or hop.tls == "in") if http else _relay()]}
    cluster: dict[str, Any] = {
        "name": "next",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "next",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(hop.target)}}]}],
        },
    }
    if hop.tls == "in":
        chain["transport_socket"] = _tls("DownstreamTlsContext", hop.ca, hop.certificate, http=http)
    if hop.tls == "out":
        cluster["transport_socket"] = _tls("UpstreamTlsContext", hop.ca, hop.certificate, http=http)
    if http and (grpc or hop.tls == "out"):
        options = f"{_TYPE}upstreams.http.v3.HttpProtocolOptions"
        cluster["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
    listener = {"name": "bench", "address": _address(hop.listen), "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
