//! The peers of open connections, and whether the trust anchors in force still vouch for them.
//!
//! When anchors are dropped, every chain by which a peer of an open connection has proved itself is judged by those that
//! are left. The connections of a chain that leads to none of them drain, as at the end of the process: no further
//! request, GOAWAY, `connection: close`. What is still open when the grace is over is cut.
//!
//! Cost: a lock and a look-up when a handshake ends and when its connection does. A chain is kept once however many
//! connections it has; a connection holds a pointer. A request costs the test of a flag.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::task::spawn_local;

use super::{Epoch, Epochs, TrustAnchors};
use crate::metrics::{Counter, Labels, Shard, families};

/// What the data path needs of the identity: the current epoch, and the peers that were verified by one.
#[derive(Clone)]
pub struct Trust {
    epochs: Epochs,
    peers: Arc<Peers>,
}

/// Which end of a connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Inbound,
    Outbound,
}

/// The peer's chain leads to no anchor in force: they have changed since its handshake began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distrusted;

#[derive(Default)]
struct Peers(Mutex<State>);

#[derive(Default)]
struct State {
    /// The anchors that all chains have been judged by.
    anchors: Option<TrustAnchors>,
    /// And how many connections each has.
    chains: HashMap<ByCertificates, usize>,
    connections: HashMap<u64, Weak<Standing>>,
    next: u64,
}

/// Found by its certificates.
#[derive(Clone)]
struct ByCertificates(Arc<Chain>);

struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    /// One of [`GOOD`], [`LOST`] and [`CUT`].
    verdict: AtomicU8,
}

const GOOD: u8 = 0;
/// No anchor vouches for it any more.
const LOST: u8 = 1;
/// And its time is over.
const CUT: u8 = 2;

/// Whether the peer of one connection would still be believed. Held by the connection.
pub struct Standing {
    peers: Arc<Peers>,
    chain: Arc<Chain>,
    direction: Direction,
    number: u64,
    /// The connection's task.
    waker: Mutex<Option<Waker>>,
}

impl Trust {
    /// Nobody has been verified yet. [`Trust::review`] must run for anchors to be dropped.
    pub fn new(epochs: Epochs) -> Self {
        Trust {
            epochs,
            peers: Arc::default(),
        }
    }

    /// The current epoch; `None` before the first certificate, and for ever when identity is disabled.
    pub fn epoch(&self) -> Option<Arc<Epoch>> {
        self.epochs.borrow().clone()
    }

    /// Waits for the first certificate. `false`: there will be none.
    pub async fn certified(&mut self) -> bool {
        self.epochs.wait_for(Option::is_some).await.is_ok()
    }

