//! The families of a ServiceProfile's routes: Linkerd's `route_*`, what callers see, and `route_actual_*`, each try.
//!
//! Cost per request where a profile rules: two counters, and two scans of the few outcomes seen so far. The first sight
//! of an outcome resolves its series through the registry.

use std::cell::RefCell;
use std::time::Duration;

use tulle_engine::outbound::ProfileRoutes;
use tulle_engine::route::RuleId;

use super::families;
use super::http::{MAX_OUTCOMES, Outcome};
use super::{Counter, Histogram, Labels, Shard};

/// The series of one route of a profile.
#[derive(Debug)]
pub struct ProfileRoute {
    shard: Shard,
    labels: Labels,
    requests: Counter,
    tries: Option<Tries>,
    outcomes: RefCell<Vec<(Outcome, Counter, Histogram)>>,
}

/// What only a client's proxy has.
#[derive(Debug)]
struct Tries {
    requests: Counter,
    outcomes: RefCell<Vec<(Outcome, Counter)>>,
    retryable: Counter,
    no_budget: Counter,
}

/// The labels of a profile's route: the service's full name with the port, and the route's own.
pub fn labels(direction: &str, routes: &ProfileRoutes, rule: RuleId) -> Labels {
    let labels = Labels::builder()
        .add("direction", direction)
        .add("dst", routes.destination());
    let own = routes.labels(rule).iter();
    own.fold(labels, |labels, (name, value)| {
        labels.add(&format!("rt_{name}"), value)
    })
    .build()
}

impl ProfileRoute {
    /// `labels`: `direction`, `dst` and the route's own, each `rt_…`. `tries`: requests may be tried again here.
    pub fn new(shard: &Shard, labels: Labels, tries: bool) -> Self {
        let retryable = &families::ROUTE_RETRYABLE_TOTAL;
        let no_budget = || labels.extend().add("skipped", "no_budget").build();
        ProfileRoute {
            requests: shard.counter(&families::ROUTE_REQUEST_TOTAL, &labels),
            tries: tries.then(|| Tries {
                requests: shard.counter(&families::ROUTE_ACTUAL_REQUEST_TOTAL, &labels),
                outcomes: RefCell::default(),
                retryable: shard.counter(retryable, &labels),
                no_budget: shard.counter(retryable, &no_budget()),
            }),
            outcomes: RefCell::default(),
            shard: shard.clone(),
            labels,
        }
    }

    /// A request has come.
    pub fn request(&self) {
        self.requests.inc();
    }

    /// It is tried, for the first time or again.
    pub fn tried(&self) {
        if let Some(tries) = &self.tries {
            tries.requests.inc();
        }
    }

    /// A try has ended.
    pub fn try_ended(&self, outcome: Outcome) {
        let Some(tries) = &self.tries else { return };
        let mut known = tries.outcomes.borrow_mut();
        let of = bounded(outcome, known.len(), |of| {
            known.iter().any(|(known, _)| *known == of)
        });
        if let Some((_, counter)) = known.iter().find(|(known, _)| *known == of) {
            return counter.inc();
        }
        let family = &families::ROUTE_ACTUAL_RESPONSE_TOTAL;
        let counter = self.shard.counter(family, &of.response(&self.labels));
        counter.inc();
        known.push((of, counter));
    }

    /// A request has ended. `first_byte`: from its head to the first byte of the answer's body.
    pub fn ended(&self, outcome: Outcome, first_byte: Duration) {
        let mut known = self.outcomes.borrow_mut();
        let of = bounded(outcome, known.len(), |of| {
            known.iter().any(|(known, ..)| *known == of)
        });
        if let Some((_, counter, latency)) = known.iter().find(|(known, ..)| *known == of) {
            counter.inc();
            return latency.record(first_byte);
        }
        let (response, latency) = (of.response(&self.labels), of.latency(&self.labels));
        let counter = self
            .shard
            .counter(&families::ROUTE_RESPONSE_TOTAL, &response);
        let latency = self
            .shard
            .histogram(&families::ROUTE_RESPONSE_LATENCY_MS, &latency);
        counter.inc();
        latency.record(first_byte);
        known.push((of, counter, latency));
    }

    /// An answer may be asked for again, and the budget has room for it or has not.
    pub fn retryable(&self, budget: bool) {
        if let Some(tries) = &self.tries {
            tries.retryable.inc();
            if !budget {
                tries.no_budget.inc();
            }
        }
    }
}

/// The outcome, or its class once as many are told apart as may be.
fn bounded(outcome: Outcome, known: usize, is_known: impl Fn(Outcome) -> bool) -> Outcome {
    if known < MAX_OUTCOMES || is_known(outcome) {
        outcome
    } else {
        outcome.coarse()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Limits, Registry, render};
    use super::*;

    fn answered(status: u16, success: bool) -> Outcome {
        Outcome {
            status,
            grpc_status: None,
            success,
            error: "",
        }
    }

    #[test]
    fn a_retried_request_is_one_for_its_caller_and_two_actually() {
        let registry = Registry::new(Limits::default());
        let labels = Labels::builder().add("rt_route", "GET /").build();
        let route = ProfileRoute::new(&registry.shard(), labels, true);
        route.request();
        route.tried();
        route.try_ended(answered(503, false));
        route.retryable(true);
        route.tried();
        route.try_ended(answered(200, true));
        route.ended(answered(200, true), Duration::from_millis(3));
        route.retryable(false);
        let page = render(&registry, Vec::new(), Format::Prometheus);
        for line in [
            r#"route_request_total{rt_route="GET /"} 1"#,
            r#"route_response_total{rt_route="GET /",status_code="200",classification="success"} 1"#,
            r#"route_response_latency_ms_bucket{rt_route="GET /",status_code="200",le="3"} 1"#,
            r#"route_actual_request_total{rt_route="GET /"} 2"#,
            r#"route_actual_response_total{rt_route="GET /",status_code="503",classification="failure"} 1"#,
            r#"route_actual_response_total{rt_route="GET /",status_code="200",classification="success"} 1"#,
            r#"route_retryable_total{rt_route="GET /"} 2"#,
            r#"route_retryable_total{rt_route="GET /",skipped="no_budget"} 1"#,
        ] {
            assert!(page.lines().any(|shown| shown == line), "{line}\n{page}");
        }
        assert!(!page.contains(r#"route_response_total{rt_route="GET /",status_code="503""#));
    }

    #[test]
    fn a_peer_cannot_make_series_without_end() {
        let registry = Registry::new(Limits::default());
        let route = ProfileRoute::new(&registry.shard(), Labels::none(), true);
        for status in 100..1_000 {
            route.try_ended(answered(status, true));
            route.ended(answered(status, true), Duration::ZERO);
        }
        let most = 4 + 3 * (MAX_OUTCOMES + 10);
        assert!(registry.series() <= most, "{}", registry.series());
    }
}
