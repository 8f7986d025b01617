//! An endpoint of a backend: what discovery says of it, and what a worker holds for it once a request has gone there.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tulle_engine::balance::EndpointId;
use tulle_engine::destination::{Endpoint, ProtocolHint};
use tulle_engine::tap::Labels;

use crate::http::h2;
use crate::http::origin::{self, Origin};
use crate::metrics::http::HttpMetrics;
use crate::net::reach::{ConnectError, Reach};
use crate::outbound::{Outbound, labels};
use crate::tap::Tls;

/// An endpoint, used or not.
pub(super) struct Place {
    pub(super) id: EndpointId,
    pub(super) endpoint: Arc<Endpoint>,
    /// Not so when mutual TLS is demanded and it has none.
    pub(super) usable: bool,
    member: Option<Rc<Member>>,
}

/// An endpoint that is used.
pub struct Member {
    pub(super) id: EndpointId,
    /// Out of the draw until it can be connected to.
    pub(super) retired: Cell<bool>,
    pub endpoint: Arc<Endpoint>,
    pub origin: Rc<Origin>,
    pub metrics: HttpMetrics,
}

impl Place {
    pub(super) fn new(id: EndpointId, endpoint: &Arc<Endpoint>, usable: bool) -> Self {
        Place {
            id,
            endpoint: endpoint.clone(),
            usable,
            member: None,
        }
    }

    /// What is held for the endpoint; made when it is first used.
    pub(super) fn member(
        &mut self,
        outbound: &Outbound,
        authority: &str,
    ) -> Result<Rc<Member>, ConnectError> {
        if let Some(member) = &self.member {
            return Ok(member.clone());
        }
        let member = Rc::new(Member::new(outbound, authority, self.id, &self.endpoint)?);
        self.member = Some(member.clone());
        Ok(member)
    }

    pub(super) fn is(&self, member: &Rc<Member>) -> bool {
        self.member
            .as_ref()
            .is_some_and(|own| Rc::ptr_eq(own, member))
    }
}

impl Member {
    fn new(
        outbound: &Outbound,
        authority: &str,
        id: EndpointId,
        endpoint: &Arc<Endpoint>,
    ) -> Result<Self, ConnectError> {
        let connections = &outbound.config.outbound.connections;
        // Without an identity of our own there is no mesh to speak of, and the server's own port is what is left.
        let reach = if outbound.config.identity.is_some() {
            Reach::endpoint(endpoint)?
        } else {
            Reach::plain(endpoint.addr)
        };
        let meshed = reach.is_meshed();
        let limits = origin::Limits {
            connect_timeout: connections.connect_timeout,
            idle: connections.pool_max_idle,
            idle_time: connections.pool_idle,
            h1: outbound.h1_limits(),
            h2: h2::Settings::for_endpoint(&endpoint.http2, meshed),
        };
        let meter = labels::endpoint_meter(outbound, endpoint, meshed);
        Ok(Member {
            id,
            retired: Cell::new(false),
            endpoint: endpoint.clone(),
            origin: Origin::new(
                reach,
                outbound.dialer,
                outbound.trust.clone(),
                limits,
                meter,
                meshed.then(|| outbound.handshakes.clone()),
            ),
            metrics: HttpMetrics::new(
                &outbound.shard,
                labels::endpoint(outbound, authority, endpoint, meshed),
            ),
        })
    }

    /// Where it is, what it is called and what it proves, for those who watch its requests.
    pub fn as_watched(&self) -> (SocketAddr, Labels<'_>, Tls<'_>) {
        let proof = match self.origin.reach().identity() {
            Some(identity) => Tls::Peer(identity),
            None => Tls::None("not_provided_by_service_discovery"),
        };
        (
            self.endpoint.addr,
            Labels::Map(&self.endpoint.labels),
            proof,
        )
    }

    /// HTTP/1 may be carried in HTTP/2: there is a proxy at the other end that takes it out again.
    pub fn bridges(&self) -> bool {
        self.origin.reach().is_meshed() && self.endpoint.hint == ProtocolHint::Http2
    }
}
