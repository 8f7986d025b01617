//! The budget: no allocation per message in steady state. Counted, not timed.

#![allow(clippy::unwrap_used)]

use allocation_counter::measure;
use bytes::{Buf, BytesMut};
use tulle_http::h1::{self, Answering, Asked, BodyKind, Decoder, Event, Persist};
use tulle_http::hop::{self, UpgradeField};
use tulle_http::{Head, Limits, l5d};

const GET: &[u8] = b"GET /api/list?page=2 HTTP/1.1\r\nHost: web-svc.emojivoto:80\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\
    Connection: keep-alive\r\nX-Request-Id: 6f1d8a2e-0f7b-4c0e-8a52-3a1a9b0f2c11\r\nTE: trailers\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 06:00:00 GMT\r\nServer: tulle\r\nContent-Type: text/plain\r\n\
    Content-Length: 12\r\nConnection: keep-alive\r\n\r\nhello, world";

/// One connection pair of a proxy, as its driver would keep it.
struct Proxy {
    downstream: Decoder,
    upstream: Decoder,
    head: Head,
    input: BytesMut,
    out: Vec<u8>,
}

impl Proxy {
    fn new() -> Self {
        let limits = Limits::default();
        let input = BytesMut::with_capacity(16 * 1024);
        Self {
            downstream: Decoder::server(limits),
            upstream: Decoder::client(limits),
            head: Head::new(),
            input,
            out: Vec::new(),
        }
    }

    /// A request comes in and goes out.
    fn request(&mut self) {
        self.input.extend_from_slice(GET);
        self.out.clear();
        let Ok(Event::Head(framing)) = self.downstream.next(&mut self.input, &mut self.head) else {
            panic!("a head")
        };
        l5d::strip_unbelievable(&mut self.head, l5d::Peer::Untrusted);
        hop::strip(&mut self.head, UpgradeField::Drop);
        self.head
            .push(
                "l5d-client-id",
                "web.emojivoto.serviceaccount.identity.linkerd.cluster.local",
            )
            .unwrap();
        let body = h1::encode_request(&self.head, framing.body, Persist::KeepAlive, &mut self.out)
            .unwrap();
        body.finish(None, &mut self.out).unwrap();
        assert_eq!(
            self.downstream.next(&mut self.input, &mut self.head),
            Ok(Event::End)
        );
        assert!(self.input.is_empty() && self.out.ends_with(b"\r\n\r\n"));
        self.upstream.expect(Asked {
            method: self.head.method_kind(),
            upgrade: false,
        });
    }

    /// Its answer comes back; `take` says whether the body is taken by reference count, as a driver that forwards it to
    /// another connection does, or only up to the head.
    fn answer(&mut self) {
        self.input.extend_from_slice(ANSWER);
        self.out.clear();
        let Ok(Event::Head(framing)) = self.upstream.next(&mut self.input, &mut self.head) else {
            panic!("a head")
        };
        hop::strip(&mut self.head, UpgradeField::Drop);
        let to = Answering {
            method: tulle_http::MethodKind::Other,
            version: tulle_http::Version::Http11,
        };
        let mut body = h1::encode_response(
            &self.head,
            to,
            framing.body,
            Persist::KeepAlive,
            &mut self.out,
        )
        .unwrap();
        assert_eq!(framing.body, BodyKind::Length(12));
        let Ok(Event::Data(data)) = self.upstream.next(&mut self.input, &mut self.head) else {
            panic!("data")
        };
        body.data(&data, &mut self.out).unwrap();
        drop(data);
        body.finish(None, &mut self.out).unwrap();
        assert_eq!(
            self.upstream.next(&mut self.input, &mut self.head),
            Ok(Event::End)
        );
        // What a driver does before it reads again: with no piece of the body alive the room is taken back.
        self.input.advance(self.input.len());
        self.input.reserve(4 * 1024);
    }
}

#[test]
fn a_keep_alive_get_and_its_answer_allocate_nothing() {
    let mut proxy = Proxy::new();
    let exchange = |proxy: &mut Proxy| {
        proxy.request();
        proxy.answer();
    };
    (0..3).for_each(|_| exchange(&mut proxy));
    let counted = measure(|| (0..1000).for_each(|_| exchange(&mut proxy)));
    assert_eq!(
        counted.count_total, 0,
        "allocations in 1,000 exchanges: {counted:?}"
    );
}

#[test]
fn a_large_head_does_not_keep_its_memory() {
    let mut head = Head::new();
    let large = measure(|| {
        head.push("x", vec![b'a'; 60_000]).unwrap();
        (0..250).for_each(|_| head.push("y", "b").unwrap());
    });
    let kept = measure(|| head.clear());
    let still = large.bytes_current + kept.bytes_current;
    assert!(large.bytes_max > 60_000);
    assert!(still <= 16 * 1024, "keeps {still} octets");
}

#[test]
fn an_idle_decoder_is_small() {
    assert!(
        size_of::<Decoder>() <= 192,
        "{} octets",
        size_of::<Decoder>()
    );
    assert!(size_of::<Head>() <= 128, "{} octets", size_of::<Head>());
    assert!(
        size_of::<h1::BodyWriter>() <= 24,
        "{} octets",
        size_of::<h1::BodyWriter>()
    );
    assert!(size_of::<Event>() <= 40, "{} octets", size_of::<Event>());
}
