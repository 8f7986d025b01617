//! One request and its answer, moved between two sides: `head` until the answer's head, the bodies here, `limits` when.
//!
//! Both directions run in the one task of the exchange. In each, bytes are taken from a side only when the other has
//! room, so an exchange holds one chunk per direction and what the sides' windows and buffers hold. What was appended
//! is flushed once, at the end of each turn.
//!
//! A peer that holds the exchange up is given up after a while, be it the socket that is full or only a window that is
//! shut: see `stall`.
//!
//! An answer that is complete ends the exchange even if the request is not: what is left of the request is for the
//! downstream side to discard, and the upstream side is then never used again (its request is not complete). A tunnel has two
//! directions of which each has its own end.

mod head;
mod limits;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::Instant;
use tulle_engine::Reason;
use tulle_engine::deadline::Deadlines;
use tulle_http::Head;
use tulle_http::h1::BodyKind;
use tulle_http::h2::Code;

use crate::http::answer::is_grpc;
use crate::http::expectation::Expectation;
use crate::http::h1;
use crate::http::origin::Origin;
use crate::http::replay::{End, Replay};
use crate::http::side::{Downstream, Upstream, has_body};
use crate::http::stall::{Peer, Stalls, Waits, Way};
use crate::http::{Event, Fault};
use crate::metrics::route::Edge;
use crate::outbound::mirror::Copies;
use limits::Limits;

/// Pieces per turn and direction before other exchanges get theirs.
const TURN: usize = 16;

/// Whose fault it is that an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Downstream(Fault),
    Upstream(Fault),
    /// A deadline has passed.
    Deadline(Reason),
}

