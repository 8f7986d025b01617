//! Messages of the proxy API, as short as the tests need them, and a DNS server that knows one name.

use std::net::{SocketAddr, UdpSocket};
use std::sync::OnceLock;

use tulle_api::destination::protocol_hint::{self, OpaqueTransport};
use tulle_api::destination::tls_identity::{DnsLikeIdentity, Strategy};
use tulle_api::destination::{
    AddrSet, DestinationProfile, ProtocolHint, TlsIdentity, Update, WeightedAddr, WeightedAddrSet,
    update,
};
use tulle_api::inbound::{self, Authn, Authz, Network, Server};
use tulle_api::net::{IpAddress, IpNetwork, TcpAddress, ip_address};
use tulle_api::outbound::{self, OutboundPolicy, proxy_protocol};
use tulle_engine::doc::{balancer, rule_to, service};

/// Where the DNS server of this process listens. It knows `control-plane.test`, which is 127.0.0.1,
/// `control-planes.test`, which is that and an address where nobody listens, and `at-127-0-0-9.test` of each address.
pub fn dns_server() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut question) {
                let answer = dns_answer(&question[..length]);
                let _sent = socket.send_to(&answer, client);
            }
        });
        address
    })
}

fn dns_answer(question: &[u8]) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2] |= 0x80;
    let addresses = match &question[12..question.len() - 4] {
        b"\x0dcontrol-plane\x04test\x00" => vec![[127, 0, 0, 1]],
        b"\x0econtrol-planes\x04test\x00" => vec![[127, 0, 0, 99], [127, 0, 0, 1]],
        name => match named_address(name) {
            Some(address) => vec![address],
            None => {
                answer[3] |= 3; // there is no such name
                return answer;
            }
        },
    };
    if question[question.len() - 4..].starts_with(&[0, 1]) {
        answer[7] = addresses.len() as u8;
        for address in addresses {
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
            answer.extend_from_slice(&address);
        }
    }
    answer
}

/// The address in `at-127-0-0-9.test`.
fn named_address(name: &[u8]) -> Option<[u8; 4]> {
    let label = name.get(1..)?.strip_suffix(b"\x04test\x00")?;
    let dashed = std::str::from_utf8(label).ok()?.strip_prefix("at-")?;
    let ip: std::net::Ipv4Addr = dashed.replace('-', ".").parse().ok()?;
    Some(ip.octets())
}

fn tcp_address(address: SocketAddr) -> TcpAddress {
    let std::net::IpAddr::V4(ip) = address.ip() else {
        panic!("IPv4")
    };
    TcpAddress {
        ip: Some(IpAddress {
            ip: Some(ip_address::Ip::Ipv4(ip.into())),
        }),
        port: u32::from(address.port()),
    }
}

/// HTTP/1 to the endpoints of `path`.
pub fn balanced(name: &str, path: &str) -> OutboundPolicy {
    let routes = vec![outbound::HttpRoute {
        metadata: Some(service(name)),
        hosts: Vec::new(),
        rules: vec![rule_to(balancer(name, path))],
    }];
    let http1 = proxy_protocol::Http1 {
        routes: routes.clone(),
        failure_accrual: None,
    };
    let http2 = proxy_protocol::Http2 {
        routes,
        failure_accrual: None,
    };
    OutboundPolicy {
        protocol: Some(outbound::ProxyProtocol {
            kind: Some(proxy_protocol::Kind::Detect(proxy_protocol::Detect {
                timeout: Some(prost_types::Duration {
                    seconds: 10,
                    nanos: 0,
                }),
                opaque: Some(proxy_protocol::Opaque::default()),
                http1: Some(http1),
                http2: Some(http2),
            })),
        }),
        metadata: Some(service(name)),
        ..Default::default()
    }
}

/// A plain endpoint.
pub fn plain(address: SocketAddr) -> WeightedAddr {
    WeightedAddr {
        addr: Some(tcp_address(address)),
        weight: 10_000,
        ..Default::default()
    }
}

/// An endpoint behind a sidecar.
pub fn meshed(address: SocketAddr, identity: &str, inbound_port: u16) -> WeightedAddr {
    WeightedAddr {
        tls_identity: Some(TlsIdentity {
            strategy: Some(Strategy::DnsLikeIdentity(DnsLikeIdentity {
                name: identity.to_owned(),
            })),
            ..Default::default()
        }),
        protocol_hint: Some(ProtocolHint {
            opaque_transport: Some(OpaqueTransport {
                inbound_port: u32::from(inbound_port),
            }),
            ..Default::default()
        }),
        ..plain(address)
    }
}

/// The same, which takes HTTP/2.
pub fn hinted_h2(mut endpoint: WeightedAddr) -> WeightedAddr {
    let hint = endpoint.protocol_hint.get_or_insert_default();
    hint.protocol = Some(protocol_hint::Protocol::H2(protocol_hint::H2 {}));
    endpoint
}

/// The same port, of which nobody knows what is spoken.
pub fn opaque(mut server: Server) -> Server {
    server.protocol = Some(inbound::ProxyProtocol {
        kind: Some(inbound::proxy_protocol::Kind::Opaque(
            inbound::proxy_protocol::Opaque {},
        )),
    });
    server
}

pub fn add(addrs: Vec<WeightedAddr>) -> Update {
    Update {
        update: Some(update::Update::Add(WeightedAddrSet {
            addrs,
            ..Default::default()
        })),
    }
}

pub fn remove(address: SocketAddr) -> Update {
    Update {
        update: Some(update::Update::Remove(AddrSet {
            addrs: vec![tcp_address(address)],
        })),
    }
}

/// A profile whose address is one endpoint.
pub fn endpoint_profile(endpoint: WeightedAddr) -> DestinationProfile {
    DestinationProfile {
        endpoint: Some(endpoint),
        ..Default::default()
    }
}

/// A port that lets everybody in, or (without authorization) nobody.
pub fn server(name: &str, open: bool) -> Server {
    let everywhere = Network {
        net: Some(IpNetwork {
            ip: Some(IpAddress {
                ip: Some(ip_address::Ip::Ipv4(0)),
            }),
            prefix_len: 0,
        }),
        except: Vec::new(),
    };
    let authorization = Authz {
        networks: vec![everywhere],
        authentication: Some(Authn {
            permit: Some(inbound::authn::Permit::Unauthenticated(
                inbound::authn::PermitUnauthenticated {},
            )),
        }),
        metadata: Some(service(name)),
        ..Default::default()
    };
    Server {
        protocol: Some(inbound::ProxyProtocol {
            kind: Some(inbound::proxy_protocol::Kind::Http1(
                inbound::proxy_protocol::Http1 {
                    routes: vec![inbound::HttpRoute {
                        metadata: Some(service(name)),
                        rules: vec![inbound::http_route::Rule {
                            matches: vec![Default::default()],
                            ..Default::default()
                        }],
                        ..Default::default()
                    }],
                    ..Default::default()
                },
            )),
        }),
        authorizations: if open {
            vec![authorization]
        } else {
            Vec::new()
        },
        labels: [("group", ""), ("kind", "default"), ("name", name)]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        ..Default::default()
    }
}
