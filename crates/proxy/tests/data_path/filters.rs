//! What filters do to live requests: rewrites, mirrors, faults, CORS; on rules and on backends, outbound and inbound.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tulle_api::outbound::http_route::filter::Kind as OutboundKind;
use tulle_api::outbound::http_route::{Filter, RouteBackend, Rule, filter::Kind};
use tulle_api::{http_route as api, http_types, inbound, outbound};
use tulle_engine::inbound::Server;

use crate::client::{Http1, Message, echo};
use crate::rig::{Mesh, Pod, app, plain, policy_with, run};

fn filter(kind: Kind) -> Filter {
    Filter { kind: Some(kind) }
}

fn share(numerator: u32, denominator: u32) -> Option<api::Ratio> {
    Some(api::Ratio {
        numerator,
        denominator,
    })
}

fn millis(length: u64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration {
        seconds: (length / 1000) as i64,
        nanos: (length % 1000) as i32 * 1_000_000,
    })
}

fn prefix_of(text: &str) -> api::HttpRouteMatch {
    api::HttpRouteMatch {
        path: Some(api::PathMatch {
            kind: Some(api::path_match::Kind::Prefix(text.into())),
        }),
        ..Default::default()
    }
}

fn replace_prefix(text: &str) -> Option<api::PathModifier> {
    Some(api::PathModifier {
        replace: Some(api::path_modifier::Replace::Prefix(text.into())),
    })
}

fn the_backend(rule: &mut Rule) -> &mut RouteBackend {
    let Some(outbound::http_route::distribution::Kind::FirstAvailable(first)) =
        rule.backends.as_mut().and_then(|b| b.kind.as_mut())
    else {
        panic!()
    };
    &mut first.backends[0]
}

/// A client's pod with an echoing application as the Service `voting`, under a changed rule.
async fn voting(change: impl Fn(&mut Rule)) -> (Mesh, Pod) {
    let mesh = Mesh::new();
    let web = mesh.pod("web").await;
    app(web.address(9000), echo).await;
    mesh.service("voting", &[plain(web.address(9000))]);
    mesh.policy("voting", policy_with("voting", change));
    (mesh, web)
}

/// The start line that the application was sent.
fn start(answer: &Message) -> &str {
    answer.text().lines().next().unwrap()
}

#[test]
fn a_rewrite_changes_host_and_path_and_keeps_the_query() {
    run(async {
        let (_mesh, web) = voting(|rule| {
            rule.matches = vec![prefix_of("/old")];
            rule.filters = vec![filter(Kind::UrlRewrite(api::UrlRewrite {
                host: "inner.example".into(),
                path: replace_prefix("/new"),
            }))];
            // The backend's own comes after, and knows what the rule's has made of the prefix.
            the_backend(rule).filters = vec![filter(Kind::UrlRewrite(api::UrlRewrite {
                host: String::new(),
                path: replace_prefix("/newest/"),
            }))];
        })
        .await;
        let mut client = Http1::new(web.call().await);
        let answer = client.get("voting", "/old/a?b=/old").await;
        assert_eq!(
            answer.text().lines().take(2).collect::<Vec<_>>(),
            ["GET /newest/a?b=/old HTTP/1.1", "host: inner.example"]
        );
        // What a rewrite makes is not matched again, what a client sends is.
        assert_eq!(client.get("voting", "/new/a").await.status(), 404);
    });
}

#[test]
fn a_rewrite_that_cannot_be_made_is_refused_by_the_rules_name() {
    run(async {
        let (_mesh, web) = voting(|rule| {
            rule.matches = vec![api::HttpRouteMatch {
                path: Some(api::PathMatch {
                    kind: Some(api::path_match::Kind::Exact("/old".into())),
                }),
                ..Default::default()
            }];
            rule.filters = vec![filter(Kind::UrlRewrite(api::UrlRewrite {
                host: String::new(),
                path: replace_prefix("/new"),
            }))];
        })
        .await;
        let answer = Http1::new(web.call().await).get("voting", "/old").await;
        assert_eq!(
            (answer.status(), answer.field("tulle-reason")),
            (500, Some("rewrite-invalid"))
        );
        assert_eq!(
            answer.field("l5d-proxy-error"),
            Some("invalid rewrite (default http)")
        );
    });
}

