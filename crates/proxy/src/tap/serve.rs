//! The listener of tap, on the control thread: who may call.
//!
//! The tap identity over mutual TLS is served. Everybody else is told why not, if they speak HTTP/2, counted, and let go
//! after a moment; they have places of their own, so that they take none of the tap identity's.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::spawn_local;

use super::call::{self, Caller, Calls};
use super::{MAX_CONNECTIONS, Refused, Taps};
use crate::config::Config;
use crate::detect::Protocol;
use crate::drain::Guard;
use crate::http::h2;
use crate::identity::{ServerAlpn, Trust};
use crate::inbound::ClientTls;
use crate::net::io::Io;
use crate::net::listen::{self, Accepted, SocketOptions};
use crate::net::sniff::{self, Spoken};
use crate::net::tls;
use crate::places::{Place, Places};

/// How long a client of tap may take for its first bytes, and again for its handshake.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long somebody who may not tap is listened to.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// How long a reader of taps may take to leave when the sidecar drains.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most calls at once on a connection of tap.
const MAX_STREAMS: u32 = 16;

/// The listening socket, where tap is configured. Bound before anything else starts.
///
/// # Errors
/// The address cannot be listened on; the error names it.
pub fn bind(config: &Config) -> io::Result<Option<std::net::TcpListener>> {
    let listen = |tap: &crate::config::Tap| listen::bind(tap.listen, SocketOptions::default());
    config.tap.as_ref().map(listen).transpose()
}

/// Who serves.
pub struct Server {
    wanted: Arc<str>,
    trust: Trust,
    taps: Arc<Taps>,
    guard: Guard,
    permitted: Places,
    others: Rc<Places>,
}

impl Server {
    /// For the identity that may call.
    pub fn new(wanted: &str, trust: Trust, taps: Arc<Taps>, guard: Guard) -> Rc<Self> {
        taps.served.store(true, Ordering::Relaxed);
        Rc::new(Server {
            wanted: wanted.into(),
            trust,
            taps,
            guard,
            permitted: Places::new(MAX_CONNECTIONS),
            others: Rc::new(Places::new(MAX_CONNECTIONS)),
        })
    }

    /// Accepts until draining begins.
    pub async fn run(self: Rc<Self>, listener: TcpListener) {
        let mut watched = self.guard.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listen::accept(&listener) => accepted,
                () = watched.draining() => return,
            };
            // Whoever has not said who they are is one of the others.
            match self.others.enter_shared() {
                Some(place) => drop(spawn_local(self.clone().connection(accepted, place))),
                None => self.taps.refused(Refused::Connections),
            }
        }
    }

    async fn connection(self: Rc<Self>, accepted: Accepted, place: Place<Rc<Places>>) {
        let client = accepted.client;
        let mut watched = self.guard.clone();
        let introduced = tokio::select! {
            introduced = self.introduce(Io::from(accepted.stream)) => introduced,
            () = watched.draining() => return,
        };
        drop(watched);
        let (io, caller) = match introduced {
            Ok(introduced) => introduced,
            Err(why) => return self.turned_away(client, why),
        };
        let permitted = caller.permitted.is_ok();
        let calls = Calls {
            caller,
            wanted: self.wanted.clone(),
            taps: self.taps.clone(),
            guard: self.guard.clone(),
        };
        let served = h2::server::serve(io, settings(), self.guard.clone(), move |head, stream| {
            drop(spawn_local(call::answer(calls.clone(), head, stream)));
        });
        if !permitted {
            return drop(tokio::time::timeout(REFUSED_FOR, served).await);
        }
        drop(place);
        let Some(_place) = self.permitted.enter() else {
            return self.turned_away(client, Refused::Connections);
        };
        let mut watched = self.guard.clone();
        let cut = async {
            watched.draining().await;
            tokio::time::sleep(PATIENCE).await;
        };
        tokio::select! {
            // The connection's task has told the peer what was wrong with it.
            _ended = served => {}
            () = cut => {}
        }
    }

    /// Finds out who calls. The error is that of somebody who cannot even be told.
    async fn introduce(&self, mut io: Io) -> Result<(Io, Caller), Refused> {
        let spoken = sniff::sniff(&mut io, HELLO_TIMEOUT).await;
        let unknown = Caller {
            identity: "".into(),
            permitted: Err(Refused::NoTls),
        };
        let name = match spoken {
            Ok(Spoken::Known(Protocol::Http2)) => return Ok((io, unknown)),
            Ok(Spoken::Tls {
                server_name: Some(name),
            }) => name,
            _ => return Err(Refused::NoTls),
        };
        let epoch = self.trust.epoch();
        let epoch = epoch.filter(|epoch| epoch.is_named(&name));
        let epoch = epoch.ok_or(Refused::NoTls)?;
        let mut io = tls::accept(io, epoch.server(ServerAlpn::None), HELLO_TIMEOUT)
            .await
            .map_err(|_| Refused::Handshake)?;
        let (identity, permitted) = match crate::inbound::client_tls(&self.trust, &epoch, &mut io) {
            Some(ClientTls::Peer(peer)) if *peer.name == *self.wanted => {
                (self.wanted.clone(), Ok(()))
            }
            Some(ClientTls::Peer(peer)) => (peer.name.as_str().into(), Err(Refused::OtherIdentity)),
            Some(_) => (unknown.identity, Err(Refused::NoIdentity)),
            None => return Err(Refused::Handshake),
        };
        Ok((
            io,
            Caller {
                identity,
                permitted,
            },
        ))
    }

    fn turned_away(&self, client: SocketAddr, why: Refused) {
        self.taps.refused(why);
        tracing::debug!(%client, why = why.code(), "tap: connection turned away");
    }
}

fn settings() -> h2::Settings {
    h2::Settings {
        max_concurrent_streams: MAX_STREAMS,
        connection_window: 65_535,
        max_header_list: 16 * 1024,
        ..h2::Settings::default()
    }
}
