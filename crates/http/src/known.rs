//! The field names that steer framing, routing or hop-by-hop handling. A [`Head`](crate::Head) tags its fields with
//! them when they enter, so the questions of the hot path ("is there a Connection header?") are one bit test.

macro_rules! known {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal ),* $(,)?) => {
        /// A field name that the codec itself acts on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Known { $( $(#[$doc])* $variant, )* }

        impl Known {
            /// All of them, in declaration order.
            pub const ALL: &'static [Known] = &[ $( Known::$variant, )* ];

            /// The lower-case name.
            #[must_use]
            pub fn name(self) -> &'static str { match self { $( Known::$variant => $name, )* } }

            /// The tag of a lower-case name.
            #[must_use]
            pub fn of(name: &[u8]) -> Option<Known> {
                // Most names have a length that none of these has: one table look-up decides.
                const LENGTHS: u32 = 0 $( | 1 << $name.len() )*;
                if name.len() > 31 || LENGTHS & (1 << name.len()) == 0 {
                    return None;
                }
                $( if name == $name.as_bytes() { return Some(Known::$variant); } )*
                None
            }
        }
    };
}

known! {
    /// Kept as the authority of the head, never as a field of a request.
    Host = "host",
    /// Names fields and options for this hop only.
    Connection = "connection",
    /// Framing by length.
    ContentLength = "content-length",
    /// Framing by chunks.
    TransferEncoding = "transfer-encoding",
    /// Asks for, or agrees to, another protocol.
    Upgrade = "upgrade",
    /// `100-continue`.
    Expect = "expect",
    /// `trailers`, or transfer codings for this hop.
    Te = "te",
    /// HTTP/1.0 persistence parameters.
    KeepAlive = "keep-alive",
    /// What browsers once sent to explicit proxies.
    ProxyConnection = "proxy-connection",
    /// The payload of an h2c upgrade.
    Http2Settings = "http2-settings",
    /// Split in HTTP/2, joined in HTTP/1.
    Cookie = "cookie",
}

impl Known {
    pub(crate) fn bit(self) -> u32 {
        1 << (self as u8)
    }
}

/// A set of [`Known`] names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KnownSet(u32);

impl KnownSet {
    pub(crate) fn insert(&mut self, known: Known) {
        self.0 |= known.bit();
    }

    pub(crate) fn remove(&mut self, known: Known) {
        self.0 &= !known.bit();
    }

    pub(crate) fn contains(self, known: Known) -> bool {
        self.0 & known.bit() != 0
    }

    pub(crate) fn intersects(self, other: KnownSet) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) const fn of(known: &[Known]) -> KnownSet {
        let (mut set, mut i) = (0, 0);
        while i < known.len() {
            set |= 1 << (known[i] as u8);
            i += 1;
        }
        KnownSet(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_again() {
        for &known in Known::ALL {
            assert_eq!(Known::of(known.name().as_bytes()), Some(known));
        }
        assert_eq!(Known::of(b"x-other"), None);
        assert_eq!(Known::of(b""), None);
    }
}
