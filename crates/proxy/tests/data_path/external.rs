//! An external service with the last word: a real gRPC server (tonic's, over hyper), asked by a real proxy.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tonic::{Request, Response, Status};
use tulle_api::envoy::config::core::v3::{HeaderValue, HeaderValueOption, address, socket_address};
use tulle_api::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use tulle_api::envoy::service::auth::v3::check_response::HttpResponse;
use tulle_api::envoy::service::auth::v3::{
    CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use tulle_api::envoy::r#type::v3::HttpStatus;
use tulle_api::inbound as api;

use crate::admission::{named, server, set};
use crate::client::{Http1, echo};
use crate::rig::{Mesh, Pod, app, identity, plain, run};

/// A service, with what it was asked. It decides by the path.
#[derive(Clone, Default)]
struct Judge(Arc<Mutex<Vec<CheckRequest>>>);

fn option(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.into(),
            value: value.into(),
            raw_value: Vec::new(),
        }),
        ..Default::default()
    }
}

fn answer(code: i32, http_response: Option<HttpResponse>) -> CheckResponse {
    CheckResponse {
        status: Some(tulle_api::google::rpc::Status {
            code,
            message: String::new(),
        }),
        http_response,
    }
}

#[tonic::async_trait]
impl Authorization for Judge {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let question = request.into_inner();
        let path = http_of(&question).path.clone();
        self.0.lock().unwrap().push(question);
        let denied = |code, headers, body: &str| {
            let denied = DeniedHttpResponse {
                status: Some(HttpStatus { code }),
                headers,
                body: body.into(),
            };
            answer(7, Some(HttpResponse::DeniedResponse(denied)))
        };
        Ok(Response::new(match &*path {
            "/slow" => {
                tokio::time::sleep(Duration::from_secs(30)).await;
                answer(0, None)
            }
            "/broken" => return Err(Status::internal("it broke")),
            "/nonsense" => CheckResponse::default(),
            "/no" => answer(7, None),
            "/login" => denied(
                302,
                vec![option("location", "https://login")],
                "log in first",
            ),
            "/changed" => answer(
                0,
                Some(HttpResponse::OkResponse(OkHttpResponse {
                    headers: vec![option("x-user", "alice")],
                    headers_to_remove: vec!["x-secret".into()],
                    response_headers_to_add: vec![option("x-judged", "yes")],
                    ..Default::default()
                })),
            ),
            _ => answer(0, None),
        }))
    }
}

fn http_of(
    question: &CheckRequest,
) -> &tulle_api::envoy::service::auth::v3::attribute_context::HttpRequest {
    let request = question.attributes.as_ref().unwrap().request.as_ref();
    request.unwrap().http.as_ref().unwrap()
}

