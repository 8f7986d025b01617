//! Compiling never panics and deciding never panics, whatever a message holds: random bytes decoded as messages, and
//! sound messages with bytes flipped.

#![allow(clippy::indexing_slicing)]

use proptest::prelude::*;
use prost::Message;
use tulle_api::{inbound, outbound};
use tulle_engine::doc;

#[path = "../../../fuzz/drivers/messages.rs"]
#[allow(dead_code, clippy::expect_used, clippy::panic)]
mod messages;

use messages::{endpoints, inbound as server, outbound as policy, tap};

/// Fields nested as protobuf nests them, so that random bytes get past the decoder.
fn fields() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        (tag(), any::<u64>()).prop_map(|(tag, number)| {
            let mut bytes = Vec::new();
            prost::encoding::encode_varint(u64::from(tag << 3), &mut bytes);
            prost::encoding::encode_varint(number, &mut bytes);
            bytes
        }),
        (tag(), proptest::collection::vec(any::<u8>(), 0..12))
            .prop_map(|(tag, text)| nested(tag, &text)),
        (tag(), "[/.*(a-c1]{0,8}").prop_map(|(tag, text)| nested(tag, text.as_bytes())),
    ];
    leaf.prop_recursive(8, 64, 4, |inner| {
        (tag(), proptest::collection::vec(inner, 0..4))
            .prop_map(|(tag, parts)| nested(tag, &parts.concat()))
    })
}

/// Linkerd's fields and our extensions.
fn tag() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 1_u32..8, 1 => 1000_u32..1005]
}

fn nested(tag: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(u64::from(tag << 3 | 2), &mut bytes);
    prost::encoding::encode_varint(body.len() as u64, &mut bytes);
    bytes.extend_from_slice(body);
    bytes
}

/// The example with one filter of each kind that needs an extension.
fn with_filters() -> outbound::OutboundPolicy {
    use outbound::http_route::{Filter, filter::Kind};
    use tulle_api::http_route as api;
    let mut message = doc::policy();
    let Some(outbound::proxy_protocol::Kind::Http1(http)) =
        message.protocol.as_mut().and_then(|p| p.kind.as_mut())
    else {
        return message;
    };
    let rule = &mut http.routes[0].rules[0];
    let origin = api::cors::origin_match::Kind::Wildcard("https://*.example".into());
    let kinds = [
        Kind::UrlRewrite(api::UrlRewrite {
            host: "a.b".into(),
            path: Some(api::PathModifier {
                replace: Some(api::path_modifier::Replace::Prefix("/a".into())),
            }),
        }),
        Kind::Fault(api::FaultInjector {
            delay: Some(api::fault_injector::Delay {
                duration: Some(prost_types::Duration {
                    seconds: 1,
                    nanos: 0,
                }),
                ratio: Some(api::Ratio {
                    numerator: 1,
                    denominator: 2,
                }),
            }),
            ..Default::default()
        }),
        Kind::Cors(api::Cors {
            allow_origins: vec![api::cors::OriginMatch { kind: Some(origin) }],
            ..Default::default()
        }),
        Kind::Mirror(outbound::Mirror::default()),
    ];
    rule.filters = kinds
        .into_iter()
        .map(|kind| Filter { kind: Some(kind) })
        .collect();
    message
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_message_compiles_or_is_refused(parts in proptest::collection::vec(fields(), 0..6)) {
        let bytes = parts.concat();
        policy(&bytes);
        server(&bytes);
        endpoints(&bytes);
        tap(&bytes);
    }

    #[test]
    fn a_sound_policy_with_bytes_flipped_compiles_or_is_refused(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = with_filters().encode_to_vec();
        for (place, value) in flips {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        policy(&bytes);
    }

    #[test]
    fn a_sound_server_with_requirements_and_bytes_flipped_compiles_or_is_refused(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = requiring().encode_to_vec();
        for (place, value) in flips {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        server(&bytes);
    }
}

/// A server with everything that a request may have to meet beside authorization.
fn requiring() -> inbound::Server {
    use tulle_api::inbound as api;
    let limit = Some(api::http_local_rate_limit::Limit {
        requests_per_second: 7,
    });
    let grpc = api::proxy_protocol::Grpc {
        routes: vec![api::GrpcRoute {
            rules: vec![api::grpc_route::Rule::default()],
            ..Default::default()
        }],
        local_rate_limit: Some(api::HttpLocalRateLimit {
            total: limit,
            identity: limit,
            overrides: vec![api::http_local_rate_limit::Override {
                limit,
                clients: None,
            }],
            metadata: None,
        }),
    };
    api::Server {
        protocol: Some(api::ProxyProtocol {
            kind: Some(api::proxy_protocol::Kind::Grpc(grpc)),
        }),
        jwt: vec![api::Jwt {
            issuer: "issuer".into(),
            jwks: r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#.into(),
            claim_headers: vec![api::jwt::ClaimHeader {
                claim: "a.b".into(),
                header: "x-a".into(),
            }],
            ..Default::default()
        }],
        external_authorization: Some(api::ExternalAuthorization {
            authority: "authz:9000".into(),
            max_request_bytes: 100,
            ..Default::default()
        }),
        max_in_flight: 3,
        ..Default::default()
    }
}
