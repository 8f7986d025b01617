//! What the user of a connection may do with a stream: open it, answer on it, send, reset it, let go of it.

use super::Code;
use super::connection::{Closed, Connection};
use super::fields::Section;
use super::frame::{self, HEADER, Kind, flag};
use super::settings::DEFAULT_WINDOW;
use super::stream::{Backlog, Half, Key, Stream};
use crate::{Head, MethodKind};

/// Credit for a stream that went its whole way.
const STREAM_DONE: u32 = 4;
/// Credit for a DATA frame of ours: its receiver has to say now and then that it has room again.
const DATA_SENT: u32 = 2;

impl Connection {
    /// Client: opens a stream with a request's head; `end`: it has no body. `None` when no stream can be opened now
    /// ([`Connection::can_open`]) and nothing was sent.
    pub fn open(&mut self, head: &Head, end: bool) -> Option<Key> {
        if !self.can_open() {
            return None;
        }
        let id = self.next_id;
        self.next_id += 2;
        let mut stream = Stream::new(id, self.peer.initial_window, self.receive_initial(), 0);
        stream.accepted = true;
        stream.bodyless = head.method_kind() == MethodKind::Head;
        stream.outgoing = if end { Half::Ended } else { Half::Body };
        let key = self.streams.insert(stream);
        // gRPC ends a request with DATA, be it empty; grpc-go waits for ever for one that ends with its head.
        let apart = end && is_grpc(head);
        self.write_block(key, Section::Request, head, end && !apart);
        if apart {
            frame::put(Kind::Data, flag::END_STREAM, id, &[], &mut self.out);
            self.last_frame = None;
        }
        Some(key)
    }

    /// The window that a new stream's peer believes in.
    pub(super) fn receive_initial(&self) -> u32 {
        if self.acknowledged {
            self.settings.stream_window
        } else {
            DEFAULT_WINDOW
        }
    }

    /// Server: sends a final head, `end` when there is no body, or an interim one (1xx), which has no `end`.
    /// # Errors
    /// [`Closed`], also when the final head has been sent before.
    pub fn send_head(&mut self, key: Key, head: &Head, end: bool) -> Result<(), Closed> {
        let stream = self
            .streams
            .get_mut(key)
            .filter(|stream| stream.on_wire && stream.outgoing == Half::Head)
            .ok_or(Closed)?;
        if head.status() < 200 {
            self.write_block(key, Section::Response, head, false);
            // Nothing may follow that ends the stream with this frame.
            self.last_frame = None;
            return Ok(());
        }
        stream.outgoing = Half::Body;
        self.write_block(key, Section::Response, head, end);
        if end {
            self.outgoing_ended(key);
        }
        Ok(())
    }

    /// Sends a piece of the body; `end`: the last. More than [`Connection::capacity`] allowed is kept until it may leave.
    /// # Errors
    /// [`Closed`].
    pub fn send_data(&mut self, key: Key, data: &[u8], end: bool) -> Result<(), Closed> {
        if !data.is_empty() {
            // A promise is asked for in any case: what was sent without one must not overtake others either.
            self.capacity(key, data.len())?;
        }
        let stream = self
            .streams
            .get_mut(key)
            .filter(|stream| stream.on_wire && stream.outgoing == Half::Body)
            .ok_or(Closed)?;
        if let Some(backlog) = &mut stream.backlog {
            backlog.data.extend_from_slice(data);
            backlog.end = end;
            return Ok(());
        }
        if data.is_empty() {
            if end {
                self.end(key);
            }
            return Ok(());
        }
        let now = data.len().min(stream.granted as usize);
        if now < data.len() {
            stream.backlog = Some(Box::new(Backlog {
                data: data[now..].to_vec(),
                end,
            }));
        }
        if now > 0 {
            self.write_data(key, &data[..now], end && now == data.len());
        }
        if now < data.len() {
            if let Some(stream) = self.streams.get_mut(key) {
                stream.waiting = true;
            }
            self.enqueue(key);
            self.grant();
        }
        Ok(())
    }

    /// Ends the body, with trailers if there are any.
    /// # Errors
    /// [`Closed`].
    pub fn finish(&mut self, key: Key, trailers: Option<&Head>) -> Result<(), Closed> {
        let stream = self
            .streams
            .get_mut(key)
            .filter(|stream| stream.on_wire && stream.outgoing == Half::Body)
            .ok_or(Closed)?;
        match (&mut stream.backlog, trailers) {
            // What waits for window is a proxy's own text, which has no trailers.
            (Some(backlog), _) => backlog.end = true,
            (None, None) => self.end(key),
            (None, Some(trailers)) => {
                self.write_block(key, Section::Trailers, trailers, true);
                self.outgoing_ended(key);
            }
        }
        Ok(())
    }

