//! The proxy's identity: a certificate that is renewed while the proxy runs, and the TLS configurations made of it.
//!
//! An [`Epoch`] is everything that goes with one certificate, immutable, prebuilt and replaced whole: server and
//! client configurations per ALPN with their own session tickets, so that resumption never crosses a renewal.
//! Connections of an older epoch go on as they are. A trust anchor that is dropped is refused in new handshakes, and
//! connections that only it vouched for drain. The key is made in this process and never leaves it.
//!
//! `csr.rs` makes keys and requests, `verify.rs` judges peers, `peer.rs` reads who a verified peer is, `peers.rs` knows
//! those of open connections, `resumption.rs` keeps sessions for the next connection, `der.rs` reads and writes the
//! encoding; `control/identity.rs` talks to the identity service.

mod csr;
mod der;
mod peer;
mod peers;
mod resumption;
mod spiffe;
mod svid;
mod verify;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;

use crate::transport_header;
use resumption::{Meeting, TicketKeys, Tickets};

pub use csr::{Request, request};
pub use der::Malformed;
pub use peer::PeerIdentity;
pub use peers::{Direction, Distrusted, Standing, Trust};
pub use resumption::{TICKETS, judge_resumed};
pub use spiffe::spiffe_id;
pub use svid::Wanted;
pub use verify::{MAX_ANCHORS, TrustAnchors, failure_reason, provider};

/// The current epoch as everybody sees it: `None` until the first certificate, or for ever when identity is disabled.
pub type Epochs = watch::Receiver<Option<Arc<Epoch>>>;

/// What an inbound connection may negotiate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerAlpn {
    /// Transparent connections: no list, so whatever the client offers, nothing is chosen and nothing refused.
    None,
    /// Connections to the inbound port itself: the transport header or nothing.
    TransportHeader,
}

/// What an outbound connection offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAlpn {
    /// Nothing.
    None,
    /// HTTP/2: gRPC to the control plane.
    H2,
    /// The transport header, to a peer's inbound port.
    TransportHeader,
}

/// One certificate and everything made of it.
#[derive(Debug)]
pub struct Epoch {
    name: String,
    /// How peers dial it: the name itself, where that is a DNS name.
    server_name: String,
    not_after: SystemTime,
    anchors: TrustAnchors,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    servers: [Arc<ServerConfig>; 2],
    clients: [Client; 3],
}

/// Of one ALPN.
#[derive(Debug)]
struct Client {
    config: Arc<ClientConfig>,
    /// `None`: each connection is begun in full.
    tickets: Option<Arc<Tickets>>,
}

/// Why a certificate cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable(String);

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

impl Epoch {
    /// Builds an epoch for `name` from a certificate chain, leaf first, and its key.
    ///
    /// # Errors
    /// The chain does not lead to an anchor now, names another identity, or does not belong to the key.
    pub fn new(
        name: &str,
        anchors: &TrustAnchors,
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
    ) -> Result<Self, Unusable> {
        let [leaf, intermediates @ ..] = chain.as_slice() else {
            return Err(Unusable("there is no certificate in the answer".to_owned()));
        };
        anchors
            .verify_server(leaf, intermediates, name, UnixTime::now())
            .map_err(|error| {
                Unusable(format!("the certificate is not valid for {name}: {error}"))
            })?;
        Self::build(name, anchors, chain, key.clone_key())
    }

    /// The same certificate, with other anchors to judge peers by. That it leads to one of them itself is not asked:
    /// see [`Self::is_under`].
    ///
    /// # Errors
    /// As [`Self::new`]; none that are expected, since the certificate has been in use.
    pub fn trusting(&self, anchors: &TrustAnchors) -> Result<Self, Unusable> {
        let key = self.key.clone_key();
        let epoch = Self::build(&self.name, anchors, self.chain.clone(), key)?;
        Ok(epoch.dialled_as(&self.server_name))
    }

    /// The same, dialled by another name than its own, which is a SPIFFE ID.
    #[must_use]
    pub fn dialled_as(mut self, server_name: &str) -> Self {
        server_name.clone_into(&mut self.server_name);
        self
    }

    /// Whether it is made of the same certificate and anchors.
    pub fn is_same(&self, other: &Self) -> bool {
        self.chain == other.chain && self.anchors == other.anchors
    }

