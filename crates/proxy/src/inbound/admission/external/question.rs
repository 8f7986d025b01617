//! The question: who asks for what, as Envoy tells it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use prost::Message as _;
use tulle_api::envoy::config::core::v3::{Address, SocketAddress, address, socket_address};
use tulle_api::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use tulle_api::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use tulle_http::{Head, Version, translate};

use crate::http::replay::Replay;
use crate::inbound::Inbound;
use crate::inbound::session::Session;

/// Told to the service beside the client's fields when it sees a body: whether that is all of it. Envoy's name.
const PARTIAL: &str = "x-envoy-auth-partial-body";

/// The message with gRPC's five octets before it.
pub fn question(
    inbound: &Inbound,
    session: &Session,
    head: &Head,
    seen: Option<&Replay>,
    has_body: bool,
) -> Vec<u8> {
    let identity = inbound.config.identity.as_ref();
    let message = CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer {
                address: Some(address_of(session.client())),
                principal: session
                    .peer()
                    .map_or_else(String::new, |peer| peer.name.to_string()),
                ..Default::default()
            }),
            destination: Some(Peer {
                address: Some(address_of(session.port().application.reach().address())),
                principal: identity.map_or_else(String::new, |own| own.local_name.clone()),
                ..Default::default()
            }),
            request: Some(Request {
                time: Some(SystemTime::now().into()),
                http: Some(http(head, seen, has_body)),
            }),
        }),
    };
    let length = message.encoded_len();
    let mut framed = Vec::with_capacity(5 + length);
    framed.push(0);
    framed.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    // The one error is a buffer that is too small, and this one grows.
    let _grows = message.encode(&mut framed);
    framed
}

fn http(head: &Head, seen: Option<&Replay>, has_body: bool) -> HttpRequest {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in head.iter() {
        if name.starts_with(b"l5d-") {
            continue;
        }
        let separator = if name == b"cookie" { "; " } else { "," };
        let value = text(value);
        headers
            .entry(text(name))
            .and_modify(|known| {
                known.push_str(separator);
                known.push_str(&value);
            })
            .or_insert(value);
    }
    let size = match (has_body, translate::declared_length(head)) {
        (false, _) => 0,
        (true, Ok(Some(length))) => i64::try_from(length).unwrap_or(i64::MAX),
        (true, _) => -1,
    };
    let (mut body, mut raw_body) = (String::new(), Vec::new());
    if let Some(seen) = seen {
        headers.insert(PARTIAL.to_owned(), (!seen.is_whole()).to_string());
        match std::str::from_utf8(seen.bytes()) {
            Ok(text) => body = text.to_owned(),
            Err(_) => raw_body = seen.bytes().to_vec(),
        }
    }
    HttpRequest {
        id: head.get("x-request-id").map_or_else(String::new, text),
        method: text(head.method()),
        headers,
        path: text(head.path()),
        host: text(head.authority().unwrap_or_default()),
        // HTTP/1 does not say; what reaches the application is plain.
        scheme: match head.scheme() {
            b"" => "http".to_owned(),
            scheme => text(scheme),
        },
        size,
        protocol: match head.version() {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        }
        .to_owned(),
        body,
        raw_body,
    }
}

fn address_of(address: SocketAddr) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: address.ip().to_canonical().to_string(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(u32::from(
                address.port(),
            ))),
        })),
    }
}
