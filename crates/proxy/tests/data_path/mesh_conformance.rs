//! The Gateway API's mesh conformance tests, by their names, over the proxy API: what a client of two Services behind one
//! route is to see. Those about which routes apply to whom (consumer routes, frontends, ports) are the control plane's.

use std::collections::BTreeMap;

use tulle_api::outbound::http_route::{Filter, Rule, filter::Kind};
use tulle_api::{http_route as api, http_types, meta, outbound};

use crate::client::Http1;
use crate::rig::{Mesh, Pod, app, plain, policy, run};

/// Tells which of the two it is, and what it was sent.
async fn echo(name: &'static str, pod: &Pod, port: u16) {
    app(pod.address(port), move |stream| async move {
        let mut server = Http1::new(stream);
        while let Some(request) = server.message().await {
            let body = format!("{name}\n{}", request.head);
            server
                .send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ))
                .await;
        }
    })
    .await;
}

fn forward(pod: &Pod, port: u16) -> outbound::Backend {
    outbound::Backend {
        kind: Some(outbound::backend::Kind::Forward(plain(pod.address(port)))),
        ..Default::default()
    }
}

fn to(backends: &[(outbound::Backend, u32)]) -> Option<outbound::http_route::Distribution> {
    use outbound::http_route::distribution::{Kind, RandomAvailable};
    use outbound::http_route::{RouteBackend, WeightedRouteBackend};
    let weighted = backends
        .iter()
        .map(|(backend, weight)| WeightedRouteBackend {
            backend: Some(RouteBackend {
                backend: Some(backend.clone()),
                ..Default::default()
            }),
            weight: *weight,
        });
    Some(outbound::http_route::Distribution {
        kind: Some(Kind::RandomAvailable(RandomAvailable {
            backends: weighted.collect(),
        })),
    })
}

#[derive(Default)]
struct Wanted {
    path: Option<&'static str>,
    exact: Option<&'static str>,
    header: Option<(&'static str, &'static str)>,
    query: Option<(&'static str, &'static str)>,
}

impl From<Wanted> for api::HttpRouteMatch {
    fn from(wanted: Wanted) -> Self {
        use api::path_match::Kind;
        let path = wanted
            .exact
            .map(|path| Kind::Exact(path.into()))
            .or(wanted.path.map(|path| Kind::Prefix(path.into())));
        Self {
            path: path.map(|kind| api::PathMatch { kind: Some(kind) }),
            headers: wanted
                .header
                .map(|(name, value)| api::HeaderMatch {
                    name: name.into(),
                    value: Some(api::header_match::Value::Exact(value.into())),
                })
                .into_iter()
                .collect(),
            query_params: wanted
                .query
                .map(|(name, value)| api::QueryParamMatch {
                    name: name.into(),
                    value: Some(api::query_param_match::Value::Exact(value.into())),
                })
                .into_iter()
                .collect(),
            method: None,
        }
    }
}

fn prefix(path: &'static str) -> Vec<api::HttpRouteMatch> {
    vec![
        Wanted {
            path: Some(path),
            ..Wanted::default()
        }
        .into(),
    ]
}

/// A client and the Services `echo-v1` and `echo-v2`; the rules are those of a route of `echo`.
async fn meshed(rules: impl FnOnce(outbound::Backend, outbound::Backend) -> Vec<Rule>) -> Pod {
    let mesh = Mesh::new();
    let web = mesh.pod("web").await;
    echo("echo-v1", &web, 9001).await;
    echo("echo-v2", &web, 9002).await;
    let mut message = policy("echo");
    let Some(outbound::proxy_protocol::Kind::Detect(detect)) =
        message.protocol.as_mut().and_then(|p| p.kind.as_mut())
    else {
        panic!()
    };
    let route = meta::Resource {
        kind: "HTTPRoute".into(),
        namespace: "mesh".into(),
        name: "echo".into(),
        ..Default::default()
    };
    let http1 = detect.http1.as_mut().unwrap();
    http1.routes[0].metadata = Some(meta::Metadata {
        kind: Some(meta::metadata::Kind::Resource(route)),
    });
    http1.routes[0].rules = rules(forward(&web, 9001), forward(&web, 9002));
    detect.http2.as_mut().unwrap().routes = http1.routes.clone();
    mesh.policy("echo", message);
    web
}

