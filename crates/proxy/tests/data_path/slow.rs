//! Clients that take their time: each has a deadline, and what ends them is named.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tulle_proxy::identity::ClientAlpn;

use crate::client::{Http1, echo};
use crate::rig::{Mesh, app, identity, run};

#[test]
fn an_http1_client_that_asks_nothing_is_let_go_and_one_that_asks_is_not() {
    run(async {
        let limit = [("TULLE_PROXY_HTTP1_IDLE_TIMEOUT", "2s")];
        let pod = Mesh::new().pod_with("web", &limit).await;
        app(pod.address(18080), echo).await;
        let mut client = Http1::new(pod.enter().await);
        // Busy for longer than the limit: what counts is the time between requests.
        for _ in 0..8 {
            assert_eq!(client.get("web", "/").await.status(), 200);
            tokio::time::sleep(Duration::from_millis(350)).await;
        }
        let begun = Instant::now();
        assert!(client.ended().await);
        let waited = begun.elapsed();
        assert!(
            waited > Duration::from_secs(1) && waited < Duration::from_secs(20),
            "{waited:?}"
        );
    });
}

#[test]
fn a_body_that_does_not_move_is_cut_where_a_limit_is_set() {
    run(async {
        let limit = [("TULLE_PROXY_HTTP_BODY_IDLE_TIMEOUT", "2s")];
        let pod = Mesh::new().pod_with("web", &limit).await;
        app(pod.address(18080), echo).await;
        let mut slow = Http1::new(pod.enter().await);
        slow.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 6\r\n\r\n")
            .await;
        // A drop within every limit keeps it alive.
        for _ in 0..5 {
            slow.send("x").await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        slow.send("x").await;
        assert_eq!(slow.answer().await.status(), 200);
        slow.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 6\r\n\r\nx")
            .await;
        let answer = slow.answer().await;
        let said = (answer.status(), answer.field("tulle-reason"));
        assert_eq!(said, (504, Some("idle-timeout")), "{answer:?}");
        let labels = ["direction=\"inbound\"", "error=\"idle-timeout\""];
        assert_eq!(
            pod.metric("response_total", &labels),
            1.0,
            "{}",
            pod.metrics()
        );
    });
}

#[test]
fn a_tls_handshake_that_stalls_is_ended_and_counted() {
    run(async {
        let mesh = Mesh::new();
        let limit = [("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", "400ms")];
        let pod = mesh.pod_with("web", &limit).await;
        let name = ServerName::try_from(identity("web")).unwrap();
        let config = mesh.epoch("client").client(ClientAlpn::None);
        let mut tls = rustls::ClientConnection::new(config, name).unwrap();
        let mut hello = Vec::new();
        tls.write_tls(&mut hello).unwrap();
        let mut stalled = pod.enter().await;
        stalled.write_all(&hello).await.unwrap();
        let begun = Instant::now();
        // What the server said to the hello is there; then the end comes, by a close or a reset.
        let mut rest = Http1::new(stalled);
        rest.rest().await;
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{:?}",
            begun.elapsed()
        );
        let labels = ["direction=\"inbound\"", "reason=\"timeout\""];
        let failures = pod.metric("tls_handshake_failures_total", &labels);
        assert_eq!(failures, 1.0, "{}", pod.metrics());
    });
}

#[test]
fn a_client_that_detection_waits_for_keeps_nobody_waiting() {
    run(async {
        let pod = Mesh::new().pod("web").await;
        app(pod.address(18080), echo).await;
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(pod.enter().await);
        }
        let begun = Instant::now();
        assert_eq!(
            Http1::new(pod.enter().await).get("web", "/").await.status(),
            200
        );
        assert!(
            // Shorter than detection's wait.
            begun.elapsed() < Duration::from_secs(8),
            "{:?}",
            begun.elapsed()
        );
    });
}

