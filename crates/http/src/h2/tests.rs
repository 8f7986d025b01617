//! Conversations with one end of a connection: given frames, exact events and frames back.

use super::frame::{self, Header, Kind, PREFACE, flag, setting};
use super::*;
use crate::hpack::Encoder;
use crate::{Error, Head};

/// A peer that writes frames by hand.
struct Peer {
    ours: Connection,
    encoder: Encoder,
    wire: Vec<u8>,
    head: Head,
}

/// What was told, without borrows.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Head(u32, bool),
    Data(u32, Vec<u8>, bool),
    Trailers(u32),
    Ended(u32, Ended),
    Pong,
    Settings,
    GoAway(Code),
    Refused(Option<Code>),
    Lost(Code),
}

impl Peer {
    fn of(ours: Connection) -> Self {
        let mut peer = Peer {
            wire: if ours.client {
                Vec::new()
            } else {
                PREFACE.to_vec()
            },
            ours,
            encoder: Encoder::new(4096),
            head: Head::new(),
        };
        peer.settings(&[]);
        peer.frame(Kind::Settings, flag::ACK, 0, &[]);
        assert_eq!(peer.tell(), [Told::Settings]);
        peer.sent();
        peer
    }

    fn client() -> Self {
        Self::of(Connection::server(Settings::default()))
    }

    fn server() -> Self {
        Self::of(Connection::client(Settings::default()))
    }

    fn frame(&mut self, kind: Kind, flags: u8, id: u32, payload: &[u8]) -> &mut Self {
        frame::put(kind, flags, id, payload, &mut self.wire);
        self
    }

    fn settings(&mut self, settings: &[(u16, u32)]) -> &mut Self {
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        self.frame(Kind::Settings, 0, 0, &payload)
    }

    fn block(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        self.encoder.begin_block(&mut block);
        for (name, value) in fields {
            self.encoder
                .encode_field(name.as_bytes(), value.as_bytes(), &mut block);
        }
        block
    }

    fn headers(&mut self, id: u32, fields: &[(&str, &str)], end: bool) -> &mut Self {
        let block = self.block(fields);
        let flags = flag::END_HEADERS | if end { flag::END_STREAM } else { 0 };
        self.frame(Kind::Headers, flags, id, &block)
    }

    fn request(&mut self, id: u32, end: bool) -> &mut Self {
        self.headers(id, REQUEST, end)
    }

    fn data(&mut self, id: u32, data: &[u8], end: bool) -> &mut Self {
        self.frame(Kind::Data, u8::from(end), id, data)
    }

    fn reset(&mut self, id: u32, code: Code) -> &mut Self {
        self.frame(Kind::Reset, 0, id, &code.0.to_be_bytes())
    }

    fn window(&mut self, id: u32, increment: u32) -> &mut Self {
        self.frame(Kind::WindowUpdate, 0, id, &increment.to_be_bytes())
    }

    /// Everything that our end makes of what was written, in pieces of `step` octets.
    fn tell_in_steps(&mut self, step: usize) -> Vec<Told> {
        let wire = std::mem::take(&mut self.wire);
        let (mut told, mut from) = (Vec::new(), 0);
        for to in (step..wire.len()).step_by(step).chain([wire.len()]) {
            let mut input = &wire[from..to];
            loop {
                let event = match self.ours.next(&mut input, &mut self.head) {
                    Ok(Event::NeedMore) => break,
                    Ok(event) => event,
                    Err(error) => {
                        told.push(Told::Lost(error.code));
                        return told;
                    }
                };
                told.push(match event {
                    Event::Head { stream, end } => Told::Head(stream.id(), end),
                    Event::Data { stream, data, end } => {
                        Told::Data(stream.id(), data.to_vec(), end)
                    }
                    Event::Trailers { stream } => Told::Trailers(stream.id()),
                    Event::Ended { stream, why } => Told::Ended(stream.id(), why),
                    Event::Pong => Told::Pong,
                    Event::Settings => Told::Settings,
                    Event::GoAway(code) => Told::GoAway(code),
                    Event::Refused(code) => Told::Refused(code),
                    Event::NeedMore => unreachable!(),
                });
            }
            from = to - input.len();
        }
        told
    }

    fn tell(&mut self) -> Vec<Told> {
        self.tell_in_steps(usize::MAX)
    }

