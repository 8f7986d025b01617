//! A key that never leaves the process, and the certificate request for it (PKCS #10, DER): ECDSA P-256, an empty
//! subject and exactly one DNS name, as the identity service demands.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::der::{tag, value};

const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// 1.2.840.113549.1.9.14
const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];
/// 1.2.840.10045.4.3.2
const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// A fresh key and its request.
#[derive(Debug)]
pub struct Request {
    /// The private key, PKCS #8; wiped when dropped.
    pub key: PrivateKeyDer<'static>,
    /// The request, DER.
    pub der: Vec<u8>,
}

/// Makes a key and a request for one identity.
///
/// # Errors
/// The random generator or the signer failed.
pub fn request(identity: &str) -> Result<Request, Unspecified> {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref())
        .map_err(|_| Unspecified)?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der()?;

    let names = value(
        tag::SEQUENCE,
        &[&value(tag::context_primitive(2), &[identity.as_bytes()])],
    );
    let extension = value(
        tag::SEQUENCE,
        &[
            &value(tag::OID, &[SUBJECT_ALT_NAME]),
            &value(tag::OCTET_STRING, &[&names]),
        ],
    );
    let attribute = value(
        tag::SEQUENCE,
        &[
            &value(tag::OID, &[EXTENSION_REQUEST]),
            &value(tag::SET, &[&value(tag::SEQUENCE, &[&extension])]),
        ],
    );
    let info = value(
        tag::SEQUENCE,
        &[
            &value(tag::INTEGER, &[&[0]]),
            &value(tag::SEQUENCE, &[]),
            public.as_ref(),
            &value(tag::context(0), &[&attribute]),
        ],
    );
    let signature = pair.sign(&random, &info)?;
    let der = value(
        tag::SEQUENCE,
        &[
            &info,
            &value(tag::SEQUENCE, &[&value(tag::OID, &[ECDSA_WITH_SHA256])]),
            &value(tag::BIT_STRING, &[&[0], signature.as_ref()]),
        ],
    );
    Ok(Request {
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec())),
        der,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_names_exactly_the_identity_and_is_signed_by_its_key() {
        let name = "web.default.serviceaccount.identity.linkerd.cluster.local";
        let made = request(name).expect("a request");
        let der = rustls::pki_types::CertificateSigningRequestDer::from(made.der);
        // Parsing checks the signature too.
        let parsed = rcgen::CertificateSigningRequestParams::from_der(&der).expect("PKCS #10");
        let names: Vec<String> = parsed
            .params
            .subject_alt_names
            .iter()
            .map(|name| match name {
                rcgen::SanType::DnsName(name) => name.to_string(),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(names, [name]);
    }

    #[test]
    fn every_request_has_its_own_key() {
        let (one, two) = (
            request("a.b").expect("a request"),
            request("a.b").expect("a request"),
        );
        assert_ne!(one.key.secret_der(), two.key.secret_der());
    }
}
