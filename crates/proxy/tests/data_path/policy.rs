//! Who may come in, and what a rule makes of a request.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tulle_api::http_route;
use tulle_engine::inbound::{DefaultPolicy, DefaultProtocol, Server};

use crate::client::{Http1, echo};
use crate::rig::{Mesh, app, plain, policy_with, run};

fn http(policy: DefaultPolicy) -> Server {
    Server::by_default(
        policy,
        DefaultProtocol::Detect(std::time::Duration::from_secs(1)),
        &[],
    )
}

#[test]
fn a_denied_request_gets_403_with_its_reason_and_never_reaches_the_application() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), |_| async {
            panic!("the application was called")
        })
        .await;
        pod.allow(80, http(DefaultPolicy::Deny)).await;
        let mut client = Http1::new(pod.enter().await);
        let answer = client.get("voting", "/").await;
        assert_eq!(
            (answer.status(), answer.field("tulle-reason")),
            (403, Some("unauthorized"))
        );
        assert_eq!(
            answer.field("l5d-proxy-error"),
            Some("client is not authorized (default deny)")
        );
        // The connection goes on: a request is denied, not a connection.
        assert_eq!(client.get("voting", "/again").await.status(), 403);
        assert_eq!(pod.metric("inbound_http_authz_deny_total", &[]), 2.0);
        assert_eq!(
            pod.metric("http_requests_total", &["status_code=\"403\""]),
            2.0
        );
    });
}

#[test]
fn all_authenticated_lets_in_meshed_clients_and_nobody_else() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        app(voting.address(18080), echo).await;
        mesh.service("voting", &[voting.endpoint(80)]);
        voting
            .allow(80, http(DefaultPolicy::AllAuthenticated))
            .await;
        assert_eq!(
            Http1::new(voting.enter().await)
                .get("voting", "/")
                .await
                .status(),
            403
        );
        assert_eq!(
            Http1::new(web.call().await)
                .get("voting", "/")
                .await
                .status(),
            200
        );
    });
}

#[test]
fn a_change_of_policy_holds_for_the_next_request_of_an_open_connection() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), echo).await;
        pod.allow(80, http(DefaultPolicy::AllUnauthenticated)).await;
        let mut client = Http1::new(pod.enter().await);
        assert_eq!(client.get("voting", "/").await.status(), 200);
        pod.allow(80, http(DefaultPolicy::Deny)).await;
        assert_eq!(client.get("voting", "/").await.status(), 403);
        pod.allow(80, http(DefaultPolicy::AllUnauthenticated)).await;
        assert_eq!(client.get("voting", "/").await.status(), 200);
    });
}

#[test]
fn an_opaque_connection_is_closed_when_its_permit_is_taken_away() {
    run(async {
        let pod = Mesh::new().pod("db").await;
        app(pod.address(18080), |mut stream| async move {
            let (mut read, mut write) = stream.split();
            let _ended = tokio::io::copy(&mut read, &mut write).await;
        })
        .await;
        let opaque = |policy| Server::by_default(policy, DefaultProtocol::Opaque, &[]);
        pod.allow(80, opaque(DefaultPolicy::AllUnauthenticated))
            .await;
        let mut client = pod.enter().await;
        client.write_all(b"ping").await.unwrap();
        let mut bytes = [0; 4];
        client.read_exact(&mut bytes).await.unwrap();
        pod.allow(80, opaque(DefaultPolicy::Deny)).await;
        assert!(matches!(client.read(&mut bytes).await, Ok(0) | Err(_)));
        let mut refused = pod.enter().await;
        assert!(matches!(refused.read(&mut bytes).await, Ok(0) | Err(_)));
        assert_eq!(pod.metric("inbound_tcp_authz_terminate_total", &[]), 1.0);
        assert_eq!(pod.metric("inbound_tcp_authz_deny_total", &[]), 1.0);
    });
}

#[test]
fn a_rule_adds_and_removes_headers_and_redirects() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        app(web.address(9000), echo).await;
        mesh.service("voting", &[plain(web.address(9000))]);
        let header = |name: &str, value: &str| tulle_api::http_types::headers::Header {
            name: name.into(),
            value: value.into(),
        };
        let headers = |header| {
            Some(tulle_api::http_types::Headers {
                headers: vec![header],
            })
        };
        let filter = |kind| tulle_api::outbound::http_route::Filter { kind: Some(kind) };
        use tulle_api::outbound::http_route::filter::Kind;
        mesh.policy(
            "voting",
            policy_with("voting", |rule| {
                rule.filters = vec![
                    filter(Kind::RequestHeaderModifier(
                        http_route::RequestHeaderModifier {
                            add: headers(header("x-added", "1")),
                            set: None,
                            remove: vec!["x-gone".into()],
                        },
                    )),
                    filter(Kind::ResponseHeaderModifier(
                        http_route::ResponseHeaderModifier {
                            add: None,
                            set: headers(header("x-app", "changed")),
                            remove: Vec::new(),
                        },
                    )),
                ];
            }),
        );
        let mut client = Http1::new(web.call().await);
        client
            .send("GET / HTTP/1.1\r\nHost: voting\r\nX-Gone: 1\r\n\r\n")
            .await;
        let answer = client.answer().await;
        assert_eq!(
            answer.text(),
            "GET / HTTP/1.1\nhost: voting\nx-added: 1\n\n"
        );
        assert_eq!(answer.field("x-app"), Some("changed"));
        mesh.policy(
            "voting",
            policy_with("voting", |rule| {
                rule.filters = vec![filter(Kind::Redirect(http_route::RequestRedirect {
                    host: "elsewhere.example".into(),
                    status: 302,
                    ..Default::default()
                }))];
            }),
        );
        let answer = client.get("voting", "/path?x=1").await;
        assert_eq!(answer.status(), 302);
        assert_eq!(
            answer.field("location"),
            Some("http://elsewhere.example/path?x=1")
        );
    });
}

#[test]
fn a_request_timeout_answers_504_and_frees_the_caller() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        app(web.address(9000), |stream| async move {
            let mut server = Http1::new(stream);
            server.head().await.unwrap();
            std::future::pending::<()>().await;
        })
        .await;
        mesh.service("voting", &[plain(web.address(9000))]);
        mesh.policy(
            "voting",
            policy_with("voting", |rule| {
                let request = Some(prost_types::Duration {
                    seconds: 0,
                    nanos: 100_000_000,
                });
                rule.timeouts = Some(http_route::Timeouts {
                    request,
                    ..Default::default()
                });
            }),
        );
        let mut client = Http1::new(web.call().await);
        let answer = client.get("voting", "/").await;
        assert_eq!(
            (answer.status(), answer.field("tulle-reason")),
            (504, Some("request-timeout"))
        );
        assert_eq!(
            web.metric("response_total", &["error=\"request-timeout\""]),
            1.0,
            "{}",
            web.metrics()
        );
    });
}
