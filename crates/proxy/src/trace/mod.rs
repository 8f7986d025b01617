//! Spans of the requests that their callers trace: one per request as its server, one per try as a client, each the
//! parent of what comes after it. A collector gets them from [`control::traces`](crate::control::traces).
//!
//! As with Linkerd, no trace begins here: only a request whose caller has sampled it is recorded, and the header that
//! goes on names our span. A context that is not sampled, or not well-formed, passes untouched.
//!
//! Cost: without a collector one test per request. With one, a look for the headers; for a sampled request two clock
//! reads and one uncontended lock per span. Records and their text come from a fixed set per worker ([`queue::RECORDS`])
//! and go back to it: nothing is allocated, and when all are in use a span is dropped and counted.

pub mod otlp;
pub mod queue;
pub mod record;

use std::sync::Arc;

use tulle_http::Head;
use tulle_http::trace_context::{SpanId, TraceContext, TraceId};

use crate::metrics::{Counter, Labels, Shard, families};
use crate::observe::Direction;
use queue::{Queue, Traces};
use record::{Kind, Record};

/// A worker's side.
#[derive(Debug)]
pub struct Tracer {
    queue: Arc<Queue>,
    dropped: Counter,
}

impl Tracer {
    pub fn new(traces: &Traces, shard: &Shard) -> Self {
        let labels = Labels::builder().add("reason", "queue_full").build();
        Tracer {
            queue: traces.queue(),
            dropped: shard.counter(&families::TRACE_SPANS_DROPPED_TOTAL, &labels),
        }
    }

    /// Begins the span of a request that has come, if its caller has sampled it, and makes it the parent of what the
    /// request does from here on.
    pub fn begin(&self, direction: Direction, head: &mut Head) -> Trace {
        let Some(context) = TraceContext::read(head).filter(|context| context.sampled) else {
            return Trace::default();
        };
        let mut trace = Trace(self.record());
        if let Some(record) = &mut trace.0 {
            record.begin(Kind::Server, direction, context, head);
            if !hand_on(record, head) {
                return trace.forget();
            }
        }
        trace
    }

    fn record(&self) -> Option<Box<Record>> {
        let record = self.queue.take();
        if record.is_none() {
            self.dropped.inc();
        }
        record
    }
}

/// Names the record's span in the head; false when the head has no room for it.
fn hand_on(record: &Record, head: &mut Head) -> bool {
    record.context.hand_on(head, record.span).is_ok()
}

/// The spans of one request, or of one try beside others; empty for one that is not recorded. What is recorded ends with
/// this value, however the request comes to its end.
#[derive(Debug, Default)]
pub struct Trace(Option<Box<Record>>);

impl Trace {
    /// The trace and the span of the request, for those who want to point to it (exemplars).
    pub fn sampled(&self) -> Option<(TraceId, SpanId)> {
        let record = self.0.as_ref()?;
        Some((record.context.trace, record.span))
    }

    /// The request is sent to a server: a span of its own, which the head names from here on. A try before it has ended.
    pub fn attempt(&mut self, tracer: Option<&Tracer>, head: &mut Head) {
        if let Some(record) = &mut self.0 {
            record.end_attempt();
            record.attempt = tracer.and_then(|tracer| attempt(tracer, record, head));
        }
    }

    /// One more try beside the present one, in a span of its own.
    pub fn beside(&self, tracer: Option<&Tracer>, head: &mut Head) -> Trace {
        let record = self.0.as_ref().zip(tracer);
        Trace(record.and_then(|(record, tracer)| attempt(tracer, record, head)))
    }

    /// The try that was beside has become the request's own.
    pub fn adopt(&mut self, mut beside: Trace) {
        if let Some(record) = &mut self.0 {
            record.end_attempt();
            record.attempt = beside.0.take();
        }
    }

    /// The present try has ended without an answer for the caller; `status` is 0 when it had none.
    pub fn attempt_ended(&mut self, status: u16, grpc: Option<u8>, error: &'static str) {
        if let Some(record) = &mut self.0 {
            if let Some(attempt) = &mut record.attempt {
                (attempt.status, attempt.grpc, attempt.error) = (status, grpc, error);
            }
            record.end_attempt();
        }
    }

    /// A server has answered.
    pub fn answered(&mut self, status: u16, grpc: Option<u8>) {
        if let Some(record) = &mut self.0 {
            (record.status, record.grpc) = (status, grpc);
            if let Some(attempt) = &mut record.attempt {
                (attempt.status, attempt.grpc) = (status, grpc);
            }
        }
    }

    /// The proxy has answered.
    pub fn answered_itself(&mut self, status: u16, grpc: Option<u8>) {
        if let Some(record) = &mut self.0 {
            (record.status, record.grpc) = (status, grpc);
        }
    }

    /// The request is over. `error` is empty, or a word of a closed set.
    pub fn ended(&mut self, grpc: Option<u8>, error: &'static str) {
        if let Some(record) = &mut self.0 {
            (record.grpc, record.error) = (grpc, error);
            if let Some(attempt) = &mut record.attempt {
                if attempt.status != 0 {
                    attempt.grpc = grpc;
                }
                attempt.error = error;
            }
        }
    }

    /// Nothing of it is to be told.
    fn forget(mut self) -> Trace {
        if let Some(mut record) = self.0.take() {
            if let Some(home) = record.home.take() {
                home.give_back(record);
            }
        }
        Trace::default()
    }
}

/// The span of a try, child of the request's.
fn attempt(tracer: &Tracer, request: &Record, head: &mut Head) -> Option<Box<Record>> {
    let mut trace = Trace(tracer.record());
    let record = trace.0.as_mut()?;
    let mut context = request.context;
    context.parent = request.span;
    record.begin(Kind::Client, request.direction, context, head);
    if !hand_on(record, head) {
        trace = trace.forget();
    }
    trace.0.take()
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Some(mut record) = self.0.take() {
            record.end_attempt();
            record.finish();
        }
    }
}

#[cfg(test)]
mod tests;
