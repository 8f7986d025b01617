//! When a second try is sent beside a first that is slow: after a percentile of the latencies seen lately.
//!
//! [`Latencies`] is a histogram of fixed size whose buckets grow with the latency (eight per doubling, so an estimate
//! is at most an eighth above the truth). It forgets by halving: after every 1,024 answers, and after every ten seconds
//! with traffic, so that it follows a server that has become slower or faster.
//!
//! Cost: a record is a shift and an add; a question adds up 200 numbers. No allocation.

use std::time::Duration;

use tulle_api::http_route as api;

use crate::invalid::{Invalid, duration, nanos};

/// Buckets per doubling of the latency, as a power of two.
const FINE: u32 = 3;
/// Latencies below 2^16 ns (66 µs) share the first buckets.
const LOWEST: u32 = 16;
/// Latencies from 2^36 ns (69 s) share the last bucket.
const HIGHEST: u32 = 36;
const BUCKETS: usize = ((HIGHEST - LOWEST + 1) << FINE) as usize;
/// Counts are halved when there are so many.
const FULL: u32 = 1024;
/// … and after so long.
const AGE: u64 = 10_000_000_000;
/// With fewer answers there is no percentile to speak of, and nothing is hedged.
pub const MIN_SAMPLES: u32 = 32;
/// The most second tries of one request that a rule may ask for.
pub const MAX_HEDGES: u32 = 4;

/// A rule's wish for second tries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hedge {
    /// Between 0 and 1: 0.95 sends the second try when the first is among the slowest 5 %.
    pub percentile: f64,
    /// Never earlier than this.
    pub min_delay: Duration,
    /// Beside the first try, 1 to [`MAX_HEDGES`].
    pub max_hedges: u32,
}

impl Hedge {
    /// Reads the message.
    ///
    /// # Errors
    /// When the percentile is not between 0 and 1 or there are more than [`MAX_HEDGES`].
    pub fn compile(message: &api::Hedge) -> Result<Self, Invalid> {
        let percentile = message.percentile;
        if !(percentile > 0.0 && percentile < 1.0) {
            let why = format!("is {percentile}, not between 0 and 1");
            return Err(Invalid::new("percentile", why));
        }
        if message.max_hedges > MAX_HEDGES {
            let why = format!("is {}, more than {MAX_HEDGES}", message.max_hedges);
            return Err(Invalid::new("max_hedges", why));
        }
        Ok(Self {
            percentile,
            min_delay: match &message.min_delay {
                None => Duration::ZERO,
                Some(delay) => duration("min_delay", delay)?,
            },
            max_hedges: message.max_hedges.max(1),
        })
    }
}

/// The latencies of a rule's answers, from the request to the answer's head.
#[derive(Clone, Debug)]
pub struct Latencies {
    buckets: [u32; BUCKETS],
    count: u32,
    halved_at: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            count: 0,
            halved_at: 0,
        }
    }
}

impl Latencies {
    /// An answer began after `latency` ns.
    pub fn record(&mut self, latency: u64, now: u64) {
        if self.count >= FULL || now.saturating_sub(self.halved_at) >= AGE {
            self.halve(now);
        }
        if let Some(bucket) = self.buckets.get_mut(index(latency)) {
            *bucket += 1;
            self.count += 1;
        }
    }

    fn halve(&mut self, now: u64) {
        self.halved_at = now;
        self.count = 0;
        for bucket in &mut self.buckets {
            *bucket /= 2;
            self.count += *bucket;
        }
    }

    /// The latency, in ns, that `share` of the answers do not exceed; `None` with fewer than [`MIN_SAMPLES`].
    #[must_use]
    pub fn percentile(&self, share: f64) -> Option<u64> {
        if self.count < MIN_SAMPLES {
            return None;
        }
        let wanted = (f64::from(self.count) * share).ceil().max(1.0) as u32;
        let mut seen = 0;
        let found = self.buckets.iter().position(|bucket| {
            seen += bucket;
            seen >= wanted
        });
        Some(upper(found.unwrap_or(BUCKETS - 1)))
    }

