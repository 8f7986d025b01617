//! Ending without failing a request: one `Drain` per direction.
//!
//! Every connection holds a `Guard`. When draining begins, guards are told (`connection: close`, GOAWAY, idle ones
//! close at once), and `Drain::finish` waits until the last is dropped or its deadline has passed. The outbound side
//! begins only when the inbound side has ended, since applications still call out while they finish. Callers learn of
//! it with a delay, so the inbound side accepts connections for a while longer; they too are told to go.
//!
//! A connection whose peer has lost its standing (its trust anchor was dropped) drains by itself in the same way.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::identity::Standing;

/// The end that begins draining and waits. Lives with the control side.
pub struct Drain {
    phase: watch::Sender<Phase>,
    guards: mpsc::Receiver<()>,
    /// Kept so that guards can be made until draining begins.
    first: Option<Guard>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Phase {
    Serving,
    /// Connections are told to finish; new ones may still come, and are told so too.
    Draining,
    /// Nothing is accepted any more.
    Closed,
}

/// Held by everything that must be finished before the process ends.
#[derive(Clone)]
pub struct Guard {
    phase: watch::Receiver<Phase>,
    _alive: mpsc::Sender<()>,
    /// Of the peer, where one has proved itself.
    standing: Option<Arc<Standing>>,
}

impl Default for Drain {
    fn default() -> Self {
        let (phase, received) = watch::channel(Phase::Serving);
        let (alive, guards) = mpsc::channel(1);
        Drain {
            phase,
            guards,
            first: Some(Guard {
                phase: received,
                _alive: alive,
                standing: None,
            }),
        }
    }
}

impl Drain {
    /// A guard for a listener, to be cloned for its connections. `None` once draining has begun.
    pub fn guard(&self) -> Option<Guard> {
        self.first.clone()
    }

    /// Tells all guards to finish. Listeners go on for now.
    pub fn begin(&mut self) {
        self.first = None;
        self.phase.send_replace(Phase::Draining);
    }

    /// Ends the listeners and waits for the last guard. `false`: the deadline came first.
    pub async fn finish(&mut self, deadline: Duration) -> bool {
        self.first = None;
        self.phase.send_replace(Phase::Closed);
        tokio::time::timeout(deadline, self.guards.recv())
            .await
            .is_ok()
    }
}

impl Guard {
    /// For a connection with a verified peer: it also drains when the peer loses its standing.
    pub fn with(self, standing: Option<&Arc<Standing>>) -> Self {
        Guard {
            standing: standing.cloned(),
            ..self
        }
    }

    /// For what only has to keep the process alive.
    pub fn of_process(&self) -> Self {
        Guard {
            phase: self.phase.clone(),
            _alive: self._alive.clone(),
            standing: None,
        }
    }

    pub fn is_draining(&self) -> bool {
        *self.phase.borrow() != Phase::Serving
            || self.standing.as_ref().is_some_and(|peer| peer.is_lost())
    }

    /// The peer has lost its standing, and the time to finish is over.
    pub fn is_cut(&self) -> bool {
        self.standing.as_ref().is_some_and(|peer| peer.is_cut())
    }

    /// Resolves when draining begins; at once if it has.
    pub async fn draining(&mut self) {
        let Guard {
            phase, standing, ..
        } = self;
        let mut begun = pin!(phase.wait_for(|phase| *phase != Phase::Serving));
        poll_fn(|cx| match standing {
            Some(peer) if peer.poll_lost(cx).is_ready() => Poll::Ready(()),
            // An error means that the process is ending without a drain: the same to us.
            _ => begun.as_mut().poll(cx).map(|_ended| ()),
        })
        .await
    }

    /// Resolves when nothing is to be accepted any more; at once if so.
    pub async fn closed(&mut self) {
        let closed = self.phase.wait_for(|phase| *phase == Phase::Closed);
        // As above.
        let _ended = closed.await;
    }
}

/// Inbound first, then outbound, both within `grace`; connections are accepted inbound for as long as `accepting`.
/// `false`: some connection had to be cut.
pub async fn finish(
    inbound: &mut Drain,
    outbound: &mut Drain,
    accepting: Duration,
    grace: Duration,
) -> bool {
    let deadline = tokio::time::Instant::now() + grace;
    let left = || deadline.saturating_duration_since(tokio::time::Instant::now());
    inbound.begin();
    tokio::time::sleep(accepting.min(grace)).await;
    let inbound_done = inbound.finish(left()).await;
    outbound.begin();
    let outbound_done = outbound.finish(left()).await;
    inbound_done && outbound_done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test)
    }

    #[test]
    fn outbound_is_told_only_after_the_last_inbound_guard_has_gone() {
        run(async {
            let (mut inbound, mut outbound) = (Drain::default(), Drain::default());
            let (mut held, other) = (inbound.guard().unwrap(), outbound.guard().unwrap());
            let listener = other.clone();
            let ended = finish(
                &mut inbound,
                &mut outbound,
                Duration::ZERO,
                Duration::from_secs(20),
            );
            let connections = async {
                held.draining().await;
                assert!(!listener.is_draining());
                drop(held);
                let mut listener = listener;
                listener.draining().await;
                drop((listener, other));
            };
            assert!(tokio::join!(ended, connections).0);
        });
    }

    #[test]
    fn listeners_go_on_for_a_while_after_draining_has_begun() {
        run(async {
            let (mut inbound, mut outbound) = (Drain::default(), Drain::default());
            let mut listener = inbound.guard().unwrap();
            let accepting = Duration::from_millis(200);
            let begun = tokio::time::Instant::now();
            let ended = finish(
                &mut inbound,
                &mut outbound,
                accepting,
                Duration::from_secs(20),
            );
            let listening = async move {
                listener.draining().await;
                assert!(begun.elapsed() < accepting);
                listener.closed().await;
                begun.elapsed()
            };
            let (all, closed) = tokio::join!(ended, listening);
            assert!(all && closed >= accepting, "closed after {closed:?}");
        });
    }

    #[test]
    fn a_connection_that_does_not_end_is_cut_at_the_deadline() {
        run(async {
            let mut drain = Drain::default();
            let guard = drain.guard().unwrap();
            drain.begin();
            assert!(drain.guard().is_none());
            assert!(!drain.finish(Duration::from_millis(10)).await);
            assert!(guard.is_draining());
        });
    }
}
