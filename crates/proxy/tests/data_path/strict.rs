//! Strict outbound mutual TLS: what is not meshed is refused with its reason, and not a byte leaves in the clear.

use std::cell::Cell;
use std::rc::Rc;

use tokio::io::AsyncReadExt;

use crate::client::{Http1, echo};
use crate::rig::{Mesh, app, plain, policy, run};

#[test]
fn a_policy_that_demands_mutual_tls_sends_nothing_in_the_clear() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        app(voting.address(18080), echo).await;
        let seen = Rc::new(Cell::new(0usize));
        let counting = seen.clone();
        app(web.address(9000), move |mut stream| {
            let seen = counting.clone();
            async move {
                // A connection counts as well as a byte on it.
                seen.set(seen.get() + 1);
                seen.set(seen.get() + stream.read(&mut [0; 64]).await.unwrap_or(0));
            }
        })
        .await;
        let mut message = policy("voting");
        message.require_mesh_tls = true;
        mesh.policy("voting", message);
        mesh.endpoints("voting", &[plain(web.address(9000))]);

        let mut client = Http1::new(web.call().await);
        for request in [
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n",
        ] {
            client.send(format!("{request}Host: voting\r\n\r\n")).await;
            let answer = client.answer().await;
            let said = (answer.status(), answer.field("tulle-reason"));
            assert_eq!(said, (502, Some("mesh-tls-required")), "{answer:?}");
        }
        // Bytes, and a client that waits for the server's.
        for bytes in [&b"\x00\x01opaque\n"[..], b""] {
            let mut client = Http1::new(web.call().await);
            client
                .send("CONNECT voting:80 HTTP/1.1\r\nHost: voting:80\r\n\r\n")
                .await;
            assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200"));
            if bytes.is_empty() {
                let waited = std::time::Duration::from_millis(400);
                assert!(tokio::time::timeout(waited, client.ended()).await.is_err());
            } else {
                client.send(bytes).await;
                assert!(client.ended().await);
            }
        }
        assert_eq!(
            web.metric("outbound_tcp_errors_total", &["mesh-tls-required"]),
            1.0
        );
        assert_eq!(
            web.metric("outbound_http_errors_total", &["mesh-tls-required"]),
            2.0
        );
        assert_eq!(seen.get(), 0, "something left in the clear");

        // With a meshed endpoint beside it, that one alone is used.
        mesh.endpoints("voting", &[plain(web.address(9000)), voting.endpoint(80)]);
        for _ in 0..20 {
            assert_eq!(client.get("voting", "/").await.status(), 200);
        }
        assert_eq!(seen.get(), 0);
        // The same endpoint, for a Service that demands nothing.
        mesh.service("other", &[plain(web.address(9000))]);
        let mut relaxed = Http1::new(web.call().await);
        relaxed.send("GET / HTTP/1.1\r\nHost: other\r\n\r\n").await;
        assert_eq!(relaxed.answer().await.status(), 502);
        assert!(seen.get() > 1);
    });
}

#[test]
fn an_environment_can_demand_it_of_every_destination() {
    run(async {
        let mesh = Mesh::new();
        let demand = [("TULLE_PROXY_OUTBOUND_REQUIRE_MESH_TLS", "true")];
        let (web, voting) = (
            mesh.pod_with("web", &demand).await,
            mesh.pod("voting").await,
        );
        app(voting.address(18080), echo).await;
        app(web.address(9000), echo).await;
        mesh.service("voting", &[voting.endpoint(80)]);
        let mut client = Http1::new(web.call().await);
        assert_eq!(client.get("voting", "/").await.status(), 200);
        let address = web.address(9000).to_string();
        let answer = client.get(&address, "/").await;
        assert_eq!(answer.field("tulle-reason"), Some("mesh-tls-required"));
    });
}
