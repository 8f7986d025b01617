//! The PROXY protocol: whose address counts, where it is read, and what is refused.

use std::time::Duration;

use tulle_api::inbound as api;
use tulle_engine::inbound::{Cidr, DefaultPolicy, DefaultProtocol, Server};

use crate::client::{Http1, echo};
use crate::rig::{Mesh, Pod, app, run};

/// A pod whose port 80 lets in what comes from 203.0.113.0/24.
async fn pod(proxy_protocol: bool) -> Pod {
    let pod = Mesh::new().pod("web").await;
    app(pod.address(18080), echo).await;
    let networks: Vec<Cidr> = vec![
        "203.0.113.0/24".parse().unwrap(),
        "2001:db8::/32".parse().unwrap(),
    ];
    let detect = DefaultProtocol::Detect(Duration::from_secs(1));
    let server = Server::by_default(DefaultPolicy::ClusterUnauthenticated, detect, &networks);
    pod.allow(
        80,
        Server {
            proxy_protocol,
            ..server
        },
    )
    .await;
    pod
}

fn v2(body: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend(body);
    bytes
}

#[test]
fn the_client_is_who_the_load_balancer_says() {
    run(async {
        let pod = pod(true).await;
        for (header, status) in [
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 80\r\n".to_vec(), 200),
            (b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n".to_vec(), 200),
            (
                b"PROXY TCP4 198.51.100.7 10.0.0.1 4711 80\r\n".to_vec(),
                403,
            ),
            (v2(&[203, 0, 113, 9, 10, 0, 0, 1, 1, 1, 0, 80]), 200),
            (v2(&[198, 51, 100, 9, 10, 0, 0, 1, 1, 1, 0, 80]), 403),
            // The load balancer itself: its own address, which the policy does not name.
            (b"PROXY UNKNOWN\r\n".to_vec(), 403),
        ] {
            let mut client = Http1::new(pod.enter().await);
            // In two pieces, and with the request right behind it.
            client.send(&header[..9]).await;
            tokio::task::yield_now().await;
            client
                .send([&header[9..], b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"].concat())
                .await;
            let answer = client.answer().await;
            assert_eq!(
                answer.status(),
                status,
                "{}",
                String::from_utf8_lossy(&header)
            );
            assert!(status != 200 || answer.text() == "GET / HTTP/1.1\nhost: web\n\n");
        }
    });
}

#[test]
fn a_connection_without_a_valid_header_is_refused_and_counted() {
    run(async {
        let pod = pod(true).await;
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"[..],
            b"PROXY TCP4 203.0.113.7 10.0.0.1 4711\r\nGET / HTTP/1.1\r\nHost: web\r\n\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.1",
        ] {
            let mut client = Http1::new(pod.enter().await);
            client.send(bytes).await;
            assert!(client.ended().await);
        }
        let labels = ["error=\"unexpected\"", "reason=\"proxy-protocol-invalid\""];
        assert_eq!(
            pod.metric("inbound_tcp_errors_total", &labels),
            3.0,
            "{}",
            pod.metrics()
        );
        assert_eq!(pod.metric("request_total", &[]), 0.0);
    });
}

#[test]
fn where_nobody_asks_for_it_a_header_is_no_header() {
    run(async {
        let pod = pod(false).await;
        let mut client = Http1::new(pod.enter().await);
        client
            .send("PROXY TCP4 203.0.113.7 10.0.0.1 4711 80\r\nGET / HTTP/1.1\r\nHost: web\r\n\r\n")
            .await;
        // Not HTTP, so opaque, and the socket's address may not come in.
        assert!(client.ended().await);
        assert_eq!(
            pod.metric("inbound_tcp_authz_deny_total", &[]),
            1.0,
            "{}",
            pod.metrics()
        );
    });
}

#[test]
fn a_policy_message_can_ask_for_it() {
    let mut message = api::Server {
        proxy_protocol: true,
        ..Default::default()
    };
    message.protocol = Some(api::ProxyProtocol {
        kind: Some(api::proxy_protocol::Kind::Opaque(Default::default())),
    });
    assert!(Server::compile(&message).unwrap().proxy_protocol);
    message.proxy_protocol = false;
    assert!(!Server::compile(&message).unwrap().proxy_protocol);
}