impl Judge {
    async fn serve(&self, address: SocketAddr) {
        let judge = AuthorizationServer::new(self.clone());
        app(address, move |stream| {
            let judge = judge.clone();
            async move {
                let service = hyper::service::service_fn(move |request| {
                    use tower_service::Service as _;
                    judge.clone().call(request)
                });
                let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ended = http2.serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await;
    }

    fn asked(&self) -> Vec<CheckRequest> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn external(authority: &str) -> api::ExternalAuthorization {
    api::ExternalAuthorization {
        metadata: named("judge"),
        authority: authority.into(),
        ..Default::default()
    }
}

fn asking(name: &str, external: api::ExternalAuthorization) -> api::Server {
    api::Server {
        external_authorization: Some(external),
        ..server(name)
    }
}

fn result(pod: &Pod, result: &str, error: &str) -> f64 {
    let labels = [
        format!("result=\"{result}\""),
        format!("error=\"{error}\""),
        "ext_authz_name=\"judge\"".to_owned(),
    ];
    let labels: Vec<&str> = labels.iter().map(|label| &**label).collect();
    pod.metric("inbound_http_ext_authz_total", &labels)
}

/// A pod whose requests are judged by a service at an address of its own.
async fn judged(change: impl FnOnce(&mut api::ExternalAuthorization)) -> (Pod, Judge, Http1) {
    let pod = Mesh::new().pod("voting").await;
    app(pod.address(18080), echo).await;
    let judge = Judge::default();
    judge.serve(pod.address(9000)).await;
    let mut external = external(&pod.address(9000).to_string());
    change(&mut external);
    set(&pod, asking("judged", external)).await;
    let client = Http1::new(pod.enter().await);
    (pod, judge, client)
}

#[test]
fn the_service_is_told_of_the_request_and_lets_it_in() {
    run(async {
        let (pod, judge, mut client) = judged(|_| {}).await;
        client
            .send("GET /votes?x=1 HTTP/1.1\r\nHost: voting:80\r\nX-Many: a\r\nX-Many: b\r\nl5d-client-id: root\r\n\r\n")
            .await;
        assert_eq!(client.answer().await.status(), 200);
        let asked = judge.asked();
        assert_eq!(asked.len(), 1);
        let attributes = asked[0].attributes.as_ref().unwrap();
        let http = http_of(&asked[0]);
        assert_eq!(
            (
                &*http.method,
                &*http.path,
                &*http.host,
                &*http.scheme,
                &*http.protocol,
                http.size
            ),
            ("GET", "/votes?x=1", "voting:80", "http", "HTTP/1.1", 0)
        );
        let headers = BTreeMap::from([("x-many".to_owned(), "a,b".to_owned())]);
        assert_eq!(http.headers, headers);
        let source = attributes.source.as_ref().unwrap();
        assert_eq!(source.principal, "");
        let Some(address::Address::SocketAddress(socket)) = source
            .address
            .as_ref()
            .and_then(|address| address.address.as_ref())
        else {
            panic!("no address")
        };
        assert_eq!(socket.address, "127.0.0.1");
        assert!(matches!(
            socket.port_specifier,
            Some(socket_address::PortSpecifier::PortValue(1..))
        ));
        assert_eq!(
            attributes.destination.as_ref().unwrap().principal,
            identity("voting")
        );
        assert_eq!(result(&pod, "allow", ""), 1.0);
        assert_eq!(
            pod.metric("inbound_http_ext_authz_duration_ms_count", &[]),
            1.0
        );
    });
}

#[test]
fn its_word_changes_the_request_and_the_answer_or_is_the_answer() {
    run(async {
        let (pod, _judge, mut client) = judged(|_| {}).await;
        client
            .send("GET /changed HTTP/1.1\r\nHost: voting\r\nX-Secret: 1\r\nX-User: root\r\n\r\n")
            .await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status(), answer.text(), answer.field("x-judged")),
            (
                200,
                "GET /changed HTTP/1.1\nhost: voting\nx-user: alice\n\n",
                Some("yes")
            )
        );
        let answer = client.get("voting", "/login").await;
        assert_eq!(
            (
                answer.status(),
                answer.text(),
                answer.field("location"),
                answer.field("tulle-reason")
            ),
            (
                302,
                "log in first",
                Some("https://login"),
                Some("externally-denied")
            )
        );
        let answer = client.get("voting", "/no").await;
        assert_eq!(
            (answer.status(), answer.field("l5d-proxy-error")),
            (
                403,
                Some("the external authorization service refused (default judge)")
            )
        );
        client
            .send("POST /login HTTP/1.1\r\nHost: voting\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n")
            .await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status(), answer.field("grpc-status")),
            (200, Some("2"))
        );
        assert_eq!(
            (result(&pod, "allow", ""), result(&pod, "deny", "")),
            (1.0, 3.0)
        );
    });
}

#[test]
fn without_an_answer_nobody_passes_unless_the_policy_says_so_and_nonsense_never_passes() {
    run(async {
        for fail_open in [false, true] {
            let (pod, _judge, mut client) = judged(|external| {
                external.fail_open = fail_open;
                external.timeout = Some(prost_types::Duration {
                    seconds: 0,
                    nanos: 150_000_000,
                });
            })
            .await;
            let kind = if fail_open {
                "failed_open"
            } else {
                "failed_closed"
            };
            let silent = if fail_open { 200 } else { 503 };
            let begun = Instant::now();
            assert_eq!(client.get("voting", "/slow").await.status(), silent);
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{:?}",
                begun.elapsed()
            );
            let answer = client.get("voting", "/broken").await;
            assert_eq!(answer.status(), silent);
            if !fail_open {
                assert_eq!(
                    (
                        answer.field("tulle-reason"),
                        answer.field("l5d-proxy-error")
                    ),
                    (
                        Some("external-unavailable"),
                        Some(
                            "the external authorization service gave no answer: its call ended in gRPC status 13 (default judge)"
                        )
                    )
                );
            }
            assert_eq!(client.get("voting", "/nonsense").await.status(), 503);
            assert_eq!(
                (result(&pod, kind, "timeout"), result(&pod, kind, "status")),
                (1.0, 1.0)
            );
            assert_eq!(result(&pod, "failed_closed", "bad_answer"), 1.0);

            let mut away = external(&pod.address(9).to_string());
            away.fail_open = fail_open;
            set(&pod, asking("away", away)).await;
            assert_eq!(client.get("voting", "/").await.status(), silent);
            assert_eq!(result(&pod, kind, "unreachable"), 1.0);

            let mut invalid = external("no port");
            invalid.fail_open = fail_open;
            set(&pod, asking("invalid", invalid)).await;
            let answer = client.get("voting", "/").await;
            assert_eq!(
                (answer.status(), answer.field("tulle-reason")),
                (500, Some("requirement-invalid"))
            );
            assert_eq!(pod.metric("inbound_http_ext_authz_in_flight", &[]), 0.0);
        }
    });
}

