//! Messages of the control plane, and requests that are decided by them: compiling and deciding never panic, and what
//! is decided is among what was sent.

use std::time::Duration;

use prost::Message as _;
use tulle_api::tap::ObserveRequest;
use tulle_api::{destination, inbound as inbound_api, outbound as outbound_api};
use tulle_engine::destination::{Endpoints, MAX_ENDPOINTS, Profile};
use tulle_engine::inbound::{Key, Peer, PeerTls, RateLimiter, Server, Verifier};
use tulle_engine::outbound::{HttpVersion, Policy};
use tulle_engine::tap::{Labels, MAX_LIMIT, Subject, Wish};
use tulle_engine::{RequestView, doc};

/// Compiles and, where that works, decides.
pub fn outbound(bytes: &[u8]) {
    let Ok(message) = outbound_api::OutboundPolicy::decode(bytes) else {
        return;
    };
    let Ok(policy) = Policy::compile(&message) else {
        return;
    };
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
        decide(&policy, &request);
    }
    let _ = policy.route_connection(b"a.b");
}

/// One request of any octets, by the routes of an example.
pub fn routes(bytes: &[u8]) {
    let Ok(policy) = Policy::compile(&doc::policy()) else {
        panic!("the example compiles");
    };
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let request = RequestView {
        method: part(),
        authority: part(),
        path: part(),
        headers: &(),
    };
    decide(&policy, &request);
}

fn decide(policy: &Policy, request: &RequestView<'_, ()>) {
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let Some(found) = policy.route(version, request) else {
            continue;
        };
        let again = policy.route(version, request);
        assert_eq!(
            again.map(|again| again.rule as *const _),
            Some(found.rule as *const _)
        );
        let _ = found.answer(request, 7);
        let _ = found.delay(request, 7);
        for random in [0, 7, u64::MAX] {
            if let Some(backend) = found.rule.backend(random, |_| true) {
                assert!(backend.backend.index() < policy.backends.len());
            }
        }
    }
}

/// Compiles a server and admits a request and a connection by it.
pub fn inbound(bytes: &[u8]) {
    let Ok(message) = inbound_api::Server::decode(bytes) else {
        return;
    };
    let Ok(server) = Server::compile(&message) else {
        return;
    };
    let request = RequestView {
        method: b"GET",
        authority: b"a",
        path: b"/a?b=%4",
        headers: &(),
    };
    for tls in [
        PeerTls::None,
        PeerTls::Unauthenticated,
        PeerTls::Identity("a.b"),
    ] {
        let peer = Peer {
            addr: std::net::Ipv4Addr::LOCALHOST.into(),
            tls,
        };
        let grants = server.grants(&peer);
        let _ = server.authorize_connection(&grants);
        if let Some(found) = server.route(&request) {
            let _ = server.authorize(&grants, &found);
        }
    }
    let _ = server.service(b"a.b:80");
    if let Some(limit) = &server.rate_limit {
        let mut limiter = RateLimiter::new(limit.clone());
        for now in [0, 1, u64::MAX] {
            let _ = limiter.admit(Some("a.b"), now);
        }
    }
    for jwt in &server.jwt {
        assert!(jwt.verify(b"e30.e30.AAAA", 0, &Nobody).is_err());
        let _ = (jwt.to_string(), jwt.token([&b"Bearer x"[..]].into_iter()));
    }
}

/// Somebody's wish to watch requests, and one request that it is asked about.
pub fn tap(bytes: &[u8]) {
    let Ok(message) = ObserveRequest::decode(bytes) else {
        return;
    };
    let Ok(wish) = Wish::compile(&message) else {
        return;
    };
    assert!((1..=MAX_LIMIT).contains(&wish.limit));
    for authority in [None, Some(&b"a:1"[..])] {
        let subject = Subject {
            source: Some(([10, 0, 0, 1], 80).into()),
            destination: None,
            scheme: b"",
            method: b"GET",
            authority,
            path: b"/a?b",
            destination_labels: Labels::List(&[("a", "b")]),
            route_labels: Labels::List(&[]),
        };
        let wanted = wish.wants(&subject, 0);
        assert!(!wanted || wish.condition.holds(&subject));
    }
}

/// Holds no signature for good.
struct Nobody;

impl Verifier for Nobody {
    fn verify(&self, _key: &Key, _message: &[u8], _signature: &[u8]) -> bool {
        false
    }
}

/// Holds every signature for good: what is behind it is looked at.
struct Anybody;

impl Verifier for Anybody {
    fn verify(&self, _key: &Key, _message: &[u8], _signature: &[u8]) -> bool {
        true
    }
}

/// A token of any octets, against a requirement of an issuer with one key. Without its signature none is taken; with
/// one, none that is not of the issuer.
pub fn token(bytes: &[u8]) {
    let message = inbound_api::Server {
        protocol: Some(inbound_api::ProxyProtocol {
            kind: Some(inbound_api::proxy_protocol::Kind::Http1(
                inbound_api::proxy_protocol::Http1::default(),
            )),
        }),
        jwt: vec![inbound_api::Jwt {
            issuer: "issuer".into(),
            jwks: r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#.into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let Ok(server) = Server::compile(&message) else {
        panic!("the example compiles");
    };
    assert_eq!(server.jwt.len(), 1);
    for jwt in &server.jwt {
        assert!(jwt.verify(bytes, 0, &Nobody).is_err());
        for now in [0, 1_700_000_000, i64::MAX] {
            let taken = jwt.verify(bytes, now, &Anybody).is_ok();
            assert!(!taken || bytes.iter().filter(|byte| **byte == b'.').count() == 2);
        }
        let _ = jwt.token([bytes].into_iter());
    }
}

/// Endpoints and profiles.
pub fn endpoints(bytes: &[u8]) {
    if let Ok(message) = destination::Update::decode(bytes) {
        let mut endpoints = Endpoints::default();
        for reset in [true, false] {
            endpoints.apply(&message, reset);
            assert!(endpoints.len() <= MAX_ENDPOINTS);
        }
    }
    if let Ok(message) = destination::DestinationProfile::decode(bytes) {
        let _ = Profile::compile(&message);
        if let Ok(Some(policy)) = Policy::from_profile(&message, 80, Duration::from_secs(1)) {
            let request = RequestView {
                method: b"GET",
                authority: b"a",
                path: b"/a?b",
                headers: &(),
            };
            decide(&policy, &request);
        }
    }
}
