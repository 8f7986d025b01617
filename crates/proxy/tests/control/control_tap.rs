//! Tap on a sidecar that runs as a process: who is let in on 4190, an event, the metrics, the drain.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tulle_api::tap::observe_request::{Match, r#match as kinds};
use tulle_api::tap::{ObserveRequest, TapEvent, tap_event};

use super::control_plane::{Answer, ControlPlane, Script, leaf};
use super::mesh::{add, balanced, dns_server, plain};
use super::proxy::{Proxy, application, identity, request};

const TAP: &str = "tap.linkerd-viz.serviceaccount.identity.linkerd.cluster.local";

/// A client's TLS with the certificate of this name.
fn certified(script: &Script, name: &str) -> TlsConnector {
    let (chain, key) = leaf(&script.issuer, name);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(script.issuer.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    TlsConnector::from(Arc::new(config))
}

/// Calls `Observe` for everything; the answer's head and body.
async fn observe(proxy: &Proxy, tls: &TlsConnector) -> http::Response<h2::RecvStream> {
    let stream = TcpStream::connect(format!("{}:4190", proxy.ip))
        .await
        .unwrap();
    let name = ServerName::try_from(identity("web")).unwrap();
    let stream = tls.connect(name, stream).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move {
        let _ended = connection.await;
    });
    let call = http::Request::post("http://tap/io.linkerd.proxy.tap.Tap/Observe")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let (answer, mut body) = send.send_request(call, false).unwrap();
    let question = ObserveRequest {
        limit: 1,
        r#match: Some(Match {
            r#match: Some(kinds::Match::All(kinds::Seq::default())),
        }),
        ..Default::default()
    };
    let question = question.encode_to_vec();
    let mut message = vec![0];
    message.extend_from_slice(&u32::try_from(question.len()).unwrap().to_be_bytes());
    message.extend_from_slice(&question);
    body.send_data(Bytes::from(message), true).unwrap();
    answer.await.unwrap()
}

#[test]
fn the_process_serves_tap_to_the_named_identity_alone() {
    let script = Script::new();
    let control = ControlPlane::start(&script);
    let more = [
        ("TULLE_PROXY_DNS_SERVER", dns_server()),
        ("LINKERD2_PROXY_TAP_SVC_NAME", TAP),
        ("LINKERD2_PROXY_CONTROL_LISTEN_ADDR", "{ip}:4190"),
    ];
    let mut proxy = Proxy::start("web", &control, &script, &more);
    let behind = application("127.0.0.1:0", "voting");
    let path = "voting.default.svc.cluster.local:80";
    script.policy("voting", Answer::Say(balanced("voting", path)));
    script.endpoints(path, Answer::Say(add(vec![plain(behind)])));
    proxy.wait_ready();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let other = observe(&proxy, &certified(&script, &identity("web"))).await;
        assert_eq!(other.headers()["grpc-status"], "16");

        let answer = observe(&proxy, &certified(&script, TAP)).await;
        assert_eq!(answer.headers()["content-type"], "application/grpc");
        let mut body = answer.into_body();
        // Events wait in the socket meanwhile.
        let asked = request(proxy.outbound(), "GET", "voting", "/vote", "");
        assert_eq!(asked, Some((200, "voting".to_owned())));
        let mut told = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            told.extend_from_slice(&data);
        }
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        let mut told = &told[..];
        let mut events = Vec::new();
        while !told.is_empty() {
            assert_eq!(told.get_u8(), 0);
            let length = told.get_u32() as usize;
            events.push(TapEvent::decode(&told[..length]).unwrap());
            told.advance(length);
        }
        assert_eq!(events.len(), 3, "{events:?}");
        let Some(tap_event::Event::Http(tap_event::Http {
            event: Some(tap_event::http::Event::RequestInit(init)),
        })) = &events[0].event
        else {
            panic!("{events:?}");
        };
        assert_eq!(init.path, "/vote");
    });
    assert_eq!(proxy.metric("tap_requests_total"), 1.0);
    assert_eq!(proxy.metric("tap_events_total"), 3.0);
    assert_eq!(
        proxy.metric("tap_refused_total{reason=\"other_identity\"}"),
        1.0
    );
    let log = proxy.log();
    assert!(log.contains("tap begins") && log.contains("tap refused"));
    proxy.signal("TERM");
    assert_eq!(proxy.wait_end(), Some(0));
}

#[test]
fn without_a_name_nothing_listens_and_no_series_of_tap_are_shown() {
    let script = Script::new();
    let control = ControlPlane::start(&script);
    let more = [
        ("TULLE_PROXY_DNS_SERVER", dns_server()),
        ("LINKERD2_PROXY_CONTROL_LISTEN_ADDR", "{ip}:4190"),
    ];
    let proxy = Proxy::start("web", &control, &script, &more);
    proxy.wait_ready();
    let at = format!("{}:4190", proxy.ip);
    let refused = std::net::TcpStream::connect(at).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let (_, page) = proxy.get("/metrics").unwrap();
    assert!(!page.contains("tap_"), "{page}");
}
