//! Tap: requests are watched as they pass, over Linkerd's API (`io.linkerd.proxy.tap.Tap/Observe`, port 4190).
//!
//! Off, it costs a request one test ([`Taps::is_on`]) and nothing is allocated, bound or started. On, a worker asks the
//! engine whether a request is wanted (`watched.rs`), writes what is to be told into messages (`told.rs`) and puts them
//! into the tap's queue; the control thread takes them out and sends them (`call.rs`) to whom `serve.rs` has let in.
//!
//! A worker never waits: what finds the queue full is lost and counted. All bounds are here, and each has a metric.

mod call;
mod serve;
mod told;
mod watched;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tulle_engine::tap::{Subject, Wish};

use crate::clock;
use crate::metrics::text::Sample;
use crate::metrics::{Labels, families};
pub use serve::{Server, bind};
pub use watched::{Seen, Tls, Watched};

/// Most taps at once.
pub const MAX_TAPS: usize = 8;
/// Most events that wait for the reader of a tap.
pub const QUEUE_EVENTS: usize = 400;
/// Most bytes of events that wait for the reader of a tap.
pub const QUEUE_BYTES: usize = 1 << 20;
/// Most requests per second that one tap is told of.
pub const MAX_PER_SECOND: u32 = 1_000;
/// Longest question of a tap.
pub const MAX_QUESTION: usize = 64 << 10;
/// Most connections of the tap identity; as many of others may be being refused.
pub const MAX_CONNECTIONS: usize = 16;

/// The taps in force and what became of them; all threads share it.
#[derive(Debug, Default)]
pub struct Taps {
    /// Whether there is a tap.
    on: AtomicBool,
    /// Whether anybody can ask for one.
    served: AtomicBool,
    taps: Mutex<Vec<Arc<Tap>>>,
    next: AtomicU32,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    passed_over: AtomicU64,
    events: AtomicU64,
    lost: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
}

/// Why somebody who wants to watch may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The connection is not TLS of the mesh.
    NoTls,
    /// It is, and shows no certificate.
    NoIdentity,
    /// It proves another identity than the tap's.
    OtherIdentity,
    /// The handshake failed.
    Handshake,
    /// There are as many connections as there may be.
    Connections,
    /// There are as many taps as there may be.
    Taps,
    /// The question is too long, or has a part that cannot be meant.
    Question,
    /// There is no such method.
    Method,
}

impl Refused {
    const ALL: [Self; 8] = [
        Self::NoTls,
        Self::NoIdentity,
        Self::OtherIdentity,
        Self::Handshake,
        Self::Connections,
        Self::Taps,
        Self::Question,
        Self::Method,
    ];

    /// The `reason` label.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoTls => "no_tls",
            Self::NoIdentity => "no_identity",
            Self::OtherIdentity => "other_identity",
            Self::Handshake => "handshake",
            Self::Connections => "connections",
            Self::Taps => "taps",
            Self::Question => "question",
            Self::Method => "method",
        }
    }
}

/// Somebody's wish and the way to them.
#[derive(Debug)]
struct Tap {
    number: u32,
    wish: Wish,
    /// Requests that it has been told of.
    begun: AtomicU32,
    /// The second (upper half) and the requests of that second.
    pace: AtomicU64,
    queue: Queue,
}

#[derive(Debug)]
struct Queue {
    events: mpsc::Sender<Vec<u8>>,
    state: Arc<QueueState>,
}

/// What both ends of a queue count.
#[derive(Debug, Default)]
struct QueueState {
    bytes: AtomicUsize,
    lost: AtomicU64,
}

/// The reader's end of a tap; dropping it ends the tap.
#[derive(Debug)]
struct Registered {
    taps: Arc<Taps>,
    number: u32,
    events: mpsc::Receiver<Vec<u8>>,
    state: Arc<QueueState>,
}

impl Taps {
    /// Whether anybody watches: the one test of a request that is not watched.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Begins to watch a request, if a tap wants it.
    #[cold]
    pub fn watch(self: &Arc<Self>, seen: &Seen<'_>) -> Option<Box<Watched>> {
        let wanted = seen.ask(|subject| {
            let mut taps = self.lock();
            let mut wanted = Vec::new();
            taps.retain(|tap| {
                if let Some(stream) = tap.take(subject, &self.counts) {
                    wanted.push((tap.clone(), stream));
                }
                // The requests that it is being told of hold it; when they have ended, so does it.
                tap.begun.load(Ordering::Relaxed) < tap.wish.limit
            });
            self.on.store(!taps.is_empty(), Ordering::Relaxed);
            wanted
        });
        if wanted.is_empty() {
            return None;
        }
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        Some(Watched::begin(self.clone(), wanted, seen))
    }

