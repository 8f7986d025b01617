//! The state of one connection, what waits to be written on it, and how it ends.

use std::collections::VecDeque;
use std::fmt;

use super::frame::{self, Kind};
use super::patience::Patience;
use super::settings::{DEFAULT_WINDOW, PeerSettings};
use super::stream::{Key, Streams};
use super::{Code, Ended, Settings};
use crate::hpack::{Decoder, Encoder};

/// Octets of answers to control frames and of resets caused by the peer that may wait to be written. A peer that makes us
/// produce them and does not read them is up to no good.
const MAX_CONTROL: usize = 16 * 1024;
/// Octets of output buffer that a connection keeps between two bursts; [`Connection::rest`] gives them back too.
const KEPT: usize = 32 * 1024;
/// The PING between the two GOAWAYs of a graceful shutdown, and the one that asks for a sign of life.
const LAST_PING: [u8; 8] = *b"tulle:by";
const ALIVE_PING: [u8; 8] = *b"tulle:hi";

/// What happened on a connection. Heads and trailers are in the head that was handed to [`Connection::next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'i> {
    /// Server: a request has opened `stream`. Client: an interim or the final answer.
    Head {
        /// The stream.
        stream: Key,
        /// No body follows.
        end: bool,
    },
    /// A piece of a body. Its octets count against the windows until [`Connection::consume`].
    Data {
        /// The stream.
        stream: Key,
        /// Borrowed from the input; may be empty when `end`.
        data: &'i [u8],
        /// It was the last.
        end: bool,
    },
    /// Trailers; nothing follows.
    Trailers {
        /// The stream.
        stream: Key,
    },
    /// The stream is over in both directions.
    Ended {
        /// The stream.
        stream: Key,
        /// Why.
        why: Ended,
    },
    /// The peer has shown that it is there: it answered [`Connection::ping`].
    Pong,
    /// The peer's bounds have changed: [`Connection::can_open`] may say something else now.
    Settings,
    /// The peer takes no more streams.
    GoAway(Code),
    /// Server: a stream was refused that nobody has heard of, with this code; without one it was answered 431.
    Refused(Option<Code>),
    /// The input holds nothing more that is whole; what is left of it must be handed in again, with more behind it.
    NeedMore,
}

/// The connection is lost: a GOAWAY that says so is in the output, which should still be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionError {
    /// The code of the GOAWAY.
    pub code: Code,
    /// What the peer did, for people.
    pub reason: &'static str,
}

impl ConnectionError {
    pub(super) fn new(code: Code, reason: &'static str) -> Self {
        ConnectionError { code, reason }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.code)
    }
}

impl std::error::Error for ConnectionError {}

/// Nothing can be sent on the stream any more: it was reset, its outgoing half has ended, or the connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stream closed")
    }
}

impl std::error::Error for Closed {}

/// What the next bytes of the input are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expect {
    Preface,
    Frame,
    /// More of the header block that `Connection::block` holds the beginning of.
    Continuation {
        id: u32,
        end: bool,
        self_dependent: bool,
        frames: u8,
    },
    /// The rest of a DATA frame. `stream`: whose body it is; nobody's when it is to be thrown away.
    Data {
        stream: Option<Key>,
        left: usize,
        padding: usize,
        end: bool,
    },
    /// The connection is lost.
    Nothing(ConnectionError),
}

/// How far a graceful shutdown has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// GOAWAY with the largest number is out, and a PING behind it: streams that the peer opened before it knew are taken.
    Announced,
    /// The number of the last stream is out.
    Final,
}

/// One end of an HTTP/2 connection.
pub struct Connection {
    pub(super) client: bool,
    pub(super) settings: Settings,
    /// The peer has acknowledged our settings.
    pub(super) acknowledged: bool,
    pub(super) peer: PeerSettings,
    /// The peer's first SETTINGS have come.
    pub(super) greeted: bool,
    pub(super) peer_leaving: bool,
    pub(super) leaving: Leaving,

    pub(super) streams: Streams,
    /// Client: the number of the next stream.
    pub(super) next_id: u32,
    /// Client: streams from here on have been opened since anything was written, so the peer cannot know of them.
    pub(super) unwritten: u32,
    /// Server: the highest number that the peer has used, and whether it left some out.
    pub(super) last_peer_id: u32,
    pub(super) skipped: bool,

