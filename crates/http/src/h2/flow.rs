//! Whose DATA goes next, and what is given back to the peer.
//!
//! Outgoing: a stream asks for [`capacity`](Connection::capacity) and is promised at most one frame's worth of three
//! things: its own window, the connection's window, room in the output. While others wait, it waits behind them; so
//! streams with much to send take turns, 16 KiB each. A promise that is not used is given to the next.
//!
//! Incoming: windows are given back when the bytes were *consumed*, in steps of half a window; a client's window of the
//! connection when they were received.

use super::connection::{Closed, Connection};
use super::frame;
use super::settings::DEFAULT_FRAME;
use super::stream::{Half, Key};

/// Octets of one turn.
const TURN: usize = DEFAULT_FRAME as usize;

impl Connection {
    /// How many of `wanted` octets may be sent on the stream now. `None`: none yet; the stream will be among
    /// [`Connection::pop_granted`] when it may go on.
    /// # Errors
    /// [`Closed`].
    pub fn capacity(&mut self, key: Key, wanted: usize) -> Result<Option<usize>, Closed> {
        let room = self.room();
        let stream = self
            .streams
            .get_mut(key)
            .filter(|stream| stream.on_wire && stream.outgoing == Half::Body)
            .ok_or(Closed)?;
        if stream.granted == 0 && stream.backlog.is_none() && wanted > 0 {
            let window = usize::try_from(stream.send_window).unwrap_or(0);
            let free = if self.queue.is_empty() { room } else { 0 };
            let grant = window.min(free).min(TURN).min(wanted);
            stream.granted = grant as u32;
            self.promised += grant;
        }
        if stream.granted > 0 || wanted == 0 {
            return Ok(Some(wanted.min(stream.granted as usize)));
        }
        stream.waiting = true;
        self.enqueue(key);
        Ok(None)
    }

    /// A stream that was promised something since it asked.
    pub fn pop_granted(&mut self) -> Option<Key> {
        self.granted.pop()
    }

    /// What may be promised in all.
    pub(super) fn room(&self) -> usize {
        let window = usize::try_from(self.send_window).unwrap_or(0);
        let output = self
            .settings
            .max_output
            .saturating_sub(self.out.len() - self.sent);
        window.min(output).saturating_sub(self.promised)
    }

    /// Puts a stream that waits into the queue, if its own window lets it send at all.
    pub(super) fn enqueue(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key) {
            if stream.waiting && !stream.queued && stream.send_window > 0 {
                stream.queued = true;
                self.queue.push_back(key);
            }
        }
    }

    /// Gives turns as far as there is room.
    pub(super) fn grant(&mut self) {
        while !self.queue.is_empty() {
            let room = self.room();
            if room == 0 {
                return;
            }
            let Some(key) = self.queue.pop_front() else {
                return;
            };
            let Some(stream) = self.streams.get_mut(key) else {
                continue;
            };
            stream.queued = false;
            if !stream.on_wire || !stream.waiting || stream.send_window <= 0 {
                continue;
            }
            let grant = room.min(stream.send_window as usize).min(TURN);
            stream.waiting = false;
            stream.granted = grant as u32;
            let backlog = stream.backlog.is_some();
            self.promised += grant;
            if backlog {
                self.send_backlog(key);
            } else {
                self.granted.push(key);
            }
        }
    }

    /// Takes back what a stream was promised, and says how much that was.
    pub(super) fn take_grant(&mut self, key: Key) -> usize {
        let Some(stream) = self.streams.get_mut(key) else {
            return 0;
        };
        stream.waiting = false;
        let granted = std::mem::take(&mut stream.granted) as usize;
        self.promised -= granted;
        granted
    }

    /// The stream's user has done with this many octets of its body: their window goes back to the peer.
    pub fn consume(&mut self, key: Key, count: usize) {
        let half = self.settings.stream_window / 2;
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let count = (count as u32).min(stream.unconsumed);
        stream.unconsumed -= count;
        self.give_stream(key, count, half);
        self.give_held(count);
    }

    /// Octets that were held back until somebody took them. A client's connection carries answers for many: one of them
    /// who does not read must not hold up the others, so it gives this window back when DATA comes, and each stream is
    /// held back by its own alone.
    pub(super) fn give_held(&mut self, count: u32) {
        if !self.client {
            self.give_connection(count);
        }
    }

    /// Octets of a stream that nobody will consume.
    pub(super) fn give_stream(&mut self, key: Key, count: u32, half: u32) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        if !stream.on_wire || stream.incoming == Half::Ended {
            return;
        }
        stream.consumed += count;
        if stream.consumed > half {
            let increment = std::mem::take(&mut stream.consumed);
            stream.receive_window += increment as i32;
            self.last_frame = None;
            frame::put_window_update(key.id, increment, &mut self.out);
        }
    }

    pub(super) fn give_connection(&mut self, count: u32) {
        self.consumed += count;
        if self.consumed > self.settings.connection_window / 2 {
            let increment = std::mem::take(&mut self.consumed);
            self.receive_window += i64::from(increment);
            self.last_frame = None;
            frame::put_window_update(0, increment, &mut self.out);
        }
    }
}
