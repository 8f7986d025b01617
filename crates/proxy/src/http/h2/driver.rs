//! The one task of a connection that touches its socket: each round it writes what has gathered, reads what has come and
//! wakes the streams that it is for.
//!
//! Cost: one write and one read per round whatever many streams took part. Input is judged where it lies in the thread's
//! shared buffer; a connection keeps only the beginning of a frame that has not come whole, so at rest it holds none.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;

use crate::clock;
use crate::http::Fault;
use crate::http::h2::Settings;
use crate::http::h2::keepalive::{Due, Keepalive};
use crate::http::h2::link::Link;
use crate::http::serve::{keep_head, spare_head};
use crate::net::io::Io;

/// Reads of one round: with more the streams would wait.
const READS: usize = 4;
/// How long a connection that ends is kept for the peer to read our last words.
const PATIENCE: Duration = Duration::from_secs(1);
/// Octets that the peer of a connection that ends may still send.
const DISCARDED: usize = 1024 * 1024;

pub struct Driver {
    io: Io,
    link: Rc<Link>,
    keepalive: Keepalive,
    /// What has come of something that has not come whole.
    input: Vec<u8>,
    /// TLS may hold something that the socket did not take.
    unflushed: bool,
    /// The peer takes nothing more. What it has said before, answers and which streams it has not looked at, is still to
    /// be read.
    deaf: Option<Fault>,
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// All is done, or a rule was broken: the peer is to read what we say about it.
    Leaving(Result<(), Fault>),
    /// The peer is gone.
    Gone(Fault),
}

impl Driver {
    pub fn new(io: Io, link: Rc<Link>, settings: Settings) -> Self {
        Driver {
            io,
            link,
            keepalive: Keepalive::new(settings),
            input: Vec::new(),
            unflushed: false,
            deaf: None,
        }
    }

    /// One round. New streams of a server wait in the link when it returns.
    pub fn poll_round(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        self.link.begin_round(cx);
        if self.deaf.is_none() {
            if let Poll::Ready(Err(fault)) = self.poll_flush(cx) {
                self.deaf = Some(fault);
            }
        }
        let mut again = true;
        for _ in 0..READS {
            if self.deaf.is_none() && self.link.look(|state| state.codec.is_congested()) {
                // A write will wake us.
                again = false;
                break;
            }
            match self.poll_read(cx) {
                Poll::Pending if self.deaf.is_some() => {
                    // What is left of a connection that the peer has closed is there at once.
                    return Poll::Ready(Over::Gone(self.deaf.unwrap_or(Fault::Closed)));
                }
                Poll::Pending => {
                    again = false;
                    break;
                }
                Poll::Ready(Ok(())) => self.keepalive.heard(),
                Poll::Ready(Err(over)) => return Poll::Ready(over),
            }
        }
        match self.keepalive.poll_due(cx) {
            Poll::Ready(Due::Ping) => self.link.with(|state| {
                state.rest();
                state.codec.ping();
            }),
            Poll::Ready(Due::GiveUp) => return Poll::Ready(Over::Gone(Fault::Timeout)),
            Poll::Pending => {}
        }
        let done = self.link.look(|state| {
            state.codec.is_done() || (state.closing && state.codec.streams_in_use() == 0)
        });
        if done {
            return Poll::Ready(Over::Leaving(Ok(())));
        }
        if again {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Over>> {
        let (link, held) = (&self.link, &mut self.input);
        let received = ready!(self.io.poll_read_with(cx, |bytes| {
            let mut head = spare_head();
            let received = link.with(|state| {
                state.codec.tick(clock::now());
                if held.is_empty() {
                    let mut input = bytes;
                    let received = state.receive(&mut input, &mut head);
                    held.extend_from_slice(input);
                    return received;
                }
                held.extend_from_slice(bytes);
                let mut input = &held[..];
                let received = state.receive(&mut input, &mut head);
                let taken = held.len() - input.len();
                if taken == held.len() {
                    *held = Vec::new();
                } else {
                    held.drain(..taken);
                }
                received
            });
            keep_head(head);
            received
        }));
        Poll::Ready(match received {
            Ok(Some(Ok(()))) => Ok(()),
            Ok(Some(Err(fault))) => Err(Over::Leaving(Err(fault))),
            Ok(None) if self.link.look(|state| state.codec.streams_in_use() == 0) => {
                Err(Over::Leaving(Ok(())))
            }
            Ok(None) => Err(Over::Gone(Fault::Closed)),
            Err(error) => Err(Over::Gone(error.into())),
        })
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let (io, unflushed) = (&mut self.io, &mut self.unflushed);
        self.link.write(|codec| {
            if codec.output().is_empty() && !*unflushed {
                return Poll::Ready(Ok(()));
            }
            *unflushed = true;
            while !codec.output().is_empty() {
                match ready!(Pin::new(&mut *io).poll_write(cx, codec.output())) {
                    Ok(0) => return Poll::Ready(Err(Fault::Closed)),
                    Ok(count) => codec.wrote(count),
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
            }
            let flushed = Pin::new(io).poll_flush(cx).map_err(Fault::from);
            *unflushed = flushed.is_pending();
            flushed
        })
    }

    /// The end of the connection: streams are told, and the peer has a while to read what we said last. A socket closed
    /// with unread bytes in it is reset, and our words with it.
    pub async fn end(mut self, over: Over) -> Result<(), Fault> {
        let (outcome, say) = match over {
            Over::Leaving(outcome) => (outcome, true),
            Over::Gone(fault) => (Err(fault), false),
        };
        self.link.with(|state| {
            if say && outcome.is_ok() {
                state.codec.shutdown();
            }
            // The verdict of the keepalive is no answer that took too long.
            state.lose(match outcome {
                Err(Fault::Timeout) | Ok(()) => Fault::Closed,
                Err(fault) => fault,
            });
        });
        if say {
            let last_words = async {
                std::future::poll_fn(|cx| self.poll_flush(cx)).await?;
                std::future::poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await?;
                let mut left = DISCARDED;
                while left > 0 {
                    let read = std::future::poll_fn(|cx| self.io.poll_read_with(cx, <[u8]>::len));
                    match read.await? {
                        Some(count) => left = left.saturating_sub(count),
                        None => break,
                    }
                }
                Ok::<(), Fault>(())
            };
            // Either way the connection is dropped now.
            let _late = tokio::time::timeout(PATIENCE, last_words).await;
        }
        outcome
    }
}
