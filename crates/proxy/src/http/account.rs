//! The account of one request: when it began, what was answered, and the series it is counted in. Two or three clock
//! reads per request; the counting itself is plain adds.

use tokio::time::Instant;
use tulle_http::Head;

use crate::http::exchange::{self, Failure};
use crate::metrics::http::{HttpMetrics, Outcome};

pub struct Account {
    pub started: Instant,
    /// It was HTTP/1 before another proxy carried it here in HTTP/2, and its answer has to say so too.
    pub bridged: bool,
    answered: Option<Instant>,
    status: u16,
    grpc_status: Option<u8>,
}

impl Account {
    pub fn begin() -> Self {
        Account {
            started: Instant::now(),
            bridged: false,
            answered: None,
            status: 0,
            grpc_status: None,
        }
    }

    /// The answer's head has come, or has been made. Returns the moment.
    pub fn answered(&mut self, head: &Head) -> Instant {
        let now = Instant::now();
        self.answered = Some(now);
        self.status = head.status();
        self.grpc_status = exchange::grpc_status(head);
        now
    }

    pub fn trailers(&mut self, grpc_status: Option<u8>) {
        self.grpc_status = grpc_status.or(self.grpc_status);
    }

    /// Counts a try that was not the last: its answer, if it had one, was not the caller's.
    pub fn tried(
        &self,
        metrics: &HttpMetrics,
        since: Instant,
        answer: Option<(u16, Option<u8>)>,
        error: &'static str,
    ) {
        let (status, grpc_status) = answer.unwrap_or((0, None));
        metrics.request();
        let outcome = Outcome {
            status,
            grpc_status,
            success: false,
            error,
        };
        let took = since.elapsed();
        metrics.response(outcome, took, took);
    }

    /// Counts the request. `error` is empty, or a word of a closed set.
    pub fn end(&self, metrics: &HttpMetrics, error: &'static str) {
        let now = Instant::now();
        let success = error.is_empty()
            && self.status != 0
            && self.status < 500
            && !self.grpc_status.is_some_and(is_failure);
        let outcome = Outcome {
            status: self.status,
            grpc_status: self.grpc_status,
            success,
            error,
        };
        metrics.response(
            outcome,
            self.answered.unwrap_or(now) - self.started,
            now - self.started,
        );
    }
}

/// The gRPC statuses that are the server's failure and not the caller's.
fn is_failure(status: u8) -> bool {
    matches!(status, 2 | 4 | 7 | 13 | 14 | 15)
}

/// The `error` label of a failed exchange.
pub fn error_label(failure: Failure) -> &'static str {
    match failure {
        Failure::Downstream(_) => "cancelled",
        Failure::Upstream(_) => "upstream",
        Failure::Deadline(reason) => reason.code(),
    }
}
