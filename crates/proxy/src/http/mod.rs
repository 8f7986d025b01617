//! HTTP between two connections, through one event-shaped seam.
//!
//! A message is a [`Head`](tulle_http::Head) and then events: [`Event::Data`] (the bytes wait in the side's `chunk`),
//! [`Event::Trailers`], [`Event::End`], or a [`Fault`]. Both sides of an exchange, HTTP/1 (`h1`, on `tulle_http`) and
//! HTTP/2 (`h2`), speak only this; `exchange` moves the events across and knows neither codec. What is written is
//! gathered per connection and leaves in one write per scheduler round.

pub mod account;
pub mod answer;
pub mod buffers;
pub mod decision;
pub mod exchange;
pub mod expectation;
pub mod fault;
pub mod h1;
pub mod h2;
pub mod origin;
pub mod replay;
pub mod serve;
pub mod side;
pub mod stall;
pub mod time_left;

use std::io;

use tulle_http::h2::Code;

/// What comes next of a message whose head has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Data,
    Trailers,
    End,
}

/// How a message, a stream or a connection ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The peer reset the stream with this HTTP/2 code.
    Reset(Code),
    /// The peer has not looked at the request and never will: it may be sent again.
    Refused,
    /// The connection ended, or an error on it did.
    Closed,
    Io(io::ErrorKind),
    /// The peer broke a rule of HTTP.
    Malformed(tulle_http::Error),
    /// Too slow.
    Timeout,
}

impl Fault {
    /// The connection ended under it.
    pub fn is_closed(self) -> bool {
        matches!(self, Fault::Closed | Fault::Io(_))
    }

    /// The connection was cut off rather than ended.
    pub fn is_reset(self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        matches!(
            self,
            Fault::Io(BrokenPipe | ConnectionAborted | ConnectionReset)
        )
    }

    /// The code to reset the other side's stream with.
    pub fn to_code(self) -> Code {
        match self {
            Fault::Reset(reason) => reason,
            Fault::Refused => Code::REFUSED_STREAM,
            Fault::Closed | Fault::Io(_) => Code::INTERNAL_ERROR,
            Fault::Malformed(_) => Code::PROTOCOL_ERROR,
            Fault::Timeout => Code::CANCEL,
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error.kind())
    }
}

impl From<tulle_http::Error> for Fault {
    fn from(error: tulle_http::Error) -> Self {
        Fault::Malformed(error)
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Reset(reason) => write!(f, "stream reset: {reason}"),
            Fault::Refused => f.write_str("request refused by the peer"),
            Fault::Closed => f.write_str("connection closed"),
            Fault::Io(kind) => write!(f, "{kind}"),
            Fault::Malformed(error) => write!(f, "{error}"),
            Fault::Timeout => f.write_str("too slow"),
        }
    }
}