impl Failure {
    /// The code that tells the server.
    pub fn to_upstream(self) -> Code {
        match self {
            Failure::Downstream(Fault::Reset(code)) => code,
            _ => Code::CANCEL,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Open,
    /// The last byte has been handed over.
    Done,
    /// The receiver takes no more of it.
    Stopped,
}

pub struct Exchange<'e, 'd> {
    pub down: &'e mut Downstream<'d>,
    pub up: Upstream,
    /// What is kept of the request's body for another try.
    pub replay: &'e mut Replay,
    request: Flow,
    /// Something has passed this turn.
    moved: bool,
    trailers: Head,
    /// `grpc-status` of the trailers.
    grpc_status: Option<u8>,
    /// Bytes of the answer's body that were passed on.
    passed_on: u64,
    /// `trailers` are the answer's.
    answered_whole: bool,
    /// What [`Exchange::peek`] has found.
    peeked: Option<Event>,
    /// The trailers that were found so.
    peeked_trailers: Option<Box<Head>>,
    limits: Option<Box<Limits>>,
    /// Copies of the request that are made as it passes; `None` for nearly all.
    pub copies: Option<&'e mut Copies>,
    /// When the last byte of the request was handed over.
    sent: Option<Instant>,
    /// Where the pieces of the bodies are counted.
    pub edge: Option<Rc<Edge>>,
    /// For whom it waits.
    waits: Waits,
    /// Pausing is usual: a gRPC call or a tunnel.
    may_pause: bool,
    /// The sender of the request is timed.
    sender_timed: bool,
    /// The rest of the request is expected now.
    sender_due: bool,
    /// The caller waits for leave to send its body.
    expectation: Option<Box<Expectation>>,
    /// Request and answer are the two directions of a tunnel.
    pub tunnel: bool,
    answered: bool,
}

/// Bytes of an answer that nobody wants, taken in to keep its connection.
const DISCARD: usize = 64 * 1024;

impl<'e, 'd> Exchange<'e, 'd> {
    /// The request's head has been sent on `up` already.
    pub fn new(
        down: &'e mut Downstream<'d>,
        up: Upstream,
        replay: &'e mut Replay,
        deadlines: Deadlines,
    ) -> Self {
        Exchange {
            down,
            up,
            replay,
            request: Flow::Open,
            moved: false,
            trailers: Head::new(),
            grpc_status: None,
            passed_on: 0,
            answered_whole: false,
            peeked: None,
            peeked_trailers: None,
            limits: Limits::new(deadlines),
            copies: None,
            sent: None,
            edge: None,
            waits: Waits::default(),
            may_pause: false,
            sender_timed: false,
            sender_due: false,
            expectation: None,
            tunnel: false,
            answered: false,
        }
    }

    /// Times who holds the exchange up; the sender of the request too, if it is `timed_sender`. `origin`: the server.
    pub fn time(
        &mut self,
        stalls: &Stalls,
        origin: &Rc<Origin>,
        request: &Head,
        body: BodyKind,
        timed_sender: bool,
    ) {
        self.waits = Waits::new(stalls);
        self.may_pause = self.tunnel;
        if has_body(body) {
            self.may_pause |= is_grpc(request);
            self.sender_timed = timed_sender && !self.may_pause;
            // Of another try the body has begun.
            if !self.replay.is_behind() {
                self.expectation = Expectation::of(request, origin);
            }
            // Who waits for `100 Continue` owes nothing yet.
            self.sender_due = self.sender_timed && self.expectation.is_none();
        }
    }

    pub fn grpc_status(&self) -> Option<u8> {
        self.grpc_status
    }

    /// How much of the answer's body was passed on, and the trailers after it.
    pub fn passed_on(&self) -> (u64, Option<&Head>) {
        let trailers = self.answered_whole.then_some(&self.trailers);
        (self.passed_on, trailers)
    }

    /// When all of the request had gone to the server.
    pub fn sent(&self) -> Option<Instant> {
        self.sent
    }

    /// All of the request has gone to the server.
    pub fn request_sent(&self) -> bool {
        self.request == Flow::Done
    }

    /// Waits without a server: until the caller leaves or a deadline passes.
    pub async fn wait(&mut self) -> Failure {
        let waited: Result<(), Failure> = poll_fn(|cx| {
            if let Poll::Ready(fault) = self.down.poll_gone(cx) {
                return Poll::Ready(Err(Failure::Downstream(fault)));
            }
            self.poll_limits(cx)
        })
        .await;
        waited.err().unwrap_or(Failure::Upstream(Fault::Closed))
    }

    /// Goes on with another server, which has got the whole request; the one so far is let go.
    pub fn switch(&mut self, up: Upstream) {
        self.up.cancel(Code::CANCEL);
        self.up = up;
        self.request = Flow::Done;
        if let Some(limits) = &mut self.limits {
            limits.deadlines.answered();
        }
    }

    /// Gives up an answer that nobody gets. An HTTP/1 connection on which it has come whole may be used again.
    pub fn discard(mut self) -> Option<Box<h1::Connection>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut ended = self.peeked.is_some();
        let mut left = DISCARD;
        while !ended {
            match self.up.poll_event(&mut cx, &mut self.trailers) {
                Poll::Ready(Ok(Event::Data)) => {
                    let count = self.up.chunk().len();
                    let Some(rest) = left.checked_sub(count) else {
                        break;
                    };
                    left = rest;
                    self.up.consume(count);
                }
                Poll::Ready(Ok(Event::Trailers)) => {}
                Poll::Ready(Ok(Event::End)) => ended = true,
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        if !ended || self.request != Flow::Done {
            self.up.cancel(Code::CANCEL);
            return None;
        }
        match self.up {
            Upstream::H1(connection) => Some(connection),
            Upstream::H2(_) => None,
        }
    }

    /// Moves bodies and trailers until the answer is complete. Its head has been sent on `down`.
    pub async fn bodies(&mut self) -> Result<(), Failure> {
        poll_fn(|cx| {
            let request_turn = self.poll_request(cx)?;
            let mut turn = Turn::Waiting;
            for step in 0.. {
                if self.answered {
                    break;
                }
                match self.poll_answer(cx)? {
                    Poll::Ready(Flow::Open) if step < TURN => {}
                    Poll::Ready(Flow::Open) => {
                        turn = Turn::Again;
                        break;
                    }
                    Poll::Ready(_) if self.tunnel && self.request == Flow::Open => {
                        self.answered = true;
                        break;
                    }
                    // What is still in the buffer is the connection's to write.
                    Poll::Ready(_) => return Poll::Ready(Ok(())),
                    Poll::Pending => break,
                }
            }
            if self.answered && self.request != Flow::Open {
                return Poll::Ready(Ok(()));
            }
            self.rest(
                cx,
                if request_turn == Turn::Again {
                    request_turn
                } else {
                    turn
                },
            )
        })
        .await
    }

    /// Ends a broken exchange on both sides, each told the other's reason.
    pub fn cut(&mut self, failure: Failure) {
        let fault = match failure {
            Failure::Downstream(fault) | Failure::Upstream(fault) => fault,
            Failure::Deadline(_) => Fault::Timeout,
        };
        self.down.cut(fault);
        self.up.cancel(failure.to_upstream());
    }

    /// Moves what it can of the request. When all of it has gone, [`Self::rest`] sees whether the caller does.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Result<Turn, Failure> {
        for _ in 0..TURN {
            if self.request != Flow::Open {
                return Ok(Turn::Waiting);
            }
            if self.replay.is_behind() {
                if self.poll_again(cx).is_pending() {
                    return Ok(Turn::Waiting);
                }
                continue;
            }
            match self.down.poll_event(cx, &mut self.trailers) {
                Poll::Pending => {
                    if self.sender_due {
                        self.waits.hold(cx, Peer::Sender);
                    }
                    return Ok(Turn::Waiting);
                }
                Poll::Ready(Err(fault)) => return Err(Failure::Downstream(fault)),
                Poll::Ready(Ok(Event::Data)) => {
                    if let Some(expectation) = &mut self.expectation {
                        expectation.begun();
                    }
                    let wanted = self.down.chunk().len();
                    match self.up.poll_capacity(cx, wanted) {
                        Poll::Pending => {
                            self.waits.hold(cx, Peer::Server);
                            return Ok(Turn::Waiting);
                        }
                        Poll::Ready(Ok(count)) => {
                            self.moved = true;
                            self.waits.moved(Way::Request, count, count == wanted);
                            let data = &self.down.chunk()[..count];
                            match self.up.send(data) {
                                Ok(()) => {
                                    if let Some(edge) = &self.edge {
                                        edge.request_frame(count);
                                    }
                                    self.replay.passed(data);
                                    if let Some(copies) = &mut self.copies {
                                        copies.data(data);
                                    }
                                    self.down.consume(count);
                                }
                                Err(_) => self.request = Flow::Stopped,
                            }
                        }
                        // The server wants no more of it; its answer may be on the way all the same.
                        Poll::Ready(Err(_)) => self.request = Flow::Stopped,
                    }
                }
                Poll::Ready(Ok(Event::Trailers)) => {
                    self.replay.ended(Some(&self.trailers));
                    self.end_copies();
                    self.end_request(true);
                }
                Poll::Ready(Ok(Event::End)) => {
                    self.replay.ended(None);
                    self.end_copies();
                    self.end_request(false);
                }
            }
        }
        Ok(Turn::Again)
    }

    fn end_copies(&mut self) {
        if let Some(copies) = &mut self.copies {
            copies.end();
        }
    }

    /// Sends what an earlier try has sent already.
    fn poll_again(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let again = self.replay.again();
        if again.is_empty() {
            match self.replay.caught_up() {
                Some(End::Trailers) => {
                    if let Some(trailers) = self.replay.trailers() {
                        self.trailers.clone_from(trailers);
                    }
                    self.end_request(true);
                }
                Some(End::Plain) => self.end_request(false),
                None => {}
            }
            return Poll::Ready(());
        }
        match self.up.poll_capacity(cx, again.len()) {
            Poll::Pending => {
                self.waits.hold(cx, Peer::Server);
                return Poll::Pending;
            }
            Poll::Ready(Ok(count)) if self.up.send(&again[..count]).is_ok() => {
                self.waits.moved(Way::Request, count, true);
                self.replay.sent_again(count);
            }
            Poll::Ready(_) => self.request = Flow::Stopped,
        }
        self.moved = true;
        Poll::Ready(())
    }

    fn end_request(&mut self, trailers: bool) {
        self.waits.end(Way::Request);
        let trailers = trailers.then_some(&self.trailers);
        self.request = if self.up.finish(trailers).is_ok() {
            if self.edge.is_some() {
                self.sent = Some(Instant::now());
            }
            Flow::Done
        } else {
            Flow::Stopped
        };
    }

    /// Moves one piece of the answer.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Result<Poll<Flow>, Failure> {
        let event = match self.peeked.take() {
            None => match self.up.poll_event(cx, &mut self.trailers) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(event) => event.map_err(Failure::Upstream)?,
            },
            Some(event) => {
                if let Some(trailers) = self.peeked_trailers.take() {
                    self.trailers = *trailers;
                }
                event
            }
        };
        match event {
            Event::Data => match self.down.poll_capacity(cx, self.up.chunk().len()) {
                Poll::Pending => {
                    let peer = if self.may_pause {
                        Peer::Paused
                    } else {
                        Peer::Receiver
                    };
                    self.waits.hold(cx, peer);
                    Ok(Poll::Pending)
                }
                Poll::Ready(count) => {
                    let count = count.map_err(Failure::Downstream)?;
                    self.waits
                        .moved(Way::Answer, count, count == self.up.chunk().len());
                    self.down
                        .send(&self.up.chunk()[..count])
                        .map_err(Failure::Downstream)?;
                    self.up.consume(count);
                    self.moved = true;
                    self.passed_on += count as u64;
                    if let Some(edge) = &self.edge {
                        edge.response_frame(count);
                    }
                    Ok(Poll::Ready(Flow::Open))
                }
            },
            Event::Trailers => {
                tulle_http::l5d::strip_all(&mut self.trailers);
                self.grpc_status = grpc_status(&self.trailers);
                self.down
                    .finish(Some(&self.trailers))
                    .map_err(Failure::Downstream)?;
                self.answered_whole = true;
                // HTTP/1 tells the end after the trailers; it must be taken for the connection to be used again.
                self.take_end(cx);
                Ok(Poll::Ready(Flow::Done))
            }
            Event::End => {
                self.down.finish(None).map_err(Failure::Downstream)?;
                Ok(Poll::Ready(Flow::Done))
            }
        }
    }

