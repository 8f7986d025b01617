//! Peers that hold an exchange up: a caller that takes nothing of its answer, a caller that does not send the rest of its
//! request, a server that takes nothing of it. Each is waited for a while and then given up, since what waits for it
//! stays with us and with the other side.
//!
//! A peer that only drips is no better than one that is silent, so a wait ends when enough has moved or when nothing is
//! left that waits, and not at any octet.
//!
//! Who may be slow: a gRPC consumer that pauses with a shut window, or the far end of a tunnel, is waited for much longer
//! than a browser; only so many at once, for anybody can say that he speaks gRPC. A gRPC call's request may be silent for
//! ever: that is how streams are. Nobody is timed of whom nothing is wanted.
//!
//! Cost: nothing for an exchange that never waits. A wait is a slot in a table that is used again (no allocation in
//! steady state) and no timer of its own: one task of the worker looks at all of them a few times per patience, and it
//! exists only while somebody waits.

use std::cell::{Cell, RefCell};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use tulle_engine::Reason;

use crate::metrics::{Counter, Gauge, Labels, Shard, families};

/// How often the waits are looked at within the shortest patience.
const LOOKS: u32 = 16;
/// Octets of a body that end a wait for a receiver that had no room: less in a whole patience is a drip.
pub const ENOUGH_TAKEN: usize = 4 * 1024;
/// Octets of a request's body that end a wait for its sender.
pub const ENOUGH_SENT: usize = 64;
/// Most gRPC consumers and tunnels per worker and direction that may pause for long; each holds up to a stream's window
/// of memory.
pub const MAX_PAUSED: usize = 256;

/// How long each may hold an exchange up; `None` is for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// With a caller that takes nothing of its answer.
    pub receiver: Option<Duration>,
    /// The same of a gRPC call or a tunnel.
    pub paused: Option<Duration>,
    /// With a server that takes nothing of the request's body.
    pub server: Option<Duration>,
    /// With a caller that does not send the rest of its request.
    pub sender: Option<Duration>,
}

/// A direction of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Request,
    Answer,
}

/// Who is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The caller, to take its answer.
    Receiver,
    /// The same where pausing is usual.
    Paused,
    /// The server, to take the request.
    Server,
    /// The caller, to send the rest of its request.
    Sender,
}

impl Peer {
    /// Why an exchange is given up that has waited for too long.
    pub fn reason(self) -> Reason {
        match self {
            Peer::Receiver | Peer::Paused => Reason::ReceiverStalled,
            Peer::Server => Reason::ServerStalled,
            Peer::Sender => Reason::SenderStalled,
        }
    }

    fn way(self) -> Way {
        match self {
            Peer::Receiver | Peer::Paused => Way::Answer,
            Peer::Server | Peer::Sender => Way::Request,
        }
    }

    /// So many octets end the wait.
    fn enough(self) -> usize {
        match self {
            Peer::Sender => ENOUGH_SENT,
            _ => ENOUGH_TAKEN,
        }
    }
}

/// All waits of one direction of a worker.
pub struct Stalls {
    shared: Rc<Shared>,
}

struct Shared {
    patience: Patience,
    /// Between two looks.
    pace: Duration,
    slots: RefCell<Slots>,
    /// The task that looks is there.
    looking: Cell<bool>,
    waiting: Gauge,
    hurried: Counter,
}

#[derive(Default)]
struct Slots {
    list: Vec<Slot>,
    free: Vec<Place>,
    paused: usize,
}

struct Slot {
    /// `None`: free.
    waker: Option<Waker>,
    /// Looks that are left; 0: too long.
    left: u32,
    peer: Peer,
    /// It is one of those that may pause for long.
    paused: bool,
    /// Octets that have moved since it began.
    moved: usize,
}

impl Slots {
    fn at(&mut self, place: Place) -> &mut Slot {
        &mut self.list[place.get() as usize - 1]
    }
}

impl Stalls {
    /// `direction`: the label.
    pub fn new(patience: Patience, shard: &Shard, direction: &'static str) -> Self {
        let all = [
            patience.receiver,
            patience.paused,
            patience.server,
            patience.sender,
        ];
        let shortest = all.into_iter().flatten().min().unwrap_or_default();
        let labels = Labels::builder().add("direction", direction).build();
        Stalls {
            shared: Rc::new(Shared {
                patience,
                pace: (shortest / LOOKS).max(Duration::from_millis(1)),
                slots: RefCell::default(),
                looking: Cell::new(false),
                waiting: shard.gauge(&families::HTTP_STALLED_EXCHANGES, &labels),
                hurried: shard.limit("proxy::http::stall::MAX_PAUSED"),
            }),
        }
    }
}

