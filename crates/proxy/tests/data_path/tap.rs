//! Tap over real sockets: a gRPC client (tonic's) with the tap identity, and what it is told of requests that pass.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::{Status, Streaming};
use tulle_api::http_route;
use tulle_api::http_types::http_method;
use tulle_api::net::ip_address::Ip;
use tulle_api::tap::observe_request::{Extract, Match, extract, r#match as kinds};
use tulle_api::tap::tap_client::TapClient;
use tulle_api::tap::tap_event::http::{RequestInit, ResponseEnd, ResponseInit};
use tulle_api::tap::{ObserveRequest, TapEvent, eos, tap_event};
use tulle_engine::inbound::{DefaultPolicy, DefaultProtocol, Server};
use tulle_proxy::identity::{ClientAlpn, Epoch};

use crate::client::{Http1, echo};
use crate::grpc;
use crate::rig::{Mesh, Pod, app, identity, plain, policy_with, run};
use crate::scripted;

/// Whoever has this name may tap.
const TAP: &str = "tap";

/// A pod that serves tap, and to whom.
pub async fn tapped(mesh: &Mesh, name: &str) -> Pod {
    let who = identity(TAP);
    mesh.pod_with(
        name,
        &[
            ("LINKERD2_PROXY_TAP_SVC_NAME", &who),
            ("LINKERD2_PROXY_CONTROL_LISTEN_ADDR", "$ip:4190"),
        ],
    )
    .await
}

/// hyper's connection as what tonic's client calls.
#[derive(Clone)]
pub struct Channel(http2::SendRequest<Body>);

#[derive(Clone, Copy)]
struct Here;

impl<F: Future + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}

impl Channel {
    pub async fn over<S: AsyncRead + AsyncWrite + Unpin + 'static>(stream: S) -> Self {
        let (send, connection) = http2::handshake(Here, TokioIo::new(stream)).await.unwrap();
        tokio::task::spawn_local(async move {
            let _ended = connection.await;
        });
        Channel(send)
    }
}

impl tower_service::Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Who calls a pod's port for taps, by mutual TLS.
pub async fn client(pod: &Pod, epoch: &Epoch) -> TapClient<Channel> {
    let stream = TcpStream::connect(pod.address(4190)).await.unwrap();
    let connector = TlsConnector::from(epoch.client(ClientAlpn::H2));
    let name = ServerName::try_from(identity(&pod.name)).unwrap();
    let stream = connector.connect(name, stream).await.unwrap();
    over(stream).await
}

/// The same over any connection.
pub async fn over<S: AsyncRead + AsyncWrite + Unpin + 'static>(stream: S) -> TapClient<Channel> {
    let origin = http::Uri::from_static("http://tap.test/");
    TapClient::with_origin(Channel::over(stream).await, origin)
}

/// The tap identity's client.
pub async fn reader(mesh: &Mesh, pod: &Pod) -> TapClient<Channel> {
    client(pod, &mesh.epoch(TAP)).await
}

/// Everything, so many requests of it.
pub fn all(limit: u32) -> ObserveRequest {
    matching(limit, kinds::Match::All(kinds::Seq::default()))
}

pub fn matching(limit: u32, one: kinds::Match) -> ObserveRequest {
    ObserveRequest {
        limit,
        r#match: Some(Match { r#match: Some(one) }),
        ..Default::default()
    }
}

fn with_headers(question: ObserveRequest) -> ObserveRequest {
    let headers = extract::http::Extract::Headers(Default::default());
    ObserveRequest {
        extract: Some(Extract {
            extract: Some(extract::Extract::Http(extract::Http {
                extract: Some(headers),
            })),
        }),
        ..question
    }
}

pub async fn observe(
    tap: &mut TapClient<Channel>,
    question: ObserveRequest,
) -> Streaming<TapEvent> {
    tap.observe(question).await.unwrap().into_inner()
}

/// The next event.
pub async fn next(events: &mut Streaming<TapEvent>) -> Option<TapEvent> {
    events.message().await.unwrap()
}

fn http(event: &TapEvent) -> &tap_event::http::Event {
    let Some(tap_event::Event::Http(http)) = &event.event else {
        panic!("{event:?}");
    };
    http.event.as_ref().unwrap()
}

pub fn begun(event: &TapEvent) -> &RequestInit {
    match http(event) {
        tap_event::http::Event::RequestInit(init) => init,
        other => panic!("{other:?}"),
    }
}

fn answered(event: &TapEvent) -> &ResponseInit {
    match http(event) {
        tap_event::http::Event::ResponseInit(init) => init,
        other => panic!("{other:?}"),
    }
}

fn ended(event: &TapEvent) -> &ResponseEnd {
    match http(event) {
        tap_event::http::Event::ResponseEnd(end) => end,
        other => panic!("{other:?}"),
    }
}