    fn take_end(&mut self, cx: &mut Context<'_>) {
        let _end = self.up.poll_event(cx, &mut self.trailers);
    }

    #[inline]
    fn poll_limits<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Failure>> {
        if let Some(limits) = &mut self.limits {
            let moved = std::mem::take(&mut self.moved);
            if let Poll::Ready(reason) = limits.poll(cx, moved, self.request != Flow::Open) {
                return Poll::Ready(Err(Failure::Deadline(reason)));
            }
        }
        Poll::Pending
    }

    /// The end of a turn: what was gathered leaves, the deadline is looked at, and whether the caller still waits.
    fn rest<T>(&mut self, cx: &mut Context<'_>, turn: Turn) -> Poll<Result<T, Failure>> {
        if self.request != Flow::Open {
            if let Poll::Ready(fault) = self.down.poll_gone(cx) {
                return Poll::Ready(Err(Failure::Downstream(fault)));
            }
        }
        // A server that has closed its receiving half may have answered before it did.
        if matches!(self.up.poll_flush(cx), Poll::Ready(Err(_))) && self.request == Flow::Open {
            self.request = Flow::Stopped;
        }
        if let Poll::Ready(Err(fault)) = self.down.poll_flush(cx) {
            return Poll::Ready(Err(Failure::Downstream(fault)));
        }
        if let Poll::Ready(Err(failure)) = self.poll_limits::<()>(cx) {
            return Poll::Ready(Err(failure));
        }
        if let Some(reason) = self.waits.over() {
            return Poll::Ready(Err(Failure::Deadline(reason)));
        }
        if turn == Turn::Again {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// The `grpc-status` of a head or of trailers.
pub fn grpc_status(head: &Head) -> Option<u8> {
    std::str::from_utf8(head.get("grpc-status")?)
        .ok()?
        .parse()
        .ok()
}

/// Why a direction stopped for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing to move; a waker is set.
    Waiting,
    /// It has had its share.
    Again,
}
