//! The streams of a connection: a slab of reused slots, found by their number on the wire or by the [`Key`] that the
//! connection's user holds.
//!
//! A slot is taken from the moment a stream opens until its user lets go of it; on the wire it may be over earlier. The
//! number of a stream is never used twice on a connection, so it also tells whether a key's stream is still the slot's.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::Code;

/// A stream, as the connection's user names it. Using one after [`release`](super::Connection::release) is harmless:
/// it finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub(super) slot: u32,
    pub(super) id: u32,
}

impl Key {
    /// The place of the stream in a table of the user's own: small numbers, used again.
    #[must_use]
    pub fn index(self) -> usize {
        self.slot as usize
    }

    /// The stream's number on the wire.
    #[must_use]
    pub fn id(self) -> u32 {
        self.id
    }
}

/// How far one direction of a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// The final head has not passed.
    Head,
    Body,
    Ended,
}

/// Why DATA that was handed over has not left: its window was closed. Only for bodies that nobody can hold back, such
/// as a proxy's own answers; [`capacity`](super::Connection::capacity) keeps it empty otherwise.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pub(super) data: Vec<u8>,
    pub(super) end: bool,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) incoming: Half,
    pub(super) outgoing: Half,
    /// In the map: frames of this stream are for this slot.
    pub(super) on_wire: bool,
    /// A user has the key.
    pub(super) held: bool,
    pub(super) accepted: bool,
    /// Reset before it was accepted.
    pub(super) pending_reset: bool,
    /// What we may send, and what of that was promised to the stream's user.
    pub(super) send_window: i32,
    pub(super) granted: u32,
    /// The user waits for a grant; it stands in the queue of those when the window is open too.
    pub(super) waiting: bool,
    pub(super) queued: bool,
    /// What the peer may send, consumed but not given back, and received but not consumed.
    pub(super) receive_window: i32,
    pub(super) consumed: u32,
    pub(super) unconsumed: u32,
    /// What is missing of the body that content-length promised.
    pub(super) content_left: Option<u64>,
    /// The answer to this request has no body (HEAD).
    pub(super) bodyless: bool,
    pub(super) interim: u8,
    /// Milliseconds of the connection's clock.
    pub(super) opened: u32,
    pub(super) backlog: Option<Box<Backlog>>,
}

impl Stream {
    pub(super) fn new(id: u32, send_window: u32, receive_window: u32, opened: u32) -> Self {
        Stream {
            id,
            incoming: Half::Head,
            outgoing: Half::Head,
            on_wire: true,
            held: true,
            accepted: false,
            pending_reset: false,
            send_window: send_window as i32,
            granted: 0,
            waiting: false,
            queued: false,
            receive_window: receive_window as i32,
            consumed: 0,
            unconsumed: 0,
            content_left: None,
            bodyless: false,
            interim: 0,
            opened,
            backlog: None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.incoming == Half::Ended && self.outgoing == Half::Ended
    }
}

/// Stream numbers are spread well by a multiplication; a peer that chooses bad ones slows its own connection only, and
/// by no more than its few streams.
#[derive(Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        let product = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}

/// Numbers of streams that we have reset and that are still remembered, so that what the peer had under way is ignored.
const REMEMBERED: usize = 128;

#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Stream>,
    free: Vec<u32>,
    numbers: HashMap<u32, u32, BuildHasherDefault<NumberHasher>>,
    reset: VecDeque<u32>,
    /// Of the streams up to here nobody knows any more whether we reset them.
    forgotten: u32,
}

impl Streams {
    /// Streams that are open on the wire.
    pub(super) fn open(&self) -> usize {
        self.numbers.len()
    }

    /// Slots in use, those included whose stream is over and whose user has not let go.
    pub(super) fn in_use(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, stream: Stream) -> Key {
        let id = stream.id;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = stream;
                slot
            }
            None => {
                self.slots.push(stream);
                (self.slots.len() - 1) as u32
            }
        };
        self.numbers.insert(id, slot);
        Key { slot, id }
    }

    pub(super) fn find(&self, id: u32) -> Option<Key> {
        self.numbers.get(&id).map(|&slot| Key { slot, id })
    }

    pub(super) fn get(&self, key: Key) -> Option<&Stream> {
        self.slots
            .get(key.slot as usize)
            .filter(|stream| stream.id == key.id)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Stream> {
        self.slots
            .get_mut(key.slot as usize)
            .filter(|stream| stream.id == key.id)
    }

    /// The stream is over on the wire. Its slot goes when its user has let go too.
    pub(super) fn close(&mut self, key: Key) {
        self.numbers.remove(&key.id);
        if let Some(stream) = self.get_mut(key) {
            stream.on_wire = false;
            if !stream.held {
                self.free(key);
            }
        }
    }

    /// The user has let go.
    pub(super) fn let_go(&mut self, key: Key) {
        if let Some(stream) = self.get_mut(key) {
            stream.held = false;
            if !stream.on_wire {
                self.free(key);
            }
        }
    }

    fn free(&mut self, key: Key) {
        let stream = &mut self.slots[key.slot as usize];
        stream.id = 0;
        stream.backlog = None;
        self.free.push(key.slot);
    }

    /// Gives back memory, when no slot is in use.
    pub(super) fn rest(&mut self) {
        *self = Streams {
            reset: std::mem::take(&mut self.reset),
            forgotten: self.forgotten,
            ..Streams::default()
        };
    }

    /// All that are on the wire.
    pub(super) fn each(&mut self) -> impl Iterator<Item = (Key, &mut Stream)> {
        self.slots
            .iter_mut()
            .enumerate()
            .filter(|(_, stream)| stream.id != 0 && stream.on_wire)
            .map(|(slot, stream)| {
                (
                    Key {
                        slot: slot as u32,
                        id: stream.id,
                    },
                    stream,
                )
            })
    }

    /// We have reset this one: what the peer had sent before it knew is to be ignored.
    pub(super) fn remember_reset(&mut self, id: u32) {
        if self.reset.len() == REMEMBERED {
            if let Some(oldest) = self.reset.pop_front() {
                self.forgotten = self.forgotten.max(oldest);
            }
        }
        self.reset.push_back(id);
    }

    /// May the peer believe that this closed stream is still open?
    pub(super) fn may_be_unaware(&self, id: u32) -> bool {
        id <= self.forgotten || self.reset.contains(&id)
    }
}

/// How a stream ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer reset it.
    Reset(Code),
    /// The peer has not looked at the request and never will: reset with REFUSED_STREAM, or above the last stream of
    /// its GOAWAY.
    Refused,
    /// The peer broke a rule on this stream and we have reset it with this code.
    Broken(Code),
    /// The message was malformed, in this way; the stream was reset with PROTOCOL_ERROR.
    Malformed(crate::Error),
}
