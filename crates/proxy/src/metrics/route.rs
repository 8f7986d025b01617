//! The HTTP families of one route: Linkerd's `outbound_{http,grpc}_route_*` and `inbound_{http,grpc}_*`.
//!
//! Cost per request: a counter at its head, two histograms and a scan of the few outcomes seen so far at its end, a
//! histogram per piece of body. The first sight of an outcome resolves its series through the registry.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tulle_engine::outbound::ProfileRoutes;
use tulle_engine::route::RuleId;

use super::families as f;
use super::http::Outcome;
use super::profile::ProfileRoute;
use super::{Counter, Family, Histogram, Labels, Shard, same_value};

/// Most different outcomes (status and error) that one edge keeps apart; what comes after is counted with the error
/// `UNKNOWN` and no status, so that a peer cannot make series at will.
pub const MAX_STATUSES: usize = 32;

/// How a request, or a try of one, ended.
#[derive(Clone, Copy, Debug, Eq)]
pub struct Ended {
    /// HTTP status of the server's answer; 0 where there was none, or the proxy answered instead.
    pub status: u16,
    /// The `grpc-status` of a gRPC answer.
    pub grpc_status: Option<u8>,
    /// The proxy's own word for the error; empty for none.
    pub error: &'static str,
}

impl PartialEq for Ended {
    fn eq(&self, other: &Self) -> bool {
        (self.status, self.grpc_status) == (other.status, other.grpc_status)
            && same_value(self.error.as_bytes(), other.error.as_bytes())
    }
}

/// The series of a route as one of its backends, or one server's route, uses them.
#[derive(Debug)]
pub struct Edge {
    requests: Option<Counter>,
    request_duration: Histogram,
    statuses: Statuses,
    response_duration: Option<Histogram>,
    /// Of the backend, where that is told apart from the route.
    backend_statuses: Option<Statuses>,
    request_frames: Histogram,
    response_frames: Option<Histogram>,
    /// Where a profile rules.
    profile: Option<Classified>,
}

/// A profile's route: its series, and its word on what is a failure.
#[derive(Debug)]
pub struct Classified {
    /// The series.
    pub series: Rc<ProfileRoute>,
    /// The profile.
    pub routes: Arc<ProfileRoutes>,
    /// The route's rule.
    pub rule: RuleId,
}

impl Classified {
    /// The outcome as the profile's classes see it. What the proxy or the transport has failed stays a failure.
    fn judge(&self, outcome: Outcome) -> Outcome {
        let grpc = outcome.grpc_status.map(is_grpc_failure);
        let failed = outcome.status == 0
            || !outcome.error.is_empty()
            || self.routes.is_failure(self.rule, outcome.status, grpc);
        Outcome {
            success: !failed,
            ..outcome
        }
    }
}

/// The gRPC statuses that are the server's failure and not the caller's.
pub fn is_grpc_failure(status: u8) -> bool {
    matches!(status, 2 | 4 | 7 | 13 | 14 | 15)
}

/// The statuses of one family and label set.
#[derive(Debug)]
struct Statuses {
    shard: Shard,
    family: &'static Family,
    labels: Labels,
    grpc: bool,
    seen: RefCell<Vec<(Ended, Counter)>>,
}