/// An application that tells what it was sent, and answers only when it is let.
async fn shadow(pod: &Pod, port: u16) -> mpsc::UnboundedReceiver<Message> {
    let (tell, told) = mpsc::unbounded_channel();
    app(pod.address(port), move |stream| {
        let tell = tell.clone();
        async move {
            let mut server = Http1::new(stream);
            while let Some(request) = server.message().await {
                let hang = request.head.contains("x-hang");
                tell.send(request).unwrap();
                if hang {
                    std::future::pending::<()>().await;
                }
                server
                    .send("HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno")
                    .await;
            }
        }
    })
    .await;
    told
}

fn mirror(address: std::net::SocketAddr, ratio: Option<api::Ratio>) -> Filter {
    filter(Kind::Mirror(outbound::Mirror {
        backend: Some(outbound::Backend {
            kind: Some(outbound::backend::Kind::Forward(plain(address))),
            ..Default::default()
        }),
        ratio,
    }))
}

#[test]
fn a_mirror_gets_a_copy_and_the_caller_only_the_backends_answer() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        let mut told = shadow(&web, 9001).await;
        app(web.address(9000), echo).await;
        mesh.service("voting", &[plain(web.address(9000))]);
        let to = web.address(9001);
        mesh.policy(
            "voting",
            policy_with("voting", |rule| rule.filters = vec![mirror(to, None)]),
        );
        let mut client = Http1::new(web.call().await);
        client
            .send("POST /vote HTTP/1.1\r\nHost: voting\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            .await;
        assert_eq!(client.answer().await.status(), 200);
        let copy = told.recv().await.unwrap();
        assert_eq!(copy.text(), "abcde");
        assert!(copy.head.starts_with("POST /vote HTTP/1.1\nhost: voting"));
        assert_eq!(copy.field("content-length"), Some("5"));
        assert_eq!(copy.field("transfer-encoding"), None);
        // One that hangs does not hold up the next ones, nor the caller.
        client
            .send("GET / HTTP/1.1\r\nHost: voting\r\nX-Hang: 1\r\n\r\n")
            .await;
        assert_eq!(client.answer().await.status(), 200);
        assert!(told.recv().await.unwrap().head.contains("x-hang"));
        assert_eq!(client.get("voting", "/next").await.status(), 200);
        assert!(told.recv().await.unwrap().head.contains("/next"));
        while web.metric("outbound_http_mirrored_total", &["result=\"answered\""]) < 2.0 {
            tokio::task::yield_now().await;
        }
        // Its 500s are nobody's failures.
        assert_eq!(web.metric("response_total", &["status_code=\"500\""]), 0.0);
    });
}

#[test]
fn a_mirror_that_cannot_be_reached_or_a_body_too_long_harms_nobody() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        app(web.address(9000), echo).await;
        mesh.service("voting", &[plain(web.address(9000))]);
        let nowhere = web.address(9);
        mesh.policy(
            "voting",
            policy_with("voting", |rule| {
                the_backend(rule).filters = vec![mirror(nowhere, None)]
            }),
        );
        let mut client = Http1::new(web.call().await);
        assert_eq!(client.get("voting", "/").await.status(), 200);
        while web.metric("outbound_http_mirrored_total", &["result=\"failed\""]) < 1.0 {
            tokio::task::yield_now().await;
        }
        let body = "x".repeat(64 * 1024 + 1);
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: voting\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ))
            .await;
        let answer = client.answer().await;
        assert!(answer.text().ends_with(&body));
        assert_eq!(
            web.metric("outbound_http_mirrored_total", &["skipped_body"]),
            1.0
        );
    });
}

