//! A moving average of latency that is quick to believe bad news and slow to believe good.

use std::time::Duration;

/// Latency of one endpoint, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct PeakEwma {
    estimate: f64,
    decay: f64,
    updated: u64,
}

impl PeakEwma {
    pub(super) fn new(default_rtt: Duration, decay: Duration, now: u64) -> Self {
        Self {
            estimate: default_rtt.as_nanos() as f64,
            // A decay of nothing would divide by zero; a nanosecond forgets at once as well.
            decay: (decay.as_nanos() as f64).max(1.0),
            updated: now,
        }
    }

    /// The estimate at this time: it fades while nothing is heard, so that an endpoint that was slow is tried again.
    #[must_use]
    pub fn at(&self, now: u64) -> f64 {
        let elapsed = now.saturating_sub(self.updated) as f64;
        self.estimate * faded(elapsed / self.decay)
    }

    /// Takes in an answer: a latency above the estimate replaces it, one below draws it down with time.
    pub(super) fn observe(&mut self, started: u64, now: u64) {
        let rtt = now.saturating_sub(started) as f64;
        let current = self.at(now);
        self.estimate = if rtt >= current {
            rtt
        } else {
            let elapsed = now.saturating_sub(self.updated) as f64;
            let keep = faded(elapsed / self.decay);
            self.estimate * keep + rtt * (1.0 - keep)
        };
        self.updated = self.updated.max(now);
    }
}

/// e^-x for x ≥ 0, to a relative error of 1e-11: the only transcendental function of the sidecar. Written out because
/// the C library's would map libm (0.3 MB) into every one, and because it is then the same on every machine.
fn faded(x: f64) -> f64 {
    // x = halvings · ln 2 + rest, with |rest| ≤ ln 2 / 2. A cast and not `round`, which is a call into libm, too.
    let halvings = (x * std::f64::consts::LOG2_E + 0.5) as u64;
    if halvings >= 1022 {
        return 0.0;
    }
    let rest = halvings as f64 * std::f64::consts::LN_2 - x;
    // e^rest by its series, innermost term first.
    let mut series = 1.0;
    for divisor in (1..=9_u8).rev() {
        series = 1.0 + series * rest / f64::from(divisor);
    }
    series * f64::from_bits((1023 - halvings) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const S: u64 = 1000 * MS;

    #[test]
    fn fading_is_the_exponential_function() {
        let tenths = (0..20_000).map(|tenth| f64::from(tenth) / 10.0);
        for x in tenths.chain([1e-12, 1e-9, 0.3465, 0.3466, 1e9, 1e300, f64::INFINITY]) {
            let (ours, exact) = (faded(x), (-x).exp());

            assert!(
                (ours - exact).abs() <= exact * 1e-11 + f64::MIN_POSITIVE * 4.0,
                "{x}: {ours} for {exact}"
            );
        }
    }

    fn ewma() -> PeakEwma {
        PeakEwma::new(Duration::from_millis(30), Duration::from_secs(10), 0)
    }

    #[test]
    fn it_begins_with_the_default_and_fades_to_a_third_in_one_decay() {
        let load = ewma();

        assert_eq!(load.at(0), 30e6);
        assert!((load.at(10 * S) - 30e6 / std::f64::consts::E).abs() < 1.0);
    }

    #[test]
    fn a_peak_counts_at_once_and_a_quick_answer_only_with_time() {
        let mut load = ewma();
        load.observe(0, 500 * MS);
        assert_eq!(load.at(500 * MS), 500e6);

        load.observe(500 * MS, 501 * MS);
        assert!(
            load.at(501 * MS) > 499e6,
            "one quick answer a moment later changes little"
        );

        for step in 1..=600 {
            let now = 501 * MS + step * 100 * MS;
            load.observe(now - MS, now);
        }
        assert!(
            load.at(61 * S) < 3e6,
            "a minute of quick answers does: {}",
            load.at(61 * S)
        );
    }

    #[test]
    fn time_that_runs_backwards_harms_nothing() {
        let mut load = ewma();
        load.observe(5 * S, 10 * S);
        load.observe(20 * S, 9 * S);

        assert!(load.at(0).is_finite() && load.at(u64::MAX) >= 0.0);
    }

    #[test]
    fn a_decay_of_zero_keeps_nothing() {
        let mut load = PeakEwma::new(Duration::ZERO, Duration::ZERO, 0);
        load.observe(0, S);

        assert_eq!(load.at(2 * S), 0.0);
    }
}
