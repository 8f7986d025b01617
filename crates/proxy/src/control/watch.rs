//! A discovery stream that is kept open: opened again when it breaks, falls silent or grows old, with pauses after
//! failures. What was last known stays in force meanwhile; this file only reports what happens.
//!
//! Three answers are final for the moment (`NOT_FOUND`, `INVALID_ARGUMENT`, `FAILED_PRECONDITION`): the caller takes
//! its fallback and the question is asked again after [`ASK_AGAIN`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tonic::{Code, Response, Status, Streaming};

use super::backoff::{Backoff, HEALTHY};
use super::channel::{Channel, Lease};
use crate::config::ControlStreams;
use crate::metrics::{Counter, Labels, Shard, families};

/// Pause before a question that was refused is asked again.
pub const ASK_AGAIN: Duration = Duration::from_secs(30);
/// Longest error text that is kept per watch.
const MAX_ERROR: usize = 300;

/// What happens to a stream.
#[derive(Debug)]
pub enum Event<M> {
    /// A stream was opened: its first message replaces what earlier streams said.
    Opened,
    /// It said something.
    Message(M),
    /// The service does not know the target, or refuses to speak of it.
    Refused(Status),
    /// Time to look whether anybody is still interested.
    Tick,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on watching.
    Continue,
    /// Nobody is interested any more.
    Stop,
}

/// What is known of one watch, for `/config` and the metrics.
#[derive(Clone, Debug)]
pub struct WatchStatus {
    /// A stream is open and has spoken.
    pub connected: bool,
    /// When the last message came.
    pub last_update: Option<SystemTime>,
    /// Since when there is no stream; `None` while there is one.
    pub away_since: Option<Instant>,
    /// Messages so far.
    pub updates: u64,
    /// Why the last stream ended, or the target was refused.
    pub last_error: Option<String>,
}

/// All watches of one method, by target.
#[derive(Clone, Debug)]
pub struct Method {
    name: &'static str,
    limits: ControlStreams,
    tick: Duration,
    status: Rc<RefCell<BTreeMap<String, WatchStatus>>>,
    shard: Shard,
    updates: Counter,
    invalid: Counter,
}

impl Method {
    /// `name` as in metrics (`OutboundPolicies.Watch`). `idle`: after how long without interest a target is forgotten;
    /// it sets how often interest is looked at.
    pub fn new(name: &'static str, limits: ControlStreams, idle: Duration, shard: &Shard) -> Self {
        let labels = Labels::builder().add("method", name).build();
        Self {
            name,
            limits,
            tick: (idle / 4).clamp(Duration::from_millis(100), Duration::from_secs(30)),
            status: Rc::default(),
            updates: shard.counter(&families::CONTROL_WATCH_UPDATES_TOTAL, &labels),
            invalid: shard.counter(&families::CONTROL_WATCH_INVALID_TOTAL, &labels),
            shard: shard.clone(),
        }
    }

    /// Its name in metrics.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How one watch is; `None` when there is none.
    pub fn status(&self, target: &str) -> Option<WatchStatus> {
        self.status.borrow().get(target).cloned()
    }

    /// How many watches there are, and how long the one that has waited longest is without a stream.
    pub fn summary(&self, now: Instant) -> (usize, Duration) {
        let status = self.status.borrow();
        let longest = status
            .values()
            .filter_map(|watch| watch.away_since)
            .map(|since| now.duration_since(since))
            .max();
        (status.len(), longest.unwrap_or_default())
    }

    /// When the service last said something on the stream that has been quiet for longest, and on the one that spoke last;
    /// `None` before it has said anything.
    pub fn last_updates(&self) -> Option<(SystemTime, SystemTime)> {
        let status = self.status.borrow();
        let told = || status.values().filter_map(|watch| watch.last_update);
        Some((told().min()?, told().max()?))
    }

    /// A message could not be compiled: counts it and keeps the reason.
    pub fn invalid(&self, target: &str, why: &dyn std::fmt::Display) {
        self.invalid.inc();
        tracing::warn!(method = self.name, target, %why, "message refused");
        self.update(target, |status| {
            status.last_error = Some(cut(&format!("message refused: {why}")))
        });
    }