#[test]
fn no_more_than_so_many_copies_are_under_way_and_the_rest_are_counted() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        let _told = shadow(&web, 9001).await;
        app(web.address(9000), echo).await;
        mesh.service("voting", &[plain(web.address(9000))]);
        let to = web.address(9001);
        mesh.policy(
            "voting",
            policy_with("voting", |rule| rule.filters = vec![mirror(to, None)]),
        );
        let mut client = Http1::new(web.call().await);
        for _ in 0..140 {
            client
                .send("GET / HTTP/1.1\r\nHost: voting\r\nX-Hang: 1\r\n\r\n")
                .await;
            assert_eq!(client.answer().await.status(), 200);
        }
        assert_eq!(
            web.metric("outbound_http_mirrored_total", &["skipped_full"]),
            12.0
        );
    });
}

#[test]
fn a_mirror_takes_its_share() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        let mut told = shadow(&web, 9001).await;
        app(web.address(9000), echo).await;
        mesh.service("voting", &[plain(web.address(9000))]);
        let to = web.address(9001);
        mesh.policy(
            "voting",
            policy_with("voting", |rule| {
                rule.filters = vec![mirror(to, share(1, 4))];
            }),
        );
        let mut client = Http1::new(web.call().await);
        let count = Rc::new(RefCell::new(0));
        let counted = count.clone();
        tokio::task::spawn_local(async move {
            while told.recv().await.is_some() {
                *counted.borrow_mut() += 1;
            }
        });
        for _ in 0..400 {
            assert_eq!(client.get("voting", "/").await.status(), 200);
        }
        let mirrored = || web.metric("outbound_http_mirrored_total", &[]);
        while *count.borrow() == 0 || f64::from(*count.borrow()) < mirrored() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let count = *count.borrow();
        // 100 expected; six standard deviations of a binomial are 52.
        assert!((48..=152).contains(&count), "{count}");
    });
}

fn fault(headers: &[(&str, &str)], delay: Option<u64>, abort: Option<(u32, u32)>) -> Filter {
    filter(Kind::Fault(api::FaultInjector {
        headers: headers
            .iter()
            .map(|(name, value)| api::HeaderMatch {
                name: (*name).into(),
                value: Some(api::header_match::Value::Exact((*value).into())),
            })
            .collect(),
        delay: delay.map(|length| api::fault_injector::Delay {
            duration: millis(length),
            ratio: None,
        }),
        abort: abort.map(|(http, grpc)| api::fault_injector::Abort {
            http_status: http,
            grpc_code: grpc,
            message: "a test".into(),
            ratio: None,
        }),
    }))
}

#[test]
fn a_fault_delays_and_aborts_what_its_header_means_and_nothing_else() {
    run(async {
        let (_mesh, web) = voting(|rule| {
            rule.filters = vec![fault(&[("x-fault", "1")], Some(150), Some((503, 0)))];
        })
        .await;
        let mut client = Http1::new(web.call().await);
        assert_eq!(client.get("voting", "/").await.status(), 200);
        let begun = Instant::now();
        client
            .send("GET / HTTP/1.1\r\nHost: voting\r\nX-Fault: 1\r\n\r\n")
            .await;
        let answer = client.answer().await;
        assert!(begun.elapsed() >= Duration::from_millis(150));
        assert_eq!(
            (answer.status(), answer.field("tulle-reason")),
            (503, Some("fault-injected"))
        );
        assert_eq!(
            answer.field("l5d-proxy-error"),
            Some("fault injected by the route: a test (default http)")
        );
        // A gRPC caller gets gRPC's word for the same.
        client
            .send("POST /a.B/C HTTP/1.1\r\nHost: voting\r\nX-Fault: 1\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n")
            .await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status(), answer.field("grpc-status")),
            (200, Some("14"))
        );
        for (kind, count) in [("delay", 2.0), ("abort", 2.0)] {
            let label = format!("fault=\"{kind}\"");
            assert_eq!(web.metric("http_faults_total", &[&label]), count, "{kind}");
        }
    });
}

