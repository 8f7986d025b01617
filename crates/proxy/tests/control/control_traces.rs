//! Spans of a process that ends: what has not been sent yet leaves with it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::{Request, Response, Status};
use tulle_api::opentelemetry::proto::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use tulle_api::opentelemetry::proto::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tulle_api::opentelemetry::proto::common::v1::any_value::Value;

use super::control_metrics::{PROMETHEUS, text};
use super::proxy::{Proxy, application};

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Serves on a thread of its own, for as long as the test runs.
fn collector() -> (Collector, String) {
    let collector = Collector::default();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = collector.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serving.clone();
                let service = hyper::service::service_fn(move |request| {
                    let mut service = TraceServiceServer::new(serving.clone());
                    tower_service::Service::call(&mut service, request)
                });
                let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(http2.serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    (collector, address)
}

#[test]
fn the_last_spans_are_sent_before_the_process_ends() {
    let (collector, address) = collector();
    let app = application("127.0.0.1:0", "web");
    let more = [
        ("LINKERD2_PROXY_TRACE_COLLECTOR_SVC_ADDR", address.as_str()),
        ("LINKERD2_PROXY_TRACE_EXTRA_ATTRIBUTES", "team=\"votes\""),
        // Far longer than the test.
        ("TULLE_PROXY_TRACE_EXPORT_INTERVAL", "1h"),
    ];
    let disabled = [("LINKERD2_PROXY_IDENTITY_DISABLED", "1")];
    let mut proxy = Proxy::start_with("web", &disabled, &more);
    proxy.wait_ready();
    let mut stream = TcpStream::connect(proxy.outbound()).unwrap();
    let head = format!(
        "GET / HTTP/1.1\r\nhost: {app}\r\nconnection: close\r\ntraceparent: 00-{}-00f067aa0ba902b7-01\r\n\r\n",
        "4bf92f3577b34da6a3ce929d0e0e4736"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(collector.0.lock().unwrap().is_empty(), "it is not time yet");
    // From now on somebody wants exemplars: they name the span that the collector will have.
    let page = || text(&proxy, &format!("accept: {PROMETHEUS}\r\n")).1;
    assert!(!page().contains("# {"));
    let mut again = TcpStream::connect(proxy.outbound()).unwrap();
    again.write_all(head.as_bytes()).unwrap();
    again.read_to_string(&mut answer).unwrap();
    let found = page();
    let start = "# {trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\",span_id=\"";
    let (_, rest) = found.split_once(start).expect("an exemplar with its span");
    let exemplar = rest.split('"').next().unwrap().to_owned();

    proxy.signal("TERM");
    assert_eq!(proxy.wait_end(), Some(0));

    let got = collector.0.lock().unwrap();
    let batch = &got[0].resource_spans[0];
    let spans = &batch.scope_spans[0].spans;
    assert_eq!(spans.len(), 4, "{got:?}");
    let number = |id: &[u8]| {
        id.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let of_servers = |id: &String| spans.iter().any(|span| number(&span.span_id) == *id);
    assert!(of_servers(&exemplar), "{exemplar}: {got:?}");
    let attributes = &batch.resource.as_ref().unwrap().attributes;
    let team = attributes.iter().find(|pair| pair.key == "team").unwrap();
    let value = team.value.clone().unwrap().value;
    assert_eq!(value, Some(Value::StringValue("votes".to_owned())));
}