    /// How long the first try may take before the second, in ns; `None` while too little is known.
    #[must_use]
    pub fn delay(&self, hedge: &Hedge) -> Option<u64> {
        self.percentile(hedge.percentile)
            .map(|delay| delay.max(nanos(hedge.min_delay)))
    }
}

fn index(latency: u64) -> usize {
    let latency = latency.max(1 << LOWEST);
    let exponent = latency.ilog2();
    if exponent > HIGHEST {
        return BUCKETS - 1;
    }
    let fine = (latency >> (exponent - FINE)) & ((1 << FINE) - 1);
    (u64::from((exponent - LOWEST) << FINE) + fine) as usize
}

/// The largest latency of a bucket.
fn upper(index: usize) -> u64 {
    let index = index as u64 + 1;
    let exponent = (index >> FINE) as u32 + LOWEST;
    let fine = index & ((1 << FINE) - 1);
    ((1 << FINE | fine) << (exponent - FINE)) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    fn of(latencies: impl IntoIterator<Item = u64>) -> Latencies {
        let mut seen = Latencies::default();
        latencies
            .into_iter()
            .for_each(|latency| seen.record(latency, 0));
        seen
    }

    #[test]
    fn nothing_is_said_before_enough_was_seen() {
        assert_eq!(of([MS; MIN_SAMPLES as usize - 1]).percentile(0.5), None);
        assert!(of([MS; MIN_SAMPLES as usize]).percentile(0.5).is_some());
    }

    #[test]
    fn the_delay_is_never_below_the_least() {
        let hedge = |min_delay| Hedge {
            percentile: 0.9,
            min_delay: Duration::from_millis(min_delay),
            max_hedges: 1,
        };
        let seen = of([4 * MS; 100]);

        assert_eq!(seen.delay(&hedge(50)), Some(50 * MS));
        let delay = seen.delay(&hedge(0)).unwrap();
        assert!((4 * MS..=4 * MS * 9 / 8).contains(&delay), "{delay}");
    }

    #[test]
    fn what_was_slow_long_ago_is_forgotten() {
        let mut seen = of([500 * MS; 1000]);
        for number in 0..4000 {
            seen.record(2 * MS, number);
        }
        assert!(seen.percentile(0.8).unwrap() < 3 * MS);

        let mut seen = of([500 * MS; 40]);
        for second in 1..40 {
            (0..10).for_each(|_| seen.record(2 * MS, second * 10_000 * MS));
        }
        assert!(
            seen.percentile(0.9).unwrap_or(0) < 3 * MS,
            "also with little traffic"
        );
    }

    #[test]
    fn the_buckets_are_dense_and_in_order() {
        for latency in (0..40)
            .map(|shift| 1_u64 << shift)
            .flat_map(|l| [l - 1, l, l + 1])
        {
            let index = index(latency);
            assert!(index < BUCKETS);
            if (1 << LOWEST..1 << (HIGHEST + 1)).contains(&latency) {
                assert!(upper(index) >= latency, "{latency}");
                assert!(index == 0 || upper(index - 1) < latency, "{latency}");
            }
        }
    }

    proptest! {
        #[test]
        fn an_estimate_is_at_most_an_eighth_above_a_sorted_list(
            mut latencies in proptest::collection::vec(100_000_u64..60_000_000_000, 32..1000),
            share in 0.01_f64..0.999,
        ) {
            let estimate = of(latencies.iter().copied()).percentile(share).unwrap();
            latencies.sort_unstable();
            let rank = (latencies.len() as f64 * share).ceil().max(1.0) as usize;
            let exact = latencies[rank - 1];
            prop_assert!(estimate >= exact && estimate <= exact + exact / 8 + 1, "{} {}", estimate, exact);
        }

        #[test]
        fn any_latency_at_any_time_is_taken(samples in proptest::collection::vec(any::<(u64, u64)>(), 0..200)) {
            let mut seen = Latencies::default();
            for (latency, now) in samples {
                seen.record(latency, now);
                let _ = seen.percentile(0.99);
            }
        }
    }
}
