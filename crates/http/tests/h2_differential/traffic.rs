//! Conversations as a peer writes them: valid ones from a seed, and ways to spoil them.

use tulle_http::hpack::Encoder;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITISED: u8 = 32;

/// Octets of bodies in one conversation: no window has to be opened again for them.
const BODIES: usize = 60_000;

/// Pseudo-random numbers (xorshift), for a conversation must be made again from its seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % sides
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }

    fn octets(&mut self, most: usize) -> Vec<u8> {
        let count = self.roll(most + 1);
        (0..count).map(|_| self.roll(256) as u8).collect()
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// What of a message the peer has written.
struct Stream {
    id: u32,
    begun: bool,
    ended: bool,
}

/// Writes one conversation.
pub struct Writer {
    pub dice: Dice,
    encoder: Encoder,
    streams: Vec<Stream>,
    frames: Vec<Vec<u8>>,
    body_left: usize,
    resets: usize,
}

const NAMES: [&str; 8] = [
    "accept",
    "cookie",
    "user-agent",
    "x-request-id",
    "content-type",
    "x-a",
    "grpc-encoding",
    "date",
];
const VALUES: [&str; 6] = [
    "",
    "a=b",
    "application/grpc",
    "~!#$%&",
    "text/html; q=0.5",
    "1",
];

impl Writer {
    pub fn new(seed: u64) -> Self {
        Writer {
            dice: Dice::new(seed),
            encoder: Encoder::new(4096),
            streams: Vec::new(),
            frames: vec![frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, 1, 0, &[])],
            body_left: BODIES,
            resets: 0,
        }
    }

    /// A client's frames after the preface.
    pub fn client(mut self) -> Vec<Vec<u8>> {
        let steps = 5 + self.dice.roll(40);
        for _ in 0..steps {
            match self.dice.roll(10) {
                0..3 => {
                    let id = self.streams.last().map_or(1, |last| last.id)
                        + 2 * (1 + self.dice.roll(2) as u32);
                    self.streams.push(Stream {
                        id,
                        begun: false,
                        ended: false,
                    });
                    self.request();
                }
                3..7 => self.go_on(),
                _ => self.aside(),
            }
        }
        self.finish()
    }

    /// A server's frames; the client has opened `streams` requests, numbered 1, 3, 5 and so on.
    pub fn server(mut self, streams: u32) -> Vec<Vec<u8>> {
        let ids = (0..streams).map(|n| 2 * n + 1);
        self.streams = ids
            .map(|id| Stream {
                id,
                begun: false,
                ended: false,
            })
            .collect();
        let steps = 5 + self.dice.roll(40);
        for _ in 0..steps {
            match self.dice.roll(10) {
                0..8 => self.go_on(),
                _ => self.aside(),
            }
        }
        self.finish()
    }

    /// Ends most of what is open, so that there is something to compare.
    fn finish(mut self) -> Vec<Vec<u8>> {
        for at in 0..self.streams.len() {
            let Stream { id, begun, ended } = self.streams[at];
            if begun && !ended && self.dice.roll(4) > 0 {
                self.frames.push(frame(DATA, END_STREAM, id, &[]));
            }
        }
        self.frames
    }

    fn request(&mut self) {
        let mut fields = vec![
            (
                ":method",
                self.dice.one(&["GET", "POST", "PUT", "OPTIONS"]).to_owned(),
            ),
            (":scheme", self.dice.one(&["http", "https"]).to_owned()),
            (
                ":authority",
                self.dice.one(&["web", "web:80", "[::1]:8080"]).to_owned(),
            ),
            (
                ":path",
                self.dice
                    .one(&["/", "/a/b?c=d", "/%2e%2e/x", "/index.html"])
                    .to_owned(),
            ),
        ];
        // Pseudo fields may come in any order.
        let (a, b) = (self.dice.roll(4), self.dice.roll(4));
        fields.swap(a, b);
        let end = self.dice.roll(2) == 0;
        let at = self.streams.len() - 1;
        self.head(at, fields, end);
    }

    /// Something on a stream that is open.
    fn go_on(&mut self) {
        let open: Vec<usize> = (0..self.streams.len())
            .filter(|&at| !self.streams[at].ended)
            .collect();
        if open.is_empty() {
            return self.aside();
        }
        let at = self.dice.one(&open);
        let id = self.streams[at].id;
        if !self.streams[at].begun {
            let end = self.dice.roll(4) == 0;
            if self.dice.roll(5) == 0 {
                let status = self.dice.one(&["103", "100"]).to_owned();
                self.block(id, vec![(":status", status)], false);
            }
            let status = self.dice.one(&["200", "404", "503", "418"]).to_owned();
            return self.head(at, vec![(":status", status)], end);
        }
        match self.dice.roll(12) {
            0 if self.resets < 8 => {
                self.resets += 1;
                self.streams[at].ended = true;
                let code = self.dice.roll(14) as u32;
                self.frames.push(frame(RESET, 0, id, &code.to_be_bytes()));
            }
            1 => {
                self.streams[at].ended = true;
                let fields = self.fields();
                self.block(id, fields, true);
            }
            _ => self.data(at),
        }
    }

    fn data(&mut self, at: usize) {
        let mut data = self.dice.octets(2_000);
        data.truncate(self.body_left.saturating_sub(256));
        let end = self.dice.roll(3) == 0;
        let mut flags = if end { END_STREAM } else { 0 };
        let mut payload = data;
        if self.dice.roll(3) == 0 && self.body_left > 512 {
            flags |= PADDED;
            let padding = self.dice.roll(256);
            payload.insert(0, padding as u8);
            payload.resize(payload.len() + padding, 0);
        }
        self.body_left = self.body_left.saturating_sub(payload.len());
        self.streams[at].ended = end;
        self.frames
            .push(frame(DATA, flags, self.streams[at].id, &payload));
    }

    fn fields(&mut self) -> Vec<(&'static str, String)> {
        let count = self.dice.roll(6);
        let mut fields: Vec<(&'static str, String)> = Vec::new();
        for _ in 0..count {
            let name = self.dice.one(&NAMES);
            let long = "v".repeat(self.dice.roll(600));
            let value = if self.dice.roll(6) == 0 {
                long
            } else {
                self.dice.one(&VALUES).to_owned()
            };
            fields.push((name, value));
        }
        fields
    }

    fn head(&mut self, at: usize, mut fields: Vec<(&'static str, String)>, end: bool) {
        fields.extend(self.fields());
        self.streams[at].begun = true;
        self.streams[at].ended = end;
        let id = self.streams[at].id;
        self.block(id, fields, end);
    }

    /// A header block in one frame or several.
    fn block(&mut self, id: u32, fields: Vec<(&'static str, String)>, end: bool) {
        let mut block = Vec::new();
        self.encoder.begin_block(&mut block);
        for (name, value) in &fields {
            self.encoder
                .encode_field(name.as_bytes(), value.as_bytes(), &mut block);
        }
        let mut flags = if end { END_STREAM } else { 0 };
        let pieces = 1 + self.dice.roll(3);
        let mut cuts: Vec<usize> = (1..pieces)
            .map(|_| self.dice.roll(block.len() + 1))
            .collect();
        cuts.extend([0, block.len()]);
        cuts.sort_unstable();
        let mut parts: Vec<&[u8]> = cuts.windows(2).map(|cut| &block[cut[0]..cut[1]]).collect();
        let mut first = parts.remove(0).to_vec();
        if self.dice.roll(4) == 0 {
            flags |= PRIORITISED;
            first.splice(0..0, [0, 0, 0, 0, 16]);
        }
        if self.dice.roll(4) == 0 {
            flags |= PADDED;
            let padding = self.dice.roll(30);
            first.insert(0, padding as u8);
            first.resize(first.len() + padding, 0);
        }
        if parts.is_empty() {
            flags |= END_HEADERS;
        }
        self.frames.push(frame(HEADERS, flags, id, &first));
        for (n, part) in parts.iter().enumerate() {
            let flags = if n + 1 == parts.len() { END_HEADERS } else { 0 };
            self.frames.push(frame(CONTINUATION, flags, id, part));
        }
    }

    /// A frame that changes no message.
    fn aside(&mut self) {
        let id = self.streams.first().map_or(1, |stream| stream.id);
        let begun = self.streams.iter().any(|stream| stream.begun);
        let frame = match self.dice.roll(6) {
            0 => frame(PING, 0, 0, b"12345678"),
            1 => {
                let value = self.dice.one(&[0, 100, 65_535, 1 << 20]) as u32;
                let id = self.dice.one(&[4u16, 3, 0x99]);
                frame(
                    SETTINGS,
                    0,
                    0,
                    &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat(),
                )
            }
            2 => frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]),
            3 if begun => frame(WINDOW_UPDATE, 0, id, &[0, 0, 0, 9]),
            4 => frame(PRIORITY, 0, id, &[0, 0, 0, 0, 7]),
            _ => frame(0xaa, 0xff, 0, b"unknown"),
        };
        self.frames.push(frame);
    }
}

/// Spoils a conversation in one or two places.
pub fn spoil(mut frames: Vec<Vec<u8>>, dice: &mut Dice) -> Vec<Vec<u8>> {
    for _ in 0..1 + dice.roll(2) {
        let at = 2 + dice.roll(frames.len().max(3) - 2);
        let at = at.min(frames.len() - 1);
        match dice.roll(6) {
            0 => {
                let octet = dice.roll(frames[at].len());
                frames[at][octet] ^= 1 << dice.roll(8);
            }
            1 if frames[at].len() > 9 => {
                let octet = 9 + dice.roll(frames[at].len() - 9);
                frames[at][octet] = dice.roll(256) as u8;
            }
            2 => drop(frames.remove(at)),
            3 => {
                let again = frames[at].clone();
                frames.push(again);
            }
            4 => {
                let other = dice.roll(frames.len()).max(at.min(2));
                frames.swap(at, other);
            }
            _ => {
                let id = dice.roll(12) as u32;
                let kind = dice.one(&[
                    DATA,
                    HEADERS,
                    RESET,
                    SETTINGS,
                    PING,
                    GOAWAY,
                    WINDOW_UPDATE,
                    CONTINUATION,
                    5,
                ]);
                let flags = dice.roll(256) as u8;
                let payload = dice.octets(20);
                frames.insert(at, frame(kind, flags, id, &payload));
            }
        }
    }
    frames
}
