//! Who may tap and how much: identities that are refused, plain text, readers that do not read, and every bound.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tulle_api::tap::observe_request::r#match as kinds;
use tulle_proxy::tap::{MAX_CONNECTIONS, MAX_QUESTION, MAX_TAPS, QUEUE_EVENTS};

use crate::client::{Http1, echo};
use crate::meshed::Gullible;
use crate::rig::{Mesh, Pod, app, identity, run};
use crate::tap::{all, begun, client, matching, next, observe, over, reader, refusal, tapped};

/// A metric of tap; of all reasons together.
fn metric(pod: &Pod, name: &str) -> f64 {
    let samples = pod.observed.taps().samples();
    let named = samples.iter().filter(|sample| sample.family.name == name);
    named.map(|sample| sample.value).sum()
}

fn refused(pod: &Pod, reason: &str) -> f64 {
    let samples = pod.observed.taps().samples();
    let mut named = samples.iter().filter(|sample| {
        sample.family.name == "tap_refused_total" && sample.labels.as_str().contains(reason)
    });
    named.next().unwrap().value
}

/// A pod whose application echoes, reached on its plain port.
async fn voting(mesh: &Mesh) -> Pod {
    let pod = tapped(mesh, "voting").await;
    app(pod.address(18080), echo).await;
    pod
}

#[test]
fn another_identity_is_refused_by_name_and_watches_nothing() {
    run(async {
        let mesh = Mesh::new();
        let pod = voting(&mesh).await;
        let mut web = client(&pod, &mesh.epoch("web")).await;
        let status = refusal(&mut web, all(1)).await;
        assert_eq!(status.code(), Code::Unauthenticated);
        let expected = format!("other_identity: {} may not tap", identity("web"));
        assert!(status.message().starts_with(&expected), "{status}");
        assert!(status.message().contains(&identity("tap")), "{status}");
        assert_eq!(refused(&pod, "other_identity"), 1.0);
        assert_eq!(metric(&pod, "tap_active"), 0.0);
    });
}

#[test]
fn a_certificate_of_another_authority_does_not_get_as_far() {
    run(async {
        let mesh = Mesh::new();
        let pod = voting(&mesh).await;
        let stranger = Mesh::new().epoch("tap");
        let stream = TcpStream::connect(pod.address(4190)).await.unwrap();
        let config = stranger.client(tulle_proxy::identity::ClientAlpn::H2);
        let name = identity("voting").try_into().unwrap();
        let mut config = rustls::ClientConfig::clone(&config);
        // It does not care who serves.
        config
            .dangerous()
            .set_certificate_verifier(std::sync::Arc::new(Gullible));
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        if let Ok(mut stream) = connector.connect(name, stream).await {
            assert!(stream.read(&mut [0; 64]).await.is_err());
        }
        while refused(&pod, "handshake") < 1.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn plain_text_is_told_why_not() {
    run(async {
        let mesh = Mesh::new();
        let pod = voting(&mesh).await;
        let stream = TcpStream::connect(pod.address(4190)).await.unwrap();
        let mut plain = over(stream).await;
        let status = refusal(&mut plain, all(1)).await;
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(status.message().starts_with("no_tls: "), "{status}");
        assert_eq!(refused(&pod, "no_tls"), 1.0);
        // What is no HTTP/2 is closed without a word.
        let mut http1 = Http1::new(TcpStream::connect(pod.address(4190)).await.unwrap());
        http1.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(http1.message().await, None);
        assert_eq!(refused(&pod, "no_tls"), 2.0);
    });
}

#[test]
fn nothing_listens_where_nobody_may_tap() {
    run(async {
        let mesh = Mesh::new();
        let pod = mesh
            .pod_with(
                "voting",
                &[("LINKERD2_PROXY_CONTROL_LISTEN_ADDR", "$ip:4190")],
            )
            .await;
        let refused = TcpStream::connect(pod.address(4190)).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(pod.observed.taps().samples().is_empty());
    });
}

#[test]
fn the_port_is_the_proxys_and_never_the_applications() {
    run(async {
        let mesh = Mesh::new();
        let more = [
            ("LINKERD2_PROXY_TAP_SVC_NAME", "tap.test"),
            ("LINKERD2_PROXY_CONTROL_LISTEN_ADDR", "$ip:4190"),
            ("TULLE_PROXY_INBOUND_EXTRA_LISTENERS", "$ip:34190=4190"),
        ];
        let pod = mesh.pod_with("voting", &more).await;
        // As if the packet filter had redirected it.
        let captured = TcpStream::connect(pod.address(34190)).await.unwrap();
        let mut captured = Http1::new(captured);
        captured.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(captured.message().await, None);
        assert_eq!(
            pod.metric("inbound_tcp_errors_total", &["reason=\"loop\""]),
            1.0
        );
    });
}

#[test]
fn a_question_that_cannot_be_meant_is_refused_by_its_field() {
    run(async {
        let mesh = Mesh::new();
        let pod = voting(&mesh).await;
        let mut tap = reader(&mesh, &pod).await;
        let ports = kinds::Tcp {
            r#match: Some(kinds::tcp::Match::Ports(kinds::tcp::PortRange {
                min: 9,
                max: 8,
            })),
        };
        let long = kinds::Match::RouteLabel(kinds::Label {
            key: "k".repeat(MAX_QUESTION),
            value: "v".to_owned(),
        });
        let source = kinds::Match::Source(ports);
        for (question, code, why) in [
            (all(0), Code::InvalidArgument, "question: limit is 0"),
            (
                Default::default(),
                Code::InvalidArgument,
                "question: limit is 0",
            ),
            (
                matching(1, source),
                Code::InvalidArgument,
                "question: match.source.ports are 9 to 8",
            ),
            (
                matching(1, long),
                Code::ResourceExhausted,
                "question: the question is longer than",
            ),
        ] {
            let status = refusal(&mut tap, question).await;
            assert_eq!(status.code(), code, "{status}");
            assert!(status.message().starts_with(why), "{status}");
        }
        assert_eq!(refused(&pod, "question"), 4.0);
    });
}

