//! # HPACK: the header compression of HTTP/2 (RFC 7541)
//!
//! Bytes in, fields out, and back; no I/O. A connection keeps one [`Decoder`] and one [`Encoder`]; both live as long as
//! the connection does, for their dynamic tables are the connection's state.
//!
//! ```
//! use tulle_http::hpack::{Decoder, Encoder, Limits};
//!
//! let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096));
//! for expected in [21, 2] {
//!     let mut block = Vec::new();
//!     encoder.begin_block(&mut block);
//!     encoder.encode_field(b":method", b"GET", &mut block);
//!     encoder.encode_field(b"x-mesh", b"web.emojivoto", &mut block);
//!     // The second time both are references into tables.
//!     assert!(block.len() <= expected);
//!     let mut fields = Vec::new();
//!     decoder.decode(&block, &Limits::default(), |field| fields.push((field.name.to_vec(), field.value.to_vec())))?;
//!     assert_eq!(fields[1], (b"x-mesh".to_vec(), b"web.emojivoto".to_vec()));
//! }
//! # Ok::<(), tulle_http::hpack::Error>(())
//! ```
//!
//! The story in the order of the files: `integer` and `huffman` are the two primitive codings, `known` the static table
//! with what the encoder thinks of each name, `table` the dynamic table (one byte arena, for both directions), `decode`
//! and `encode` the two state machines.
//!
//! Cost: no allocation in steady state (`tests/hpack_allocations.rs`), at most twice the table size plus 12 octets per
//! entry (28 in the encoder) held per direction, and nothing before the first field. A table hit is handed to the
//! caller as borrowed slices. Instructions per block are in docs/performance.md (`examples/hpack_count.rs`).

use std::fmt;

mod decode;
mod encode;
mod huffman;
mod integer;
mod known;
mod table;

pub use decode::Decoder;
pub use encode::Encoder;

/// The table size that both sides begin with: the default of SETTINGS_HEADER_TABLE_SIZE (RFC 9113 §6.5.2), in octets.
pub const DEFAULT_TABLE_SIZE: usize = 4096;

/// The largest table that a [`Decoder`] or an [`Encoder`] may be asked to keep, in octets.
pub const MAX_TABLE_SIZE: usize = 1 << 20;

/// What each entry of a dynamic table, and each field of a header list, costs beside its octets (RFC 7541 §4.1).
pub const FIELD_OVERHEAD: usize = 32;

/// A field of a header list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as it was sent: any octets; the caller checks them.
    pub name: &'a [u8],
    /// The value as it was sent: any octets; the caller checks them.
    pub value: &'a [u8],
    /// True when the sender forbade that any hop put this field into a table (RFC 7541 §6.2.3): it must leave through
    /// [`Encoder::encode_sensitive`].
    pub sensitive: bool,
}

/// What one header block may unfold to. Checked while it unfolds: what is over a bound is never handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets of names and values plus [`FIELD_OVERHEAD`] per field, as SETTINGS_MAX_HEADER_LIST_SIZE counts.
    pub list_size: usize,
    /// Fields, pseudo fields and each crumb of a cookie included.
    pub fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let h1 = crate::Limits::default();
        Self {
            list_size: h1.head_bytes,
            fields: h1.fields,
        }
    }
}

/// Why a header block was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// The block ends inside a representation.
    Truncated,
    /// An integer above what any length or index here can be, or with needless octets (RFC 7541 §5.1).
    Integer,
    /// An index of zero, or beyond both tables (§2.3.3).
    Index,
    /// A table size above SETTINGS_HEADER_TABLE_SIZE (§6.3).
    SizeUpdateTooLarge,
    /// A table size after the first field of a block (§4.2).
    SizeUpdateLate,
    /// We lowered SETTINGS_HEADER_TABLE_SIZE and the next block does not begin with a table size (§4.2).
    SizeUpdateMissing,
    /// The end-of-string symbol inside a string (§5.2).
    HuffmanEos,
    /// More than seven bits of padding, or padding that is not all ones (§5.2).
    HuffmanPadding,
    /// The list is larger than [`Limits::list_size`]. The table is in step: the connection may live on.
    ListTooLarge,
    /// The list has more than [`Limits::fields`]. The table is in step: the connection may live on.
    TooManyFields,
}

impl Error {
    /// True when the two tables may differ from here on: the connection ends with COMPRESSION_ERROR (RFC 9113 §4.3).
    /// Otherwise only this message is refused.
    #[must_use]
    pub fn is_connection_error(self) -> bool {
        !matches!(self, Self::ListTooLarge | Self::TooManyFields)
    }

    /// A stable text, lower case, without data from the wire.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Truncated => "header block ends inside a field",
            Self::Integer => "header block integer too large",
            Self::Index => "header table index out of range",
            Self::SizeUpdateTooLarge => "header table size above the setting",
            Self::SizeUpdateLate => "header table size after a field",
            Self::SizeUpdateMissing => "header table size not lowered as the setting asks",
            Self::HuffmanEos => "end of string inside a Huffman coded string",
            Self::HuffmanPadding => "invalid Huffman padding",
            Self::ListTooLarge => "header list too large",
            Self::TooManyFields => "too many header fields",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Error {}
