//! Spans through two sidecars to a collector of OTLP that is meshed itself: who is whose parent, what the next hop hears,
//! what is told of a request; and a collector that is away, slow to believe, or an impostor.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::{Request, Response, Status};
use tulle_api::opentelemetry::proto::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use tulle_api::opentelemetry::proto::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tulle_api::opentelemetry::proto::common::v1::{KeyValue, any_value::Value};
use tulle_api::opentelemetry::proto::resource::v1::Resource;
use tulle_api::opentelemetry::proto::trace::v1::Span;
use tulle_api::opentelemetry::proto::trace::v1::span::SpanKind;
use tulle_engine::inbound::{DefaultPolicy, DefaultProtocol, Server};
use tulle_proxy::trace::queue::RECORDS;

use crate::client::{Http1, echo};
use crate::grpc::{call, connect, h2_app, trailers};
use crate::rig::{Mesh, Pod, app, identity, plain, policy_with, run};
use crate::scripted::{self, BUSY, OK, retry};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const DROPPED: &str = "trace_spans_dropped_total";

/// A collector, and what it does with the next messages; afterwards it takes them.
#[derive(Clone, Default)]
struct Collector {
    got: Arc<Mutex<Vec<(Resource, Span)>>>,
    script: Arc<Mutex<Vec<Result<i64, Status>>>>,
    /// It takes its time for as long as this is set.
    is_slow: Arc<AtomicBool>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        while self.is_slow.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let rejected = match self.script.lock().unwrap().pop() {
            Some(answer) => answer?,
            None => 0,
        };
        for batch in request.into_inner().resource_spans {
            let resource = batch.resource.unwrap();
            for span in batch.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                self.got.lock().unwrap().push((resource.clone(), span));
            }
        }
        Ok(Response::new(ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans: rejected,
                error_message: "scripted".to_owned(),
            }),
        }))
    }
}

impl Collector {
    /// Beside a sidecar, which takes the mesh's TLS off.
    async fn beside(pod: &Pod) -> Self {
        let collector = Self::default();
        let serving = collector.clone();
        app(pod.address(18080), move |stream| {
            serving.clone().serve(stream)
        })
        .await;
        collector
    }

    async fn serve(self, stream: TcpStream) {
        let service = hyper::service::service_fn(move |request| {
            let mut service = TraceServiceServer::new(self.clone());
            tower_service::Service::call(&mut service, request)
        });
        let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ended = http2.serve_connection(TokioIo::new(stream), service).await;
    }

    /// The spans, once there are so many, in the order in which one is the other's parent.
    async fn chain(&self, count: usize) -> Vec<Span> {
        let mut left = self.spans(count).await;
        let mut chain: Vec<Span> = Vec::new();
        let mut parent = bytes(CALLER);
        while let Some(at) = left.iter().position(|span| span.parent_span_id == parent) {
            parent.clone_from(&left[at].span_id);
            chain.push(left.swap_remove(at));
        }
        assert!(left.is_empty(), "{chain:#?}\nand apart\n{left:#?}");
        chain
    }

    fn has(&self, name: &str) -> bool {
        let got = self.got.lock().unwrap();
        got.iter().any(|(_, span)| span.name == name)
    }

