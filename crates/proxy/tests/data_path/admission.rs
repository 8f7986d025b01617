//! What an authorized request has to meet beside: limits, audit, probes, and the names in refusals.

use std::io::Write;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tulle_api::inbound as api;
use tulle_api::{http_route, http_types, meta, net};
use tulle_engine::inbound::{DefaultPolicy, DefaultProtocol, Server};

use crate::client::{Http1, echo};
use crate::rig::{Mesh, Pod, app, identity, run};

pub fn everywhere() -> Vec<api::Network> {
    vec![api::Network {
        net: Some(net::IpNetwork {
            ip: Some(net::IpAddress {
                ip: Some(net::ip_address::Ip::Ipv4(0)),
            }),
            prefix_len: 0,
        }),
        except: Vec::new(),
    }]
}

pub fn named(name: &str) -> Option<meta::Metadata> {
    Some(meta::Metadata {
        kind: Some(meta::metadata::Kind::Default(name.into())),
    })
}

fn object(kind: &str, name: &str) -> Option<meta::Metadata> {
    Some(meta::Metadata {
        kind: Some(meta::metadata::Kind::Resource(meta::Resource {
            group: "policy.linkerd.io".into(),
            kind: kind.into(),
            name: name.into(),
            namespace: "default".into(),
            ..Default::default()
        })),
    })
}

fn anybody(name: &str) -> api::Authz {
    api::Authz {
        networks: everywhere(),
        authentication: Some(api::Authn {
            permit: Some(api::authn::Permit::Unauthenticated(Default::default())),
        }),
        metadata: named(name),
        ..Default::default()
    }
}

fn meshed(name: &str, of: &str) -> api::Authz {
    let clients = api::authn::permit_mesh_tls::PermitClientIdentities {
        identities: vec![api::Identity { name: identity(of) }],
        suffixes: Vec::new(),
    };
    api::Authz {
        authentication: Some(api::Authn {
            permit: Some(api::authn::Permit::MeshTls(api::authn::PermitMeshTls {
                clients: Some(api::authn::permit_mesh_tls::Clients::Identities(clients)),
            })),
        }),
        ..anybody(name)
    }
}

pub fn route(name: &str, path: &str, authorizations: Vec<api::Authz>) -> api::HttpRoute {
    let path = http_route::PathMatch {
        kind: Some(http_route::path_match::Kind::Exact(path.into())),
    };
    let matches = vec![http_route::HttpRouteMatch {
        path: Some(path),
        method: Some(http_types::HttpMethod {
            r#type: Some(http_types::http_method::Type::Registered(0)),
        }),
        ..Default::default()
    }];
    api::HttpRoute {
        metadata: named(name),
        authorizations,
        rules: vec![api::http_route::Rule {
            matches,
            filters: Vec::new(),
        }],
        ..Default::default()
    }
}

/// A server of this name that lets everybody in, on one route for everything.
pub fn server(name: &str) -> api::Server {
    let all = api::HttpRoute {
        metadata: named("all"),
        rules: vec![api::http_route::Rule::default()],
        ..Default::default()
    };
    with_routes(name, vec![all], None)
}

pub fn with_routes(
    name: &str,
    http_routes: Vec<api::HttpRoute>,
    limit: Option<api::HttpLocalRateLimit>,
) -> api::Server {
    let detect = api::proxy_protocol::Detect {
        timeout: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        http_routes,
        http_local_rate_limit: limit,
    };
    api::Server {
        protocol: Some(api::ProxyProtocol {
            kind: Some(api::proxy_protocol::Kind::Detect(detect)),
        }),
        authorizations: vec![anybody("everybody")],
        labels: [
            ("kind", "Server"),
            ("group", "policy.linkerd.io"),
            ("name", name),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
        ..Default::default()
    }
}

pub async fn set(pod: &Pod, message: api::Server) {
    pod.allow(80, Server::compile(&message).unwrap()).await;
}

pub fn limit(total: u32, each: u32, overrides: &[(u32, &str)]) -> Option<api::HttpLocalRateLimit> {
    let limit = |requests_per_second| {
        Some(api::http_local_rate_limit::Limit {
            requests_per_second,
        })
    };
    Some(api::HttpLocalRateLimit {
        metadata: object("HTTPLocalRateLimitPolicy", "gentle"),
        total: limit(total),
        identity: limit(each),
        overrides: overrides
            .iter()
            .map(|(rate, of)| api::http_local_rate_limit::Override {
                limit: limit(*rate),
                clients: Some(api::http_local_rate_limit::r#override::ClientIdentities {
                    identities: vec![api::Identity { name: identity(of) }],
                }),
            })
            .collect(),
    })
}