    /// Puts a tap in force.
    fn register(self: &Arc<Self>, wish: Wish) -> Result<Registered, Refused> {
        let mut taps = self.lock();
        if taps.len() >= MAX_TAPS {
            return Err(Refused::Taps);
        }
        let (sender, events) = mpsc::channel(QUEUE_EVENTS);
        let state = Arc::<QueueState>::default();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        taps.push(Arc::new(Tap {
            number,
            wish,
            begun: AtomicU32::new(0),
            pace: AtomicU64::new(0),
            queue: Queue {
                events: sender,
                state: state.clone(),
            },
        }));
        self.on.store(true, Ordering::Relaxed);
        Ok(Registered {
            taps: self.clone(),
            number,
            events,
            state,
        })
    }

    fn refused(&self, why: Refused) {
        self.counts.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Tap>>> {
        self.taps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its metrics; none where tap is not served.
    pub fn samples(&self) -> Vec<Sample> {
        if !self.served.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let sample = |family, value: u64| Sample {
            family,
            labels: Labels::none(),
            value: value as f64,
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        let mut samples = vec![
            sample(&families::TAP_ACTIVE, self.lock().len() as u64),
            sample(&families::TAP_REQUESTS_TOTAL, count(&counts.requests)),
            sample(
                &families::TAP_REQUESTS_PASSED_OVER_TOTAL,
                count(&counts.passed_over),
            ),
            sample(&families::TAP_EVENTS_TOTAL, count(&counts.events)),
            sample(&families::TAP_EVENTS_LOST_TOTAL, count(&counts.lost)),
        ];
        samples.extend(Refused::ALL.into_iter().map(|why| Sample {
            family: &families::TAP_REFUSED_TOTAL,
            labels: Labels::builder().add("reason", why.code()).build(),
            value: count(&counts.refused[why as usize]) as f64,
        }));
        samples
    }
}

impl Tap {
    /// The number of this request among those that the tap is told of, if it is one.
    fn take(&self, subject: &Subject<'_>, counts: &Counts) -> Option<u64> {
        if !self.wish.wants(subject, fastrand::u64(..)) {
            return None;
        }
        if !self.is_in_time(clock::now() / 1_000_000_000) {
            counts.passed_over.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let stream = self.begun.fetch_add(1, Ordering::Relaxed);
        (stream < self.wish.limit).then_some(u64::from(stream))
    }

    /// Whether this second has room for one more. Workers may race for the last places: the bound is of the order of
    /// [`MAX_PER_SECOND`], not exact; the caller holds the lock of all taps.
    fn is_in_time(&self, second: u64) -> bool {
        let pace = self.pace.load(Ordering::Relaxed);
        let second = second & u64::from(u32::MAX);
        let used = match pace >> 32 {
            same if same == second => pace & u64::from(u32::MAX),
            _ => 0,
        };
        self.pace
            .store(second << 32 | (used + 1), Ordering::Relaxed);
        used < u64::from(MAX_PER_SECOND)
    }

    /// Tells an event, or loses it.
    fn tell(&self, event: Vec<u8>, counts: &Counts) {
        let (length, state) = (event.len(), &self.queue.state);
        let waiting = state.bytes.fetch_add(length, Ordering::Relaxed);
        let told = waiting + length <= QUEUE_BYTES;
        match told.then(|| self.queue.events.try_send(event)) {
            Some(Ok(())) => {
                counts.events.fetch_add(1, Ordering::Relaxed);
                return;
            }
            // Nobody is left to miss it.
            Some(Err(mpsc::error::TrySendError::Closed(_))) => {}
            Some(Err(mpsc::error::TrySendError::Full(_))) | None => {
                state.lost.fetch_add(1, Ordering::Relaxed);
                counts.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        state.bytes.fetch_sub(length, Ordering::Relaxed);
    }
}

impl Registered {
    /// The next event; `None` when the limit is reached and all its requests have ended.
    fn poll_next(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Vec<u8>>> {
        let next = self.events.poll_recv(cx);
        if let std::task::Poll::Ready(Some(event)) = &next {
            self.state.bytes.fetch_sub(event.len(), Ordering::Relaxed);
        }
        next
    }

    /// Events that found the queue full.
    fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut taps = self.taps.lock();
        taps.retain(|tap| tap.number != self.number);
        self.taps.on.store(!taps.is_empty(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
