//! Histograms with fixed bounds. Recording costs a binary search over at most 25 integers and three stores.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::exemplar::{Exemplars, Name};

/// Upper bounds of a histogram, in the integer unit in which it records, with the text of each `le` label.
#[derive(Debug)]
pub struct Bounds {
    /// Inclusive upper bounds in recorded units, rising. `+Inf` is implied.
    pub upper: &'static [u64],
    /// The `le` text of each bound, in the unit of the family's name.
    pub le: &'static [&'static str],
    /// How many recorded units make one unit of the family's name: the sum is divided by it when shown.
    pub per_shown: u64,
    /// What is recorded.
    pub unit: Unit,
}

/// What one recorded unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Durations are recorded in microseconds.
    Microseconds,
    /// Sizes are recorded in bytes.
    Bytes,
}

macro_rules! bounds {
    ($(#[$doc:meta])* $name:ident, $unit:expr, $scale:expr, [$($text:literal = $value:expr),* $(,)?]) => {
        $(#[$doc])*
        pub static $name: Bounds = Bounds {
            upper: &[$($value),*],
            le: &[$($text),*],
            per_shown: $scale,
            unit: $unit,
        };
    };
}

const MS: u64 = 1_000;

bounds!(
    /// Linkerd's latency buckets, 1 ms to 50 s, recorded in microseconds and shown in milliseconds.
    LATENCY_MS, Unit::Microseconds, MS, [
    "1" = MS, "2" = 2 * MS, "3" = 3 * MS, "4" = 4 * MS, "5" = 5 * MS,
    "10" = 10 * MS, "20" = 20 * MS, "30" = 30 * MS, "40" = 40 * MS, "50" = 50 * MS,
    "100" = 100 * MS, "200" = 200 * MS, "300" = 300 * MS, "400" = 400 * MS, "500" = 500 * MS,
    "1000" = 1_000 * MS, "2000" = 2_000 * MS, "3000" = 3_000 * MS, "4000" = 4_000 * MS, "5000" = 5_000 * MS,
    "10000" = 10_000 * MS, "20000" = 20_000 * MS, "30000" = 30_000 * MS, "40000" = 40_000 * MS, "50000" = 50_000 * MS,
]);

bounds!(
    /// Seconds of protocol detection: Linkerd's two bounds.
    DETECT_SECONDS, Unit::Microseconds, 1_000_000, ["0.001" = MS, "0.1" = 100 * MS]
);

bounds!(
    /// Seconds in the queue of a backend: Linkerd's bounds.
    QUEUE_SECONDS, Unit::Microseconds, 1_000_000, [
    "0.0005" = MS / 2, "0.005" = 5 * MS, "0.05" = 50 * MS, "0.5" = 500 * MS, "1" = 1_000 * MS, "3" = 3_000 * MS,
]);

bounds!(
    /// Seconds of requests at a client's route and of answers at a server's: Linkerd's four bounds.
    COARSE_SECONDS, Unit::Microseconds, 1_000_000,
    ["0.05" = 50 * MS, "0.5" = 500 * MS, "1" = 1_000 * MS, "10" = 10_000 * MS]
);

bounds!(
    /// Seconds of answers of a backend and of requests at a server: Linkerd's seven bounds.
    FINE_SECONDS, Unit::Microseconds, 1_000_000,
    ["0.025" = 25 * MS, "0.05" = 50 * MS, "0.1" = 100 * MS, "0.25" = 250 * MS, "0.5" = 500 * MS, "1" = 1_000 * MS,
     "10" = 10_000 * MS]
);

bounds!(
    /// Bytes of one piece of a body: Linkerd's three bounds.
    FRAME_BYTES, Unit::Bytes, 1, ["128" = 128, "1024" = 1_024, "10240" = 10_240]
);

/// A handle on one histogram series. Clone it, keep it, record into it from the thread that resolved it.
#[derive(Clone, Debug)]
pub struct Histogram {
    pub(super) bounds: &'static Bounds,
    pub(super) cells: Arc<[AtomicU64]>,
    pub(super) one_thread: PhantomData<Rc<()>>,
}

impl Histogram {
    /// Cells of one histogram: a count per bound, one for `+Inf`, then the sum of what was recorded.
    pub(super) fn cells_of(bounds: &Bounds) -> usize {
        bounds.upper.len() + 2
    }

    /// Records a duration (whole microseconds).
    pub fn record(&self, took: Duration) {
        self.record_units(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Names a request for the bucket that it was recorded in.
    pub(super) fn exemplify(&self, took: Duration, name: &Name, exemplars: &Exemplars) {
        let value = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.bounds.upper.partition_point(|upper| *upper < value);
        exemplars.put(bucket, value, name);
    }

    /// Records a value in the histogram's own unit.
    pub fn record_units(&self, value: u64) {
        let slot = self.bounds.upper.partition_point(|upper| *upper < value);
        let sum = self.bounds.upper.len() + 1;
        bump(&self.cells[slot], 1);
        bump(&self.cells[sum], value);
    }
}

/// Adds to a cell that only this thread writes.
pub(super) fn bump(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise_and_have_a_text_each() {
        for bounds in [
            &LATENCY_MS,
            &DETECT_SECONDS,
            &QUEUE_SECONDS,
            &COARSE_SECONDS,
            &FINE_SECONDS,
            &FRAME_BYTES,
        ] {
            assert_eq!(bounds.upper.len(), bounds.le.len());
            assert!(bounds.upper.windows(2).all(|pair| pair[0] < pair[1]));
            for (upper, le) in bounds.upper.iter().zip(bounds.le) {
                let shown: f64 = le.parse().expect("a number");
                assert!(
                    (shown * bounds.per_shown as f64 - *upper as f64).abs() < 1e-6,
                    "{le}"
                );
            }
        }
    }

    #[test]
    fn a_value_on_a_bound_belongs_to_that_bound() {
        let histogram = Histogram {
            bounds: &LATENCY_MS,
            cells: (0..Histogram::cells_of(&LATENCY_MS))
                .map(|_| AtomicU64::new(0))
                .collect(),
            one_thread: PhantomData,
        };
        histogram.record(Duration::from_millis(1));
        histogram.record(Duration::from_micros(1_001));
        histogram.record(Duration::from_secs(3_600));
        let counts: Vec<u64> = histogram
            .cells
            .iter()
            .map(|cell| cell.load(Relaxed))
            .collect();
        assert_eq!(
            (counts[0], counts[1], counts[25], counts[26]),
            (1, 1, 1, 1_000 + 1_001 + 3_600_000_000)
        );
    }
}
