//! Timeouts, retries and circuit breakers as a rule has them. Timeouts are acted on by [`crate::deadline`], retries by
//! [`crate::retry`]; breakers are read and kept here, for the proxy to act on.

use std::time::Duration;

use tulle_api::http_route;
use tulle_api::outbound as api;

use crate::budget::RetryBudget;
use crate::invalid::{Invalid, limit, required_duration};
use crate::random_below;

/// The largest body that is kept for a retry: where a rule does not say, and at most.
pub const MAX_REQUEST_BYTES: u32 = 64 * 1024;

/// `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of the request to the end of the response, retries included.
    pub request: Option<Duration>,
    /// From the end of the request to the end of the response.
    pub response: Option<Duration>,
    /// Without data in either direction.
    pub idle: Option<Duration>,
}

impl Timeouts {
    /// `legacy_response` is the older form of the response timeout, which the newer replaces.
    pub(super) fn compile(
        message: Option<&http_route::Timeouts>,
        legacy_response: Option<&prost_types::Duration>,
    ) -> Result<Self, Invalid> {
        let legacy = limit("request_timeout", legacy_response)?;
        Ok(match message {
            None => Self {
                response: legacy,
                ..Self::default()
            },
            Some(message) => Self {
                request: limit("timeouts.request", message.request.as_ref())?,
                response: limit("timeouts.response", message.response.as_ref())?.or(legacy),
                idle: limit("timeouts.idle", message.idle.as_ref())?,
            },
        })
    }
}

/// When and how often a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// Beside the first try.
    pub max_retries: u32,
    /// Requests with a longer body are not tried again; at most [`MAX_REQUEST_BYTES`].
    pub max_request_bytes: u32,
    /// What calls for another try.
    pub conditions: RetryConditions,
    /// Per try, until the response's head.
    pub timeout: Option<Duration>,
    /// Between tries; `None` is at once.
    pub backoff: Option<Backoff>,
    /// How many retries there may be beside ordinary requests.
    pub budget: RetryBudget,
}

/// What calls for another try. That no server has seen the request, and the timeout of a try, always do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryConditions {
    /// HTTP statuses.
    pub http: Statuses,
    /// gRPC statuses, as bits: status 14 is `1 << 14`. Their methods count as safe to repeat: the rule says so.
    pub grpc: u32,
    /// The stream or connection was reset before the answer began.
    pub reset: bool,
    /// No connection could be made, also where there is no other endpoint.
    pub connect_failure: bool,
    /// Also for methods that are not idempotent, when a server may have seen the request.
    pub non_idempotent: bool,
}

/// A set of HTTP statuses, 100 to 599.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Statuses([u64; 8]);

impl Statuses {
    /// Adds a range; statuses outside of 100 to 599 are left out.
    #[must_use]
    pub fn with(mut self, range: std::ops::RangeInclusive<u16>) -> Self {
        for status in (*range.start()).max(100)..=(*range.end()).min(599) {
            let bit = usize::from(status - 100);
            if let Some(word) = self.0.get_mut(bit / 64) {
                *word |= 1 << (bit % 64);
            }
        }
        self
    }

    /// Whether the status is in the set.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        let bit = usize::from(status.wrapping_sub(100));
        self.0
            .get(bit / 64)
            .is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    /// The statuses, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (100..=599).filter(|status| self.contains(*status))
    }
}

/// `{500..=503, 599}`.
impl std::fmt::Debug for Statuses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut set = f.debug_set();
        let mut range: Option<(u16, u16)> = None;
        for status in self.iter() {
            range = Some(match range {
                Some((start, end)) if end + 1 == status => (start, status),
                Some((start, end)) => {
                    set.entry(&(start..=end));
                    (status, status)
                }
                None => (status, status),
            });
        }
        if let Some((start, end)) = range {
            set.entry(&(start..=end));
        }
        set.finish()
    }
}

/// Waits that double from `min` to `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The first wait.
    pub min: Duration,
    /// The longest wait.
    pub max: Duration,
    /// How much of the wait is random, as a share of it.
    pub jitter: f32,
    /// Whether a server's `retry-after` is followed.
    pub respect_retry_after: bool,
}

