//! A moving average of latency that is quick to believe bad news and slow to believe good.

use std::time::Duration;

use super::config::Load;

/// Latency of one endpoint, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct PeakEwma {
    estimate: f64,
    decay: f64,
    /// Instead of `decay` while the estimate is a penalty.
    penalty_decay: f64,
    penalised: bool,
    updated: u64,
}

impl PeakEwma {
    pub(super) fn new(load: &Load, now: u64) -> Self {
        // A decay of nothing would divide by zero; a nanosecond forgets at once as well.
        let nanos = |decay: Duration| (decay.as_nanos() as f64).max(1.0);
        Self {
            estimate: load.default_rtt.as_nanos() as f64,
            decay: nanos(load.decay),
            penalty_decay: nanos(load.penalty.map_or(load.decay, |penalty| penalty.decay)),
            penalised: false,
            updated: now,
        }
    }

    /// The estimate at this time: it fades while nothing is heard, so that an endpoint that was slow is tried again.
    #[must_use]
    pub fn at(&self, now: u64) -> f64 {
        self.estimate * self.kept(now)
    }

    /// Takes in an answer: a latency above the estimate replaces it, one below draws it down with time.
    pub(super) fn observe(&mut self, started: u64, now: u64) {
        let rtt = now.saturating_sub(started) as f64;
        let kept = self.kept(now);
        if rtt >= self.estimate * kept {
            self.estimate = rtt;
            self.penalised = false;
        } else {
            self.estimate = self.estimate * kept + rtt * (1.0 - kept);
        }
        self.updated = self.updated.max(now);
    }

    /// Takes in a failure, as if the answer had taken `sample`.
    pub(super) fn penalise(&mut self, sample: Duration, now: u64) {
        let sample = sample.as_nanos() as f64;
        if sample >= self.at(now) {
            (self.estimate, self.penalised) = (sample, true);
            self.updated = self.updated.max(now);
        }
    }

    /// The share of the estimate that is left.
    fn kept(&self, now: u64) -> f64 {
        let elapsed = now.saturating_sub(self.updated) as f64;
        let decay = if self.penalised {
            self.penalty_decay
        } else {
            self.decay
        };
        faded(elapsed / decay)
    }
}

/// Of 9 to 1: nine divisions, each waiting for the one before, took a hundred cycles.
const INVERSES: [f64; 9] = [
    1.0 / 9.0,
    1.0 / 8.0,
    1.0 / 7.0,
    1.0 / 6.0,
    1.0 / 5.0,
    1.0 / 4.0,
    1.0 / 3.0,
    1.0 / 2.0,
    1.0,
];

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
    for inverse in INVERSES {
        series = 1.0 + series * rest * inverse;
    }
    series * f64::from_bits((1023 - halvings) << 52)
}

#[cfg(test)]
mod tests {
    use super::super::config::Penalty;
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
        PeakEwma::new(&Load::default(), 0)
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
        let nothing = Load {
            default_rtt: Duration::ZERO,
            decay: Duration::ZERO,
            penalty: None,
        };
        let mut load = PeakEwma::new(&nothing, 0);
        load.observe(0, S);

        assert_eq!(load.at(2 * S), 0.0);
    }

    #[test]
    fn a_penalty_is_a_peak_with_a_decay_of_its_own() {
        let mut load = PeakEwma::new(
            &Load {
                penalty: Some(Penalty {
                    latency: Duration::from_secs(5),
                    max_retry_after: Duration::from_secs(300),
                    decay: Duration::from_secs(1),
                }),
                ..Load::default()
            },
            0,
        );
        load.penalise(Duration::from_secs(5), 0);
        assert_eq!(load.at(0), 5e9);
        assert!((load.at(S) - 5e9 / std::f64::consts::E).abs() < 1.0);

        load.penalise(Duration::from_secs(1), 0);
        assert_eq!(load.at(0), 5e9, "a smaller one takes nothing away");

        load.observe(0, 9 * S);
        let later = load.at(10 * S);
        assert!(
            later > 8e9,
            "a real latency fades with the ordinary decay: {later}"
        );
    }
}