    pub(super) expect: Expect,
    pub(super) block: Vec<u8>,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,

    pub(super) send_window: i64,
    /// Octets of it that streams have been promised.
    pub(super) promised: usize,
    /// Streams that have DATA and an open window, in the order of their turns.
    pub(super) queue: VecDeque<Key>,
    /// Streams that have been promised something since anybody asked.
    pub(super) granted: Vec<Key>,
    pub(super) receive_window: i64,
    pub(super) consumed: u32,

    pub(super) out: Vec<u8>,
    pub(super) sent: usize,
    /// Where in `out` the last frame begins, if it is DATA or a whole header block of this stream.
    pub(super) last_frame: Option<(u32, usize)>,
    pub(super) control: usize,

    /// Events that come from another one.
    pub(super) ended: Vec<(Key, Ended)>,
    pub(super) pending_resets: usize,
    pub(super) patience: Patience,
    pub(super) now: u64,
}

impl Connection {
    /// The end that sends requests. Preface and settings are in the output at once.
    #[must_use]
    pub fn client(settings: Settings) -> Self {
        let mut connection = Self::new(settings, true);
        connection.out.extend_from_slice(frame::PREFACE);
        connection.settings.announce(true, &mut connection.out);
        connection
    }

    /// The end that answers. It expects the client's preface; its settings are in the output at once.
    #[must_use]
    pub fn server(settings: Settings) -> Self {
        let mut connection = Self::new(settings, false);
        connection.settings.announce(false, &mut connection.out);
        connection
    }

    fn new(settings: Settings, client: bool) -> Self {
        let settings = settings.in_range();
        Connection {
            client,
            settings,
            acknowledged: false,
            peer: PeerSettings::default(),
            greeted: false,
            peer_leaving: false,
            leaving: Leaving::No,
            streams: Streams::default(),
            next_id: 1,
            unwritten: 1,
            last_peer_id: 0,
            skipped: false,
            expect: if client {
                Expect::Frame
            } else {
                Expect::Preface
            },
            block: Vec::new(),
            decoder: Decoder::new(crate::hpack::DEFAULT_TABLE_SIZE),
            encoder: Encoder::new(crate::hpack::DEFAULT_TABLE_SIZE),
            send_window: i64::from(DEFAULT_WINDOW),
            promised: 0,
            queue: VecDeque::new(),
            granted: Vec::new(),
            receive_window: i64::from(settings.connection_window),
            consumed: 0,
            out: Vec::new(),
            sent: 0,
            last_frame: None,
            control: 0,
            ended: Vec::new(),
            pending_resets: 0,
            patience: Patience::new(),
            now: 0,
        }
    }

    /// Tells the time, in nanoseconds of any monotonic clock: once per read is often enough.
    pub fn tick(&mut self, now: u64) {
        self.now = now;
    }

    // --- output ------------------------------------------------------------------------------------------------------

    /// What waits to be written.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    /// The first `count` octets of it have been written.
    pub fn wrote(&mut self, count: usize) {
        self.sent += count;
        self.unwritten = self.next_id;
        if self.sent == self.out.len() {
            self.out.clear();
            (self.sent, self.last_frame, self.control) = (0, None, 0);
            if self.out.capacity() > KEPT && self.streams.open() == 0 {
                self.out = Vec::new();
            }
        } else if self.sent >= self.settings.max_output {
            self.out.drain(..self.sent);
            (self.sent, self.last_frame) = (0, None);
        }
        self.grant();
    }

    /// Client: streams of which nothing has been written, for certain. When the connection is lost, the peer has not seen
    /// their requests.
    pub fn unwritten(&mut self) -> impl Iterator<Item = Key> {
        let from = self.unwritten;
        let open = self.streams.each().map(|(key, _)| key);
        open.filter(move |key| key.id >= from)
    }

    /// Gives back memory: nothing has happened for a while.
    pub fn rest(&mut self) {
        if self.output().is_empty() {
            (self.out, self.sent) = (Vec::new(), 0);
        }
        if self.streams.in_use() == 0 {
            self.block = Vec::new();
            self.queue = VecDeque::new();
            self.granted = Vec::new();
            self.streams.rest();
        }
    }

