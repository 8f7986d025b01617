//! Frames as they lie on the wire (RFC 9113 §4.1, §6): the header of nine octets, and how the small ones are written.

/// The largest payload that a frame can have.
pub(super) const MAX_FRAME: u32 = (1 << 24) - 1;
/// The largest flow-control window, and the largest stream identifier.
pub(super) const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Octets of a frame's header.
pub(super) const HEADER: usize = 9;
/// What a client sends first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) mod flag {
    pub(in crate::h2) const END_STREAM: u8 = 0x1;
    pub(in crate::h2) const ACK: u8 = 0x1;
    pub(in crate::h2) const END_HEADERS: u8 = 0x4;
    pub(in crate::h2) const PADDED: u8 = 0x8;
    pub(in crate::h2) const PRIORITY: u8 = 0x20;
}

pub(super) mod setting {
    pub(in crate::h2) const HEADER_TABLE_SIZE: u16 = 1;
    pub(in crate::h2) const ENABLE_PUSH: u16 = 2;
    pub(in crate::h2) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(in crate::h2) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(in crate::h2) const MAX_FRAME_SIZE: u16 = 5;
    pub(in crate::h2) const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub(in crate::h2) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// An extension that we do not know: ignored.
    Unknown,
}

impl Kind {
    fn of(octet: u8) -> Kind {
        match octet {
            0 => Kind::Data,
            1 => Kind::Headers,
            2 => Kind::Priority,
            3 => Kind::Reset,
            4 => Kind::Settings,
            5 => Kind::PushPromise,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            9 => Kind::Continuation,
            _ => Kind::Unknown,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) length: usize,
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Header {
    /// The header at the front of `bytes`, if it is there whole.
    pub(super) fn read(bytes: &[u8]) -> Option<Header> {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes.first_chunk()?;
        Some(Header {
            length: u32::from_be_bytes([0, l0, l1, l2]) as usize,
            kind: Kind::of(kind),
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & MAX_WINDOW,
        })
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Four octets as a number of 31 bits.
pub(super) fn number(octets: [u8; 4]) -> u32 {
    u32::from_be_bytes(octets) & MAX_WINDOW
}

pub(super) fn put_header(kind: Kind, flags: u8, stream: u32, length: usize, out: &mut Vec<u8>) {
    let [_, l0, l1, l2] = (length as u32).to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    out.extend_from_slice(&[l0, l1, l2, kind as u8, flags, s0, s1, s2, s3]);
}

pub(super) fn put(kind: Kind, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    put_header(kind, flags, stream, payload.len(), out);
    out.extend_from_slice(payload);
}

pub(super) fn put_window_update(stream: u32, increment: u32, out: &mut Vec<u8>) {
    put(Kind::WindowUpdate, 0, stream, &increment.to_be_bytes(), out);
}

pub(super) fn put_reset(stream: u32, code: super::Code, out: &mut Vec<u8>) {
    put(Kind::Reset, 0, stream, &code.0.to_be_bytes(), out);
}

pub(super) fn put_go_away(last: u32, code: super::Code, why: &str, out: &mut Vec<u8>) {
    put_header(Kind::GoAway, 0, 0, 8 + why.len(), out);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(why.as_bytes());
}
