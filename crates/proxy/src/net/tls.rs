//! TLS handshakes over a connection, each with a deadline. Which configuration, and who the peer is, are decided by
//! the caller (`crate::identity`).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

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
    Ok(TlsStream::Server(stream).into())
}

/// Begins TLS with the peer that `config` expects.
pub async fn connect(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    deadline: Duration,
) -> io::Result<Io> {
    let stream = within(
        deadline,
        TlsConnector::from(config).connect(name, Transport::new(stream)),
    )
    .await?;
    Ok(TlsStream::Client(stream).into())
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