pub fn with_limit(name: &str, limit: Option<api::HttpLocalRateLimit>) -> api::Server {
    let all = api::HttpRoute {
        rules: vec![api::http_route::Rule::default()],
        ..Default::default()
    };
    with_routes(name, vec![all], limit)
}

async fn statuses(client: &mut Http1, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(client.get("voting", "/").await.status());
    }
    statuses
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|known| **known == status).count()
}

#[test]
fn a_rate_limit_lets_a_burst_in_and_says_when_to_come_back() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), echo).await;
        set(&pod, with_limit("limited", limit(0, 3, &[]))).await;
        let mut client = Http1::new(pod.enter().await);
        assert_eq!(statuses(&mut client, 3).await, [200; 3]);
        let answer = client.get("voting", "/").await;
        assert_eq!(
            (
                answer.status(),
                answer.field("tulle-reason"),
                answer.field("retry-after")
            ),
            (429, Some("rate-limited"), Some("1"))
        );
        assert_eq!(
            answer.field("l5d-proxy-error"),
            Some(
                "rate limit exceeded: 3 per second for this client (HTTPLocalRateLimitPolicy default/gentle)"
            )
        );
        // Clients without an identity share one bucket, whichever connection they come on.
        let mut other = Http1::new(pod.enter().await);
        assert_eq!(other.get("voting", "/").await.status(), 429);
        let labels = [
            "ratelimit_name=\"gentle\"",
            "scope=\"identity\"",
            "srv_name=\"limited\"",
        ];
        assert_eq!(
            pod.metric("inbound_http_local_ratelimit_total", &labels),
            2.0,
            "{}",
            pod.metrics()
        );
        // A change of policy that leaves the limit alone gives nobody a fresh bucket.
        let mut message = with_limit("renamed", limit(0, 3, &[]));
        message.authorizations.push(anybody("more"));
        set(&pod, message).await;
        assert_eq!(client.get("voting", "/").await.status(), 429);
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        assert_eq!(client.get("voting", "/").await.status(), 200);
    });
}

#[test]
fn identities_have_their_share_an_override_its_own_and_all_together_the_total() {
    run(async {
        let mesh = Mesh::new();
        let (web, bot) = (mesh.pod("web").await, mesh.pod("bot").await);
        let voting = mesh.pod("voting").await;
        app(voting.address(18080), echo).await;
        mesh.service("voting", &[voting.endpoint(80)]);
        set(&voting, with_limit("limited", limit(50, 2, &[(5, "bot")]))).await;
        let mut clients = [
            Http1::new(web.call().await),
            Http1::new(bot.call().await),
            Http1::new(voting.enter().await),
        ];
        let mut let_in = Vec::new();
        for client in &mut clients {
            let_in.push(count(&statuses(client, 8).await, 200));
        }
        // A slow machine may earn one more within the conversation, never one less.
        for (index, share) in [2, 5, 2].into_iter().enumerate() {
            assert!((share..=share + 1).contains(&let_in[index]), "{let_in:?}");
        }
        let refused = |scope: &str| voting.metric("inbound_http_local_ratelimit_total", &[scope]);
        assert!(
            refused("scope=\"identity\"") >= 12.0,
            "{}",
            voting.metrics()
        );
        assert_eq!(
            voting.metric("inbound_http_local_ratelimit_buckets", &[]),
            1.0
        );

        set(&voting, with_limit("total", limit(4, 100, &[]))).await;
        let mut all = Vec::new();
        for client in &mut clients {
            all.extend(statuses(client, 4).await);
        }
        assert!((4..=5).contains(&count(&all, 200)), "{all:?}");
        assert!(refused("scope=\"total\"") >= 7.0);
    });
}

