//! The HTTP codecs: however the bytes are cut, they mean the same, and nothing grows without bound.

use tulle_http::h1::Asked;
use tulle_http::h2::{Code, Connection, Event, Key, Settings};
use tulle_http::hpack::{Decoder, Encoder, Limits};
use tulle_http::{Head, MethodKind};

use super::Input;
use transcript::{Ending, Transcript};

#[path = "../../crates/http/tests/transcript/mod.rs"]
mod transcript;

/// Requests and answers in HTTP/1: the first octet says which and how they are cut.
pub fn h1(bytes: &[u8]) {
    let mut input = Input(bytes);
    let how = input.byte();
    let bytes = input.0;
    let asked = Asked {
        method: [MethodKind::Other, MethodKind::Head, MethodKind::Connect]
            [usize::from(how >> 1) % 3],
        upgrade: how & 0x10 != 0,
    };
    let read = |pieces: Vec<&[u8]>| match how & 1 {
        0 => transcript::requests(pieces),
        _ => transcript::responses(asked, pieces),
    };
    let whole = read(vec![bytes]);
    for length in [1, 1 + usize::from(how >> 5) * 7] {
        same(&whole, &read(bytes.chunks(length).collect()));
    }
}

fn same(whole: &Transcript, pieces: &Transcript) {
    assert_eq!(whole.messages, pieces.messages);
    match (whole.ending, pieces.ending) {
        // A cut head may show another of its faults first.
        (Ending::Refused(_), Ending::Refused(_)) => {}
        (whole, pieces) => assert_eq!(whole, pieces),
    }
}

/// What a client sends to a server in HTTP/2.
pub fn h2_server(bytes: &[u8]) {
    let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    h2(bytes, &mut wire, || Connection::server(SETTINGS));
}

/// What a server sends to a client with three requests under way.
pub fn h2_client(bytes: &[u8]) {
    let mut wire = b"\0\0\0\x04\0\0\0\0\0".to_vec();
    h2(bytes, &mut wire, || {
        let mut client = Connection::client(SETTINGS);
        let mut head = Head::new();
        let set = [
            head.set_method(b"POST"),
            head.set_scheme(b"http"),
            head.set_authority(b"voting"),
            head.set_path(b"/"),
        ];
        assert!(set.iter().all(Result::is_ok));
        for end in [true, false, false] {
            assert!(client.open(&head, end).is_some());
        }
        client
    });
}

const SETTINGS: Settings = Settings {
    stream_window: 20_000,
    connection_window: 65_535,
    max_concurrent_streams: 8,
    max_header_list: 4096,
    max_fields: 64,
    max_frame: 16_384,
    max_pending_resets: 20,
    max_output: 4096,
    connect_protocol: true,
};

/// What a connection has told, without where its input was cut.
#[derive(Debug, Default, PartialEq)]
struct Told {
    lines: Vec<Line>,
    failed: Option<Code>,
}

#[derive(Debug, PartialEq)]
enum Line {
    /// Octets of a body that came one after the other, and whether they were the last.
    Data(Key, usize, bool),
    Other(String),
}

impl Told {
    fn data(&mut self, stream: Key, count: usize, end: bool) {
        match self.lines.last_mut() {
            Some(Line::Data(of, sum, ended)) if *of == stream && !*ended => {
                (*sum, *ended) = (*sum + count, end);
            }
            _ => self.lines.push(Line::Data(stream, count, end)),
        }
    }
}

fn h2(bytes: &[u8], wire: &mut Vec<u8>, connection: impl Fn() -> Connection) {
    let mut input = Input(bytes);
    let how = input.byte();
    match how & 1 {
        0 => wire.extend_from_slice(input.0),
        _ => frames(input, wire),
    }
    let whole = converse(connection(), how, [&wire[..]]);
    for length in [1, 1 + usize::from(how)] {
        assert_eq!(whole, converse(connection(), how, wire.chunks(length)));
    }
}

