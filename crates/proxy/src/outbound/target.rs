//! Targets and their policies: what is known of a place that the application talks to, kept in step with discovery.
//!
//! A policy is compiled into worker-local state (its backends, its metric handles) when it is first needed after a
//! change; a request that finds nothing changed pays one atomic load.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tulle_engine::outbound::{BackendId, Policy, Protocol};
use tulle_engine::route::RuleId;
use tulle_engine::{Meta, Reason};

use crate::discovery::{OutboundView, Target};
use crate::metrics::http::HttpMetrics;
use crate::metrics::{Counter, Labels, Shard, families};
use crate::outbound::backend::{Backend, Backends};
use crate::outbound::rules::{RuleState, Rules};
use crate::outbound::{Outbound, labels, mirror};

/// Targets that a worker keeps at once; as many as discovery watches.
const MAX_TARGETS: usize = crate::discovery::MAX_TARGETS;

/// The targets that were used lately.
#[derive(Default)]
pub struct Targets {
    known: HashMap<Target, Rc<State>>,
    sweeping: bool,
}

/// One target.
pub struct State {
    outbound: std::rc::Weak<Outbound>,
    target: Target,
    view: RefCell<watch::Receiver<Option<Arc<OutboundView>>>>,
    compiled: RefCell<Option<Rc<Compiled>>>,
    used: Cell<Instant>,
}

/// A policy and what this worker has made of it.
pub struct Compiled {
    view: Arc<OutboundView>,
    /// By [`BackendId`].
    backends: Vec<Rc<Backend>>,
    /// By [`BackendId`]; made when a first copy is sent there.
    mirrors: RefCell<HashMap<BackendId, Rc<mirror::Series>>>,
    /// By [`RuleId`].
    rules: Rules,
    shard: Shard,
    /// Of connections, once there is one.
    connections: OnceCell<Counter>,
    /// For answers that no endpoint gave.
    pub metrics: HttpMetrics,
}

/// What the policy says is spoken, for the `protocol` label.
fn protocol(policy: &Policy) -> &'static str {
    match &policy.protocol {
        Protocol::Detect { .. } => "detect",
        Protocol::Http1(_) => "http/1",
        Protocol::Http2(_) => "http/2",
        Protocol::Grpc(_) => "grpc",
        Protocol::Opaque(_) => "opaq",
        Protocol::Tls(_) => "tls",
    }
}

impl Compiled {
    /// A connection to the target has come.
    pub fn connected(&self) {
        let counter = || {
            let labels = Labels::builder()
                .add("protocol", protocol(self.policy()))
                .add_set(&labels::parent(&self.policy().meta).build());
            let family = &families::OUTBOUND_TCP_PROTOCOL_CONNECTIONS_TOTAL;
            self.shard.counter(family, &labels.build())
        };
        self.connections.get_or_init(counter).inc();
    }

    /// What it speaks has been found out.
    pub fn detected(&self, result: &str, took: Duration) {
        count_detected(&self.shard, &self.policy().meta, result, took);
    }

    pub fn policy(&self) -> &Policy {
        &self.view.policy
    }

    pub fn rule(&self, id: RuleId) -> Option<&Rc<RuleState>> {
        self.rules.get(&self.shard, self.policy(), id)
    }

    pub fn backend(&self, id: BackendId) -> Option<&Rc<Backend>> {
        self.backends.get(id.index())
    }

    /// Where copies of requests to this backend are counted.
    pub fn mirror_series(&self, id: BackendId) -> Option<Rc<mirror::Series>> {
        let meta = &self.policy().backends.get(id.index())?.meta;
        let mut mirrors = self.mirrors.borrow_mut();
        let series = mirrors
            .entry(id)
            .or_insert_with(|| Rc::new(mirror::Series::new(&self.shard, meta)));
        Some(series.clone())
    }
}

/// What a connection to a place speaks has been found out.
pub fn count_detected(shard: &Shard, parent: &Meta, result: &str, took: Duration) {
    let parent = labels::parent(parent).build();
    let results = parent.extend().add("result", result).build();
    let family = &families::OUTBOUND_TCP_DETECT_HTTP_RESULTS_TOTAL;
    shard.counter(family, &results).inc();
    let family = &families::OUTBOUND_TCP_DETECT_HTTP_DURATION_SECONDS;
    shard.histogram(family, &parent).record(took);
}