    /// What our end has written: kind, stream, flags, payload.
    fn sent(&mut self) -> Vec<(Kind, u32, u8, Vec<u8>)> {
        let output = self.ours.output().to_vec();
        self.ours.wrote(output.len());
        let mut bytes = output.strip_prefix(PREFACE).unwrap_or(&output);
        let mut frames = Vec::new();
        while let Some(header) = Header::read(bytes) {
            let (payload, rest) = bytes[frame::HEADER..].split_at(header.length);
            frames.push((header.kind, header.stream, header.flags, payload.to_vec()));
            bytes = rest;
        }
        frames
    }

    fn kinds(&mut self) -> Vec<(Kind, u32)> {
        self.sent()
            .into_iter()
            .map(|(kind, id, ..)| (kind, id))
            .collect()
    }

    /// The code of the one RST_STREAM that our end has sent.
    fn reset_code(&mut self) -> Code {
        let sent = self.sent();
        let mut resets = sent.iter().filter(|(kind, ..)| *kind == Kind::Reset);
        let (.., payload) = resets.next().expect("a reset");
        assert!(resets.next().is_none());
        Code(u32::from_be_bytes(payload[..].try_into().unwrap()))
    }

    fn key(&self, id: u32) -> Key {
        self.ours.streams.find(id).unwrap()
    }

    fn answer(&mut self, id: u32, end: bool) {
        let mut head = Head::new();
        head.set_status(200).unwrap();
        let key = self.key(id);
        self.ours.send_head(key, &head, end).unwrap();
    }
}

const REQUEST: &[(&str, &str)] = &[
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/a"),
    (":authority", "voting"),
];

fn with(extra: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let mut fields: Vec<(&'static str, &'static str)> = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/a"),
        (":authority", "voting"),
    ];
    fields.extend_from_slice(extra);
    fields
}

fn get() -> Head {
    let mut head = Head::new();
    head.set_method(b"GET").unwrap();
    head.set_scheme(b"http").unwrap();
    head.set_path(b"/").unwrap();
    head.set_authority(b"voting").unwrap();
    head
}

#[test]
fn a_request_with_body_and_trailers_is_told_alike_however_it_is_cut() {
    for step in [1, 2, 7, 10, 64, usize::MAX] {
        let mut peer = Peer::client();
        peer.request(1, false);
        peer.frame(Kind::Data, flag::PADDED, 1, b"\x03hello\0\0\0");
        peer.headers(1, &[("grpc-status", "0")], true);
        let told = peer.tell_in_steps(step);
        assert_eq!(told.first(), Some(&Told::Head(1, false)));
        assert_eq!(told.last(), Some(&Told::Trailers(1)));
        let body: Vec<u8> = told
            .iter()
            .flat_map(|told| match told {
                Told::Data(1, data, false) => data.clone(),
                _ => Vec::new(),
            })
            .collect();
        assert_eq!(body, b"hello", "{step}");
        assert_eq!(peer.head.get("grpc-status"), Some(&b"0"[..]));
    }
}

