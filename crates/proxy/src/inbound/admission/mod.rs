//! What an authorized request has to meet beside its authorization, in this order: tokens, the rate limit, the limit of
//! requests at once, and the word of an external service (`external`). The first that is not met answers, and says
//! which object asked for it.
//!
//! Cost: a port without such requirements pays one test per request and allocates nothing. Limits hold for the whole
//! proxy, so their state is shared among workers, behind a lock that is held for a look-up; verified tokens and
//! connections to services are each worker's own.
//!
//! The state of a port lives as long as the port is known. A change of policy that leaves a limit or a requirement as
//! it was leaves its state too.

pub mod external;
mod signature;
mod tokens;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tulle_engine::Reason;
use tulle_engine::inbound::{RateLimiter, Scope, Server};
use tulle_http::Head;

use crate::clock;
use crate::http::answer::Refusal;
use crate::inbound::session::Session;
use crate::inbound::{Inbound, labels};
use crate::metrics::families;
use external::Service;
use tokens::Tokens;

/// The limits of all ports, shared among workers.
#[derive(Debug, Default)]
pub struct Shared {
    ports: Mutex<HashMap<u16, Arc<Limits>>>,
}

/// What one port has let in.
#[derive(Debug, Default)]
struct Limits {
    rate: Mutex<Option<RateLimiter>>,
    in_flight: AtomicUsize,
}

impl Shared {
    /// Asked for ports whose policy has requirements; there are no more of those than the control plane names.
    fn limits(&self, port: u16) -> Arc<Limits> {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.entry(port).or_default().clone()
    }
}

/// What one worker holds for one port with requirements.
pub struct Gate {
    limits: Arc<Limits>,
    /// In the order of the policy's requirements.
    tokens: RefCell<Vec<Tokens>>,
    external: RefCell<Option<Rc<Service>>>,
    /// How many of the port's rate-limit buckets this worker has made and not removed.
    buckets: Cell<u64>,
}

impl Gate {
    pub fn new(inbound: &Inbound, port: u16) -> Rc<Self> {
        Rc::new(Gate {
            limits: inbound.shared.limits(port),
            tokens: RefCell::default(),
            external: RefCell::default(),
            buckets: Cell::new(0),
        })
    }

    /// The service that the policy names; kept while the policy names the same.
    pub fn external(
        &self,
        inbound: &Rc<Inbound>,
        port: u16,
        server: &Server,
    ) -> Option<Rc<Service>> {
        let rule = server.external.as_ref()?;
        let mut external = self.external.borrow_mut();
        match &*external {
            Some(service) if service.is_for(rule) => Some(service.clone()),
            _ => {
                let service = Service::new(inbound, port, server, rule.clone());
                *external = Some(service.clone());
                Some(service)
            }
        }
    }
}

/// One of the requests that a port lets in at once.
pub struct Slot(Arc<Limits>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// The requirements that are decided at once. Changes the head as the tokens' requirements ask for. The slot, if there
/// is one, is to be held until the request has ended.
pub fn meet(
    inbound: &Rc<Inbound>,
    session: &Session,
    server: &Arc<Server>,
    head: &mut Head,
) -> Result<Option<Slot>, Refusal> {
    let gate = session.port().gate(inbound);
    if !server.jwt.is_empty() {
        tokens::meet(
            inbound,
            session,
            server,
            &mut gate.tokens.borrow_mut(),
            head,
        )?;
    }
    rate(inbound, session, server, &gate)?;
    concurrency(inbound, session, server, &gate)
}

/// What a client sends in the name of claims never reaches the application, token or not.
pub fn drop_claims(server: &Server, head: &mut Head) {
    tokens::drop_claims(server, head);
}

fn rate(inbound: &Inbound, session: &Session, server: &Server, gate: &Gate) -> Result<(), Refusal> {
    let Some(rule) = &server.rate_limit else {
        return Ok(());
    };
    let identity = session.peer().map(|peer| peer.name.as_str());
    let (outcome, made) = {
        let mut limiter = gate
            .limits
            .rate
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let limiter = limiter.get_or_insert_with(|| RateLimiter::new(rule.clone()));
        let before = limiter.buckets();
        limiter.follow(rule);
        let outcome = limiter.admit(identity, clock::now());
        (outcome, limiter.buckets().wrapping_sub(before))
    };
    if made != 0 {
        gate.buckets
            .set(gate.buckets.get().wrapping_add(made as u64));
        let labels = labels::port(session.port(), server);
        inbound
            .shard
            .gauge(&families::INBOUND_HTTP_LOCAL_RATELIMIT_BUCKETS, &labels)
            .set(gate.buckets.get());
    }
    let Err(limited) = outcome else {
        return Ok(());
    };
    let labels = labels::rate_limit(session, server, &rule.meta, limited.scope);
    inbound
        .shard
        .counter(&families::INBOUND_HTTP_LOCAL_RATELIMIT_TOTAL, &labels)
        .inc();
    let wait = Duration::from_nanos(limited.wait);
    let whose = match limited.scope {
        Scope::Total => "for all clients",
        Scope::Identity => "for this client",
    };
    let detail = format!("{} per second {whose}", limited.limit);
    let refusal = Refusal::because(Reason::RateLimited, detail)
        .of_rule(&rule.meta)
        // In whole seconds, of which the wait is never more than one.
        .with("retry-after", "1")
        .with("grpc-retry-pushback-ms", (wait.as_millis() + 1).to_string());
    Err(refusal)
}

fn concurrency(
    inbound: &Inbound,
    session: &Session,
    server: &Server,
    gate: &Gate,
) -> Result<Option<Slot>, Refusal> {
    let limit = server.max_in_flight;
    if limit == 0 {
        return Ok(None);
    }
    // Counted first: two workers at the last place must not both get it.
    let slot = Slot(gate.limits.clone());
    if slot.0.in_flight.fetch_add(1, Relaxed) < limit {
        return Ok(Some(slot));
    }
    drop(slot);
    let labels = labels::port(session.port(), server);
    inbound
        .shard
        .counter(&families::INBOUND_HTTP_CONCURRENCY_LIMITED_TOTAL, &labels)
        .inc();
    Err(Refusal::because(Reason::ConcurrencyLimited, limit).of_rule(&server.meta))
}
