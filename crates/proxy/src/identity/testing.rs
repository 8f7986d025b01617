//! Certificates for tests: an authority, leaves of every kind.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, DnValue, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::TrustAnchors;

/// An authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a leaf says.
pub(crate) struct Leaf {
    pub names: Vec<SanType>,
    pub subject: Vec<(DnType, &'static str)>,
    /// Seconds from now.
    pub not_before: i64,
    pub not_after: i64,
}

pub(crate) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("IA5"))
}

impl Leaf {
    pub fn named(name: &str) -> Self {
        Self {
            names: vec![dns(name)],
            subject: Vec::new(),
            not_before: -60,
            not_after: 3_600,
        }
    }
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "root.linkerd.cluster.local");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("root"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn der(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }

    pub fn anchors(&self) -> TrustAnchors {
        TrustAnchors::from_pem(&self.pem()).expect("anchors")
    }

    pub fn issue(&self, leaf: &Leaf) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, text) in &leaf.subject {
            params
                .distinguished_name
                .push(kind.clone(), DnValue::Utf8String((*text).to_owned()));
        }
        params.subject_alt_names.clone_from(&leaf.names);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let now = std::time::SystemTime::now();
        let at = |seconds: i64| {
            let offset = std::time::Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 {
                now - offset
            } else {
                now + offset
            }
        };
        params.not_before = at(leaf.not_before).into();
        params.not_after = at(leaf.not_after).into();
        let certificate = params.signed_by(&key, &self.0).expect("leaf");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        (vec![certificate.der().clone()], key)
    }
}
