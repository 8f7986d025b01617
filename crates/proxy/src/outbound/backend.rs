//! The endpoints of one backend, and which of them takes the next request or connection.
//!
//! A backend is shared by every rule and target of the worker that names it, and with it the load it reckons, its
//! circuit breakers and the connections it holds. The engine's balancer chooses; this file keeps it in step with
//! discovery, one change at a time, and holds what an endpoint needs once it is used. An endpoint that cannot be
//! connected to leaves the draw and is tried again in the background, with growing pauses, until it answers; meanwhile
//! nobody waits for it while others are there. One that a breaker has ejected comes back by a request.
//!
//! `member`: an endpoint that is used. `in_use`: a try with it, and how it went. `queue`: what waits while none is
//! ready. `affinity`: what keeps requests together. `meters`: the metrics.
//!
//! Cost: a change of one endpoint costs that endpoint. One that no request has gone to yet holds no connections, no
//! metrics and no labels.

mod affinity;
mod in_use;
mod member;
mod meters;
mod queue;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tulle_engine::Reason;
use tulle_engine::balance::{Balance, Balancer, EndpointId, Facts, Unready, ZonePreference};
use tulle_engine::destination::{Change, Cursor, Endpoint, Endpoints, State as Known};
use tulle_engine::outbound::{Backend as Policy, BackendKind};

use self::affinity::Traffic;
use self::member::Place;
use self::meters::Meters;
use crate::clock;
use crate::config::Backoff;
use crate::discovery::Target;
use crate::metrics::balancer::Balanced;
use crate::metrics::{Labels, families};
use crate::net::reach::ConnectError;
use crate::outbound::{Outbound, labels};

pub use self::affinity::Choice;
pub use self::in_use::InUse;
pub use self::member::Member;

/// The backends in use, so that equal ones are one.
#[derive(Default)]
pub struct Backends(Vec<Weak<Backend>>);

pub struct Backend {
    outbound: Weak<Outbound>,
    policy: Policy,
    /// Endpoints that are not meshed are none: nothing leaves in the clear.
    strict: bool,
    /// We have an identity; without one nothing is meshed.
    meshes: bool,
    /// A part of the labels of its endpoints.
    authority: String,
    endpoints: Option<RefCell<watch::Receiver<Option<Arc<Endpoints>>>>>,
    state: RefCell<State>,
    waiting: Cell<u32>,
    /// Told when an endpoint has become ready.
    became_ready: Notify,
    meters: Option<Meters>,
    /// Whether anything listens to how a try went: a breaker or a penalty.
    judges: bool,
}

struct State {
    balancer: Balancer<SocketAddr>,
    /// By [`EndpointId::index`].
    places: Vec<Option<Place>>,
    /// How far discovery's changes have been taken in.
    read: Cursor,
    known: Known,
    /// Since when no endpoint has been ready.
    unready_since: Option<Instant>,
    /// Endpoints that are not used because mutual TLS is demanded and they have none.
    unmeshed: usize,
    last_error: Option<ConnectError>,
}

/// Why there is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    pub reason: Reason,
    pub detail: Option<Box<str>>,
}

impl Backends {
    /// The backend of a policy; the one in use if there is an equal one.
    pub fn get(
        outbound: &Rc<Outbound>,
        target: &Target,
        policy: &Policy,
        strict: bool,
    ) -> Rc<Backend> {
        let mut backends = outbound.backends.borrow_mut();
        backends.0.retain(|backend| backend.strong_count() > 0);
        let known = backends
            .0
            .iter()
            .filter_map(Weak::upgrade)
            .find(|backend| backend.strict == strict && backend.policy == *policy);
        if let Some(backend) = known {
            return backend;
        }
        let backend = Backend::new(outbound, target, policy.clone(), strict);
        backends.0.push(Rc::downgrade(&backend));
        backend
    }
}

impl Backend {
    fn new(outbound: &Rc<Outbound>, target: &Target, policy: Policy, strict: bool) -> Rc<Self> {
        let single = Balance::default();
        let (balance, accrual, endpoints, authority) = match &policy.kind {
            BackendKind::Forward(_) | BackendKind::Missing => {
                (&single, None, None, labels::authority(target))
            }
            BackendKind::Balancer {
                dst,
                balance,
                accrual,
            } => (
                &**balance,
                accrual.as_deref().copied(),
                Some(RefCell::new(outbound.discovery.endpoints(dst))),
                dst.to_string(),
            ),
        };
        let breaks = accrual.is_some();
        let meters = endpoints.is_some().then(|| Meters::new(breaks));
        let backend = Rc::new(Backend {
            outbound: Rc::downgrade(outbound),
            strict,
            meshes: outbound.config.identity.is_some(),
            authority,
            endpoints,
            state: RefCell::new(State {
                balancer: Balancer::new(balance, accrual),
                places: Vec::new(),
                read: Cursor::default(),
                known: Known::Unknown,
                unready_since: None,
                unmeshed: 0,
                last_error: None,
            }),
            waiting: Cell::new(0),
            became_ready: Notify::new(),
            meters,
            judges: accrual.is_some() || balance.load.penalty.is_some(),
            policy,
        });
        match &backend.policy.kind {
            BackendKind::Forward(endpoint) => {
                backend.replace(std::iter::once(endpoint), Known::Exists);
            }
            BackendKind::Balancer { .. } => backend.follow(true),
            BackendKind::Missing => backend.replace(std::iter::empty(), Known::Missing),
        }
        backend
    }

