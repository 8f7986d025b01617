//! How many retries and hedges there may be beside ordinary requests, so that tries for a failing server cannot become
//! a storm.
//!
//! Two allowances. *In proportion*: within the time that an ordinary request counts ([`RetryBudget::ttl`]), at most
//! [`RetryBudget::ratio`] extra tries per request. *In any case*: a reserve that fills at
//! [`RetryBudget::min_per_second`] and holds one second's worth, so that a quiet client may retry too.
//!
//! ```
//! use tulle_engine::budget::{Bucket, RetryBudget};
//!
//! let mut bucket = Bucket::new(&RetryBudget { min_per_second: 0, ..RetryBudget::default() });
//! (0..10).for_each(|_| bucket.deposit(0));
//! assert!(bucket.withdraw(0) && bucket.withdraw(0), "20 % of ten requests");
//! assert!(!bucket.withdraw(0));
//! ```
//!
//! Cost: fixed size (about 150 octets), a few integer operations per call, no allocation.

use std::time::Duration;

use tulle_api::http_route as api;

use crate::invalid::{Invalid, duration, nanos};

/// Parts of the window; what expires does so in such steps.
const SLOTS: usize = 10;
/// One try, in the units of the reserve: a second at one per second.
const TRY: u64 = 1_000_000_000;
/// One try, in the units of the ratio.
const MILLION: u64 = 1_000_000;
/// The longest time that a request may count for a retry budget, in seconds; as in Linkerd.
const MAX_TTL: u64 = 60;
/// The largest ratio of a retry budget; as in Linkerd.
const MAX_RATIO: f32 = 1000.0;

/// What is allowed. The default is Linkerd's: 0.2, 10 per second, 10 s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// Extra tries per ordinary request, 0 to 1000.
    pub ratio: f32,
    /// Extra tries per second beside the ratio.
    pub min_per_second: u32,
    /// How long an ordinary request counts, 1 s to 60 s.
    pub ttl: Duration,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self {
            ratio: 0.2,
            min_per_second: 10,
            ttl: Duration::from_secs(10),
        }
    }
}

impl RetryBudget {
    /// Reads the message; an absent one is the default.
    ///
    /// # Errors
    /// When the ratio or the time is out of its range.
    pub fn compile(message: Option<&api::RetryBudget>) -> Result<Self, Invalid> {
        let Some(message) = message else {
            return Ok(Self::default());
        };
        let ratio = message.retry_ratio;
        if !(0.0..=MAX_RATIO).contains(&ratio) {
            let why = format!("is {ratio}, not between 0 and {MAX_RATIO}");
            return Err(Invalid::new("budget.retry_ratio", why));
        }
        let ttl = match &message.ttl {
            None => Self::default().ttl,
            Some(ttl) => duration("budget.ttl", ttl)?,
        };
        if ttl < Duration::from_secs(1) || ttl > Duration::from_secs(MAX_TTL) {
            let why = format!("is {ttl:?}, not between 1s and {MAX_TTL}s");
            return Err(Invalid::new("budget.ttl", why));
        }
        Ok(Self {
            ratio,
            min_per_second: message.min_retries_per_second,
            ttl,
        })
    }
}

/// The state of one budget. Times are nanoseconds that do not go back; one that does is taken for the latest.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Extra tries per million requests.
    ratio: u64,
    per_second: u64,
    slot_length: u64,
    /// The number of the newest slot, counted from time 0.
    newest: u64,
    slots: [Slot; SLOTS],
    /// The sum of the slots.
    window: Slot,
    /// In units of [`TRY`]; at most a second's worth.
    reserve: u64,
    filled_at: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot {
    requests: u64,
    /// Only those that the reserve did not pay.
    extra: u64,
}

