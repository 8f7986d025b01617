//! Pauses between attempts: exponential with full range of jitter, 100 ms to 10 s. Pure but for the random number
//! that is handed in.

use std::time::Duration;

/// First pause.
pub const MIN: Duration = Duration::from_millis(100);
/// Longest pause between two attempts.
pub const MAX: Duration = Duration::from_secs(10);
/// An attempt that held for so long starts the pauses anew.
pub const HEALTHY: Duration = Duration::from_secs(10);

/// The state of one thing that is tried again and again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure: half to the whole of 100 ms · 2ⁿ, at most 10 s. `random` is in 0..1.
    pub fn failed(&mut self, random: f64) -> Duration {
        let ceiling = MIN.saturating_mul(1u32 << self.failures.min(16)).min(MAX);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }

    /// It worked.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_ten_seconds_and_begin_anew() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..9).map(|_| backoff.failed(1.0).as_millis()).collect();
        assert_eq!(
            pauses,
            [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]
        );
        for _ in 0..100 {
            backoff.failed(0.5);
        }
        assert_eq!(backoff.failed(0.0), Duration::from_secs(5));
        backoff.succeeded();
        assert_eq!(backoff.failed(0.0), Duration::from_millis(50));
    }
}
