//! The two sides of an exchange: [`Downstream`] towards the caller, [`Upstream`] towards the server. Each is HTTP/1 or
//! HTTP/2; the exchange does not ask which.

use std::task::{Context, Poll};

use tulle_http::h1::{Answering, BodyKind, Framing, Persist};
use tulle_http::h2::Code;
use tulle_http::{Head, Known};

use crate::drain::Guard;
use crate::http::h1;
use crate::http::h2::stream::Stream;
use crate::http::{Event, Fault};

/// Where the request comes from and the answer goes to.
pub enum Downstream<'a> {
    H1 {
        connection: &'a mut h1::Connection,
        request: Framing,
        answering: Answering,
        /// Tells whether the process is going away: the answer then says so.
        guard: &'a Guard,
        /// This answer is the connection's last for another reason.
        close: bool,
    },
    H2(Stream),
}

/// Where the request goes to and the answer comes from.
pub enum Upstream {
    H1(Box<h1::Connection>),
    H2(Stream),
}

/// What follows an answer's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 1xx: another head follows.
    Interim,
    /// Head and, unless `None`, a body.
    Final(BodyKind),
    /// 101, or 2xx to CONNECT: the connection is a tunnel now.
    Tunnel,
}

/// How the body of a message is framed when it leaves in HTTP/1: by its length if it was said.
pub fn body_kind(head: &Head, ended: bool) -> BodyKind {
    match tulle_http::translate::declared_length(head) {
        // Said to be empty is not the same as not there.
        Ok(Some(0)) => BodyKind::Length(0),
        _ if ended => BodyKind::None,
        Ok(Some(length)) => BodyKind::Length(length),
        _ => BodyKind::Chunked,
    }
}

impl Downstream<'_> {
    /// How the request's body is framed.
    pub fn request_body(&self, head: &Head) -> BodyKind {
        match self {
            Downstream::H1 { request, .. } => request.body,
            Downstream::H2(stream) => body_kind(head, stream.is_ended()),
        }
    }

    /// The request asks to leave HTTP/1 (Upgrade or CONNECT), and this side can.
    pub fn asks_tunnel(&self) -> bool {
        matches!(self, Downstream::H1 { request, .. } if request.upgrade)
    }

    pub fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut Head,
    ) -> Poll<Result<Event, Fault>> {
        match self {
            Downstream::H1 { connection, .. } => connection.poll_event(cx, trailers),
            Downstream::H2(stream) => stream.poll_event(cx, trailers),
        }
    }

    /// The bytes that the last [`Event::Data`] told of.
    pub fn chunk(&self) -> &[u8] {
        match self {
            Downstream::H1 { connection, .. } => connection.chunk(),
            Downstream::H2(stream) => stream.chunk(),
        }
    }

    pub fn consume(&mut self, count: usize) {
        match self {
            Downstream::H1 { connection, .. } => connection.consume(count),
            Downstream::H2(stream) => stream.consume(count),
        }
    }

    /// Begins the answer. `body` as it came; fields of the old hop have been removed from `head`.
    pub fn send_head(&mut self, head: &Head, answer: Answer) -> Result<(), Fault> {
        match (self, answer) {
            (
                Downstream::H1 {
                    connection,
                    answering,
                    guard,
                    close,
                    ..
                },
                answer,
            ) => {
                let (body, persist) = match answer {
                    Answer::Interim => (BodyKind::None, Persist::KeepAlive),
                    Answer::Tunnel => (BodyKind::UntilClose, Persist::Upgrade),
                    Answer::Final(body) => {
                        let last = *close || guard.is_draining() || !connection.persists();
                        (
                            body,
                            if last {
                                Persist::Close
                            } else {
                                Persist::KeepAlive
                            },
                        )
                    }
                };
                connection.send_response(head, *answering, body, persist)
            }
            (Downstream::H2(stream), Answer::Interim) => stream.send_head(head, false),
            (Downstream::H2(stream), Answer::Final(body)) => {
                stream.send_head(head, matches!(body, BodyKind::None | BodyKind::Length(0)))
            }
            // Not asked for: see `asks_tunnel`.
            (Downstream::H2(_), Answer::Tunnel) => {
                Err(Fault::Malformed(tulle_http::Error::UnexpectedUpgrade))
            }
        }
    }

    pub fn poll_capacity(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<Result<usize, Fault>> {
        match self {
            Downstream::H1 { connection, .. } => connection.poll_capacity(cx, wanted),
            Downstream::H2(stream) => stream.poll_capacity(cx, wanted),
        }
    }

    pub fn send(&mut self, data: &[u8]) -> Result<(), Fault> {
        match self {
            Downstream::H1 { connection, .. } => connection.send(data),
            Downstream::H2(stream) => stream.send(data),
        }
    }

    pub fn finish(&mut self, trailers: Option<&Head>) -> Result<(), Fault> {
        match self {
            Downstream::H1 { connection, .. } => connection.finish(trailers),
            Downstream::H2(stream) => stream.finish(trailers),
        }
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        match self {
            Downstream::H1 { connection, .. } => connection.poll_flush(cx),
            // Its connection's task writes.
            Downstream::H2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Ready when the caller does not wait any more.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        match self {
            Downstream::H1 { connection, .. } => connection.poll_gone(cx),
            Downstream::H2(stream) => stream.poll_gone(cx),
        }
    }

    /// The same before the request's body has been asked for.
    pub fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        match self {
            Downstream::H1 { connection, .. } => connection.poll_left(cx),
            Downstream::H2(stream) => stream.poll_gone(cx),
        }
    }

    /// Cuts the exchange: the caller must not take what it got for complete.
    pub fn cut(&mut self, fault: Fault) {
        match self {
            Downstream::H1 { connection, .. } => connection.poison(),
            Downstream::H2(stream) => stream.reset(fault.to_code()),
        }
    }

    /// Tells the caller to send its body (`100 Continue`) where the server does not.
    pub fn go_on(&mut self) -> Result<(), Fault> {
        let mut head = Head::new();
        head.set_status(100)?;
        self.send_head(&head, Answer::Interim)
    }

    /// HTTP/1: this answer is the connection's last.
    pub fn close_after(&mut self) {
        if let Downstream::H1 { close, .. } = self {
            *close = true;
        }
    }
}

