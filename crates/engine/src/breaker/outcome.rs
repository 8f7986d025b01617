//! How a try went, as breakers and balancers see it.

use std::time::Duration;

/// The longest that a server is believed when it asks to be left alone, where no other bound is configured.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// What a try says about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It works; also when the caller was wrong (4xx).
    Success,
    /// It works and has too much to do: HTTP 429, gRPC `RESOURCE_EXHAUSTED`.
    Throttled,
    /// It does not work: HTTP 5xx, the gRPC statuses that are the server's fault, a broken connection.
    Failure,
}

/// How a try went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// For the breaker.
    pub verdict: Verdict,
    /// Whether the balancer counts it as a slow answer, where it is told to.
    pub penalised: bool,
    /// How long the server asked to be left alone (`retry-after`, `grpc-retry-pushback-ms`).
    pub retry_after: Option<Duration>,
}

impl Outcome {
    /// Of an answer. `grpc_status`: from the head or the trailers; `None` for what is not gRPC.
    #[must_use]
    pub fn of_answer(status: u16, grpc_status: Option<u8>, retry_after: Option<Duration>) -> Self {
        let by_status = match status {
            429 => Verdict::Throttled,
            500.. => Verdict::Failure,
            _ => Verdict::Success,
        };
        let (verdict, penalised) = match (by_status, grpc_status) {
            (Verdict::Success, Some(code)) => of_grpc(code),
            (verdict, _) => (verdict, verdict != Verdict::Success),
        };
        Self {
            verdict,
            penalised,
            retry_after,
        }
    }

    /// Of a try that was broken off, and not by the caller: no connection, a reset, a deadline.
    #[must_use]
    pub fn broken() -> Self {
        Self {
            verdict: Verdict::Failure,
            penalised: true,
            retry_after: None,
        }
    }
}

/// Linkerd's lists: which statuses a breaker counts, and which a balancer penalises. They differ in `PERMISSION_DENIED`
/// only, which says nothing about load.
fn of_grpc(code: u8) -> (Verdict, bool) {
    const UNKNOWN: u8 = 2;
    const DEADLINE_EXCEEDED: u8 = 4;
    const PERMISSION_DENIED: u8 = 7;
    const RESOURCE_EXHAUSTED: u8 = 8;
    const INTERNAL: u8 = 13;
    const UNAVAILABLE: u8 = 14;
    const DATA_LOSS: u8 = 15;
    match code {
        UNKNOWN | DEADLINE_EXCEEDED | INTERNAL | UNAVAILABLE | DATA_LOSS => {
            (Verdict::Failure, true)
        }
        PERMISSION_DENIED => (Verdict::Failure, false),
        RESOURCE_EXHAUSTED => (Verdict::Throttled, true),
        _ => (Verdict::Success, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_answer_says_about_its_endpoint() {
        use Verdict::{Failure, Success, Throttled};
        for (status, grpc, verdict, penalised) in [
            (200, None, Success, false),
            (304, None, Success, false),
            (403, None, Success, false),
            (404, Some(5), Success, false),
            (429, None, Throttled, true),
            (500, None, Failure, true),
            (503, None, Failure, true),
            (504, Some(0), Failure, true),
            (200, Some(0), Success, false),
            (200, Some(1), Success, false),
            (200, Some(2), Failure, true),
            (200, Some(3), Success, false),
            (200, Some(4), Failure, true),
            (200, Some(5), Success, false),
            (200, Some(7), Failure, false),
            (200, Some(8), Throttled, true),
            (200, Some(12), Success, false),
            (200, Some(13), Failure, true),
            (200, Some(14), Failure, true),
            (200, Some(15), Failure, true),
            (200, Some(16), Success, false),
            (200, Some(99), Success, false),
        ] {
            let outcome = Outcome::of_answer(status, grpc, None);
            assert_eq!(
                (outcome.verdict, outcome.penalised),
                (verdict, penalised),
                "{status} {grpc:?}"
            );
        }
        assert_eq!(Outcome::broken().verdict, Failure);
    }
}