#[test]
fn a_caller_that_leaves_ends_its_delay() {
    run(async {
        let (_mesh, web) = voting(|rule| {
            rule.filters = vec![fault(&[], Some(3_600_000), None)];
        })
        .await;
        let mut client = Http1::new(web.call().await);
        client.send("GET / HTTP/1.1\r\nHost: voting\r\n\r\n").await;
        while web.metric("http_faults_total", &["fault=\"delay\""]) < 1.0 {
            tokio::task::yield_now().await;
        }
        drop(client);
        while web.metric("tcp_open_connections", &["peer=\"src\""]) > 0.0 {
            tokio::task::yield_now().await;
        }
    });
}

fn origins(exact: &[&str], wildcard: &[&str]) -> Vec<api::cors::OriginMatch> {
    use api::cors::{OriginMatch, origin_match::Kind};
    let exact = exact.iter().map(|text| Kind::Exact((*text).into()));
    let wildcard = wildcard.iter().map(|text| Kind::Wildcard((*text).into()));
    exact
        .chain(wildcard)
        .map(|kind| OriginMatch { kind: Some(kind) })
        .collect()
}

#[test]
fn cors_answers_preflights_and_marks_answers_for_the_origins_that_are_allowed() {
    run(async {
        let (_mesh, web) = voting(|rule| {
            rule.filters = vec![filter(Kind::Cors(api::Cors {
                allow_origins: origins(&["https://shop.example"], &["https://*.shop.example"]),
                allow_methods: vec!["GET".into(), "PUT".into()],
                allow_headers: vec!["x-vote".into()],
                expose_headers: vec!["x-app".into()],
                allow_credentials: true,
                max_age: millis(600_000),
            }))];
        })
        .await;
        let mut client = Http1::new(web.call().await);
        client.send("OPTIONS /vote HTTP/1.1\r\nHost: voting\r\nOrigin: https://a.shop.example\r\nAccess-Control-Request-Method: PUT\r\n\r\n").await;
        let answer = client.answer().await;
        let of = |name| answer.field(name);
        assert_eq!(answer.status(), 204);
        assert_eq!(
            of("access-control-allow-origin"),
            Some("https://a.shop.example")
        );
        assert_eq!(of("access-control-allow-credentials"), Some("true"));
        assert_eq!(of("access-control-allow-methods"), Some("GET, PUT"));
        assert_eq!(of("access-control-allow-headers"), Some("x-vote"));
        assert_eq!(of("access-control-max-age"), Some("600"));
        assert_eq!(
            (of("vary"), of("l5d-proxy-error"), of("content-length")),
            (Some("origin"), None, None)
        );

        client
            .send("GET / HTTP/1.1\r\nHost: voting\r\nOrigin: https://shop.example\r\n\r\n")
            .await;
        let answer = client.answer().await;
        assert_eq!(
            answer.field("access-control-allow-origin"),
            Some("https://shop.example")
        );
        assert_eq!(answer.field("access-control-expose-headers"), Some("x-app"));
        assert_eq!(answer.field("vary"), Some("origin"));
        for method in ["GET", "OPTIONS"] {
            client.send(format!("{method} / HTTP/1.1\r\nHost: voting\r\nOrigin: https://shop.example.evil\r\nAccess-Control-Request-Method: PUT\r\n\r\n")).await;
            let answer = client.answer().await;
            assert!(!answer.head.contains("access-control"), "{}", answer.head);
            assert_eq!(answer.field("vary"), Some("origin"));
        }
        // OPTIONS without the fields of a preflight is an ordinary request.
        client
            .send("OPTIONS / HTTP/1.1\r\nHost: voting\r\n\r\n")
            .await;
        assert_eq!(start(&client.answer().await), "OPTIONS / HTTP/1.1");
        assert_eq!(
            web.metric("http_preflights_total", &["allowed=\"true\""]),
            1.0
        );
        assert_eq!(
            web.metric("http_preflights_total", &["allowed=\"false\""]),
            1.0
        );
        assert_eq!(web.metric("outbound_http_errors_total", &[]), 0.0);
    });
}

