//! The HTTP families of one edge, resolved together: what the pipelines hold per target (outbound) or per port,
//! route and client (inbound).
//!
//! Cost per request: one counter at the head; at the end a scan of the few outcomes seen so far on this edge, four
//! counters and two histograms. The first sight of an outcome resolves its series through the registry.

use std::cell::{OnceCell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use super::exemplar::{Exemplars, Name};
use super::families;
use super::{Counter, Histogram, Labels, Shard, same_value};

/// Most different outcomes (status, gRPC status, error) that one edge keeps apart. What comes after is counted
/// under the outcome's status class alone (`status_code="5xx"`), so that a peer cannot make series at will.
pub const MAX_OUTCOMES: usize = 32;

/// How a request ended, as the metrics tell it apart.
#[derive(Clone, Copy, Debug, Eq)]
pub struct Outcome {
    /// HTTP status sent to the client; 0 when the exchange ended before there was one.
    pub status: u16,
    /// The `grpc-status` of a gRPC answer.
    pub grpc_status: Option<u8>,
    /// Whether it counts as a success (`classification`).
    pub success: bool,
    /// A short stable word for an error of the proxy or the transport; empty for none.
    pub error: &'static str,
}

impl PartialEq for Outcome {
    fn eq(&self, other: &Self) -> bool {
        (self.status, self.grpc_status, self.success)
            == (other.status, other.grpc_status, other.success)
            && same_value(self.error.as_bytes(), other.error.as_bytes())
    }
}

impl Outcome {
    /// Status 2…5 stands for a whole class; see [`MAX_OUTCOMES`].
    pub(super) fn coarse(self) -> Self {
        Outcome {
            status: self.status / 100,
            grpc_status: None,
            success: self.success,
            error: "",
        }
    }

    /// The labels of a `response_total`.
    pub(super) fn response(self, labels: &Labels) -> Labels {
        let grpc = self.grpc_status.map(|code| code.to_string());
        let classification = if self.success { "success" } else { "failure" };
        labels
            .extend()
            .add("status_code", &status_text(self.status))
            .add("classification", classification)
            .add_some("grpc_status", grpc.as_deref())
            .add_some("error", (!self.error.is_empty()).then_some(self.error))
            .build()
    }

    /// The labels of a `response_latency_ms`, and of the golden metrics.
    pub(super) fn latency(self, labels: &Labels) -> Labels {
        let status = status_text(self.status);
        labels.extend().add("status_code", &status).build()
    }
}

#[derive(Debug)]
struct OutcomeSeries {
    of: Outcome,
    response_total: Counter,
    response_latency_ms: Histogram,
    requests_total: Counter,
    request_duration_ms: Histogram,
    /// Of the two histograms, once there is one.
    exemplars: OnceCell<(Arc<Exemplars>, Arc<Exemplars>)>,
}

/// The two label sets of one edge.
#[derive(Clone, Debug)]
pub struct HttpLabels {
    /// Labels of Linkerd's families (`direction`, `target_addr`, `tls`, …).
    pub linkerd: Labels,
    /// `direction, dst_pod, dst_service, src_pod, src_namespace` of the golden metrics.
    pub article: Labels,
}

/// The HTTP series of one edge.
#[derive(Debug)]
pub struct HttpMetrics {
    shard: Shard,
    labels: HttpLabels,
    request_total: Counter,
    outcomes: RefCell<Vec<OutcomeSeries>>,
}

impl HttpMetrics {
    /// Resolves the edge's series.
    pub fn new(shard: &Shard, labels: HttpLabels) -> Self {
        Self {
            request_total: shard.counter(&families::REQUEST_TOTAL, &labels.linkerd),
            shard: shard.clone(),
            labels,
            outcomes: RefCell::new(Vec::new()),
        }
    }

    /// A request's head has arrived.
    pub fn request(&self) {
        self.request_total.inc();
    }

    /// A request has ended. `first_byte`: from the request's head to the first byte of the answer's body (or its end,
    /// when it has none). `total`: to the end of the answer.
    /// `name`: what the request is called elsewhere, if it is to stand for its buckets.
    pub fn response(
        &self,
        outcome: Outcome,
        first_byte: Duration,
        total: Duration,
        name: Option<&Name>,
    ) {
        let mut outcomes = self.outcomes.borrow_mut();
        let known = outcomes
            .iter()
            .position(|series| series.of == outcome)
            .or_else(|| {
                let coarse = outcome.coarse();
                (outcomes.len() >= MAX_OUTCOMES)
                    .then(|| outcomes.iter().position(|series| series.of == coarse))
                    .flatten()
            });
        let at = known.unwrap_or_else(|| {
            let of = if outcomes.len() >= MAX_OUTCOMES {
                outcome.coarse()
            } else {
                outcome
            };
            outcomes.push(self.resolve(of));
            outcomes.len() - 1
        });
        let series = &outcomes[at];
        series.response_total.inc();
        series.response_latency_ms.record(first_byte);
        series.requests_total.inc();
        series.request_duration_ms.record(total);
        if let Some(name) = name {
            self.remember(series, name, first_byte, total);
        }
    }

    #[cold]
    fn remember(&self, series: &OutcomeSeries, name: &Name, first_byte: Duration, total: Duration) {
        let (linkerd, article) = series.exemplars.get_or_init(|| {
            let of =
                |family, labels: &Labels| self.shard.exemplars(family, &series.of.latency(labels));
            let linkerd = of(&families::RESPONSE_LATENCY_MS, &self.labels.linkerd);
            let article = of(&families::HTTP_REQUEST_DURATION_MS, &self.labels.article);
            (linkerd, article)
        });
        series
            .response_latency_ms
            .exemplify(first_byte, name, linkerd);
        series.request_duration_ms.exemplify(total, name, article);
    }

    fn resolve(&self, of: Outcome) -> OutcomeSeries {
        let (linkerd, article) = (&self.labels.linkerd, of.latency(&self.labels.article));
        let (shard, latency) = (&self.shard, of.latency(linkerd));
        OutcomeSeries {
            of,
            response_total: shard.counter(&families::RESPONSE_TOTAL, &of.response(linkerd)),
            response_latency_ms: shard.histogram(&families::RESPONSE_LATENCY_MS, &latency),
            requests_total: shard.counter(&families::HTTP_REQUESTS_TOTAL, &article),
            request_duration_ms: shard.histogram(&families::HTTP_REQUEST_DURATION_MS, &article),
            exemplars: OnceCell::new(),
        }
    }
}

fn status_text(status: u16) -> String {
    match status {
        0 => String::new(),
        1..=9 => format!("{status}xx"),
        status => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Limits, Registry, render};
    use super::*;

    fn outcome(status: u16) -> Outcome {
        Outcome {
            status,
            grpc_status: None,
            success: status < 500,
            error: "",
        }
    }

    fn edge(registry: &Registry) -> HttpMetrics {
        let labels = HttpLabels {
            linkerd: Labels::builder().add("direction", "inbound").build(),
            article: Labels::builder()
                .add("direction", "inbound")
                .add("dst_pod", "web")
                .build(),
        };
        HttpMetrics::new(&registry.shard(), labels)
    }

    #[test]
    fn an_answer_is_counted_in_all_four_families() {
        let registry = Registry::new(Limits::default());
        let edge = edge(&registry);
        edge.request();
        edge.response(
            Outcome {
                status: 200,
                grpc_status: Some(14),
                success: false,
                error: "",
            },
            Duration::from_millis(3),
            Duration::from_millis(7),
            Name::request(b"r-1").as_ref(),
        );
        let page = render(&registry, Vec::new(), Format::Prometheus);
        for line in [
            "request_total{direction=\"inbound\"} 1",
            "response_total{direction=\"inbound\",status_code=\"200\",classification=\"failure\",grpc_status=\"14\"} 1",
            "response_latency_ms_bucket{direction=\"inbound\",status_code=\"200\",le=\"2\"} 0",
            "response_latency_ms_bucket{direction=\"inbound\",status_code=\"200\",le=\"3\"} 1",
            "http_requests_total{direction=\"inbound\",dst_pod=\"web\",status_code=\"200\"} 1",
            "http_request_duration_ms_bucket{direction=\"inbound\",dst_pod=\"web\",status_code=\"200\",le=\"5\"} 0",
            "http_request_duration_ms_bucket{direction=\"inbound\",dst_pod=\"web\",status_code=\"200\",le=\"10\"} 1",
            "http_request_duration_ms_sum{direction=\"inbound\",dst_pod=\"web\",status_code=\"200\"} 7",
        ] {
            assert!(page.lines().any(|shown| shown == line), "{line}\n{page}");
        }
        let page = render(&registry, Vec::new(), Format::OpenMetrics);
        for start in [
            "response_latency_ms_bucket{direction=\"inbound\",status_code=\"200\",le=\"3\"} 1 # {request_id=\"r-1\"} 3 ",
            "http_request_duration_ms_bucket{direction=\"inbound\",dst_pod=\"web\",status_code=\"200\",le=\"10\"} 1 # {request_id=\"r-1\"} 7 ",
        ] {
            assert!(
                page.lines().any(|shown| shown.starts_with(start)),
                "{start}\n{page}"
            );
        }
        assert_eq!(
            page.matches('#').count(),
            page.matches("# {").count() + page.lines().filter(|line| line.starts_with('#')).count()
        );
        assert_eq!(page.matches("# {").count(), 2, "one bucket each");
    }

    #[test]
    fn a_peer_cannot_make_series_without_end() {
        let registry = Registry::new(Limits::default());
        let edge = edge(&registry);
        for status in 100..1_000 {
            edge.response(outcome(status), Duration::ZERO, Duration::ZERO, None);
        }
        assert!(
            registry.series() <= 1 + 4 * (MAX_OUTCOMES + 10),
            "{}",
            registry.series()
        );
        let page = render(&registry, Vec::new(), Format::Prometheus);
        assert!(
            page.contains("status_code=\"9xx\",classification=\"failure\"} 100\n"),
            "{page}"
        );
    }
}