    /// A server's output has grown so large that it should read no more requests until some has been written.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        !self.client && self.out.len() - self.sent >= 4 * self.settings.max_output
    }

    /// Counts octets that the peer made us write.
    pub(super) fn control(&mut self, octets: usize) -> Result<(), ConnectionError> {
        self.control += octets;
        if self.control > MAX_CONTROL {
            return Err(self.fail(
                Code::ENHANCE_YOUR_CALM,
                "answers to control frames are not read",
            ));
        }
        Ok(())
    }

    /// Takes the price of something useless that the peer did.
    pub(super) fn spend(&mut self, cost: u32) -> Result<(), ConnectionError> {
        if self.patience.spend(cost, self.now) {
            Ok(())
        } else {
            Err(self.fail(Code::ENHANCE_YOUR_CALM, "too much work without use"))
        }
    }

    // --- its life ----------------------------------------------------------------------------------------------------

    /// The peer broke a rule of the connection, or asked for too much.
    pub(super) fn fail(&mut self, code: Code, reason: &'static str) -> ConnectionError {
        let error = ConnectionError::new(code, reason);
        frame::put_go_away(self.last_peer_id, code, reason, &mut self.out);
        self.last_frame = None;
        self.expect = Expect::Nothing(error);
        error
    }

    /// Asks the peer for a sign of life; the answer is [`Event::Pong`].
    pub fn ping(&mut self) {
        self.last_frame = None;
        frame::put(Kind::Ping, 0, 0, &ALIVE_PING, &mut self.out);
    }

    /// Begins a graceful shutdown: the peer is told to open no more streams, those that are open are finished.
    pub fn shutdown(&mut self) {
        if self.leaving != Leaving::No {
            return;
        }
        self.last_frame = None;
        if self.client {
            self.leaving = Leaving::Final;
            frame::put_go_away(self.last_peer_id, Code::NO_ERROR, "", &mut self.out);
        } else {
            self.leaving = Leaving::Announced;
            frame::put_go_away(frame::MAX_WINDOW, Code::NO_ERROR, "", &mut self.out);
            frame::put(Kind::Ping, 0, 0, &LAST_PING, &mut self.out);
        }
    }

    pub(super) fn ponged(&mut self, opaque: &[u8]) -> Option<Event<'static>> {
        if opaque == LAST_PING && self.leaving == Leaving::Announced {
            self.leaving = Leaving::Final;
            self.last_frame = None;
            frame::put_go_away(self.last_peer_id, Code::NO_ERROR, "", &mut self.out);
        }
        (opaque == ALIVE_PING).then_some(Event::Pong)
    }

    /// One of the ends is leaving and no stream is open any more: nothing will happen here.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.streams.open() == 0 && (self.peer_leaving || self.leaving == Leaving::Final)
    }

    /// Client: may a stream be opened now? Not while the peer has as many as it takes.
    #[must_use]
    pub fn can_open(&self) -> bool {
        self.is_open() && self.streams.open() < self.peer.max_concurrent_streams as usize
    }

    /// Client: will streams be opened here at all? Not once one end is leaving, the connection is lost, or the numbers
    /// have been used up.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.peer_leaving
            && self.leaving == Leaving::No
            && self.next_id <= frame::MAX_WINDOW
            && !matches!(self.expect, Expect::Nothing(_))
    }

    /// Streams that are open on the wire.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.streams.open()
    }

    /// Streams that somebody still has the key of, or that are open.
    #[must_use]
    pub fn streams_in_use(&self) -> usize {
        self.streams.in_use()
    }

    /// What is left of the windows: what we may send, and what the peer may. For tests and metrics; in a connection at
    /// rest the first is what the peer gave, and the second and what was consumed since the last update make up ours.
    #[must_use]
    pub fn windows(&self) -> (i64, i64) {
        (
            self.send_window - self.promised as i64,
            self.receive_window + i64::from(self.consumed),
        )
    }

    /// The peer takes `:protocol` in CONNECT (RFC 8441).
    #[must_use]
    pub fn peer_takes_protocol(&self) -> bool {
        self.peer.connect_protocol
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("client", &self.client)
            .field("expect", &self.expect)
            .field("streams", &self.streams)
            .field("send_window", &self.send_window)
            .field("receive_window", &self.receive_window)
            .field("output", &(self.out.len() - self.sent))
            .finish_non_exhaustive()
    }
}