/// Frames whose lengths are right, so that what is random is what is in them.
fn frames(mut input: Input<'_>, wire: &mut Vec<u8>) {
    while !input.is_empty() {
        let (kind, flags, stream) = (input.byte() % 11, input.byte(), input.byte() % 16);
        let length = usize::from(input.byte());
        let payload = input.take(length);
        wire.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        wire.extend_from_slice(&[kind, flags, 0, 0, 0, stream]);
        wire.extend_from_slice(payload);
    }
}

fn converse<'p>(
    mut connection: Connection,
    how: u8,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Told {
    let (mut told, mut head, mut held) = (Told::default(), Head::new(), Vec::new());
    connection.tick(1_000_000_000);
    'pieces: for piece in pieces {
        held.extend_from_slice(piece);
        let mut input = &held[..];
        loop {
            let event = match connection.next(&mut input, &mut head) {
                Ok(Event::NeedMore) => break,
                Ok(event) => event,
                Err(error) => {
                    told.failed = Some(error.code);
                    break 'pieces;
                }
            };
            let (line, done) = match event {
                Event::Head { stream, end } => {
                    (format!("{stream:?} head {head:?} {end}"), Some(stream))
                }
                Event::Data { stream, data, end } => {
                    let count = data.len();
                    told.data(stream, count, end);
                    connection.consume(stream, count);
                    continue;
                }
                Event::Trailers { stream } => (format!("{stream:?} trailers {head:?}"), None),
                Event::Ended { stream, why } => (format!("{stream:?} {why:?}"), None),
                Event::Pong => ("pong".into(), None),
                Event::Settings => ("settings".into(), None),
                Event::GoAway(code) => (format!("goaway {code}"), None),
                Event::Refused(code) => (format!("refused {code:?}"), None),
                Event::NeedMore => break,
            };
            told.lines.push(Line::Other(line));
            if let Some(stream) = done {
                connection.accept(stream);
                match how & 6 {
                    2 => connection.reset(stream, Code::CANCEL),
                    4 => {
                        head.clear();
                        let set = head.set_status(204);
                        assert!(set.is_ok());
                        // A client's streams take no answer; a server's may be gone.
                        let _ = connection.send_head(stream, &head, true);
                    }
                    _ => {}
                }
            }
            // Nobody reads: what a peer can make us write is bounded.
            assert!(
                connection.output().len() < 64 * 1024,
                "{}",
                connection.output().len()
            );
            assert!(connection.streams_in_use() <= 2 * SETTINGS.max_concurrent_streams as usize);
        }
        let left = input.len();
        assert!(
            left < 9 + SETTINGS.max_frame as usize + 24,
            "{left} octets are held"
        );
        held.drain(..held.len() - left);
    }
    told
}

/// Header blocks, one after the other: what was decoded is encoded and decoded again.
pub fn hpack(bytes: &[u8]) {
    let mut input = Input(bytes);
    let limits = Limits {
        list_size: 4096,
        fields: 64,
    };
    let mut decoder = Decoder::new(usize::from(input.byte()) * 64);
    let (mut encoder, mut again) = (Encoder::new(4096), Decoder::new(4096));
    while !input.is_empty() {
        let length = usize::from(input.byte());
        let mut fields: Vec<(Vec<u8>, Vec<u8>, bool)> = Vec::new();
        let decoded = decoder.decode(input.take(length), &limits, |field| {
            fields.push((field.name.to_vec(), field.value.to_vec(), field.sensitive));
        });
        let size: usize = fields
            .iter()
            .map(|(name, value, _)| name.len() + value.len() + 32)
            .sum();
        assert!(size <= limits.list_size && fields.len() <= limits.fields);
        if decoded.is_err_and(|error| error.is_connection_error()) {
            return;
        }
        let mut block = Vec::new();
        encoder.begin_block(&mut block);
        for (name, value, sensitive) in &fields {
            match sensitive {
                true => encoder.encode_sensitive(name, value, &mut block),
                false => encoder.encode_field(name, value, &mut block),
            }
        }
        let mut read = Vec::new();
        let decoded = again.decode(&block, &limits, |field| {
            read.push((field.name.to_vec(), field.value.to_vec()));
        });
        assert_eq!(decoded, Ok(()));
        let sent: Vec<_> = fields
            .into_iter()
            .map(|(name, value, _)| (name, value))
            .collect();
        assert_eq!(read, sent);
    }
}
