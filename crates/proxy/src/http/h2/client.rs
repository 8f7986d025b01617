//! A connection on which we send HTTP/2 requests: one task drives it; every stream belongs to the task of its exchange.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use tulle_http::{Error, Head, h2};

use crate::http::Fault;
use crate::http::h2::Settings;
use crate::http::h2::driver::{Driver, Over};
use crate::http::h2::link::Link;
use crate::http::h2::stream::Stream;
use crate::net::io::Io;

/// Opens streams on one connection. Dropping the last clone lets the connection end when its streams have.
#[derive(Clone)]
pub struct Connection(Rc<Handle>);

struct Handle(Rc<Link>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.with(|state| state.closing = true);
    }
}

/// Makes a connection and spawns the task that drives it. `on_end` is called when it has ended, or takes no more streams.
pub fn connect(io: Io, settings: Settings, on_end: impl FnOnce() + 'static) -> Connection {
    let link = Rc::new(Link::new(
        h2::Connection::client(settings.codec()),
        io.meter(),
    ));
    let standing = io.standing().cloned();
    let mut driver = Driver::new(io, link.clone(), settings);
    let driven = link.clone();
    tokio::task::spawn_local(async move {
        let (mut watching, mut leaving) = (false, false);
        let over = poll_fn(|cx| {
            if let Some(peer) = &standing {
                if !watching {
                    // Once: it keeps this task's waker.
                    watching = true;
                    peer.watch(cx);
                }
                if !leaving && peer.is_lost() {
                    leaving = true;
                    driven.with(|state| state.codec.shutdown());
                }
                if peer.is_cut() {
                    return Poll::Ready(Over::Gone(Fault::Closed));
                }
            }
            driver.poll_round(cx)
        })
        .await;
        on_end();
        // The streams have been told why.
        let _told = Box::pin(driver.end(over)).await;
    });
    Connection(Rc::new(Handle(link)))
}

impl Connection {
    /// False once the peer has said that it takes no more streams, or the connection has ended.
    pub fn is_open(&self) -> bool {
        self.0
            .0
            .look(|state| state.lost.is_none() && state.codec.is_open())
    }

    /// The peer takes another stream now, or has not said yet how many it takes.
    pub fn has_room(&self) -> bool {
        self.is_open()
            && self
                .0
                .0
                .look(|state| !state.introduced || state.codec.can_open())
    }

    /// Waits until the peer has said how many streams it takes, or the connection has ended.
    pub async fn introduced(&self) {
        poll_fn(|cx| {
            self.0.0.with(|state| {
                if state.introduced || state.lost.is_some() {
                    return Poll::Ready(());
                }
                state.wait_to_open(cx);
                Poll::Pending
            })
        })
        .await
    }

    /// How many requests wait for the peer to take another stream.
    pub fn waiting(&self) -> usize {
        self.0.0.look(|state| state.waiting_to_open())
    }

    /// There is no stream.
    pub fn is_idle(&self) -> bool {
        self.0.0.look(|state| state.codec.streams_in_use() == 0)
    }

    /// Waits until the peer takes this request as one more stream. An extended CONNECT also waits for the peer's word
    /// whether it takes such a thing, and fails when it does not.
    pub async fn ready(&self, head: &Head) -> Result<(), Fault> {
        let tunnel = head.protocol().is_some();
        poll_fn(|cx| {
            self.0.0.with(|state| match state.alive() {
                Ok(codec) if tunnel && !codec.peer_takes_protocol() => {
                    if state.introduced {
                        return Poll::Ready(Err(Fault::Malformed(Error::NoTunnel)));
                    }
                    state.wait_to_open(cx);
                    Poll::Pending
                }
                Ok(codec) if codec.can_open() => Poll::Ready(Ok(())),
                Ok(codec) if codec.is_open() => {
                    state.wait_to_open(cx);
                    Poll::Pending
                }
                // A stream that cannot be opened has not been seen by the peer.
                _ => Poll::Ready(Err(Fault::Refused)),
            })
        })
        .await
    }

    /// Sends a request's head; `end`: it has no body.
    pub fn send(&self, head: &Head, end: bool) -> Result<Stream, Fault> {
        let link = &self.0.0;
        let opened = link.with(|state| state.alive().ok().and_then(|codec| codec.open(head, end)));
        match opened {
            Some(key) => Ok(Stream::new(link.clone(), key, end)),
            None => Err(Fault::Refused),
        }
    }
}
