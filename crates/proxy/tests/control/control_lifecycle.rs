//! Start and end.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::proxy::{Proxy, application, eventually, fresh_ip, run};

fn alone(more: &[(&str, &str)]) -> Proxy {
    let proxy = Proxy::start_with("web", &[("LINKERD2_PROXY_IDENTITY_DISABLED", "1")], more);
    proxy.wait_ready();
    proxy
}

#[test]
fn a_port_in_use_is_one_clear_message() {
    let ip = fresh_ip();
    let _taken = TcpListener::bind(format!("{ip}:4143")).unwrap();
    let (outbound, inbound, admin) = (
        format!("{ip}:4140"),
        format!("{ip}:4143"),
        format!("{ip}:4191"),
    );
    let output = run(
        &[],
        &[
            ("LINKERD2_PROXY_IDENTITY_DISABLED", "1"),
            ("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDR", &outbound),
            ("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", &inbound),
            ("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", &admin),
        ],
    );
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains(&format!("cannot listen on {inbound}")),
        "{text}"
    );
}

#[test]
fn sigterm_lets_a_request_in_flight_finish() {
    let app = application("127.0.0.1:0", "web");
    let mut proxy = alone(&[]);
    let host = app.to_string();
    let mut stream = TcpStream::connect(proxy.outbound()).unwrap();
    stream
        .write_all(
            format!("GET /stream HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes(),
        )
        .unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    proxy.signal("TERM");
    eventually("it is no longer ready", || !proxy.is_ready());
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(
        rest.ends_with("0\r\n\r\n") && rest.matches("chunk").count() >= 79,
        "{rest}"
    );
    assert_eq!(proxy.wait_end(), Some(0));
}

#[test]
fn the_second_signal_ends_at_once() {
    let app = application("127.0.0.1:0", "web");
    let mut proxy = alone(&[]);
    let host = app.to_string();
    let mut stream = TcpStream::connect(proxy.outbound()).unwrap();
    stream
        .write_all(format!("GET /stream-on HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes())
        .unwrap();
    stream.read_exact(&mut [0; 12]).unwrap();
    proxy.signal("TERM");
    eventually("it is ending", || !proxy.is_ready());
    let asked = std::time::Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait_end(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(20));
}

#[test]
fn the_grace_period_bounds_the_end() {
    let app = application("127.0.0.1:0", "web");
    let mut proxy = alone(&[("LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD", "500ms")]);
    let host = app.to_string();
    let mut stream = TcpStream::connect(proxy.outbound()).unwrap();
    stream
        .write_all(format!("GET /stream-on HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes())
        .unwrap();
    stream.read_exact(&mut [0; 12]).unwrap();
    let asked = std::time::Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait_end(), Some(0));
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "{:?}",
        asked.elapsed()
    );
}
