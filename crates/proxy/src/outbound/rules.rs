//! What a worker keeps for a rule beside its configuration: the budget of further tries, the latencies that hedging
//! goes by, and the counters of both.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tulle_engine::budget::{Bucket, RetryBudget};
use tulle_engine::hedge::Latencies;
use tulle_engine::outbound::{Policy, ProfileRoutes, RouteKind, Rule};
use tulle_engine::retry::Skip;
use tulle_engine::route::RuleId;
use tulle_engine::{Meta, Reason};

use crate::metrics::profile::{self, ProfileRoute};
use crate::metrics::route::{Classified, Edge};
use crate::metrics::{Counter, Family, Labels, Shard, families, same_value};
use crate::outbound::labels;

/// The rules of a policy, each made when it is first used.
pub struct Rules(Vec<OnceCell<Rc<RuleState>>>);

pub struct RuleState {
    pub bucket: RefCell<Bucket>,
    pub latencies: Option<RefCell<Box<Latencies>>>,
    shard: Shard,
    labels: Labels,
    grpc: bool,
    tls: bool,
    counters: OnceCell<Counters>,
    opened: OnceCell<Counter>,
    profile: Option<Profiled>,
    edges: RefCell<Vec<KnownEdge>>,
}

/// The profile that the rule is of, and its series once a request has come.
struct Profiled {
    routes: RefCell<Arc<ProfileRoutes>>,
    rule: RuleId,
    series: OnceCell<Rc<ProfileRoute>>,
}

/// The series of the rule's route with one backend, and one hostname where those are told apart.
struct KnownEdge {
    backend: Option<Arc<Meta>>,
    hostname: Box<[u8]>,
    edge: Rc<Edge>,
}

/// Most hostnames that a rule's series are told apart by; later ones are counted without.
const MAX_HOSTNAMES: usize = 32;

/// Linkerd's four of retries, and ours.
struct Counters {
    requests: Counter,
    successes: Counter,
    limit_exceeded: Counter,
    overflow: Counter,
    hedges: Counter,
    hedge_wins: Counter,
}

impl Rules {
    /// `before`: of the policy that this one replaces; what has not changed is kept.
    pub fn new(policy: &Policy, before: Option<(&Policy, &Rules)>) -> Self {
        let rules = policy.rules.iter().enumerate().map(|(index, rule)| {
            let kept = before.and_then(|(old, states)| {
                let known = old.rules.get(index)?;
                let same = meta(old, known) == meta(policy, rule)
                    && known.number == rule.number
                    && known.hedge == rule.hedge
                    && budget(known) == budget(rule)
                    && profile_labels(old, index) == profile_labels(policy, index);
                states.0.get(index)?.get().filter(|_| same)
            });
            kept.map_or_else(OnceCell::new, |kept| {
                // Its backends may be others now, and what its profile calls a failure.
                kept.edges.borrow_mut().clear();
                if let (Some(profiled), Some(routes)) = (&kept.profile, policy.profile()) {
                    *profiled.routes.borrow_mut() = routes.clone();
                }
                OnceCell::from(kept.clone())
            })
        });
        Rules(rules.collect())
    }

    pub fn get(&self, shard: &Shard, policy: &Policy, id: RuleId) -> Option<&Rc<RuleState>> {
        let cell = self.0.get(id.index())?;
        Some(match cell.get() {
            Some(state) => state,
            None => cell.get_or_init(|| {
                let rule = policy.rules.get(id.index());
                Rc::new(RuleState::new(shard, policy, id, rule))
            }),
        })
    }
}

fn budget(rule: &Rule) -> RetryBudget {
    rule.retry
        .as_ref()
        .map(|retry| retry.budget)
        .unwrap_or_default()
}

/// Names and values of a profile's own labels.
type ProfileLabels<'p> = &'p [(Box<str>, Box<str>)];

/// What tells the routes of profiles apart; they have no name of their own.
fn profile_labels(policy: &Policy, rule: usize) -> Option<(&str, ProfileLabels<'_>)> {
    let routes = policy.profile()?;
    Some((routes.destination(), routes.labels(RuleId::new(rule))))
}

