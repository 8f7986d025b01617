//! Every family of Linkerd's proxy, with its labels and buckets, on pages of pods that have seen what it counts.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tulle_api::destination::{self as profile, DestinationProfile};
use tulle_api::inbound::{self, proxy_protocol as inbound_protocol};
use tulle_api::outbound::{self as api, grpc_route, proxy_protocol};
use tulle_api::tls_route::{SniMatch, sni_match};
use tulle_engine::inbound::{DefaultPolicy, DefaultProtocol, Server};

use crate::census;
use crate::client::{Http1, echo};
use crate::rig::{Mesh, Pod, app, balanced, plain, policy, policy_with, run};
use crate::{admission, route_kinds, scrape, scripted};

const NAME: &str = "voting.default.svc.cluster.local";

/// An application that answers opaque bytes with bytes.
async fn opaque_app(pod: &Pod, port: u16) {
    app(pod.address(port), |mut stream| async move {
        let mut first = [0; 1_024];
        let _read = stream.read(&mut first).await;
        let _written = stream.write_all(b"ok").await;
    })
    .await;
}

/// What a pod shows once it shows this; connections are counted when they have ended.
async fn page(pod: &Pod, until: &str) -> String {
    loop {
        let page = pod.metrics();
        if page.lines().any(|line| line.starts_with(until)) {
            return page;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Requests that a ServiceProfile counts on both sides, over mutual TLS; and one without a sidecar at its end.
async fn requests(pages: &mut Vec<String>) {
    let mesh = Mesh::new();
    let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
    let _server = scripted::Server::start(voting.address(18080), &[scripted::OK]).await;
    let path = profile::PathMatch {
        regex: "/.*".into(),
    };
    let message = DestinationProfile {
        fully_qualified_name: NAME.into(),
        routes: vec![profile::Route {
            condition: Some(profile::RequestMatch {
                r#match: Some(profile::request_match::Match::Path(path)),
            }),
            metrics_labels: [("route".to_owned(), "all".to_owned())].into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    mesh.profile("voting", &message);
    mesh.inbound_profile(&format!("{NAME}:80"), Some(&message));
    mesh.endpoints("voting", &[voting.endpoint(80)]);
    let mut client = Http1::new(web.call().await);
    while voting.metric("route_response_total", &["direction=\"inbound\""]) == 0.0 {
        assert_eq!(client.get("voting", "/").await.status(), 200);
    }
    drop(client);
    let closed = "tcp_close_total{direction=\"outbound\",peer=\"src\"";
    pages.extend([page(&web, closed).await, voting.metrics()]);

    let (web, _server) = scripted::retrying(&[scripted::BUSY, scripted::OK], |_| {}).await;
    let mut client = Http1::new(web.call().await);
    assert_eq!(client.get("voting", "/").await.status(), 200);
    pages.push(web.metrics());
}

/// Calls of a GRPCRoute with retries, to a server whose port is declared as gRPC.
async fn calls(pages: &mut Vec<String>) {
    let mesh = Mesh::new();
    let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
    route_kinds::grpc_app(&voting, 18080, "voting").await;
    let mut message = policy("voting");
    let rule = grpc_route::Rule {
        backends: route_kinds::grpc_to(&[(Some(balanced("voting")), 1)]),
        retry: Some(grpc_route::Retry {
            max_retries: 1,
            ..Default::default()
        }),
        ..Default::default()
    };
    message.protocol = Some(api::ProxyProtocol {
        kind: Some(proxy_protocol::Kind::Grpc(proxy_protocol::Grpc {
            routes: vec![api::GrpcRoute {
                rules: vec![rule],
                ..Default::default()
            }],
            failure_accrual: None,
        })),
    });
    mesh.policy("voting", message);
    mesh.endpoints("voting", &[voting.endpoint(80)]);
    let mut server = admission::server("grpc");
    server.protocol = Some(inbound::ProxyProtocol {
        kind: Some(inbound_protocol::Kind::Grpc(inbound_protocol::Grpc {
            routes: vec![inbound::GrpcRoute {
                metadata: admission::named("calls"),
                rules: vec![inbound::grpc_route::Rule::default()],
                ..Default::default()
            }],
            ..Default::default()
        })),
    });
    admission::set(&voting, server).await;
    let head = route_kinds::call(&web, "/vote.Voting/Vote").await;
    assert_eq!(head["x-app"], "voting");
    let answered = "response_total{direction=\"outbound\"";
    pages.push(page(&web, answered).await);
    pages.push(page(&voting, "inbound_grpc_statuses_total").await);
}

/// Opaque connections and TLS that is passed on, with and without a sidecar at their end.
async fn connections(pages: &mut Vec<String>) {
    let mesh = Mesh::new();
    let (web, db) = (mesh.pod("web").await, mesh.pod("db").await);
    opaque_app(&db, 18080).await;
    mesh.service("db", &[db.endpoint(80)]);
    assert_eq!(scrape::opaque(&web, "db").await, b"ok");
    pages.push(page(&web, "outbound_tcp_route_close_total").await);
    pages.push(page(&db, "tcp_close_total{direction=\"inbound\",peer=\"src\"").await);

    let hello = route_kinds::hello("pay.shop.test");
    let mut message = policy("voting");
    let name = sni_match::Match::Exact("pay.shop.test".to_owned());
    message.protocol = Some(api::ProxyProtocol {
        kind: Some(proxy_protocol::Kind::Tls(proxy_protocol::Tls {
            routes: vec![api::TlsRoute {
                snis: vec![SniMatch {
                    r#match: Some(name),
                }],
                rules: vec![api::tls_route::Rule {
                    backends: route_kinds::tls_to(Some(balanced("voting"))),
                    ..Default::default()
                }],
                ..Default::default()
            }],
        })),
    });
    let mesh = Mesh::new();
    let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
    opaque_app(&voting, 9_001).await;
    mesh.policy("voting", message);
    mesh.endpoints("voting", &[plain(voting.address(9_001))]);
    assert_eq!(route_kinds::answered(&web, &hello).await, "ok");
    pages.push(page(&web, "outbound_tls_route_close_total").await);

    // The same hello, where it comes in.
    opaque_app(&voting, 18080).await;
    let mut client = Http1::new(voting.enter().await);
    client.send(&hello).await;
    assert_eq!(client.rest().await, b"ok");
    pages.push(voting.metrics());
}

/// What policies let in, refuse, limit and end.
async fn policies(pages: &mut Vec<String>) {
    let pod = Mesh::new().pod("voting").await;
    app(pod.address(18080), echo).await;
    let mut client = Http1::new(pod.enter().await);
    let one = vec![admission::route("one", "/one", vec![])];
    admission::set(&pod, admission::with_routes("routes", one, None)).await;
    assert_eq!(client.get("voting", "/two").await.status(), 404);
    let by_default = |policy, protocol| Server::by_default(policy, protocol, &[]);
    let http = DefaultProtocol::Detect(std::time::Duration::from_secs(10));
    pod.allow(80, by_default(DefaultPolicy::Deny, http)).await;
    assert_eq!(client.get("voting", "/").await.status(), 403);
    let limited = admission::with_limit("limited", admission::limit(1, 0, &[]));
    admission::set(&pod, limited).await;
    while client.get("voting", "/").await.status() != 429 {}
    pages.push(pod.metrics());

    let pod = Mesh::new().pod("db").await;
    app(pod.address(18080), |mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ended = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let opaque = DefaultProtocol::Opaque;
    pod.allow(80, by_default(DefaultPolicy::AllUnauthenticated, opaque))
        .await;
    let mut client = pod.enter().await;
    client.write_all(b"ping").await.unwrap();
    let mut bytes = [0; 4];
    client.read_exact(&mut bytes).await.unwrap();
    pod.allow(80, by_default(DefaultPolicy::Deny, opaque)).await;
    assert!(matches!(client.read(&mut bytes).await, Ok(0) | Err(_)));
    let mut refused = pod.enter().await;
    assert!(matches!(refused.read(&mut bytes).await, Ok(0) | Err(_)));
    pages.push(pod.metrics());
}

/// What cannot be carried.
async fn failures(pages: &mut Vec<String>) {
    let mesh = Mesh::new();
    let (web, gone) = (mesh.pod("web").await, mesh.pod("gone").await);
    mesh.policy("voting", policy_with("voting", |_| {}));
    mesh.endpoints("voting", &[]);
    let mut client = Http1::new(web.call().await);
    assert_eq!(client.get("voting", "/").await.status(), 503);
    assert_eq!(scrape::opaque(&web, "voting").await, b"");
    // Nobody listens behind it.
    let mut client = Http1::new(gone.enter().await);
    assert_eq!(client.get("voting", "/").await.status(), 502);
    let mut client = Http1::new(gone.enter().await);
    client.send(b"\x00 opaque").await;
    client.rest().await;
    pages.push(web.metrics());
    pages.push(page(&gone, "inbound_tcp_errors_total").await);
}

#[test]
fn what_linkerds_proxy_shows_of_traffic_is_shown() {
    run(async {
        let mut pages = Vec::new();
        requests(&mut pages).await;
        calls(&mut pages).await;
        connections(&mut pages).await;
        policies(&mut pages).await;
        failures(&mut pages).await;
        let lacking = census::traffic(&pages);
        assert!(lacking.is_empty(), "{}", lacking.join("\n"));
    });
}