impl Edge {
    /// Of an outbound route, and the backend that the request goes to if it has one.
    pub fn outbound(shard: &Shard, grpc: bool, route: &Labels, backend: Option<&Labels>) -> Self {
        let of = |http, grpc_family| if grpc { grpc_family } else { http };
        let duration = of(
            &f::OUTBOUND_HTTP_ROUTE_REQUEST_DURATION_SECONDS,
            &f::OUTBOUND_GRPC_ROUTE_REQUEST_DURATION_SECONDS,
        );
        let statuses = of(
            &f::OUTBOUND_HTTP_ROUTE_REQUEST_STATUSES_TOTAL,
            &f::OUTBOUND_GRPC_ROUTE_REQUEST_STATUSES_TOTAL,
        );
        let frames = of(
            &f::OUTBOUND_HTTP_ROUTE_REQUEST_FRAME_SIZE_BYTES,
            &f::OUTBOUND_GRPC_ROUTE_REQUEST_FRAME_SIZE_BYTES,
        );
        let backend_requests = of(
            &f::OUTBOUND_HTTP_ROUTE_BACKEND_REQUESTS_TOTAL,
            &f::OUTBOUND_GRPC_ROUTE_BACKEND_REQUESTS_TOTAL,
        );
        let backend_duration = of(
            &f::OUTBOUND_HTTP_ROUTE_BACKEND_RESPONSE_DURATION_SECONDS,
            &f::OUTBOUND_GRPC_ROUTE_BACKEND_RESPONSE_DURATION_SECONDS,
        );
        let backend_statuses = of(
            &f::OUTBOUND_HTTP_ROUTE_BACKEND_RESPONSE_STATUSES_TOTAL,
            &f::OUTBOUND_GRPC_ROUTE_BACKEND_RESPONSE_STATUSES_TOTAL,
        );
        let backend_frames = of(
            &f::OUTBOUND_HTTP_ROUTE_BACKEND_RESPONSE_FRAME_SIZE_BYTES,
            &f::OUTBOUND_GRPC_ROUTE_BACKEND_RESPONSE_FRAME_SIZE_BYTES,
        );
        Edge {
            requests: backend.map(|labels| shard.counter(backend_requests, labels)),
            request_duration: shard.histogram(duration, route),
            statuses: Statuses::new(shard, statuses, route, grpc),
            response_duration: backend.map(|labels| shard.histogram(backend_duration, labels)),
            backend_statuses: backend
                .map(|labels| Statuses::new(shard, backend_statuses, labels, grpc)),
            request_frames: shard.histogram(frames, route),
            response_frames: backend.map(|labels| shard.histogram(backend_frames, labels)),
            profile: None,
        }
    }

    /// Of a server's route.
    pub fn inbound(shard: &Shard, grpc: bool, labels: &Labels) -> Self {
        let of = |http, grpc_family| if grpc { grpc_family } else { http };
        let requests = of(
            &f::INBOUND_HTTP_REQUESTS_TOTAL,
            &f::INBOUND_GRPC_REQUESTS_TOTAL,
        );
        let statuses = of(
            &f::INBOUND_HTTP_STATUSES_TOTAL,
            &f::INBOUND_GRPC_STATUSES_TOTAL,
        );
        let request_duration = of(
            &f::INBOUND_HTTP_REQUEST_DURATION_SECONDS,
            &f::INBOUND_GRPC_REQUEST_DURATION_SECONDS,
        );
        let response_duration = of(
            &f::INBOUND_HTTP_RESPONSE_DURATION_SECONDS,
            &f::INBOUND_GRPC_RESPONSE_DURATION_SECONDS,
        );
        let request_frames = of(
            &f::INBOUND_HTTP_REQUEST_FRAME_SIZE_BYTES,
            &f::INBOUND_GRPC_REQUEST_FRAME_SIZE_BYTES,
        );
        let response_frames = of(
            &f::INBOUND_HTTP_RESPONSE_FRAME_SIZE_BYTES,
            &f::INBOUND_GRPC_RESPONSE_FRAME_SIZE_BYTES,
        );
        Edge {
            requests: Some(shard.counter(requests, labels)),
            request_duration: shard.histogram(request_duration, labels),
            statuses: Statuses::new(shard, statuses, labels, grpc),
            response_duration: Some(shard.histogram(response_duration, labels)),
            backend_statuses: None,
            request_frames: shard.histogram(request_frames, labels),
            response_frames: Some(shard.histogram(response_frames, labels)),
            profile: None,
        }
    }

    /// The same, where a profile rules.
    #[must_use]
    pub fn of_profile(self, profile: Option<Classified>) -> Self {
        Edge { profile, ..self }
    }

    /// A request has come, and its first try begins.
    pub fn arrived(&self) {
        if let Some(profile) = &self.profile {
            profile.series.request();
        }
        self.begun();
    }

    /// Whether the outcome is a success.
    pub fn judge(&self, outcome: Outcome) -> Outcome {
        match &self.profile {
            Some(profile) => profile.judge(outcome),
            None => outcome,
        }
    }

    /// The profile's count of a try.
    pub fn profile_try_ended(&self, outcome: Outcome) {
        if let Some(profile) = &self.profile {
            profile.series.try_ended(outcome);
        }
    }

    /// The profile's count of a request.
    pub fn profile_ended(&self, outcome: Outcome, first_byte: Duration) {
        if let Some(profile) = &self.profile {
            profile.series.ended(outcome, first_byte);
        }
    }

