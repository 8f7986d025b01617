//! Requests that have to carry a token.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use tulle_api::inbound as api;
use tulle_engine::doc::token::base64url;

use crate::admission::{named, server, set};
use crate::client::{Http1, Message, echo};
use crate::rig::{Mesh, Pod, app, run};

/// Who makes tokens.
struct Issuer {
    pair: Ed25519KeyPair,
    kid: &'static str,
}

impl Issuer {
    fn new(kid: &'static str) -> Self {
        Issuer {
            pair: Ed25519KeyPair::generate().unwrap(),
            kid,
        }
    }

    fn key(&self) -> String {
        let x = base64url(self.pair.public_key().as_ref());
        let kid = self.kid;
        format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"{x}"}}"#)
    }

    /// A token with these claims beside issuer, audience and an end in `seconds`.
    fn token(&self, seconds: i64, more: &str) -> String {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let end = since.as_secs() as i64 + seconds;
        let claims = format!(r#"{{"iss":"https://issuer","aud":["voting"],"exp":{end}{more}}}"#);
        let header = format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{}"}}"#, self.kid);
        let signed = format!(
            "{}.{}",
            base64url(header.as_bytes()),
            base64url(claims.as_bytes())
        );
        let signature = base64url(self.pair.sign(signed.as_bytes()).as_ref());
        format!("{signed}.{signature}")
    }
}

