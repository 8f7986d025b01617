//! Clients that take their time: each has a deadline, and what ends them is named.

use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tulle_proxy::identity::ClientAlpn;

use crate::client::{Http1, echo};
use crate::rig::{Mesh, app, identity, run};

#[test]
fn an_http1_client_that_asks_nothing_is_let_go_and_one_that_asks_is_not() {
    run(async {
        let limit = [("TULLE_PROXY_HTTP1_IDLE_TIMEOUT", "600ms")];
        let pod = Mesh::new().pod_with("web", &limit).await;
        app(pod.address(18080), echo).await;
        let mut client = Http1::new(pod.enter().await);
        // Busy for longer than the limit: what counts is the time between requests.
        for _ in 0..8 {
            assert_eq!(client.get("web", "/").await.status(), 200);
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        let begun = Instant::now();
        assert!(client.ended().await);
        let waited = begun.elapsed();
        assert!(
            waited > Duration::from_millis(300) && waited < Duration::from_secs(5),
            "{waited:?}"
        );
    });
}

#[test]
fn a_body_that_does_not_move_is_cut_where_a_limit_is_set() {
    run(async {
        let limit = [("TULLE_PROXY_HTTP_BODY_IDLE_TIMEOUT", "400ms")];
        let pod = Mesh::new().pod_with("web", &limit).await;
        app(pod.address(18080), echo).await;
        let mut slow = Http1::new(pod.enter().await);
        slow.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 6\r\n\r\n")
            .await;
        // A drop within every limit keeps it alive.
        for _ in 0..5 {
            slow.send("x").await;
            tokio::time::sleep(Duration::from_millis(200)).await;
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
            begun.elapsed() < Duration::from_secs(5),
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
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
    });
}