    /// Ends the outgoing half: with a flag in the stream's frame if that is the last in the output, or else with an
    /// empty one.
    fn end(&mut self, key: Key) {
        match self.last_frame {
            Some((id, at)) if id == key.id && at >= self.sent && !self.is_request(at) => {
                self.out[at + 4] |= flag::END_STREAM;
            }
            _ => frame::put(Kind::Data, flag::END_STREAM, key.id, &[], &mut self.out),
        }
        self.last_frame = None;
        self.outgoing_ended(key);
    }

    /// The frame there in the output is a request's head, which is not to end what was opened with a body to come.
    fn is_request(&self, at: usize) -> bool {
        self.client && self.out[at + 3] == Kind::Headers as u8
    }

    /// Writes what was promised.
    fn write_data(&mut self, key: Key, data: &[u8], end: bool) {
        let granted = self.take_grant(key);
        debug_assert!(data.len() <= granted);
        self.send_window -= data.len() as i64;
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.send_window -= data.len() as i32;
        // A peer that opens its window a few octets at a time gets no credit for what that makes us send.
        if data.len() >= 32 || stream.send_window >= 1024 {
            self.patience.earn(DATA_SENT);
        }
        let (at, flags) = (self.out.len(), if end { flag::END_STREAM } else { 0 });
        self.out.reserve(HEADER + data.len());
        frame::put(Kind::Data, flags, key.id, data, &mut self.out);
        self.last_frame = Some((key.id, at));
        if end {
            self.last_frame = None;
            self.outgoing_ended(key);
        }
        if granted > data.len() {
            self.grant();
        }
    }

    /// Sends what had to wait, as far as the stream's turn goes.
    pub(super) fn send_backlog(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let Some(mut backlog) = stream.backlog.take() else {
            return;
        };
        let now = backlog.data.len().min(stream.granted as usize);
        let whole = now == backlog.data.len();
        self.write_data(key, &backlog.data[..now], whole && backlog.end);
        if !whole {
            backlog.data.drain(..now);
            if let Some(stream) = self.streams.get_mut(key) {
                stream.backlog = Some(backlog);
                stream.waiting = true;
            }
            self.enqueue(key);
        }
    }

    fn outgoing_ended(&mut self, key: Key) {
        self.take_grant(key);
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.outgoing = Half::Ended;
        if stream.is_over() {
            self.streams.close(key);
            self.patience.earn(STREAM_DONE);
        } else if !stream.held {
            // The backlog of a stream that nobody holds any more has left.
            self.abandon(key);
        }
        self.grant();
    }

    pub(super) fn incoming_ended(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.incoming = Half::Ended;
        if stream.is_over() {
            self.streams.close(key);
            self.patience.earn(STREAM_DONE);
        }
    }

    /// Ends the stream at once, in both directions.
    pub fn reset(&mut self, key: Key, code: Code) {
        let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.on_wire) else {
            return;
        };
        stream.backlog = None;
        let unaware = stream.incoming != Half::Ended;
        self.take_grant(key);
        self.last_frame = None;
        frame::put_reset(key.id, code, &mut self.out);
        if unaware {
            self.streams.remember_reset(key.id);
        }
        self.streams.close(key);
        self.grant();
    }

    /// Server: somebody has begun to look at the request. A client that resets many before that floods us.
    pub fn accept(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.accepted = true;
        }
    }

    /// The stream's user lets go of it. What is not complete is given up: an answer that is whole before its request
    /// with NO_ERROR (RFC 9113 §8.1), everything else with CANCEL.
    pub fn release(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let unconsumed = std::mem::take(&mut stream.unconsumed);
        if std::mem::take(&mut stream.pending_reset) {
            self.pending_resets -= 1;
        }
        let finishing = stream.backlog.as_ref().is_some_and(|backlog| backlog.end);
        let on_wire = stream.on_wire;
        self.give_held(unconsumed);
        if on_wire && !finishing {
            self.abandon(key);
        }
        self.streams.let_go(key);
    }

    fn abandon(&mut self, key: Key) {
        let whole = self
            .streams
            .get(key)
            .is_some_and(|stream| stream.outgoing == Half::Ended);
        let code = if whole && !self.client {
            Code::NO_ERROR
        } else {
            Code::CANCEL
        };
        self.reset(key, code);
    }
}

/// Only a POST is looked at closer: gRPC knows no other method.
fn is_grpc(head: &Head) -> bool {
    head.method() == b"POST"
        && head
            .get("content-type")
            .is_some_and(|kind| kind.starts_with(b"application/grpc"))
}