impl Targets {
    /// The state of a target, which is watched from now on.
    pub fn get(outbound: &Rc<Outbound>, target: Target) -> Rc<State> {
        let mut targets = outbound.targets.borrow_mut();
        if let Some(state) = targets.known.get(&target) {
            state.used.set(Instant::now());
            return state.clone();
        }
        if targets.known.len() >= MAX_TARGETS {
            targets.known.retain(|_, state| Rc::strong_count(state) > 1);
        }
        let view = outbound.discovery.outbound(target.clone());
        let state = Rc::new(State {
            outbound: Rc::downgrade(outbound),
            target: target.clone(),
            view: RefCell::new(view),
            compiled: RefCell::new(None),
            used: Cell::new(Instant::now()),
        });
        targets.known.insert(target, state.clone());
        if !targets.sweeping {
            targets.sweeping = true;
            tokio::task::spawn_local(sweep(Rc::downgrade(outbound)));
        }
        state
    }
}

/// Lets go of targets that nobody has used for the idle time; discovery then stops to watch them.
async fn sweep(outbound: std::rc::Weak<Outbound>) {
    loop {
        let Some(idle) = outbound
            .upgrade()
            .map(|outbound| outbound.config.outbound.connections.discovery_idle)
        else {
            return;
        };
        tokio::time::sleep((idle / 4).max(Duration::from_secs(1))).await;
        let Some(outbound) = outbound.upgrade() else {
            return;
        };
        let mut targets = outbound.targets.borrow_mut();
        targets
            .known
            .retain(|_, state| Rc::strong_count(state) > 1 || state.used.get().elapsed() < idle);
        if targets.known.is_empty() {
            targets.sweeping = false;
            return;
        }
    }
}

impl State {
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The newest policy; `None` until discovery has answered.
    pub fn current(&self) -> Option<Rc<Compiled>> {
        if self.compiled.borrow().is_none() || self.view.borrow().has_changed().unwrap_or(false) {
            self.recompile();
        }
        self.compiled.borrow().clone()
    }

    fn recompile(&self) {
        let (Some(view), Some(outbound)) = (
            self.view.borrow_mut().borrow_and_update().clone(),
            self.outbound.upgrade(),
        ) else {
            return;
        };
        let mut compiled = self.compiled.borrow_mut();
        if compiled
            .as_ref()
            .is_some_and(|compiled| Arc::ptr_eq(&compiled.view, &view))
        {
            return;
        }
        let strict = outbound.config.outbound.require_mesh_tls || view.policy.require_mesh_tls;
        let backends = view
            .policy
            .backends
            .iter()
            .map(|backend| Backends::get(&outbound, &self.target, backend, strict))
            .collect();
        let metrics = HttpMetrics::new(
            &outbound.shard,
            labels::no_endpoint(&outbound, &self.target),
        );
        let before = compiled.as_ref().map(|old| (old.policy(), &old.rules));
        let rules = Rules::new(&view.policy, before);
        *compiled = Some(Rc::new(Compiled {
            view,
            backends,
            mirrors: RefCell::default(),
            rules,
            shard: outbound.shard.clone(),
            connections: OnceCell::new(),
            metrics,
        }));
    }

    /// Waits for the first answer of discovery.
    pub async fn ready(&self, timeout: Duration) -> Result<Rc<Compiled>, Reason> {
        self.used.set(Instant::now());
        if let Some(compiled) = self.current() {
            return Ok(compiled);
        }
        let mut view = self.view.borrow().clone();
        let answered = tokio::time::timeout(timeout, view.wait_for(Option::is_some)).await;
        match answered {
            Ok(Ok(_)) => self.current().ok_or(Reason::Internal),
            // Discovery is full, or ending.
            Ok(Err(_)) => Err(Reason::PolicyUnavailable),
            Err(_) => Err(Reason::DiscoveryTimeout),
        }
    }
}
