//! When an endpoint that fails is left alone for a while: the circuit breaker of one endpoint.
//!
//! | state | success | throttled | failure | its time has come and it is drawn | the probe was given up |
//! |---|---|---|---|---|---|
//! | closed | the row of failures ends | counts in the rate | counts in the row and the rate; ejected when one is enough | | |
//! | ejected | ignored | ignored | ignored | probing | |
//! | probing | closed | ejected for longer, if a rate is reckoned; else closed | ejected for longer | | ejected, and due again |
//!
//! Results of requests that began before an ejection come late and are ignored; in probation only the probe counts, and
//! there is one probe at a time. How many endpoints may be out at once is not decided here but by the balancer, which
//! sees all of them ([`crate::balance`]): an ejection that is not allowed leaves the breaker closed, and the next
//! failure asks again.
//!
//! Cost: a result is a few adds; with a success rate, a sum over ten buckets. No allocation after the first.

mod outcome;
mod window;

pub use self::outcome::{MAX_RETRY_AFTER, Outcome, Verdict};
use self::window::Window;
use crate::outbound::{Backoff, FailureAccrual};

/// Why an endpoint is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trip {
    /// So many failures in a row.
    Consecutive,
    /// The success rate is too low.
    SuccessRate,
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Requests go to the endpoint.
    #[default]
    Closed,
    /// None goes there; from this time on (nanoseconds) one may, as a probe.
    Ejected(u64),
    /// The probe is on its way.
    Probing,
}

/// The breaker of one endpoint.
#[derive(Clone, Debug)]
pub struct Breaker {
    state: State,
    /// Failures in a row.
    streak: u32,
    /// Ejections since it was last closed: the exponent of the backoff.
    ejections: u32,
    /// Counts the probes, so that the result of an earlier one is known as such. 0 is no probe.
    probe: u32,
    window: Option<Box<Window>>,
}

impl Breaker {
    /// Closed.
    #[must_use]
    pub fn new(accrual: &FailureAccrual) -> Self {
        Self {
            state: State::Closed,
            streak: 0,
            ejections: 0,
            probe: 0,
            window: accrual
                .success_rate
                .map(|rate| Box::new(Window::new(rate.decay))),
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes in the result of a request that was no probe. `Some`: the endpoint should be ejected.
    pub fn record(&mut self, accrual: &FailureAccrual, now: u64, verdict: Verdict) -> Option<Trip> {
        if self.state != State::Closed {
            return None;
        }
        match verdict {
            Verdict::Success => self.streak = 0,
            Verdict::Throttled => {}
            Verdict::Failure => self.streak = self.streak.saturating_add(1),
        }
        if let Some(window) = &mut self.window {
            window.record(now, verdict == Verdict::Success);
        }
        if verdict == Verdict::Failure && accrual.consecutive.is_some_and(|max| self.streak >= max)
        {
            return Some(Trip::Consecutive);
        }
        let (window, rate) = (self.window.as_ref()?, accrual.success_rate?);
        let (successes, total) = window.totals();
        let low = f64::from(successes) < rate.threshold * f64::from(total);
        (total >= rate.min_requests.max(1) && low).then_some(Trip::SuccessRate)
    }

    /// Ejects the endpoint; gives the time from which on it may be probed. `hint`: how long the server asked to be left
    /// alone, which lengthens the time where the configuration respects it.
    pub fn eject(
        &mut self,
        backoff: &Backoff,
        now: u64,
        random: u64,
        hint: Option<std::time::Duration>,
    ) -> u64 {
        let until = now.saturating_add(pause(backoff, self.ejections, random, hint));
        self.ejections = self.ejections.saturating_add(1);
        self.state = State::Ejected(until);
        until
    }

    /// The request that is sent now is the probe. Gives its number.
    pub fn begin_probe(&mut self) -> u32 {
        self.state = State::Probing;
        self.probe = self.probe.wrapping_add(1).max(1);
        self.probe
    }

    /// Whether this is the probe whose result decides.
    #[must_use]
    pub fn awaits(&self, probe: u32) -> bool {
        self.state == State::Probing && self.probe == probe
    }

    /// Nobody will tell how the probe went: another one may be sent.
    pub fn give_up_probe(&mut self, now: u64) {
        self.state = State::Ejected(now);
    }

    /// Takes the endpoint back as if nothing had been.
    pub fn close(&mut self) {
        self.state = State::Closed;
        self.streak = 0;
        self.ejections = 0;
        if let Some(window) = &mut self.window {
            window.clear();
        }
    }
}

/// Whether a probe with this result lets the endpoint back in.
#[must_use]
pub fn passes(accrual: &FailureAccrual, verdict: Verdict) -> bool {
    match verdict {
        Verdict::Success => true,
        Verdict::Throttled => accrual.success_rate.is_none(),
        Verdict::Failure => false,
    }
}

/// Nanoseconds that double from the minimum to the maximum, with a share added at random.
fn pause(backoff: &Backoff, ejections: u32, random: u64, hint: Option<std::time::Duration>) -> u64 {
    let (min, max) = (nanos(backoff.min), nanos(backoff.max));
    let doubled = min.saturating_mul(1_u64 << ejections.min(40)).min(max);
    let share = random as f64 / u64::MAX as f64;
    let jitter = doubled as f64 * f64::from(backoff.jitter) * share;
    let pause = doubled.saturating_add(jitter as u64);
    match hint.filter(|_| backoff.respect_retry_after) {
        Some(hint) => pause.max(nanos(hint.min(MAX_RETRY_AFTER))),
        None => pause,
    }
}

fn nanos(length: std::time::Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
