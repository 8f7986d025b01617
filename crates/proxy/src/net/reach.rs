//! How a server is reached: plain TCP, or mutual TLS with its proxy, with or without a transport header.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tulle_engine::Reason;
use tulle_engine::destination::Endpoint;

use crate::identity::{self, ClientAlpn, Direction, Epoch, Trust};
use crate::net::dial::Dialer;
use crate::net::io::Io;
use crate::net::tls;
use crate::transport_header::{SessionProtocol, TransportHeader};

/// A server's address and what its connection begins with.
#[derive(Clone, Debug)]
pub struct Reach {
    address: SocketAddr,
    tls: Option<Peer>,
}

#[derive(Clone, Debug)]
struct Peer {
    name: ServerName<'static>,
    identity: Box<str>,
    /// The certificate says another name than the one asked for with SNI.
    differs: bool,
    /// What the transport header names; `None`: the connection goes to the server's own port, redirected.
    header: Option<For>,
}

/// Whom a connection to a proxy's own port is for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct For {
    port: u16,
    /// The proxy is a gateway, and forwards to this name.
    name: Option<Box<str>>,
}

impl For {
    fn endpoint(endpoint: &Endpoint) -> Self {
        let port = endpoint.addr.port();
        match endpoint.authority_override.as_deref() {
            None => For { port, name: None },
            Some(authority) => {
                let parts = authority.rsplit_once(':');
                let named = parts.and_then(|(name, port)| Some((name, port.parse().ok()?)));
                let (name, port) = named.unwrap_or((authority, port));
                For {
                    port,
                    name: Some(name.into()),
                }
            }
        }
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectError {
    pub reason: Reason,
    pub detail: Box<str>,
    /// Why the TLS handshake failed, if it was that: a word of a closed set.
    pub handshake: Option<&'static str>,
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason.text(), self.detail)
    }
}

impl ConnectError {
    pub fn new(reason: Reason, detail: impl std::fmt::Display) -> Self {
        ConnectError {
            reason,
            detail: detail.to_string().into(),
            handshake: None,
        }
    }

    fn of_tcp(address: SocketAddr, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::new(Reason::ConnectTimeout, address),
            kind => Self::new(Reason::ConnectFailed, format!("{address}: {kind}")),
        }
    }

    fn of_tls(address: SocketAddr, error: &io::Error) -> Self {
        let why = identity::failure_reason(error);
        let error = match why {
            "wrong_identity" => Self::new(Reason::IdentityMismatch, address),
            why => Self::new(Reason::TlsFailed, format!("{address}: {why}")),
        };
        ConnectError {
            handshake: Some(why),
            ..error
        }
    }
}

impl Reach {
    pub fn plain(address: SocketAddr) -> Self {
        Reach { address, tls: None }
    }

    /// The way to an endpoint: mutual TLS when it has an identity. An identity that cannot be a server name fails here,
    /// not in plain text.
    pub fn endpoint(endpoint: &Endpoint) -> Result<Self, ConnectError> {
        let Some(identity) = &endpoint.tls else {
            return Ok(Self::plain(endpoint.addr));
        };
        let Some(name) = identity::server_name(&identity.server_name) else {
            return Err(ConnectError::new(
                Reason::IdentityMismatch,
                format!("{} is not a server name", identity.server_name),
            ));
        };
        let address = SocketAddr::new(
            endpoint.addr.ip(),
            endpoint.transport_port.unwrap_or(endpoint.addr.port()),
        );
        let header = endpoint.transport_port.map(|_| For::endpoint(endpoint));
        let differs = !identity.name.eq_ignore_ascii_case(&identity.server_name);
        Ok(Reach {
            address,
            tls: Some(Peer {
                name,
                identity: identity.name.clone(),
                differs,
                header,
            }),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn is_meshed(&self) -> bool {
        self.tls.is_some()
    }

    /// The identity that the server must prove.
    pub fn identity(&self) -> Option<&str> {
        self.tls.as_ref().map(|peer| &*peer.identity)
    }

    /// The anchors have changed during the handshake.
    fn distrusted(&self) -> ConnectError {
        let why = "unknown_issuer";
        ConnectError {
            handshake: Some(why),
            ..ConnectError::new(Reason::TlsFailed, format!("{}: {why}", self.address))
        }
    }

    /// Connects. `session` goes into the transport header; `None` announces opaque bytes.
    pub async fn connect(
        &self,
        dialer: &Dialer,
        trust: &Trust,
        timeout: Duration,
        session: Option<SessionProtocol>,
    ) -> Result<Io, ConnectError> {
        let Some(peer) = &self.tls else {
            return Ok(self.dial(dialer, timeout).await?.into());
        };
        let Some(epoch) = trust.epoch() else {
            return Err(ConnectError::new(Reason::NoCertificate, self.address));
        };
        let mut io = self.meet(peer, &epoch, dialer, timeout).await?;
        let chain = io.peer_certificates().unwrap_or_default();
        let standing = trust.admit(&epoch, chain, Direction::Outbound);
        io.proved(standing.map_err(|_| self.distrusted())?);
        if let Some(to) = &peer.header {
            let mut header = Vec::new();
            TransportHeader {
                port: to.port,
                name: to.name.as_deref().map(str::to_owned),
                protocol: session,
            }
            .encode(&mut header);
            // Not flushed: it leaves with the first bytes, or with the relay's first turn.
            io.write_all(&header)
                .await
                .map_err(|error| ConnectError::of_tcp(self.address, &error))?;
        }
        Ok(io)
    }

    /// Mutual TLS with the peer.
    async fn meet(
        &self,
        peer: &Peer,
        epoch: &Epoch,
        dialer: &Dialer,
        timeout: Duration,
    ) -> Result<Io, ConnectError> {
        let alpn = match peer.header {
            Some(_) => ClientAlpn::TransportHeader,
            None => ClientAlpn::None,
        };
        let stream = self.dial(dialer, timeout).await?;
        let config = match peer.differs {
            true => epoch.client_expecting(alpn, &peer.identity),
            false => epoch.client_to(alpn, self.address),
        };
        tls::connect(stream, config, peer.name.clone(), TLS_TIMEOUT)
            .await
            .map_err(|error| ConnectError::of_tls(self.address, &error))
    }

    async fn dial(&self, dialer: &Dialer, timeout: Duration) -> Result<TcpStream, ConnectError> {
        let dialled = dialer.connect(self.address, timeout).await;
        dialled.map_err(|error| ConnectError::of_tcp(self.address, &error))
    }
}

/// A handshake is one round trip; a peer that takes longer than this is in trouble.
const TLS_TIMEOUT: Duration = Duration::from_secs(5);