#[test]
fn what_breaks_the_connection_ends_it_with_its_code() {
    type Write = fn(&mut Peer);
    let cases: &[(&str, Code, Write)] = &[
        ("DATA on stream 0", Code::PROTOCOL_ERROR, |p| {
            p.data(0, b"x", false);
        }),
        ("DATA on an idle stream", Code::PROTOCOL_ERROR, |p| {
            p.data(1, b"x", false);
        }),
        ("HEADERS on stream 0", Code::PROTOCOL_ERROR, |p| {
            p.request(0, true);
        }),
        ("an even stream", Code::PROTOCOL_ERROR, |p| {
            p.request(2, true);
        }),
        ("a lower stream", Code::PROTOCOL_ERROR, |p| {
            p.request(5, true).request(3, true);
        }),
        ("a stream that is over", Code::STREAM_CLOSED, |p| {
            p.request(1, true)
                .reset(1, Code::CANCEL)
                .data(1, b"", false);
        }),
        ("RST_STREAM on an idle stream", Code::PROTOCOL_ERROR, |p| {
            p.reset(1, Code::CANCEL);
        }),
        ("RST_STREAM of 3", Code::FRAME_SIZE_ERROR, |p| {
            p.request(1, true).frame(Kind::Reset, 0, 1, &[0; 3]);
        }),
        ("SETTINGS of 5", Code::FRAME_SIZE_ERROR, |p| {
            p.frame(Kind::Settings, 0, 0, &[0; 5]);
        }),
        ("SETTINGS on a stream", Code::PROTOCOL_ERROR, |p| {
            p.frame(Kind::Settings, 0, 1, &[]);
        }),
        ("an ACK with payload", Code::FRAME_SIZE_ERROR, |p| {
            p.frame(Kind::Settings, flag::ACK, 0, &[0; 6]);
        }),
        ("a window of 2^31", Code::FLOW_CONTROL_ERROR, |p| {
            p.settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)]);
        }),
        ("a frame size of 1", Code::PROTOCOL_ERROR, |p| {
            p.settings(&[(setting::MAX_FRAME_SIZE, 1)]);
        }),
        ("push", Code::PROTOCOL_ERROR, |p| {
            p.frame(Kind::PushPromise, 0, 1, &[0; 8]);
        }),
        ("PING of 7", Code::FRAME_SIZE_ERROR, |p| {
            p.frame(Kind::Ping, 0, 0, &[0; 7]);
        }),
        ("PING on a stream", Code::PROTOCOL_ERROR, |p| {
            p.frame(Kind::Ping, 0, 1, &[0; 8]);
        }),
        ("short GOAWAY", Code::FRAME_SIZE_ERROR, |p| {
            p.frame(Kind::GoAway, 0, 0, &[0; 7]);
        }),
        ("no increment", Code::PROTOCOL_ERROR, |p| {
            p.window(0, 0);
        }),
        ("too much increment", Code::FLOW_CONTROL_ERROR, |p| {
            p.window(0, frame::MAX_WINDOW);
        }),
        ("lonely CONTINUATION", Code::PROTOCOL_ERROR, |p| {
            p.frame(Kind::Continuation, flag::END_HEADERS, 1, &[]);
        }),
        ("interrupted block", Code::PROTOCOL_ERROR, |p| {
            p.frame(Kind::Headers, 0, 1, &[]).data(1, b"", false);
        }),
        ("only padding and too much", Code::PROTOCOL_ERROR, |p| {
            p.request(1, false)
                .frame(Kind::Data, flag::PADDED, 1, &[9, 0]);
        }),
        ("a bad block", Code::COMPRESSION_ERROR, |p| {
            p.frame(Kind::Headers, flag::END_HEADERS, 1, &[0x80]);
        }),
        ("a frame too large", Code::FRAME_SIZE_ERROR, |p| {
            p.request(1, false).data(1, &[0; 16_385], false);
        }),
    ];
    for (name, code, write) in cases {
        let mut peer = Peer::client();
        write(&mut peer);
        assert_eq!(peer.tell().last(), Some(&Told::Lost(*code)), "{name}");
        let sent = peer.sent();
        let (kind, _, _, payload) = sent.last().unwrap();
        assert_eq!(
            (*kind, &payload[4..8]),
            (Kind::GoAway, &code.0.to_be_bytes()[..]),
            "{name}"
        );
    }
}

#[test]
fn what_breaks_a_stream_resets_it_and_no_other() {
    use Ended::{Broken, Malformed};
    type Write = fn(&mut Peer);
    let cases: &[(&str, Ended, Write)] = &[
        ("DATA after the end", Broken(Code::STREAM_CLOSED), |p| {
            p.request(1, true).data(1, b"x", false);
        }),
        ("HEADERS after the end", Broken(Code::STREAM_CLOSED), |p| {
            p.request(1, true).headers(1, &[("a", "b")], true);
        }),
        ("more than was said", Malformed(Error::ContentLength), |p| {
            p.headers(1, &with(&[("content-length", "3")]), false)
                .data(1, b"four", false);
        }),
        ("less than was said", Malformed(Error::ContentLength), |p| {
            p.headers(1, &with(&[("content-length", "3")]), false)
                .data(1, b"12", true);
        }),
        ("less, and trailers", Malformed(Error::ContentLength), |p| {
            p.headers(1, &with(&[("content-length", "3")]), false)
                .headers(1, &[("a", "b")], true);
        }),
        (
            "trailers without end",
            Malformed(Error::PseudoHeader),
            |p| {
                p.request(1, false).headers(1, &[("a", "b")], false);
            },
        ),
        ("pseudo trailers", Malformed(Error::PseudoHeader), |p| {
            p.request(1, false).headers(1, &[(":path", "/")], true);
        }),
        ("no increment", Broken(Code::PROTOCOL_ERROR), |p| {
            p.request(1, false).window(1, 0);
        }),
        ("too much window", Broken(Code::FLOW_CONTROL_ERROR), |p| {
            p.request(1, false).window(1, frame::MAX_WINDOW);
        }),
        ("beyond its window", Broken(Code::FLOW_CONTROL_ERROR), |p| {
            p.request(1, false);
            for _ in 0..4 {
                p.data(1, &[0; 16_384], false);
            }
        }),
        ("its own parent", Broken(Code::PROTOCOL_ERROR), |p| {
            p.request(1, false)
                .frame(Kind::Priority, 0, 1, &[0, 0, 0, 1, 0]);
        }),
    ];
    for (name, why, write) in cases {
        let mut peer = Peer::client();
        write(&mut peer);
        peer.request(3, true);
        let told = peer.tell();
        assert!(told.contains(&Told::Ended(1, *why)), "{name}: {told:?}");
        assert_eq!(told.last(), Some(&Told::Head(3, true)), "{name}");
        let code = match why {
            Broken(code) => *code,
            _ => Code::PROTOCOL_ERROR,
        };
        assert_eq!(peer.reset_code(), code, "{name}");
    }
}

