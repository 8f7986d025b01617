//! Compiling never panics and deciding never panics, whatever a message holds: random bytes decoded as messages, and
//! sound messages with bytes flipped.

#![allow(clippy::indexing_slicing)]

use proptest::prelude::*;
use prost::Message;
use tulle_api::{destination, inbound, outbound};
use tulle_engine::destination::{Endpoints, Profile};
use tulle_engine::inbound::{Peer, PeerTls, Server};
use tulle_engine::outbound::{HttpVersion, Policy};
use tulle_engine::{RequestView, doc};

/// Compiles and, where that works, decides.
fn outbound(bytes: &[u8]) {
    let Ok(message) = outbound::OutboundPolicy::decode(bytes) else {
        return;
    };
    let Ok(policy) = Policy::compile(&message) else {
        return;
    };
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        for (authority, path) in [
            ("voting", "/api/vote?a=%"),
            ("", ""),
            ("[", "*"),
            ("a:b:c", "/a/b"),
        ] {
            let request = RequestView {
                method: b"GET",
                authority: authority.as_bytes(),
                path: path.as_bytes(),
                headers: &(),
            };
            if let Some(found) = policy.route(version, &request) {
                let _ = found.answer(&request, 7);
                let _ = found.delay(&request, 7);
                if let Some(backend) = found.rule.backend(u64::MAX, |_| true) {
                    assert!(backend.backend.index() < policy.backends.len());
                }
            }
        }
    }
    let _ = policy.route_connection(b"a.b");
}

fn inbound(bytes: &[u8]) {
    let Ok(message) = inbound::Server::decode(bytes) else {
        return;
    };
    let Ok(server) = Server::compile(&message) else {
        return;
    };
    let peer = Peer {
        addr: std::net::Ipv4Addr::LOCALHOST.into(),
        tls: PeerTls::Identity("a.b"),
    };
    let grants = server.grants(&peer);
    let _ = server.authorize_connection(&grants);
    let request = RequestView {
        method: b"GET",
        authority: b"a",
        path: b"/a?b=%4",
        headers: &(),
    };
    if let Some(found) = server.route(&request) {
        let _ = server.authorize(&grants, &found);
    }
    let _ = server.service(b"a.b:80");
}

fn endpoints(bytes: &[u8]) {
    if let Ok(message) = destination::Update::decode(bytes) {
        let mut endpoints = Endpoints::default();
        endpoints.apply(&message, true);
        endpoints.apply(&message, false);
    }
    if let Ok(message) = destination::DestinationProfile::decode(bytes) {
        let _ = Profile::compile(&message);
    }
}

/// Fields nested as protobuf nests them, so that random bytes get past the decoder.
fn fields() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        (1_u32..8, any::<u64>()).prop_map(|(tag, number)| {
            let mut bytes = vec![(tag << 3) as u8];
            prost::encoding::encode_varint(number, &mut bytes);
            bytes
        }),
        (1_u32..8, proptest::collection::vec(any::<u8>(), 0..12))
            .prop_map(|(tag, text)| nested(tag, &text)),
        (1_u32..8, "[/.*(a-c1]{0,8}").prop_map(|(tag, text)| nested(tag, text.as_bytes())),
    ];
    leaf.prop_recursive(8, 64, 4, |inner| {
        (1_u32..8, proptest::collection::vec(inner, 0..4))
            .prop_map(|(tag, parts)| nested(tag, &parts.concat()))
    })
}

fn nested(tag: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![(tag << 3 | 2) as u8];
    prost::encoding::encode_varint(body.len() as u64, &mut bytes);
    bytes.extend_from_slice(body);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_message_compiles_or_is_refused(parts in proptest::collection::vec(fields(), 0..6)) {
        let bytes = parts.concat();
        outbound(&bytes);
        inbound(&bytes);
        endpoints(&bytes);
    }

    #[test]
    fn a_sound_policy_with_bytes_flipped_compiles_or_is_refused(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = doc::policy().encode_to_vec();
        for (place, value) in flips {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        outbound(&bytes);
    }
}