impl Backoff {
    /// The wait before the retry of this number, from 0. With a jitter of 1 or more it is "full": anywhere between
    /// nothing and the whole wait, which spreads the retries of many clients best; with less, that share of the wait
    /// is drawn.
    #[must_use]
    pub fn wait(&self, retries: u32, random: u64) -> Duration {
        let doubled = self.min.checked_mul(2_u32.saturating_pow(retries));
        let whole = crate::invalid::nanos(doubled.unwrap_or(self.max).min(self.max));
        let share = f64::from(self.jitter.clamp(0.0, 1.0));
        let drawn = (whole as f64 * share) as u64;
        Duration::from_nanos(whole - drawn + random_below(random, drawn.saturating_add(1)))
    }

    fn compile(message: &api::ExponentialBackoff) -> Result<Self, Invalid> {
        let backoff = Self {
            min: required_duration("backoff.min_backoff", message.min_backoff.as_ref())?,
            max: required_duration("backoff.max_backoff", message.max_backoff.as_ref())?,
            jitter: message.jitter_ratio,
            respect_retry_after: message.respect_retry_after_hint,
        };
        if backoff.min.is_zero() || backoff.max < backoff.min {
            return Err(Invalid::new(
                "backoff",
                "has a minimum of zero or above its maximum",
            ));
        }
        if !(0.0..=100.0).contains(&backoff.jitter) {
            return Err(Invalid::new(
                "backoff.jitter_ratio",
                format!("is {}", backoff.jitter),
            ));
        }
        Ok(backoff)
    }
}

impl Retry {
    pub(super) fn http(message: &api::http_route::Retry) -> Result<Self, Invalid> {
        let mut statuses = Statuses::default();
        let conditions = message.conditions.as_ref();
        for range in conditions.iter().flat_map(|c| &c.status_ranges) {
            let (Ok(start), Ok(end)) = (u16::try_from(range.start), u16::try_from(range.end))
            else {
                return Err(Invalid::new(
                    "retry.conditions.status_ranges",
                    "has a number that is no status",
                ));
            };
            if start < 100 || end > 599 || start > end {
                let why = format!("has {start} to {end}, not a range of statuses");
                return Err(Invalid::new("retry.conditions.status_ranges", why));
            }
            statuses = statuses.with(start..=end);
        }
        Self::compile(
            message.max_retries,
            message.max_request_bytes,
            RetryConditions {
                http: statuses,
                grpc: 0,
                reset: conditions.is_some_and(|c| c.reset),
                connect_failure: conditions.is_some_and(|c| c.connect_failure),
                non_idempotent: conditions.is_some_and(|c| c.non_idempotent),
            },
            message.timeout.as_ref(),
            message.backoff.as_ref(),
            message.budget.as_ref(),
        )
    }

    pub(super) fn grpc(message: &api::grpc_route::Retry) -> Result<Self, Invalid> {
        let mut codes = 0;
        if let Some(conditions) = &message.conditions {
            for (wanted, code) in [
                (conditions.cancelled, 1),
                (conditions.deadine_exceeded, 4),
                (conditions.resource_exhausted, 8),
                (conditions.internal, 13),
                (conditions.unavailable, 14),
            ] {
                codes |= u32::from(wanted) << code;
            }
        }
        let conditions = message.conditions.as_ref();
        Self::compile(
            message.max_retries,
            message.max_request_bytes,
            RetryConditions {
                http: Statuses::default(),
                grpc: codes,
                reset: conditions.is_some_and(|c| c.reset),
                connect_failure: conditions.is_some_and(|c| c.connect_failure),
                // Every gRPC call is a POST: a rule that wants calls tried again means those.
                non_idempotent: true,
            },
            message.timeout.as_ref(),
            message.backoff.as_ref(),
            message.budget.as_ref(),
        )
    }