#[test]
fn a_page_may_read_why_its_request_failed() {
    run(async {
        let (_mesh, web) = voting(|rule| {
            rule.filters = vec![
                filter(Kind::Cors(api::Cors {
                    allow_origins: origins(&["*"], &[]),
                    ..Default::default()
                })),
                fault(&[], None, Some((0, 8))),
            ];
        })
        .await;
        let mut client = Http1::new(web.call().await);
        client
            .send("GET / HTTP/1.1\r\nHost: voting\r\nOrigin: https://any.example\r\n\r\n")
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.status(), 429);
        assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.field("vary"), None);
    });
}

#[test]
fn filters_of_a_servers_route_act_on_what_comes_in() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), echo).await;
        use inbound::http_route::{Filter, Rule, filter::Kind};
        let filter = |kind| Filter { kind: Some(kind) };
        let rule = |prefix: &str, filters| Rule {
            matches: vec![prefix_of(prefix)],
            filters,
        };
        let header = http_types::headers::Header {
            name: "x-seen".into(),
            value: "1".into(),
        };
        let Some(OutboundKind::Fault(fault)) = fault(&[], None, Some((429, 0))).kind else {
            panic!()
        };
        let rules = vec![
            rule(
                "/old",
                vec![
                    filter(Kind::UrlRewrite(api::UrlRewrite {
                        host: String::new(),
                        path: replace_prefix("/new"),
                    })),
                    filter(Kind::ResponseHeaderModifier(api::ResponseHeaderModifier {
                        add: Some(http_types::Headers {
                            headers: vec![header],
                        }),
                        ..Default::default()
                    })),
                    filter(Kind::Cors(api::Cors {
                        allow_origins: origins(&["*"], &[]),
                        ..Default::default()
                    })),
                ],
            ),
            rule("/fault", vec![filter(Kind::Fault(fault))]),
        ];
        let everybody = inbound::Authz {
            networks: vec![inbound::Network {
                net: Some(tulle_api::net::IpNetwork {
                    ip: Some(tulle_api::net::IpAddress {
                        ip: Some(tulle_api::net::ip_address::Ip::Ipv4(0)),
                    }),
                    prefix_len: 0,
                }),
                except: Vec::new(),
            }],
            authentication: Some(inbound::Authn {
                permit: Some(inbound::authn::Permit::Unauthenticated(Default::default())),
            }),
            ..Default::default()
        };
        let message = inbound::Server {
            protocol: Some(inbound::ProxyProtocol {
                kind: Some(inbound::proxy_protocol::Kind::Http1(
                    inbound::proxy_protocol::Http1 {
                        routes: vec![inbound::HttpRoute {
                            authorizations: vec![everybody],
                            rules,
                            ..Default::default()
                        }],
                        ..Default::default()
                    },
                )),
            }),
            labels: [
                ("kind".to_owned(), "server".to_owned()),
                ("name".to_owned(), "filtered".to_owned()),
            ]
            .into(),
            ..Default::default()
        };
        let server = Server::compile(&message).unwrap();
        assert!(server.problems.is_empty(), "{:?}", server.problems);
        pod.allow(80, server).await;
        let mut client = Http1::new(pod.enter().await);
        client
            .send("GET /old/a?b HTTP/1.1\r\nHost: voting\r\nOrigin: https://any.example\r\n\r\n")
            .await;
        let answer = client.answer().await;
        assert_eq!(start(&answer), "GET /new/a?b HTTP/1.1");
        assert_eq!(
            (
                answer.field("x-seen"),
                answer.field("access-control-allow-origin")
            ),
            (Some("1"), Some("*"))
        );
        let answer = client.get("voting", "/fault").await;
        assert_eq!(
            (answer.status(), answer.field("tulle-reason")),
            (429, Some("fault-injected"))
        );
        assert_eq!(
            pod.metric(
                "http_faults_total",
                &["direction=\"inbound\"", "fault=\"abort\""]
            ),
            1.0
        );
    });
}
