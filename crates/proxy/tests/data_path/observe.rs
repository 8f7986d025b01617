//! What is told of single requests: the id and the derivation of a refused one, and the access log.

use std::net::Ipv4Addr;
use std::time::Duration;

use tulle_api::inbound::{self as api, authn};
use tulle_api::{http_route, net};
use tulle_engine::inbound::{DefaultPolicy, DefaultProtocol, Server};
use tulle_proxy::observe::KEPT;

use crate::client::{Http1, Message, echo};
use crate::grpc::{call, connect, h2_app, pair, trailers};
use crate::rig::{Mesh, Pod, app, identity, policy_with, run};
use crate::scripted;

fn deny() -> Server {
    let detect = DefaultProtocol::Detect(std::time::Duration::from_secs(1));
    Server::by_default(DefaultPolicy::Deny, detect, &[])
}

#[test]
fn a_refusal_names_its_id_and_how_it_came_to_be() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        mesh.service("voting", &[voting.endpoint(80)]);
        voting.allow(80, deny()).await;
        let mut client = Http1::new(web.call().await);
        client
            .send("GET /vote?for=x HTTP/1.1\r\nHost: voting\r\nX-Request-Id: req-7\r\n\r\n")
            .await;
        let answer = client.answer().await;
        let said = (answer.status(), answer.field("tulle-request-id"));
        assert_eq!(said, (403, Some("req-7")), "{answer:?}");
        let told = voting.observed.explain_one("req-7").unwrap();
        assert_eq!(told["direction"], "inbound");
        assert_eq!(told["method"], "GET");
        assert_eq!(told["authority"], "voting");
        assert_eq!(told["path"], "/vote?for=x");
        assert_eq!(told["client_id"], identity("web"));
        assert_eq!(told["reason"], "unauthorized");
        assert_eq!(told["status"], 403);
        assert_eq!(told["rule"], "default deny");
        assert_eq!(told["derivation"]["policy"], "default deny");
        let weighed = &told["derivation"]["matches"];
        assert_eq!(weighed.as_array().unwrap().len(), 1, "{told}");
        assert_eq!(weighed[0]["outcome"], "matched");
        // It was refused there, not here.
        assert!(web.observed.explain_one("req-7").is_none());
    });
}

#[test]
fn a_client_of_no_known_identity_chooses_no_id_and_nothing_unprintable_is_kept() {
    run(async {
        let voting = Mesh::new().pod("voting").await;
        voting.allow(80, deny()).await;
        let mut client = Http1::new(voting.enter().await);
        client
            .send("GET /\"\\ HTTP/1.1\r\nHost: voting\r\nX-Request-Id: mine\r\n\r\n")
            .await;
        let answer = client.answer().await;
        let id = answer.field("tulle-request-id").unwrap();
        assert_eq!(id.len(), 16, "{id}");
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert!(voting.observed.explain_one("mine").is_none());
        let told = voting.observed.explain_one(id).unwrap();
        assert_eq!(told["client_id"], "");
    });
}

#[test]
fn a_grpc_call_gets_the_id_as_metadata() {
    run(async {
        let (web, voting) = pair(&Mesh::new()).await;
        voting.allow(80, deny()).await;
        let mut send = connect(web.call().await).await;
        let mut request = call("/emoji/Vote");
        let id = http::HeaderValue::from_static("grpc-1");
        request.headers_mut().insert("x-request-id", id);
        let (answer, _) = send.send_request(request, true).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["tulle-request-id"], "grpc-1");
        let told = voting.observed.explain_one("grpc-1").unwrap();
        let said = (&told["direction"], &told["method"]);
        assert_eq!(
            (said.0.as_str(), said.1.as_str()),
            (Some("inbound"), Some("POST"))
        );
        assert_eq!(
            told["reason"].as_str(),
            answer.headers()["tulle-reason"].to_str().ok()
        );
    });
}