    /// One more try of a request begins.
    pub fn begun(&self) {
        if let Some(profile) = &self.profile {
            profile.series.tried();
        }
        if let Some(requests) = &self.requests {
            requests.inc();
        }
    }

    /// A piece of the request's body has passed.
    #[inline]
    pub fn request_frame(&self, bytes: usize) {
        self.request_frames.record_units(bytes as u64);
    }

    /// A piece of the answer's body has passed.
    #[inline]
    pub fn response_frame(&self, bytes: usize) {
        if let Some(frames) = &self.response_frames {
            frames.record_units(bytes as u64);
        }
    }

    /// A try has ended. `took`: since the request was sent whole, or since the try began if it never was.
    pub fn try_ended(&self, ended: Ended, took: Duration) {
        if let Some(duration) = &self.response_duration {
            duration.record(took);
        }
        if let Some(statuses) = &self.backend_statuses {
            statuses.count(ended);
        }
    }

    /// The request has ended. `took`: since its head came.
    pub fn ended(&self, ended: Ended, took: Duration) {
        self.request_duration.record(took);
        self.statuses.count(ended);
    }
}

impl Statuses {
    fn new(shard: &Shard, family: &'static Family, labels: &Labels, grpc: bool) -> Self {
        Statuses {
            shard: shard.clone(),
            family,
            labels: labels.clone(),
            grpc,
            seen: RefCell::default(),
        }
    }

    fn count(&self, mut ended: Ended) {
        // What the labels do not show must not tell outcomes apart.
        if self.grpc {
            ended.status = ended.status.min(1);
        } else {
            ended.grpc_status = None;
        }
        let mut seen = self.seen.borrow_mut();
        if let Some((_, counter)) = seen.iter().find(|(known, _)| *known == ended) {
            return counter.inc();
        }
        if seen.len() >= MAX_STATUSES {
            ended = OTHER;
            if let Some((_, counter)) = seen.iter().find(|(known, _)| *known == OTHER) {
                return counter.inc();
            }
        }
        let counter = self.shard.counter(self.family, &self.labels(ended));
        counter.inc();
        seen.push((ended, counter));
    }

    fn labels(&self, ended: Ended) -> Labels {
        let labels = self.labels.extend();
        let labels = match (self.grpc, ended.status) {
            (true, 0) => labels.add("grpc_status", ""),
            (true, _) => labels.add("grpc_status", grpc_name(ended.grpc_status)),
            (false, 0) => labels.add("http_status", ""),
            (false, status) => labels.add_number("http_status", u64::from(status)),
        };
        labels.add("error", error_name(ended.error)).build()
    }
}

const OTHER: Ended = Ended {
    status: 0,
    grpc_status: None,
    error: "other",
};

/// Linkerd's words for our reasons. What has no word there is `UNKNOWN`, as it is there; `tulle-reason` and
/// `response_total` tell it apart.
fn error_name(error: &str) -> &'static str {
    match error {
        "" => "",
        "failfast" | "no-endpoints" => "FAIL_FAST",
        "load-shed" => "LOAD_SHED",
        "request-timeout" => "REQUEST_TIMEOUT",
        "try-timeout" => "RESPONSE_HEADERS_TIMEOUT",
        "response-timeout" => "RESPONSE_STREAM_TIMEOUT",
        "idle-timeout" => "IDLE_TIMEOUT",
        "cancelled" | "hedged" => "CANCEL",
        "refused" => "REFUSED",
        "enhance-your-calm" => "ENHANCE_YOUR_CALM",
        "stream-reset" => "RESET",
        "connection-closed" | "connect-failed" | "connect-timeout" | "tls-failed" => "IO",
        _ => "UNKNOWN",
    }
}

