//! An exchange between two ends of HTTP/2, to be counted: `valgrind --tool=callgrind target/release/examples/h2_count 1000`.
//! The messages are like those of `h1_count`; what is counted is both ends, heads written and read, a body of 12 octets.

use tulle_http::h2::{Connection, Event, Settings};
use tulle_http::{Head, Version};

/// Hands all that one end has written to the other; `told` gets its events.
fn deliver(
    from: &mut Connection,
    to: &mut Connection,
    head: &mut Head,
    mut told: impl FnMut(Event<'_>, &mut Connection),
) {
    let output = from.output().to_vec();
    from.wrote(output.len());
    let mut input = &output[..];
    loop {
        match to.next(&mut input, head) {
            Ok(Event::NeedMore) => return,
            Ok(event) => told(event, to),
            Err(error) => panic!("{error}"),
        }
    }
}

fn main() {
    let times: u64 = std::env::args()
        .nth(1)
        .and_then(|times| times.parse().ok())
        .unwrap_or(1000);
    let mut request = Head::new();
    let filled = (|| {
        request.set_version(Version::Http2);
        request.set_method(b"GET")?;
        request.set_scheme(b"http")?;
        request.set_authority(b"voting.emojivoto:8080")?;
        request.set_path(b"/api/list?page=2")?;
        for (name, value) in [
            ("user-agent", "curl/8.5.0"),
            ("accept", "*/*"),
            ("l5d-orig-proto", "HTTP/1.1"),
            ("x-request-id", "3f1c8a2e-7d6b-4a55-9d0e-0c1b2a394857"),
        ] {
            request.push(name, value)?;
        }
        Ok::<(), tulle_http::Error>(())
    })();
    assert_eq!(filled, Ok(()));
    let mut answer = Head::new();
    let filled = (|| {
        answer.set_status(200)?;
        for (name, value) in [
            ("content-type", "text/plain"),
            ("content-length", "12"),
            ("date", "Mon, 23 Nov 2026 10:00:00 GMT"),
            ("server", "app"),
        ] {
            answer.push(name, value)?;
        }
        Ok::<(), tulle_http::Error>(())
    })();
    assert_eq!(filled, Ok(()));
    let (mut client, mut server) = (
        Connection::client(Settings::default()),
        Connection::server(Settings::default()),
    );
    let mut head = Head::new();
    for _ in 0..times {
        let Some(opened) = client.open(&request, true) else {
            panic!("no stream");
        };
        let mut asked = None;
        deliver(&mut client, &mut server, &mut head, |event, _| {
            if let Event::Head { stream, .. } = event {
                asked = Some(stream);
            }
        });
        let Some(asked) = asked else {
            panic!("no request");
        };
        server.accept(asked);
        let _sent = server.send_head(asked, &answer, false);
        let _sent = server.send_data(asked, b"hello, world", false);
        let _sent = server.finish(asked, None);
        server.release(asked);
        let mut got = 0;
        deliver(&mut server, &mut client, &mut head, |event, client| {
            if let Event::Data { stream, data, .. } = event {
                got += data.len();
                client.consume(stream, data.len());
            }
        });
        assert_eq!(got, 12);
        client.release(opened);
    }
}