fn meta<'p>(policy: &'p Policy, rule: &Rule) -> Option<&'p tulle_engine::Meta> {
    policy.routes.get(rule.route).map(|route| &*route.meta)
}

impl Profiled {
    fn series(&self, shard: &Shard) -> &Rc<ProfileRoute> {
        self.series.get_or_init(|| {
            let labels = profile::labels("outbound", &self.routes.borrow(), self.rule);
            Rc::new(ProfileRoute::new(shard, labels, true))
        })
    }
}

impl RuleState {
    fn new(shard: &Shard, policy: &Policy, id: RuleId, rule: Option<&Rule>) -> Self {
        let route = rule.and_then(|rule| policy.routes.get(rule.route));
        let budget = rule.map(budget).unwrap_or_default();
        let hedges = rule.is_some_and(|rule| rule.hedge.is_some());
        let state = RuleState {
            bucket: RefCell::new(Bucket::new(&budget)),
            latencies: hedges.then(RefCell::default),
            shard: shard.clone(),
            labels: labels::route(&policy.meta, route.map(|route| &*route.meta)),
            grpc: route.is_some_and(|route| route.kind == RouteKind::Grpc),
            tls: route.is_some_and(|route| route.kind == RouteKind::Tls),
            counters: OnceCell::new(),
            opened: OnceCell::new(),
            profile: policy.profile().map(|routes| Profiled {
                routes: RefCell::new(routes.clone()),
                rule: id,
                series: OnceCell::new(),
            }),
            edges: RefCell::default(),
        };
        if hedges || rule.is_some_and(|rule| rule.retry.is_some()) {
            // A rate needs the zero that it began with.
            state.counters();
        }
        state
    }

    /// Where a request to this backend is counted. `hostname`: its authority, or empty.
    pub fn edge(&self, backend: Option<&Arc<Meta>>, hostname: &[u8]) -> Rc<Edge> {
        let mut edges = self.edges.borrow_mut();
        let same = |known: &KnownEdge| match (&known.backend, backend) {
            (Some(known), Some(backend)) => Arc::ptr_eq(known, backend),
            (None, None) => true,
            _ => false,
        };
        if let Some(known) = edges
            .iter()
            .find(|known| same(known) && same_value(&known.hostname, hostname))
        {
            return known.edge.clone();
        }
        let told_apart = edges.iter().filter(|known| same(known)).count();
        if told_apart >= MAX_HOSTNAMES && !hostname.is_empty() {
            drop(edges);
            return self.edge(backend, b"");
        }
        let name = labels::host(hostname);
        let (of_route, of_backend) = labels::edge(&self.labels, backend.map(|meta| &**meta), &name);
        let edge = Edge::outbound(&self.shard, self.grpc, &of_route, of_backend.as_ref());
        let profile = self.profile.as_ref().map(|profile| Classified {
            series: profile.series(&self.shard).clone(),
            routes: profile.routes.borrow().clone(),
            rule: profile.rule,
        });
        let edge = Rc::new(edge.of_profile(profile));
        edges.push(KnownEdge {
            backend: backend.cloned(),
            hostname: hostname.into(),
            edge: edge.clone(),
        });
        edge
    }

    /// The rule has taken a connection; pair it with one [`Self::connection_closed`].
    pub fn connection_opened(&self) {
        let family = match self.tls {
            true => &families::OUTBOUND_TLS_ROUTE_OPEN_TOTAL,
            false => &families::OUTBOUND_TCP_ROUTE_OPEN_TOTAL,
        };
        let opened = || self.shard.counter(family, &self.labels);
        self.opened.get_or_init(opened).inc();
    }

