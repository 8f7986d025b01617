//! Whether a request is tried again, when, and if not, why not.
//!
//! A try ends as a [`Tried`]. Two sorts of further tries follow from it. *Unseen*: no server has looked at the request
//! (it was refused by name, or there was no connection), so another endpoint is asked, whatever the rule says, at most
//! [`MAX_UNSEEN`] times. *By the rule*: [`Retry`] names what calls for another try; then limit, idempotence, the kept
//! body, the server's own wish, the deadline and the budget have their say, in this order, and the first that objects
//! is the [`Skip`] that metrics show.
//!
//! ```
//! use tulle_engine::budget::{Bucket, RetryBudget};
//! use tulle_engine::outbound::{Retry, RetryConditions, Statuses};
//! use tulle_engine::retry::{Request, Skip, Tried, Tries, Verdict};
//!
//! let rule = Retry {
//!     max_retries: 1,
//!     conditions: RetryConditions { http: Statuses::default().with(500..=599), ..Default::default() },
//!     ..Retry::default()
//! };
//! let mut bucket = Bucket::new(&RetryBudget::default());
//! let mut tries = Tries::default();
//! let request = Request { idempotent: true, ..Request::default() };
//! let answer = Tried::answer(503);
//!
//! assert_eq!(tries.decide(Some(&rule), answer, &request, &mut bucket), Verdict::Retry { after: 0 });
//! assert_eq!(tries.decide(Some(&rule), answer, &request, &mut bucket), Verdict::Skip(Skip::Limit));
//! ```

mod hint;
mod wishes;

use std::time::Duration;

pub use self::hint::{Hint, pushback, retry_after};
pub use self::wishes::Wishes;
use crate::budget::{Bucket, RetryBudget};
use crate::invalid::nanos;
use crate::outbound::{MAX_REQUEST_BYTES, Retry, RetryConditions};

/// Further tries of a request that no server has seen.
pub const MAX_UNSEEN: u8 = 2;
/// A server that asks for a longer pause is not asked again: its answer, which says so, goes to the caller.
pub const MAX_HINT: Duration = Duration::from_secs(10);

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// With an answer, of which the caller has seen nothing yet.
    Answer {
        /// The HTTP status.
        status: u16,
        /// The gRPC status, from the head or from trailers that followed it at once.
        grpc: Option<u8>,
        /// The server's word about the next try.
        hint: Hint,
    },
    /// The stream or connection was reset, or ended, before the answer began.
    Reset,
    /// A connection that had been idle ended: most likely it was closed before the request arrived.
    Stale,
    /// The peer refused the request before it looked at it.
    Refused,
    /// There was no connection. `others`: further endpoints may be asked.
    Unconnected {
        /// Whether the backend has other endpoints, or may get some.
        others: bool,
    },
    /// The time of one try was over.
    Late,
    /// No endpoint became ready in time.
    FailFast,
}

impl Tried {
    /// An answer without a gRPC status or hint.
    #[must_use]
    pub fn answer(status: u16) -> Self {
        Self::Answer {
            status,
            grpc: None,
            hint: Hint::None,
        }
    }
}

/// Whether the request can be sent once more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// All of it that was taken from the caller is there, or it has none.
    #[default]
    Kept,
    /// It is larger than what is kept.
    TooLarge,
    /// There was no room to keep it: all requests of the worker together keep a bounded amount.
    NoRoom,
}

/// What is known of the request when a try has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// By its method ([`is_idempotent`]).
    pub idempotent: bool,
    /// Whether it can be sent once more.
    pub body: Body,
    /// The caller has seen a part of the answer.
    pub answer_begun: bool,
    /// Until when the caller waits, in ns.
    pub deadline: Option<u64>,
    /// Now, in ns.
    pub now: u64,
    /// Any number, each as likely.
    pub random: u64,
}

/// Whether there is another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing calls for one: the outcome is the caller's.
    Done,
    /// After so many ns.
    Retry {
        /// The wait, in ns.
        after: u64,
    },
    /// The rule calls for one, and something speaks against it.
    Skip(Skip),
}

/// What speaks against a try that a rule calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skip {
    /// The rule allows no more of them.
    Limit,
    /// The caller has seen a part of the answer.
    HeadersSent,
    /// A server may have acted on it, and the method is not idempotent.
    NotIdempotent,
    /// The body is larger than what is kept.
    BodyTooLarge,
    /// No room to keep the body.
    NoRoom,
    /// The server asked for a pause that is too long, or for no further try.
    ServerSaysNo,
    /// The caller would not wait for it.
    Deadline,
    /// The budget is spent.
    NoBudget,
}

impl Skip {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::Limit,
        Self::HeadersSent,
        Self::NotIdempotent,
        Self::BodyTooLarge,
        Self::NoRoom,
        Self::ServerSaysNo,
        Self::Deadline,
        Self::NoBudget,
    ];

    /// The stable word that metrics carry.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::HeadersSent => "headers_sent",
            Self::NotIdempotent => "not_idempotent",
            Self::BodyTooLarge => "body_too_large",
            Self::NoRoom => "no_room",
            Self::ServerSaysNo => "server_says_no",
            Self::Deadline => "deadline",
            Self::NoBudget => "no_budget",
        }
    }
}

