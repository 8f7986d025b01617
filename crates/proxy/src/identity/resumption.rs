//! Resumption of TLS sessions between proxies: a short connection then costs no signature and no chain to verify.
//!
//! Both ends belong to one epoch and go with it, so no session outlives a certificate or a set of trust anchors: the
//! server's ticket keys, because another epoch cannot open the tickets; the client's tickets, because another epoch
//! does not have them. What a resumed session leaves out is looked at by [`judge_resumed`].
//!
//! Cost: the server keeps nothing per client, a ticket holds all it needs. The client keeps at most [`TICKETS`] of
//! about 3 KB each; a proxy that made no connection keeps none, and makes no keys.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ProducesTickets;
use rustls::{CertificateError, ClientConfig, Error, NamedGroup};

use super::peer;

/// Most tickets that a client keeps, for all servers together. Each serves one connection, so this is also how many
/// connections at once can be resumed.
pub const TICKETS: usize = 128;

/// Servers remembered for choosing another key exchange than the first that we offer: few, or none.
const GROUPS: usize = 64;

/// How long a ticket is good for when there are no keys yet to ask: as long as rustls' own, in seconds.
const LIFETIME: u32 = 6 * 60 * 60;

/// A server's ticket keys: made when the first ticket is written, changed every six hours.
#[derive(Debug, Default)]
pub(super) struct TicketKeys {
    made: OnceLock<Option<Arc<dyn ProducesTickets>>>,
}

impl TicketKeys {
    fn get(&self) -> Option<&Arc<dyn ProducesTickets>> {
        // Without randomness for keys there is no ticket, and every handshake is a full one.
        self.made.get_or_init(|| Ticketer::new().ok()).as_ref()
    }
}

impl ProducesTickets for TicketKeys {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.get().map_or(LIFETIME, |keys| keys.lifetime())
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.get()?.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        // A ticket that comes before we have written one is not ours.
        self.made.get()?.as_ref()?.decrypt(cipher)
    }
}

/// A client's tickets, the oldest first, each for the address that gave it: another replica of the same server cannot
/// read it.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    tickets: VecDeque<(SocketAddr, Tls13ClientSessionValue)>,
    groups: VecDeque<(SocketAddr, NamedGroup)>,
}

impl Tickets {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Whatever panicked, each change is one push or one remove.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The youngest of a server: its others may have run out.
    pub(super) fn take(&self, server: SocketAddr) -> Option<Tls13ClientSessionValue> {
        let mut kept = self.kept();
        let tickets = &mut kept.tickets;
        let newest = tickets.iter().rposition(|(known, _)| *known == server)?;
        tickets.remove(newest).map(|(_, ticket)| ticket)
    }

    pub(super) fn put(&self, server: SocketAddr, ticket: Tls13ClientSessionValue) {
        let mut kept = self.kept();
        let tickets = &mut kept.tickets;
        if tickets.len() == TICKETS {
            tickets.pop_front();
        }
        tickets.push_back((server, ticket));
    }

    fn set_group(&self, server: SocketAddr, group: NamedGroup) {
        let mut kept = self.kept();
        let groups = &mut kept.groups;
        groups.retain(|(known, _)| *known != server);
        // A first hello offers both of these: choosing one costs no round trip.
        if matches!(group, NamedGroup::X25519MLKEM768 | NamedGroup::X25519) {
            return;
        }
        if groups.len() == GROUPS {
            groups.pop_front();
        }
        groups.push_back((server, group));
    }

    fn group(&self, server: SocketAddr) -> Option<NamedGroup> {
        let kept = self.kept();
        let found = kept.groups.iter().find(|(known, _)| *known == server);
        found.map(|(_, group)| *group)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.kept().tickets.len()
    }
}

/// What one connection takes from the tickets and gives back to them. rustls' own store keeps eight for a name, too few
/// for connections that come and go sixteen at a time, and does not know the replicas of a name from each other.
#[derive(Debug)]
pub(super) struct Meeting {
    server: SocketAddr,
    tickets: Arc<Tickets>,
}

impl Meeting {
    pub fn new(server: SocketAddr, tickets: &Arc<Tickets>) -> Self {
        Meeting {
            server,
            tickets: tickets.clone(),
        }
    }

    /// The configuration for it.
    pub fn with(self, config: &ClientConfig) -> Arc<ClientConfig> {
        let mut config = config.clone();
        config.resumption = Resumption::store(Arc::new(self));
        Arc::new(config)
    }
}

impl ClientSessionStore for Meeting {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.tickets.set_group(self.server, group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.tickets.group(self.server)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.tickets.put(self.server, ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.tickets.take(self.server)
    }
}

/// Looks at what a resumed session has not verified again: that no certificate of the peer's chain has expired since,
/// and, on the client's side, that the peer is the one that was dialled now.
///
/// # Errors
/// The same as in a full handshake.
pub fn judge_resumed(
    chain: &[CertificateDer<'_>],
    dialled: Option<&str>,
    now: UnixTime,
) -> Result<(), Error> {
    let bad = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
    for certificate in chain {
        if peer::not_after(certificate).map_err(bad)?
            <= UNIX_EPOCH + Duration::from_secs(now.as_secs())
        {
            return Err(Error::InvalidCertificate(CertificateError::Expired));
        }
    }
    match (dialled, chain.first()) {
        (None, _) => Ok(()),
        (Some(identity), Some(leaf)) if peer::names(leaf, identity).map_err(bad)? => Ok(()),
        (Some(_), Some(_)) => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
        (Some(_), None) => Err(Error::NoCertificatesPresented),
    }
}
