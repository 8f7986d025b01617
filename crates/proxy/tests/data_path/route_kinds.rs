//! Routes of the other kinds, as the outbound policy API carries them: GRPCRoute by service and method, TLSRoute by server
//! name, TCPRoute by weight; what is forbidden, and what no route takes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http::{HeaderMap, Request};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tulle_api::grpc_route::{GrpcFailureInjector, GrpcRouteMatch, GrpcRpcMatch};
use tulle_api::outbound::{self as api, grpc_route, opaque_route, proxy_protocol, tls_route};
use tulle_api::tls_route::{SniMatch, sni_match};
use tulle_api::{http_route, http_types, meta, opaque_route as opaque};
use tulle_proxy::identity::ClientAlpn;

use crate::client::Http1;
use crate::grpc::{connect, trailers};
use crate::rig::{Mesh, Pod, app, plain, policy, run};

fn forward(pod: &Pod, port: u16) -> Option<api::Backend> {
    Some(api::Backend {
        kind: Some(api::backend::Kind::Forward(plain(pod.address(port)))),
        ..Default::default()
    })
}

/// A pod `web` whose Service `voting` is spoken to so.
async fn calling(protocol: impl FnOnce(&Pod) -> proxy_protocol::Kind) -> Pod {
    let mesh = Mesh::new();
    let web = mesh.pod("web").await;
    let mut message = policy("voting");
    message.protocol = Some(api::ProxyProtocol {
        kind: Some(protocol(&web)),
    });
    mesh.policy("voting", message);
    web
}

// gRPC.

/// An application of gRPC that says its name, and what was added to the call.
pub async fn grpc_app(pod: &Pod, port: u16, name: &'static str) {
    app(pod.address(port), move |stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let mut head = http::Response::builder()
                .header("content-type", "application/grpc")
                .header("x-app", name);
            if let Some(added) = request.headers().get("x-added") {
                head = head.header("x-heard", added);
            }
            let mut body = respond
                .send_response(head.body(()).unwrap(), false)
                .unwrap();
            body.send_trailers(trailers("0")).unwrap();
        }
    })
    .await;
}

pub fn grpc_to(backends: &[(Option<api::Backend>, u32)]) -> Option<grpc_route::Distribution> {
    use grpc_route::distribution::{Kind, RandomAvailable};
    let weighted = backends
        .iter()
        .map(|(backend, weight)| grpc_route::WeightedRouteBackend {
            backend: Some(grpc_route::RouteBackend {
                backend: backend.clone(),
                ..Default::default()
            }),
            weight: *weight,
        });
    Some(grpc_route::Distribution {
        kind: Some(Kind::RandomAvailable(RandomAvailable {
            backends: weighted.collect(),
        })),
    })
}

fn rpc(service: &str, method: &str) -> Vec<GrpcRouteMatch> {
    vec![GrpcRouteMatch {
        rpc: Some(GrpcRpcMatch {
            service: service.to_owned(),
            method: method.to_owned(),
        }),
        ..Default::default()
    }]
}

fn grpc(rules: Vec<grpc_route::Rule>) -> proxy_protocol::Kind {
    proxy_protocol::Kind::Grpc(proxy_protocol::Grpc {
        routes: vec![api::GrpcRoute {
            rules,
            ..Default::default()
        }],
        failure_accrual: None,
    })
}