#[test]
fn malformed_requests_are_reset_and_never_told() {
    let cases: &[&[(&str, &str)]] = &[
        &[(":method", "GET"), (":scheme", "http")],
        &[
            (":method", "GET"),
            (":path", "/"),
            (":path", "/"),
            (":scheme", "http"),
        ],
        &[(":method", "GET"), (":path", ""), (":scheme", "http")],
        &[
            (":method", "GET"),
            (":path", "/"),
            (":scheme", "http"),
            (":status", "200"),
        ],
        &[
            (":method", "GET"),
            (":path", "/"),
            ("a", "b"),
            (":scheme", "http"),
        ],
        &[
            (":method", "GET"),
            (":path", "/"),
            (":scheme", "http"),
            (":other", "x"),
        ],
        &[
            (":method", "GET"),
            (":path", "/"),
            (":scheme", "http"),
            ("Upper", "x"),
        ],
        &[
            (":method", "GET"),
            (":path", "/"),
            (":scheme", "http"),
            ("connection", "close"),
        ],
        &[
            (":method", "GET"),
            (":path", "/"),
            (":scheme", "http"),
            ("te", "gzip"),
        ],
        &[
            (":method", "GET"),
            (":path", "/"),
            (":scheme", "http"),
            ("x", "a\r\nb: c"),
        ],
        &[
            (":method", "GET"),
            (":path", "/"),
            (":scheme", "http"),
            (":authority", "a"),
            ("host", "b"),
        ],
        &[
            (":method", "GET"),
            (":path", "/"),
            (":scheme", "http"),
            ("content-length", "1"),
        ],
        &[
            (":method", "CONNECT"),
            (":path", "/"),
            (":scheme", "http"),
            (":authority", "a:1"),
        ],
        &[
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":path", "/"),
            (":scheme", "http"),
            (":authority", "a"),
        ],
    ];
    for fields in cases {
        let mut peer = Peer::client();
        peer.headers(1, fields, true);
        let refused = Told::Refused(Some(Code::PROTOCOL_ERROR));
        assert_eq!(peer.tell(), [refused], "{fields:?}");
        assert_eq!(peer.reset_code(), Code::PROTOCOL_ERROR, "{fields:?}");
        assert_eq!(peer.ours.streams_in_use(), 0);
    }
}

/// What linkerd2-proxy makes of `GET http://voting/ HTTP/1.1` with another Host.
#[test]
fn of_an_absolute_uri_that_was_carried_the_host_field_is_dropped() {
    let fields = |proto: &'static str, hosts: &[&'static str]| {
        let mut fields = vec![
            (":method", "GET"),
            (":path", "/"),
            (":scheme", "http"),
            (":authority", "voting"),
        ];
        fields.extend(hosts.iter().map(|host| ("host", *host)));
        fields.push(("l5d-orig-proto", proto));
        fields
    };
    let mut peer = Peer::client();
    peer.headers(1, &fields("HTTP/1.1; absolute-form", &["other"]), true);
    assert_eq!(peer.tell(), [Told::Head(1, true)]);
    assert_eq!(peer.head.authority(), Some(&b"voting"[..]));
    assert_eq!(peer.head.get("host"), Some(&b"voting"[..]));
    assert_eq!(peer.head.len(), 1, "only the bridge is left as a field");
    for (proto, hosts) in [
        ("HTTP/1.1", &["other"][..]),
        ("HTTP/1.1; absolute-form", &["other", "another"]),
        ("HTTP/1.1; absolute-form", &["a,b"]),
    ] {
        let mut peer = Peer::client();
        peer.headers(1, &fields(proto, hosts), true);
        let refused = Told::Refused(Some(Code::PROTOCOL_ERROR));
        assert_eq!(peer.tell(), [refused], "{proto} {hosts:?}");
        assert_eq!(peer.reset_code(), Code::PROTOCOL_ERROR);
    }
}