/// Who answers, or the status when nobody does.
async fn answered(client: &mut Http1, path: &str, header: Option<(&str, &str)>) -> String {
    let header = header.map_or_else(String::new, |(name, value)| format!("{name}: {value}\r\n"));
    client
        .send(format!("GET {path} HTTP/1.1\r\nHost: echo\r\n{header}\r\n"))
        .await;
    let answer = client.answer().await;
    match answer.status() {
        200 => answer.text().lines().next().unwrap().to_owned(),
        status => status.to_string(),
    }
}

fn rule(matches: Vec<api::HttpRouteMatch>, backend: &outbound::Backend) -> Rule {
    Rule {
        matches,
        backends: to(&[(backend.clone(), 1)]),
        ..Default::default()
    }
}

#[test]
fn mesh_http_route_matching() {
    run(async {
        let header = |value| Wanted {
            header: Some(("version", value)),
            ..Wanted::default()
        };
        let path = |path| Wanted {
            path: Some(path),
            ..Wanted::default()
        };
        let web = meshed(|v1, v2| {
            vec![
                rule(vec![path("/").into(), header("one").into()], &v1),
                rule(vec![path("/v2").into(), header("two").into()], &v2),
            ]
        })
        .await;
        let mut client = Http1::new(web.call().await);
        for (path, version, expected) in [
            ("/", None, "echo-v1"),
            ("/example", None, "echo-v1"),
            ("/", Some("one"), "echo-v1"),
            ("/v2", None, "echo-v2"),
            ("/v2/example", None, "echo-v2"),
            ("/", Some("two"), "echo-v2"),
            ("/v2/", None, "echo-v2"),
            ("/v2example", None, "echo-v1"),
            ("/foo/v2/example", None, "echo-v1"),
        ] {
            let header = version.map(|version| ("Version", version));
            assert_eq!(
                answered(&mut client, path, header).await,
                expected,
                "{path} {version:?}"
            );
        }
    });
}

#[test]
fn mesh_http_route_query_param_matching() {
    run(async {
        let animal = |animal| Wanted {
            query: Some(("animal", animal)),
            ..Wanted::default()
        };
        let web = meshed(|v1, v2| {
            let mut both = animal("whale");
            both.header = Some(("version", "one"));
            let mut exact = animal("hydra");
            exact.exact = Some("/path5");
            vec![
                rule(vec![animal("whale").into()], &v1),
                rule(vec![animal("dolphin").into()], &v2),
                rule(vec![both.into()], &v2),
                rule(vec![animal("hydra").into()], &v2),
                rule(vec![exact.into()], &v1),
            ]
        })
        .await;
        let mut client = Http1::new(web.call().await);
        for (path, version, expected) in [
            ("/?animal=whale", None, "echo-v1"),
            ("/?animal=dolphin", None, "echo-v2"),
            ("/?animal=whale&other=1", None, "echo-v1"),
            ("/?color=yellow&animal=dolphin", None, "echo-v2"),
            ("/path1?animal=whale", None, "echo-v1"),
            ("/?animal=whale", Some("one"), "echo-v2"),
            ("/?animal=hydra", None, "echo-v2"),
            ("/path5?animal=hydra", None, "echo-v1"),
            ("/?color=blue", None, "404"),
            ("/?animal=dog", None, "404"),
            ("/?animal=whaledolphin", None, "404"),
            ("/", None, "404"),
        ] {
            let header = version.map(|version| ("Version", version));
            assert_eq!(
                answered(&mut client, path, header).await,
                expected,
                "{path} {version:?}"
            );
        }
    });
}

#[test]
fn mesh_http_route_named_rule_and_simple_same_namespace() {
    run(async {
        let web = meshed(|v1, v2| vec![rule(prefix("/named"), &v1), rule(prefix("/"), &v2)]).await;
        let mut client = Http1::new(web.call().await);
        assert_eq!(answered(&mut client, "/named", None).await, "echo-v1");
        assert_eq!(answered(&mut client, "/", None).await, "echo-v2");
    });
}

