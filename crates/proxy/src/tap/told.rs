//! What is told of a request, as messages of the API.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use prost::Message as _;
use tulle_api::tap::TapEvent;
use tulle_api::tap::tap_event::{EndpointMeta, Event, Http, ProxyDirection, RouteMeta, http};
use tulle_api::{http_types, net};
use tulle_engine::Meta;
use tulle_engine::tap::Labels;
use tulle_http::{Head, Version};

use super::watched::{Seen, Tls};
use crate::observe::Direction;

/// Headers whose values are credentials: that they are there is told, what they say is not.
const SECRET: [&[u8]; 4] = [
    b"authorization",
    b"proxy-authorization",
    b"cookie",
    b"set-cookie",
];
const REDACTED: &[u8] = b"[redacted]";

/// What all events of a request have in common.
pub fn base(seen: &Seen<'_>) -> TapEvent {
    let mut source = EndpointMeta::default();
    tls(&mut source, "client_id", seen.source_tls);
    let direction = match seen.direction {
        Direction::Inbound => ProxyDirection::Inbound,
        Direction::Outbound => ProxyDirection::Outbound,
    };
    let route = seen.route.map(|route| RouteMeta {
        labels: owned(Labels::List(&route_labels(route))),
    });
    let mut event = TapEvent {
        source: seen.source.map(address),
        source_meta: Some(source),
        proxy_direction: direction.into(),
        route_meta: route,
        ..TapEvent::default()
    };
    destination(
        &mut event,
        seen.destination,
        seen.destination_labels,
        seen.destination_tls,
    );
    event
}

/// Where the request went, in the end.
pub fn destination(
    event: &mut TapEvent,
    at: Option<SocketAddr>,
    labels: Labels<'_>,
    proof: Tls<'_>,
) {
    let mut meta = EndpointMeta {
        labels: owned(labels),
    };
    tls(&mut meta, "server_id", proof);
    event.destination = at.map(address);
    event.destination_meta = Some(meta);
}

/// The labels of a route: those of the metrics, and `route` for one of a ServiceProfile.
pub fn route_labels(route: &Meta) -> [(&str, &str); 5] {
    let profile = match route.kind() {
        "ServiceProfile" => route.section(),
        _ => "",
    };
    [
        ("route", profile),
        ("route_group", route.group()),
        ("route_kind", route.kind()),
        ("route_name", route.name()),
        ("route_namespace", route.namespace()),
    ]
}

fn owned(labels: Labels<'_>) -> std::collections::BTreeMap<String, String> {
    match labels {
        Labels::Map(map) => map.clone(),
        Labels::List(list) => list
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

fn tls(meta: &mut EndpointMeta, identity: &str, proof: Tls<'_>) {
    let value = match proof {
        Tls::None(why) => why,
        Tls::Peer(name) => {
            meta.labels.insert(identity.to_owned(), name.to_owned());
            "true"
        }
    };
    meta.labels.insert("tls".to_owned(), value.to_owned());
}

fn address(at: SocketAddr) -> net::TcpAddress {
    let ip = match at.ip().to_canonical() {
        IpAddr::V4(v4) => net::ip_address::Ip::Ipv4(v4.into()),
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            net::ip_address::Ip::Ipv6(net::IPv6 {
                first: (bits >> 64) as u64,
                last: bits as u64,
            })
        }
    };
    net::TcpAddress {
        ip: Some(net::IpAddress { ip: Some(ip) }),
        port: u32::from(at.port()),
    }
}

/// The request as it begins.
pub fn request_init(head: &Head, headers: bool, bridged: bool) -> http::RequestInit {
    let path = tulle_engine::tap::without_query(head.path());
    http::RequestInit {
        id: None,
        method: Some(method(head.method())),
        scheme: scheme(head.scheme()),
        authority: text(head.authority().unwrap_or_default()),
        path: text(path),
        headers: headers.then(|| {
            let authority = head.authority().unwrap_or_default();
            let before: &[(&str, &[u8])] = match (head.version(), bridged) {
                (Version::Http2, false) => &[
                    (":method", head.method()),
                    (":scheme", head.scheme()),
                    (":authority", authority),
                    (":path", head.path()),
                ],
                _ => &[("host", authority)],
            };
            fields(before, head)
        }),
    }
}

/// Its answer as it begins.
pub fn response_init(head: &Head, headers: bool, since: Duration) -> http::ResponseInit {
    http::ResponseInit {
        id: None,
        since_request_init: duration(since),
        http_status: u32::from(head.status()),
        headers: headers.then(|| {
            let status = head.status().to_string();
            match head.version() {
                Version::Http2 => fields(&[(":status", status.as_bytes())], head),
                _ => fields(&[], head),
            }
        }),
    }
}

/// Trailers, as they are told.
pub fn trailers(head: &Head) -> http_types::Headers {
    fields(&[], head)
}

fn fields(before: &[(&str, &[u8])], head: &Head) -> http_types::Headers {
    let field = |name: &[u8], value: &[u8]| http_types::headers::Header {
        name: text(name),
        value: match SECRET.contains(&name) {
            true => REDACTED.into(),
            false => value.into(),
        },
    };
    let before = before
        .iter()
        .map(|(name, value)| field(name.as_bytes(), value));
    // How one proxy carries a request to another is no part of it.
    let own = head.iter().filter(|(name, _)| *name != b"l5d-orig-proto");
    http_types::Headers {
        headers: before
            .chain(own.map(|(name, value)| field(name, value)))
            .collect(),
    }
}

fn method(name: &[u8]) -> http_types::HttpMethod {
    use http_types::http_method::{Registered, Type};
    let name = text(name);
    let known = Registered::from_str_name(&name);
    http_types::HttpMethod {
        r#type: Some(match known {
            Some(method) => Type::Registered(method.into()),
            None => Type::Unregistered(name),
        }),
    }
}

fn scheme(name: &[u8]) -> Option<http_types::Scheme> {
    use http_types::scheme::{Registered, Type};
    let kind = match name {
        b"" => return None,
        b"http" => Type::Registered(Registered::Http.into()),
        b"https" => Type::Registered(Registered::Https.into()),
        other => Type::Unregistered(text(other)),
    };
    Some(http_types::Scheme { r#type: Some(kind) })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn duration(length: Duration) -> Option<prost_types::Duration> {
    Some(prost_types::Duration {
        seconds: i64::try_from(length.as_secs()).ok()?,
        nanos: i32::try_from(length.subsec_nanos()).ok()?,
    })
}

/// One message of a gRPC stream.
pub fn framed(base: &mut TapEvent, event: http::Event) -> Vec<u8> {
    base.event = Some(Event::Http(Http { event: Some(event) }));
    let length = base.encoded_len();
    let mut out = Vec::with_capacity(5 + length);
    out.push(0);
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    // A vector takes whatever is written to it.
    let _infallible = base.encode(&mut out);
    out
}