    /// Takes note of a connection whose peer has just proved itself by `chain`, in a handshake of this epoch.
    ///
    /// # Errors
    /// The anchors have changed since, and do not vouch for it.
    pub fn admit(
        &self,
        epoch: &Epoch,
        chain: &[CertificateDer<'static>],
        direction: Direction,
    ) -> Result<Arc<Standing>, Distrusted> {
        let mut state = self.peers.lock();
        let anchors = state.anchors.as_ref();
        if anchors.is_some_and(|now| now != epoch.anchors() && !now.vouches_for(chain)) {
            return Err(Distrusted);
        }
        let known = state.chains.get_key_value(chain);
        let chain = known.map(|(known, _)| known.clone()).unwrap_or_else(|| {
            ByCertificates(Arc::new(Chain {
                certificates: chain.to_vec(),
                verdict: AtomicU8::new(GOOD),
            }))
        });
        *state.chains.entry(chain.clone()).or_default() += 1;
        state.next += 1;
        let standing = Arc::new(Standing {
            peers: self.peers.clone(),
            chain: chain.0,
            direction,
            number: state.next,
            waker: Mutex::new(None),
        });
        state
            .connections
            .insert(standing.number, Arc::downgrade(&standing));
        Ok(standing)
    }

    /// Judges open connections whenever the anchors change; for ever. Those that lose their standing have `grace` to
    /// finish.
    pub async fn review(self, grace: Duration, shard: Shard) {
        let counters = Counters::new(&shard);
        let mut epochs = self.epochs.clone();
        loop {
            let anchors = epochs
                .borrow_and_update()
                .as_ref()
                .map(|epoch| epoch.anchors().clone());
            if let Some(lost) = anchors.and_then(|anchors| self.peers.judge(anchors)) {
                let drained = self.peers.tell(&lost, LOST);
                counters.drained.add(drained);
                tracing::info!(
                    inbound = drained[0],
                    outbound = drained[1],
                    ?grace,
                    "a trust anchor was dropped; connections that only it vouched for drain"
                );
                let (peers, cut) = (self.peers.clone(), counters.cut.clone());
                spawn_local(async move {
                    tokio::time::sleep(grace).await;
                    cut.add(peers.tell(&lost, CUT));
                });
            }
            if epochs.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the anchors in force; the chains that lead to none of them, if there are any.
    fn judge(&self, anchors: TrustAnchors) -> Option<Vec<Arc<Chain>>> {
        let mut state = self.lock();
        let former = state.anchors.replace(anchors.clone());
        if former.is_none_or(|former| anchors.covers(&former)) {
            return None;
        }
        let chains: Vec<_> = state.chains.keys().map(|chain| chain.0.clone()).collect();
        // Signatures are verified without the lock: who comes meanwhile is judged by the new anchors.
        drop(state);
        let lost = chains.into_iter();
        let lost: Vec<_> = lost
            .filter(|chain| !anchors.vouches_for(&chain.certificates))
            .collect();
        (!lost.is_empty()).then_some(lost)
    }

    /// Tells the connections of these chains; how many there are, inbound and outbound.
    fn tell(&self, lost: &[Arc<Chain>], verdict: u8) -> [u64; 2] {
        let mut state = self.lock();
        for chain in lost {
            chain.verdict.store(verdict, Ordering::Release);
            // Who shows it when its anchor is back has nothing to do with these.
            if state.knows(chain) {
                state.chains.remove(chain.certificates.as_slice());
            }
        }
        let connections: Vec<_> = state
            .connections
            .values()
            .filter_map(Weak::upgrade)
            .collect();
        // Whoever is the last to hold one of them takes the lock.
        drop(state);
        let mut told = [0; 2];
        let is_lost = |chain: &Arc<Chain>| lost.iter().any(|lost| Arc::ptr_eq(lost, chain));
        for standing in connections.iter().filter(|one| is_lost(&one.chain)) {
            told[standing.direction as usize] += 1;
            standing.wake();
        }
        told
    }
}

impl State {
    /// This chain, not only one like it.
    fn knows(&self, chain: &Arc<Chain>) -> bool {
        let known = self.chains.get_key_value(chain.certificates.as_slice());
        known.is_some_and(|(known, _)| Arc::ptr_eq(&known.0, chain))
    }
}

impl Standing {
    /// No anchor in force vouches for the peer: nothing new is to be begun with it.
    pub fn is_lost(&self) -> bool {
        self.chain.verdict.load(Ordering::Acquire) != GOOD
    }

    /// The time to finish is over.
    pub fn is_cut(&self) -> bool {
        self.chain.verdict.load(Ordering::Acquire) == CUT
    }

    /// Ready when the standing is lost; else this task is woken when it is.
    pub fn poll_lost(&self, cx: &Context<'_>) -> Poll<()> {
        self.watch(cx);
        if self.is_lost() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Ready when the connection is to be cut; else this task is woken when something changes.
    pub fn poll_cut(&self, cx: &Context<'_>) -> Poll<()> {
        self.watch(cx);
        if self.is_cut() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This task is woken when the standing is lost, and when the connection is to be cut.
    pub fn watch(&self, cx: &Context<'_>) {
        match &mut *self.waker() {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker() {
            waker.wake_by_ref();
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        let mut state = self.peers.lock();
        state.connections.remove(&self.number);
        if state.knows(&self.chain) {
            let certificates = self.chain.certificates.as_slice();
            match state.chains.get_mut(certificates) {
                Some(count) if *count > 1 => *count -= 1,
                _ => {
                    state.chains.remove(certificates);
                }
            }
        }
    }
}

impl std::fmt::Debug for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Standing")
            .field("direction", &self.direction)
            .field("lost", &self.is_lost())
            .field("cut", &self.is_cut())
            .finish_non_exhaustive()
    }
}

impl Borrow<[CertificateDer<'static>]> for ByCertificates {
    fn borrow(&self) -> &[CertificateDer<'static>] {
        &self.0.certificates
    }
}

impl PartialEq for ByCertificates {
    fn eq(&self, other: &Self) -> bool {
        self.0.certificates == other.0.certificates
    }
}

impl Eq for ByCertificates {}

impl Hash for ByCertificates {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.certificates.as_slice().hash(hasher);
    }
}

struct Counters {
    drained: Both,
    cut: Both,
}

/// Inbound and outbound.
#[derive(Clone)]
struct Both([Counter; 2]);

impl Counters {
    fn new(shard: &Shard) -> Self {
        let both = |action| {
            Both(["inbound", "outbound"].map(|direction| {
                let labels = Labels::builder()
                    .add("direction", direction)
                    .add("action", action)
                    .build();
                shard.counter(&families::TLS_DISTRUSTED_CONNECTIONS_TOTAL, &labels)
            }))
        };
        Counters {
            drained: both("drain"),
            cut: both("cut"),
        }
    }
}

impl Both {
    fn add(&self, counts: [u64; 2]) {
        for (counter, count) in self.0.iter().zip(counts) {
            counter.add(count);
        }
    }
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
