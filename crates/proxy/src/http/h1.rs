//! One HTTP/1 connection behind the seam, either end of it, on the codec of `tulle_http`.
//!
//! Cost: what is written gathers in one buffer and leaves in one write when the exchange has nothing more to do this
//! round (`poll_flush`), so the head and a small body are one segment. Reading goes through the thread's shared buffer.
//! An idle connection holds its codec's state and what its last messages made of its input buffer.
//!
//! Invariant: a connection takes another message only when both the message in and the message out are complete
//! (`is_reusable`). Anything else would let one request's bytes become part of another.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep};
use tulle_http::h1::{
    Answering, Asked, BodyKind, BodyWriter, Decoder, Eof, Framing, Persist, encode_request,
    encode_response,
};
use tulle_http::{Head, Limits};

use crate::http::serve::Timeouts;
use crate::http::{Event, Fault, buffers};
use crate::net::io::Io;

/// Bytes waiting to be written that stop the other side from giving more.
const HIGH_WATER: usize = 64 * 1024;
/// Bytes of buffer that an idle HTTP/1 connection keeps.
const KEPT: usize = 4 * 1024;
/// When draining begins, a request may be on its way on a connection that looks idle: it is waited for so long, served,
/// and told that it is the last.
const LAST_REQUEST: Duration = Duration::from_millis(200);
/// Bytes of a next message that are taken in while the current one is being answered.
const READ_AHEAD: usize = 16 * 1024;

pub struct Connection {
    io: Io,
    decoder: Decoder,
    input: BytesMut,
    /// Body bytes of the message coming in that nobody has taken yet.
    chunk: Bytes,
    incoming_done: bool,
    out: Vec<u8>,
    sent: usize,
    /// TLS may hold something that the socket did not take.
    unflushed: bool,
    /// What has gathered has waited for its turn.
    due: bool,
    /// The message going out, when its head has been written and its end has not.
    writer: Option<BodyWriter>,
    /// Another message may follow this one.
    persist: bool,
    broken: bool,
    /// Server: ends a connection that nobody uses.
    idle: Option<Pin<Box<Sleep>>>,
    _lease: Option<Rc<()>>,
}

impl Connection {
    pub fn server(io: Io, limits: Limits) -> Self {
        Self::new(io, Decoder::server(limits))
    }

    /// `lease` is held for as long as the connection is there.
    pub fn client(io: Io, limits: Limits, lease: Rc<()>) -> Self {
        Connection {
            _lease: Some(lease),
            ..Self::new(io, Decoder::client(limits))
        }
    }

    fn new(io: Io, decoder: Decoder) -> Self {
        Connection {
            io,
            decoder,
            input: BytesMut::new(),
            chunk: Bytes::new(),
            incoming_done: true,
            out: Vec::new(),
            sent: 0,
            unflushed: false,
            due: false,
            writer: None,
            persist: true,
            broken: false,
            idle: None,
            _lease: None,
        }
    }

    // --- the message coming in ---------------------------------------------------------------------------------------

