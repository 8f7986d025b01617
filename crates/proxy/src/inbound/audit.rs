//! What policy lets in only to be watched (`audit`): each is counted as allowed by the authorization `audit`, and
//! logged. A busy port would drown its log, so at most [`LINES`] lines a second are written, and the next one says how
//! many were left out.

use std::cell::Cell;

use tulle_engine::Meta;

use crate::clock;
use crate::inbound::session::{ClientTls, Session};

/// Audit lines in the log per second and worker.
const LINES: u64 = 10;
const SECOND: u64 = 1_000_000_000;

/// Writes the lines, within bounds.
#[derive(Debug, Default)]
pub struct Log {
    second: Cell<u64>,
    lines: Cell<u64>,
    left_out: Cell<u64>,
}

impl Log {
    /// `route`: of a request; none for a connection.
    pub fn allowed(&self, session: &Session, server: &Meta, route: Option<&Meta>) {
        let second = clock::now() / SECOND;
        if self.second.replace(second) != second {
            self.lines.set(0);
        }
        if self.lines.get() >= LINES {
            self.left_out.set(self.left_out.get() + 1);
            return;
        }
        self.lines.set(self.lines.get() + 1);
        let client = match session.tls() {
            ClientTls::Peer(peer) => &*peer.name,
            ClientTls::Unauthenticated => "TLS without a certificate",
            ClientTls::None(_) | ClientTls::Passthrough(_) => "no identity",
        };
        let what = if route.is_some() {
            "request"
        } else {
            "connection"
        };
        let route = route.map_or_else(String::new, ToString::to_string);
        let left_out = self.left_out.take();
        tracing::info!(
            port = session.port().number,
            %server,
            route,
            address = %session.client_ip(),
            client,
            left_out,
            "audit: no policy allows this {what}; it is let in to be seen"
        );
    }
}
