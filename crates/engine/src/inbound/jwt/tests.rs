//! Tokens against requirements. Signatures are checked by a stand-in here, whose signature of a message is the key's
//! id and the message; the proxy's tests have the real ones and the RFCs' vectors.

use proptest::prelude::*;

use super::*;
use crate::doc::token::base64url;

struct StandIn;

fn signature(key: &Key, message: &[u8]) -> Vec<u8> {
    [key.id.as_deref().unwrap_or("").as_bytes(), b"|", message].concat()
}

impl Verifier for StandIn {
    fn verify(&self, key: &Key, message: &[u8], given: &[u8]) -> bool {
        given == signature(key, message)
    }
}

fn ed25519(id: &str) -> String {
    let x = base64url(&[7; 32]);
    format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{id}","x":"{x}"}}"#)
}

fn jwks(keys: &[String]) -> String {
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

fn message() -> api::Jwt {
    api::Jwt {
        issuer: "https://issuer".into(),
        audiences: vec!["voting".into(), "polls".into()],
        jwks: jwks(&[ed25519("one"), ed25519("two")]),
        claim_headers: vec![
            api::jwt::ClaimHeader {
                claim: "sub".into(),
                header: "X-User".into(),
            },
            api::jwt::ClaimHeader {
                claim: "realm.role".into(),
                header: "x-role".into(),
            },
        ],
        ..Default::default()
    }
}

fn compiled(message: &api::Jwt) -> Jwt {
    let mut problems = Vec::new();
    let jwt = Jwt::compile(message, &mut problems, "jwt[0]");
    assert_eq!(jwt.invalid, None);
    jwt
}

fn token(header: &str, payload: &str, key: &str) -> String {
    let signed = format!(
        "{}.{}",
        base64url(header.as_bytes()),
        base64url(payload.as_bytes())
    );
    let signature = [key.as_bytes(), b"|", signed.as_bytes()].concat();
    format!("{signed}.{}", base64url(&signature))
}

const HEADER: &str = r#"{"alg":"EdDSA","kid":"one"}"#;
const NOW: i64 = 1_000_000;

fn payload(more: &str) -> String {
    format!(r#"{{"iss":"https://issuer","aud":"voting","exp":1000100{more}}}"#)
}

fn judge(jwt: &Jwt, header: &str, payload: &str) -> Result<Claims, Fault> {
    jwt.verify(token(header, payload, "one").as_bytes(), NOW, &StandIn)
}

#[test]
fn a_sound_token_holds_and_its_claims_become_headers() {
    let jwt = compiled(&message());
    let claims = judge(
        &jwt,
        HEADER,
        &payload(r#","nbf":999999.5,"sub":"alice","realm":{"role":["admin","voter"]}"#),
    )
    .unwrap();
    assert_eq!(
        claims,
        Claims {
            expires: 1_000_100,
            not_before: Some(999_999),
            headers: vec![Some("alice".into()), Some("admin,voter".into())],
            withheld: 0,
        }
    );
}

#[test]
fn the_table_of_attacks() {
    let jwt = compiled(&message());
    let good = payload("");
    for (header, claims, fault) in [
        (r#"{"alg":"none"}"#, &*good, Fault::Algorithm),
        (r#"{"alg":"None","kid":"one"}"#, &good, Fault::Algorithm),
        (r#"{"alg":"HS256","kid":"one"}"#, &good, Fault::Algorithm),
        (r#"{"alg":"","kid":"one"}"#, &good, Fault::Algorithm),
        (r#"{"alg":["EdDSA"],"kid":"one"}"#, &good, Fault::Algorithm),
        (r#"{"kid":"one"}"#, &good, Fault::Algorithm),
        // The key is Ed25519: it is never used as anything else.
        (r#"{"alg":"RS256","kid":"one"}"#, &good, Fault::UnknownKey),
        (r#"{"alg":"ES256","kid":"one"}"#, &good, Fault::UnknownKey),
        (r#"{"alg":"EdDSA","kid":"three"}"#, &good, Fault::UnknownKey),
        (
            r#"{"alg":"EdDSA","kid":"../../dev/null"}"#,
            &good,
            Fault::UnknownKey,
        ),
        (
            r#"{"alg":"EdDSA","kid":"' OR 1=1 --"}"#,
            &good,
            Fault::UnknownKey,
        ),
        (r#"{"alg":"EdDSA","kid":1}"#, &good, Fault::Header),
        (r#"{"alg":"EdDSA","kid":null}"#, &good, Fault::Header),
        (r#"{"alg":"EdDSA","kid":"two"}"#, &good, Fault::Signature),
        (
            r#"{"alg":"EdDSA","kid":"one","crit":["b64"],"b64":false}"#,
            &good,
            Fault::Critical,
        ),
        (
            r#"{"alg":"EdDSA","kid":"one","crit":["exp"]}"#,
            &good,
            Fault::Critical,
        ),
        (
            r#"{"alg":"EdDSA","kid":"one","crit":[]}"#,
            &good,
            Fault::Critical,
        ),
        (
            r#"{"alg":"EdDSA","alg":"none","kid":"one"}"#,
            &good,
            Fault::Header,
        ),
        (r#"["EdDSA"]"#, &good, Fault::Header),
        (HEADER, r#"{"aud":"voting","exp":1000100}"#, Fault::Issuer),
        (
            HEADER,
            r#"{"iss":"https://issuer/","aud":"voting","exp":1000100}"#,
            Fault::Issuer,
        ),
        (
            HEADER,
            r#"{"iss":["https://issuer"],"aud":"voting","exp":1000100}"#,
            Fault::Payload,
        ),
        (
            HEADER,
            r#"{"iss":"evil","iss":"https://issuer","aud":"voting","exp":1000100}"#,
            Fault::Payload,
        ),
        (
            HEADER,
            r#"{"iss":"https://issuer","exp":1000100}"#,
            Fault::Audience,
        ),
        (
            HEADER,
            r#"{"iss":"https://issuer","aud":"votin","exp":1000100}"#,
            Fault::Audience,
        ),
        (
            HEADER,
            r#"{"iss":"https://issuer","aud":["x",["voting"]],"exp":1000100}"#,
            Fault::Audience,
        ),
        (
            HEADER,
            r#"{"iss":"https://issuer","aud":"voting"}"#,
            Fault::Endless,
        ),
        (
            HEADER,
            r#"{"iss":"https://issuer","aud":"voting","exp":"1000100"}"#,
            Fault::Payload,
        ),
        (
            HEADER,
            r#"{"iss":"https://issuer","aud":"voting","exp":1e400}"#,
            Fault::Payload,
        ),
        (
            HEADER,
            r#"{"iss":"https://issuer","aud":"voting","exp":null}"#,
            Fault::Payload,
        ),
        (
            HEADER,
            r#"{"iss":"https://issuer","aud":"voting","exp":999940}"#,
            Fault::Expired,
        ),
        (
            HEADER,
            r#"{"iss":"https://issuer","aud":"voting","exp":-1}"#,
            Fault::Expired,
        ),
        (HEADER, &payload(r#","nbf":1000061"#), Fault::NotYet),
        (HEADER, &payload(r#","nbf":"0""#), Fault::Payload),
        (HEADER, "1", Fault::Payload),
        (HEADER, "", Fault::Payload),
    ] {
        assert_eq!(judge(&jwt, header, claims), Err(fault), "{header} {claims}");
    }
    // Just within the leeway of 60 s.
    for claims in [
        r#"{"iss":"https://issuer","aud":["x","polls"],"exp":999941}"#.to_owned(),
        payload(r#","nbf":1000060"#),
    ] {
        assert!(judge(&jwt, HEADER, &claims).is_ok(), "{claims}");
    }
}

#[test]
fn what_is_no_token_and_what_was_tampered_with() {
    let jwt = compiled(&message());
    let good = token(HEADER, &payload(""), "one");
    let verify = |token: &str| jwt.verify(token.as_bytes(), NOW, &StandIn).err();
    assert_eq!(verify(&good), None);
    let parts: Vec<&str> = good.split('.').collect();
    for (text, fault) in [
        (String::new(), Fault::Malformed),
        ("..".into(), Fault::Header),
        (parts[..2].join("."), Fault::Malformed),
        (format!("{}.{}.", parts[0], parts[1]), Fault::Signature),
        (format!("{good}."), Fault::Malformed),
        (format!("{good}.x.y"), Fault::Malformed),
        (format!("{good}="), Fault::Malformed),
        (format!("{good} "), Fault::Malformed),
        (good.replace('.', " ."), Fault::Malformed),
        (
            format!(
                "{}.{}.{}",
                parts[0],
                base64url(payload(r#","sub":"root""#).as_bytes()),
                parts[2]
            ),
            Fault::Signature,
        ),
        (format!("{good}{}", "A".repeat(MAX_TOKEN)), Fault::TooLong),
    ] {
        assert_eq!(verify(&text), Some(fault), "{text:.80}");
    }
}

#[test]
fn a_token_is_found_in_its_header_and_only_one() {
    let jwt = compiled(&message());
    let find = |values: &[&'static str]| jwt.token(values.iter().map(|value| value.as_bytes()));
    assert_eq!(find(&[]), Ok(None));
    assert_eq!(find(&["Bearer a.b.c"]), Ok(Some(&b"a.b.c"[..])));
    assert_eq!(find(&["bEARER   a.b.c "]), Ok(Some(&b"a.b.c"[..])));
    assert_eq!(
        find(&["Bearer"]),
        Ok(Some(&b""[..])),
        "an empty one is a wrong one"
    );
    assert_eq!(find(&["Bearer "]), Ok(Some(&b""[..])));
    assert_eq!(find(&["Basic dTpw"]), Ok(None));
    assert_eq!(find(&["Bearerx a.b.c"]), Ok(None));
    assert_eq!(find(&["Bearer a.b.c", "Bearer a.b.c"]), Err(Fault::Several));
    assert_eq!(find(&["Basic dTpw", "Bearer a.b.c"]), Err(Fault::Several));

    let jwt = compiled(&api::Jwt {
        header: "X-Token".into(),
        ..message()
    });
    assert_eq!(&*jwt.header, "x-token");
    assert_eq!(
        jwt.token([&b"a.b.c"[..]].into_iter()),
        Ok(Some(&b"a.b.c"[..]))
    );
}

#[test]
fn claims_that_no_header_can_carry_are_left_out() {
    let jwt = compiled(&message());
    let sub = |claim: &str| {
        let claims = judge(&jwt, HEADER, &payload(&format!(r#","sub":{claim}"#))).unwrap();
        claims.headers[0].as_deref().map(str::to_owned)
    };
    assert_eq!(sub("12.50").as_deref(), Some("12.50"));
    assert_eq!(sub("true").as_deref(), Some("true"));
    assert_eq!(sub(r#"["a",1]"#).as_deref(), Some("a,1"));
    for claim in [
        "null",
        "{}",
        "[[]]",
        r#"["a,b"]"#,
        r#""a\r\nx-admin: 1""#,
        r#""\u0000""#,
        r#""ä""#,
        r#"" a""#,
        &format!("\"{}\"", "a".repeat(MAX_CLAIM + 1)),
    ] {
        assert_eq!(sub(claim), None, "{claim}");
    }
    // A claim that has the whole name, dots and all, comes before what the dots lead to.
    let both = payload(r#","realm.role":"whole","realm":{"role":"inner"}"#);
    let claims = judge(&jwt, HEADER, &both).unwrap();
    assert_eq!(claims.headers[1].as_deref(), Some("whole"));
}

#[test]
fn keys_that_cannot_be_used_are_named_and_no_keys_at_all_let_nobody_in() {
    let n = base64url(&[0xff; 256]);
    let x = base64url(&[1; 32]);
    let rsa = |more: &str| format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB"{more}}}"#);
    for (key, outcome) in [
        (rsa(""), Ok(Algorithm::Rs256)),
        (
            rsa(r#","alg":"PS512","use":"sig","key_ops":["verify"]"#),
            Ok(Algorithm::Ps512),
        ),
        (
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{x}"}}"#),
            Ok(Algorithm::Es256),
        ),
        (ed25519("k"), Ok(Algorithm::EdDsa)),
        (rsa(r#","alg":"HS256""#), Err("alg")),
        (rsa(r#","alg":"none""#), Err("alg")),
        (rsa(r#","alg":"ES256""#), Err("alg does not fit")),
        (rsa(r#","alg":"RSA-OAEP""#), Err("alg")),
        (rsa(r#","use":"enc""#), Err("use")),
        (rsa(r#","key_ops":["sign"]"#), Err("key_ops")),
        (rsa(r#","d":"AQAB""#), Err("d belongs to a secret key")),
        (rsa(r#","kid":7"#), Err("kid")),
        (
            format!(
                r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#,
                base64url(&[0xff; 128])
            ),
            Err("n has 1024 bits"),
        ),
        (
            format!(r#"{{"kty":"RSA","n":"{n}","e":"AQ"}}"#),
            Err("e is not"),
        ),
        (
            format!(r#"{{"kty":"RSA","n":"{n}=","e":"AQAB"}}"#),
            Err("n is not base64url"),
        ),
        (
            r#"{"kty":"oct","k":"c2VjcmV0"}"#.into(),
            Err("k belongs to a secret key"),
        ),
        (
            format!(r#"{{"kty":"EC","crv":"P-521","x":"{x}","y":"{x}"}}"#),
            Err("crv"),
        ),
        (
            format!(r#"{{"kty":"EC","crv":"P-384","x":"{x}","y":"{x}"}}"#),
            Err("x does not have 48"),
        ),
        (
            format!(r#"{{"kty":"EC","crv":"P-256","alg":"ES384","x":"{x}","y":"{x}"}}"#),
            Err("alg does not fit"),
        ),
        ("7".into(), Err("is not an object")),
    ] {
        let mut problems = Vec::new();
        let with = api::Jwt {
            jwks: jwks(&[key.clone(), ed25519("other")]),
            ..message()
        };
        let jwt = Jwt::compile(&with, &mut problems, "jwt[0]");
        match outcome {
            Ok(algorithm) => {
                assert_eq!(jwt.keys[0].algorithm, algorithm, "{key}");
                assert!(problems.is_empty(), "{problems:?}");
            }
            Err(why) => {
                assert_eq!(jwt.keys.len(), 1, "{key}");
                let said = problems[0].to_string();
                assert!(
                    said.starts_with("jwt[0].jwks.keys[0]") && said.contains(why),
                    "{said}"
                );
            }
        }
        assert_eq!(jwt.invalid, None, "the other key goes on");
    }
    let many = vec![ed25519("k"); MAX_KEYS + 1];
    for (wrong, why) in [
        (String::new(), "is not a JSON object"),
        ("{}".into(), "jwks.keys is missing"),
        (r#"{"keys":[]}"#.into(), "has no key"),
        (
            r#"{"keys":[{"kty":"oct"}]}"#.into(),
            "no key that can be used",
        ),
        (jwks(&many), "goes beyond 64"),
        (
            format!("{{\"keys\":[]{}}}", " ".repeat(MAX_JWKS)),
            "longer than",
        ),
        (r#"{"keys":[],"keys":[]}"#.into(), "every name once"),
    ] {
        let mut problems = Vec::new();
        let with = api::Jwt {
            jwks: wrong,
            ..message()
        };
        let jwt = Jwt::compile(&with, &mut problems, "jwt[0]");
        let said = jwt.invalid.unwrap().to_string();
        assert!(said.contains(why), "{said}");
        assert_eq!(problems.len(), 1);
    }
}

#[test]
fn a_requirement_that_cannot_be_carried_out_is_named() {
    let header = |claim: &str, header: &str| api::jwt::ClaimHeader {
        claim: claim.into(),
        header: header.into(),
    };
    for (change, field) in [
        (
            api::Jwt {
                issuer: String::new(),
                ..message()
            },
            "issuer",
        ),
        (
            api::Jwt {
                header: "a b".into(),
                ..message()
            },
            "header",
        ),
        (
            api::Jwt {
                header: "Host".into(),
                ..message()
            },
            "header",
        ),
        (
            api::Jwt {
                claim_headers: vec![header("sub", "l5d-client-id")],
                ..message()
            },
            "claim_headers[0].header",
        ),
        (
            api::Jwt {
                claim_headers: vec![header("sub", "Content-Length")],
                ..message()
            },
            "claim_headers[0].header",
        ),
        (
            api::Jwt {
                claim_headers: vec![header("sub", "authorization")],
                ..message()
            },
            "claim_headers[0].header",
        ),
        (
            api::Jwt {
                claim_headers: vec![header("", "x")],
                ..message()
            },
            "claim_headers[0].claim",
        ),
        (
            api::Jwt {
                claim_headers: vec![header("a", "x"); 33],
                ..message()
            },
            "claim_headers",
        ),
        (
            api::Jwt {
                leeway: Some(prost_types::Duration {
                    seconds: -1,
                    nanos: 0,
                }),
                ..message()
            },
            "leeway",
        ),
    ] {
        let mut problems = Vec::new();
        let invalid = Jwt::compile(&change, &mut problems, "jwt[3]")
            .invalid
            .unwrap();
        assert_eq!(invalid.field, format!("jwt[3].{field}"), "{invalid}");
    }
}

#[test]
fn without_a_kid_few_keys_are_tried() {
    let mut keys: Vec<String> = (0..10)
        .map(|number| ed25519(&format!("k{number}")))
        .collect();
    keys.insert(2, ed25519("one"));
    let jwt = compiled(&api::Jwt {
        jwks: jwks(&keys),
        ..message()
    });
    assert!(judge(&jwt, r#"{"alg":"EdDSA"}"#, &payload("")).is_ok());
    keys.swap(2, 9);
    let jwt = compiled(&api::Jwt {
        jwks: jwks(&keys),
        ..message()
    });
    assert_eq!(
        judge(&jwt, r#"{"alg":"EdDSA"}"#, &payload("")),
        Err(Fault::Signature)
    );
    assert!(
        judge(&jwt, HEADER, &payload("")).is_ok(),
        "its kid leads to it"
    );
}

proptest! {
    #[test]
    fn no_change_of_a_token_is_let_through(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let jwt = compiled(&message());
        let good = token(HEADER, &payload(r#","sub":"alice""#), "one").into_bytes();
        let mut changed = good.clone();
        let place = place.index(changed.len());
        changed[place] = byte;
        prop_assert_eq!(jwt.verify(&changed, NOW, &StandIn).is_ok(), changed == good);
    }

    #[test]
    fn any_bytes_are_a_token_or_a_fault(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[A-Za-z0-9_.-]{0,200}") {
        let jwt = compiled(&message());
        prop_assert!(jwt.verify(&bytes, NOW, &StandIn).is_err());
        prop_assert!(jwt.verify(text.as_bytes(), NOW, &StandIn).is_err());
    }
}