#[test]
fn mesh_http_route_weight_and_traffic_split() {
    run(async {
        let web = meshed(|v1, v2| {
            vec![Rule {
                backends: to(&[(v1.clone(), 70), (v2, 30), (v1, 0)]),
                ..Default::default()
            }]
        })
        .await;
        let mut client = Http1::new(web.call().await);
        let mut seen = BTreeMap::new();
        for _ in 0..500 {
            *seen
                .entry(answered(&mut client, "/", None).await)
                .or_insert(0) += 1;
        }
        // 350 and 150 expected; six standard deviations of a binomial are 62.
        assert!((288..=412).contains(&seen["echo-v1"]), "{seen:?}");
        assert_eq!(seen["echo-v1"] + seen["echo-v2"], 500);
    });
}

fn headers(fields: &[(&str, &str)]) -> Option<http_types::Headers> {
    let headers = fields
        .iter()
        .map(|(name, value)| http_types::headers::Header {
            name: (*name).into(),
            value: (*value).into(),
        });
    Some(http_types::Headers {
        headers: headers.collect(),
    })
}

fn modifier() -> Filter {
    Filter {
        kind: Some(Kind::RequestHeaderModifier(api::RequestHeaderModifier {
            add: headers(&[
                ("X-Header-Add", "header-val-1"),
                ("X-Header-Add-Append", "header-val-2"),
            ]),
            set: headers(&[("X-Header-Set", "set-overwrites-values")]),
            remove: vec!["X-Header-Remove".into()],
        })),
    }
}

const MODIFIED: &str =
    "X-Header-Remove: remove-val\r\nX-Header-Add-Append: append-val-1\r\nX-Header-Set: set-val\r\n";

fn assert_modified(head: &str) {
    let values = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_owned())
            .collect::<Vec<_>>()
            .join(",")
    };
    assert_eq!(values("x-header-add"), "header-val-1");
    assert_eq!(values("x-header-add-append"), "append-val-1,header-val-2");
    assert_eq!(values("x-header-set"), "set-overwrites-values");
    assert_eq!(values("x-header-remove"), "");
}

#[test]
fn mesh_http_route_request_header_modifier_and_backend_request_header_modifier() {
    run(async {
        let web = meshed(|v1, _| {
            let mut on_rule = rule(prefix("/rule"), &v1);
            on_rule.filters = vec![modifier()];
            let mut on_backend = rule(prefix("/backend"), &v1);
            let Some(outbound::http_route::distribution::Kind::RandomAvailable(random)) =
                on_backend.backends.as_mut().and_then(|b| b.kind.as_mut())
            else {
                panic!()
            };
            random.backends[0].backend.as_mut().unwrap().filters = vec![modifier()];
            vec![on_rule, on_backend]
        })
        .await;
        let mut client = Http1::new(web.call().await);
        for path in ["/rule", "/backend"] {
            client
                .send(format!(
                    "GET {path} HTTP/1.1\r\nHost: echo\r\n{MODIFIED}\r\n"
                ))
                .await;
            assert_modified(client.answer().await.text());
        }
    });
}

fn path_to(replace: api::path_modifier::Replace) -> Option<api::PathModifier> {
    Some(api::PathModifier {
        replace: Some(replace),
    })
}

#[test]
fn mesh_http_route_rewrite_path() {
    run(async {
        use api::path_modifier::Replace::{Full, Prefix};
        let web = meshed(|v1, _| {
            let rewritten = |path, replace, modified: bool| {
                let mut rule = rule(prefix(path), &v1);
                rule.filters = vec![Filter {
                    kind: Some(Kind::UrlRewrite(api::UrlRewrite {
                        host: String::new(),
                        path: path_to(replace),
                    })),
                }];
                rule.filters.extend(modified.then(modifier));
                rule
            };
            vec![
                rewritten("/prefix/one", Prefix("/one".into()), false),
                rewritten("/strip-prefix", Prefix("/".into()), false),
                rewritten("/full/one", Full("/one".into()), false),
                rewritten(
                    "/full/rewrite-path-and-modify-headers",
                    Full("/test".into()),
                    true,
                ),
                rewritten(
                    "/prefix/rewrite-path-and-modify-headers",
                    Prefix("/prefix".into()),
                    true,
                ),
            ]
        })
        .await;
        let mut client = Http1::new(web.call().await);
        for (path, expected) in [
            ("/prefix/one/two", "/one/two"),
            ("/strip-prefix/three", "/three"),
            ("/strip-prefix", "/"),
            ("/full/one/two", "/one"),
            ("/full/rewrite-path-and-modify-headers/test", "/test"),
            ("/prefix/rewrite-path-and-modify-headers/one", "/prefix/one"),
        ] {
            client
                .send(format!(
                    "GET {path} HTTP/1.1\r\nHost: echo\r\n{MODIFIED}\r\n"
                ))
                .await;
            let answer = client.answer().await;
            let start = answer.text().lines().nth(1).unwrap();
            assert_eq!(start, format!("GET {expected} HTTP/1.1"), "{path}");
            if path.contains("headers") {
                assert_modified(answer.text());
            }
        }
    });
}

