//! # HTTP/2 without I/O (RFC 9113)
//!
//! A [`Connection`] is one end, client or server. Its driver hands it bytes and takes [`Event`]s; whoever has something
//! to send calls it; what is to be written gathers in one buffer ([`Connection::output`]), so that all streams of a round
//! leave in one write. It knows no socket, task or clock: the driver tells it the time.
//!
//! ```
//! use tulle_http::Head;
//! use tulle_http::h2::{Connection, Event, Settings};
//!
//! let (mut client, mut server) = (Connection::client(Settings::default()), Connection::server(Settings::default()));
//! let mut head = Head::new();
//! head.set_method(b"GET")?;
//! head.set_scheme(b"http")?;
//! head.set_authority(b"voting")?;
//! head.set_path(b"/emoji")?;
//! client.open(&head, true).expect("a new connection takes a stream");
//!
//! let mut wire = client.output();
//! assert!(matches!(server.next(&mut wire, &mut head), Ok(Event::Settings)));
//! let Ok(Event::Head { stream, end: true }) = server.next(&mut wire, &mut head) else { panic!() };
//! assert_eq!(head.path(), b"/emoji");
//! head.clear();
//! head.set_status(204)?;
//! server.send_head(stream, &head, true).expect("the stream is open");
//! # Ok::<(), tulle_http::Error>(())
//! ```
//!
//! The story in the order of the files: `code` names the errors, `frame` is the wire, `settings` what each end announces,
//! `stream` the table of streams, `patience` how much useless work a peer may cause. `connection` owns the state and the
//! output, `flow` shares window and output among streams that have DATA, `send` is what a user may do with a stream,
//! `receive` what a peer's frames do, `fields` turns header blocks into a [`Head`](crate::Head) and back.
//!
//! Cost: no allocation in steady state; a stream is a reused slot of about 100 octets, a body passes as borrowed slices.
//! Every queue has its bound: streams, header lists, continuation frames, windows in both directions, unread output,
//! control frames. What breaks a rule of one stream ends the stream, what breaks the connection ends it with GOAWAY.

mod code;
mod connection;
mod fields;
mod flow;
mod frame;
mod patience;
mod receive;
mod send;
mod settings;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod simulation;
mod stream;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use code::Code;
pub use connection::{Closed, Connection, ConnectionError, Event};
pub use settings::Settings;
pub use stream::{Ended, Key};