#[test]
fn extended_connect_is_taken_where_it_was_offered() {
    let mut peer = Peer::of(Connection::server(Settings {
        connect_protocol: true,
        ..Settings::default()
    }));
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":path", "/chat"),
        (":scheme", "http"),
        (":authority", "voting"),
    ];
    peer.headers(1, &fields, false);
    assert_eq!(peer.tell(), [Told::Head(1, false)]);
    assert_eq!(peer.head.protocol(), Some(&b"websocket"[..]));
    assert_eq!(peer.head.path(), b"/chat");
}

#[test]
fn a_head_beyond_the_bounds_is_answered_431_and_the_table_stays_right() {
    let mut peer = Peer::client();
    // Small on the wire: references into the table.
    let large = "x".repeat(300);
    let mut fields = REQUEST.to_vec();
    fields.extend(std::iter::repeat_n(("x-large", large.as_str()), 240));
    peer.headers(1, &fields, true);
    let mut many = REQUEST.to_vec();
    many.extend(std::iter::repeat_n(("a", "b"), 300));
    peer.headers(3, &many, true).request(5, true);
    let refused = || Told::Refused(None);
    assert_eq!(peer.tell(), [refused(), refused(), Told::Head(5, true)]);
    assert_eq!(peer.kinds(), [(Kind::Headers, 1), (Kind::Headers, 3)]);
}

#[test]
fn windows_go_back_when_bytes_are_consumed_and_not_before() {
    let mut peer = Peer::client();
    peer.request(1, false);
    for _ in 0..3 {
        peer.data(1, &[0; 16_384], false);
    }
    peer.tell();
    assert_eq!(peer.kinds(), []);
    let key = peer.key(1);
    peer.ours.consume(key, 3 * 16_384);
    assert_eq!(peer.kinds(), [(Kind::WindowUpdate, 1)]);
    assert_eq!(peer.ours.windows(), (65_535, 1 << 20));
    // Padding is nobody's to consume.
    for _ in 0..200 {
        let mut padded = vec![0; 256];
        padded[0] = 255;
        peer.frame(Kind::Data, flag::PADDED, 1, &padded);
    }
    peer.tell();
    assert_eq!(peer.ours.windows(), (65_535, 1 << 20));
    // What nobody will consume goes back with the stream.
    peer.data(1, &[0; 1000], false);
    peer.tell();
    assert_eq!(peer.ours.windows().1, (1 << 20) - 1000);
    peer.ours.release(key);
    assert_eq!(peer.ours.windows().1, 1 << 20);
    assert_eq!(peer.reset_code(), Code::CANCEL);
    assert_eq!(peer.ours.streams_in_use(), 0);
    // What the peer sent before it knew is thrown away and given back.
    peer.data(1, &[0; 1000], true);
    assert_eq!(peer.tell(), []);
    assert_eq!(peer.ours.windows().1, 1 << 20);
}

#[test]
fn streams_with_much_to_send_take_turns() {
    let mut peer = Peer::client();
    for id in [1, 3, 5] {
        peer.request(id, true);
    }
    peer.window(0, 1 << 20)
        .settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 20)]);
    peer.tell();
    peer.sent();
    let chunk = [0; 40_000];
    let keys = [1, 3, 5].map(|id| {
        peer.answer(id, false);
        peer.key(id)
    });
    let mut order = Vec::new();
    for _ in 0..6 {
        for key in keys {
            if let Some(count) = peer.ours.capacity(key, chunk.len()).unwrap() {
                assert!(count <= 16_384);
                peer.ours.send_data(key, &chunk[..count], false).unwrap();
            }
        }
        let sent = peer.sent();
        order.extend(sent.iter().filter(|f| f.0 == Kind::Data).map(|f| f.1));
        while let Some(key) = peer.ours.pop_granted() {
            let count = peer.ours.capacity(key, chunk.len()).unwrap().unwrap();
            peer.ours.send_data(key, &chunk[..count], false).unwrap();
        }
    }
    let of = |id| order.iter().filter(|&&sent| sent == id).count();
    let (most, least) = (of(1).max(of(3)).max(of(5)), of(1).min(of(3)).min(of(5)));
    assert!(least >= 4 && most - least <= 1, "{order:?}");
}

