//! Whether the worker threads still turn: each beats once a second from its own runtime, `/live` fails when one has
//! been silent for ten.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::metrics::text::Sample;
use crate::metrics::{Labels, families};

/// Between beats.
const EVERY: Duration = Duration::from_secs(1);
/// Silence that counts as a stall.
const STALL: Duration = Duration::from_secs(10);

/// All heartbeats of the process.
#[derive(Clone, Debug)]
pub struct Liveness {
    start: Instant,
    workers: Vec<Heartbeat>,
}

/// One thread's heartbeat: the milliseconds since the start at which it last beat.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    start: Instant,
    last: Arc<AtomicU64>,
}

impl Liveness {
    /// Heartbeats for so many worker threads.
    pub fn new(workers: usize) -> Self {
        let start = Instant::now();
        let workers = (0..workers)
            .map(|_| Heartbeat {
                start,
                last: Arc::new(AtomicU64::new(0)),
            })
            .collect();
        Self { start, workers }
    }

    /// One heartbeat per worker thread, in order.
    pub fn heartbeats(&self) -> &[Heartbeat] {
        &self.workers
    }

    /// Why the proxy does not live; `None` while it does.
    pub fn stalled(&self) -> Option<String> {
        let silent = self.longest_silence();
        (silent > STALL).then(|| {
            format!(
                "stalled: a worker thread has not turned for {} s",
                silent.as_secs()
            )
        })
    }

    /// The heartbeats as metrics.
    pub fn samples(&self) -> Vec<Sample> {
        // What is over one beat is how far the slowest worker lags: the cheapest sign of a full processor.
        let lag = self.longest_silence().saturating_sub(EVERY);
        vec![Sample {
            family: &families::PROXY_WORKER_LAG_SECONDS,
            labels: Labels::none(),
            value: lag.as_secs_f64(),
        }]
    }

    fn longest_silence(&self) -> Duration {
        let now = self.start.elapsed();
        let last = |worker: &Heartbeat| Duration::from_millis(worker.last.load(Relaxed));
        self.workers
            .iter()
            .map(|worker| now.saturating_sub(last(worker)))
            .max()
            .unwrap_or_default()
    }
}

impl Heartbeat {
    /// Beats for ever. Spawn it on the worker's own runtime.
    pub async fn beat(self) {
        loop {
            let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.last.store(now, Relaxed);
            tokio::time::sleep(EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_never_beats_is_a_stall_after_ten_seconds() {
        let mut liveness = Liveness::new(2);
        assert_eq!(liveness.stalled(), None);
        let Some(past) = liveness.start.checked_sub(Duration::from_secs(11)) else {
            return;
        };
        liveness.start = past;
        assert!(liveness.stalled().is_some());
        for worker in &liveness.workers {
            worker.last.store(11_000, Relaxed);
        }
        assert_eq!(liveness.stalled(), None);
    }
}
