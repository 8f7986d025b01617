//! The body of a request, kept while it may have to be sent again.
//!
//! Bytes are copied as they pass, up to a limit per request and to [`MAX_HELD`] for all requests of a worker. A body that
//! grows beyond streams on as before, and what was kept of it is let go: the request can then not be tried again, and
//! [`Replay::body`] says why. Requests without a body keep nothing and cost nothing.
//!
//! Cost: one copy of a body's first bytes into a buffer that the worker uses again; no allocation in steady state.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tulle_engine::retry::Body;
use tulle_http::Head;
use tulle_http::h1::BodyKind;

use crate::http::side::has_body;
use crate::metrics::Gauge;

/// Bytes that all requests of a worker may hold together; those of each external service apart.
pub const MAX_HELD: usize = 16 * 1024 * 1024;
/// What is kept without a rule for retries, for a peer that refuses the request after its body has begun.
pub const UNASKED: usize = 64 * 1024;
/// Bytes that such bodies may hold together: the rest is for those that a rule wants kept.
pub const UNASKED_HELD: usize = 8 * 1024 * 1024;
/// Replay buffers kept for the next requests.
const SPARE: usize = 64;
/// Bytes that each of them keeps.
const SPARE_BYTES: usize = 4 * 1024;

/// The room for bodies of one worker.
pub struct Room {
    held: Cell<usize>,
    gauge: Gauge,
    /// Boxed as a request holds it: taken and given back as they are.
    #[allow(clippy::vec_box)]
    spare: RefCell<Vec<Box<Kept>>>,
}

/// What one request has kept.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    trailers: Head,
    /// Bytes of `bytes` that the present try has sent.
    sent: usize,
    limit: usize,
    /// Of the worker's room.
    share: usize,
}

/// The body of one request.
pub struct Replay {
    room: Option<Rc<Room>>,
    kept: Option<Box<Kept>>,
    body: Body,
    /// The caller has sent the end.
    ended: Option<End>,
    /// Some of the body has gone to a server.
    begun: bool,
    /// This try has not sent all that is kept.
    behind: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Plain,
    Trailers,
}

impl Room {
    /// `gauge` shows the bytes held.
    pub fn new(gauge: Gauge) -> Rc<Self> {
        Rc::new(Room {
            held: Cell::new(0),
            gauge,
            spare: RefCell::default(),
        })
    }

    /// Of the first `share` bytes of the room.
    fn take(&self, bytes: usize, share: usize) -> bool {
        let held = self.held.get() + bytes;
        if held <= share {
            self.held.set(held);
            self.gauge.set(held as u64);
        }
        held <= share
    }

    fn give_back(&self, bytes: usize) {
        self.held.set(self.held.get() - bytes);
        self.gauge.set(self.held.get() as u64);
    }
}

impl Replay {
    /// Keeps nothing: the request is sent once, or has no body.
    pub fn off() -> Self {
        Replay {
            room: None,
            kept: None,
            body: Body::Kept,
            ended: None,
            begun: false,
            behind: false,
        }
    }

    /// For a request with this body, of which a rule keeps at most `limit` bytes; `None`: no rule asks for it.
    pub fn new(room: &Rc<Room>, body: BodyKind, limit: Option<usize>) -> Self {
        let (limit, share) = match limit {
            Some(limit) => (limit, MAX_HELD),
            None => (UNASKED, UNASKED_HELD),
        };
        if !has_body(body) {
            return Self::off();
        }
        if matches!(body, BodyKind::Length(length) if length > limit as u64) {
            let mut replay = Self::off();
            replay.body = Body::TooLarge;
            return replay;
        }
        Self::within(room, limit, share)
    }

    /// Keeps the first `limit` bytes of a body, however much follows.
    pub fn beginning(room: &Rc<Room>, limit: usize) -> Self {
        Self::within(room, limit, MAX_HELD)
    }

    fn within(room: &Rc<Room>, limit: usize, share: usize) -> Self {
        let mut replay = Self::off();
        let mut kept = room.spare.borrow_mut().pop().unwrap_or_default();
        (kept.limit, kept.share) = (limit, share);
        // What a spare buffer already holds counts from the moment it is in use.
        if room.take(kept.bytes.capacity(), share) {
            (replay.kept, replay.room) = (Some(kept), Some(room.clone()));
        } else {
            room.spare.borrow_mut().push(kept);
            replay.body = Body::NoRoom;
        }
        replay
    }

