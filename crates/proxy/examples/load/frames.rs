//! HTTP/2 frames, as much of them as a measuring tool needs: its peers are proxies that keep to the protocol.

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

const HEAD: usize = 9;

/// What connections may carry without asking: large enough that windows are not what is measured.
pub const WINDOW: u32 = 16 * 1024 * 1024;
const INITIAL: i64 = 65_535;

pub struct Frame<'f> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    /// Without padding and priority.
    pub payload: &'f [u8],
}

impl Frame<'_> {
    pub fn ends_stream(&self) -> bool {
        self.flags & END_STREAM != 0
    }
}

/// The first whole frame of `input`, and how long it is.
pub fn first(input: &[u8]) -> Option<(Frame<'_>, usize)> {
    let [a, b, c, kind, flags, stream @ ..] = input.first_chunk::<HEAD>()?;
    let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
    let mut payload = input.get(HEAD..HEAD + length)?;
    if matches!(*kind, DATA | HEADERS) {
        if flags & PADDED != 0 {
            let padding = usize::from(payload[0]);
            payload = &payload[1..payload.len() - padding];
        }
        if *kind == HEADERS && flags & PRIORITY != 0 {
            payload = &payload[5..];
        }
    }
    let frame = Frame {
        kind: *kind,
        flags: *flags,
        stream: u32::from_be_bytes(*stream) & (u32::MAX >> 1),
        payload,
    };
    Some((frame, HEAD + length))
}

pub fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A connection's own affairs: settings, pings, and how much may be sent.
pub struct Link {
    pub out: Vec<u8>,
    window: i64,
    taken: u32,
}

impl Link {
    pub fn new(client: bool) -> Self {
        let mut out = Vec::with_capacity(64 * 1024);
        if client {
            out.extend_from_slice(PREFACE);
        }
        // No dynamic table towards us would be unfair: what is usual is measured. Streams' windows: see WINDOW.
        let mut settings = vec![0, 4];
        settings.extend_from_slice(&WINDOW.to_be_bytes());
        put(&mut out, SETTINGS, 0, 0, &settings);
        put(&mut out, WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
        Link {
            out,
            window: INITIAL,
            taken: 0,
        }
    }

    /// Whether so many octets may be sent now; they are counted as sent then.
    pub fn may_send(&mut self, octets: usize) -> bool {
        let octets = i64::try_from(octets).unwrap();
        let may = self.window >= octets;
        if may {
            self.window -= octets;
        }
        may
    }

    /// Takes in a frame; false when the connection is of no use any more.
    pub fn take(&mut self, frame: &Frame<'_>) -> bool {
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => put(&mut self.out, SETTINGS, ACK, 0, &[]),
            PING if frame.flags & ACK == 0 => put(&mut self.out, PING, ACK, 0, frame.payload),
            WINDOW_UPDATE if frame.stream == 0 => {
                let more = frame.payload.first_chunk().copied().unwrap_or_default();
                self.window += i64::from(u32::from_be_bytes(more));
            }
            DATA => {
                self.taken += u32::try_from(frame.payload.len()).unwrap();
                if self.taken > WINDOW / 2 {
                    put(
                        &mut self.out,
                        WINDOW_UPDATE,
                        0,
                        0,
                        &self.taken.to_be_bytes(),
                    );
                    self.taken = 0;
                }
            }
            GOAWAY => return false,
            _ => {}
        }
        true
    }
}