impl Bucket {
    /// Without requests; the reserve is full.
    #[must_use]
    pub fn new(budget: &RetryBudget) -> Self {
        let per_second = u64::from(budget.min_per_second);
        Self {
            // Within its range by `compile`; anything else saturates.
            ratio: (f64::from(budget.ratio) * MILLION as f64).round() as u64,
            per_second,
            slot_length: (nanos(budget.ttl) / SLOTS as u64).max(1),
            newest: 0,
            slots: [Slot::default(); SLOTS],
            window: Slot::default(),
            reserve: per_second.saturating_mul(TRY),
            filled_at: 0,
        }
    }

    /// An ordinary request has begun.
    #[inline]
    pub fn deposit(&mut self, now: u64) {
        self.advance(now);
        self.window.requests += 1;
        if let Some(slot) = self.slots.get_mut((self.newest % SLOTS as u64) as usize) {
            slot.requests += 1;
        }
    }

    /// Takes one extra try out, if there is one.
    pub fn withdraw(&mut self, now: u64) -> bool {
        self.advance(now);
        self.fill(now);
        if self.reserve >= TRY {
            self.reserve -= TRY;
            return true;
        }
        let wanted = (self.window.extra + 1).saturating_mul(MILLION);
        if wanted > self.window.requests.saturating_mul(self.ratio) {
            return false;
        }
        self.window.extra += 1;
        if let Some(slot) = self.slots.get_mut((self.newest % SLOTS as u64) as usize) {
            slot.extra += 1;
        }
        true
    }

    /// Forgets what has expired.
    #[inline]
    fn advance(&mut self, now: u64) {
        let current = now / self.slot_length;
        if current > self.newest {
            self.expire(current);
        }
    }

    #[cold]
    fn expire(&mut self, current: u64) {
        let steps = (current - self.newest).min(SLOTS as u64);
        for number in current + 1 - steps..=current {
            if let Some(slot) = self.slots.get_mut((number % SLOTS as u64) as usize) {
                self.window.requests -= slot.requests;
                self.window.extra -= slot.extra;
                *slot = Slot::default();
            }
        }
        self.newest = current;
    }