    /// Server: the next request's head. `None`: the peer has ended, or `draining` has begun between two requests.
    /// Also `None`: it has been idle for too long.
    pub async fn read_request(
        &mut self,
        head: &mut Head,
        mut draining: Pin<&mut impl Future<Output = ()>>,
        timeouts: Timeouts,
    ) -> Result<Option<Framing>, Fault> {
        let mut timer: Option<Pin<Box<Sleep>>> = None;
        let mut idle_since = None;
        let mut leaving: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            loop {
                match self.decoder.next(&mut self.input, head)? {
                    tulle_http::h1::Event::Head(framing) => {
                        self.incoming_done = false;
                        self.persist = framing.keep_alive;
                        return Poll::Ready(Ok(Some(framing)));
                    }
                    tulle_http::h1::Event::NeedMore => {}
                    _ => return Poll::Ready(Ok(None)),
                }
                if let Poll::Ready(read) = self.poll_more(cx) {
                    if read? > 0 {
                        continue;
                    }
                    return Poll::Ready(match self.decoder.eof(&self.input) {
                        Eof::Clean => Ok(None),
                        _ => Err(Fault::Closed),
                    });
                }
                // Nothing is there: only now is looked at what ends the wait.
                let waiting = self.decoder.is_idle() && self.input.is_empty();
                if waiting {
                    self.shrink();
                }
                if waiting && leaving.is_none() && draining.as_mut().poll(cx).is_ready() {
                    leaving = Some(Box::pin(tokio::time::sleep(LAST_REQUEST)));
                }
                if let (true, Some(leaving)) = (waiting, &mut leaving) {
                    if leaving.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Ok(None));
                    }
                }
                if let (true, Some(limit)) = (waiting, timeouts.idle) {
                    let since = *idle_since.get_or_insert_with(Instant::now);
                    if self.poll_idle(cx, since + limit).is_ready() {
                        return Poll::Ready(Ok(None));
                    }
                }
                if !waiting {
                    let timer =
                        timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeouts.head)));
                    if timer.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Err(Fault::Timeout));
                    }
                }
                return Poll::Pending;
            }
        })
        .await
    }

    /// Ready at the deadline. The timer is the connection's and is only moved when it fires before its time, so that a
    /// request costs no timer of its own.
    fn poll_idle(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let timer = self
            .idle
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Client: an interim or final response head.
    pub fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut Head,
    ) -> Poll<Result<Framing, Fault>> {
        loop {
            match self.decoder.next(&mut self.input, head) {
                Ok(tulle_http::h1::Event::Head(framing)) => {
                    if !framing.interim {
                        self.persist &= framing.keep_alive;
                    }
                    return Poll::Ready(Ok(framing));
                }
                Ok(tulle_http::h1::Event::NeedMore) => {}
                Ok(_) => return Poll::Ready(Err(self.broken(Fault::Closed))),
                Err(error) => return Poll::Ready(Err(self.broken(Fault::Malformed(error)))),
            }
            match ready!(self.poll_more(cx)) {
                Ok(0) => return Poll::Ready(Err(self.broken(Fault::Closed))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(self.broken(error.into()))),
            }
        }
    }

    /// The next event of the message whose head was read.
    pub fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut Head,
    ) -> Poll<Result<Event, Fault>> {
        if !self.chunk.is_empty() {
            return Poll::Ready(Ok(Event::Data));
        }
        loop {
            // A message without body has its end told by the decoder too, and it must be taken before the next head.
            match self.decoder.next(&mut self.input, trailers) {
                Ok(tulle_http::h1::Event::Data(data)) => {
                    self.chunk = data;
                    return Poll::Ready(Ok(Event::Data));
                }
                Ok(tulle_http::h1::Event::Trailers) => return Poll::Ready(Ok(Event::Trailers)),
                Ok(
                    tulle_http::h1::Event::End
                    | tulle_http::h1::Event::Held
                    | tulle_http::h1::Event::Closed,
                ) => {
                    self.incoming_done = true;
                    return Poll::Ready(Ok(Event::End));
                }
                Ok(tulle_http::h1::Event::NeedMore) => {}
                Ok(tulle_http::h1::Event::Head(_)) => {
                    return Poll::Ready(Err(self.broken(Fault::Closed)));
                }
                Err(error) => return Poll::Ready(Err(self.broken(Fault::Malformed(error)))),
            }
            match ready!(self.poll_more(cx)) {
                Ok(0) => {
                    self.persist = false;
                    if self.decoder.eof(&self.input) == Eof::EndOfMessage {
                        self.incoming_done = true;
                        return Poll::Ready(Ok(Event::End));
                    }
                    return Poll::Ready(Err(self.broken(Fault::Closed)));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(self.broken(error.into()))),
            }
        }
    }

    pub fn chunk(&self) -> &Bytes {
        &self.chunk
    }

    pub fn consume(&mut self, count: usize) {
        bytes::Buf::advance(&mut self.chunk, count);
        if self.chunk.is_empty() {
            // An empty chunk still shares the input buffer, which could then not be used again.
            self.chunk = Bytes::new();
        }
    }

    /// Ready when the peer has left although it has been told nothing yet. A client that closes, even only its sending
    /// half, is taken as gone, as by every proxy we know of. Takes in a bounded part of a pipelined next request.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        if !self.decoder.is_idle() {
            // Held for an upgrade: what is read now would have no bound.
            return Poll::Pending;
        }
        self.poll_left(cx)
    }

    /// The same before the request's body has been asked for: what comes of it meanwhile is kept, up to the bound.
    pub fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        while self.input.len() < READ_AHEAD {
            match ready!(self.poll_more(cx)) {
                Ok(0) => return Poll::Ready(self.broken(Fault::Closed)),
                Ok(_) => {}
                Err(error) => return Poll::Ready(self.broken(error.into())),
            }
        }
        Poll::Pending
    }

    /// Reads more of what comes in.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = self.io.poll_read_onto(cx, &mut self.input);
        self.unless_cut(cx, read)
    }

    /// Who would have to wait is told that the peer's time is over.
    fn unless_cut(
        &self,
        cx: &Context<'_>,
        done: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match done {
            Poll::Pending => self.io.poll_cut(cx).map(Err),
            done => done,
        }
    }

    // --- the message going out ---------------------------------------------------------------------------------------

    /// Client: writes a request's head.
    pub fn send_request(
        &mut self,
        head: &Head,
        body: BodyKind,
        upgrade: bool,
    ) -> Result<(), Fault> {
        self.decoder.expect(Asked {
            method: head.method_kind(),
            upgrade,
        });
        let persist = if upgrade {
            Persist::Upgrade
        } else {
            Persist::KeepAlive
        };
        self.begin_output();
        match encode_request(head, body, persist, &mut self.out) {
            Ok(writer) => {
                (self.writer, self.incoming_done, self.persist) = (Some(writer), false, true);
                Ok(())
            }
            Err(_) => Err(self.broken(Fault::Malformed(tulle_http::Error::RequestLine))),
        }
    }

    /// Server: writes an answer's head, or an interim one.
    pub fn send_response(
        &mut self,
        head: &Head,
        to: Answering,
        body: BodyKind,
        persist: Persist,
    ) -> Result<(), Fault> {
        self.begin_output();
        match encode_response(head, to, body, persist, &mut self.out) {
            Ok(writer) => {
                if head.status() >= 200 || head.status() == 101 {
                    self.persist &= writer.keep_alive;
                    self.writer = Some(writer);
                }
                Ok(())
            }
            Err(_) => Err(self.broken(Fault::Malformed(tulle_http::Error::StatusLine))),
        }
    }

    fn begin_output(&mut self) {
        if self.out.capacity() == 0 {
            self.out = buffers::take();
        }
    }

    /// How many of `wanted` bytes may be given now; pending while too much waits to be written.
    pub fn poll_capacity(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<Result<usize, Fault>> {
        while self.out.len() - self.sent >= HIGH_WATER {
            ready!(self.poll_write(cx))?;
        }
        Poll::Ready(Ok(wanted))
    }

    pub fn send(&mut self, data: &[u8]) -> Result<(), Fault> {
        match &mut self.writer {
            Some(writer) => match writer.data(data, &mut self.out) {
                Ok(()) => Ok(()),
                Err(_) => Err(self.broken(Fault::Malformed(tulle_http::Error::ContentLength))),
            },
            None => Ok(()),
        }
    }

    pub fn finish(&mut self, trailers: Option<&Head>) -> Result<(), Fault> {
        match self.writer.take() {
            Some(writer) => match writer.finish(trailers, &mut self.out) {
                Ok(()) => Ok(()),
                Err(_) => Err(self.broken(Fault::Malformed(tulle_http::Error::ContentLength))),
            },
            None => Ok(()),
        }
    }

    /// Has anything gathered that has not waited for its turn? The first time it is asked it arranges for the task to be
    /// polled again, behind all that is ready now, and says yes: to write is due then.
    ///
    /// So the reads of one round of the event loop come before its writes. A write wakes the peer's thread, which for a
    /// peer that sleeps is the dearest part of it; written one after the other, the first wakes it and the rest find it
    /// awake (docs/performance.md).
    pub fn defers(&mut self, cx: &Context<'_>) -> bool {
        if self.due || self.out.is_empty() {
            return false;
        }
        self.due = true;
        cx.waker().wake_by_ref();
        true
    }

    /// Writes what has gathered, once its turn has come.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if self.out.is_empty() && !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        if self.defers(cx) {
            return Poll::Pending;
        }
        self.poll_flush_now(cx)
    }

    fn poll_flush_now(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.unflushed = true;
        while self.sent < self.out.len() {
            ready!(self.poll_write(cx))?;
        }
        buffers::give(std::mem::take(&mut self.out));
        self.sent = 0;
        ready!(Pin::new(&mut self.io).poll_flush(cx)).map_err(|error| self.broken(error.into()))?;
        (self.unflushed, self.due) = (false, false);
        Poll::Ready(Ok(()))
    }

    pub async fn flush(&mut self) -> Result<(), Fault> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Writes what the socket takes without a wait.
    pub fn flush_now(&mut self) {
        let _late = self.poll_flush_now(&mut Context::from_waker(Waker::noop()));
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let written = Pin::new(&mut self.io).poll_write(cx, &self.out[self.sent..]);
        match ready!(self.unless_cut(cx, written)) {
            Ok(0) => Poll::Ready(Err(self.broken(Fault::Closed))),
            Ok(count) => {
                self.sent += count;
                if self.sent >= HIGH_WATER {
                    self.out.drain(..self.sent);
                    self.sent = 0;
                }
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(self.broken(error.into()))),
        }
    }

    /// Gives back the memory that a large message has left in the buffers.
    fn shrink(&mut self) {
        if self.input.is_empty() && self.input.capacity() > KEPT {
            self.input = BytesMut::new();
        }
    }

    // --- between messages --------------------------------------------------------------------------------------------

    fn broken(&mut self, fault: Fault) -> Fault {
        self.broken = true;
        fault
    }

    /// Nothing more may be sent or expected here.
    pub fn poison(&mut self) {
        self.broken = true;
    }

    /// The peer was told, or has told, that this message is the last.
    pub fn close_after(&mut self) {
        self.persist = false;
    }

    pub fn persists(&self) -> bool {
        self.persist && !self.broken
    }

    pub fn incoming_done(&self) -> bool {
        self.incoming_done
    }

    /// Client: the connection may carry another request: the last exchange is complete in both directions, and
    /// nothing came that nobody asked for.
    pub fn is_reusable(&self) -> bool {
        self.persists()
            && !self.io.is_distrusted()
            && self.incoming_done
            && self.writer.is_none()
            && self.decoder.is_idle()
            && self.input.is_empty()
            && self.chunk.is_empty()
            && self.out.is_empty()
    }

    /// Client: nothing is asked for the moment.
    pub fn rest(&mut self) {
        self.shrink();
    }

    /// Has the peer closed an idle connection, or sent something on it? No system call while it has not.
    /// Or is the peer one that would not be believed any more?
    pub fn is_stale(&self) -> bool {
        let readable = self
            .io
            .poll_idle_readable(&mut Context::from_waker(Waker::noop()));
        readable.is_ready() || self.io.is_distrusted()
    }

    /// Server: after an answer that came before the request's end, takes in the rest so that the connection can go on.
    /// `false`: there is too much of it, or it does not come; close.
    pub async fn discard_request(&mut self, most: usize, patience: Duration) -> bool {
        if self.incoming_done && self.chunk.is_empty() {
            return true;
        }
        let (mut left, mut trailers) = (most, Head::new());
        let discard = poll_fn(|cx| {
            loop {
                let count = self.chunk.len();
                self.consume(count);
                if count > left {
                    return Poll::Ready(false);
                }
                left -= count;
                match ready!(self.poll_event(cx, &mut trailers)) {
                    Ok(Event::End) => return Poll::Ready(true),
                    Ok(_) => {}
                    Err(_) => return Poll::Ready(false),
                }
            }
        });
        tokio::time::timeout(patience, discard)
            .await
            .unwrap_or(false)
    }

    /// Server: closes so that the peer can still read the answer. A socket closed with unread bytes in it is reset, and
    /// the answer with it; so the sending half ends first and what still comes is thrown away for a while.
    pub async fn linger(mut self, patience: Duration) {
        let ended = async {
            self.flush().await?;
            poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await?;
            if self.incoming_done && self.input.is_empty() && !self.is_stale() {
                // Nothing is unread, so nothing can take the answer away.
                return Ok(());
            }
            loop {
                self.input.clear();
                if poll_fn(|cx| self.io.poll_read_onto(cx, &mut self.input)).await? == 0 {
                    return Ok::<(), Fault>(());
                }
            }
        };
        // Either way the connection is dropped now.
        let _late = tokio::time::timeout(patience, ended).await;
    }

    /// Server: the held request's answer was an agreement to leave HTTP. See `tulle_http::h1::Event::Held`.
    pub fn resume_held(&mut self) {
        // After a refused upgrade what follows is HTTP again.
        self.decoder.resume();
    }

    /// The byte stream, with everything that came after the last message in front of it. What waits to be written must
    /// have been flushed.
    pub fn into_tunnel(mut self) -> Io {
        self.io.unread(&self.input);
        self.io.unread(&self.chunk);
        self.io
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        io::Error::other(fault.to_string())
    }
}

#[cfg(test)]
#[path = "h1_tests.rs"]
mod tests;