#[test]
fn the_last_refusals_are_kept_in_bounded_room() {
    run(async {
        let voting = Mesh::new().pod("voting").await;
        voting.allow(80, deny()).await;
        let mut client = Http1::new(voting.enter().await);
        let path = "p".repeat(4_000);
        for number in 0..KEPT + 10 {
            let answer = client.get("voting", &format!("/{number}/{path}")).await;
            assert_eq!(answer.status(), 403);
        }
        let told = voting.observed.explain();
        let kept = told["requests"].as_array().unwrap();
        assert_eq!(kept.len(), KEPT);
        let paths = kept.iter().map(|told| told["path"].as_str().unwrap());
        assert!(
            paths.clone().all(|path| path.chars().count() == 513),
            "{told}"
        );
        let newest = format!("/{}/", KEPT + 9);
        assert!(paths.clone().next().unwrap().starts_with(&newest));
        assert!(paths.clone().next_back().unwrap().starts_with("/10/"));
        // A line each would be a flood: the rest is counted.
        let dropped = voting.metric("proxy_log_lines_dropped_total", &["refusals"]);
        assert!(
            dropped > 0.0 && dropped <= (KEPT + 10 - 20) as f64,
            "{dropped}"
        );
    });
}

#[test]
fn the_access_log_has_linkerds_fields_and_no_request_can_write_a_line() {
    run(async {
        let mesh = Mesh::new();
        let log = [("LINKERD2_PROXY_ACCESS_LOG", "json")];
        let (web, voting) = (mesh.pod("web").await, mesh.pod_with("voting", &log).await);
        app(voting.address(18080), echo).await;
        mesh.service("voting", &[voting.endpoint(80)]);
        let mut client = Http1::new(web.call().await);
        client
            .send("POST /a\"b?c HTTP/1.1\r\nHost: voting\r\nUser-Agent: x\"} \u{9b}\r\nX-B3-TraceId: 5af7\r\nContent-Length: 3\r\n\r\nabc")
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.field("tulle-request-id"), None);
        voting.allow(80, deny()).await;
        assert_eq!(client.get("voting", "/").await.status(), 403);
        let lines = voting.access_log(2).await;
        assert_eq!(lines.len(), 2);
        let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        for (field, expected) in [
            ("client.id", identity("web")),
            ("method", "POST".to_owned()),
            ("uri", "http://voting/a\"b?c".to_owned()),
            ("version", "HTTP/2.0".to_owned()),
            ("trace_id", "5af7".to_owned()),
            ("request_bytes", "3".to_owned()),
            ("response_bytes", answer.body.len().to_string()),
            ("user_agent", "x\"} %C2%9B".to_owned()),
            ("host", "voting".to_owned()),
        ] {
            assert_eq!(line[field], expected, "{line}");
        }
        assert_eq!(line["status"], 200);
        let number = |field: &str| line[field].as_str().unwrap().parse::<u64>().unwrap();
        assert!(0 < number("processing_ns") && number("processing_ns") <= number("total_ns"));
        assert!(line["client.addr"].as_str().unwrap().starts_with("127."));
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
        let refused: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!(refused["status"], 403);
    });
}

#[test]
fn apaches_format_keeps_quotes_inside_of_their_field() {
    run(async {
        let log = [("LINKERD2_PROXY_ACCESS_LOG", "apache")];
        let voting = Mesh::new().pod_with("voting", &log).await;
        app(voting.address(18080), echo).await;
        let answer = Http1::new(voting.enter().await)
            .get("voting", "/a\"\\b")
            .await;
        let lines = voting.access_log(1).await;
        let (before, rest) = lines[0].split_once(" [").unwrap();
        assert!(
            before.starts_with("127.") && before.ends_with(" - -"),
            "{before}"
        );
        let (_, request) = rest.split_once("] ").unwrap();
        let bytes = answer.body.len();
        assert_eq!(request, format!("\"GET /a\\\"\\\\b HTTP/1.1\" 200 {bytes}"));
    });
}

/// A pod that logs requests in this form.
async fn logging(mesh: &Mesh, form: &str) -> Pod {
    mesh.pod_with("voting", &[("LINKERD2_PROXY_ACCESS_LOG", form)])
        .await
}

/// `"<request>" <status> <bytes>` of a line in Apache's form.
fn apache(line: &str) -> &str {
    line.split_once("] ").unwrap().1
}

