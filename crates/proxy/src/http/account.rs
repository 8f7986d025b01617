//! The account of one request: when it began, what was answered, and the series it is counted in. Two or three clock
//! reads per request; the counting itself is plain adds.

use std::cell::Cell;
use std::rc::Rc;

use tokio::time::Instant;
use tulle_http::Head;
use tulle_http::h2::Code;

use crate::http::Fault;
use crate::http::answer::Refusal;
use crate::http::exchange::{self, Exchange, Failure};
use crate::metrics::Shard;
use crate::metrics::exemplar::Name;
use crate::metrics::http::{HttpMetrics, Outcome};
use crate::metrics::route::{Edge, Ended, is_grpc_failure};
use crate::observe::access::Line;
use crate::tap::Watched;
use crate::trace::Trace;

pub struct Account {
    pub started: Instant,
    /// It was HTTP/1 before another proxy carried it here in HTTP/2, and its answer has to say so too.
    pub bridged: bool,
    /// The request's line in the access log, where there is one.
    pub access: Option<Box<Line>>,
    /// Who watches the request.
    tap: Cell<Option<Box<Watched>>>,
    /// Its spans, where its caller has sampled it and somebody collects them.
    pub trace: Trace,
    answered: Option<Instant>,
    /// The request has been sent whole.
    sent: Option<Instant>,
    /// Somebody asks for exemplars.
    wants_name: bool,
    /// What the request is called elsewhere; of one with a span, see [`Account::end`].
    name: Option<Box<Name>>,
    /// The answer is the proxy's own.
    own: bool,
    /// The route that took the request, once there is one.
    edge: Option<Rc<Edge>>,
    status: u16,
    grpc_status: Option<u8>,
}

impl Account {
    pub fn begin(shard: &Shard, head: &Head) -> Self {
        let started = Instant::now();
        let wants_name = shard.wants_name(started.into_std());
        let name = if wants_name { name(head) } else { None };
        Account {
            started,
            bridged: false,
            access: None,
            tap: Cell::new(None),
            trace: Trace::default(),
            answered: None,
            sent: None,
            wants_name,
            name,
            own: false,
            edge: None,
            status: 0,
            grpc_status: None,
        }
    }

    /// The request is that of a route, and is tried for the first time.
    pub fn of_route(&mut self, edge: Option<Rc<Edge>>) {
        if let Some(edge) = &edge {
            edge.arrived();
        }
        self.edge = edge;
    }

    /// Where the pieces of the bodies are counted.
    pub fn edge(&self) -> Option<Rc<Edge>> {
        self.edge.clone()
    }

    /// The proxy has answered, with this head.
    pub fn answered_itself(&mut self, head: &Head) {
        self.note(head);
        self.own = true;
        self.trace.answered_itself(self.status, self.grpc_status);
    }

    /// The answer's head has come. Returns the moment.
    pub fn answered(&mut self, head: &Head) -> Instant {
        let now = self.note(head);
        self.trace.answered(self.status, self.grpc_status);
        now
    }

    fn note(&mut self, head: &Head) -> Instant {
        let now = Instant::now();
        self.answered = Some(now);
        if let Some(line) = &mut self.access {
            line.answered(head);
        }
        if let Some(tap) = self.tap.get_mut() {
            tap.answered(head);
        }
        self.status = head.status();
        self.grpc_status = exchange::grpc_status(head);
        now
    }

    /// The request's head goes to the application.
    pub fn handed_on(&mut self) {
        if let Some(line) = &mut self.access {
            line.handed_on(Instant::now());
        }
    }

    /// The exchange is over: its trailers, and when the request had been sent.
    pub fn exchanged(&mut self, exchange: &Exchange<'_, '_>) {
        self.grpc_status = exchange.grpc_status().or(self.grpc_status);
        self.sent = exchange.sent();
        if let Some(tap) = self.tap.get_mut() {
            let (bytes, trailers) = exchange.passed_on();
            tap.passed_on(bytes, trailers);
        }
    }

    /// Somebody watches this request, or this try of it; an earlier try never got to its server.
    pub fn watch(&self, tap: Option<Box<Watched>>) {
        if let Some(mut earlier) = self.tap.replace(tap) {
            earlier.end(Some(Code::REFUSED_STREAM));
        }
    }

    /// Who watches it.
    pub fn watched(&mut self) -> Option<&mut Watched> {
        self.tap.get_mut().as_deref_mut()
    }