fn requirement(keys: &[String]) -> api::Jwt {
    let header = |claim: &str, header: &str| api::jwt::ClaimHeader {
        claim: claim.into(),
        header: header.into(),
    };
    api::Jwt {
        metadata: named("users"),
        issuer: "https://issuer".into(),
        audiences: vec!["voting".into()],
        jwks: format!(r#"{{"keys":[{}]}}"#, keys.join(",")),
        claim_headers: vec![header("sub", "x-user"), header("realm.roles", "x-roles")],
        ..Default::default()
    }
}

fn requiring(name: &str, jwt: Vec<api::Jwt>) -> api::Server {
    api::Server {
        jwt,
        ..server(name)
    }
}

async fn get(client: &mut Http1, fields: &str) -> Message {
    client
        .send(format!("GET / HTTP/1.1\r\nHost: voting\r\n{fields}\r\n"))
        .await;
    client.answer().await
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

async fn pod(message: api::Server) -> (Pod, Http1) {
    let pod = Mesh::new().pod("voting").await;
    app(pod.address(18080), echo).await;
    set(&pod, message).await;
    let client = Http1::new(pod.enter().await);
    (pod, client)
}

fn results(pod: &Pod, result: &str) -> f64 {
    let result = format!("result=\"{result}\"");
    pod.metric("inbound_http_jwt_total", &[&result, "jwt_name=\"users\""])
}

#[test]
fn a_token_lets_in_once_verified_and_its_claims_reach_the_application() {
    run(async {
        let issuer = Issuer::new("one");
        let (pod, mut client) = pod(requiring("tokens", vec![requirement(&[issuer.key()])])).await;
        let token = issuer.token(600, r#","sub":"alice","realm":{"roles":["admin","voter"]}"#);
        for _ in 0..5 {
            let answer = get(&mut client, &bearer(&token)).await;
            assert_eq!(
                (answer.status(), answer.text()),
                (
                    200,
                    "GET / HTTP/1.1\nhost: voting\nx-user: alice\nx-roles: admin,voter\n\n"
                )
            );
        }
        assert_eq!(
            (results(&pod, "valid"), results(&pod, "remembered")),
            (1.0, 4.0)
        );
        assert_eq!(pod.metric("inbound_http_jwt_remembered", &[]), 1.0);

        let missing = get(&mut client, "").await;
        assert_eq!(
            (
                missing.status(),
                missing.field("tulle-reason"),
                missing.field("www-authenticate")
            ),
            (401, Some("token-missing"), Some("Bearer"))
        );
        assert_eq!(
            missing.field("l5d-proxy-error"),
            Some(
                "a token is required: a token of issuer https://issuer for voting (default users)"
            )
        );
        let wrong = get(&mut client, &bearer(&issuer.token(-61, ""))).await;
        assert_eq!(
            (wrong.status(), wrong.field("tulle-reason")),
            (401, Some("token-invalid"))
        );
        assert_eq!(
            wrong.field("l5d-proxy-error"),
            Some("the token does not hold: it has expired (default users)")
        );
        assert_eq!(
            wrong.field("www-authenticate"),
            Some("Bearer error=\"invalid_token\", error_description=\"it has expired\"")
        );
        assert_eq!(
            (results(&pod, "missing"), results(&pod, "expired")),
            (1.0, 1.0)
        );
    });
}

#[test]
fn what_is_sent_in_the_name_of_claims_is_dropped_token_or_not() {
    run(async {
        let issuer = Issuer::new("one");
        let optional = api::Jwt {
            optional: true,
            forward: true,
            ..requirement(&[issuer.key()])
        };
        let (_pod, mut client) = pod(requiring("optional", vec![optional])).await;
        let forged =
            "X-User: root\r\nx_user: root\r\nX-Roles: admin\r\nX_ROLES: admin\r\nX-Other: kept\r\n";
        let answer = get(&mut client, forged).await;
        assert_eq!(
            (answer.status(), answer.text()),
            (200, "GET / HTTP/1.1\nhost: voting\nx-other: kept\n\n")
        );
        // Credentials of another kind are no token, and none of ours to judge.
        let basic = get(
            &mut client,
            &format!("Authorization: Basic dTpw\r\n{forged}"),
        )
        .await;
        assert!(
            basic
                .text()
                .contains("authorization: Basic dTpw\nx-other: kept\n\n"),
            "{}",
            basic.text()
        );
        // A claim that the token does not have leaves no header, and the token itself is handed on.
        let token = issuer.token(600, r#","sub":"bob""#);
        let answer = get(&mut client, &format!("{forged}{}", bearer(&token))).await;
        let expected = format!(
            "GET / HTTP/1.1\nhost: voting\nx-other: kept\nauthorization: Bearer {token}\nx-user: bob\n\n"
        );
        assert_eq!((answer.status(), answer.text()), (200, &*expected));
        // Optional is not lenient.
        let answer = get(&mut client, &bearer(&format!("{token}x"))).await;
        assert_eq!(answer.status(), 401);
    });
}

#[test]
fn attacks_get_401_and_never_reach_the_application() {
    run(async {
        let (issuer, stranger) = (Issuer::new("one"), Issuer::new("one"));
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), |_| async {
            panic!("the application was called")
        })
        .await;
        set(
            &pod,
            requiring("tokens", vec![requirement(&[issuer.key()])]),
        )
        .await;
        let mut client = Http1::new(pod.enter().await);
        let good = issuer.token(600, "");
        let parts: Vec<&str> = good.split('.').collect();
        let headed = |header: &str| {
            bearer(&format!(
                "{}.{}.{}",
                base64url(header.as_bytes()),
                parts[1],
                parts[2]
            ))
        };
        let attacks = [
            ("algorithm", headed(r#"{"alg":"none"}"#)),
            ("algorithm", headed(r#"{"alg":"HS256","kid":"one"}"#)),
            ("unknown_key", headed(r#"{"alg":"RS256","kid":"one"}"#)),
            (
                "unknown_key",
                headed(r#"{"alg":"EdDSA","kid":"../../one"}"#),
            ),
            (
                "critical",
                headed(r#"{"alg":"EdDSA","kid":"one","crit":["x"],"x":1}"#),
            ),
            ("header", headed(r#"{"alg":"EdDSA","alg":"none"}"#)),
            ("signature", bearer(&stranger.token(600, ""))),
            ("signature", bearer(&format!("{}.{}.", parts[0], parts[1]))),
            ("malformed", bearer(&parts[..2].join("."))),
            ("malformed", "Authorization: Bearer \r\n".to_owned()),
            ("too_long", bearer(&"a".repeat(8 * 1024 + 1))),
            ("several", bearer(&good).repeat(2)),
            (
                "not_yet",
                bearer(&issuer.token(600, r#","nbf":99999999999"#)),
            ),
            (
                "payload",
                bearer(&issuer.token(600, r#","iss":"https://issuer""#)),
            ),
        ];
        for (result, fields) in attacks {
            let before = results(&pod, result);
            let answer = get(&mut client, &fields).await;
            assert_eq!(
                (answer.status(), answer.field("tulle-reason")),
                (401, Some("token-invalid")),
                "{fields:.200}"
            );
            assert_eq!(
                results(&pod, result),
                before + 1.0,
                "{result}: {}",
                answer.head
            );
        }
        assert_eq!(pod.metric("inbound_http_authz_allow_total", &[]), 14.0);
    });
}

#[test]
fn a_change_of_keys_forgets_what_the_old_ones_verified() {
    run(async {
        let (old, new) = (Issuer::new("old"), Issuer::new("new"));
        let (pod, mut client) = pod(requiring("before", vec![requirement(&[old.key()])])).await;
        let token = bearer(&old.token(600, ""));
        assert_eq!(get(&mut client, &token).await.status(), 200);
        set(
            &pod,
            requiring("both", vec![requirement(&[old.key(), new.key()])]),
        )
        .await;
        assert_eq!(get(&mut client, &token).await.status(), 200);
        assert_eq!(
            get(&mut client, &bearer(&new.token(600, "")))
                .await
                .status(),
            200
        );
        // The same requirement in a new policy: nobody pays twice.
        set(
            &pod,
            requiring("same", vec![requirement(&[old.key(), new.key()])]),
        )
        .await;
        assert_eq!(get(&mut client, &token).await.status(), 200);
        assert_eq!(results(&pod, "remembered"), 1.0);
        set(&pod, requiring("after", vec![requirement(&[new.key()])])).await;
        assert_eq!(get(&mut client, &token).await.status(), 401);
        assert_eq!(results(&pod, "unknown_key"), 1.0);
    });
}

#[test]
fn a_remembered_token_ends_when_it_says() {
    run(async {
        let issuer = Issuer::new("one");
        let strict = api::Jwt {
            leeway: Some(prost_types::Duration::default()),
            ..requirement(&[issuer.key()])
        };
        let (_pod, mut client) = pod(requiring("strict", vec![strict])).await;
        let token = bearer(&issuer.token(4, ""));
        assert_eq!(get(&mut client, &token).await.status(), 200);
        while get(&mut client, &token).await.status() == 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(get(&mut client, &token).await.status(), 401);
    });
}

#[test]
fn every_requirement_has_to_hold_and_one_that_cannot_be_read_lets_nobody_in() {
    run(async {
        let (users, partners) = (Issuer::new("users"), Issuer::new("partners"));
        let second = api::Jwt {
            header: "X-Partner".into(),
            claim_headers: Vec::new(),
            ..requirement(&[partners.key()])
        };
        let both = vec![requirement(&[users.key()]), second];
        let (pod, mut client) = pod(requiring("both", both)).await;
        let (user, partner) = (bearer(&users.token(600, "")), partners.token(600, ""));
        assert_eq!(get(&mut client, &user).await.status(), 401);
        let answer = get(&mut client, &format!("{user}X-Partner: {partner}\r\n")).await;
        assert_eq!(
            (answer.status(), answer.text()),
            (200, "GET / HTTP/1.1\nhost: voting\n\n"),
            "neither token is handed on"
        );
        set(
            &pod,
            requiring(
                "broken",
                vec![api::Jwt {
                    jwks: "{}".into(),
                    optional: true,
                    ..requirement(&[])
                }],
            ),
        )
        .await;
        for fields in ["", &user] {
            let answer = get(&mut client, fields).await;
            assert_eq!(
                (
                    answer.status(),
                    answer.field("tulle-reason"),
                    answer.field("l5d-proxy-error")
                ),
                (
                    500,
                    Some("requirement-invalid"),
                    Some(
                        "a requirement of the Server cannot be carried out: jwt[0].jwks.keys is missing (default users)"
                    )
                )
            );
        }
    });
}

#[test]
fn a_claim_that_no_header_can_carry_is_left_out_and_counted() {
    run(async {
        let issuer = Issuer::new("one");
        let message = requiring("tokens", vec![requirement(&[issuer.key()])]);
        let (pod, mut client) = pod(message).await;
        let long = format!(",\"sub\":\"{}\"", "x".repeat(1_025));
        let token = issuer.token(60, &long);
        for _ in 0..2 {
            let answer = get(&mut client, &bearer(&token)).await;
            assert_eq!(answer.status(), 200);
            assert!(!answer.text().contains("x-user"), "{}", answer.text());
        }
        let name = "limit=\"engine::inbound::jwt::MAX_CLAIM\"";
        assert_eq!(pod.metric("limit_reached_total", &[name]), 1.0);
    });
}