#[test]
fn as_many_requests_at_once_as_the_server_says() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        let (open, opened) = tokio::sync::watch::channel(false);
        let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
        app(pod.address(18080), move |stream| {
            let (mut opened, arrived) = (opened.clone(), arrived.clone());
            async move {
                let mut server = Http1::new(stream);
                while server.message().await.is_some() {
                    arrived.send(()).unwrap();
                    opened.wait_for(|open| *open).await.unwrap();
                    server
                        .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                        .await;
                }
            }
        })
        .await;
        let mut message = server("narrow");
        message.max_in_flight = 2;
        set(&pod, message).await;
        let request = "GET / HTTP/1.1\r\nHost: voting\r\n\r\n";
        let mut held = [Http1::new(pod.enter().await), Http1::new(pod.enter().await)];
        for client in &mut held {
            client.send(request).await;
            arrivals.recv().await.unwrap();
        }
        let mut third = Http1::new(pod.enter().await);
        let refused = third.get("voting", "/").await;
        assert_eq!(
            (refused.status(), refused.field("tulle-reason")),
            (503, Some("concurrency-limited"))
        );
        assert_eq!(
            refused.field("l5d-proxy-error"),
            Some("too many requests at once: 2 (Server narrow)")
        );
        // A client that leaves while it is served leaves its place too.
        let [first, second] = held;
        drop(first);
        let mut again = Http1::new(pod.enter().await);
        loop {
            again.send(request).await;
            tokio::select! {
                _ = arrivals.recv() => break,
                refused = again.answer() => assert_eq!(refused.status(), 503),
            }
        }
        open.send_replace(true);
        for mut client in [second, again] {
            assert_eq!(client.answer().await.status(), 200);
        }
        assert_eq!(third.get("voting", "/").await.status(), 200);
        let labels = ["srv_name=\"narrow\""];
        assert!(pod.metric("inbound_http_concurrency_limited_total", &labels) >= 1.0);
    });
}

#[test]
fn a_probe_is_let_in_whatever_route_or_requirement_stands_beside_it() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), echo).await;
        let probe = || route("probe", "/ready", vec![anybody("probe")]);
        // Closer to the request than the probe's route: it names a host. And it lets nobody without an identity in.
        let mut closer = route("users", "/ready", vec![meshed("web-only", "web")]);
        closer.hosts = vec![http_route::HostMatch {
            r#match: Some(http_route::host_match::Match::Exact("voting".into())),
        }];
        let mut message = with_routes("probed", vec![closer.clone(), probe()], limit(1, 0, &[]));
        message.authorizations.clear();
        message.jwt = vec![api::Jwt {
            issuer: "nobody".into(),
            claim_headers: vec![api::jwt::ClaimHeader {
                claim: "sub".into(),
                header: "x-user".into(),
            }],
            ..Default::default()
        }];
        set(&pod, message).await;
        let mut kubelet = Http1::new(pod.enter().await);
        for _ in 0..5 {
            kubelet
                .send("GET /ready HTTP/1.1\r\nHost: voting\r\nX-User: root\r\n\r\n")
                .await;
            let answer = kubelet.answer().await;
            assert_eq!(answer.status(), 200, "{}", answer.head);
            // A probe needs no token, and has none to claim anything with.
            assert!(!answer.text().contains("x-user"), "{}", answer.text());
        }
        assert_eq!(kubelet.get("10.0.0.1:80", "/ready").await.status(), 200);
        assert_eq!(kubelet.get("voting", "/other").await.status(), 404);
        kubelet
            .send("POST /ready HTTP/1.1\r\nHost: voting\r\nContent-Length: 0\r\n\r\n")
            .await;
        assert_eq!(
            kubelet.answer().await.status(),
            404,
            "only what probes send"
        );
        // Without the route for probes the same requests are refused, and the answer names who refused.
        let mut message = with_routes("bare", vec![closer], None);
        message.authorizations.clear();
        set(&pod, message).await;
        let answer = kubelet.get("voting", "/ready").await;
        assert_eq!(answer.status(), 403);
        assert_eq!(
            answer.field("l5d-proxy-error"),
            Some("client is not authorized (Server bare)")
        );
    });
}