fn is_end(event: &TapEvent) -> bool {
    matches!(http(event), tap_event::http::Event::ResponseEnd(_))
}

fn end(event: &TapEvent) -> Option<eos::End> {
    ended(event).eos.unwrap().end
}

/// A request's three events.
pub async fn three(events: &mut Streaming<TapEvent>) -> [TapEvent; 3] {
    let mut one = async || next(events).await.unwrap();
    [one().await, one().await, one().await]
}

pub fn label<'e>(meta: &'e Option<tap_event::EndpointMeta>, key: &str) -> &'e str {
    let labels = &meta.as_ref().unwrap().labels;
    labels.get(key).map_or("", String::as_str)
}

fn route<'e>(event: &'e TapEvent, key: &str) -> &'e str {
    let labels = &event.route_meta.as_ref().unwrap().labels;
    labels.get(key).map_or("", String::as_str)
}

fn header(headers: &Option<tulle_api::http_types::Headers>, name: &str) -> Vec<String> {
    let headers = &headers.as_ref().unwrap().headers;
    let named = headers.iter().filter(|header| header.name == name);
    named
        .map(|header| String::from_utf8(header.value.clone()).unwrap())
        .collect()
}

#[test]
fn both_sidecars_tell_of_a_request_from_its_head_to_its_end() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (tapped(&mesh, "web").await, tapped(&mesh, "voting").await);
        app(voting.address(18080), echo).await;
        mesh.service("voting", &[voting.endpoint(80)]);
        let mut out = observe(&mut reader(&mesh, &web).await, all(1)).await;
        let mut into = observe(&mut reader(&mesh, &voting).await, all(1)).await;

        let mut client = Http1::new(web.call().await);
        let answer = client.get("voting", "/vote?for=x").await;

        let [begin, middle, last] = three(&mut out).await;
        assert_eq!(next(&mut out).await, None, "the limit was one request");
        let outbound = tap_event::ProxyDirection::Outbound;
        assert_eq!(begin.proxy_direction(), outbound);
        let init = begun(&begin);
        let said = (init.authority.as_str(), init.path.as_str());
        assert_eq!(said, ("voting", "/vote"));
        let method = init.method.as_ref().unwrap().r#type.clone().unwrap();
        assert_eq!(method, http_method::Type::Registered(0));
        assert_eq!(init.headers, None, "nobody asked for them");
        let source = begin.source.unwrap();
        let own = client.stream.local_addr().unwrap();
        assert_eq!(source.port, u32::from(own.port()));
        let std::net::IpAddr::V4(ip) = own.ip() else {
            panic!()
        };
        assert_eq!(source.ip.unwrap().ip, Some(Ip::Ipv4(ip.into())));
        assert_eq!(begin.destination.unwrap().port, 80);
        assert_eq!(label(&begin.source_meta, "tls"), "loopback");
        let to = &begin.destination_meta;
        assert_eq!(label(to, "tls"), "true");
        assert_eq!(label(to, "server_id"), identity("voting"));
        let labels = (label(to, "pod"), label(to, "service"));
        assert_eq!(labels, ("voting", "voting"));
        assert_eq!(route(&begin, "route_kind"), "default");
        assert!(!route(&begin, "route_name").is_empty());
        let at = answered(&middle);
        assert_eq!((at.id, at.http_status), (init.id, 200));
        let fin = ended(&last);
        assert_eq!(fin.id, init.id);
        assert_eq!(fin.response_bytes, answer.body.len() as u64);
        assert_eq!(end(&last), None, "HTTP has no status of its end");
        let nanos = |length: Option<prost_types::Duration>| {
            let length = length.unwrap();
            length.seconds * 1_000_000_000 + i64::from(length.nanos)
        };
        let (first, whole) = (nanos(at.since_request_init), nanos(fin.since_request_init));
        let body = nanos(fin.since_response_init);
        assert!(first > 0 && whole >= first + body && body >= 0);

        let [begin, middle, last] = three(&mut into).await;
        let inbound = tap_event::ProxyDirection::Inbound;
        assert_eq!(begin.proxy_direction(), inbound);
        assert_eq!(label(&begin.source_meta, "tls"), "true");
        assert_eq!(label(&begin.source_meta, "client_id"), identity("web"));
        assert_eq!(label(&begin.destination_meta, "tls"), "loopback");
        let srv = label(&begin.destination_meta, "srv_name");
        assert_eq!(srv, "all-unauthenticated");
        let authz = label(&begin.destination_meta, "authz_name");
        assert!(!authz.is_empty());
        assert_eq!(begin.destination.unwrap().port, 18080);
        assert_eq!(route(&begin, "route_kind"), "default");
        assert_eq!(begun(&begin).path, "/vote");
        assert_eq!(answered(&middle).http_status, 200);
        assert_eq!(ended(&last).response_bytes, answer.body.len() as u64);
    });
}