    /// The try that is watched has failed, or its answer is not the caller's.
    pub fn unwatch(&self, ended: Result<&Head, Failure>) {
        if let Some(mut tap) = self.tap.take() {
            match ended {
                Ok(head) => {
                    tap.answered(head);
                    tap.end(None);
                }
                Err(failure) => tap.fail(failure),
            }
        }
    }

    /// Counts a request that has failed.
    pub fn fail(&mut self, metrics: &HttpMetrics, failure: Failure) {
        self.unwatch(Err(failure));
        self.end(metrics, error_label(failure));
    }

    /// Counts a try that was not the last: its answer, if it had one, was not the caller's.
    pub fn tried(
        &mut self,
        metrics: &HttpMetrics,
        since: Instant,
        answer: Option<(u16, Option<u8>)>,
        error: &'static str,
    ) {
        let (status, grpc_status) = answer.unwrap_or((0, None));
        self.trace.attempt_ended(status, grpc_status, error);
        metrics.request();
        let outcome = Outcome {
            status,
            grpc_status,
            success: false,
            error,
        };
        let took = since.elapsed();
        metrics.response(outcome, took, took, None);
        if let Some(edge) = &self.edge {
            edge.profile_try_ended(outcome);
            let ended = Ended {
                status,
                grpc_status,
                error,
            };
            edge.try_ended(ended, took);
            // Another follows.
            edge.begun();
        }
    }

    /// A span that the collector gets is found by its number.
    #[cold]
    fn name_by_span(&mut self) {
        if let Some((trace, span)) = self.trace.sampled() {
            self.name = Some(Box::new(Name::span(trace, span)));
        }
    }

    /// Counts the request. `error` is empty, or a word of a closed set. Returns the moment.
    pub fn end(&mut self, metrics: &HttpMetrics, error: &'static str) -> Instant {
        let now = Instant::now();
        self.trace.ended(self.grpc_status, error);
        if let Some(line) = &self.access {
            line.end(self.status, self.started, now);
        }
        if let Some(mut tap) = self.tap.take() {
            let unanswered = self.status == 0 || error == "cancelled";
            tap.end(unanswered.then_some(Code::CANCEL));
        }
        let success = error.is_empty()
            && self.status != 0
            && self.status < 500
            && !self.grpc_status.is_some_and(is_grpc_failure);
        let mut outcome = Outcome {
            status: self.status,
            grpc_status: self.grpc_status,
            success,
            error,
        };
        let first_byte = self.answered.unwrap_or(now) - self.started;
        if let Some(edge) = &self.edge {
            outcome = edge.judge(outcome);
            edge.profile_try_ended(outcome);
            edge.profile_ended(outcome, first_byte);
        }
        if self.wants_name {
            self.name_by_span();
        }
        let name = self.name.as_deref();
        metrics.response(outcome, first_byte, now - self.started, name);
        if let Some(edge) = &self.edge {
            let own_error = self.own && !error.is_empty();
            let ended = Ended {
                status: if own_error { 0 } else { self.status },
                grpc_status: self.grpc_status,
                error,
            };
            edge.try_ended(ended, now - self.sent.unwrap_or(self.started));
            edge.ended(ended, now - self.started);
        }
        now
    }
}

/// The request's trace, else the id that its caller gave it.
#[cold]
fn name(head: &Head) -> Option<Box<Name>> {
    // version-trace-parent-flags (W3C), trace-span-sampled (B3's single field).
    let part = |field, number| head.get(field)?.split(|byte| *byte == b'-').nth(number);
    let trace = part("traceparent", 1)
        .or_else(|| head.get("x-b3-traceid"))
        .or_else(|| part("b3", 0));
    let name = trace.and_then(Name::trace);
    let id = || Name::request(head.get("x-request-id")?);
    name.or_else(id).map(Box::new)
}

/// The `error` label of a failed exchange.
pub fn error_label(failure: Failure) -> &'static str {
    match failure {
        Failure::Downstream(_) => "cancelled",
        Failure::Upstream(Fault::Refused) => "refused",
        Failure::Upstream(Fault::Reset(Code::ENHANCE_YOUR_CALM)) => "enhance-your-calm",
        Failure::Upstream(fault) => Refusal::of_upstream(fault).reason.code(),
        Failure::Deadline(reason) => reason.code(),
    }
}