    /// It has ended, or could not be carried. Reasons are a closed set, so the look-up here is bounded; it is off the
    /// path of bytes.
    pub fn connection_closed(&self, reason: Option<Reason>) {
        let family = match self.tls {
            true => &families::OUTBOUND_TLS_ROUTE_CLOSE_TOTAL,
            false => &families::OUTBOUND_TCP_ROUTE_CLOSE_TOTAL,
        };
        let error = match reason {
            None => "",
            Some(Reason::Forbidden) => "forbidden",
            Some(Reason::NoBackend | Reason::BackendInvalid) => "invalid_backend",
            Some(Reason::RouteInvalid) => "invalid_policy",
            Some(_) => "unexpected",
        };
        let labels = self.labels.extend().add("error", error).build();
        self.shard.counter(family, &labels).inc();
    }

    /// Calls of a GRPCRoute are all POST: a rule of one that asks for more tries means those.
    pub fn is_grpc(&self) -> bool {
        self.grpc
    }

    fn counters(&self) -> &Counters {
        self.counters.get_or_init(|| {
            let counter = |http: &'static Family, grpc: &'static Family| {
                let family = if self.grpc { grpc } else { http };
                self.shard.counter(family, &self.labels)
            };
            Counters {
                requests: counter(
                    &families::OUTBOUND_HTTP_ROUTE_RETRY_REQUESTS_TOTAL,
                    &families::OUTBOUND_GRPC_ROUTE_RETRY_REQUESTS_TOTAL,
                ),
                successes: counter(
                    &families::OUTBOUND_HTTP_ROUTE_RETRY_SUCCESSES_TOTAL,
                    &families::OUTBOUND_GRPC_ROUTE_RETRY_SUCCESSES_TOTAL,
                ),
                limit_exceeded: counter(
                    &families::OUTBOUND_HTTP_ROUTE_RETRY_LIMIT_EXCEEDED_TOTAL,
                    &families::OUTBOUND_GRPC_ROUTE_RETRY_LIMIT_EXCEEDED_TOTAL,
                ),
                overflow: counter(
                    &families::OUTBOUND_HTTP_ROUTE_RETRY_OVERFLOW_TOTAL,
                    &families::OUTBOUND_GRPC_ROUTE_RETRY_OVERFLOW_TOTAL,
                ),
                hedges: counter(
                    &families::OUTBOUND_HTTP_ROUTE_HEDGE_REQUESTS_TOTAL,
                    &families::OUTBOUND_GRPC_ROUTE_HEDGE_REQUESTS_TOTAL,
                ),
                hedge_wins: counter(
                    &families::OUTBOUND_HTTP_ROUTE_HEDGE_WINS_TOTAL,
                    &families::OUTBOUND_GRPC_ROUTE_HEDGE_WINS_TOTAL,
                ),
            }
        })
    }

    pub fn retried(&self) {
        self.counters().requests.inc();
        self.retryable(true);
    }

    fn retryable(&self, budget: bool) {
        if let Some(profile) = &self.profile {
            profile.series(&self.shard).retryable(budget);
        }
    }

    pub fn retry_succeeded(&self) {
        self.counters().successes.inc();
    }

    pub fn retry_skipped(&self, why: Skip) {
        match why {
            Skip::Limit => self.counters().limit_exceeded.inc(),
            Skip::NoBudget => {
                self.counters().overflow.inc();
                self.retryable(false);
            }
            _ => {}
        }
        self.skipped(
            &families::OUTBOUND_HTTP_ROUTE_RETRY_SKIPPED_TOTAL,
            &families::OUTBOUND_GRPC_ROUTE_RETRY_SKIPPED_TOTAL,
            why.code(),
        );
    }

    pub fn hedged(&self) {
        self.counters().hedges.inc();
    }

    pub fn hedge_won(&self) {
        self.counters().hedge_wins.inc();
    }

    pub fn hedge_skipped(&self, why: &str) {
        self.skipped(
            &families::OUTBOUND_HTTP_ROUTE_HEDGE_SKIPPED_TOTAL,
            &families::OUTBOUND_GRPC_ROUTE_HEDGE_SKIPPED_TOTAL,
            why,
        );
    }

    fn skipped(&self, http: &'static Family, grpc: &'static Family, why: &str) {
        let labels = self.labels.extend().add("reason", why).build();
        let family = if self.grpc { grpc } else { http };
        self.shard.counter(family, &labels).inc();
    }
}