#[test]
fn a_stream_whose_window_is_closed_does_not_stop_another() {
    let mut peer = Peer::client();
    peer.window(0, 1 << 20);
    peer.request(1, true).request(3, true);
    peer.tell();
    peer.answer(1, false);
    peer.answer(3, false);
    let (one, three) = (peer.key(1), peer.key(3));
    let mut sent = 0;
    while let Some(count) = peer.ours.capacity(one, 16_384).unwrap() {
        peer.ours.send_data(one, &vec![0; count], false).unwrap();
        sent += count;
        peer.sent();
    }
    assert_eq!(sent, 65_535);
    assert_eq!(peer.ours.capacity(three, 10), Ok(Some(10)));
    peer.ours.send_data(three, &[0; 10], true).unwrap();
    peer.window(1, 5);
    peer.tell();
    assert_eq!(peer.ours.pop_granted(), Some(one));
    assert_eq!(peer.ours.capacity(one, 10), Ok(Some(5)));
}

#[test]
fn an_answer_of_ours_waits_for_its_window_and_outlives_its_task() {
    let mut peer = Peer::client();
    peer.settings(&[(setting::INITIAL_WINDOW_SIZE, 0)])
        .request(1, true);
    peer.tell();
    peer.answer(1, false);
    let key = peer.key(1);
    peer.ours.send_data(key, b"refused", false).unwrap();
    peer.ours.finish(key, None).unwrap();
    peer.ours.release(key);
    assert!(peer.kinds().iter().all(|(kind, _)| *kind != Kind::Data));
    peer.window(1, 3);
    peer.tell();
    peer.window(1, 100);
    peer.tell();
    let data: Vec<_> = peer
        .sent()
        .into_iter()
        .map(|(_, _, flags, data)| (flags, data))
        .collect();
    assert_eq!(
        data,
        [(0, b"ref".to_vec()), (flag::END_STREAM, b"used".to_vec())]
    );
    assert_eq!(peer.ours.streams_in_use(), 0);
}

#[test]
fn the_end_rides_on_the_last_frame_of_its_stream() {
    let mut peer = Peer::client();
    peer.request(1, true).request(3, true);
    peer.tell();
    peer.sent();
    peer.answer(1, false);
    let (one, three) = (peer.key(1), peer.key(3));
    peer.ours.send_data(one, b"hello", false).unwrap();
    peer.ours.finish(one, None).unwrap();
    peer.answer(3, false);
    peer.ours.finish(three, None).unwrap();
    let ends: Vec<_> = peer
        .sent()
        .into_iter()
        .map(|(kind, id, flags, _)| (kind, id, flags & 1))
        .collect();
    assert_eq!(
        ends,
        [
            (Kind::Headers, 1, 0),
            (Kind::Data, 1, 1),
            (Kind::Headers, 3, 1)
        ]
    );
    assert_eq!(peer.ours.open_streams(), 0);
}

#[test]
fn a_grpc_request_ends_with_data_even_when_it_has_none() {
    let mut head = get();
    head.set_method(b"POST").unwrap();
    head.push("content-type", "application/grpc+proto").unwrap();
    for (end_at_once, kind) in [(true, "application/grpc"), (false, "text/plain")] {
        let mut peer = Peer::server();
        head.set("content-type", kind).unwrap();
        let key = peer.ours.open(&head, end_at_once).unwrap();
        if !end_at_once {
            peer.ours.finish(key, None).unwrap();
        }
        let ends: Vec<_> = peer
            .sent()
            .into_iter()
            .map(|(kind, _, flags, _)| (kind, flags & 1))
            .collect();
        assert_eq!(ends, [(Kind::Headers, 0), (Kind::Data, 1)], "{kind}");
    }
    let mut peer = Peer::server();
    peer.ours.open(&get(), true).unwrap();
    assert_eq!(peer.kinds(), [(Kind::Headers, 1)]);
}