impl Shared {
    /// The looks that a wait for this peer lasts; `None`: nobody is timed.
    fn looks(&self, peer: Peer, paused: usize) -> Option<u32> {
        let patience = match peer {
            Peer::Receiver => self.patience.receiver,
            Peer::Paused if paused >= MAX_PAUSED => self.patience.receiver,
            Peer::Paused => self.patience.paused,
            Peer::Server => self.patience.server,
            Peer::Sender => self.patience.sender,
        }?;
        let looks = patience.as_nanos().div_ceil(self.pace.as_nanos().max(1));
        // The first look comes sooner than a whole interval.
        Some(u32::try_from(looks).unwrap_or(u32::MAX - 1) + 1)
    }

    fn enter(self: &Rc<Self>, peer: Peer, waker: &Waker) -> Option<Place> {
        let slots = &mut *self.slots.borrow_mut();
        let left = self.looks(peer, slots.paused)?;
        let paused = peer == Peer::Paused && slots.paused < MAX_PAUSED;
        if paused {
            slots.paused += 1;
        } else if peer == Peer::Paused {
            self.hurried.inc();
        }
        let slot = Slot {
            waker: Some(waker.clone()),
            left,
            peer,
            paused,
            moved: 0,
        };
        let place = match slots.free.pop() {
            Some(place) => {
                *slots.at(place) = slot;
                place
            }
            None => {
                slots.list.push(slot);
                // Of which there are fewer than requests at once.
                Place::new(u32::try_from(slots.list.len()).ok()?)?
            }
        };
        self.waiting.inc();
        if !self.looking.replace(true) {
            tokio::task::spawn_local(keep_looking(self.clone()));
        }
        Some(place)
    }

    /// Whether this is a wait for the same peer; whoever polls now is who will be woken.
    fn goes_on(&self, place: Place, peer: Peer, by: &Waker) -> bool {
        let slots = &mut *self.slots.borrow_mut();
        let slot = slots.at(place);
        match &mut slot.waker {
            Some(waker) if !waker.will_wake(by) => waker.clone_from(by),
            _ => {}
        }
        slot.peer == peer
    }

    fn has_enough(&self, place: Place, count: usize, all: bool) -> bool {
        let slots = &mut *self.slots.borrow_mut();
        let slot = slots.at(place);
        slot.moved += count;
        slot.moved >= slot.peer.enough() || (all && slot.peer != Peer::Sender)
    }

    fn over(&self, place: Place) -> Option<Reason> {
        let slots = &mut *self.slots.borrow_mut();
        let slot = slots.at(place);
        (slot.left == 0).then(|| slot.peer.reason())
    }

    fn leave(&self, place: Place) {
        let slots = &mut *self.slots.borrow_mut();
        let slot = slots.at(place);
        slot.waker = None;
        if std::mem::take(&mut slot.paused) {
            slots.paused -= 1;
        }
        slots.free.push(place);
        self.waiting.dec();
    }

    /// Looks at all waits once; false when there are none.
    fn look(&self) -> bool {
        let slots = &mut *self.slots.borrow_mut();
        if slots.free.len() == slots.list.len() {
            // What a burst has needed is given back.
            *slots = Slots::default();
            return false;
        }
        for slot in &mut slots.list {
            if let (Some(waker), 1..) = (&slot.waker, slot.left) {
                slot.left -= 1;
                if slot.left == 0 {
                    waker.wake_by_ref();
                }
            }
        }
        true
    }
}

async fn keep_looking(shared: Rc<Shared>) {
    loop {
        tokio::time::sleep(shared.pace).await;
        if !shared.look() {
            shared.looking.set(false);
            return;
        }
    }
}

/// The waits of an exchange: in each direction for one peer at a time.
#[derive(Default)]
pub struct Waits {
    /// `None`: nobody is timed.
    shared: Option<Rc<Shared>>,
    slots: [Option<Place>; 2],
}

/// A slot's number, never 0.
type Place = NonZeroU32;

impl Waits {
    /// Nobody is waited for yet.
    pub fn new(stalls: &Stalls) -> Self {
        Waits {
            shared: Some(stalls.shared.clone()),
            slots: [None; 2],
        }
    }

    /// The peer holds the exchange up; called at every poll that finds it so.
    pub fn hold(&mut self, cx: &Context<'_>, peer: Peer) {
        let Some(shared) = &self.shared else {
            return;
        };
        let place = &mut self.slots[peer.way() as usize];
        match *place {
            Some(held) if shared.goes_on(held, peer, cx.waker()) => {}
            held => {
                if let Some(held) = held {
                    shared.leave(held);
                }
                *place = shared.enter(peer, cx.waker());
            }
        }
    }

    /// So many octets have moved this way; `all`: of those that could.
    #[inline]
    pub fn moved(&mut self, way: Way, count: usize, all: bool) {
        if let (Some(place), Some(shared)) = (self.slots[way as usize], &self.shared) {
            if shared.has_enough(place, count, all) {
                self.end(way);
            }
        }
    }

    /// Nobody is waited for any more this way.
    #[inline]
    pub fn end(&mut self, way: Way) {
        if let (Some(place), Some(shared)) = (self.slots[way as usize].take(), &self.shared) {
            shared.leave(place);
        }
    }

