//! The endpoints of one backend, and which of them takes the next request or connection.
//!
//! A backend is shared by every rule and target of the worker that names it, and with it the load it reckons and the
//! connections it holds. An endpoint that cannot be connected to leaves the draw and is tried again in the background,
//! with growing pauses, until it answers; meanwhile nobody waits for it while others are there.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tulle_engine::Reason;
use tulle_engine::balance::{Balancer, EndpointId, Load};
use tulle_engine::destination::{Endpoint, Endpoints, ProtocolHint, State as Known};
use tulle_engine::outbound::{Backend as Policy, BackendKind, Queue};
use tulle_http::Head;

use crate::clock;
use crate::config::Backoff;
use crate::discovery::Target;
use crate::http::answer::REASON;
use crate::http::h2;
use crate::http::origin::{self, Origin};
use crate::metrics::http::HttpMetrics;
use crate::metrics::{Labels, families};
use crate::net::reach::{ConnectError, Reach};
use crate::outbound::{Outbound, labels};

/// The backends in use, so that equal ones are one.
#[derive(Default)]
pub struct Backends(Vec<Weak<Backend>>);

pub struct Backend {
    outbound: Weak<Outbound>,
    policy: Policy,
    /// Endpoints that are not meshed are none: nothing leaves in the clear.
    strict: bool,
    /// A part of the labels of its endpoints.
    authority: String,
    endpoints: Option<RefCell<watch::Receiver<Option<Arc<Endpoints>>>>>,
    state: RefCell<State>,
    waiting: Cell<u32>,
    /// Told when an endpoint has become ready.
    became_ready: Notify,
}

struct State {
    balancer: Balancer<SocketAddr>,
    /// By [`EndpointId::index`].
    members: Vec<Option<Rc<Member>>>,
    known: Known,
    /// Since when no endpoint has been ready.
    unready_since: Option<Instant>,
    /// There are endpoints, and mutual TLS is demanded that none of them has.
    none_is_meshed: bool,
    last_error: Option<ConnectError>,
}

/// An endpoint of a backend.
pub struct Member {
    id: EndpointId,
    /// Out of the draw until it can be connected to.
    retired: Cell<bool>,
    pub endpoint: Arc<Endpoint>,
    pub origin: Rc<Origin>,
    pub metrics: HttpMetrics,
}

impl Member {
    /// HTTP/1 may be carried in HTTP/2: there is a proxy at the other end that takes it out again.
    pub fn bridges(&self) -> bool {
        self.origin.reach().is_meshed() && self.endpoint.hint == ProtocolHint::Http2
    }
}

/// What the choice of an endpoint looks at beside load. One request's tries share it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    /// Not this one if there is another: it has just been tried.
    pub not: Option<EndpointId>,
}

impl Choice {
    /// The next try goes elsewhere if it can.
    pub fn exclude(&mut self, tried: &InUse) {
        self.not = Some(tried.member.id);
    }
}

/// An endpoint while a request or connection is with it: counts as load until dropped. How the try went is told once,
/// by the first of [`Self::answered`] (if the head tells), [`Self::ended`] and [`Self::broke`]; a try that is dropped
/// without (the caller has left) tells nothing about the endpoint.
pub struct InUse {
    backend: Rc<Backend>,
    pub member: Rc<Member>,
    started: u64,
}

impl InUse {
    /// The answer's head has come. `head` as the server sent it, for its status and what it says about trying again.
    pub fn answered(&self, now: u64, _head: &Head) {
        self.begun(now);
    }

    /// The answer is complete. `grpc_status`: of its trailers, if it had one there.
    pub fn ended(&self, _now: u64, _grpc_status: Option<u8>) {}

    /// The connection or stream broke, or the server took too long: the try failed, and not by the caller.
    pub fn broke(&self, _now: u64) {}

    /// The first bytes are there, or a connection that is not looked into stands.
    pub fn begun(&self, now: u64) {
        self.backend.state.borrow_mut().balancer.on_first_response(
            self.member.id,
            self.started,
            now,
        );
    }

    /// Has the endpoint's proxy answered that it could not reach its application? Then no application has seen the
    /// request. The endpoint leaves the draw for a moment, if there are others.
    pub fn declined(&self, answer: &Head) -> bool {
        let declined = self.member.origin.reach().is_meshed()
            && answer.get(REASON).is_some_and(|reason| {
                DECLINED
                    .iter()
                    .any(|known| known.code().as_bytes() == reason)
            });
        let others = self.backend.state.borrow().balancer.ready_len() > 1;
        if declined && others {
            self.backend.retire(
                &self.member,
                ConnectError::new(Reason::ConnectFailed, "its application does not listen"),
            );
        }
        declined && others
    }

