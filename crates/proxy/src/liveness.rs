//! Whether the worker threads still turn: each beats once a second from its own runtime, `/live` fails when one has
//! been silent for ten.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeMetrics};

use crate::metrics::text::Sample;
use crate::metrics::{Labels, Shard, families};

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
    /// The worker's runtime, once it beats.
    runtime: Arc<OnceLock<RuntimeMetrics>>,
}

impl Liveness {
    /// Heartbeats for so many worker threads.
    pub fn new(workers: usize) -> Self {
        let start = Instant::now();
        let workers = (0..workers)
            .map(|_| Heartbeat {
                start,
                last: Arc::new(AtomicU64::new(0)),
                runtime: Arc::default(),
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
        let runtimes = || {
            self.workers
                .iter()
                .filter_map(|worker| worker.runtime.get())
        };
        let sum = |of: &dyn Fn(&RuntimeMetrics) -> f64| runtimes().map(of).sum::<f64>();
        let sample = |family, value| Sample {
            family,
            labels: Labels::none(),
            value,
        };
        vec![
            sample(&families::PROXY_WORKER_LAG_SECONDS, lag.as_secs_f64()),
            sample(&families::TOKIO_RT_WORKERS, sum(&|_| 1.0)),
            sample(
                &families::TOKIO_RT_PARK_TOTAL,
                sum(&|runtime| runtime.worker_park_count(0) as f64),
            ),
            sample(
                &families::TOKIO_RT_PARK_UNPARK_TOTAL,
                sum(&|runtime| runtime.worker_park_unpark_count(0) as f64),
            ),
            // By construction: a runtime with one thread has nobody to take from and no second queue.
            sample(&families::TOKIO_RT_STEAL_TOTAL, 0.0),
            sample(&families::TOKIO_RT_STEAL_OPERATIONS_TOTAL, 0.0),
            sample(&families::TOKIO_RT_OVERFLOW_TOTAL, 0.0),
            sample(
                &families::TOKIO_RT_BUSY_SECONDS_TOTAL,
                sum(&|runtime| runtime.worker_total_busy_duration(0).as_secs_f64()),
            ),
            sample(
                &families::TOKIO_RT_INJECTION_QUEUE_DEPTH,
                sum(&|runtime| runtime.global_queue_depth() as f64),
            ),
            sample(
                &families::TOKIO_RT_ALIVE_TASKS,
                sum(&|runtime| runtime.num_alive_tasks() as f64),
            ),
        ]
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
    /// Beats for ever. Spawn it on the worker's own runtime. `shard`: the worker's, whose forgotten series go meanwhile.
    pub async fn beat(self, shard: Shard) {
        shard.take_own();
        // It beats once.
        let _already = self.runtime.set(Handle::current().metrics());
        loop {
            let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.last.store(now, Relaxed);
            shard.drop_forgotten();
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