    /// The reason to give up, when a wait has lasted too long.
    #[inline]
    pub fn over(&self) -> Option<Reason> {
        if self.slots == [None; 2] {
            return None;
        }
        let shared = self.shared.as_ref()?;
        let mut over = self
            .slots
            .iter()
            .flatten()
            .filter_map(|place| shared.over(*place));
        over.next()
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.end(Way::Request);
        self.end(Way::Answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// Waits whose clock the test moves, a look at a time; patience of 16, 160, 64 and 32 looks.
    fn stalls() -> Stalls {
        let patience = Patience {
            receiver: Some(Duration::from_secs(1)),
            paused: Some(Duration::from_secs(10)),
            server: Some(Duration::from_secs(4)),
            sender: Some(Duration::from_secs(2)),
        };
        with(patience)
    }

    fn with(patience: Patience) -> Stalls {
        let registry = Registry::new(crate::metrics::Limits::default());
        let stalls = Stalls::new(patience, &registry.shard(), "inbound");
        stalls.shared.looking.set(true);
        stalls
    }

    /// Looks so often; true when somebody waits.
    fn pass(stalls: &Stalls, looks: u32) -> bool {
        (0..looks).fold(true, |_, _| stalls.shared.look())
    }

    #[test]
    fn each_peer_has_its_own_patience_and_is_woken_once() {
        let (stalls, woken) = (stalls(), Arc::<Woken>::default());
        let waker = Waker::from(woken.clone());
        let cx = Context::from_waker(&waker);
        let peers = [
            (Peer::Receiver, 16, Reason::ReceiverStalled),
            (Peer::Sender, 32, Reason::SenderStalled),
            (Peer::Server, 64, Reason::ServerStalled),
            (Peer::Paused, 160, Reason::ReceiverStalled),
        ];
        for (count, (peer, looks, reason)) in peers.into_iter().enumerate() {
            let mut wait = Waits::new(&stalls);
            wait.hold(&cx, peer);
            pass(&stalls, looks);
            wait.hold(&cx, peer);
            assert_eq!(wait.over(), None, "{peer:?}");
            pass(&stalls, 1);
            assert_eq!(wait.over(), Some(reason), "{peer:?}");
            pass(&stalls, 100);
            assert_eq!(woken.0.load(Relaxed), count + 1);
        }
        assert!(!pass(&stalls, 1), "nobody waits");
        assert_eq!(stalls.shared.slots.borrow().list.capacity(), 0);
    }

    #[test]
    fn a_drip_is_no_progress_and_what_is_enough_ends_the_wait() {
        let stalls = stalls();
        let cx = Context::from_waker(Waker::noop());
        let mut waits = [(); 4].map(|()| Waits::new(&stalls));
        let [drip, slow, took, sends] = &mut waits;
        for _ in 0..40 {
            drip.hold(&cx, Peer::Receiver);
            slow.hold(&cx, Peer::Receiver);
            took.hold(&cx, Peer::Server);
            sends.hold(&cx, Peer::Sender);
            pass(&stalls, 2);
            drip.moved(Way::Answer, 1, false);
            slow.moved(Way::Answer, ENOUGH_TAKEN / 4, false);
            // All that there was is enough for a receiver; who sends may send little at a time, but not for ever.
            took.moved(Way::Request, 1, true);
            sends.moved(Way::Request, 1, true);
        }
        let over = waits.each_ref().map(Waits::over);
        let expected = [
            Some(Reason::ReceiverStalled),
            None,
            None,
            Some(Reason::SenderStalled),
        ];
        assert_eq!(over, expected);
    }

    #[test]
    fn only_so_many_may_pause_for_long_and_slots_are_used_again() {
        let stalls = stalls();
        let hold = || {
            let mut wait = Waits::new(&stalls);
            wait.hold(&Context::from_waker(Waker::noop()), Peer::Paused);
            wait
        };
        let mut waits: Vec<_> = (0..=MAX_PAUSED).map(|_| hold()).collect();
        pass(&stalls, 20);
        let over = waits.iter().filter(|wait| wait.over().is_some()).count();
        assert_eq!(over, 1);
        assert!(waits.pop().unwrap().over().is_some());
        // One leaves, another may pause.
        waits.pop();
        waits.push(hold());
        pass(&stalls, 20);
        assert!(waits.iter().all(|wait| wait.over().is_none()));
        assert_eq!(stalls.shared.slots.borrow().list.len(), MAX_PAUSED + 1);
        drop(waits);
        assert_eq!(stalls.shared.slots.borrow().paused, 0);
    }

    #[test]
    fn nobody_is_timed_without_a_limit() {
        let stalls = with(Patience::default());
        let mut wait = Waits::new(&stalls);
        wait.hold(&Context::from_waker(Waker::noop()), Peer::Server);
        assert!(!pass(&stalls, 1));
        assert_eq!(wait.over(), None);
    }
}
