//! TLS handshakes over a connection, each with a deadline. Which configuration, and who the peer is, are decided by
//! the caller and `crate::identity`; a resumed session is held to what a full handshake would have verified.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{ClientConfig, CommonState, HandshakeKind, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::identity;
use crate::metrics::{Counter, Labels, Shard, families};
use crate::net::io::{Io, Transport};

/// Terminates the TLS that a client begins; the hello may have been read ahead already.
pub async fn accept(io: Io, config: Arc<ServerConfig>, deadline: Duration) -> io::Result<Io> {
    let Some(transport) = io.into_transport() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "TLS inside TLS is not terminated",
        ));
    };
    let stream = within(deadline, TlsAcceptor::from(config).accept(transport)).await?;
    judge(stream.get_ref().1, None)?;
    Ok(TlsStream::Server(stream).into())
}

/// Begins TLS with the peer that `config` expects.
pub async fn connect(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    deadline: Duration,
) -> io::Result<Io> {
    let connecting = TlsConnector::from(config).connect(name.clone(), Transport::new(stream));
    let stream = within(deadline, connecting).await?;
    judge(stream.get_ref().1, Some(&name.to_str()))?;
    Ok(TlsStream::Client(stream).into())
}

/// A session that was resumed brings back a certificate that was verified for an earlier connection.
fn judge(connection: &CommonState, dialled: Option<&str>) -> io::Result<()> {
    if connection.handshake_kind() != Some(HandshakeKind::Resumed) {
        return Ok(());
    }
    let chain = connection.peer_certificates().unwrap_or_default();
    identity::judge_resumed(chain, dialled, UnixTime::now())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Counts the handshakes of one direction.
pub struct Handshakes {
    full: Counter,
    resumed: Counter,
}

impl Handshakes {
    /// `direction` is `inbound` or `outbound`.
    pub fn new(shard: &Shard, direction: &str) -> Self {
        let counter = |kind| {
            let labels = Labels::builder().add("direction", direction);
            let labels = labels.add("kind", kind).build();
            shard.counter(&families::TLS_HANDSHAKES_TOTAL, &labels)
        };
        Handshakes {
            full: counter("full"),
            resumed: counter("resumed"),
        }
    }

    /// Counts a connection's handshake, if it had one.
    pub fn count(&self, io: &Io) {
        match io.tls().and_then(|tls| tls.get_ref().1.handshake_kind()) {
            None => {}
            Some(HandshakeKind::Resumed) => self.resumed.inc(),
            Some(_) => self.full.inc(),
        }
    }
}

async fn within<T>(
    deadline: Duration,
    handshake: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match tokio::time::timeout(deadline, handshake).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no TLS handshake within {deadline:?}"),
        )),
    }
}
