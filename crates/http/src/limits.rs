//! The bounds of the codec, all of them, in one place. Each is checked while bytes arrive, never after they were kept.

/// What one HTTP/1.1 connection may make us hold or do. Over a bound the message is refused with the status named here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets of a message head, start line and last empty line included (431; 414 while still in the request line).
    pub head_bytes: usize,
    /// Field lines of a head or of a trailer section (431). At most [`Limits::MAX_FIELDS`].
    pub fields: usize,
    /// Octets of a request target (414).
    pub target_bytes: usize,
    /// Octets of a trailer section (431).
    pub trailer_bytes: usize,
    /// Octets of chunk extensions in one chunk line (400).
    pub chunk_extension_bytes: usize,
    /// Octets of chunk extensions in one message (400).
    pub chunk_extensions_total: usize,
    /// Interim (1xx) responses before the final one (502).
    pub interim_responses: u8,
    /// Empty lines tolerated before a request line (RFC 9112 §2.2) (400).
    pub leading_empty_lines: u8,
}

impl Limits {
    /// The size of the table that the tokeniser fills on the stack: no configuration may ask for more fields.
    pub const MAX_FIELDS: usize = 256;
    /// Field lines of a trailer section, whatever `fields` allows.
    pub const MAX_TRAILER_FIELDS: usize = 64;
    /// Octets that a [`Head`](crate::Head) may hold whatever the codec allowed: edits append to its buffer.
    pub const MAX_HEAD_BUFFER: usize = 1 << 20;
    /// Octets of buffer that an emptied [`Head`](crate::Head) keeps: one large message must not cost
    /// its memory for the rest of a connection.
    pub const KEPT_HEAD_BUFFER: usize = 8 * 1024;
    /// Fields of table that it keeps; see [`Limits::KEPT_HEAD_BUFFER`].
    pub const KEPT_FIELDS: usize = 64;
    /// Options in all Connection fields of a message (400): each is compared with each field.
    pub const MAX_CONNECTION_OPTIONS: usize = 32;
    /// The longest method we take: the registry's longest has 17 octets.
    pub const MAX_METHOD: usize = 32;
    /// What a request line holds beside its target: method, two spaces, the version.
    pub(crate) const REQUEST_LINE_SLACK: usize = Self::MAX_METHOD + 2 + 8;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 64 * 1024,
            fields: Self::MAX_FIELDS,
            target_bytes: 32 * 1024,
            trailer_bytes: 16 * 1024,
            chunk_extension_bytes: 256,
            chunk_extensions_total: 16 * 1024,
            interim_responses: 16,
            leading_empty_lines: 4,
        }
    }
}