    fn fill(&mut self, now: u64) {
        let elapsed = now.saturating_sub(self.filled_at);
        self.filled_at = self.filled_at.max(now);
        let full = self.per_second.saturating_mul(TRY);
        self.reserve = self
            .reserve
            .saturating_add(elapsed.saturating_mul(self.per_second))
            .min(full);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;
    const S: u64 = 1_000 * MS;

    fn budget(ratio: f32, min_per_second: u32, ttl: u64) -> RetryBudget {
        RetryBudget {
            ratio,
            min_per_second,
            ttl: Duration::from_secs(ttl),
        }
    }

    #[test]
    fn the_reserve_serves_a_client_that_asks_rarely() {
        let mut bucket = Bucket::new(&RetryBudget::default());

        let at_once = (0..100).filter(|_| bucket.withdraw(0)).count();
        let later = (0..100).filter(|_| bucket.withdraw(300 * MS)).count();

        assert_eq!((at_once, later), (10, 3));
    }

    #[test]
    fn requests_stop_to_count_after_their_time() {
        let mut bucket = Bucket::new(&budget(1.0, 0, 10));
        bucket.deposit(0);

        assert!(bucket.clone().withdraw(9 * S));
        assert!(!bucket.withdraw(10 * S));
    }

    #[test]
    fn a_budget_of_nothing_allows_nothing() {
        let mut bucket = Bucket::new(&budget(0.0, 0, 10));
        (0..1000).for_each(|_| bucket.deposit(0));

        assert!(!bucket.withdraw(0) && !bucket.withdraw(100 * S));
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_name() {
        let compile = |retry_ratio, seconds| {
            RetryBudget::compile(Some(&api::RetryBudget {
                retry_ratio,
                min_retries_per_second: 1,
                ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
            }))
        };

        assert_eq!(compile(0.5, 60), Ok(budget(0.5, 1, 60)));
        assert_eq!(compile(-1.0, 10).unwrap_err().field, "budget.retry_ratio");
        assert_eq!(compile(1e4, 10).unwrap_err().field, "budget.retry_ratio");
        assert_eq!(
            compile(f32::NAN, 10).unwrap_err().field,
            "budget.retry_ratio"
        );
        assert_eq!(compile(0.2, 1000).unwrap_err().field, "budget.ttl");
        assert_eq!(compile(0.2, 0).unwrap_err().field, "budget.ttl");
        assert_eq!(RetryBudget::compile(None), Ok(RetryBudget::default()));
    }

    /// What happened, kept and counted anew for each question.
    struct Oracle {
        budget: RetryBudget,
        requests: Vec<u64>,
        extra: Vec<u64>,
        reserve: f64,
        filled_at: u64,
    }

    impl Oracle {
        fn in_window(&self, times: &[u64], now: u64) -> f64 {
            let slot = |time: u64| time / (self.budget.ttl.as_nanos() as u64 / 10);
            times
                .iter()
                .filter(|time| slot(now) - slot(**time) < 10)
                .count() as f64
        }

        fn withdraw(&mut self, now: u64) -> bool {
            let rate = f64::from(self.budget.min_per_second);
            let filled = (now - self.filled_at) as f64 / S as f64 * rate;
            self.reserve = (self.reserve + filled).min(rate);
            self.filled_at = now;
            if self.reserve >= 1.0 - 1e-9 {
                self.reserve -= 1.0;
                return true;
            }
            let allowed = self.in_window(&self.requests, now) * f64::from(self.budget.ratio);
            let granted = self.in_window(&self.extra, now) + 1.0 <= allowed + 1e-6;
            if granted {
                self.extra.push(now);
            }
            granted
        }
    }

    proptest! {
        #[test]
        fn grants_are_those_of_a_naive_count(
            ratio in prop_oneof![Just(0.0_f32), Just(0.2), Just(0.5), Just(1.0), Just(2.5)],
            min_per_second in 0_u32..5,
            ttl in 1_u64..12,
            steps in proptest::collection::vec((0_u64..3000, any::<bool>()), 1..300),
        ) {
            let budget = budget(ratio, min_per_second, ttl);
            let mut bucket = Bucket::new(&budget);
            let mut oracle = Oracle {
                budget, requests: Vec::new(), extra: Vec::new(),
                reserve: f64::from(min_per_second), filled_at: 0,
            };
            let mut now = 0;
            for (pause, ordinary) in steps {
                now += pause * MS;
                if ordinary {
                    bucket.deposit(now);
                    oracle.requests.push(now);
                } else {
                    prop_assert_eq!(bucket.withdraw(now), oracle.withdraw(now), "at {}", now);
                }
            }
        }

        /// The promise itself, whatever the order: never more than the ratio of the requests of the window and what
        /// the reserve holds and gains in it.
        #[test]
        fn a_storm_stays_within_the_promise(
            steps in proptest::collection::vec((0_u64..200, 0_usize..8, 0_usize..30), 1..200),
        ) {
            let mut bucket = Bucket::new(&RetryBudget::default());
            let (mut now, mut requests, mut granted) = (0, 0_u64, 0_u64);
            for (pause, ordinary, failing) in steps {
                now += pause * MS;
                for _ in 0..ordinary {
                    bucket.deposit(now);
                    requests += 1;
                }
                for _ in 0..failing {
                    granted += u64::from(bucket.withdraw(now));
                }
                let allowed = requests as f64 * 0.2 + 10.0 + 10.0 * now as f64 / S as f64;
                prop_assert!(granted as f64 <= allowed + 1e-6, "{} > {}", granted, allowed);
            }
        }

        #[test]
        fn time_that_goes_back_does_no_harm(times in proptest::collection::vec(any::<u64>(), 0..50)) {
            let mut bucket = Bucket::new(&RetryBudget::default());
            for now in times {
                bucket.deposit(now);
                let _ = bucket.withdraw(now);
            }
        }
    }
}