    fn compile(
        max_retries: u32,
        max_request_bytes: u32,
        conditions: RetryConditions,
        timeout: Option<&prost_types::Duration>,
        backoff: Option<&api::ExponentialBackoff>,
        budget: Option<&http_route::RetryBudget>,
    ) -> Result<Self, Invalid> {
        if max_request_bytes > MAX_REQUEST_BYTES {
            let why = format!("is {max_request_bytes}, more than {MAX_REQUEST_BYTES}");
            return Err(Invalid::new("retry.max_request_bytes", why));
        }
        Ok(Self {
            max_retries,
            max_request_bytes: match max_request_bytes {
                0 => MAX_REQUEST_BYTES,
                bytes => bytes,
            },
            conditions,
            timeout: limit("retry.timeout", timeout)?,
            backoff: match backoff {
                None => None,
                Some(backoff) => {
                    Some(Backoff::compile(backoff).map_err(|error| error.under("retry"))?)
                }
            },
            budget: RetryBudget::compile(budget).map_err(|error| error.under("retry"))?,
        })
    }
}

/// When an endpoint is taken out for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FailureAccrual {
    /// So many failures in a row; `None` does not count them.
    pub consecutive: Option<u32>,
    /// A success rate below this threshold; `None` does not reckon it.
    pub success_rate: Option<SuccessRate>,
    /// How long it stays out.
    pub backoff: Backoff,
    /// Endpoints that stay in whatever happens.
    pub min_ready_endpoints: u32,
    /// The largest share of endpoints that may be out at once, in per cent.
    pub max_ejected_percent: u32,
}

/// A success rate that is too low.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SuccessRate {
    /// Between 0 and 1.
    pub threshold: f64,
    /// Over which the rate is averaged.
    pub decay: Duration,
    /// Fewer requests tell nothing.
    pub min_requests: u32,
}

/// Where a policy does not say: half of the endpoints stay in, whatever they answer.
const DEFAULT_MAX_EJECTED_PERCENT: u32 = 50;

impl FailureAccrual {
    pub(super) fn compile(message: &api::FailureAccrual) -> Result<Self, Invalid> {
        use api::failure_accrual::Kind;
        let backoff = |message: &Option<api::ExponentialBackoff>| match message {
            None => Err(Invalid::missing("backoff")),
            Some(backoff) => Backoff::compile(backoff),
        };
        let min_ready_endpoints = message
            .ejection
            .as_ref()
            .map_or(0, |ejection| ejection.min_ready_endpoints);
        let max_ejected_percent = match message.ejection {
            None => DEFAULT_MAX_EJECTED_PERCENT,
            Some(ejection) => match ejection.max_ejected_percent {
                0 => DEFAULT_MAX_EJECTED_PERCENT,
                percent @ 1..=100 => percent,
                percent => {
                    let why = format!("is {percent}, above 100");
                    return Err(Invalid::new("ejection.max_ejected_percent", why));
                }
            },
        };
        let some = |number| Some(number).filter(|number| *number != 0);
        match &message.kind {
            None => Err(Invalid::missing("kind")),
            Some(Kind::ConsecutiveFailures(failures)) => Ok(Self {
                consecutive: some(failures.max_failures),
                success_rate: None,
                backoff: backoff(&failures.backoff)?,
                min_ready_endpoints,
                max_ejected_percent,
            }),
            Some(Kind::Unified(unified)) => {
                let threshold = unified.success_rate_threshold;
                if !(0.0..=1.0).contains(&threshold) {
                    let why = format!("is {threshold}, not between 0 and 1");
                    return Err(Invalid::new("unified.success_rate_threshold", why));
                }
                let success_rate = if threshold == 0.0 {
                    None
                } else {
                    Some(SuccessRate {
                        threshold,
                        decay: required_duration("unified.decay", unified.decay.as_ref())?,
                        min_requests: unified.min_requests,
                    })
                };
                Ok(Self {
                    consecutive: some(unified.max_consecutive_failures),
                    success_rate,
                    backoff: backoff(&unified.backoff)?,
                    min_ready_endpoints,
                    max_ejected_percent,
                })
            }
        }
    }
}
