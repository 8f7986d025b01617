//! Reads ahead on a new connection until its protocol is known. Every byte stays in front of the stream.

use std::io;
use std::time::Duration;

use crate::detect::{self, Protocol};
use crate::net::hello::{self, Hello};
use crate::net::io::Io;

/// What a client speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spoken {
    Known(Protocol),
    /// It begins TLS, for this name.
    Tls {
        server_name: Option<String>,
    },
    /// It has said nothing that decides.
    Silent,
    /// The server spoke before it did (`crate::net::server_first`).
    ServerFirst,
}

/// The `result` label of HTTP detection.
pub fn result(spoken: &io::Result<Spoken>) -> &'static str {
    match spoken {
        Ok(Spoken::Known(Protocol::Http1)) => "http/1",
        Ok(Spoken::Known(Protocol::Http2)) => "http/2",
        Ok(Spoken::Known(_) | Spoken::Tls { .. } | Spoken::ServerFirst) => "not_http",
        Ok(Spoken::Silent) => "read_timeout",
        Err(_) => "error",
    }
}

/// Finds out within `timeout`; a client that says nothing, or too little, until then is `Silent`. The error is that of
/// the connection, or its end before the first byte.
pub async fn sniff(io: &mut Io, timeout: Duration) -> io::Result<Spoken> {
    match tokio::time::timeout(timeout, read(io)).await {
        Ok(spoken) => spoken,
        Err(_) => Ok(Spoken::Silent),
    }
}

async fn read(io: &mut Io) -> io::Result<Spoken> {
    loop {
        match detect::detect(io.ahead()) {
            Some(Protocol::Tls) => match hello::sniff(io.ahead()) {
                Hello::Complete { server_name } => return Ok(Spoken::Tls { server_name }),
                Hello::NotTls => return Ok(Spoken::Known(Protocol::Opaque)),
                Hello::Incomplete => {}
            },
            Some(protocol) => return Ok(Spoken::Known(protocol)),
            None => {}
        }
        if io.read_ahead().await? == 0 {
            return if io.ahead().is_empty() {
                Err(io::ErrorKind::UnexpectedEof.into())
            } else {
                // What was said goes to the server as it is.
                Ok(Spoken::Known(Protocol::Opaque))
            };
        }
    }
}