impl Upstream {
    /// An HTTP/1 connection with the request's head written on it.
    pub fn h1(
        mut connection: Box<h1::Connection>,
        head: &Head,
        body: BodyKind,
        upgrade: bool,
    ) -> Result<Self, Fault> {
        connection.send_request(head, body, upgrade)?;
        Ok(Upstream::H1(connection))
    }

    /// The next head of the answer.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut Head,
    ) -> Poll<Result<Answer, Fault>> {
        match self {
            Upstream::H1(connection) => {
                connection
                    .poll_response(cx, head)
                    .map_ok(|framing| match framing {
                        Framing { interim: true, .. } => Answer::Interim,
                        Framing { upgrade: true, .. } => Answer::Tunnel,
                        Framing { body, .. } => Answer::Final(body),
                    })
            }
            Upstream::H2(stream) => stream.poll_head(cx, head).map_ok(|()| match head.status() {
                100..=199 => Answer::Interim,
                204 | 304 => Answer::Final(BodyKind::None),
                _ => Answer::Final(body_kind(head, stream.is_ended())),
            }),
        }
    }

    pub fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut Head,
    ) -> Poll<Result<Event, Fault>> {
        match self {
            Upstream::H1(connection) => connection.poll_event(cx, trailers),
            Upstream::H2(stream) => stream.poll_event(cx, trailers),
        }
    }

    /// The bytes that the last [`Event::Data`] told of.
    pub fn chunk(&self) -> &[u8] {
        match self {
            Upstream::H1(connection) => connection.chunk(),
            Upstream::H2(stream) => stream.chunk(),
        }
    }

    pub fn consume(&mut self, count: usize) {
        match self {
            Upstream::H1(connection) => connection.consume(count),
            Upstream::H2(stream) => stream.consume(count),
        }
    }

    pub fn poll_capacity(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<Result<usize, Fault>> {
        match self {
            Upstream::H1(connection) => connection.poll_capacity(cx, wanted),
            Upstream::H2(stream) => stream.poll_capacity(cx, wanted),
        }
    }

    pub fn send(&mut self, data: &[u8]) -> Result<(), Fault> {
        match self {
            Upstream::H1(connection) => connection.send(data),
            Upstream::H2(stream) => stream.send(data),
        }
    }

    pub fn finish(&mut self, trailers: Option<&Head>) -> Result<(), Fault> {
        match self {
            Upstream::H1(connection) => connection.finish(trailers),
            Upstream::H2(stream) => stream.finish(trailers),
        }
    }

    /// Has what was gathered to wait for its turn, which then comes by itself?
    pub fn defers(&mut self, cx: &Context<'_>) -> bool {
        match self {
            Upstream::H1(connection) => connection.defers(cx),
            // Its connection's task writes.
            Upstream::H2(_) => false,
        }
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        match self {
            Upstream::H1(connection) => connection.poll_flush(cx),
            Upstream::H2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Gives the exchange up: HTTP/1 loses its connection, HTTP/2 the stream.
    pub fn cancel(&mut self, code: Code) {
        match self {
            Upstream::H1(connection) => connection.poison(),
            Upstream::H2(stream) => stream.reset(code),
        }
    }
}

/// Does a request's body, if any, have to be seen by the server before anybody may send the request again?
pub fn has_body(body: BodyKind) -> bool {
    !matches!(body, BodyKind::None | BodyKind::Length(0))
}

/// The caller waits for `100 Continue` before it sends its body.
pub fn expects_continue(head: &Head) -> bool {
    head.known(Known::Expect)
        .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
}