    /// Watches a target until `on` says stop. `open` starts a stream on a lease.
    pub async fn follow<M, O, S>(&self, channel: &Channel, target: &str, mut open: O, mut on: S)
    where
        O: AsyncFnMut(Lease) -> Result<Response<Streaming<M>>, Status>,
        S: FnMut(Event<M>) -> Flow,
    {
        let fresh = WatchStatus {
            connected: false,
            last_update: None,
            away_since: Some(Instant::now()),
            updates: 0,
            last_error: None,
        };
        self.status.borrow_mut().insert(target.to_owned(), fresh);
        let _forget = Forget {
            method: self,
            target,
        };
        let mut ticks = interval(self.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut backoff = Backoff::default();
        loop {
            let lease = channel.lease().await;
            let began = Instant::now();
            let ended = self
                .one_stream(&mut open, &mut on, &mut ticks, target, lease)
                .await;
            let End::Ended(status) = ended else { return };
            channel.ended(status.code());
            self.update(target, |watch| {
                watch.connected = false;
                watch.away_since.get_or_insert_with(Instant::now);
            });
            let pause = match status.code() {
                // Silence, age and an orderly end are no failures; the small pause spreads what ended together.
                Code::Ok => {
                    backoff.succeeded();
                    Backoff::default().failed(fastrand::f64())
                }
                code => {
                    self.failed(target, &status);
                    if began.elapsed() >= HEALTHY {
                        backoff.succeeded();
                    }
                    match code {
                        Code::NotFound | Code::InvalidArgument | Code::FailedPrecondition => {
                            // An answer, too: the service was reached.
                            self.update(target, |watch| watch.away_since = None);
                            if on(Event::Refused(status)) == Flow::Stop {
                                return;
                            }
                            ASK_AGAIN.mul_f64(0.75 + 0.5 * fastrand::f64())
                        }
                        _ => backoff.failed(fastrand::f64()),
                    }
                }
            };
            let wake = tokio::time::sleep(pause);
            tokio::pin!(wake);
            loop {
                tokio::select! {
                    () = &mut wake => break,
                    _ = ticks.tick(), if pause >= ASK_AGAIN / 2 => {
                        if on(Event::Tick) == Flow::Stop {
                            return;
                        }
                    }
                }
            }
        }
    }

    async fn one_stream<M, O, S>(
        &self,
        open: &mut O,
        on: &mut S,
        ticks: &mut Interval,
        target: &str,
        lease: Lease,
    ) -> End
    where
        O: AsyncFnMut(Lease) -> Result<Response<Streaming<M>>, Status>,
        S: FnMut(Event<M>) -> Flow,
    {
        let late = || {
            Status::deadline_exceeded(format!("no first message within {:?}", self.limits.initial))
        };
        let first = async {
            let mut stream = open(lease.clone()).await?.into_inner();
            let message = stream.message().await?;
            Ok::<_, Status>((stream, message))
        };
        let (mut stream, message) = match timeout(self.limits.initial, first).await {
            Ok(Ok(first)) => first,
            Ok(Err(status)) => return End::Ended(status),
            Err(_) => return End::Ended(late()),
        };
        let Some(message) = message else {
            return End::Ended(Status::unavailable(
                "the stream ended before its first message",
            ));
        };
        on(Event::Opened);
        self.heard(target);
        if on(Event::Message(message)) == Flow::Stop {
            return End::Stopped;
        }
        let old = tokio::time::sleep(self.limits.lifetime.mul_f64(0.9 + 0.1 * fastrand::f64()));
        tokio::pin!(old);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                message = stream.message() => match message {
                    Ok(Some(message)) => {
                        heard = Instant::now();
                        self.heard(target);
                        if on(Event::Message(message)) == Flow::Stop {
                            return End::Stopped;
                        }
                    }
                    Ok(None) => return End::Ended(Status::ok("")),
                    Err(status) => return End::Ended(status),
                },
                _ = ticks.tick() => {
                    if on(Event::Tick) == Flow::Stop {
                        return End::Stopped;
                    }
                    if heard.elapsed() >= self.limits.idle {
                        return End::Ended(Status::ok("")); // Silent for so long: perhaps it is stuck.
                    }
                }
                () = &mut old => return End::Ended(Status::ok("")),
            }
        }
    }

    fn heard(&self, target: &str) {
        self.updates.inc();
        self.update(target, |watch| {
            watch.connected = true;
            watch.last_update = Some(SystemTime::now());
            watch.away_since = None;
            watch.updates += 1;
            watch.last_error = None;
        });
    }

    fn failed(&self, target: &str, status: &Status) {
        let labels = Labels::builder()
            .add("method", self.name)
            .add_number("grpc_status", status.code() as u64)
            .build();
        self.shard
            .counter(&families::CONTROL_WATCH_FAILURES_TOTAL, &labels)
            .inc();
        tracing::debug!(method = self.name, target, code = ?status.code(), why = status.message(), "stream ended");
        self.update(target, |watch| {
            watch.last_error = Some(cut(&format!("{:?}: {}", status.code(), status.message())))
        });
    }

    fn update(&self, target: &str, change: impl FnOnce(&mut WatchStatus)) {
        if let Some(status) = self.status.borrow_mut().get_mut(target) {
            change(status);
        }
    }
}

enum End {
    Ended(Status),
    Stopped,
}

/// Takes a watch out of the list however it ends.
struct Forget<'a> {
    method: &'a Method,
    target: &'a str,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.method.status.borrow_mut().remove(self.target);
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_ERROR).collect()
}
