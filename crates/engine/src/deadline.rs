//! Until when a request may go on. Three limits run beside each other; the first that is reached ends the request.
//!
//! Times are nanoseconds since some moment of the caller's.
//!
//! ```
//! use std::time::Duration;
//! use tulle_engine::{Reason, deadline::Deadlines, outbound::Timeouts};
//!
//! let timeouts = Timeouts { response: Some(Duration::from_nanos(50)), ..Timeouts::default() };
//! let mut deadlines = Deadlines::begin(&timeouts, None, 0);
//! deadlines.request_sent(100);
//! assert_eq!(deadlines.next(), Some(150));
//! assert_eq!(deadlines.expired(150), Some(Reason::ResponseTimeout));
//! ```

use std::time::Duration;

use crate::invalid::nanos;
use crate::outbound::Timeouts;
use crate::reason::Reason;

const NEVER: u64 = u64::MAX;

/// The deadlines of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    request: u64,
    response: u64,
    idle: u64,
    response_limit: u64,
    idle_limit: u64,
}

impl Deadlines {
    /// The request begins. `backend_limit` is the limit of the backend alone ([`crate::outbound::RouteBackend`]).
    #[must_use]
    pub fn begin(timeouts: &Timeouts, backend_limit: Option<Duration>, now: u64) -> Self {
        let length = |limit: Option<Duration>| limit.map_or(NEVER, nanos);
        let idle_limit = length(timeouts.idle);
        Self {
            request: now.saturating_add(length(timeouts.request)),
            response: NEVER,
            idle: now.saturating_add(idle_limit),
            response_limit: length(timeouts.response).min(length(backend_limit)),
            idle_limit,
        }
    }

    /// The request has been sent completely: the response's time begins.
    pub fn request_sent(&mut self, now: u64) {
        if self.response == NEVER {
            self.response = now.saturating_add(self.response_limit);
        }
    }

    /// Data has passed, in either direction.
    pub fn progress(&mut self, now: u64) {
        self.idle = now.saturating_add(self.idle_limit);
    }

    /// The earliest deadline; `None` when there is no limit.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        Some(self.request.min(self.response).min(self.idle)).filter(|deadline| *deadline != NEVER)
    }

    /// Which limit has been reached, the earliest first.
    #[must_use]
    pub fn expired(&self, now: u64) -> Option<Reason> {
        [
            (self.request, Reason::RequestTimeout),
            (self.response, Reason::ResponseTimeout),
            (self.idle, Reason::IdleTimeout),
        ]
        .into_iter()
        .filter(|(deadline, _)| *deadline != NEVER && *deadline <= now)
        .min_by_key(|(deadline, _)| *deadline)
        .map(|(_, reason)| reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn timeouts(request: u64, response: u64, idle: u64) -> Timeouts {
        let some = |seconds| Some(Duration::from_secs(seconds)).filter(|length| !length.is_zero());
        Timeouts {
            request: some(request),
            response: some(response),
            idle: some(idle),
        }
    }

    #[test]
    fn without_limits_nothing_expires() {
        let mut deadlines = Deadlines::begin(&Timeouts::default(), None, 5);
        deadlines.request_sent(6);
        deadlines.progress(7);

        assert_eq!(deadlines.next(), None);
        assert_eq!(deadlines.expired(u64::MAX), None);
    }

    #[test]
    fn the_response_timeout_runs_from_the_end_of_the_request() {
        let mut deadlines = Deadlines::begin(&timeouts(0, 2, 0), None, 0);
        assert_eq!(
            deadlines.next(),
            None,
            "a slow request is not a slow response"
        );

        deadlines.request_sent(10 * S);
        deadlines.request_sent(11 * S);

        assert_eq!(deadlines.next(), Some(12 * S), "its first end counts");
        assert_eq!(deadlines.expired(12 * S - 1), None);
        assert_eq!(deadlines.expired(12 * S), Some(Reason::ResponseTimeout));
    }

    #[test]
    fn progress_moves_only_the_idle_deadline() {
        let mut deadlines = Deadlines::begin(&timeouts(10, 0, 3), None, 0);
        for second in 1..=9 {
            assert_eq!(deadlines.expired(second * S), None);
            deadlines.progress(second * S);
        }

        assert_eq!(deadlines.next(), Some(10 * S));
        assert_eq!(deadlines.expired(10 * S), Some(Reason::RequestTimeout));
        assert_eq!(
            deadlines.expired(13 * S),
            Some(Reason::RequestTimeout),
            "the earliest is the reason"
        );
    }

    #[test]
    fn the_shorter_of_rule_and_backend_counts() {
        let mut deadlines = Deadlines::begin(&timeouts(0, 5, 0), Some(Duration::from_secs(2)), 0);
        deadlines.request_sent(0);

        assert_eq!(deadlines.next(), Some(2 * S));
    }
}