#[test]
fn a_grpc_caller_beyond_the_limit_gets_its_status_and_when_to_come_back() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), echo).await;
        let mut message = server("calls");
        let grpc = api::proxy_protocol::Grpc {
            routes: vec![api::GrpcRoute {
                rules: vec![api::grpc_route::Rule::default()],
                ..Default::default()
            }],
            local_rate_limit: limit(1, 0, &[]),
        };
        message.protocol = Some(api::ProxyProtocol {
            kind: Some(api::proxy_protocol::Kind::Grpc(grpc)),
        });
        set(&pod, message).await;
        let stream = pod.enter().await;
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::task::spawn_local(async move { drop(connection.await) });
        let mut answers = Vec::new();
        for _ in 0..3 {
            let call = http::Request::post("http://voting/emojivoto.Voting/Vote")
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            let mut ready = send.clone().ready().await.unwrap();
            let (answer, _) = ready.send_request(call, true).unwrap();
            answers.push(answer.await.unwrap());
        }
        let last = answers.pop().unwrap();
        assert_eq!(last.status(), 200);
        let field = |name: &str| {
            last.headers()
                .get(name)
                .map(|value| value.to_str().unwrap())
        };
        assert_eq!(field("grpc-status"), Some("8"), "RESOURCE_EXHAUSTED");
        assert_eq!(field("tulle-reason"), Some("rate-limited"));
        let wait: u64 = field("grpc-retry-pushback-ms").unwrap().parse().unwrap();
        assert!((1..=1001).contains(&wait), "{wait}");
    });
}

/// Lines of the log that this thread writes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn audit_lets_in_counts_and_logs_within_bounds() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        run(async {
            let mesh = Mesh::new();
            let (web, pod) = (mesh.pod("web").await, mesh.pod("voting").await);
            app(pod.address(18080), echo).await;
            mesh.service("voting", &[pod.endpoint(80)]);
            // As the control plane sends a Server with `accessPolicy: audit` and a policy for one client.
            let mut message = server("watched");
            message.authorizations = vec![meshed("web-only", "web"), anybody("audit")];
            set(&pod, message).await;
            let mut allowed = Http1::new(web.call().await);
            assert_eq!(allowed.get("voting", "/").await.status(), 200);
            let mut stranger = Http1::new(pod.enter().await);
            assert_eq!(statuses(&mut stranger, 50).await, [200; 50]);
            let by = |name: &str| {
                pod.metric(
                    "inbound_http_authz_allow_total",
                    &[&format!("authz_name=\"{name}\"")],
                )
            };
            assert_eq!(
                (by("web-only"), by("audit")),
                (1.0, 50.0),
                "{}",
                pod.metrics()
            );

            let opaque = Server::by_default(DefaultPolicy::Audit, DefaultProtocol::Opaque, &[]);
            pod.allow(80, opaque).await;
            let mut tunnel = pod.enter().await;
            tunnel
                .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .unwrap();
            assert!(tunnel.read(&mut [0; 16]).await.unwrap() > 0);
            assert_eq!(
                pod.metric("inbound_tcp_authz_allow_total", &["authz_name=\"audit\""]),
                1.0
            );
        });
    });
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let audits: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("audit: no policy allows this request"))
        .collect();
    assert!(
        (1..=30).contains(&audits.len()),
        "{} lines for 50 requests",
        audits.len()
    );
    assert!(
        audits[0].contains("server=Server watched") && audits[0].contains("no identity"),
        "{}",
        audits[0]
    );
}