/// The head of the answer to a call.
pub async fn call(web: &Pod, path: &str) -> HeaderMap {
    let request = Request::post(format!("http://voting{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let mut send = connect(web.call().await).await;
    let (answer, _) = send.send_request(request, true).unwrap();
    answer.await.unwrap().headers().clone()
}

#[test]
fn a_call_goes_by_its_service_and_its_method() {
    run(async {
        let rule = |matches, pod: &Pod, port| grpc_route::Rule {
            matches,
            backends: grpc_to(&[(forward(pod, port), 1)]),
            ..Default::default()
        };
        let web = calling(|web| {
            grpc(vec![
                rule(rpc("vote.Voting", ""), web, 9001),
                rule(rpc("vote.Voting", "Vote"), web, 9002),
                rule(rpc("", "List"), web, 9003),
            ])
        })
        .await;
        for (port, name) in [(9001, "service"), (9002, "both"), (9003, "method")] {
            grpc_app(&web, port, name).await;
        }
        for (path, expected) in [
            ("/vote.Voting/Vote", "both"),
            ("/vote.Voting/Results", "service"),
            // Whose service is named comes before who has a method of this name.
            ("/vote.Voting/List", "service"),
            ("/other.Service/List", "method"),
        ] {
            assert_eq!(call(&web, path).await["x-app"], expected, "{path}");
        }
        for path in [
            "/other.Service/Vote",
            "/vote.Votin/Vote",
            "/vote.Voting",
            "/",
        ] {
            let answer = call(&web, path).await;
            assert_eq!(answer["tulle-reason"], "route-not-found", "{path}");
            assert_ne!(answer["grpc-status"], "0", "{path}");
            assert!(answer.get("x-app").is_none(), "{path}");
        }
    });
}

#[test]
fn calls_are_shared_by_weight_and_a_weight_of_nothing_gets_none() {
    run(async {
        let web = calling(|web| {
            grpc(vec![grpc_route::Rule {
                backends: grpc_to(&[
                    (forward(web, 9001), 3),
                    (forward(web, 9002), 1),
                    (forward(web, 9003), 0),
                ]),
                ..Default::default()
            }])
        })
        .await;
        for (port, name) in [(9001, "three"), (9002, "one"), (9003, "none")] {
            grpc_app(&web, port, name).await;
        }
        let mut counts = BTreeMap::new();
        for _ in 0..200 {
            let name = call(&web, "/a.B/C").await["x-app"].clone();
            *counts.entry(name.to_str().unwrap().to_owned()).or_insert(0) += 1;
        }
        assert_eq!(
            counts.keys().collect::<Vec<_>>(),
            ["one", "three"],
            "{counts:?}"
        );
        // 50 are expected; so far off a fair dice is once in ten billion runs.
        assert!((11..=89).contains(&counts["one"]), "{counts:?}");
    });
}

#[test]
fn filters_of_a_grpc_route_change_heads_and_inject_failures() {
    run(async {
        use grpc_route::filter::Kind;
        let header = |name: &str, value: &str| http_types::Headers {
            headers: vec![http_types::headers::Header {
                name: name.to_owned(),
                value: value.into(),
            }],
        };
        let filter = |kind| grpc_route::Filter { kind: Some(kind) };
        let changes = vec![
            filter(Kind::RequestHeaderModifier(
                http_route::RequestHeaderModifier {
                    add: Some(header("x-added", "1")),
                    ..Default::default()
                },
            )),
            filter(Kind::ResponseHeaderModifier(
                http_route::ResponseHeaderModifier {
                    set: Some(header("x-app", "changed")),
                    ..Default::default()
                },
            )),
        ];
        let failure = filter(Kind::FailureInjector(GrpcFailureInjector {
            code: 8,
            message: "enough".to_owned(),
            ratio: None,
        }));
        let web = calling(|web| {
            let rule = |method, filters| grpc_route::Rule {
                matches: rpc("a.B", method),
                filters,
                backends: grpc_to(&[(forward(web, 9001), 1)]),
                ..Default::default()
            };
            grpc(vec![rule("Fail", vec![failure]), rule("Change", changes)])
        })
        .await;
        grpc_app(&web, 9001, "app").await;
        let changed = call(&web, "/a.B/Change").await;
        assert_eq!(changed["x-heard"], "1");
        assert_eq!(changed["x-app"], "changed");
        let failed = call(&web, "/a.B/Fail").await;
        assert_eq!(failed["grpc-status"], "8");
        let message = failed["grpc-message"].to_str().unwrap();
        assert!(message.contains("enough"), "{message}");
        assert!(failed.get("x-app").is_none(), "nobody was asked");
    });
}

// What is not looked into.

/// A server that takes what comes first and says its name.
async fn named(pod: &Pod, port: u16, name: &'static str) {
    app(pod.address(port), move |mut stream| async move {
        let mut first = [0; 1024];
        if stream.read(&mut first).await.is_ok_and(|count| count > 0) {
            stream.write_all(name.as_bytes()).await.unwrap();
        }
    })
    .await;
}

/// Who answers these bytes through the sidecar; empty: the connection was closed.
pub async fn answered(web: &Pod, bytes: &[u8]) -> String {
    let mut client = Http1::new(web.call().await);
    client
        .send("CONNECT voting:80 HTTP/1.1\r\nHost: voting:80\r\n\r\n")
        .await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200"));
    client.send(bytes).await;
    String::from_utf8(client.rest().await).unwrap()
}

/// A TLS hello that asks for this name.
pub fn hello(name: &str) -> Vec<u8> {
    let config = Mesh::new().epoch("client").client(ClientAlpn::None);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut tls = rustls::ClientConnection::new(config, name).unwrap();
    let mut bytes = Vec::new();
    tls.write_tls(&mut bytes).unwrap();
    bytes
}

/// A route of this kind and name.
fn resource(kind: &str, name: &str) -> Option<meta::Metadata> {
    Some(meta::Metadata {
        kind: Some(meta::metadata::Kind::Resource(meta::Resource {
            group: "gateway.networking.k8s.io".into(),
            kind: kind.into(),
            name: name.into(),
            namespace: "default".into(),
            ..Default::default()
        })),
    })
}

pub fn tls_to(backend: Option<api::Backend>) -> Option<tls_route::Distribution> {
    use tls_route::distribution::{FirstAvailable, Kind};
    Some(tls_route::Distribution {
        kind: Some(Kind::FirstAvailable(FirstAvailable {
            backends: vec![tls_route::RouteBackend {
                backend,
                ..Default::default()
            }],
        })),
    })
}

#[test]
fn tls_goes_by_its_server_name_and_what_no_route_names_goes_nowhere() {
    run(async {
        let route = |route: &str, name: sni_match::Match, backend, filters| api::TlsRoute {
            metadata: resource("TLSRoute", route),
            snis: vec![SniMatch {
                r#match: Some(name),
            }],
            rules: vec![tls_route::Rule {
                backends: tls_to(backend),
                filters,
            }],
        };
        let suffix = |labels: &[&str]| {
            sni_match::Match::Suffix(sni_match::Suffix {
                reverse_labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            })
        };
        let exact = |name: &str| sni_match::Match::Exact(name.to_owned());
        let forbidden = vec![tls_route::Filter {
            kind: Some(tls_route::filter::Kind::Forbidden(opaque::Forbidden {})),
        }];
        let web = calling(|web| {
            proxy_protocol::Kind::Tls(proxy_protocol::Tls {
                routes: vec![
                    route(
                        "wide",
                        suffix(&["test", "shop"]),
                        forward(web, 9001),
                        vec![],
                    ),
                    route("exact", exact("pay.shop.test"), forward(web, 9002), vec![]),
                    route(
                        "closer",
                        suffix(&["test", "shop", "eu"]),
                        forward(web, 9003),
                        vec![],
                    ),
                    route("no", exact("no.shop.test"), forward(web, 9001), forbidden),
                ],
            })
        })
        .await;
        for (port, name) in [(9001, "wide"), (9002, "exact"), (9003, "closer")] {
            named(&web, port, name).await;
        }
        for (name, expected) in [
            ("pay.shop.test", "exact"),
            ("PAY.shop.test", "exact"),
            ("a.shop.test", "wide"),
            ("a.b.shop.test", "wide"),
            ("a.eu.shop.test", "closer"),
            ("shop.test", ""),
            ("other.test", ""),
            ("no.shop.test", ""),
        ] {
            assert_eq!(answered(&web, &hello(name)).await, expected, "{name}");
        }
        let refused = |why: &str| {
            let label = format!("reason=\"{why}\"");
            web.metric("outbound_tcp_errors_total", &[&label])
        };
        assert_eq!(
            (refused("route-not-found"), refused("forbidden")),
            (2.0, 1.0),
            "{}",
            web.metrics()
        );
        // Each route has counted its own, and each connection has ended.
        for (route, connections, error) in [
            ("wide", 2.0, ""),
            ("exact", 2.0, ""),
            ("closer", 1.0, ""),
            ("no", 1.0, "forbidden"),
        ] {
            let route = format!("route_name=\"{route}\"");
            let labels = ["route_kind=\"TLSRoute\"", "parent_name=\"voting\"", &route];
            let opened = web.metric("outbound_tls_route_open_total", &labels);
            assert_eq!(opened, connections, "{}", web.metrics());
            let error = format!("error=\"{error}\"");
            let closed = [&labels[..], &[&error]].concat();
            let end = Instant::now() + Duration::from_secs(20);
            while web.metric("outbound_tls_route_close_total", &closed) < connections {
                assert!(Instant::now() < end, "{}", web.metrics());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let all = web.metric("outbound_tls_route_close_total", &labels);
            assert_eq!(all, connections, "{}", web.metrics());
        }
        assert_eq!(web.metric("outbound_tcp_route_open_total", &[]), 0.0);
    });
}

fn opaque(
    backends: &[(Option<api::Backend>, u32)],
    filters: Vec<opaque_route::Filter>,
) -> proxy_protocol::Kind {
    use opaque_route::distribution::{Kind, RandomAvailable};
    let weighted = backends
        .iter()
        .map(|(backend, weight)| opaque_route::WeightedRouteBackend {
            backend: Some(opaque_route::RouteBackend {
                backend: backend.clone(),
                ..Default::default()
            }),
            weight: *weight,
        });
    let backends = opaque_route::Distribution {
        kind: Some(Kind::RandomAvailable(RandomAvailable {
            backends: weighted.collect(),
        })),
    };
    proxy_protocol::Kind::Opaque(proxy_protocol::Opaque {
        routes: vec![api::OpaqueRoute {
            rules: vec![opaque_route::Rule {
                backends: Some(backends),
                filters,
            }],
            ..Default::default()
        }],
    })
}

#[test]
fn connections_of_a_tcp_route_are_shared_by_weight() {
    run(async {
        let web = calling(|web| {
            let backends = [(9001, 1), (9002, 1), (9003, 0)];
            opaque(
                &backends.map(|(port, weight)| (forward(web, port), weight)),
                vec![],
            )
        })
        .await;
        for (port, name) in [(9001, "one"), (9002, "two"), (9003, "none")] {
            named(&web, port, name).await;
        }
        let mut counts = BTreeMap::new();
        for _ in 0..100 {
            // Bytes that look like HTTP are bytes like others.
            let name = answered(&web, b"GET / HTTP/1.1\r\n\r\n").await;
            *counts.entry(name).or_insert(0) += 1;
        }
        assert_eq!(
            counts.keys().collect::<Vec<_>>(),
            ["one", "two"],
            "{counts:?}"
        );
        assert!((17..=83).contains(&counts["one"]), "{counts:?}");
    });
}

#[test]
fn a_forbidden_tcp_route_closes_its_connections_and_says_so() {
    run(async {
        let forbidden = opaque_route::Filter {
            kind: Some(opaque_route::filter::Kind::Forbidden(opaque::Forbidden {})),
        };
        let web = calling(|web| opaque(&[(forward(web, 9001), 1)], vec![forbidden])).await;
        named(&web, 9001, "one").await;
        assert_eq!(answered(&web, b"hello").await, "");
        let counted = web.metric("outbound_tcp_errors_total", &["reason=\"forbidden\""]);
        assert_eq!(counted, 1.0, "{}", web.metrics());
    });
}