    /// Can the request be sent once more?
    pub fn body(&self) -> Body {
        match self.body {
            _ if !self.begun => Body::Kept,
            Body::Kept if self.kept.is_none() => Body::TooLarge,
            body => body,
        }
    }

    /// Has any of the body gone to a server?
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// All of the request, to its end, is there to be sent.
    pub fn is_whole(&self) -> bool {
        self.ended.is_some() && self.body() == Body::Kept
    }

    /// The bytes that are kept.
    pub fn bytes(&self) -> &[u8] {
        self.kept.as_ref().map_or(&[], |kept| &kept.bytes)
    }

    /// The trailers at the end, if there were any.
    pub fn trailers(&self) -> Option<&Head> {
        match self.ended {
            Some(End::Trailers) => self.kept.as_ref().map(|kept| &kept.trailers),
            _ => None,
        }
    }

    /// These bytes have gone to a server.
    #[inline]
    pub fn passed(&mut self, data: &[u8]) {
        self.begun = true;
        if self.kept.is_some() {
            self.keep(data);
        }
    }

    fn keep(&mut self, data: &[u8]) {
        let (Some(kept), Some(room)) = (&mut self.kept, &self.room) else {
            return;
        };
        let wanted = kept.bytes.len() + data.len();
        if wanted > kept.limit {
            self.body = Body::TooLarge;
            return self.forget();
        }
        let before = kept.bytes.capacity();
        if wanted > before {
            let larger = wanted.max(2 * before).min(kept.limit);
            if !room.take(larger - before, kept.share) {
                self.body = Body::NoRoom;
                return self.forget();
            }
            kept.bytes.reserve_exact(larger - kept.bytes.len());
            // The allocator may have given more.
            let excess = kept.bytes.capacity().saturating_sub(larger);
            room.held.set(room.held.get() + excess);
        }
        kept.bytes.extend_from_slice(data);
        kept.sent = kept.bytes.len();
    }

    /// The caller's end has come.
    pub fn ended(&mut self, trailers: Option<&Head>) {
        if let (Some(kept), Some(trailers)) = (&mut self.kept, trailers) {
            kept.trailers.clone_from(trailers);
        }
        self.ended = Some(match trailers {
            Some(_) => End::Trailers,
            None => End::Plain,
        });
    }

