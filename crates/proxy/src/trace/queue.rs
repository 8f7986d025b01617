//! The records of a worker: made at start, taken by requests, and given back once they have been sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::record::Record;

/// Spans of a worker at once: those of requests that are being served, and those that wait to be sent. About 1.8 KB each.
pub const RECORDS: usize = 1_024;
/// So many that wait are sent before it is time to; also the most in one message.
pub const BATCH: usize = 512;

/// The process's side: the queues of all workers.
#[derive(Debug, Default)]
pub struct Traces {
    queues: Mutex<Vec<Arc<Queue>>>,
    wake: Arc<Notify>,
}

impl Traces {
    /// A queue for one more worker.
    pub fn queue(&self) -> Arc<Queue> {
        let queue = Arc::new(Queue {
            state: Mutex::new(State {
                free: (0..RECORDS).map(|_| Record::new()).collect(),
                ended: VecDeque::with_capacity(RECORDS),
            }),
            wake: self.wake.clone(),
        });
        lock(&self.queues).push(queue.clone());
        queue
    }

    /// Waits until some worker has as many as one message takes.
    pub async fn full(&self) {
        self.wake.notified().await;
    }

    /// Shows up to `most` ended spans, the oldest of each worker first, and takes them back. Returns how many.
    pub fn drain(&self, most: usize, mut show: impl FnMut(&Record)) -> usize {
        let queues = lock(&self.queues).clone();
        let mut shown = 0;
        for queue in queues {
            while shown < most {
                let Some(record) = lock(&queue.state).ended.pop_front() else {
                    break;
                };
                show(&record);
                queue.give_back(record);
                shown += 1;
            }
        }
        shown
    }
}

/// One worker's.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    wake: Arc<Notify>,
}

#[derive(Debug)]
#[allow(
    clippy::vec_box,
    reason = "the boxes are what is kept: a request holds a pointer"
)]
struct State {
    free: Vec<Box<Record>>,
    ended: VecDeque<Box<Record>>,
}

impl Queue {
    /// A record for one span; `None`: all are in use.
    pub fn take(self: &Arc<Self>) -> Option<Box<Record>> {
        let mut record = lock(&self.state).free.pop()?;
        record.home = Some(self.clone());
        Some(record)
    }

    /// The span has ended, and waits to be sent.
    pub fn ended(&self, record: Box<Record>) {
        let mut state = lock(&self.state);
        state.ended.push_back(record);
        if state.ended.len() == BATCH {
            self.wake.notify_one();
        }
    }

    /// The record is free again.
    pub fn give_back(&self, record: Box<Record>) {
        lock(&self.state).free.push(record);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
