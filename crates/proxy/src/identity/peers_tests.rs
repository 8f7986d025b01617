//! Which connections lose their standing when anchors are dropped.

use std::future::poll_fn;
use std::task::Poll;

use tokio::sync::watch;

use super::super::testing::{Authority, Leaf};
use super::*;

const NAME: &str = "web.default.serviceaccount.identity.linkerd.cluster.local";

fn anchors(of: &[&Authority]) -> TrustAnchors {
    let pem: String = of.iter().map(|authority| authority.pem()).collect();
    TrustAnchors::from_pem(&pem).unwrap()
}

fn chain(authority: &Authority) -> Vec<CertificateDer<'static>> {
    authority.issue(&Leaf::named(NAME)).0
}

fn epoch(own: &Authority, anchors: &TrustAnchors) -> Arc<Epoch> {
    let (chain, key) = own.issue(&Leaf::named(NAME));
    Arc::new(Epoch::new(NAME, anchors, chain, &key).unwrap())
}

struct World {
    trust: Trust,
    epochs: watch::Sender<Option<Arc<Epoch>>>,
}

fn world() -> World {
    let (epochs, received) = watch::channel(None);
    World {
        trust: Trust::new(received),
        epochs,
    }
}

impl World {
    fn admit(&self, chain: &[CertificateDer<'static>]) -> Result<Arc<Standing>, Distrusted> {
        let epoch = self.trust.epoch().unwrap();
        self.trust.admit(&epoch, chain, Direction::Inbound)
    }

    fn kept(&self) -> (usize, usize) {
        let state = self.trust.peers.lock();
        (state.chains.len(), state.connections.len())
    }
}

#[test]
fn only_chains_that_lead_to_no_remaining_anchor_lose_their_standing() {
    let (old, new) = (Authority::new(), Authority::new());
    let world = world();
    let both = anchors(&[&old, &new]);
    world.epochs.send_replace(Some(epoch(&new, &both)));
    assert!(world.trust.peers.judge(both).is_none());
    let (of_old, of_new) = (chain(&old), chain(&new));
    let first = world.admit(&of_old).unwrap();
    let second = world.admit(&of_old).unwrap();
    let third = world.admit(&of_new).unwrap();
    assert_eq!(world.kept(), (2, 3), "a chain is kept once");

    let lost = world.trust.peers.judge(anchors(&[&new])).unwrap();
    assert_eq!(world.trust.peers.tell(&lost, LOST), [2, 0]);
    assert!(first.is_lost() && second.is_lost() && !third.is_lost());
    assert!(!first.is_cut());
    drop(second);
    assert_eq!(world.trust.peers.tell(&lost, CUT), [1, 0]);
    assert!(first.is_cut() && !third.is_lost());
    drop((first, third));
    assert_eq!(world.kept(), (0, 0), "nothing is kept of who has gone");
}

#[test]
fn a_handshake_that_began_under_dropped_anchors_is_refused() {
    let (old, new) = (Authority::new(), Authority::new());
    let world = world();
    world
        .epochs
        .send_replace(Some(epoch(&new, &anchors(&[&old, &new]))));
    world.trust.peers.judge(anchors(&[&new]));
    assert_eq!(world.admit(&chain(&old)).unwrap_err(), Distrusted);
    assert!(world.admit(&chain(&new)).is_ok());
}

#[test]
fn anchors_that_are_added_take_nothing_away() {
    let (old, new) = (Authority::new(), Authority::new());
    let world = world();
    world
        .epochs
        .send_replace(Some(epoch(&old, &anchors(&[&old]))));
    world.trust.peers.judge(anchors(&[&old]));
    let standing = world.admit(&chain(&old)).unwrap();
    assert!(world.trust.peers.judge(anchors(&[&old, &new])).is_none());
    assert!(!standing.is_lost());
}

#[test]
fn who_waits_is_woken() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (old, new) = (Authority::new(), Authority::new());
    let world = world();
    let both = anchors(&[&old, &new]);
    world.epochs.send_replace(Some(epoch(&new, &both)));
    world.trust.peers.judge(both);
    let standing = world.admit(&chain(&old)).unwrap();
    let waits = poll_fn(|cx| match standing.poll_lost(cx) {
        Poll::Ready(()) => standing.poll_cut(cx),
        Poll::Pending => Poll::Pending,
    });
    let tells = async {
        tokio::task::yield_now().await;
        let lost = world.trust.peers.judge(anchors(&[&new])).unwrap();
        world.trust.peers.tell(&lost, LOST);
        tokio::task::yield_now().await;
        world.trust.peers.tell(&lost, CUT);
    };
    runtime.block_on(async {
        let both = async { tokio::join!(waits, tells) };
        tokio::time::timeout(Duration::from_secs(20), both)
            .await
            .unwrap();
    });
}