/// The tries of one request so far, beside the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// By the rule.
    retries: u32,
    /// Because no server had seen it.
    unseen: u8,
}

impl Tries {
    /// How many there were by the rule.
    #[must_use]
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// Whether there was any.
    #[must_use]
    pub fn any(&self) -> bool {
        self.retries > 0 || self.unseen > 0
    }

    /// Decides after a try, and counts the next one if there is one. What the budget grants is spent.
    pub fn decide(
        &mut self,
        rule: Option<&Retry>,
        tried: Tried,
        request: &Request,
        bucket: &mut Bucket,
    ) -> Verdict {
        if self.unseen < MAX_UNSEEN && goes_elsewhere(tried, request) {
            // No server has worked for what was not connected: that is not what a budget is for.
            let free = matches!(tried, Tried::Unconnected { .. });
            if free || bucket.withdraw(request.now) {
                self.unseen += 1;
                return Verdict::Retry { after: 0 };
            }
            return Verdict::Skip(Skip::NoBudget);
        }
        let Some(rule) = rule.filter(|rule| rule.calls_for(tried)) else {
            return Verdict::Done;
        };
        match self.objection(rule, tried, request, bucket) {
            Ok(after) => {
                self.retries += 1;
                Verdict::Retry { after }
            }
            Err(skip) => Verdict::Skip(skip),
        }
    }

    fn objection(
        &self,
        rule: &Retry,
        tried: Tried,
        request: &Request,
        bucket: &mut Bucket,
    ) -> Result<u64, Skip> {
        if self.retries >= rule.max_retries {
            return Err(Skip::Limit);
        }
        if request.answer_begun {
            return Err(Skip::HeadersSent);
        }
        if !request.idempotent && !rule.repeats_unsafe(tried) {
            return Err(Skip::NotIdempotent);
        }
        match request.body {
            Body::Kept => {}
            Body::TooLarge => return Err(Skip::BodyTooLarge),
            Body::NoRoom => return Err(Skip::NoRoom),
        }
        let after = self.wait(rule, tried, request.random)?;
        if request
            .deadline
            .is_some_and(|deadline| request.now.saturating_add(after) >= deadline)
        {
            return Err(Skip::Deadline);
        }
        if bucket.withdraw(request.now) {
            Ok(after)
        } else {
            Err(Skip::NoBudget)
        }
    }

    /// The server's wish where it has one, else the rule's backoff.
    fn wait(&self, rule: &Retry, tried: Tried, random: u64) -> Result<u64, Skip> {
        let hint = match tried {
            Tried::Answer { hint, .. } => hint,
            _ => Hint::None,
        };
        match hint {
            Hint::Never => Err(Skip::ServerSaysNo),
            Hint::After(pause) if pause > MAX_HINT => Err(Skip::ServerSaysNo),
            Hint::After(pause) => Ok(nanos(pause)),
            Hint::None => Ok(rule
                .backoff
                .map_or(0, |backoff| nanos(backoff.wait(self.retries, random)))),
        }
    }
}

/// Is the request as good as unsent, and are there others to send it to?
fn goes_elsewhere(tried: Tried, request: &Request) -> bool {
    let unseen = match tried {
        Tried::Refused => true,
        Tried::Unconnected { others } => others,
        Tried::Stale => request.idempotent,
        _ => false,
    };
    unseen && request.body == Body::Kept && !request.answer_begun
}

impl Retry {
    /// Whether the rule names this outcome.
    #[must_use]
    pub fn calls_for(&self, tried: Tried) -> bool {
        match tried {
            Tried::Answer { status, grpc, .. } => {
                self.conditions.http.contains(status)
                    || grpc.is_some_and(|grpc| grpc < 32 && self.conditions.grpc >> grpc & 1 == 1)
            }
            Tried::Reset | Tried::Stale => self.conditions.reset,
            Tried::Unconnected { .. } => self.conditions.connect_failure,
            Tried::Refused | Tried::Late | Tried::FailFast => true,
        }
    }

    /// Whether a method that is not idempotent may be repeated after this outcome: no server has seen it, or the rule
    /// says so.
    fn repeats_unsafe(&self, tried: Tried) -> bool {
        match tried {
            Tried::Refused | Tried::Unconnected { .. } | Tried::FailFast => true,
            Tried::Answer {
                grpc: Some(grpc), ..
            } if grpc < 32 && self.conditions.grpc >> grpc & 1 == 1 => true,
            _ => self.conditions.non_idempotent,
        }
    }
}

/// One retry of nothing that a server has seen, with the default budget: what `l5d-retry-*` headers build on.
impl Default for Retry {
    fn default() -> Self {
        Self {
            max_retries: 1,
            max_request_bytes: MAX_REQUEST_BYTES,
            conditions: RetryConditions::default(),
            timeout: None,
            backoff: None,
            budget: RetryBudget::default(),
        }
    }
}

/// Whether a request with this method may be repeated without harm (RFC 9110 §9.2.2).
#[must_use]
pub fn is_idempotent(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
    )
}

#[cfg(test)]
mod tests;