fn grpc_name(status: Option<u8>) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    // An answer without a status, or with one that gRPC does not have.
    status
        .and_then(|status| NAMES.get(usize::from(status)).copied())
        .unwrap_or("UNKNOWN")
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Limits, Registry, render};
    use super::*;
    use tulle_engine::Reason;

    fn answered(status: u16) -> Ended {
        Ended {
            status,
            grpc_status: None,
            error: "",
        }
    }

    #[test]
    fn a_request_with_two_tries_is_one_of_the_route_and_two_of_the_backend() {
        let registry = Registry::new(Limits::default());
        let route = Labels::builder().add("route_name", "r").build();
        let backend = route.extend().add("backend_name", "b").build();
        let edge = Edge::outbound(&registry.shard(), false, &route, Some(&backend));
        edge.begun();
        edge.request_frame(100);
        edge.try_ended(answered(503), Duration::from_millis(30));
        edge.begun();
        edge.response_frame(2_000);
        edge.try_ended(answered(200), Duration::from_millis(10));
        edge.ended(answered(200), Duration::from_millis(45));
        let page = render(&registry, Vec::new(), Format::Prometheus);
        for line in [
            r#"outbound_http_route_request_statuses_total{route_name="r",http_status="200",error=""} 1"#,
            r#"outbound_http_route_request_duration_seconds_bucket{route_name="r",le="0.05"} 1"#,
            r#"outbound_http_route_request_frame_size_bytes_sum{route_name="r"} 100"#,
            r#"outbound_http_route_backend_requests_total{route_name="r",backend_name="b"} 2"#,
            r#"outbound_http_route_backend_response_statuses_total{route_name="r",backend_name="b",http_status="503",error=""} 1"#,
            r#"outbound_http_route_backend_response_duration_seconds_bucket{route_name="r",backend_name="b",le="0.025"} 1"#,
            r#"outbound_http_route_backend_response_frame_size_bytes_bucket{route_name="r",backend_name="b",le="10240"} 1"#,
        ] {
            assert!(page.lines().any(|shown| shown == line), "{line}\n{page}");
        }
    }

    #[test]
    fn a_call_is_known_by_its_grpc_status_alone() {
        let registry = Registry::new(Limits::default());
        let edge = Edge::inbound(&registry.shard(), true, &Labels::none());
        for (status, grpc_status, error) in [
            (200, Some(0), ""),
            (200, Some(14), ""),
            (204, Some(0), ""),
            (200, Some(99), ""),
            (0, None, "load-shed"),
        ] {
            let ended = Ended {
                status,
                grpc_status,
                error,
            };
            edge.ended(ended, Duration::ZERO);
        }
        let page = render(&registry, Vec::new(), Format::Prometheus);
        let shown: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("inbound_grpc_statuses_total"))
            .collect();
        assert_eq!(
            shown,
            [
                r#"{grpc_status="",error="LOAD_SHED"} 1"#,
                r#"{grpc_status="OK",error=""} 2"#,
                r#"{grpc_status="UNAVAILABLE",error=""} 1"#,
                r#"{grpc_status="UNKNOWN",error=""} 1"#,
            ]
        );
    }

    #[test]
    fn a_peer_cannot_make_series_at_will() {
        let registry = Registry::new(Limits::default());
        let edge = Edge::inbound(&registry.shard(), false, &Labels::none());
        let before = registry.series();
        for status in 100..=999 {
            edge.ended(answered(status), Duration::ZERO);
        }
        assert_eq!(registry.series() - before, MAX_STATUSES + 1);
        let page = render(&registry, Vec::new(), Format::Prometheus);
        let other = format!(
            "inbound_http_statuses_total{{http_status=\"\",error=\"UNKNOWN\"}} {}\n",
            900 - MAX_STATUSES
        );
        assert!(page.contains(&other), "{page}");
    }

    #[test]
    fn the_reasons_that_linkerd_has_words_for_exist() {
        for (reason, word) in [
            (Reason::FailFast, "FAIL_FAST"),
            (Reason::NoEndpoints, "FAIL_FAST"),
            (Reason::LoadShed, "LOAD_SHED"),
            (Reason::RequestTimeout, "REQUEST_TIMEOUT"),
            (Reason::TryTimeout, "RESPONSE_HEADERS_TIMEOUT"),
            (Reason::ResponseTimeout, "RESPONSE_STREAM_TIMEOUT"),
            (Reason::IdleTimeout, "IDLE_TIMEOUT"),
            (Reason::StreamReset, "RESET"),
            (Reason::ConnectionClosed, "IO"),
            (Reason::ConnectFailed, "IO"),
            (Reason::ConnectTimeout, "IO"),
            (Reason::TlsFailed, "IO"),
            (Reason::RateLimited, "UNKNOWN"),
        ] {
            assert_eq!(error_name(reason.code()), word, "{}", reason.code());
        }
    }
}
