//! One client's connection to a port: who it is, and what the port's policy grants it. The engine weighs the policy once
//! per connection and again after each change; requests then cost a look at bits.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use tulle_engine::inbound::{Grants, Peer, PeerTls, Server};
use tulle_http::Head;

use crate::http::answer::Refusal;
use crate::identity::PeerIdentity;
use crate::inbound::Inbound;
use crate::inbound::port::Port;
use crate::observe::{Caller, Derivation, RequestId};

/// What is known of a client for sure.
#[derive(Clone, Debug)]
pub enum ClientTls {
    /// Not the mesh's TLS, and why (`no_tls_reason`).
    None(&'static str),
    /// TLS for another name, which is the application's own affair.
    Passthrough(Rc<str>),
    /// The mesh's TLS without a certificate.
    Unauthenticated,
    /// A certificate of the mesh.
    Peer(Rc<PeerIdentity>),
}

pub struct Session {
    port: Rc<Port>,
    client: SocketAddr,
    tls: ClientTls,
    weighed: RefCell<Option<(Arc<Server>, Rc<Grants>)>>,
}

impl Session {
    pub fn new(port: Rc<Port>, client: SocketAddr, tls: ClientTls) -> Self {
        Session {
            port,
            client,
            tls,
            weighed: RefCell::new(None),
        }
    }

    pub fn port(&self) -> &Rc<Port> {
        &self.port
    }

    pub fn tls(&self) -> &ClientTls {
        &self.tls
    }

    pub fn peer(&self) -> Option<&PeerIdentity> {
        match &self.tls {
            ClientTls::Peer(peer) => Some(peer),
            _ => None,
        }
    }

    /// Where the client is.
    pub fn client(&self) -> SocketAddr {
        self.client
    }

    pub fn client_ip(&self) -> IpAddr {
        self.client.ip().to_canonical()
    }

    /// What the engine weighs of the client.
    fn as_peer(&self) -> Peer<'_> {
        Peer {
            addr: self.client_ip(),
            tls: match &self.tls {
                ClientTls::None(_) | ClientTls::Passthrough(_) => PeerTls::None,
                ClientTls::Unauthenticated => PeerTls::Unauthenticated,
                ClientTls::Peer(peer) => PeerTls::Identity(&peer.name),
            },
        }
    }

    /// Its address and identity (empty without one), for the access log.
    pub fn named_client(&self) -> (SocketAddr, String) {
        let identity = self.peer().map(|peer| peer.name.clone());
        (self.client, identity.unwrap_or_default())
    }

    /// Takes note of a refused request, and names the id for its answer.
    pub fn observe_refusal(
        &self,
        inbound: &Inbound,
        head: &Head,
        refusal: &Refusal,
    ) -> Option<RequestId> {
        let caller = Caller::client(self.peer().map(|peer| peer.name.as_str()));
        inbound.observer.refused(caller, head, refusal, || {
            Derivation::inbound(&self.port.server(), &self.as_peer(), head)
        })
    }

    /// The newest policy and what it grants this client.
    pub fn policy(&self) -> (Arc<Server>, Rc<Grants>) {
        let server = self.port.server();
        let mut weighed = self.weighed.borrow_mut();
        match &*weighed {
            Some((known, grants)) if Arc::ptr_eq(known, &server) => (server, grants.clone()),
            _ => {
                let grants = Rc::new(server.grants(&self.as_peer()));
                *weighed = Some((server.clone(), grants.clone()));
                (server, grants)
            }
        }
    }
}
