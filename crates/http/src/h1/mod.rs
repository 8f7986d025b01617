//! HTTP/1.1 (RFC 9112): `decode` (bytes to events), `encode` (heads and bodies to bytes), and what they are made of:
//! `lines` (where a head ends), `parse` (a complete one to a [`Head`](crate::Head)), `target` (the four forms of a
//! request target), `fault` (what was wrong), `framing` (what a head says about its body and its connection), `chunk`
//! (the chunked coding), `phrase`. All but the first two are pure functions.

mod chunk;
mod decode;
mod encode;
mod fault;
mod framing;
mod lines;
mod parse;
mod phrase;
mod target;

pub use decode::{Asked, Decoder, Eof, Event};
pub use encode::{Answering, BodyWriter, EncodeError, Persist, encode_request, encode_response};
pub use framing::{BodyKind, Framing};
