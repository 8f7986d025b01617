//! A connection on which the peer sends HTTP/2 requests: one task that accepts streams, drives the codec, keeps the
//! connection alive and drains it. Every stream is handed to a task of its own.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;
use tulle_http::h2::Code;
use tulle_http::{Error, Head};

use crate::drain::Guard;
use crate::http::Fault;
use crate::http::h2::stream::{Incoming, Outgoing};
use crate::http::h2::{Settings, keepalive::Keepalive, message};
use crate::net::io::Io;

/// A request's stream, before its answer has begun and after.
pub struct Stream {
    pub incoming: Incoming,
    answer: Answer,
}

enum Answer {
    Pending(SendResponse<Bytes>),
    Begun(Outgoing),
    /// The head was everything.
    Whole,
}

/// Serves until the peer leaves or draining has finished. `on_stream` is called for every request, with the head as the
/// peer sent it; it spawns what answers.
pub async fn serve(
    io: Io,
    settings: Settings,
    mut guard: Guard,
    mut on_stream: impl FnMut(Request<()>, Stream),
) -> Result<(), Fault> {
    let mut connection = ::h2::server::Builder::new()
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_concurrent_streams(settings.max_concurrent_streams)
        .max_header_list_size(settings.max_header_list)
        .max_frame_size(settings.max_frame)
        .max_pending_accept_reset_streams(settings.max_pending_resets)
        .max_send_buffer_size(settings.max_send_buffer)
        .handshake::<_, Bytes>(io)
        .await
        .map_err(|error| Fault::of_h2(&error))?;
    let mut keepalive = Keepalive::new(connection.ping_pong(), settings);
    let draining = guard.draining();
    let mut draining = std::pin::pin!(draining);
    let mut drain_begun = false;
    loop {
        let accepted = poll_fn(|cx| {
            if !drain_begun && draining.as_mut().poll(cx).is_ready() {
                drain_begun = true;
                connection.graceful_shutdown();
            }
            match connection.poll_accept(cx) {
                Poll::Ready(accepted) => Poll::Ready(Ok(accepted)),
                Poll::Pending => keepalive.poll_dead(cx).map(|()| Err(Fault::Timeout)),
            }
        })
        .await?;
        match accepted {
            None => return Ok(()),
            Some(Err(error)) => return Err(Fault::of_h2(&error)),
            Some(Ok((request, respond))) => {
                let (parts, body) = request.into_parts();
                on_stream(Request::from_parts(parts, ()), Stream::new(body, respond));
            }
        }
    }
}

impl Stream {
    fn new(body: RecvStream, respond: SendResponse<Bytes>) -> Self {
        Stream {
            incoming: Incoming::new(body),
            answer: Answer::Pending(respond),
        }
    }

    /// Fills `head` from the request.
    pub fn read_head(request: &Request<()>, head: &mut Head) -> Result<(), Error> {
        message::read_request(request, head)
    }

    pub fn send_interim(&mut self, head: &Head) -> Result<(), Fault> {
        match &mut self.answer {
            Answer::Pending(respond) => {
                let response = message::write_response(head)?;
                respond
                    .send_informational(response)
                    .map_err(|error| Fault::of_h2(&error))
            }
            _ => Ok(()),
        }
    }

    /// Begins the answer; `end`: it has no body.
    pub fn send_head(&mut self, head: &Head, end: bool) -> Result<(), Fault> {
        let Answer::Pending(respond) = &mut self.answer else {
            return Err(Fault::Closed);
        };
        let response = message::write_response(head)?;
        let stream = respond
            .send_response(response, end)
            .map_err(|error| Fault::of_h2(&error))?;
        self.answer = if end {
            Answer::Whole
        } else {
            Answer::Begun(Outgoing::new(stream))
        };
        Ok(())
    }

    pub fn outgoing(&mut self) -> Option<&mut Outgoing> {
        match &mut self.answer {
            Answer::Begun(outgoing) => Some(outgoing),
            _ => None,
        }
    }

    pub fn reset(&mut self, code: Code) {
        match &mut self.answer {
            Answer::Pending(respond) => respond.send_reset(code.0.into()),
            Answer::Begun(outgoing) => outgoing.reset(code),
            Answer::Whole => {}
        }
    }

    /// Ready when the caller does not want the answer any more.
    pub fn poll_gone(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Fault> {
        match &mut self.answer {
            Answer::Pending(respond) => respond.poll_reset(cx).map(|reset| match reset {
                Ok(reason) => Fault::of_code(Code(reason.into())),
                Err(error) => Fault::of_h2(&error),
            }),
            Answer::Begun(outgoing) => outgoing.poll_reset(cx),
            Answer::Whole => Poll::Pending,
        }
    }
}
