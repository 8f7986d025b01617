//! TLS over a connection: the handshake, with a deadline, and what follows it. Which configuration, and who the peer is,
//! are decided by the caller and `crate::identity`; a resumed session is held to what a full handshake would have
//! verified.
//!
//! `handshake` lets rustls talk to the peer, `records` seals and opens what is said afterwards, `session` does both over a
//! socket.

mod handshake;
mod records;
mod session;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use tokio::net::TcpStream;

use crate::identity;
use crate::metrics::{Counter, Labels, Shard, families};
use crate::net::io::Io;
use handshake::Handshake;
pub use session::{ROOM, Session};

/// Terminates the TLS that a client begins; the hello may have been read ahead already.
pub async fn accept(io: Io, config: Arc<ServerConfig>, deadline: Duration) -> io::Result<Io> {
    let Some((tcp, ahead)) = io.into_tcp() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "TLS inside TLS is not terminated",
        ));
    };
    let handshake = Handshake::server(config).map_err(io::Error::other)?;
    let establishing = Session::establish(tcp, ahead.as_slice(), handshake);
    let session = within(deadline, establishing).await?;
    judge(&session, None)?;
    Ok(session.into())
}

/// Begins TLS with the peer that `config` expects. The last of the handshake leaves with the first that is written, or
/// when something is to be read.
pub async fn connect(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    deadline: Duration,
) -> io::Result<Io> {
    let handshake = Handshake::client(config, name.clone()).map_err(io::Error::other)?;
    let session = within(deadline, Session::establish(stream, &[], handshake)).await?;
    judge(&session, Some(&name.to_str()))?;
    Ok(session.into())
}

/// A session that was resumed brings back a certificate that was verified for an earlier connection.
fn judge(session: &Session, dialled: Option<&str>) -> io::Result<()> {
    if session.kind() != HandshakeKind::Resumed {
        return Ok(());
    }
    let chain = session.chain().unwrap_or_default();
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
        match io.tls().map(Session::kind) {
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

#[cfg(test)]
mod tests;
