//! Why a stream or a connection was ended, as HTTP/2 says it (RFC 9113 §7).

use std::fmt;

/// An error code of RST_STREAM and GOAWAY. Codes that nobody has registered are carried as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

macro_rules! codes {
    ($( $(#[$doc:meta])* $name:ident = $value:literal, $text:literal; )*) => {
        impl Code {
            $( $(#[$doc])* pub const $name: Code = Code($value); )*

            /// The registered name, or `unknown`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self.0 { $( $value => stringify!($name), )* _ => "unknown" }
            }

            /// A short text for people.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self.0 { $( $value => $text, )* _ => "unknown reason" }
            }
        }
    };
}

codes! {
    /// Not an error: a graceful end, or "I need no more of it".
    NO_ERROR = 0, "not a result of an error";
    /// A rule of the protocol was broken.
    PROTOCOL_ERROR = 1, "protocol error";
    /// The endpoint itself failed.
    INTERNAL_ERROR = 2, "internal error";
    /// A window was exceeded.
    FLOW_CONTROL_ERROR = 3, "flow-control protocol violated";
    /// SETTINGS were not acknowledged in time.
    SETTINGS_TIMEOUT = 4, "settings not acknowledged in time";
    /// A frame for a stream that has ended.
    STREAM_CLOSED = 5, "frame on a stream that has ended";
    /// A frame of a wrong size.
    FRAME_SIZE_ERROR = 6, "frame of an invalid size";
    /// The request was not looked at: it may be sent again.
    REFUSED_STREAM = 7, "request refused before it was looked at";
    /// The stream is not needed any more.
    CANCEL = 8, "stream no longer needed";
    /// The compression state is lost.
    COMPRESSION_ERROR = 9, "header compression state lost";
    /// The connection of a CONNECT request was reset.
    CONNECT_ERROR = 10, "tunnel connection reset";
    /// The peer costs more than it should.
    ENHANCE_YOUR_CALM = 11, "peer generates excessive load";
    /// The transport is not secure enough.
    INADEQUATE_SECURITY = 12, "transport properties not sufficient";
    /// HTTP/1.1 is to be used.
    HTTP_1_1_REQUIRED = 13, "HTTP/1.1 required";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
