//! # tulle-http: the HTTP codecs of the sidecar, without any I/O
//!
//! Bytes in, events out, and back. Nothing here knows a socket, a clock, a task or a route; nothing is `unsafe`, and
//! nothing is allocated per message in steady state. A connection driver owns the buffers and asks:
//!
//! ```
//! use bytes::BytesMut;
//! use tulle_http::{Head, Limits, h1};
//!
//! let mut decoder = h1::Decoder::server(Limits::default());
//! let mut head = Head::new();
//! let mut input = BytesMut::from(&b"GET /emoji HTTP/1.1\r\nHost: voting\r\n\r\n"[..]);
//! let h1::Event::Head(framing) = decoder.next(&mut input, &mut head)? else { panic!() };
//! assert_eq!((head.path(), head.authority(), framing.keep_alive), (&b"/emoji"[..], Some(&b"voting"[..]), true));
//! assert_eq!(decoder.next(&mut input, &mut head)?, h1::Event::End);
//!
//! tulle_http::hop::strip(&mut head, tulle_http::hop::UpgradeField::Drop);
//! let mut out = Vec::new();
//! let body = h1::encode_request(&head, framing.body, h1::Persist::KeepAlive, &mut out)?;
//! body.finish(None, &mut out)?;
//! assert_eq!(out, b"GET /emoji HTTP/1.1\r\nhost: voting\r\n\r\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The story in the order of the files: a [`Head`] (`head`) is one buffer with offsets, shared by HTTP/1 and HTTP/2,
//! and can only hold what `grammar` allows: so what is *written* from it is safe whatever was *read*. `known` tags the
//! names that matter to a proxy. `h1` turns bytes into heads and bodies and back, and refuses what two parsers could
//! read differently: this is where request smuggling ends. `hpack` is the header compression of HTTP/2, `h2` its
//! frames, streams and windows. `translate` judges a head that crosses between HTTP/2 and HTTP/1, `hop` takes away what
//! concerned one hop only, `l5d` what outsiders may not say to a mesh, `trace_context` which trace a request belongs
//! to. `limits` holds every bound, `error` every refusal with its status and text.
//!
//! Strict by default, and deliberately more than RFC 9112 demands: no folding, no bare LF, no lenient length, no coding
//! but `chunked`, one Host, upper-case methods. `tests/smuggling/` is the list; `tests/differential.rs` holds us
//! against hyper.

#![warn(missing_docs)]

pub mod error;
pub mod grammar;
pub mod h1;
pub mod h2;
pub mod head;
pub mod hop;
pub mod hpack;
mod known;
pub mod l5d;
mod limits;
pub mod trace_context;
pub mod translate;

pub use error::Error;
pub use head::{Head, MethodKind, TargetForm, Version};
pub use known::Known;
pub use limits::Limits;