#[test]
fn the_service_sees_the_beginning_of_a_body_and_the_application_all_of_it() {
    run(async {
        let (_pod, judge, mut client) = judged(|external| external.max_request_bytes = 8).await;
        for (request, shown, partial, size) in [
            ("Content-Length: 5\r\n\r\nhello", "hello", "false", 5),
            (
                "Content-Length: 11\r\n\r\nhello world",
                "hello wo",
                "true",
                11,
            ),
            ("Content-Length: 8\r\n\r\n12345678", "12345678", "true", 8),
            (
                "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\nx-t: 1\r\n\r\n",
                "abcdef",
                "false",
                -1,
            ),
            (
                "Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n6\r\nghijkl\r\n0\r\n\r\n",
                "abcdefgh",
                "true",
                -1,
            ),
        ] {
            client
                .send(format!("POST /b HTTP/1.1\r\nHost: voting\r\n{request}"))
                .await;
            let answer = client.answer().await;
            assert_eq!(answer.status(), 200, "{request}");
            let sent = match request.split_once("\r\n\r\n").unwrap() {
                (head, body) if head.starts_with("Content") => body.to_owned(),
                (_, body) if body.starts_with('3') => "abcdef".to_owned(),
                _ => "abcdefghijkl".to_owned(),
            };
            assert!(
                answer.text().ends_with(&format!("\n\n{sent}")),
                "{}",
                answer.text()
            );
            if request.contains("x-t") {
                assert_eq!(answer.trailers, "x-t: 1\n");
            }
            let asked = judge.asked();
            let http = http_of(&asked[0]);
            assert_eq!((&*http.body, http.size), (shown, size), "{request}");
            assert_eq!(
                http.headers["x-envoy-auth-partial-body"], partial,
                "{request}"
            );
        }
        // Who waits to be told to go on is told, by us: the service wants to see.
        client
            .send("POST /b HTTP/1.1\r\nHost: voting\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
            .await;
        assert!(client.head().await.unwrap().starts_with("HTTP/1.1 100"));
        client.send("\u{0}\u{1}xy").await;
        let answer = client.answer().await;
        assert!(
            answer.text().ends_with("\n\n\u{0}\u{1}xy") && !answer.text().contains("expect"),
            "{}",
            answer.text()
        );
        // And a large one, far beyond what is shown.
        judge.asked();
        let large = "z".repeat(300_000);
        client
            .send(format!(
                "POST /b HTTP/1.1\r\nHost: voting\r\nContent-Length: 300000\r\n\r\n{large}"
            ))
            .await;
        let answer = client.answer().await;
        assert!(answer.text().ends_with(&large));
        assert_eq!(http_of(&judge.asked()[0]).body, "zzzzzzzz");
    });
}

#[test]
fn a_meshed_service_is_reached_over_mutual_tls_and_must_be_who_the_policy_says() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting, judge_pod) = (
            mesh.pod("web").await,
            mesh.pod("voting").await,
            mesh.pod("judge").await,
        );
        app(voting.address(18080), echo).await;
        let judge = Judge::default();
        judge.serve(judge_pod.address(18080)).await;
        mesh.service("voting", &[voting.endpoint(80)]);
        mesh.service("judge", &[judge_pod.endpoint(80)]);
        let authority = "judge.default.svc.cluster.local:80";
        let with = |name: &str, of: &str| {
            asking(
                name,
                api::ExternalAuthorization {
                    identity: identity(of),
                    timeout: Some(prost_types::Duration {
                        seconds: 5,
                        nanos: 0,
                    }),
                    ..external(authority)
                },
            )
        };
        set(&voting, with("right", "judge")).await;
        let mut client = Http1::new(web.call().await);
        for _ in 0..3 {
            assert_eq!(client.get("voting", "/").await.status(), 200);
        }
        let asked = judge.asked();
        let source = asked[0]
            .attributes
            .as_ref()
            .unwrap()
            .source
            .as_ref()
            .unwrap();
        assert_eq!(source.principal, identity("web"));
        // One connection carried all questions, and the judge's own sidecar saw who asked.
        let client_id = format!("client_id=\"{}\"", identity("voting"));
        assert_eq!(
            judge_pod.metric("tcp_open_total", &["peer=\"src\"", &client_id]),
            1.0
        );
        assert_eq!(judge_pod.metric("request_total", &[&client_id]), 3.0);

        set(&voting, with("wrong", "impostor")).await;
        assert_eq!(client.get("voting", "/").await.status(), 503);
        assert_eq!(result(&voting, "failed_closed", "identity"), 1.0);
        // An endpoint without a sidecar proves nothing, and is not asked in the clear.
        set(&voting, with("right-again", "judge")).await;
        mesh.endpoints("judge", &[plain(judge_pod.address(18080))]);
        let answer = loop {
            let answer = client.get("voting", "/").await;
            if answer.status() != 200 {
                break answer;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(answer.status(), 503);
        judge.asked();
        assert_eq!(client.get("voting", "/").await.status(), 503);
        assert!(judge.asked().is_empty());
    });
}