#[test]
fn a_client_holds_back_streams_that_are_not_read_and_not_the_connection() {
    let mut peer = Peer::server();
    let whole = peer.ours.windows().1;
    for id in (1..100).step_by(2) {
        peer.ours.open(&get(), true).unwrap();
        peer.headers(id, &[(":status", "200")], false);
        for _ in 0..4 {
            peer.data(id, &[0; 16_000], false);
        }
    }
    // 3.2 MB that nobody has consumed, through a window of 1 MiB.
    assert!(
        peer.tell()
            .iter()
            .all(|told| !matches!(told, Told::Lost(_) | Told::Ended(..)))
    );
    assert_eq!(peer.ours.windows().1, whole);
    peer.data(1, &[0; 2_000], false);
    let told = peer.tell();
    assert_eq!(
        told,
        [Told::Ended(1, Ended::Broken(Code::FLOW_CONTROL_ERROR))]
    );
}

#[test]
fn every_flood_ends_in_enhance_your_calm() {
    type Write = fn(&mut Peer, u32);
    let floods: &[(&str, Write)] = &[
        ("PING", |p, _| {
            p.frame(Kind::Ping, 0, 0, &[0; 8]);
        }),
        ("SETTINGS", |p, _| {
            p.settings(&[]);
        }),
        ("PRIORITY", |p, _| {
            p.frame(Kind::Priority, 0, 1, &[0; 5]);
        }),
        ("unknown", |p, _| {
            p.frame(Kind::Unknown, 0, 1, &[0; 5]);
        }),
        ("WINDOW_UPDATE", |p, _| {
            p.window(0, 1);
        }),
        ("empty DATA", |p, i| {
            if i == 0 {
                p.request(1, false);
            }
            p.data(1, b"", false);
        }),
        ("rapid reset", |p, i| {
            p.request(2 * i + 1, true).reset(2 * i + 1, Code::CANCEL);
        }),
        ("resets that we are made to send", |p, i| {
            p.request(2 * i + 1, false).window(2 * i + 1, 0);
        }),
        ("malformed requests", |p, i| {
            p.headers(2 * i + 1, &[("a", "b")], true);
        }),
    ];
    for (name, write) in floods {
        for slow in [false, true] {
            let mut peer = Peer::client();
            let lost = (0..2000).find_map(|i| {
                write(&mut peer, i);
                let told = peer.tell();
                for told in &told {
                    // The user notices each end at once, and reads all output.
                    if let (true, Told::Head(id, _)) = (slow, told) {
                        if let Some(key) = peer.ours.streams.find(*id) {
                            peer.ours.accept(key);
                        }
                    }
                }
                peer.sent();
                match told.last() {
                    Some(Told::Lost(code)) => Some((i, *code)),
                    _ => None,
                }
            });
            let (after, code) = lost.unwrap_or_else(|| panic!("{name} is not noticed"));
            assert_eq!(code, Code::ENHANCE_YOUR_CALM, "{name}");
            assert!(after < 1000, "{name}: {after}");
        }
    }
}

#[test]
fn a_peer_that_does_not_read_what_it_asks_for_is_left() {
    let mut peer = Peer::client();
    let lost = (0..2000).find(|_| {
        peer.frame(Kind::Ping, 0, 0, &[0; 8]);
        // Enough useful work to pay for the pings.
        peer.ours.patience.earn(10);
        matches!(peer.tell()[..], [Told::Lost(Code::ENHANCE_YOUR_CALM)])
    });
    assert!(lost.is_some_and(|after| after < 1200));
    assert!(peer.ours.output().len() < 32 * 1024);
}

#[test]
fn a_block_without_end_is_cut_off_early() {
    let mut peer = Peer::client();
    peer.frame(Kind::Headers, 0, 1, &[0; 16]);
    for _ in 0..MANY {
        peer.frame(Kind::Continuation, 0, 1, &[0; 16_000]);
    }
    let octets = peer.wire.len();
    assert_eq!(peer.tell(), [Told::Lost(Code::ENHANCE_YOUR_CALM)]);
    assert!(peer.ours.block.len() <= 64 * 1024 && octets > 1 << 20);
    let mut peer = Peer::client();
    peer.frame(Kind::Headers, 0, 1, &[0; 16]);
    for _ in 0..MANY {
        peer.frame(Kind::Continuation, 0, 1, &[]);
    }
    assert_eq!(peer.tell(), [Told::Lost(Code::ENHANCE_YOUR_CALM)]);
}

const MANY: usize = 100;

