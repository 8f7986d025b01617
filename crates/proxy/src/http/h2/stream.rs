//! One stream as the task of its exchange sees it: a request to answer (server) or to have answered (client).
//!
//! Back-pressure: window is given back to the peer when the other side has *taken* the bytes (`consume`), so a stream
//! holds at most one window, in two buffers: the driver fills one while the other is being sent on.
//! Dropping the stream gives up what is not complete.
//!
//! Cost: two words where it is moved; what it points to is used again by the next stream of the connection.

use std::rc::Rc;
use std::task::{Context, Poll};

use tulle_http::Head;
use tulle_http::h2::{Closed, Code, Connection, Key};

use crate::http::h2::link::Link;
use crate::http::serve::keep_head;
use crate::http::{Event, Fault, buffers};

pub struct Stream {
    link: Rc<Link>,
    key: Key,
    /// Taken out only when the stream is dropped.
    hand: Option<Box<Hand>>,
}

/// What a stream's task has in hand.
#[derive(Default)]
pub struct Hand {
    /// What was taken out of the inbox, and how much of it has been consumed.
    pub chunk: Vec<u8>,
    pub at: usize,
    /// The message that goes out is whole.
    pub finished: bool,
}

impl Stream {
    /// `finished`: nothing is to be sent on it (any more).
    pub fn new(link: Rc<Link>, key: Key, finished: bool) -> Self {
        let mut hand = link.with(|state| state.take_hand(key));
        hand.finished = finished;
        Stream {
            link,
            key,
            hand: Some(hand),
        }
    }

    /// Server: somebody looks at the request now.
    pub fn accept(&self) {
        self.link.with(|state| state.codec.accept(self.key));
    }

    // --- the message that comes in -----------------------------------------------------------------------------------

    /// Client: an interim head or the final one, into `head`.
    pub fn poll_head(&mut self, cx: &mut Context<'_>, head: &mut Head) -> Poll<Result<(), Fault>> {
        self.link.with(|state| {
            let inbox = state.inbox(self.key);
            if !inbox.heads.is_empty() {
                keep_head(std::mem::replace(head, inbox.heads.remove(0)));
                return Poll::Ready(Ok(()));
            }
            if let Some(fault) = inbox.fault {
                return Poll::Ready(Err(fault));
            }
            inbox.wait(cx);
            Poll::Pending
        })
    }

    /// Nothing more comes.
    pub fn is_ended(&self) -> bool {
        self.chunk().is_empty()
            && self.link.with(|state| {
                let inbox = state.inbox(self.key);
                inbox.ended && inbox.data.is_empty() && inbox.trailers.is_none()
            })
    }

    /// The next event; trailers are put into `trailers`.
    pub fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut Head,
    ) -> Poll<Result<Event, Fault>> {
        if !self.chunk().is_empty() {
            return Poll::Ready(Ok(Event::Data));
        }
        let hand = self.hand.get_or_insert_default();
        self.link.with(|state| {
            let inbox = state.inbox(self.key);
            if !inbox.data.is_empty() {
                hand.chunk = std::mem::take(&mut inbox.data);
                return Poll::Ready(Ok(Event::Data));
            }
            if let Some(told) = inbox.trailers.take() {
                keep_head(std::mem::replace(trailers, told));
                return Poll::Ready(Ok(Event::Trailers));
            }
            if inbox.ended {
                return Poll::Ready(Ok(Event::End));
            }
            if let Some(fault) = inbox.fault {
                return Poll::Ready(Err(fault));
            }
            inbox.wait(cx);
            Poll::Pending
        })
    }

    pub fn chunk(&self) -> &[u8] {
        match &self.hand {
            Some(hand) => &hand.chunk[hand.at..],
            None => &[],
        }
    }

    /// The first `count` bytes have been passed on: their window goes back to the sender.
    pub fn consume(&mut self, count: usize) {
        let hand = self.hand.get_or_insert_default();
        hand.at += count;
        if hand.at == hand.chunk.len() {
            buffers::give(std::mem::take(&mut hand.chunk));
            hand.at = 0;
        }
        self.link.with(|state| {
            if let Ok(codec) = state.alive() {
                codec.consume(self.key, count);
            }
        });
    }

    /// Ready when the peer does not want this stream any more.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        self.link.with(|state| {
            let lost = state.lost;
            let inbox = state.inbox(self.key);
            if let Some(fault) = inbox.fault.or(lost) {
                return Poll::Ready(fault);
            }
            inbox.wait(cx);
            Poll::Pending
        })
    }

    // --- the message that goes out -----------------------------------------------------------------------------------

    /// Server: an interim head, or the final one; `end`: it has no body.
    pub fn send_head(&mut self, head: &Head, end: bool) -> Result<(), Fault> {
        self.hand.get_or_insert_default().finished |= end;
        self.sending(|codec, key| codec.send_head(key, head, end))
    }

    /// How many bytes may be sent now, at most `wanted`; pending until at least one may.
    pub fn poll_capacity(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<Result<usize, Fault>> {
        if self.is_finished() {
            // Nobody will see it.
            return Poll::Ready(Ok(wanted));
        }
        let key = self.key;
        self.link.with(
            |state| match state.alive().map(|codec| codec.capacity(key, wanted)) {
                Ok(Ok(Some(count))) => Poll::Ready(Ok(count)),
                Ok(Ok(None)) => {
                    state.inbox(key).wait(cx);
                    Poll::Pending
                }
                Ok(Err(Closed)) => Poll::Ready(Err(state.why_closed(key))),
                Err(fault) => Poll::Ready(Err(fault)),
            },
        )
    }

    pub fn send(&mut self, data: &[u8]) -> Result<(), Fault> {
        if self.is_finished() {
            return Ok(());
        }
        self.sending(|codec, key| codec.send_data(key, data, false))
    }

    pub fn finish(&mut self, trailers: Option<&Head>) -> Result<(), Fault> {
        let hand = self.hand.get_or_insert_default();
        if std::mem::replace(&mut hand.finished, true) {
            return Ok(());
        }
        self.sending(|codec, key| codec.finish(key, trailers))
    }

    fn is_finished(&self) -> bool {
        self.hand.as_ref().is_none_or(|hand| hand.finished)
    }

    fn sending(
        &self,
        send: impl FnOnce(&mut Connection, Key) -> Result<(), Closed>,
    ) -> Result<(), Fault> {
        self.link.with(|state| {
            let sent = send(state.alive()?, self.key);
            sent.map_err(|Closed| state.why_closed(self.key))
        })
    }

    pub fn reset(&mut self, code: Code) {
        self.link.with(|state| {
            if let Ok(codec) = state.alive() {
                codec.reset(self.key, code);
            }
        });
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let hand = self.hand.take().unwrap_or_default();
        self.link.with(|state| state.release(self.key, hand));
    }
}
