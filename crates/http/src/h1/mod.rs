//! HTTP/1.1 (RFC 9112): `decode` (bytes to events), `encode` (heads and bodies to bytes), and what they are made of:
//! `parse` (a complete head block to a [`Head`](crate::Head)), `framing` (what the head says about its body and its
//! connection: pure), `chunk` (the chunked coding).

mod chunk;
mod decode;
mod encode;
mod framing;
mod parse;
mod phrase;

pub use decode::{Asked, Decoder, Eof, Event};
pub use encode::{Answering, BodyWriter, EncodeError, Persist, encode_request, encode_response};
pub use framing::{BodyKind, Framing};
