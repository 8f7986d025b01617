//! Verification of peers against the mesh's trust anchors, and the words for its failures.
//!
//! A server must chain to an anchor and name the identity it was dialled for: compared as it is, no wildcard. A
//! client may show nothing (policy decides what that is worth) or a certificate that chains to an anchor and names
//! exactly one identity; anything between is refused.

use std::io;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    RootCertStore, SignatureScheme,
};

use super::peer::{self, PeerIdentity};

/// The cryptography of the mesh: post-quantum hybrid key exchange first, AES-128-GCM first, nothing before TLS 1.3.
pub fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::{cipher_suite, kx_group};
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    })
}

/// Most anchors that are taken: two during a rotation, some more in a federation of clusters.
pub const MAX_ANCHORS: usize = 64;

/// The authorities that every peer must chain to. Equal when they list the same certificates.
#[derive(Clone, Debug)]
pub struct TrustAnchors {
    pub(super) roots: Arc<RootCertStore>,
    /// Sorted, each once.
    listed: Arc<[CertificateDer<'static>]>,
    pub(super) provider: Arc<CryptoProvider>,
}

impl PartialEq for TrustAnchors {
    fn eq(&self, other: &Self) -> bool {
        self.listed == other.listed
    }
}

impl Eq for TrustAnchors {}

impl TrustAnchors {
    /// Reads PEM certificates.
    ///
    /// # Errors
    /// There is none, or one cannot be read.
    pub fn from_pem(pem: &str) -> Result<Self, String> {
        let listed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        Self::from_der(listed.map_err(|error| format!("a trust anchor is not PEM: {error}"))?)
    }

    /// Takes certificates.
    ///
    /// # Errors
    /// There is none, there are too many, or one cannot be used.
    pub fn from_der(mut listed: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        listed.sort_by(|one, other| one.as_ref().cmp(other));
        listed.dedup();
        if listed.is_empty() {
            return Err("there is no trust anchor".to_owned());
        }
        if listed.len() > MAX_ANCHORS {
            let count = listed.len();
            return Err(format!("{count} trust anchors, of at most {MAX_ANCHORS}"));
        }
        let mut roots = RootCertStore::empty();
        for certificate in &listed {
            roots
                .add(certificate.clone())
                .map_err(|error| format!("a trust anchor cannot be used: {error}"))?;
        }
        Ok(Self {
            roots: Arc::new(roots),
            listed: listed.into(),
            provider: provider(),
        })
    }

    /// These and further certificates.
    ///
    /// # Errors
    /// There are too many, or one cannot be used.
    pub fn and(&self, more: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        Self::from_der(self.listed.iter().cloned().chain(more).collect())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.listed.len()
    }

    /// Whether every anchor of `former` is still one.
    pub fn covers(&self, former: &Self) -> bool {
        former
            .listed
            .iter()
            .all(|anchor| self.listed.contains(anchor))
    }

    /// Whether a chain that was verified before still leads to an anchor. The end of the leaf's life is another
    /// question and not asked here.
    pub fn vouches_for(&self, chain: &[CertificateDer<'_>]) -> bool {
        let [leaf, intermediates @ ..] = chain else {
            return false;
        };
        let (Ok(parsed), Ok(not_after)) =
            (ParsedCertificate::try_from(leaf), peer::not_after(leaf))
        else {
            return false;
        };
        let alive = not_after - Duration::from_secs(1);
        let alive = alive.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = UnixTime::now().as_secs().min(alive.as_secs());
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            UnixTime::since_unix_epoch(Duration::from_secs(now)),
            self.provider.signature_verification_algorithms.all,
        )
        .is_ok()
    }

    /// Verifies that a chain leads to an anchor, now, and that its leaf names the identity.
    pub(super) fn verify_server(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        identity: &str,
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        match peer::names(leaf, identity) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
            Err(_) => Err(Error::InvalidCertificate(CertificateError::BadEncoding)),
        }
    }

    pub(super) fn server_verifier(&self) -> Arc<ServerVerifier> {
        Arc::new(ServerVerifier {
            anchors: self.clone(),
            pinned: None,
        })
    }

    pub(super) fn pinned_server_verifier(&self, identity: &str) -> Arc<ServerVerifier> {
        Arc::new(ServerVerifier {
            anchors: self.clone(),
            pinned: Some(identity.to_owned()),
        })
    }

    pub(super) fn client_verifier(&self) -> Result<Arc<ClientVerifier>, String> {
        let chain =
            WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
                .allow_unauthenticated()
                .build()
                .map_err(|error| error.to_string())?;
        Ok(Arc::new(ClientVerifier { chain }))
    }
}

/// Verifies servers: chain, validity, and the identity that was dialled.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    anchors: TrustAnchors,
    /// The identity to expect when it differs from the SNI.
    pinned: Option<String>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let dialled = server_name.to_str();
        let identity = self.pinned.as_deref().unwrap_or(&dialled);
        self.anchors
            .verify_server(end_entity, intermediates, identity, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.anchors.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.anchors
            .provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Verifies clients that show a certificate: chain, validity, and that it names exactly one identity.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Names of authorities are for people who choose among certificates; a proxy has one.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        PeerIdentity::from_leaf(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// The `reason` label of a failed handshake (`tls_handshake_failures_total`); a closed set of words.
pub fn failure_reason(error: &io::Error) -> &'static str {
    let Some(tls) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>())
    else {
        return match error.kind() {
            io::ErrorKind::TimedOut => "timeout",
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => "closed",
            _ => "other",
        };
    };
    match tls {
        Error::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "not_yet_valid"
            }
            // Another authority of the same name, such as a cluster's that was set up with the same commands.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => "unknown_issuer",
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "wrong_identity"
            }
            _ => "bad_certificate",
        },
        Error::NoCertificatesPresented => "no_certificate",
        Error::AlertReceived(_) => "alert",
        Error::NoApplicationProtocol => "no_alpn",
        Error::PeerIncompatible(_) => "not_tls13",
        _ => "other",
    }
}
