//! What happens to traffic for which there is no policy: messages as a controller would send them, so that the data
//! path knows one kind of policy only. Pure.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tulle_api::destination::WeightedAddr;
use tulle_api::http_route::HttpFailureInjector;
use tulle_api::meta::{Metadata, metadata};
use tulle_api::net::{IPv6, IpAddress, TcpAddress, ip_address};
use tulle_api::outbound::{self as api, backend, http_route, opaque_route, proxy_protocol};

/// Forwards everything to one endpoint: HTTP as HTTP, all else as bytes; `opaque` says not to look.
pub fn forward(
    name: &str,
    endpoint: WeightedAddr,
    opaque: bool,
    detect: Duration,
) -> api::OutboundPolicy {
    let metadata = || {
        Some(Metadata {
            kind: Some(metadata::Kind::Default(name.to_owned())),
        })
    };
    let backend = api::Backend {
        metadata: metadata(),
        kind: Some(backend::Kind::Forward(endpoint)),
        queue: None,
    };
    let http = http_route::Rule {
        backends: Some(http_route::Distribution {
            kind: Some(http_route::distribution::Kind::FirstAvailable(
                http_route::distribution::FirstAvailable {
                    backends: vec![http_route::RouteBackend {
                        backend: Some(backend.clone()),
                        ..Default::default()
                    }],
                },
            )),
        }),
        ..Default::default()
    };
    let bytes = opaque_route::Rule {
        backends: Some(opaque_route::Distribution {
            kind: Some(opaque_route::distribution::Kind::FirstAvailable(
                opaque_route::distribution::FirstAvailable {
                    backends: vec![opaque_route::RouteBackend {
                        backend: Some(backend),
                        ..Default::default()
                    }],
                },
            )),
        }),
        ..Default::default()
    };
    let bytes = proxy_protocol::Opaque {
        routes: vec![api::OpaqueRoute {
            metadata: metadata(),
            rules: vec![bytes],
        }],
    };
    let kind = if opaque {
        proxy_protocol::Kind::Opaque(bytes)
    } else {
        detected(
            vec![api::HttpRoute {
                metadata: metadata(),
                hosts: Vec::new(),
                rules: vec![http],
            }],
            bytes,
            detect,
        )
    };
    api::OutboundPolicy {
        protocol: Some(api::ProxyProtocol { kind: Some(kind) }),
        metadata: metadata(),
        ..Default::default()
    }
}

/// Answers every request with a status and a reason; there is nowhere to send bytes to.
pub fn failing(name: &str, status: u16, why: &str) -> api::OutboundPolicy {
    let metadata = || {
        Some(Metadata {
            kind: Some(metadata::Kind::Default(name.to_owned())),
        })
    };
    let injector = HttpFailureInjector {
        status: u32::from(status),
        message: why.to_owned(),
        ratio: None,
    };
    let rule = http_route::Rule {
        filters: vec![http_route::Filter {
            kind: Some(http_route::filter::Kind::FailureInjector(injector)),
        }],
        backends: Some(http_route::Distribution {
            kind: Some(http_route::distribution::Kind::Empty(
                http_route::distribution::Empty {},
            )),
        }),
        ..Default::default()
    };
    let route = api::HttpRoute {
        metadata: metadata(),
        hosts: Vec::new(),
        rules: vec![rule],
    };
    let kind = detected(
        vec![route],
        proxy_protocol::Opaque::default(),
        Duration::from_secs(10),
    );
    api::OutboundPolicy {
        protocol: Some(api::ProxyProtocol { kind: Some(kind) }),
        metadata: metadata(),
        ..Default::default()
    }
}

fn detected(
    routes: Vec<api::HttpRoute>,
    opaque: proxy_protocol::Opaque,
    timeout: Duration,
) -> proxy_protocol::Kind {
    proxy_protocol::Kind::Detect(proxy_protocol::Detect {
        timeout: Some(prost_types::Duration {
            seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(timeout.subsec_nanos()).unwrap_or(0),
        }),
        opaque: Some(opaque),
        http1: Some(proxy_protocol::Http1 {
            routes: routes.clone(),
            failure_accrual: None,
        }),
        http2: Some(proxy_protocol::Http2 {
            routes,
            failure_accrual: None,
        }),
    })
}

/// An address as an endpoint that is not in the mesh.
pub fn plain(address: SocketAddr) -> WeightedAddr {
    WeightedAddr {
        addr: Some(tcp_address(address)),
        weight: 1,
        ..Default::default()
    }
}

/// An address as a message.
pub fn tcp_address(address: SocketAddr) -> TcpAddress {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip_address::Ip::Ipv4(ip.into()),
        IpAddr::V6(ip) => {
            let bits = u128::from(ip);
            ip_address::Ip::Ipv6(IPv6 {
                first: (bits >> 64) as u64,
                last: bits as u64,
            })
        }
    };
    TcpAddress {
        ip: Some(IpAddress { ip: Some(ip) }),
        port: u32::from(address.port()),
    }
}

/// Host and port of an authority; 80 when it names none.
pub fn host_and_port(authority: &str) -> Option<(&str, u16)> {
    if let Some(v6) = authority.strip_prefix('[') {
        let (host, rest) = v6.split_once(']')?;
        let port = match rest.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if rest.is_empty() => 80,
            None => return None,
        };
        return Some((host, port));
    }
    match authority.rsplit_once(':') {
        Some((host, port)) => Some((host, port.parse().ok()?)),
        None => Some((authority, 80)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tulle_engine::RequestView;
    use tulle_engine::outbound::{BackendKind, HttpVersion, Policy};

    fn address() -> SocketAddr {
        "10.0.0.7:8080".parse().expect("address")
    }

    #[test]
    fn the_original_destination_is_a_policy_with_one_backend() {
        for opaque in [false, true] {
            let message = forward(
                "original",
                plain(address()),
                opaque,
                Duration::from_secs(10),
            );
            let policy = Policy::compile(&message).expect("a policy");
            assert!(policy.problems.is_empty(), "{:?}", policy.problems);
            let BackendKind::Forward(endpoint) = &policy.backends[0].kind else {
                panic!("a forward")
            };
            assert_eq!(
                (policy.backends.len(), endpoint.addr, endpoint.tls.is_none()),
                (1, address(), true)
            );
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_its_reason() {
        let policy =
            Policy::compile(&failing("unknown", 404, "nobody knows voting2")).expect("a policy");
        assert!(policy.problems.is_empty(), "{:?}", policy.problems);
        let request = RequestView {
            method: b"GET",
            authority: b"voting2",
            path: b"/",
            headers: &(),
        };
        let found = policy.route(HttpVersion::Http1, &request).expect("a route");
        assert_eq!(found.rule.filters.len(), 1);
    }

    #[test]
    fn authorities_are_split() {
        assert_eq!(host_and_port("voting"), Some(("voting", 80)));
        assert_eq!(host_and_port("voting:8080"), Some(("voting", 8080)));
        assert_eq!(host_and_port("[fd00::1]:8080"), Some(("fd00::1", 8080)));
        assert_eq!(host_and_port("voting:http"), None);
    }
}