#[test]
fn apaches_lines_tell_http1_http2_and_refused_requests_apart() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, logging(&mesh, "apache").await);
        app(voting.address(18080), echo).await;
        mesh.service("voting", &[voting.endpoint(80)]);
        // HTTP/1 of nobody, then of a meshed client: that comes in HTTP/2.
        let plain = Http1::new(voting.enter().await).get("voting", "/a").await;
        let meshed = Http1::new(web.call().await).get("voting", "/b?c=d").await;
        voting.allow(80, deny()).await;
        let refused = Http1::new(voting.enter().await).get("voting", "/c").await;
        let lines = voting.access_log(3).await;
        let length = |answer: &Message| answer.body.len();
        assert_eq!(
            apache(&lines[0]),
            format!("\"GET /a HTTP/1.1\" 200 {}", length(&plain))
        );
        assert_eq!(
            apache(&lines[1]),
            format!(
                "\"GET http://voting/b?c=d HTTP/2.0\" 200 {}",
                length(&meshed)
            )
        );
        let identity = format!(" {} - [", identity("web"));
        assert!(lines[1].contains(&identity), "{}", lines[1]);
        assert_eq!(
            apache(&lines[2]),
            format!("\"GET /c HTTP/1.1\" 403 {}", length(&refused))
        );
        assert_eq!(lines.len(), 3);
    });
}

#[test]
fn both_forms_have_a_line_for_a_grpc_call_and_for_one_that_is_reset() {
    run(async {
        for form in ["apache", "json"] {
            let voting = logging(&Mesh::new(), form).await;
            h2_app(&voting, |request, mut respond| async move {
                if request.uri().path() == "/a.B/Reset" {
                    return respond.send_reset(h2::Reason::INTERNAL_ERROR);
                }
                let head = http::Response::builder().header("content-type", "application/grpc");
                let mut body = respond
                    .send_response(head.body(()).unwrap(), false)
                    .unwrap();
                body.send_trailers(trailers("0")).unwrap();
            })
            .await;
            let mut send = connect(voting.enter().await).await;
            let (answer, _) = send.send_request(call("/a.B/Call"), true).unwrap();
            assert_eq!(answer.await.unwrap().status(), 200);
            voting.access_log(1).await;
            let (answer, _) = send.send_request(call("/a.B/Reset"), true).unwrap();
            assert!(answer.await.is_err());
            let lines = voting.access_log(2).await;
            if form == "apache" {
                let called = "\"POST http://voting/a.B/Call HTTP/2.0\" 200 -";
                let reset = "\"POST http://voting/a.B/Reset HTTP/2.0\" - -";
                assert_eq!((apache(&lines[0]), apache(&lines[1])), (called, reset));
                continue;
            }
            for (line, status, path) in
                [(&lines[0], 200, "/a.B/Call"), (&lines[1], 0, "/a.B/Reset")]
            {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(line["status"], status, "{line}");
                assert_eq!(line["uri"], format!("http://voting{path}"));
                assert_eq!(line["version"], "HTTP/2.0");
                assert_eq!(
                    (&line["response_bytes"], &line["client.id"]),
                    (&"".into(), &"".into())
                );
            }
        }
    });
}

#[test]
fn a_client_that_leaves_has_a_line_without_a_status() {
    run(async {
        let voting = logging(&Mesh::new(), "json").await;
        let hangs = [scripted::Do::Hang];
        let server = scripted::Server::start(voting.address(18080), &hangs).await;
        let mut client = Http1::new(voting.enter().await);
        client
            .send("GET /slow HTTP/1.1\r\nHost: voting\r\n\r\n")
            .await;
        while server.count() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(client);
        let lines = voting.access_log(1).await;
        let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(line["status"], 0);
        assert_eq!(line["uri"], "/slow");
        assert_eq!(line["version"], "HTTP/1.1");
    });
}

fn named(name: &str) -> std::collections::BTreeMap<String, String> {
    [("kind", "default"), ("name", name)]
        .map(|(label, value)| (label.to_owned(), value.to_owned()))
        .into()
}

