//! The HTTP/2 codec as a server of its own, for conformance suites and attacks (tests/http2): blocking sockets, a thread
//! per connection, nothing between the codec and the peer. Prints its port.
//!
//! `/` answers 200 when the request is complete, `/early` when its head is, `/bytes/N` with N octets, `/hold` never,
//! `/stats` with how many requests began, were complete and ended early, as JSON.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use tulle_http::Head;
use tulle_http::h2::{Closed, Connection, Event, Key, Settings};

static BEGAN: AtomicU64 = AtomicU64::new(0);
static COMPLETE: AtomicU64 = AtomicU64::new(0);
static RESET: AtomicU64 = AtomicU64::new(0);

fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?.port());
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || serve(stream));
    }
    Ok(())
}

fn serve(mut socket: TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let began = Instant::now();
    let mut connection = Connection::server(Settings::default());
    let (mut head, mut paths) = (Head::new(), Vec::new());
    let (mut buffer, mut held) = (vec![0; 64 * 1024], 0);
    loop {
        let read = socket.read(&mut buffer[held..])?;
        if read == 0 {
            return Ok(());
        }
        held += read;
        connection.tick(began.elapsed().as_nanos() as u64);
        let mut input = &buffer[..held];
        let lost = loop {
            match connection.next(&mut input, &mut head) {
                Ok(Event::NeedMore) => break false,
                Ok(Event::Data { stream, data, end }) => {
                    connection.consume(stream, data.len());
                    if end {
                        complete(&mut connection, stream, &paths);
                    }
                }
                Ok(Event::Head { stream, end }) => {
                    BEGAN.fetch_add(1, Relaxed);
                    connection.accept(stream);
                    if paths.len() <= stream.index() {
                        paths.resize(stream.index() + 1, String::new());
                    }
                    let (path, head_only) = (head.path(), head.method() == b"HEAD");
                    paths[stream.index()] = match head_only {
                        true => "/bytes/0".to_owned(),
                        false => String::from_utf8_lossy(path).into_owned(),
                    };
                    if end {
                        complete(&mut connection, stream, &paths);
                    } else if paths[stream.index()] == "/early" {
                        let _ = answer(&mut connection, stream, "/early");
                    }
                }
                Ok(Event::Trailers { stream }) => complete(&mut connection, stream, &paths),
                Ok(Event::Ended { stream, .. }) => {
                    RESET.fetch_add(1, Relaxed);
                    connection.release(stream);
                }
                Ok(Event::Pong | Event::Settings | Event::GoAway(_) | Event::Refused(_)) => {}
                Err(_) => break true,
            }
            while connection.pop_granted().is_some() {}
        };
        let rest = input.len();
        buffer.copy_within(held - rest..held, 0);
        held = rest;
        while !connection.output().is_empty() {
            let wrote = socket.write(connection.output())?;
            connection.wrote(wrote);
        }
        if lost {
            // The peer is to read why before the kernel tells it that nobody listens any more.
            socket.shutdown(Shutdown::Write)?;
            while socket.read(&mut buffer)? > 0 {}
            return Ok(());
        }
    }
}

fn complete(connection: &mut Connection, stream: Key, paths: &[String]) {
    COMPLETE.fetch_add(1, Relaxed);
    match paths[stream.index()].as_str() {
        "/hold" | "/early" => {}
        // A stream that ended meanwhile needs no answer.
        path => drop(answer(connection, stream, path)),
    }
}

fn answer(connection: &mut Connection, stream: Key, path: &str) -> Result<(), Closed> {
    let body = match path.strip_prefix("/bytes/") {
        Some(count) => vec![b'x'; count.parse().unwrap_or(0)],
        None if path == "/stats" => format!(
            "{{\"began\": {}, \"complete\": {}, \"reset\": {}}}",
            BEGAN.load(Relaxed),
            COMPLETE.load(Relaxed),
            RESET.load(Relaxed)
        )
        .into_bytes(),
        None => b"all is well".to_vec(),
    };
    let mut head = Head::new();
    let built = head
        .set_status(200)
        .and_then(|()| head.push("content-length", body.len().to_string()));
    debug_assert_eq!(built, Ok(()));
    connection.send_head(stream, &head, body.is_empty())?;
    if !body.is_empty() {
        connection.send_data(stream, &body, true)?;
    }
    connection.release(stream);
    Ok(())
}
