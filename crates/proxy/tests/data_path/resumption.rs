//! Connections between two sidecars that resume an earlier one's session: counted, with the same peer, and never across
//! a renewal.

use std::sync::Arc;
use std::time::Duration;

use tulle_engine::inbound::{DefaultPolicy, DefaultProtocol, Server};
use tulle_proxy::identity::TrustAnchors;

use crate::client::Http1;
use crate::rig::{Mesh, Pod, app, identity, run};

/// `web` and `voting`, whose application takes WebSockets: each has a connection of its own between the sidecars.
async fn pair(mesh: &Mesh) -> (Pod, Pod) {
    let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
    mesh.service("voting", &[voting.endpoint(80)]);
    app(voting.address(18080), |stream| async {
        let mut server = Http1::new(stream);
        let head = server.head().await.unwrap();
        assert!(head.contains(&format!("l5d-client-id: {}", identity("web"))), "{head}");
        server
            .send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            .await;
        assert!(server.message().await.is_none());
    })
    .await;
    (web, voting)
}

async fn visit(web: &Pod) -> u16 {
    let mut client = Http1::new(web.call().await);
    client
        .send("GET / HTTP/1.1\r\nHost: voting\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        .await;
    client.answer().await.status()
}

/// How many handshakes were full and how many resumed, as both sides say.
fn handshakes(web: &Pod, voting: &Pod) -> (f64, f64) {
    let seen = |pod: &Pod, direction: &str| {
        let count = |kind: &str| {
            let labels = [
                format!("direction=\"{direction}\""),
                format!("kind=\"{kind}\""),
            ];
            pod.metric("tls_handshakes_total", &[&labels[0], &labels[1]])
        };
        (count("full"), count("resumed"))
    };
    let counted = seen(web, "outbound");
    assert_eq!(counted, seen(voting, "inbound"));
    counted
}

#[test]
fn short_connections_between_two_sidecars_are_resumed() {
    run(async {
        let (web, voting) = pair(&Mesh::new()).await;
        for _ in 0..8 {
            assert_eq!(visit(&web).await, 101);
        }
        assert_eq!(handshakes(&web, &voting), (1.0, 7.0));
    });
}

#[test]
fn a_resumed_connection_is_authorized_as_the_client_that_it_is() {
    run(async {
        let (web, voting) = pair(&Mesh::new()).await;
        let allow = |policy| {
            let protocol = DefaultProtocol::Detect(Duration::from_secs(1));
            voting.allow(80, Server::by_default(policy, protocol, &[]))
        };
        allow(DefaultPolicy::AllAuthenticated).await;
        for _ in 0..2 {
            assert_eq!(visit(&web).await, 101);
        }
        assert_eq!(handshakes(&web, &voting), (1.0, 1.0));
        let labels = [format!("client_id=\"{}\"", identity("web"))];
        let allowed = voting.metric("inbound_http_authz_allow_total", &[&labels[0]]);
        assert_eq!(allowed, 2.0, "{}", voting.metrics());
        allow(DefaultPolicy::Deny).await;
        assert_eq!(visit(&web).await, 403);
        assert_eq!(handshakes(&web, &voting), (1.0, 2.0));
    });
}

#[test]
fn no_session_outlives_a_certificate_or_the_trust_anchors_of_either_side() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = pair(&mesh).await;
        let joining = Mesh::new();
        let both = TrustAnchors::from_pem(&[mesh.pem(), joining.pem()].concat()).unwrap();
        let (mut full, mut resumed) = (0.0, 0.0);
        let mut expect = |change: (f64, f64)| {
            (full, resumed) = (full + change.0, resumed + change.1);
            (full, resumed)
        };
        for _ in 0..2 {
            assert_eq!(visit(&web).await, 101);
        }
        assert_eq!(handshakes(&web, &voting), expect((1.0, 1.0)));
        for pod in [&web, &voting] {
            for anchors_only in [false, true] {
                let next = match anchors_only {
                    false => mesh.epoch(&pod.name),
                    true => {
                        let current = pod.epochs.borrow().clone().unwrap();
                        current.trusting(&both).unwrap()
                    }
                };
                pod.epochs.send_replace(Some(Arc::new(next)));
                for _ in 0..2 {
                    assert_eq!(visit(&web).await, 101);
                }
                let seen = handshakes(&web, &voting);
                assert_eq!(seen, expect((1.0, 1.0)), "{} {anchors_only}", pod.name);
            }
        }
    });
}