/// Lets in clients of one identity from one network.
fn only(name: &str, network: [u8; 4], prefix_len: u32) -> api::Authz {
    let ip = net::ip_address::Ip::Ipv4(u32::from(Ipv4Addr::from(network)));
    let clients = authn::permit_mesh_tls::PermitClientIdentities {
        identities: vec![api::Identity {
            name: identity(name),
        }],
        ..Default::default()
    };
    api::Authz {
        networks: vec![api::Network {
            net: Some(net::IpNetwork {
                ip: Some(net::IpAddress { ip: Some(ip) }),
                prefix_len,
            }),
            ..Default::default()
        }],
        authentication: Some(api::Authn {
            permit: Some(authn::Permit::MeshTls(authn::PermitMeshTls {
                clients: Some(authn::permit_mesh_tls::Clients::Identities(clients)),
            })),
        }),
        labels: named(name),
        ..Default::default()
    }
}

#[test]
fn a_derivation_says_for_each_authorization_what_was_wanted_and_what_was_seen() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        mesh.service("voting", &[voting.endpoint(80)]);
        let http1 = api::proxy_protocol::Http1 {
            routes: vec![api::HttpRoute {
                rules: vec![Default::default()],
                ..Default::default()
            }],
            ..Default::default()
        };
        let message = api::Server {
            authorizations: vec![
                only("bot", [127, 0, 0, 0], 8),
                only("web", [10, 0, 0, 0], 8),
            ],
            protocol: Some(api::ProxyProtocol {
                kind: Some(api::proxy_protocol::Kind::Http1(http1)),
            }),
            labels: named("two"),
            ..Default::default()
        };
        voting.allow(80, Server::compile(&message).unwrap()).await;
        let mut client = Http1::new(web.call().await);
        client
            .send("GET / HTTP/1.1\r\nHost: voting\r\nX-Request-Id: why\r\n\r\n")
            .await;
        assert_eq!(client.answer().await.status(), 403);
        let told = voting.observed.explain_one("why").unwrap();
        let weighed = &told["derivation"]["authorizations"];
        let text = |index: usize, field: &str| weighed[index][field].as_str().unwrap();
        assert_eq!(
            text(0, "lacks"),
            format!("client identity {}", identity("bot")),
            "{told}"
        );
        assert_eq!(
            text(0, "saw"),
            format!("client identity {}", identity("web"))
        );
        assert_eq!(text(1, "lacks"), "client address in 10.0.0.0/8");
        let saw = text(1, "saw");
        assert!(saw.starts_with("client address 127."), "{saw}");
    });
}

#[test]
fn a_derivation_says_what_a_request_had_instead_and_no_secret() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        let header = |name: &str, value: &str| http_route::HttpRouteMatch {
            headers: vec![http_route::HeaderMatch {
                name: name.to_owned(),
                value: Some(http_route::header_match::Value::Exact(value.into())),
            }],
            ..Default::default()
        };
        let matches = vec![header("x-v", "2"), header("authorization", "Bearer wanted")];
        let policy = policy_with("voting", |rule| rule.matches.clone_from(&matches));
        mesh.policy("voting", policy);
        mesh.endpoints("voting", &[voting.endpoint(80)]);
        let mut client = Http1::new(web.call().await);
        client
            .send("GET / HTTP/1.1\r\nHost: voting\r\nX-Request-Id: why\r\nX-V: 1\r\nAuthorization: Bearer hunter2\r\nCookie: session=hunter2\r\n\r\n")
            .await;
        assert_eq!(client.answer().await.status(), 404);
        let told = web.observed.explain_one("why").unwrap();
        let weighed = told["derivation"]["matches"].as_array().unwrap();
        let said: Vec<_> = weighed
            .iter()
            .map(|each| {
                (
                    each["because"].as_str().unwrap(),
                    each["saw"].as_str().unwrap(),
                )
            })
            .collect();
        let hidden = "a value that is not shown";
        assert_eq!(
            said,
            [
                ("header x-v is 2", "\"1\""),
                ("header authorization is a value that is not shown", hidden),
            ]
        );
        let text = told.to_string();
        assert!(
            !text.contains("hunter2") && !text.contains("wanted"),
            "{text}"
        );
    });
}
