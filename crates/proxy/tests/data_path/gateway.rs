//! A gateway between two clusters: another proxy names a Service in its transport header, and the request goes there.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tulle_api::destination;
use tulle_engine::inbound::{DefaultPolicy, DefaultProtocol, Server};

use crate::client::{Http1, echo};
use crate::rig::{Mesh, Pod, app, identity, run};

const SUFFIXES: (&str, &str) = ("LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES", "voting,loop,db");

/// An endpoint that is reached through a gateway.
pub fn through(gateway: &Pod, authority: &str) -> destination::WeightedAddr {
    destination::WeightedAddr {
        authority_override: Some(destination::AuthorityOverride {
            authority_override: authority.to_owned(),
        }),
        ..gateway.endpoint(4143)
    }
}

/// `web` calls `remote`, which is `voting` behind the gateway.
async fn clusters(mesh: &Mesh) -> (Pod, Pod, Pod) {
    let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
    let gateway = mesh.pod_with("gateway", &[SUFFIXES]).await;
    app(voting.address(18080), echo).await;
    mesh.service("voting", &[voting.endpoint(80)]);
    mesh.service("remote", &[through(&gateway, "voting:80")]);
    (web, gateway, voting)
}

#[test]
fn a_request_for_a_name_is_forwarded_and_comes_back_as_it_was() {
    run(async {
        let mesh = Mesh::new();
        let (web, gateway, voting) = clusters(&mesh).await;
        let mut client = Http1::new(web.call().await);
        for _ in 0..3 {
            let answer = client.get("remote", "/vote").await;
            // The application sees the gateway as its client, and in `forwarded` whom that speaks for.
            let seen = format!(
                "GET /vote HTTP/1.1\nhost: voting:80\nforwarded: by={};for={};host=voting:80;proto=https\nl5d-client-id: {}\n\n",
                identity("gateway"),
                identity("web"),
                identity("gateway")
            );
            assert_eq!(answer.text(), seen);
            let head = format!(
                "HTTP/1.1 200 OK\nx-app: echo\ncontent-length: {}",
                seen.len()
            );
            assert_eq!(answer.head, head, "nothing of the bridge is left");
        }
        client
            .send("POST /old HTTP/1.0\r\nHost: remote\r\nContent-Length: 4\r\n\r\nbody")
            .await;
        let answer = client.answer().await;
        assert!(answer.head.starts_with("HTTP/1.0 200"), "{answer:?}");
        assert!(answer.text().ends_with("\n\nbody"), "{answer:?}");
        let family = "inbound_tcp_transport_header_connections_total";
        assert_eq!(gateway.metric(family, &["target_port=\"4143\""]), 1.0);
        assert_eq!(
            voting.metric("request_total", &["client_id=\"gateway."]),
            4.0
        );
    });
}

#[test]
fn bytes_for_a_name_are_forwarded() {
    run(async {
        let mesh = Mesh::new();
        let (web, gateway, _voting) = clusters(&mesh).await;
        let db = mesh.pod("db").await;
        app(db.address(18080), |mut stream| async move {
            stream.write_all(b"first").await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            stream.write_all(&rest).await.unwrap();
        })
        .await;
        mesh.service("db", &[db.endpoint(80)]);
        mesh.service("remote-db", &[through(&gateway, "db:80")]);
        let mut client = Http1::new(web.call().await);
        client
            .send("CONNECT remote-db:80 HTTP/1.1\r\nHost: remote-db:80\r\n\r\n")
            .await;
        assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200"));
        assert_eq!(client.exactly(5).await, b"first");
        client.send(b"\x00 opaque").await;
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.rest().await, b"\x00 opaque");
    });
}

#[test]
fn a_name_outside_of_the_suffixes_is_404_and_a_proxy_without_suffixes_is_no_gateway() {
    run(async {
        let mesh = Mesh::new();
        let (web, gateway, voting) = clusters(&mesh).await;
        mesh.service("elsewhere", &[through(&gateway, "example.org:80")]);
        mesh.service("no-gateway", &[through(&voting, "voting:80")]);
        let mut client = Http1::new(web.call().await);
        for host in ["elsewhere", "no-gateway"] {
            let answer = client.get(host, "/").await;
            let said = (answer.status(), answer.field("tulle-reason"));
            assert_eq!(said, (404, Some("gateway-domain-unknown")), "{answer:?}");
        }
        let family = "inbound_http_errors_total";
        assert_eq!(gateway.metric(family, &["gateway-domain-unknown"]), 1.0);
        // Bytes are told by a close.
        let mut client = Http1::new(web.call().await);
        client
            .send("CONNECT elsewhere:80 HTTP/1.1\r\nHost: elsewhere:80\r\n\r\n\x00")
            .await;
        assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200"));
        assert!(client.ended().await);
        assert_eq!(
            gateway.metric("inbound_tcp_errors_total", &["gateway-domain-unknown"]),
            1.0
        );
    });
}

#[test]
fn a_request_that_comes_back_to_the_gateway_is_508() {
    run(async {
        let mesh = Mesh::new();
        let (web, gateway, _voting) = clusters(&mesh).await;
        mesh.service("loop", &[through(&gateway, "loop:80")]);
        let mut client = Http1::new(web.call().await);
        let answer = client.get("loop", "/").await;
        let said = (answer.status(), answer.field("tulle-reason"));
        assert_eq!(said, (508, Some("loop")), "{answer:?}");
        assert_eq!(
            gateway.metric(
                "inbound_http_errors_total",
                &["error=\"gateway loop\"", "reason=\"loop\""]
            ),
            1.0
        );
        // What an application says it has passed is of no use for a loop, and does no harm.
        client
            .send("GET / HTTP/1.1\r\nHost: remote\r\nForwarded: by=somebody\r\n\r\n")
            .await;
        assert_eq!(client.answer().await.status(), 200);
    });
}

#[test]
fn the_policy_of_the_inbound_port_says_who_may_use_the_gateway() {
    run(async {
        let mesh = Mesh::new();
        let (web, gateway, voting) = clusters(&mesh).await;
        let detect = DefaultProtocol::Detect(std::time::Duration::from_secs(1));
        let mut client = Http1::new(web.call().await);
        assert_eq!(client.get("remote", "/").await.status(), 200);
        let deny = Server::by_default(DefaultPolicy::Deny, detect, &[]);
        gateway.allow(4143, deny).await;
        let answer = client.get("remote", "/").await;
        let said = (answer.status(), answer.field("tulle-reason"));
        assert_eq!(
            said,
            (403, Some("unauthorized")),
            "an open connection too: {answer:?}"
        );
        assert_eq!(
            voting.metric("request_total", &["client_id=\"gateway."]),
            1.0
        );
    });
}