    async fn spans(&self, count: usize) -> Vec<Span> {
        loop {
            let got = self.got.lock().unwrap().clone();
            if got.len() >= count {
                assert_eq!(got.len(), count, "{got:#?}");
                return got.into_iter().map(|(_, span)| span).collect();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn bytes(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn find(attributes: &[KeyValue], key: &str) -> Option<String> {
    let pair = attributes.iter().find(|pair| pair.key == key)?;
    match pair.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        Value::BoolValue(flag) => Some(flag.to_string()),
    }
}

fn said(span: &Span, key: &str) -> String {
    find(&span.attributes, key).unwrap_or_default()
}

fn to(collector: &Pod) -> Vec<(&'static str, String)> {
    vec![
        (
            "LINKERD2_PROXY_TRACE_COLLECTOR_SVC_ADDR",
            collector.address(30080).to_string(),
        ),
        (
            "LINKERD2_PROXY_TRACE_COLLECTOR_SVC_NAME",
            identity(&collector.name),
        ),
        ("TULLE_PROXY_TRACE_EXPORT_INTERVAL", "50ms".to_owned()),
        ("HOSTNAME", "machine-1".to_owned()),
    ]
}

async fn traced(mesh: &Mesh, name: &str, environment: &[(&'static str, String)]) -> Pod {
    let environment: Vec<_> = environment.iter().map(|(n, v)| (*n, v.as_str())).collect();
    mesh.pod_with(name, &environment).await
}

/// A mesh with a collector, and `web` that calls `voting`, both with spans.
async fn pair(mesh: &Mesh) -> (Collector, Pod, Pod, Pod) {
    let place = mesh.pod("collector").await;
    let collector = Collector::beside(&place).await;
    let web = traced(mesh, "web", &to(&place)).await;
    let voting = traced(mesh, "voting", &to(&place)).await;
    mesh.service("voting", &[voting.endpoint(80)]);
    (collector, place, web, voting)
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: voting\r\n{fields}\r\n")
}

fn sampled() -> String {
    format!("traceparent: 00-{TRACE}-{CALLER}-01\r\n")
}

#[test]
fn two_sidecars_are_one_chain_and_the_application_hears_its_last_link() {
    run(async {
        let (collector, _place, web, voting) = pair(&Mesh::new()).await;
        app(voting.address(18080), echo).await;
        let mut client = Http1::new(web.call().await);
        let fields = format!(
            "{}Tracestate: a=1,b=2\r\nUser-Agent: test/1\r\nContent-Type: text/plain\r\n",
            sampled()
        );
        client.send(get("/vote?for=x", &fields)).await;
        let answer = client.answer().await;
        assert_eq!(answer.status(), 200);

        let chain = collector.chain(4).await;
        let (server, client) = (SpanKind::Server as i32, SpanKind::Client as i32);
        let kinds: Vec<_> = chain
            .iter()
            .map(|span| (said(span, "direction"), span.kind, span.flags))
            .collect();
        let expected = [
            ("outbound", server, 0x301),
            ("outbound", client, 0x101),
            ("inbound", server, 0x301),
            ("inbound", client, 0x101),
        ];
        assert_eq!(kinds, expected.map(|(d, k, f)| (d.to_owned(), k, f)));
        for span in &chain {
            assert_eq!(digits(&span.trace_id), TRACE);
            assert_eq!(span.name, "/vote");
            assert_eq!(span.trace_state, "a=1,b=2");
            assert_eq!(span.status.clone().unwrap().code, 0);
            for (key, expected) in [
                ("http.request.method", "GET"),
                ("url.scheme", "http"),
                ("url.path", "/vote"),
                ("url.query", "for=x"),
                ("url.full", "http://voting/vote?for=x"),
                ("network.transport", "tcp"),
                ("server.address", "voting"),
                ("user_agent.original", "test/1"),
                ("http.request.header.content-type", "text/plain"),
                ("http.response.status_code", "200"),
                ("error.type", ""),
            ] {
                assert_eq!(said(span, key), expected, "{key} of {span:#?}");
            }
        }
        assert_eq!(
            said(&chain[2], "http.request.header.l5d-orig-proto"),
            "HTTP/1.1"
        );
        // One lies within the other, by the one clock of this machine.
        for two in chain.windows(2) {
            assert!(two[0].start_time_unix_nano <= two[1].start_time_unix_nano);
            assert!(two[1].start_time_unix_nano <= two[1].end_time_unix_nano);
        }
        let last = digits(&chain[3].span_id);
        let heard = answer.text();
        let expected = format!("traceparent: 00-{TRACE}-{last}-01");
        assert!(heard.contains(&expected), "{heard}");
        assert!(heard.contains("tracestate: a=1,b=2"), "{heard}");
        let (resource, _) = collector.got.lock().unwrap()[0].clone();
        assert_eq!(
            find(&resource.attributes, "host.name").as_deref(),
            Some("machine-1")
        );
        assert_eq!(
            find(&resource.attributes, "service.name").as_deref(),
            Some("linkerd-proxy")
        );
        assert!(find(&resource.attributes, "process.pid").is_some());
        let taken = web.metric_of("opentelemetry_span_exports");
        assert_eq!(taken, 2.0, "{}", web.metrics());
    });
}

#[test]
fn b3_goes_on_as_it_came() {
    run(async {
        let (collector, _place, web, voting) = pair(&Mesh::new()).await;
        app(voting.address(18080), echo).await;
        let mut client = Http1::new(web.call().await);
        let single = format!("b3: {TRACE}-{CALLER}-1\r\n");
        client.send(get("/", &single)).await;
        let answer = client.answer().await;
        let chain = collector.chain(4).await;
        let (last, before) = (digits(&chain[3].span_id), digits(&chain[2].span_id));
        let expected = format!("b3: {TRACE}-{last}-1-{before}\n");
        assert!(answer.text().contains(&expected), "{}", answer.text());

        collector.got.lock().unwrap().clear();
        let several =
            format!("X-B3-TraceId: {TRACE}\r\nX-B3-SpanId: {CALLER}\r\nX-B3-Sampled: 1\r\n");
        client.send(get("/", &several)).await;
        let answer = client.answer().await;
        let chain = collector.chain(4).await;
        let (last, before) = (digits(&chain[3].span_id), digits(&chain[2].span_id));
        for expected in [
            format!("x-b3-traceid: {TRACE}\n"),
            format!("x-b3-spanid: {last}\n"),
            format!("x-b3-parentspanid: {before}\n"),
            "x-b3-sampled: 1\n".to_owned(),
        ] {
            assert!(answer.text().contains(&expected), "{}", answer.text());
        }
    });
}

/// What the application hears of these fields.
async fn heard(client: &mut Http1, fields: &str) -> Vec<String> {
    client.send(get("/", fields)).await;
    let answer = client.answer().await;
    assert_eq!(answer.status(), 200);
    let ours = ["traceparent", "b3", "x-b3", "tracestate", "grpc-trace"];
    let lines = answer.text().lines().map(str::to_owned);
    lines
        .filter(|line| ours.iter().any(|name| line.starts_with(name)))
        .collect()
}

#[test]
fn nothing_is_begun_and_what_nobody_samples_or_nobody_can_read_is_not_touched() {
    run(async {
        let (collector, _place, web, voting) = pair(&Mesh::new()).await;
        app(voting.address(18080), echo).await;
        let mut client = Http1::new(web.call().await);
        let zeros = "0".repeat(32);
        let long = "f".repeat(4_000);
        for fields in [
            String::new(),
            format!("traceparent: 00-{TRACE}-{CALLER}-00\r\n"),
            format!("traceparent: 00-{zeros}-{CALLER}-01\r\n"),
            format!("traceparent: 00-{TRACE}-0000000000000000-01\r\n"),
            format!("traceparent: ff-{TRACE}-{CALLER}-01\r\n"),
            format!("traceparent: 00-{TRACE}-{CALLER}-01-more\r\n"),
            format!("traceparent: {long}\r\n"),
            format!("traceparent: \u{fc}\u{fc}\r\ntracestate: {long}\r\n"),
            format!("b3: {TRACE}-{CALLER}\r\n"),
            "b3: 1\r\n".to_owned(),
            format!("x-b3-traceid: {TRACE}\r\nx-b3-sampled: 1\r\n"),
            "grpc-trace-bin: AAAA\r\n".to_owned(),
        ] {
            let sent: Vec<_> = fields.trim_end().lines().map(str::to_owned).collect();
            if fields.is_ascii() {
                assert_eq!(heard(&mut client, &fields).await, sent);
            } else {
                // The test's server reads UTF-8, which these octets happen to be.
                assert_eq!(heard(&mut client, &fields).await.len(), sent.len());
            }
        }
        // The only one that is recorded comes last: nothing was before it.
        client.send(get("/", &sampled())).await;
        assert_eq!(client.answer().await.status(), 200);
        collector.chain(4).await;
    });
}

#[test]
fn without_a_collector_a_sampled_request_passes_as_it_is() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        mesh.service("voting", &[voting.endpoint(80)]);
        app(voting.address(18080), echo).await;
        let mut client = Http1::new(web.call().await);
        let expected = format!("traceparent: 00-{TRACE}-{CALLER}-01");
        assert_eq!(heard(&mut client, &sampled()).await, [expected]);
    });
}

#[test]
fn each_try_is_a_span_of_its_own() {
    run(async {
        let mesh = Mesh::new();
        let place = mesh.pod("collector").await;
        let collector = Collector::beside(&place).await;
        let web = traced(&mesh, "web", &to(&place)).await;
        let voting = mesh.pod("voting").await;
        mesh.policy(
            "voting",
            policy_with("voting", |rule| rule.retry = Some(retry())),
        );
        mesh.endpoints("voting", &[plain(voting.address(18080))]);
        let server = scripted::Server::start(voting.address(18080), &[BUSY, OK]).await;
        let mut client = Http1::new(web.call().await);
        client.send(get("/", &sampled())).await;
        assert_eq!(client.answer().await.status(), 200);

        let spans = collector.spans(3).await;
        let (tries, whole): (Vec<_>, Vec<_>) = spans
            .into_iter()
            .partition(|span| span.kind == SpanKind::Client as i32);
        assert!(
            tries
                .iter()
                .all(|span| span.parent_span_id == whole[0].span_id)
        );
        let statuses: Vec<_> = tries
            .iter()
            .map(|span| said(span, "http.response.status_code"))
            .collect();
        assert_eq!(statuses, ["503", "200"]);
        assert_eq!(said(&whole[0], "http.response.status_code"), "200");
        let heard: Vec<_> = server
            .seen()
            .iter()
            .map(|seen| seen.field("traceparent").unwrap().to_owned())
            .collect();
        let named: Vec<_> = tries
            .iter()
            .map(|span| format!("00-{TRACE}-{}-01", digits(&span.span_id)))
            .collect();
        assert_eq!(heard, named);
    });
}

#[test]
fn a_refused_request_is_one_span_that_says_why() {
    run(async {
        let (collector, _place, web, voting) = pair(&Mesh::new()).await;
        let detect = DefaultProtocol::Detect(Duration::from_secs(1));
        voting
            .allow(80, Server::by_default(DefaultPolicy::Deny, detect, &[]))
            .await;
        let mut client = Http1::new(web.call().await);
        client.send(get("/", &sampled())).await;
        assert_eq!(client.answer().await.status(), 403);
        let chain = collector.chain(3).await;
        let inbound = &chain[2];
        assert_eq!(said(inbound, "direction"), "inbound");
        assert_eq!(said(inbound, "http.response.status_code"), "403");
        assert_eq!(said(inbound, "error.type"), "unauthorized");
        assert_eq!(inbound.status.clone().unwrap().code, 2);
        // For the peer's sidecar it is an answer like others.
        assert_eq!(said(&chain[0], "error.type"), "");
    });
}

#[test]
fn a_grpc_call_is_judged_by_its_trailers() {
    run(async {
        let (collector, _place, web, voting) = pair(&Mesh::new()).await;
        h2_app(&voting, |request, mut respond| async move {
            assert!(request.headers().contains_key("grpc-trace-bin"));
            let head = http::Response::builder().header("content-type", "application/grpc");
            let mut body = respond
                .send_response(head.body(()).unwrap(), false)
                .unwrap();
            body.send_trailers(trailers("5")).unwrap();
        })
        .await;
        let mut send = connect(web.call().await).await;
        let mut request = call("/emoji/Vote");
        let context = http::HeaderValue::from_static("AABL+S81d7NNpqPOkp0ODkc2AQDwZ6oLqQK3AgE=");
        request.headers_mut().insert("grpc-trace-bin", context);
        let (answer, _) = send.send_request(request, true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "5");
        for span in collector.chain(4).await {
            assert_eq!(said(&span, "rpc.grpc.status_code"), "5");
            assert_eq!(
                (span.name.as_str(), span.status.unwrap().code),
                ("/emoji/Vote", 2)
            );
        }
    });
}

#[test]
fn a_client_that_leaves_and_a_server_that_breaks_end_their_spans() {
    run(async {
        let (collector, _place, web, voting) = pair(&Mesh::new()).await;
        let server = scripted::Server::start(
            voting.address(18080),
            &[scripted::Do::Hang, scripted::Do::Close],
        )
        .await;
        let mut client = Http1::new(web.call().await);
        client.send(get("/", &sampled())).await;
        while server.count() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(client);
        for span in collector.chain(4).await {
            assert_eq!(said(&span, "error.type"), "cancelled", "{span:#?}");
        }
        collector.got.lock().unwrap().clear();
        let mut client = Http1::new(web.call().await);
        client
            .send(get("/", &sampled()).replace("GET", "POST"))
            .await;
        assert_eq!(client.answer().await.status(), 502);
        let chain = collector.chain(4).await;
        assert_eq!(said(&chain[3], "http.response.status_code"), "");
        assert_eq!(said(&chain[3], "error.type"), "connection-closed");
        assert_eq!(said(&chain[2], "http.response.status_code"), "502");
    });
}

#[test]
fn while_the_collector_is_away_requests_are_served_and_the_rest_of_their_spans_is_counted() {
    run(async {
        let mesh = Mesh::new();
        let place = mesh.pod("collector").await;
        let collector = Collector::beside(&place).await;
        // It hangs for a while, then its end is away twice.
        collector.is_slow.store(true, Ordering::Relaxed);
        let away = Status::unavailable("away");
        *collector.script.lock().unwrap() = vec![Err(away.clone()), Err(away)];
        let web = traced(&mesh, "web", &to(&place)).await;
        app(web.address(18080), echo).await;
        let mut client = Http1::new(web.enter().await);
        let requests = RECORDS / 2 + 300;
        for _ in 0..requests {
            client.send(get("/", &sampled())).await;
            assert_eq!(client.answer().await.status(), 200);
        }
        let lost = web.metric(DROPPED, &["reason=\"queue_full\""]);
        let most = (2 * requests - RECORDS) as f64;
        assert!(
            lost > 0.0 && lost <= most,
            "{lost} of {requests}: {}",
            web.metrics()
        );
        collector.is_slow.store(false, Ordering::Relaxed);
        // It goes on, in order: once a later one is there, all that were kept are.
        while !collector.has("/last") {
            client.send(get("/last", &sampled())).await;
            assert_eq!(client.answer().await.status(), 200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let got = collector.got.lock().unwrap();
        let told = got.iter().filter(|(_, span)| span.name == "/").count();
        let once: BTreeSet<_> = got.iter().map(|(_, span)| &span.span_id).collect();
        assert_eq!(once.len(), got.len(), "none is told twice");
        // A request whose first span has no room has no second one.
        let lost = lost as usize;
        let kept = 2 * requests - 2 * lost..=2 * requests - lost;
        assert!(
            told >= RECORDS && kept.contains(&told),
            "{told}, lost {lost}"
        );
    });
}

#[test]
fn what_the_collector_does_not_take_is_counted() {
    run(async {
        let mesh = Mesh::new();
        let place = mesh.pod("collector").await;
        let collector = Collector::beside(&place).await;
        let web = traced(&mesh, "web", &to(&place)).await;
        app(web.address(18080), echo).await;
        *collector.script.lock().unwrap() = vec![Ok(1), Err(Status::invalid_argument("no"))];
        let mut client = Http1::new(web.enter().await);
        for (rejected, exported) in [(2.0, 0.0), (3.0, 1.0)] {
            client.send(get("/", &sampled())).await;
            assert_eq!(client.answer().await.status(), 200);
            web.spans.as_ref().unwrap().now().await;
            assert_eq!(web.metric(DROPPED, &["reason=\"rejected\""]), rejected);
            assert_eq!(web.metric_of("opentelemetry_span_exports"), exported);
        }
    });
}

#[test]
fn spans_are_told_to_nobody_but_the_collector() {
    run(async {
        let mesh = Mesh::new();
        let place = mesh.pod("impostor").await;
        let collector = Collector::beside(&place).await;
        let mut environment = to(&place);
        environment[1].1 = identity("collector");
        let web = traced(&mesh, "web", &environment).await;
        app(web.address(18080), echo).await;
        let mut client = Http1::new(web.enter().await);
        client.send(get("/", &sampled())).await;
        assert_eq!(client.answer().await.status(), 200);
        while web.metric(
            "control_connect_failures_total",
            &["server_id=\"collector."],
        ) == 0.0
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(collector.got.lock().unwrap().is_empty());
    });
}