    fn build(
        name: &str,
        anchors: &TrustAnchors,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, Unusable> {
        let none = || Unusable("there is no certificate in the answer".to_owned());
        let not_after = peer::not_after(chain.first().ok_or_else(none)?)
            .map_err(|error| Unusable(error.to_string()))?;
        let server = |alpn: &[&[u8]]| server(anchors, &chain, &key, alpn);
        let mismatch = |error: String| {
            Unusable(format!(
                "the certificate cannot be used with its key: {error}"
            ))
        };
        let own = presented(&anchors.provider, &chain, &key).map_err(mismatch)?;
        let client = |alpn: &[&[u8]], resumes: bool| {
            let config = client(anchors, Some(own.clone()), alpn)?;
            Ok(Client {
                config: Arc::new(config),
                tickets: resumes.then(Arc::default),
            })
        };
        Ok(Self {
            name: name.to_owned(),
            server_name: name.to_owned(),
            not_after,
            anchors: anchors.clone(),
            servers: [
                server(&[]).map_err(mismatch)?,
                server(&[transport_header::ALPN]).map_err(mismatch)?,
            ],
            clients: [
                client(&[], true).map_err(mismatch)?,
                // The control plane's connections stay: each is begun in full.
                client(&[b"h2"], false).map_err(mismatch)?,
                client(&[transport_header::ALPN], true).map_err(mismatch)?,
            ],
            chain,
            key,
        })
    }

    /// Whom peers must chain to.
    pub fn anchors(&self) -> &TrustAnchors {
        &self.anchors
    }

    /// Whether its own certificate leads to one of these anchors.
    pub fn is_under(&self, anchors: &TrustAnchors) -> bool {
        anchors.vouches_for(&self.chain)
    }

    /// The proxy's own identity.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a client that dials this server name means this proxy.
    pub fn is_named(&self, server_name: &str) -> bool {
        self.server_name.eq_ignore_ascii_case(server_name)
    }

    /// When the certificate expires.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether it has expired.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        now >= self.not_after
    }

    /// The configuration for accepting connections. A client may show no certificate; one that it shows must be good.
    pub fn server(&self, alpn: ServerAlpn) -> Arc<ServerConfig> {
        self.servers[alpn as usize].clone()
    }

    /// The configuration for dialling a peer whose identity is the server name that is dialled (see [`server_name`]),
    /// begun in full and without a thought of the next.
    pub fn client(&self, alpn: ClientAlpn) -> Arc<ClientConfig> {
        self.clients[alpn as usize].config.clone()
    }

    /// The same for the server at an address, with a ticket if it has given one; the ticket that it gives is kept.
    pub fn client_to(&self, alpn: ClientAlpn, server: SocketAddr) -> Arc<ClientConfig> {
        let Client { config, tickets } = &self.clients[alpn as usize];
        match tickets {
            Some(tickets) => Meeting::new(server, tickets).with(config),
            None => config.clone(),
        }
    }

    /// As [`Self::client`], for the rare peer whose identity differs from its server name. Costs a configuration
    /// without a session store: keep it with the endpoint.
    pub fn client_expecting(&self, alpn: ClientAlpn, identity: &str) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.clients[alpn as usize].config);
        config
            .dangerous()
            .set_certificate_verifier(self.anchors.pinned_server_verifier(identity));
        Arc::new(config)
    }
}

/// The server name (SNI and expected identity) for an identity; `None` when it is not a DNS name.
pub fn server_name(identity: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(identity.to_owned())
        .ok()
        .filter(|name| matches!(name, ServerName::DnsName(_)))
}

/// A configuration without a certificate of one's own: for the identity service, which is asked before there is one
/// and after it has expired.
///
/// # Errors
/// The anchors cannot be used.
pub fn anonymous_client(anchors: &TrustAnchors) -> Result<Arc<ClientConfig>, String> {
    client(anchors, None, &[b"h2"]).map(Arc::new)
}

/// When to renew: 70 % of the remaining life, within the bounds, moved by up to ±5 % so that proxies that started
/// together do not renew together. `random` is in 0..1.
pub fn renew_after(remaining: Duration, min: Duration, max: Duration, random: f64) -> Duration {
    remaining
        .mul_f64(0.7 * (0.95 + 0.1 * random))
        .clamp(min, max.max(min))
}

fn server(
    anchors: &TrustAnchors,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, String> {
    let mut config = ServerConfig::builder_with_provider(anchors.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(anchors.client_verifier()?)
        .with_single_cert(chain.to_vec(), key.clone_key())
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::new(TicketKeys::default());
    // A client that comes back brings one and takes one: it has as many as it ever had connections at once.
    config.send_tls13_tickets = 1;
    // Records are sealed and opened by ourselves: `net/tls`.
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// A client's certificate, to be shown to every server.
fn presented(
    provider: &CryptoProvider,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<Arc<dyn ResolvesClientCert>, String> {
    let certified = CertifiedKey::from_der(chain.to_vec(), key.clone_key(), provider);
    let certified = certified.map_err(|error| error.to_string())?;
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

fn client(
    anchors: &TrustAnchors,
    own: Option<Arc<dyn ResolvesClientCert>>,
    alpn: &[&[u8]],
) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(anchors.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(anchors.server_verifier());
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(own),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_secret_extraction = true;
    Ok(config)
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "resumption_tests.rs"]
mod resumption_tests;