#[test]
fn headers_are_told_on_request_and_credentials_never() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (tapped(&mesh, "web").await, tapped(&mesh, "voting").await);
        app(voting.address(18080), |stream| async move {
            let mut server = Http1::new(stream);
            server.message().await.unwrap();
            server
                .send("HTTP/1.1 200 OK\r\nX-App: v\r\nSet-Cookie: s=1\r\nContent-Length: 0\r\n\r\n")
                .await;
        })
        .await;
        mesh.service("voting", &[voting.endpoint(80)]);
        let mut out = observe(&mut reader(&mesh, &web).await, with_headers(all(1))).await;
        let mut into = observe(&mut reader(&mesh, &voting).await, with_headers(all(1))).await;
        let mut client = Http1::new(web.call().await);
        client
            .send("GET / HTTP/1.1\r\nHost: voting\r\nX-A: 1\r\nX-A: 2\r\nCookie: secret\r\nAuthorization: Bearer secret\r\n\r\n")
            .await;
        assert_eq!(client.answer().await.status(), 200);
        for events in [&mut out, &mut into] {
            let [begin, middle, _] = three(events).await;
            let init = &begun(&begin).headers;
            assert_eq!(header(init, "x-a"), ["1", "2"]);
            // It is HTTP/1, also where it came in HTTP/2.
            assert_eq!(header(init, "host"), ["voting"]);
            assert!(
                header(init, ":method").is_empty() && header(init, "l5d-orig-proto").is_empty()
            );
            assert_eq!(header(init, "cookie"), ["[redacted]"]);
            assert_eq!(header(init, "authorization"), ["[redacted]"]);
            let answer = &answered(&middle).headers;
            assert_eq!(header(answer, "x-app"), ["v"]);
            assert_eq!(header(answer, "set-cookie"), ["[redacted]"]);
        }
    });
}

#[test]
fn a_grpc_call_ends_with_its_status_and_trailers_and_a_reset_with_its_code() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (tapped(&mesh, "web").await, tapped(&mesh, "voting").await);
        mesh.service("voting", &[voting.endpoint(80)]);
        grpc::h2_app(
            &voting,
            |request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>| async move {
                let kind = ("content-type", "application/grpc");
                let head = Response::builder().header(kind.0, kind.1).body(()).unwrap();
                let mut answer = respond.send_response(head, false).unwrap();
                if request.uri().path() == "/Reset" {
                    answer.send_reset(h2::Reason::ENHANCE_YOUR_CALM);
                    return;
                }
                answer
                    .send_data(Bytes::from_static(b"12345"), false)
                    .unwrap();
                answer.send_trailers(grpc::trailers("5")).unwrap();
            },
        )
        .await;
        let mut out = observe(&mut reader(&mesh, &web).await, with_headers(all(2))).await;
        let mut into = observe(&mut reader(&mesh, &voting).await, with_headers(all(2))).await;
        let mut client = grpc::connect(web.call().await).await;
        let (answer, _) = client.send_request(grpc::call("/Echo"), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        while grpc::next(&mut body).await.is_some() {}
        for events in [&mut out, &mut into] {
            let [begin, middle, last] = three(events).await;
            let init = &begun(&begin).headers;
            assert_eq!(header(init, ":method"), ["POST"]);
            assert_eq!(header(init, ":path"), ["/Echo"]);
            assert_eq!(header(&answered(&middle).headers, ":status"), ["200"]);
            assert_eq!(end(&last), Some(eos::End::GrpcStatusCode(5)));
            assert_eq!(ended(&last).response_bytes, 5);
            assert_eq!(header(&ended(&last).trailers, "grpc-status"), ["5"]);
        }
        let (answer, _) = client.send_request(grpc::call("/Reset"), true).unwrap();
        if let Ok(answer) = answer.await {
            let mut body = answer.into_body();
            while let Some(Ok(_)) = grpc::next(&mut body).await {}
        }
        for events in [&mut out, &mut into] {
            let mut last = next(events).await.unwrap();
            // The answer's head and the reset may come as one.
            while !is_end(&last) {
                last = next(events).await.unwrap();
            }
            let calm = u32::from(h2::Reason::ENHANCE_YOUR_CALM);
            assert_eq!(end(&last), Some(eos::End::ResetErrorCode(calm)));
        }
    });
}