    /// One endpoint and no other: its error is the answer, since there is nothing to wait for.
    pub fn is_single(&self) -> bool {
        matches!(self.policy.kind, BackendKind::Forward(_))
    }

    fn balance(&self) -> Option<&Balance> {
        match &self.policy.kind {
            BackendKind::Balancer { balance, .. } => Some(balance),
            BackendKind::Forward(_) | BackendKind::Missing => None,
        }
    }

    /// An endpoint now, if one is ready.
    pub fn pick(self: &Rc<Self>, now: u64, choice: Choice) -> Option<InUse> {
        self.try_pick(now, choice).ok()
    }

    fn try_pick(self: &Rc<Self>, now: u64, choice: Choice) -> Result<InUse, Unready> {
        self.follow(false);
        if let Some(meters) = &self.meters {
            if meters.of(choice.traffic).is_none() {
                self.meter(meters, choice.traffic);
            }
        }
        let mut state = self.state.borrow_mut();
        loop {
            let picked = state
                .balancer
                .pick(now, fastrand::u64(..), choice.balance)?;
            match self.member(&mut state, picked.id) {
                Ok(member) => {
                    drop(state);
                    return Ok(InUse::new(self.clone(), member, picked, now, choice.cookie));
                }
                // It stays out for as long as discovery says the same of it.
                Err(error) => {
                    state.balancer.on_end(picked, now);
                    state.balancer.set_ready(picked.id, false);
                    state.last_error = Some(error);
                }
            }
        }
    }

    /// The series of what is balanced, once it has been.
    fn metered(&self, traffic: Traffic) -> Option<&Balanced> {
        self.meters.as_ref()?.of(traffic)
    }

    #[cold]
    fn meter(&self, meters: &Meters, traffic: Traffic) {
        if let Some(outbound) = self.outbound.upgrade() {
            let state = self.state.borrow();
            let shut = state.unready_since.is_some();
            meters.begin(traffic, &outbound.shard, &self.policy, shut);
            meters.show(&state.balancer);
        }
    }

    fn member(&self, state: &mut State, id: EndpointId) -> Result<Rc<Member>, ConnectError> {
        let outbound = self.outbound.upgrade();
        let place = state
            .places
            .get_mut(id.index())
            .and_then(Option::as_mut)
            .filter(|place| place.id == id);
        match (outbound, place) {
            (Some(outbound), Some(place)) => place.member(&outbound, &self.authority),
            _ => Err(ConnectError::new(Reason::Internal, "the endpoint is gone")),
        }
    }

    /// Takes in what discovery has told since the last time: what has changed, where that is known.
    fn follow(&self, first: bool) {
        let Some(endpoints) = &self.endpoints else {
            return;
        };
        if !first && !endpoints.borrow().has_changed().unwrap_or(false) {
            return;
        }
        let mut receiver = endpoints.borrow_mut();
        // Read where it lies: who keeps the list makes the control side copy it for its next change.
        let newest = receiver.borrow_and_update();
        let Some(list) = newest.as_deref() else {
            return;
        };
        let mut reader = std::mem::take(&mut self.state.borrow_mut().read);
        match list.since(&mut reader) {
            Some(changes) => self.apply(changes, list.state()),
            None => self.replace(list.iter(), list.state()),
        }
        self.state.borrow_mut().read = reader;
    }