#[test]
fn a_client_sees_heads_bodies_and_ends() {
    let mut peer = Peer::server();
    let key = peer.ours.open(&get(), true).unwrap();
    assert_eq!(peer.kinds(), [(Kind::Headers, 1)]);
    peer.headers(1, &[(":status", "103")], false);
    peer.headers(1, &[(":status", "200"), ("content-length", "5")], false);
    peer.data(1, b"hello", true);
    assert_eq!(
        peer.tell(),
        [
            Told::Head(1, false),
            Told::Head(1, false),
            Told::Data(1, b"hello".to_vec(), true)
        ]
    );
    peer.ours.consume(key, 5);
    peer.ours.release(key);
    assert_eq!(
        (peer.ours.streams_in_use(), peer.ours.windows().1),
        (0, 1 << 20)
    );
    assert_eq!(peer.kinds(), []);
}

#[test]
fn go_away_refuses_what_was_not_looked_at_and_lets_the_rest_end() {
    let mut peer = Peer::server();
    let keys = [0; 3].map(|_| peer.ours.open(&get(), true).unwrap());
    peer.frame(Kind::GoAway, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]);
    assert_eq!(
        peer.tell(),
        [Told::GoAway(Code::NO_ERROR), Told::Ended(5, Ended::Refused)]
    );
    assert!(!peer.ours.is_open() && peer.ours.open(&get(), true).is_none());
    for id in [1, 3] {
        assert!(!peer.ours.is_done());
        peer.headers(id, &[(":status", "200")], true);
        assert_eq!(peer.tell(), [Told::Head(id, true)]);
    }
    for key in keys {
        peer.ours.release(key);
    }
    assert!(peer.ours.is_done());
}

#[test]
fn a_server_leaves_in_two_steps_and_loses_no_request_that_was_under_way() {
    let mut peer = Peer::client();
    peer.request(1, true);
    peer.tell();
    peer.ours.shutdown();
    let sent = peer.sent();
    let (kind, _, _, last) = &sent[0];
    assert_eq!(
        (*kind, &last[..4]),
        (Kind::GoAway, &[0x7f, 0xff, 0xff, 0xff][..])
    );
    // Sent before the client knew.
    peer.request(3, true);
    peer.frame(Kind::Ping, flag::ACK, 0, &sent[1].3);
    assert_eq!(peer.tell(), [Told::Head(3, true)]);
    assert_eq!(peer.sent()[0].3[..4], [0, 0, 0, 3]);
    peer.request(5, true);
    assert_eq!(peer.tell(), []);
    for id in [1, 3] {
        assert!(!peer.ours.is_done());
        peer.answer(id, true);
    }
    assert!(peer.ours.is_done());
}

#[test]
fn a_peers_limit_of_streams_is_kept_and_ours_is_held() {
    let mut peer = Peer::server();
    peer.settings(&[(setting::MAX_CONCURRENT_STREAMS, 1)]);
    peer.tell();
    let key = peer.ours.open(&get(), true).unwrap();
    assert!(peer.ours.open(&get(), true).is_none());
    peer.ours.release(key);
    assert!(peer.ours.can_open());

    let mut peer = Peer::of(Connection::server(Settings {
        max_concurrent_streams: 1,
        ..Settings::default()
    }));
    peer.request(1, true).request(3, true);
    let refused = Told::Refused(Some(Code::REFUSED_STREAM));
    assert_eq!(peer.tell(), [Told::Head(1, true), refused]);
    assert_eq!(peer.reset_code(), Code::REFUSED_STREAM);
}

#[test]
fn numbers_run_out_and_the_connection_with_them() {
    let mut peer = Peer::server();
    peer.ours.next_id = frame::MAX_WINDOW;
    assert!(peer.ours.open(&get(), true).is_some());
    assert!(!peer.ours.is_open() && peer.ours.open(&get(), true).is_none());
}

#[test]
fn a_long_head_is_cut_into_frames_and_read_again() {
    let (mut client, mut server) = (
        Connection::client(Settings::default()),
        Connection::server(Settings::default()),
    );
    let mut head = get();
    for i in 0..20 {
        head.push(format!("x-{i}"), "v".repeat(2000)).unwrap();
    }
    client.open(&head, true).unwrap();
    let (wire, mut read) = (client.output().to_vec(), Head::new());
    let mut input = &wire[..];
    while let Ok(event) = server.next(&mut input, &mut read) {
        if matches!(event, Event::Head { end: true, .. }) {
            head.set_version(crate::Version::Http2);
            assert!(read == head);
            return;
        }
        assert_ne!(event, Event::NeedMore);
    }
    panic!("the head did not arrive");
}