#[test]
fn there_is_no_other_method_and_no_other_protocol() {
    run(async {
        let mesh = Mesh::new();
        let pod = voting(&mesh).await;
        let stream = TcpStream::connect(pod.address(4190)).await.unwrap();
        let config = mesh
            .epoch("tap")
            .client(tulle_proxy::identity::ClientAlpn::H2);
        let connector = tokio_rustls::TlsConnector::from(config);
        let name = identity("voting").try_into().unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::task::spawn_local(async move {
            let _ended = connection.await;
        });
        let request = |path: &str, kind: &str| {
            let request = http::Request::post(format!("http://x{path}"));
            request.header("content-type", kind).body(()).unwrap()
        };
        let observe = "/io.linkerd.proxy.tap.Tap/Observe";
        let other = request("/io.linkerd.proxy.tap.Tap/Other", "application/grpc");
        let (answer, _) = send.send_request(other, true).unwrap();
        assert_eq!(answer.await.unwrap().headers()["grpc-status"], "12");
        let (answer, _) = send
            .send_request(request(observe, "text/plain"), true)
            .unwrap();
        assert_eq!(answer.await.unwrap().status(), 415);
        // A message that is not whole.
        let (answer, mut body) = send
            .send_request(request(observe, "application/grpc"), false)
            .unwrap();
        let mut message = vec![0, 0, 0, 0, 9];
        message.extend_from_slice(&all(1).encode_to_vec());
        body.send_data(Bytes::from(message), true).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "3");
    });
}

#[test]
fn taps_have_a_most_and_one_that_ends_makes_room() {
    run(async {
        let mesh = Mesh::new();
        let pod = voting(&mesh).await;
        let mut tap = reader(&mesh, &pod).await;
        let mut held = Vec::new();
        for _ in 0..MAX_TAPS {
            held.push(observe(&mut tap, all(1)).await);
        }
        let status = refusal(&mut tap, all(1)).await;
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().starts_with("taps: "), "{status}");
        drop(held.pop());
        while metric(&pod, "tap_active") > 7.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut last = observe(&mut tap, all(1)).await;
        Http1::new(pod.enter().await).get("voting", "/").await;
        begun(&next(&mut last).await.unwrap());
    });
}

#[test]
fn others_take_none_of_the_tap_identitys_places() {
    run(async {
        let mesh = Mesh::new();
        let pod = voting(&mesh).await;
        // They say nothing and are waited for.
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS + 4 {
            silent.push(TcpStream::connect(pod.address(4190)).await.unwrap());
        }
        while refused(&pod, "connections") < 4.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        silent.clear();
        let mut tap = loop {
            let stream = TcpStream::connect(pod.address(4190)).await.unwrap();
            let config = mesh
                .epoch("tap")
                .client(tulle_proxy::identity::ClientAlpn::H2);
            let connector = tokio_rustls::TlsConnector::from(config);
            let name = identity("voting").try_into().unwrap();
            if let Ok(stream) = connector.connect(name, stream).await {
                break over(stream).await;
            }
        };
        let mut events = observe(&mut tap, all(1)).await;
        Http1::new(pod.enter().await).get("voting", "/").await;
        begun(&next(&mut events).await.unwrap());
    });
}

#[test]
fn a_reader_that_does_not_read_loses_events_and_holds_up_no_request() {
    run(async {
        let mesh = Mesh::new();
        let pod = voting(&mesh).await;
        let mut tap = reader(&mesh, &pod).await;
        let mut events = observe(&mut tap, all(100_000)).await;
        let mut client = Http1::new(pod.enter().await);
        // Its window fills, then the queue.
        let long = format!("/{}", "x".repeat(4_000));
        let mut sent = 0;
        while metric(&pod, "tap_events_lost_total") < 30.0 {
            assert_eq!(client.get("voting", &long).await.status(), 200);
            sent += 1;
            assert!(sent < 900, "nothing was lost");
        }
        let lost = metric(&pod, "tap_events_lost_total");
        assert_eq!(metric(&pod, "tap_requests_total"), f64::from(sent));
        // It wakes up: what was not lost comes, and in the end it is told how much was.
        drop(client);
        let told = metric(&pod, "tap_events_total");
        assert!(told >= QUEUE_EVENTS as f64 / 4.0, "{told}");
        assert_eq!(told + lost, f64::from(sent) * 3.0);
        for _ in 0..told as u64 {
            next(&mut events).await.unwrap();
        }
        let mut inbound = pod.inbound;
        inbound.begin();
        let ended: Status = events.message().await.unwrap_err();
        assert_eq!(ended.code(), Code::Unavailable);
        let said = ended.metadata().get("tulle-tap-events-lost").unwrap();
        assert_eq!(said.to_str().unwrap(), (lost as u64).to_string());
    });
}

#[test]
fn a_tap_holds_up_no_draining() {
    run(async {
        let mesh = Mesh::new();
        let mut pod = voting(&mesh).await;
        let mut tap = reader(&mesh, &pod).await;
        let mut events = observe(&mut tap, all(10)).await;
        pod.inbound.begin();
        assert_eq!(
            events.message().await.unwrap_err().code(),
            Code::Unavailable
        );
        drop((events, tap));
        assert!(pod.inbound.finish(Duration::from_secs(20)).await);
    });
}