    /// Another try begins: everything that is kept is to be sent first.
    pub fn rewind(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.sent = 0;
        }
        self.behind = self.begun || self.ended.is_some();
    }

    /// Is there something to send again before more is taken from the caller?
    #[inline]
    pub fn is_behind(&self) -> bool {
        self.behind
    }

    /// What is to be sent next of the kept bytes; empty when all have been.
    pub fn again(&self) -> &[u8] {
        self.kept
            .as_ref()
            .and_then(|kept| kept.bytes.get(kept.sent..))
            .unwrap_or_default()
    }

    pub fn sent_again(&mut self, count: usize) {
        if let Some(kept) = &mut self.kept {
            kept.sent += count;
        }
    }

    /// All kept bytes have been sent again. The end, if the caller has sent it.
    pub fn caught_up(&mut self) -> Option<End> {
        self.behind = false;
        self.ended
    }

    /// There will be no other try: the room is for others, as soon as this try has sent what is kept.
    pub fn settled(&mut self) {
        if !self.behind {
            self.forget();
        }
    }

    fn forget(&mut self) {
        let (Some(mut kept), Some(room)) = (self.kept.take(), &self.room) else {
            return;
        };
        room.give_back(kept.bytes.capacity());
        let mut spare = room.spare.borrow_mut();
        if spare.len() < SPARE {
            kept.bytes.clear();
            kept.bytes.shrink_to(SPARE_BYTES);
            kept.trailers.clear();
            kept.sent = 0;
            spare.push(kept);
        }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::metrics::{Labels, Limits, Registry, families};

    fn room() -> Rc<Room> {
        let shard = Registry::new(Limits::default()).shard();
        Room::new(shard.gauge(&families::OUTBOUND_HTTP_RETRY_BUFFER_BYTES, &Labels::none()))
    }

    /// What another try would send.
    fn again(replay: &mut Replay, piece: usize) -> Vec<u8> {
        replay.rewind();
        let mut sent = Vec::new();
        while !replay.again().is_empty() {
            let count = replay.again().len().min(piece);
            sent.extend_from_slice(&replay.again()[..count]);
            replay.sent_again(count);
        }
        sent
    }

    #[test]
    fn every_try_sends_the_same_bytes_however_they_came_and_went() {
        let room = room();
        for piece in [1, 7, 1000] {
            let mut replay = Replay::new(&room, BodyKind::Chunked, Some(1000));
            let mut given = Vec::new();
            for number in 0..30_u8 {
                let data = vec![number; usize::from(number)];
                replay.passed(&data);
                given.extend_from_slice(&data);
                assert_eq!(again(&mut replay, piece), given);
                assert!(replay.caught_up().is_none());
            }
            replay.ended(None);
            assert!(replay.is_whole());
            assert_eq!(again(&mut replay, piece), given);
            assert!(replay.caught_up() == Some(End::Plain));
        }
        assert_eq!(room.held.get(), 0);
    }

    #[test]
    fn a_body_beyond_the_limit_is_let_go() {
        let room = room();
        let mut replay = Replay::new(&room, BodyKind::Chunked, Some(10));
        replay.passed(&[1; 10]);
        assert_eq!(replay.body(), Body::Kept);
        replay.passed(&[1]);

        assert_eq!(replay.body(), Body::TooLarge);
        assert!(replay.bytes().is_empty());
        assert_eq!(room.held.get(), 0, "its room is free at once");

        let mut known = Replay::new(&room, BodyKind::Length(11), Some(10));
        assert_eq!(known.body(), Body::Kept, "nothing has been sent yet");
        known.passed(&[1]);
        assert_eq!(known.body(), Body::TooLarge);
    }

    #[test]
    fn all_bodies_of_a_worker_together_are_bounded() {
        let room = room();
        let large = vec![0; 64 * 1024];
        let mut held = Vec::new();
        for _ in 0..MAX_HELD / large.len() {
            let mut replay = Replay::new(&room, BodyKind::Chunked, Some(large.len()));
            replay.passed(&large);
            assert_eq!(replay.body(), Body::Kept);
            held.push(replay);
        }
        let mut late = Replay::new(&room, BodyKind::Chunked, Some(large.len()));
        late.passed(&[1]);
        assert_eq!(late.body(), Body::NoRoom);

        held.pop();
        let mut later = Replay::new(&room, BodyKind::Chunked, Some(large.len()));
        later.passed(&large);
        assert_eq!(later.body(), Body::Kept);
        drop((held, late, later));
        assert_eq!(room.held.get(), 0);
        assert!(
            room.spare
                .borrow()
                .iter()
                .all(|kept| kept.bytes.capacity() <= SPARE_BYTES)
        );
    }

    #[test]
    fn bodies_that_no_rule_wants_kept_leave_room_for_the_others() {
        let room = room();
        let large = vec![0; UNASKED];
        let keep = |limit| {
            let mut replay = Replay::new(&room, BodyKind::Chunked, limit);
            replay.passed(&large);
            replay
        };
        let unasked: Vec<_> = (0..UNASKED_HELD / UNASKED).map(|_| keep(None)).collect();
        assert!(unasked.iter().all(|replay| replay.body() == Body::Kept));
        assert_eq!(keep(None).body(), Body::NoRoom);
        assert_eq!(keep(Some(UNASKED)).body(), Body::Kept);
    }

    #[test]
    fn an_answer_that_comes_early_does_not_take_the_rest_of_the_body_along() {
        let room = room();
        let mut replay = Replay::new(&room, BodyKind::Chunked, Some(1000));
        replay.passed(b"all of it");
        replay.rewind();
        replay.sent_again(4);
        replay.settled();
        assert_eq!(replay.again(), b"of it");

        replay.sent_again(5);
        replay.caught_up();
        replay.settled();
        assert_eq!((replay.again(), room.held.get()), (&b""[..], 0));
    }

    #[test]
    fn without_a_body_only_the_end_is_sent_again() {
        let room = room();
        let mut replay = Replay::new(&room, BodyKind::None, Some(1000));
        replay.rewind();
        assert!(!replay.is_behind(), "its end has not been read yet");
        replay.ended(None);
        replay.rewind();
        assert!(replay.is_behind() && replay.is_whole() && replay.again().is_empty());
        assert!(replay.caught_up() == Some(End::Plain));
    }
}
