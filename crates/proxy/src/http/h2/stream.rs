//! The two directions of one HTTP/2 stream, the same for servers and clients.
//!
//! Back-pressure: window is given back to the sender when the other side has *taken* the bytes (`consume`), so a stream
//! holds at most one window. What came as `Bytes` is passed on without a copy when the other side is HTTP/2 too.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use tulle_http::Head;
use tulle_http::h2::Code;

use crate::http::h2::message;
use crate::http::{Event, Fault};

/// The message that comes in.
pub struct Incoming {
    stream: RecvStream,
    chunk: Bytes,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Data,
    Trailers,
    Ended,
}

impl Incoming {
    pub fn new(stream: RecvStream) -> Self {
        let state = if stream.is_end_stream() {
            State::Ended
        } else {
            State::Data
        };
        Incoming {
            stream,
            chunk: Bytes::new(),
            state,
        }
    }

    pub fn is_ended(&self) -> bool {
        self.state == State::Ended && self.chunk.is_empty()
    }

    /// The next event; trailers are put into `trailers`.
    pub fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut Head,
    ) -> Poll<Result<Event, Fault>> {
        while self.chunk.is_empty() {
            match self.state {
                State::Ended => return Poll::Ready(Ok(Event::End)),
                State::Trailers => {
                    let fields = ready!(self.stream.poll_trailers(cx))
                        .map_err(|error| Fault::of_h2(&error))?;
                    self.state = State::Ended;
                    if let Some(fields) = fields {
                        message::read_trailers(&fields, trailers).map_err(Fault::Malformed)?;
                        return Poll::Ready(Ok(Event::Trailers));
                    }
                }
                State::Data => match ready!(self.stream.poll_data(cx)) {
                    Some(Ok(chunk)) => self.chunk = chunk,
                    Some(Err(error)) => return Poll::Ready(Err(Fault::of_h2(&error))),
                    None => self.state = State::Trailers,
                },
            }
        }
        Poll::Ready(Ok(Event::Data))
    }

    pub fn chunk(&self) -> &[u8] {
        &self.chunk
    }

    /// The first `count` bytes have been passed on: their window goes back to the sender.
    pub fn consume(&mut self, count: usize) {
        bytes::Buf::advance(&mut self.chunk, count);
        if self.chunk.is_empty() {
            // An empty chunk still shares the connection's read buffer, which could then not be used again.
            self.chunk = Bytes::new();
        }
        // Fails only on a stream that has ended, where nobody waits for window.
        let _ended = self.stream.flow_control().release_capacity(count);
    }
}

/// The message that goes out.
pub struct Outgoing {
    stream: SendStream<Bytes>,
}

impl Outgoing {
    pub fn new(stream: SendStream<Bytes>) -> Self {
        Outgoing { stream }
    }

    /// How many bytes may be sent now, at most `wanted`; pending until at least one may.
    pub fn poll_capacity(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<Result<usize, Fault>> {
        self.stream.reserve_capacity(wanted);
        loop {
            let capacity = self.stream.capacity();
            if capacity > 0 {
                return Poll::Ready(Ok(capacity.min(wanted)));
            }
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(Fault::of_h2(&error))),
                None => return Poll::Ready(Err(Fault::Closed)),
            }
        }
    }

    pub fn send(&mut self, data: &[u8], end: bool) -> Result<(), Fault> {
        self.stream
            .send_data(Bytes::copy_from_slice(data), end)
            .map_err(|error| Fault::of_h2(&error))
    }

    pub fn send_trailers(&mut self, trailers: &Head) -> Result<(), Fault> {
        let fields = message::write_trailers(trailers).map_err(Fault::Malformed)?;
        self.stream
            .send_trailers(fields)
            .map_err(|error| Fault::of_h2(&error))
    }

    pub fn reset(&mut self, code: Code) {
        self.stream.send_reset(code.0.into());
    }

    /// Ready when the peer does not want this stream any more.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        match ready!(self.stream.poll_reset(cx)) {
            Ok(reason) => Poll::Ready(Fault::of_code(Code(reason.into()))),
            Err(error) => Poll::Ready(Fault::of_h2(&error)),
        }
    }
}