/// MeshHTTPRouteRedirectPath, -RedirectPort, -SchemeRedirect, -RedirectHostAndStatus and those of 303, 307 and 308.
#[test]
fn mesh_http_route_redirects() {
    run(async {
        use api::path_modifier::Replace::{Full, Prefix};
        let https = || {
            Some(http_types::Scheme {
                r#type: Some(http_types::scheme::Type::Registered(1)),
            })
        };
        let none = || api::RequestRedirect {
            status: 302,
            ..Default::default()
        };
        let host = |status| api::RequestRedirect {
            host: "example.org".into(),
            status,
            ..Default::default()
        };
        let cases = vec![
            (
                "/original-prefix",
                "/lemon",
                api::RequestRedirect {
                    path: path_to(Prefix("/replacement-prefix".into())),
                    ..none()
                },
                302,
                "http://echo/replacement-prefix/lemon",
            ),
            (
                "/full",
                "/path/original",
                api::RequestRedirect {
                    path: path_to(Full("/full-path-replacement".into())),
                    ..none()
                },
                302,
                "http://echo/full-path-replacement",
            ),
            (
                "/path-and-host",
                "",
                api::RequestRedirect {
                    path: path_to(Prefix("/replacement-prefix".into())),
                    ..host(302)
                },
                302,
                "http://example.org/replacement-prefix",
            ),
            (
                "/port",
                "",
                api::RequestRedirect {
                    port: 8083,
                    ..none()
                },
                302,
                "http://echo:8083/port",
            ),
            (
                "/port-and-host",
                "",
                api::RequestRedirect {
                    port: 8083,
                    ..host(302)
                },
                302,
                "http://example.org:8083/port-and-host",
            ),
            (
                "/port-and-status",
                "",
                api::RequestRedirect {
                    port: 8083,
                    status: 301,
                    ..none()
                },
                301,
                "http://echo:8083/port-and-status",
            ),
            (
                "/scheme",
                "",
                api::RequestRedirect {
                    scheme: https(),
                    ..none()
                },
                302,
                "https://echo/scheme",
            ),
            (
                "/scheme-and-host",
                "",
                api::RequestRedirect {
                    scheme: https(),
                    ..host(302)
                },
                302,
                "https://example.org/scheme-and-host",
            ),
            (
                "/hostname-redirect",
                "",
                host(302),
                302,
                "http://example.org/hostname-redirect",
            ),
            (
                "/host-and-status",
                "",
                host(301),
                301,
                "http://example.org/host-and-status",
            ),
            (
                "/see-other",
                "",
                host(303),
                303,
                "http://example.org/see-other",
            ),
            (
                "/temporary",
                "",
                host(307),
                307,
                "http://example.org/temporary",
            ),
            (
                "/permanent",
                "",
                host(308),
                308,
                "http://example.org/permanent",
            ),
        ];
        let filters: Vec<_> = cases
            .iter()
            .map(|(path, _, redirect, _, _)| (*path, redirect.clone()))
            .collect();
        let web = meshed(|_, _| {
            let rules = filters.into_iter().map(|(path, redirect)| Rule {
                matches: prefix(path),
                filters: vec![Filter {
                    kind: Some(Kind::Redirect(redirect)),
                }],
                ..Default::default()
            });
            rules.collect()
        })
        .await;
        let mut client = Http1::new(web.call().await);
        for (path, rest, _, status, location) in cases {
            let answer = client.get("echo", &format!("{path}{rest}")).await;
            assert_eq!(
                (answer.status(), answer.field("location")),
                (status, Some(location)),
                "{path}"
            );
        }
        // A redirect is what the route is for: no error is counted.
        assert_eq!(web.metric("outbound_http_errors_total", &[]), 0.0);
    });
}