/// Answers every request with a body without end, and tells when nobody takes it any more.
async fn pour(mut stream: TcpStream, left: Rc<Cell<u32>>) {
    let mut first = [0; 3];
    let peeked = stream.peek(&mut first).await;
    if peeked.is_ok() && first == *b"PRI" {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let left = left.clone();
            tokio::task::spawn_local(async move {
                let mut body = respond
                    .send_response(http::Response::new(()), false)
                    .unwrap();
                loop {
                    body.reserve_capacity(16 * 1_024);
                    let room = std::future::poll_fn(|cx| body.poll_capacity(cx)).await;
                    let Some(Ok(room)) = room else { break };
                    let data = bytes::Bytes::from(vec![7; room]);
                    if body.send_data(data, false).is_err() {
                        break;
                    }
                }
                left.set(left.get() + 1);
            });
        }
        return;
    }
    let mut request = [0; 1_024];
    let count = stream.read(&mut request).await.unwrap_or(0);
    if count > 0 {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n";
        let mut poured = stream.write_all(head).await;
        while poured.is_ok() {
            poured = stream.write_all(&[7; 16 * 1_024]).await;
        }
    }
    left.set(left.get() + 1);
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_is_given_up_and_counted() {
    run(async {
        let limit = [("TULLE_PROXY_HTTP_STALL_TIMEOUT", "700ms")];
        let pod = Mesh::new().pod_with("web", &limit).await;
        let left = Rc::new(Cell::new(0));
        let leaving = left.clone();
        app(pod.address(18080), move |stream| {
            pour(stream, leaving.clone())
        })
        .await;
        let reaped = || {
            let labels = ["direction=\"inbound\"", "error=\"receiver-stalled\""];
            pod.metric("response_total", &labels)
        };

        // HTTP/1: the socket is full.
        let mut deaf = pod.enter().await;
        deaf.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            .await
            .unwrap();
        // HTTP/2: the socket is read, the window stays shut.
        let (mut send, connection) = h2::client::handshake(pod.enter().await).await.unwrap();
        tokio::task::spawn_local(async move {
            let _ended = connection.await;
        });
        let begun = Instant::now();
        let ask = |send: &mut h2::client::SendRequest<bytes::Bytes>| {
            let request = http::Request::get("http://web/").body(()).unwrap();
            send.send_request(request, true).unwrap().0
        };
        let mut stalled = ask(&mut send).await.unwrap().into_body();
        let mut taken = 0;
        let fault = loop {
            // What is there is taken; that there is room again is not said.
            match tokio::time::timeout(Duration::from_secs(30), stalled.data()).await {
                Ok(Some(Ok(data))) => taken += data.len(),
                Ok(Some(Err(fault))) => break fault,
                ended => panic!("{ended:?} after {taken} octets"),
            }
        };
        assert!(fault.is_reset(), "{fault}");
        assert_eq!(taken, 65_535, "one window");
        assert!(begun.elapsed() > Duration::from_millis(500));
        // What it held of the connection's window is free, the connection lives on, and who reads slowly is not who reads nothing.
        drop(stalled);
        let mut slow = ask(&mut send).await.unwrap().into_body();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            let data = slow.data().await.unwrap().unwrap();
            slow.flow_control().release_capacity(data.len()).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        drop(slow);
        let end = Instant::now() + Duration::from_secs(30);
        while reaped() < 2.0 || left.get() < 3 {
            assert!(
                Instant::now() < end,
                "{} {}\n{}",
                reaped(),
                left.get(),
                pod.metrics()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(reaped(), 2.0);
        drop(deaf);
    });
}

#[test]
fn a_peer_that_never_reads_an_opaque_connection_is_given_up() {
    run(async {
        let limit = [("LINKERD2_PROXY_INBOUND_ACCEPT_USER_TIMEOUT", "1s")];
        let pod = Mesh::new().pod_with("db", &limit).await;
        let left = Rc::new(Cell::new(0));
        let leaving = left.clone();
        app(pod.address(18080), move |stream| {
            pour(stream, leaving.clone())
        })
        .await;
        let mut deaf = pod.enter().await;
        deaf.write_all(b"neither HTTP nor TLS\n").await.unwrap();
        let end = Instant::now() + Duration::from_secs(40);
        while left.get() == 0 {
            assert!(Instant::now() < end, "{}", pod.metrics());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let labels = ["peer=\"src\"", "errno=\"ETIMEDOUT\""];
        let counted = pod.metric("tcp_close_total", &labels);
        assert_eq!(counted, 1.0, "{}", pod.metrics());
        drop(deaf);
    });
}
