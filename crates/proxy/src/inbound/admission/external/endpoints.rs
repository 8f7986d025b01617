//! Where an external service is: at an address, or at the endpoints that discovery tells for its name.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;
use tulle_engine::Meta;
use tulle_engine::destination::{
    Endpoint, Endpoints, Http2Params, ORDINARY_WEIGHT, ProtocolHint, TlsIdentity,
};

use super::{Service, Silence};
use crate::http::origin::Origin;
use crate::inbound::Inbound;
use crate::net::reach::Reach;
use crate::net::tls::Handshakes;

/// Endpoints of a service that one worker keeps connections to.
const MAX_ENDPOINTS: usize = 8;

pub(super) enum Source {
    Address(Rc<Origin>),
    Name {
        endpoints: RefCell<watch::Receiver<Option<Arc<Endpoints>>>>,
        origins: RefCell<Vec<(Arc<Endpoint>, Rc<Origin>)>>,
    },
    Nowhere,
}

impl Service {
    pub(super) fn find(&self, inbound: &Inbound) -> Source {
        if self.rule.invalid.is_some() {
            return Source::Nowhere;
        }
        match self.rule.authority.parse::<SocketAddr>() {
            Ok(address) => {
                match self.origin(inbound, &at(address, self.rule.identity.as_deref())) {
                    Some(origin) => Source::Address(origin),
                    None => Source::Nowhere,
                }
            }
            Err(_) => Source::Name {
                endpoints: RefCell::new(inbound.discovery.endpoints(&self.rule.authority)),
                origins: RefCell::default(),
            },
        }
    }

    fn origin(&self, inbound: &Inbound, endpoint: &Endpoint) -> Option<Rc<Origin>> {
        let reach = Reach::endpoint(endpoint).ok()?;
        let trust = inbound.trust.clone();
        let handshakes = reach
            .is_meshed()
            .then(|| Rc::new(Handshakes::new(&self.shard, "outbound")));
        Some(Origin::new(
            reach,
            self.dialer,
            trust,
            self.limits,
            None,
            handshakes,
        ))
    }

    /// The endpoints that may be asked; waits for discovery's first word.
    pub(super) async fn origins(&self, inbound: &Inbound) -> Result<Vec<Rc<Origin>>, Silence> {
        let (endpoints, origins) = match &self.source {
            Source::Address(origin) => return Ok(vec![origin.clone()]),
            Source::Nowhere => return Err(Silence::Invalid),
            Source::Name { endpoints, origins } => (endpoints, origins),
        };
        let unknown = endpoints.borrow().borrow().is_none();
        if unknown {
            let mut first = endpoints.borrow().clone();
            let known = first.wait_for(Option::is_some).await;
            known.map_err(|_| Silence::Unreachable)?;
        }
        let changed = endpoints.borrow().has_changed().unwrap_or(false);
        if changed || origins.borrow().is_empty() {
            self.follow(
                inbound,
                &mut endpoints.borrow_mut(),
                &mut origins.borrow_mut(),
            )?;
        }
        let origins = origins.borrow();
        Ok(origins.iter().map(|(_, origin)| origin.clone()).collect())
    }

    /// Takes over a change of the endpoints; those that stay keep their connections.
    fn follow(
        &self,
        inbound: &Inbound,
        endpoints: &mut watch::Receiver<Option<Arc<Endpoints>>>,
        origins: &mut Vec<(Arc<Endpoint>, Rc<Origin>)>,
    ) -> Result<(), Silence> {
        let Some(known) = endpoints.borrow_and_update().clone() else {
            return Err(Silence::Unreachable);
        };
        let wanted = self.rule.identity.as_deref();
        let proves = |endpoint: &&Arc<Endpoint>| match (wanted, &endpoint.tls) {
            (None, _) => true,
            (Some(wanted), Some(tls)) => tls.name.eq_ignore_ascii_case(wanted),
            (Some(_), None) => false,
        };
        let fit: Vec<_> = known.iter().filter(proves).cloned().collect();
        let before = std::mem::take(origins);
        let from = self.turn.get() % fit.len().max(1);
        let some = fit
            .iter()
            .cycle()
            .skip(from)
            .take(fit.len().min(MAX_ENDPOINTS));
        *origins = some
            .filter_map(|endpoint| {
                let same = before.iter().find(|(known, _)| known == endpoint);
                let origin = match same {
                    Some((_, origin)) => origin.clone(),
                    None => self.origin(inbound, endpoint)?,
                };
                Some((endpoint.clone(), origin))
            })
            .collect();
        match (origins.is_empty(), known.is_empty()) {
            (false, _) => Ok(()),
            (true, true) => Err(Silence::Unreachable),
            (true, false) => Err(Silence::Identity),
        }
    }
}

/// A service at a fixed address.
fn at(addr: SocketAddr, identity: Option<&str>) -> Endpoint {
    Endpoint {
        addr,
        weight: ORDINARY_WEIGHT,
        tls: identity.map(|name| TlsIdentity {
            name: name.into(),
            server_name: name.into(),
        }),
        hint: ProtocolHint::Http2,
        transport_port: None,
        authority_override: None,
        http2: Http2Params::default(),
        labels: BTreeMap::new(),
        meta: Meta::named("external authorization"),
    }
}