    /// There is a proxy at the other end, identified by mutual TLS.
    pub fn is_meshed(&self) -> bool {
        self.member.origin.reach().is_meshed()
    }

    /// It could not be connected to: others are used until it can.
    pub fn failed(&self, error: ConnectError) {
        self.backend.retire(&self.member, error);
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.backend
            .state
            .borrow_mut()
            .balancer
            .on_end(self.member.id);
    }
}

/// What a proxy says for an application that has not seen the request.
const DECLINED: [Reason; 2] = [Reason::ConnectFailed, Reason::ShuttingDown];

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
        let (load, endpoints, authority) = match &policy.kind {
            BackendKind::Forward(_) | BackendKind::Missing => {
                (Load::default(), None, labels::authority(target))
            }
            BackendKind::Balancer { dst, load } => (
                *load,
                Some(RefCell::new(outbound.discovery.endpoints(dst))),
                dst.to_string(),
            ),
        };
        let backend = Rc::new(Backend {
            outbound: Rc::downgrade(outbound),
            strict,
            authority,
            endpoints,
            state: RefCell::new(State {
                balancer: Balancer::new(load),
                members: Vec::new(),
                known: Known::Unknown,
                unready_since: None,
                none_is_meshed: false,
                last_error: None,
            }),
            waiting: Cell::new(0),
            became_ready: Notify::new(),
            policy,
        });
        match &backend.policy.kind {
            BackendKind::Forward(endpoint) => {
                backend.update(std::iter::once(endpoint), Known::Exists)
            }
            BackendKind::Balancer { .. } => backend.follow(true),
            BackendKind::Missing => backend.update(std::iter::empty(), Known::Missing),
        }
        backend
    }

    /// One endpoint and no other: its error is the answer, since there is nothing to wait for.
    pub fn is_single(&self) -> bool {
        matches!(self.policy.kind, BackendKind::Forward(_))
    }

    /// An endpoint now, if one is ready.
    pub fn pick(self: &Rc<Self>, now: u64, choice: Choice) -> Option<InUse> {
        self.follow(false);
        let mut state = self.state.borrow_mut();
        let id = state
            .balancer
            .pick_other(now, fastrand::u64(..), choice.not)?;
        let member = state.members.get(id.index())?.clone()?;
        state.balancer.on_start(id);
        drop(state);
        Some(InUse {
            backend: self.clone(),
            member,
            started: now,
        })
    }

    /// An endpoint as soon as one is ready: at once when it is known that there is none, else within the fail-fast
    /// time, which runs from when the last one became unready.
    pub async fn wait(self: &Rc<Self>, choice: Choice) -> Result<InUse, Unavailable> {
        let queue = self.policy.queue;
        if self.waiting.get() >= self.capacity(queue) {
            return Err(Unavailable {
                reason: Reason::LoadShed,
                detail: None,
            });
        }
        self.waiting.set(self.waiting.get() + 1);
        let waited = self.wait_in_queue(queue, choice).await;
        self.waiting.set(self.waiting.get() - 1);
        waited
    }

    /// How many may wait. Before discovery has answered, waiting is no sign of overload: the configured bound holds then.
    fn capacity(&self, queue: Queue) -> u32 {
        let configured = match self.outbound.upgrade() {
            Some(outbound) if self.state.borrow().known == Known::Unknown => {
                outbound.config.outbound.connections.queue_capacity
            }
            _ => 1,
        };
        queue
            .capacity
            .max(u32::try_from(configured).unwrap_or(u32::MAX))
    }

    async fn wait_in_queue(
        self: &Rc<Self>,
        queue: Queue,
        choice: Choice,
    ) -> Result<InUse, Unavailable> {
        loop {
            let ready = self.became_ready.notified();
            if let Some(in_use) = self.pick(clock::now(), choice) {
                return Ok(in_use);
            }
            let deadline = {
                let mut state = self.state.borrow_mut();
                if state.balancer.is_empty() && state.known != Known::Unknown {
                    return Err(Unavailable {
                        reason: Reason::NoEndpoints,
                        detail: Some(self.authority.as_str().into()),
                    });
                }
                if state.none_is_meshed {
                    return Err(Unavailable {
                        reason: Reason::MeshTlsRequired,
                        detail: Some(self.authority.as_str().into()),
                    });
                }
                *state.unready_since.get_or_insert_with(Instant::now) + queue.failfast
            };
            let mut endpoints = self
                .endpoints
                .as_ref()
                .map(|endpoints| endpoints.borrow().clone());
            let changed = async {
                let changed = match &mut endpoints {
                    Some(endpoints) => endpoints.changed().await.is_ok(),
                    None => false,
                };
                if !changed {
                    // Its sender is gone: nothing will change any more.
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = ready => {}
                () = changed => {}
                () = tokio::time::sleep_until(deadline) => {
                    let state = self.state.borrow();
                    let reason = if state.known == Known::Unknown { Reason::DiscoveryTimeout } else { Reason::FailFast };
                    return Err(Unavailable { reason, detail: state.last_error.as_ref().map(|error| error.to_string().into()) });
                }
            }
        }
    }

    /// Takes in what discovery has told since the last time.
    fn follow(self: &Rc<Self>, first: bool) {
        let Some(endpoints) = &self.endpoints else {
            return;
        };
        if !first && !endpoints.borrow().has_changed().unwrap_or(false) {
            return;
        }
        let Some(endpoints) = endpoints.borrow_mut().borrow_and_update().clone() else {
            return;
        };
        self.update(endpoints.iter(), endpoints.state());
    }

    fn update<'e>(
        self: &Rc<Self>,
        endpoints: impl Iterator<Item = &'e Arc<Endpoint>>,
        known: Known,
    ) {
        let Some(outbound) = self.outbound.upgrade() else {
            return;
        };
        let endpoints: Vec<&Arc<Endpoint>> = endpoints.collect();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.known = known;
        // An endpoint whose facts have changed is another endpoint: its connections were made by the old ones.
        let same = |endpoint: &Endpoint| {
            let member = state
                .balancer
                .id(&endpoint.addr)
                .and_then(|id| state.members.get(id.index())?.as_ref());
            member.is_none_or(|member| *member.endpoint == *endpoint)
        };
        let kept: Vec<_> = endpoints
            .iter()
            .filter(|endpoint| same(endpoint))
            .map(|e| (e.addr, e.weight))
            .collect();
        let wanted = endpoints
            .iter()
            .map(|endpoint| (endpoint.addr, endpoint.weight));
        let now = clock::now();
        let mut removed = state.balancer.update(now, kept).removed;
        let diff = state.balancer.update(now, wanted);
        removed.extend(diff.removed);
        for id in removed {
            if let Some(member) = state.members.get_mut(id.index()) {
                *member = None;
            }
        }
        for endpoint in endpoints {
            let Some(id) = state.balancer.id(&endpoint.addr) else {
                continue;
            };
            if state.members.len() <= id.index() {
                state.members.resize_with(id.index() + 1, || None);
            }
            if state.members[id.index()]
                .as_ref()
                .is_some_and(|member| member.id == id)
            {
                continue;
            }
            match Member::new(&outbound, self, id, endpoint) {
                Ok(member) => state.members[id.index()] = Some(Rc::new(member)),
                Err(error) => {
                    state.balancer.set_ready(id, false);
                    state.last_error = Some(error);
                }
            }
        }
        state.none_is_meshed =
            self.strict && !state.balancer.is_empty() && state.members.iter().all(Option::is_none);
        if state.balancer.ready_len() > 0 {
            state.unready_since = None;
            self.became_ready.notify_waiters();
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
        let is_current = state
            .members
            .get(member.id.index())
            .and_then(Option::as_ref)
            .is_some_and(|m| Rc::ptr_eq(m, member));
        if self.is_single() || !is_current || member.retired.replace(true) {
            return;
        }
        state.balancer.set_ready(member.id, false);
        if state.balancer.ready_len() == 0 {
            state.unready_since.get_or_insert_with(Instant::now);
        }
        let backoff = outbound.config.outbound.connections.connect_backoff;
        tokio::task::spawn_local(recover(Rc::downgrade(self), Rc::downgrade(member), backoff));
    }

    fn restore(&self, member: &Member) {
        let mut state = self.state.borrow_mut();
        member.retired.set(false);
        state.balancer.set_ready(member.id, true);
        state.unready_since = None;
        self.became_ready.notify_waiters();
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

impl Member {
    fn new(
        outbound: &Rc<Outbound>,
        backend: &Backend,
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
        if backend.strict && !meshed {
            return Err(ConnectError::new(Reason::MeshTlsRequired, endpoint.addr));
        }
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
                outbound.epochs.clone(),
                limits,
                meter,
            ),
            metrics: HttpMetrics::new(
                &outbound.shard,
                labels::endpoint(outbound, &backend.authority, endpoint, meshed),
            ),
        })
    }
}