#[test]
fn each_try_is_told_of_with_the_endpoint_that_it_went_to() {
    run(async {
        let mesh = Mesh::new();
        let web = tapped(&mesh, "web").await;
        let script = [scripted::BUSY, scripted::OK];
        let server = scripted::Server::start(web.address(9001), &script).await;
        let policy = policy_with("voting", |rule| rule.retry = Some(scripted::retry()));
        mesh.policy("voting", policy);
        mesh.endpoints("voting", &[plain(web.address(9001))]);
        let mut out = observe(&mut reader(&mesh, &web).await, all(2)).await;
        let answer = Http1::new(web.call().await).get("voting", "/").await;
        assert_eq!((answer.status(), server.count()), (200, 2));
        let [first, second] = [three(&mut out).await, three(&mut out).await];
        assert_eq!(answered(&first[1]).http_status, 503);
        assert_eq!(answered(&second[1]).http_status, 200);
        assert_eq!(first[0].destination.unwrap().port, 9001);
        let tls = label(&first[0].destination_meta, "tls");
        assert_eq!(tls, "not_provided_by_service_discovery");
        assert_ne!(begun(&first[0]).id, begun(&second[0]).id);
    });
}

#[test]
fn what_the_proxies_answer_themselves_is_told_of_too() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (tapped(&mesh, "web").await, tapped(&mesh, "voting").await);
        mesh.service("voting", &[voting.endpoint(80)]);
        let detect = DefaultProtocol::Detect(std::time::Duration::from_secs(1));
        let deny = Server::by_default(DefaultPolicy::Deny, detect, &[]);
        voting.allow(80, deny).await;
        let mut into = observe(&mut reader(&mesh, &voting).await, all(1)).await;
        let mut client = Http1::new(web.call().await);
        assert_eq!(client.get("voting", "/").await.status(), 403);
        let [begin, middle, _] = three(&mut into).await;
        assert_eq!(label(&begin.destination_meta, "srv_name"), "deny");
        assert_eq!(answered(&middle).http_status, 403);

        // No route takes it, so nobody has chosen an endpoint.
        let path = http_route::PathMatch {
            kind: Some(http_route::path_match::Kind::Exact("/only".to_owned())),
        };
        let nowhere = policy_with("nowhere", |rule| {
            rule.matches = vec![http_route::HttpRouteMatch {
                path: Some(path.clone()),
                ..Default::default()
            }];
        });
        mesh.policy("nowhere", nowhere);
        let mut out = observe(&mut reader(&mesh, &web).await, all(1)).await;
        assert_eq!(client.get("nowhere", "/").await.status(), 404);
        let [begin, middle, _] = three(&mut out).await;
        assert_eq!(begin.destination, None);
        assert_eq!(label(&begin.destination_meta, "tls"), "no_endpoint");
        assert_eq!(answered(&middle).http_status, 404);
    });
}

#[test]
fn a_caller_that_leaves_ends_its_request_with_cancel() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (tapped(&mesh, "web").await, tapped(&mesh, "voting").await);
        mesh.service("voting", &[voting.endpoint(80)]);
        app(voting.address(18080), |stream| async move {
            let _held = stream;
            std::future::pending().await
        })
        .await;
        let mut out = observe(&mut reader(&mesh, &web).await, all(1)).await;
        let mut client = Http1::new(web.call().await);
        client.send("GET / HTTP/1.1\r\nHost: voting\r\n\r\n").await;
        begun(&next(&mut out).await.unwrap());
        drop(client);
        let last = next(&mut out).await.unwrap();
        let cancel = u32::from(h2::Reason::CANCEL);
        assert_eq!(end(&last), Some(eos::End::ResetErrorCode(cancel)));
        assert_eq!(next(&mut out).await, None);
    });
}

#[test]
fn only_what_the_condition_wants_is_told_of() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (tapped(&mesh, "web").await, tapped(&mesh, "voting").await);
        app(voting.address(18080), echo).await;
        mesh.service("voting", &[voting.endpoint(80)]);
        let path = kinds::Match::Http(kinds::Http {
            r#match: Some(kinds::http::Match::Path(kinds::http::StringMatch {
                r#match: Some(kinds::http::string_match::Match::Prefix("/b".to_owned())),
            })),
        });
        let pod = kinds::Match::DestinationLabel(kinds::Label {
            key: "pod".to_owned(),
            value: "voting".to_owned(),
        });
        let both = [path, pod].map(|one| Match { r#match: Some(one) });
        let both = kinds::Match::All(kinds::Seq {
            matches: both.into(),
        });
        let mut out = observe(&mut reader(&mesh, &web).await, matching(1, both)).await;
        let mut client = Http1::new(web.call().await);
        for path in ["/a", "/ab", "/b1", "/b2"] {
            client.get("voting", path).await;
        }
        assert_eq!(begun(&three(&mut out).await[0]).path, "/b1");
        assert_eq!(next(&mut out).await, None);
    });
}

/// The status of a call that is refused.
pub async fn refusal(tap: &mut TapClient<Channel>, question: ObserveRequest) -> Status {
    match tap.observe(question).await {
        Err(status) => status,
        Ok(answer) => answer.into_inner().message().await.unwrap_err(),
    }
}
