//! Successes and requests of the last while, in ten buckets: what is older than the window falls out bucket by bucket.

use std::time::Duration;

const BUCKETS: usize = 10;

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    successes: u32,
    total: u32,
}

/// The window of one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Window {
    buckets: [Bucket; BUCKETS],
    /// Nanoseconds per bucket.
    width: u64,
    /// Which bucket of all time is the newest one.
    newest: u64,
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Self {
            buckets: [Bucket::default(); BUCKETS],
            width: (nanos / BUCKETS as u64).max(1),
            newest: 0,
        }
    }

    /// A time before the newest counts as the newest.
    pub(super) fn record(&mut self, now: u64, success: bool) {
        let current = (now / self.width).max(self.newest);
        let passed = (current - self.newest).min(BUCKETS as u64);
        for step in 1..=passed {
            *self.bucket(current - passed + step) = Bucket::default();
        }
        self.newest = current;
        let bucket = self.bucket(current);
        bucket.total = bucket.total.saturating_add(1);
        bucket.successes = bucket.successes.saturating_add(u32::from(success));
    }

    /// Successes and requests up to the newest record.
    pub(super) fn totals(&self) -> (u32, u32) {
        self.buckets
            .iter()
            .fold((0, 0), |(successes, total): (u32, u32), bucket| {
                (
                    successes.saturating_add(bucket.successes),
                    total.saturating_add(bucket.total),
                )
            })
    }

    pub(super) fn clear(&mut self) {
        self.buckets = [Bucket::default(); BUCKETS];
    }

    #[allow(clippy::indexing_slicing)] // A remainder is below the divisor.
    fn bucket(&mut self, number: u64) -> &mut Bucket {
        &mut self.buckets[(number % BUCKETS as u64) as usize]
    }
}
