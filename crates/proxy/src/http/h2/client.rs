//! A connection on which we send HTTP/2 requests: one task that drives the codec; every stream belongs to the task of
//! its exchange.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use tulle_http::Head;
use tulle_http::h2::Code;

use crate::http::Fault;
use crate::http::h2::keepalive::Keepalive;
use crate::http::h2::stream::{Incoming, Outgoing};
use crate::http::h2::{Settings, message};
use crate::net::io::Io;

/// Opens streams on one connection. Dropping the last clone lets the connection end when its streams have.
#[derive(Clone)]
pub struct Connection {
    requests: SendRequest<Bytes>,
    ended: Rc<Cell<bool>>,
}

/// A request's stream.
pub struct Stream {
    outgoing: Option<Outgoing>,
    answer: Answer,
}

enum Answer {
    Pending(ResponseFuture),
    Begun(Incoming),
}

/// Makes a connection and spawns the task that drives it. `on_end` is called when it has ended.
pub async fn connect(
    io: Io,
    settings: Settings,
    on_end: impl FnOnce() + 'static,
) -> Result<Connection, Fault> {
    let (requests, mut driver) = ::h2::client::Builder::new()
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_header_list_size(settings.max_header_list)
        .max_frame_size(settings.max_frame)
        .max_send_buffer_size(settings.max_send_buffer)
        .enable_push(false)
        .handshake::<_, Bytes>(io)
        .await
        .map_err(|error| Fault::of_h2(&error))?;
    let ended = Rc::new(Cell::new(false));
    let told = ended.clone();
    let mut keepalive = Keepalive::new(driver.ping_pong(), settings);
    tokio::task::spawn_local(async move {
        poll_fn(|cx| match std::pin::Pin::new(&mut driver).poll(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => keepalive.poll_dead(cx),
        })
        .await;
        told.set(true);
        on_end();
    });
    Ok(Connection { requests, ended })
}

impl Connection {
    /// False once the peer has said that it takes no more streams, or the connection has ended.
    pub fn is_open(&self) -> bool {
        !self.ended.get()
    }

    /// Waits until the peer takes one more stream.
    pub async fn ready(&mut self) -> Result<(), Fault> {
        poll_fn(|cx| self.requests.poll_ready(cx))
            .await
            .map_err(|error| self.refused(&error))
    }

    /// Sends a request's head; `end`: it has no body.
    pub fn send(&mut self, head: &Head, end: bool) -> Result<Stream, Fault> {
        let request = message::write_request(head)?;
        let (answer, outgoing) = self
            .requests
            .send_request(request, end)
            .map_err(|error| self.refused(&error))?;
        let outgoing = if end {
            None
        } else {
            Some(Outgoing::new(outgoing))
        };
        Ok(Stream {
            outgoing,
            answer: Answer::Pending(answer),
        })
    }

    /// A stream that could not be opened has not been seen by the peer.
    fn refused(&self, error: &::h2::Error) -> Fault {
        self.ended.set(true);
        match Fault::of_h2(error) {
            Fault::Malformed(error) => Fault::Malformed(error),
            _ => Fault::Refused,
        }
    }
}

impl Stream {
    /// An interim head or the final one, into `head`.
    pub fn poll_head(&mut self, cx: &mut Context<'_>, head: &mut Head) -> Poll<Result<(), Fault>> {
        let Answer::Pending(answer) = &mut self.answer else {
            return Poll::Ready(Err(Fault::Closed));
        };
        if let Poll::Ready(Some(Ok(interim))) = answer.poll_informational(cx) {
            message::read_response(&interim, head)?;
            return Poll::Ready(Ok(()));
        }
        match ready!(std::pin::Pin::new(answer).poll(cx)) {
            Ok(response) => {
                message::read_response(&response, head)?;
                self.answer = Answer::Begun(Incoming::new(response.into_body()));
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(Fault::of_h2(&error))),
        }
    }

    pub fn incoming(&mut self) -> Option<&mut Incoming> {
        match &mut self.answer {
            Answer::Begun(incoming) => Some(incoming),
            Answer::Pending(_) => None,
        }
    }

    pub fn chunk(&self) -> &[u8] {
        match &self.answer {
            Answer::Begun(incoming) => incoming.chunk(),
            Answer::Pending(_) => &[],
        }
    }

    pub fn outgoing(&mut self) -> Option<&mut Outgoing> {
        self.outgoing.as_mut()
    }

    pub fn reset(&mut self, code: Code) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.reset(code);
        }
    }
}