#[test]
fn a_question_that_waits_holds_up_nobody_else() {
    run(async {
        let (pod, judge, mut client) = judged(|external| {
            external.timeout = Some(prost_types::Duration {
                seconds: 10,
                nanos: 0,
            });
        })
        .await;
        client
            .send("GET /slow HTTP/1.1\r\nHost: voting\r\n\r\n")
            .await;
        while judge.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(pod.metric("inbound_http_ext_authz_in_flight", &[]), 1.0);
        let mut other = Http1::new(pod.enter().await);
        assert_eq!(other.get("voting", "/").await.status(), 200);
        assert_eq!(pod.metric("inbound_http_ext_authz_in_flight", &[]), 1.0);
    });
}

#[test]
fn the_bodies_that_are_shown_are_bounded_together() {
    run(async {
        const MAX_HELD: f64 = 16.0 * 1024.0 * 1024.0;
        let (pod, _judge, _client) = judged(|external| {
            external.max_request_bytes = 64 * 1024;
            external.fail_open = true;
            external.timeout = Some(prost_types::Duration {
                seconds: 10,
                nanos: 0,
            });
        })
        .await;
        let body = "z".repeat(64 * 1024);
        let mut waiting = Vec::new();
        // Each holds its body for as long as its question waits; sooner or later there is no room for another.
        while result(&pod, "failed_closed", "overflow") == 0.0 {
            assert!(waiting.len() < 2_000, "nobody was refused");
            for _ in 0..16 {
                let mut client = Http1::new(pod.enter().await);
                client
                    .send(format!(
                        "POST /slow HTTP/1.1\r\nHost: voting\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    ))
                    .await;
                waiting.push(client);
            }
            let held = pod.metric("inbound_http_ext_authz_buffer_bytes", &[]);
            assert!(held <= MAX_HELD, "{held}");
        }
        let mut other = Http1::new(pod.enter().await);
        assert_eq!(other.get("voting", "/").await.status(), 200);
    });
}

/// Where silence is consent, too: what has come of the body was not judged.
#[test]
fn a_body_that_does_not_come_is_refused_in_time_and_its_octets_are_given_back() {
    run(async {
        let (pod, judge, _client) = judged(|external| {
            external.max_request_bytes = 64 * 1024;
            external.fail_open = true;
        })
        .await;
        let held = || pod.metric("inbound_http_ext_authz_buffer_bytes", &[]);
        let (read, mut write) = pod.enter().await.into_split();
        let piece = "z".repeat(4 * 1024);
        let head = "POST / HTTP/1.1\r\nHost: voting\r\nContent-Length: 65536\r\n\r\n";
        let begun = format!("{head}{piece}");
        write.write_all(begun.as_bytes()).await.unwrap();
        while held() == 0.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // A byte now and then wins no time.
        let trickling = tokio::task::spawn_local(async move {
            while write.write_all(b"z").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        let mut answer = String::new();
        let mut read = tokio::io::BufReader::new(read);
        read.read_line(&mut answer).await.unwrap();
        assert_eq!(answer, "HTTP/1.1 408 Request Timeout\r\n");
        assert_eq!(held(), 0.0, "what was held is given back");
        assert_eq!(result(&pod, "failed_closed", "slow_body"), 1.0);
        assert!(judge.asked().is_empty());
        trickling.abort();
    });
}
