//! The RFCs' tokens and freshly signed ones of every algorithm, through the engine's requirement.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
    RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use tulle_api::inbound as api;
use tulle_engine::doc::token::base64url;
use tulle_engine::inbound::{Claims, Fault, Jwt, Server};

use super::AwsLc;

/// A requirement with these keys, as the policy would bring it.
fn requirement(issuer: &str, keys: &[String]) -> Jwt {
    let message = api::Server {
        protocol: Some(api::ProxyProtocol {
            kind: Some(api::proxy_protocol::Kind::Opaque(Default::default())),
        }),
        jwt: vec![api::Jwt {
            issuer: issuer.into(),
            jwks: format!(r#"{{"keys":[{}]}}"#, keys.join(",")),
            ..Default::default()
        }],
        ..Default::default()
    };
    let server = Server::compile(&message).unwrap();
    assert_eq!(server.problems, []);
    (*server.jwt[0]).clone()
}

fn verify(jwt: &Jwt, token: &str, now: i64) -> Result<Claims, Fault> {
    jwt.verify(token.as_bytes(), now, &AwsLc)
}

const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const JOE_UNTIL: i64 = 1_300_819_380;

const RSA: &str = r#"{"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}"#;
const RSA_SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
const EC: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
const EC_SIGNATURE: &str =
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

#[test]
fn the_tokens_of_rfc_7515_hold_until_they_end() {
    for (key, header, signature) in [
        (RSA, "eyJhbGciOiJSUzI1NiJ9", RSA_SIGNATURE),
        (EC, "eyJhbGciOiJFUzI1NiJ9", EC_SIGNATURE),
    ] {
        let jwt = requirement("joe", &[key.to_owned()]);
        let token = format!("{header}.{JOE}.{signature}");
        assert_eq!(verify(&jwt, &token, JOE_UNTIL).unwrap().expires, JOE_UNTIL);
        assert_eq!(verify(&jwt, &token, JOE_UNTIL + 60), Err(Fault::Expired));
        let other = requirement("joe@example", &[key.to_owned()]);
        assert_eq!(verify(&other, &token, JOE_UNTIL), Err(Fault::Issuer));
        let mut forged = token.clone();
        forged.replace_range(header.len() + 5..=header.len() + 5, "X");
        assert_eq!(verify(&jwt, &forged, JOE_UNTIL), Err(Fault::Signature));
    }
}

#[test]
fn the_signature_of_rfc_8037_holds_though_its_payload_is_no_claims() {
    let key = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let jwt = requirement("joe", &[key.to_owned()]);
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_eq!(verify(&jwt, token, 0), Err(Fault::Payload));
    assert_eq!(
        verify(&jwt, &token.replace("hgy", "hgz"), 0),
        Err(Fault::Signature)
    );
}

#[test]
fn the_unsecured_token_and_the_symmetric_one_of_rfc_7519_are_refused() {
    let jwt = requirement("joe", &[RSA.to_owned(), EC.to_owned()]);
    let none = format!("eyJhbGciOiJub25lIn0.{JOE}.");
    assert_eq!(verify(&jwt, &none, 0), Err(Fault::Algorithm));
    let hs256 = format!(
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    );
    assert_eq!(verify(&jwt, &hs256, 0), Err(Fault::Algorithm));
}

#[test]
fn a_public_key_is_never_a_secret() {
    // The classic confusion: HMAC with the text of the public key, in every form that it is written in.
    let jwt = requirement("joe", &[RSA.to_owned()]);
    for secret in [RSA.as_bytes(), RSA.split('"').nth(11).unwrap().as_bytes()] {
        for name in ["HS256", "RS256"] {
            let header = base64url(format!(r#"{{"alg":"{name}"}}"#).as_bytes());
            let signed = format!("{header}.{JOE}");
            let mac = hmac::sign(
                &hmac::Key::new(hmac::HMAC_SHA256, secret),
                signed.as_bytes(),
            );
            let token = format!("{signed}.{}", base64url(mac.as_ref()));
            assert!(verify(&jwt, &token, 0).is_err(), "{name}");
        }
    }
}

#[test]
fn signatures_of_a_wrong_form_never_hold() {
    let jwt = requirement("joe", &[EC.to_owned()]);
    let with = |signature: &[u8]| {
        let token = format!("eyJhbGciOiJFUzI1NiJ9.{JOE}.{}", base64url(signature));
        verify(&jwt, &token, 0).err()
    };
    // "Psychic signatures": r = s = 0.
    for length in [0, 1, 63, 64, 65, 96, 128] {
        assert_eq!(with(&vec![0; length]), Some(Fault::Signature), "{length}");
    }
    // The same signature as ASN.1, which JOSE does not use.
    let rng = SystemRandom::new();
    let pair =
        EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let jwt = requirement("joe", &[ec_key(&pair, "P-256")]);
    let signed = format!("eyJhbGciOiJFUzI1NiJ9.{JOE}");
    let signature = pair.sign(&rng, signed.as_bytes()).unwrap();
    let token = format!("{signed}.{}", base64url(signature.as_ref()));
    assert_eq!(verify(&jwt, &token, 0), Err(Fault::Signature));
}

fn ec_key(pair: &EcdsaKeyPair, curve: &str) -> String {
    let point = &pair.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    let (x, y) = (base64url(x), base64url(y));
    format!(r#"{{"kty":"EC","crv":"{curve}","kid":"{curve}","x":"{x}","y":"{y}"}}"#)
}

/// Signs, and says so in the header.
fn token(algorithm: &str, kid: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let header = base64url(format!(r#"{{"alg":"{algorithm}","kid":"{kid}"}}"#).as_bytes());
    let signed = format!("{header}.{JOE}");
    let signature = base64url(&sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

#[test]
fn every_algorithm_verifies_its_own_and_only_its_own() {
    let rng = SystemRandom::new();
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    // RSAPublicKey: SEQUENCE, INTEGER of 257 octets with a leading zero, INTEGER.
    let der = pair.public_key().as_ref();
    assert_eq!(der[..9], [0x30, 0x82, 1, 10, 2, 0x82, 1, 1, 0]);
    let modulus = base64url(&der[9..265]);
    let encodings: [(&str, &'static dyn RsaEncoding); 6] = [
        ("RS256", &RSA_PKCS1_SHA256),
        ("RS384", &RSA_PKCS1_SHA384),
        ("RS512", &RSA_PKCS1_SHA512),
        ("PS256", &RSA_PSS_SHA256),
        ("PS384", &RSA_PSS_SHA384),
        ("PS512", &RSA_PSS_SHA512),
    ];
    let mut keys = Vec::new();
    let mut tokens = Vec::new();
    for (name, encoding) in encodings {
        keys.push((
            name,
            format!(r#"{{"kty":"RSA","alg":"{name}","kid":"{name}","n":"{modulus}","e":"AQAB"}}"#),
        ));
        tokens.push((
            name,
            token(name, name, |message| {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &rng, message, &mut signature).unwrap();
                signature
            }),
        ));
    }
    for (name, curve, signing) in [
        ("ES256", "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
        ("ES384", "P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
    ] {
        let pair = EcdsaKeyPair::generate(signing).unwrap();
        keys.push((name, ec_key(&pair, curve)));
        tokens.push((
            name,
            token(name, curve, |message| {
                pair.sign(&rng, message).unwrap().as_ref().to_vec()
            }),
        ));
    }
    let pair = Ed25519KeyPair::generate().unwrap();
    let x = base64url(pair.public_key().as_ref());
    keys.push((
        "EdDSA",
        format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"{x}"}}"#),
    ));
    tokens.push((
        "EdDSA",
        token("EdDSA", "ed", |message| {
            pair.sign(message).as_ref().to_vec()
        }),
    ));

    let all: Vec<String> = keys.iter().map(|(_, key)| key.clone()).collect();
    let all = requirement("joe", &all);
    for (name, token) in &tokens {
        assert!(verify(&all, token, 0).is_ok(), "{name}");
        for (of, key) in &keys {
            // The token may claim the other's algorithm and kid, or keep its own: it fails all the same.
            let alone = requirement("joe", std::slice::from_ref(key));
            assert_eq!(
                verify(&alone, token, 0).is_ok(),
                name == of,
                "{name} by {of}"
            );
            let (_, rest) = token.split_once('.').unwrap();
            let claim = base64url(format!(r#"{{"alg":"{of}"}}"#).as_bytes());
            assert!(name == of || verify(&alone, &format!("{claim}.{rest}"), 0).is_err());
        }
    }
}

#[test]
fn a_point_off_the_curve_and_a_small_key_verify_nothing() {
    let x = base64url(&[1; 32]);
    let off = format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{x}"}}"#);
    let jwt = requirement("joe", &[off]);
    let token = format!("eyJhbGciOiJFUzI1NiJ9.{JOE}.{EC_SIGNATURE}");
    assert_eq!(verify(&jwt, &token, 0), Err(Fault::Signature));
}