    fn apply<'c>(&self, changes: impl Iterator<Item = &'c Change>, known: Known) {
        let now = clock::now();
        let mut state = self.state.borrow_mut();
        for change in changes {
            match change {
                Change::Set(endpoint) => self.set(&mut state, now, endpoint),
                Change::Removed(addr) => {
                    if let Some(id) = state.balancer.id(addr) {
                        self.remove(&mut state, id);
                    }
                }
            }
        }
        self.changed(&mut state, known);
    }

    /// Makes the endpoints these; what is the same as before stays.
    fn replace<'e>(&self, endpoints: impl Iterator<Item = &'e Arc<Endpoint>>, known: Known) {
        let now = clock::now();
        let mut state = self.state.borrow_mut();
        let endpoints: Vec<&Arc<Endpoint>> = endpoints.collect();
        let facts = endpoints.iter().map(|e| (e.addr, self.facts(e)));
        for id in state.balancer.update(now, facts).removed {
            self.forget(&mut state, id);
        }
        for endpoint in endpoints {
            self.set(&mut state, now, endpoint);
        }
        if let Some(meters) = &self.meters {
            meters.reset();
        }
        self.changed(&mut state, known);
    }

    fn facts(&self, endpoint: &Endpoint) -> Facts {
        Facts {
            weight: endpoint.weight,
            near: self.balance().is_none_or(|balance| balance.zone.is_none())
                || ZonePreference::is_near(endpoint),
        }
    }

    /// Adds an endpoint or changes it. One whose facts have changed is another endpoint, since its connections were made
    /// by the old ones; unless only its weight is another.
    fn set(&self, state: &mut State, now: u64, endpoint: &Arc<Endpoint>) {
        let facts = self.facts(endpoint);
        let known = state.balancer.id(&endpoint.addr);
        if let Some(place) = known
            .and_then(|id| state.places.get_mut(id.index()))
            .and_then(Option::as_mut)
        {
            if place.endpoint.is_same_but_for_weight(endpoint) {
                place.endpoint = endpoint.clone();
                state.balancer.set_facts(place.id, facts);
                return;
            }
        }
        let id = match known {
            Some(id) if state.places.get(id.index()).is_none_or(Option::is_none) => id,
            Some(id) => {
                self.forget(state, id);
                state.balancer.insert(now, endpoint.addr, facts)
            }
            None => state.balancer.insert(now, endpoint.addr, facts),
        };
        if state.places.len() <= id.index() {
            state.places.resize_with(id.index() + 1, || None);
        }
        let usable = !self.strict || (self.meshes && endpoint.tls.is_some());
        state.places[id.index()] = Some(Place::new(id, endpoint, usable));
        if !usable {
            state.unmeshed += 1;
            state.balancer.set_ready(id, false);
            state.last_error = Some(ConnectError::new(Reason::MeshTlsRequired, endpoint.addr));
        }
        if let Some(meters) = &self.meters {
            meters.added();
        }
    }

    fn remove(&self, state: &mut State, id: EndpointId) {
        state.balancer.remove(id);
        self.forget(state, id);
    }

    fn forget(&self, state: &mut State, id: EndpointId) {
        let place = state.places.get_mut(id.index()).and_then(Option::take);
        state.unmeshed -= usize::from(place.is_some_and(|place| !place.usable));
        if let Some(meters) = &self.meters {
            meters.removed();
        }
    }

    fn changed(&self, state: &mut State, known: Known) {
        state.known = known;
        self.settle(state);
    }

    /// After every change of who is ready: wakes what waits, or notes since when nothing is ready.
    fn settle(&self, state: &mut State) {
        if state.balancer.ready_len() > 0 {
            if state.unready_since.take().is_some() {
                if let Some(meters) = &self.meters {
                    meters.opened();
                }
            }
            if self.waiting.get() > 0 {
                self.became_ready.notify_waiters();
            }
        } else if state.unready_since.is_none() && !state.balancer.is_empty() {
            state.unready_since = Some(Instant::now());
            if let Some(meters) = &self.meters {
                meters.shut();
            }
        }
        if let Some(meters) = &self.meters {
            meters.show(&state.balancer);
        }
    }

    /// Takes an endpoint out of the draw until it can be connected to.
    fn retire(self: &Rc<Self>, member: &Rc<Member>, error: ConnectError) {
        let Some(outbound) = self.outbound.upgrade() else {
            return;
        };
        if let Some(why) = error.handshake {
            let labels = Labels::builder()
                .add("direction", "outbound")
                .add("reason", why)
                .build();
            outbound
                .shard
                .counter(&families::TLS_HANDSHAKE_FAILURES_TOTAL, &labels)
                .inc();
        }
        let mut state = self.state.borrow_mut();
        state.last_error = Some(error);
        if self.is_single() || !state.holds(member) || member.retired.replace(true) {
            return;
        }
        state.balancer.set_ready(member.id, false);
        self.settle(&mut state);
        let backoff = outbound.config.outbound.connect_backoff;
        tokio::task::spawn_local(recover(Rc::downgrade(self), Rc::downgrade(member), backoff));
    }

    fn restore(&self, member: &Member) {
        let mut state = self.state.borrow_mut();
        member.retired.set(false);
        state.balancer.set_ready(member.id, true);
        self.settle(&mut state);
    }
}

impl State {
    fn holds(&self, member: &Rc<Member>) -> bool {
        self.places
            .get(member.id.index())
            .and_then(Option::as_ref)
            .is_some_and(|place| place.is(member))
    }
}

/// Tries an endpoint until it answers, or is gone.
async fn recover(backend: Weak<Backend>, member: Weak<Member>, backoff: Backoff) {
    let mut pause = backoff.min;
    loop {
        tokio::time::sleep(pause.mul_f64(1.0 + backoff.jitter * fastrand::f64())).await;
        pause = (pause * 2).min(backoff.max);
        let (Some(backend), Some(member)) = (backend.upgrade(), member.upgrade()) else {
            return;
        };
        match member.origin.probe(member.bridges()).await {
            Ok(()) => return backend.restore(&member),
            Err(error) => backend.state.borrow_mut().last_error = Some(error),
        }
    }
}
