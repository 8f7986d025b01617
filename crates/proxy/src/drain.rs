//! Ending without failing a request: one `Drain` per direction.
//!
//! Every connection holds a `Guard`. When draining begins, guards are told (`connection: close`, GOAWAY, idle ones
//! close at once), and `Drain::finish` waits until the last is dropped or its deadline has passed. The outbound side
//! begins only when the inbound side has ended, since applications still call out while they finish.
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
    begin: watch::Sender<bool>,
    guards: mpsc::Receiver<()>,
    /// Kept so that guards can be made until draining begins.
    first: Option<Guard>,
}

/// Held by everything that must be finished before the process ends.
#[derive(Clone)]
pub struct Guard {
    begun: watch::Receiver<bool>,
    _alive: mpsc::Sender<()>,
    /// Of the peer, where one has proved itself.
    standing: Option<Arc<Standing>>,
}

impl Default for Drain {
    fn default() -> Self {
        let (begin, begun) = watch::channel(false);
        let (alive, guards) = mpsc::channel(1);
        Drain {
            begin,
            guards,
            first: Some(Guard {
                begun,
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

    /// Tells all guards to finish.
    pub fn begin(&mut self) {
        self.first = None;
        self.begin.send_replace(true);
    }

    /// Waits for the last guard. `false`: the deadline came first.
    pub async fn finish(&mut self, deadline: Duration) -> bool {
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
            begun: self.begun.clone(),
            _alive: self._alive.clone(),
            standing: None,
        }
    }

    pub fn is_draining(&self) -> bool {
        *self.begun.borrow() || self.standing.as_ref().is_some_and(|peer| peer.is_lost())
    }

    /// The peer has lost its standing, and the time to finish is over.
    pub fn is_cut(&self) -> bool {
        self.standing.as_ref().is_some_and(|peer| peer.is_cut())
    }

    /// Resolves when draining begins; at once if it has.
    pub async fn draining(&mut self) {
        let Guard {
            begun, standing, ..
        } = self;
        let mut begun = pin!(begun.wait_for(|begun| *begun));
        poll_fn(|cx| match standing {
            Some(peer) if peer.poll_lost(cx).is_ready() => Poll::Ready(()),
            // An error means that the process is ending without a drain: the same to us.
            _ => begun.as_mut().poll(cx).map(|_ended| ()),
        })
        .await
    }
}

/// Inbound first, then outbound, both within `grace`. `false`: some connection had to be cut.
pub async fn finish(inbound: &mut Drain, outbound: &mut Drain, grace: Duration) -> bool {
    let deadline = tokio::time::Instant::now() + grace;
    inbound.begin();
    let inbound_done = inbound.finish(grace).await;
    outbound.begin();
    let outbound_done = outbound
        .finish(deadline.saturating_duration_since(tokio::time::Instant::now()))
        .await;
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
            let ended = finish(&mut inbound, &mut outbound, Duration::from_secs(20));
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
