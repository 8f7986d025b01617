//! Why a message was refused: one enum, each variant with the status to answer and a stable reason text.
//! The texts go into `l5d-proxy-error`, logs and metrics labels: they are part of the interface, change them as such.

use std::fmt;

macro_rules! reasons {
    ($( $(#[$doc:meta])* $name:ident = $status:literal, $reason:literal; )*) => {
        /// A message that we refuse to carry on. After one of these the connection is closed: its framing is not trusted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Error { $( $(#[$doc])* $name, )* }

        impl Error {
            /// Every variant, for generated reference pages and exhaustive tests.
            pub const ALL: &'static [Error] = &[ $( Error::$name, )* ];

            /// The status to answer when a *request* was refused. A refused *response* is always answered 502 downstream.
            #[must_use]
            pub fn status(self) -> u16 { match self { $( Error::$name => $status, )* } }

            /// A stable text, lower case, without data from the wire.
            #[must_use]
            pub fn reason(self) -> &'static str { match self { $( Error::$name => $reason, )* } }
        }
    };
}

reasons! {
    /// A line ended by LF alone.
    BareLf = 400, "line ends with a bare LF";
    /// A CR that no LF follows.
    BareCr = 400, "bare CR";
    /// More empty lines before the request than tolerated.
    EmptyLines = 400, "too many empty lines before the request";
    /// The request line is not `method SP target SP version`.
    RequestLine = 400, "malformed request line";
    /// The method is not an upper-case token of reasonable length.
    Method = 400, "invalid method";
    /// The protocol is not HTTP/1.0 or HTTP/1.1.
    Version = 505, "unsupported HTTP version";
    /// The request target holds an octet that no URI may hold, or a fragment.
    Target = 400, "invalid request target";
    /// The form of the target does not fit the method (RFC 9112 §3.2).
    TargetForm = 400, "request target form not allowed for this method";
    /// The scheme is neither `http` nor `https`.
    Scheme = 400, "unknown scheme";
    /// CONNECT in HTTP/1.0, or without a port.
    Connect = 400, "invalid CONNECT request";
    /// The authority or Host is not `host[:port]`.
    Authority = 400, "invalid authority";
    /// More than one Host field.
    TwoHosts = 400, "more than one Host header";
    /// HTTP/1.1 without Host.
    NoHost = 400, "missing Host header";
    /// `:authority` and `host` differ.
    HostConflict = 400, "Host and authority differ";
    /// A field name is empty.
    EmptyName = 400, "empty header name";
    /// A field name holds an octet outside of `token`.
    Name = 400, "invalid header name";
    /// A field line without a colon.
    NoColon = 400, "header line without colon";
    /// White space between field name and colon.
    SpaceBeforeColon = 400, "space before colon in header";
    /// A folded field line (obs-fold).
    Fold = 400, "folded header line";
    /// A field value holds a control octet.
    Value = 400, "invalid header value";
    /// The head is larger than allowed.
    HeadTooLarge = 431, "message head too large";
    /// More field lines than allowed.
    TooManyFields = 431, "too many header fields";
    /// The request line is longer than allowed.
    TargetTooLong = 414, "request target too long";
    /// Content-Length is not one plain decimal number.
    ContentLength = 400, "invalid Content-Length";
    /// Content-Length more than once, or a list.
    ManyContentLengths = 400, "more than one Content-Length";
    /// Content-Length and Transfer-Encoding together.
    LengthAndTransferEncoding = 400, "both Content-Length and Transfer-Encoding";
    /// Transfer-Encoding more than once.
    ManyTransferEncodings = 400, "more than one Transfer-Encoding";
    /// Transfer-Encoding is not `chunked`.
    TransferEncoding = 400, "invalid Transfer-Encoding";
    /// A transfer coding that exists but that we do not carry.
    TransferCoding = 501, "unsupported transfer coding";
    /// Transfer-Encoding in an HTTP/1.0 message, or with a status that has no body.
    TransferEncodingNotAllowed = 400, "Transfer-Encoding not allowed here";
    /// An expectation other than `100-continue`.
    Expectation = 417, "unknown expectation";
    /// More options in Connection than [`Limits::MAX_CONNECTION_OPTIONS`](crate::Limits::MAX_CONNECTION_OPTIONS).
    ConnectionOptions = 400, "too many connection options";
    /// A chunk size line that is not hexadecimal digits and an optional extension.
    ChunkSize = 400, "invalid chunk size";
    /// A chunk size that does not fit.
    ChunkTooLarge = 400, "chunk size overflow";
    /// Chunk extensions beyond their bound, or with control octets.
    ChunkExtension = 400, "invalid or oversized chunk extension";
    /// Chunk data not followed by CRLF.
    ChunkEnd = 400, "chunk data not terminated by CRLF";
    /// The status line is malformed.
    StatusLine = 400, "malformed status line";
    /// Bytes from a server that was asked nothing.
    Unsolicited = 400, "response without a request";
    /// 101 that nobody asked for.
    UnexpectedUpgrade = 400, "unexpected 101 response";
    /// More 1xx responses than allowed.
    TooManyInterim = 400, "too many interim responses";
    /// A connection-specific field or an upper-case name in an HTTP/2 message.
    ConnectionSpecific = 400, "connection-specific header in HTTP/2";
    /// A pseudo header is missing, misplaced or malformed.
    PseudoHeader = 400, "invalid pseudo header";
    /// An extended CONNECT (RFC 8441) for a server that does not take it.
    NoTunnel = 501, "the server does not take extended CONNECT";
    /// A head that holds more than [`Limits::MAX_HEAD_BUFFER`](crate::Limits::MAX_HEAD_BUFFER).
    BufferFull = 431, "message head buffer full";
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Error {}
