//! What linkerd2-proxy does at the other end of the wire and our own sidecar does not, played by a scripted peer: mutual
//! TLS, the transport header and HTTP/2 of the `h2` crate, as there. What it takes to run the real one is in
//! tests/e2e/test_linkerd_proxy.py.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tulle_api::destination::WeightedAddr;
use tulle_api::destination::protocol_hint::OpaqueTransport;
use tulle_proxy::identity::{ClientAlpn, ServerAlpn};
use tulle_proxy::transport_header::{SessionProtocol, TransportHeader};

use crate::client::{Http1, echo};
use crate::grpc::{Respond, Send, connect, h2_app, next};
use crate::rig::{Mesh, Pod, app, identity, run};

/// Where the scripted sidecar of a pod listens.
const SIDECAR: u16 = 24143;

/// Puts a scripted sidecar into a pod, and gives the pod's port 80 as the endpoint that is reached through it.
async fn sidecar<F: Future<Output = ()> + 'static>(
    mesh: &Mesh,
    pod: &Pod,
    answer: impl Fn(Request<RecvStream>, Respond) -> F + 'static,
) -> WeightedAddr {
    let tls = TlsAcceptor::from(mesh.epoch(&pod.name).server(ServerAlpn::TransportHeader));
    let answer = Rc::new(answer);
    app(pod.address(SIDECAR), move |stream| {
        let (tls, answer) = (tls.clone(), answer.clone());
        async move {
            let mut stream = tls.accept(stream).await.unwrap();
            let mut header = Vec::new();
            while TransportHeader::decode(&header).unwrap().is_none() {
                header.push(stream.read_u8().await.unwrap());
            }
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::task::spawn_local(answer(request, respond));
            }
        }
    })
    .await;
    let mut endpoint = pod.endpoint(80);
    if let Some(hint) = &mut endpoint.protocol_hint {
        hint.opaque_transport = Some(OpaqueTransport {
            inbound_port: u32::from(SIDECAR),
        });
    }
    endpoint
}

/// What a scripted sidecar asks of another pod's port 80.
async fn dial(mesh: &Mesh, from: &str, to: &Pod) -> Send {
    let stream = TcpStream::connect(to.address(4143)).await.unwrap();
    let name = ServerName::try_from(identity(&to.name)).unwrap();
    let mut stream = TlsConnector::from(mesh.epoch(from).client(ClientAlpn::TransportHeader))
        .connect(name, stream)
        .await
        .unwrap();
    let mut header = Vec::new();
    TransportHeader {
        port: 80,
        name: None,
        protocol: Some(SessionProtocol::Http2),
    }
    .encode(&mut header);
    stream.write_all(&header).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ended = connection.await;
    });
    send.ready().await.unwrap()
}

async fn whole(mut body: RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(data) = next(&mut body).await {
        all.extend_from_slice(&data.unwrap());
    }
    all
}

/// Answers with the body that it has got, and keeps interim answers to itself.
async fn mute(request: Request<RecvStream>, mut respond: Respond) {
    assert_eq!(request.headers()["expect"], "100-continue");
    let body = whole(request.into_body()).await;
    let mut answer = respond.send_response(Response::new(()), false).unwrap();
    answer.send_data(Bytes::from(body), true).unwrap();
}

#[test]
fn who_waits_for_leave_that_a_peer_does_not_pass_on_is_told_to_go_on() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        let endpoint = sidecar(&mesh, &voting, mute).await;
        mesh.service("voting", &[endpoint]);
        let mut client = Http1::new(web.call().await);
        let start = Instant::now();
        for n in 0..10 {
            client
                .send("POST / HTTP/1.1\r\nHost: voting\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
                .await;
            assert_eq!(client.head().await.unwrap(), "HTTP/1.1 100 Continue");
            if n == 0 {
                assert!(start.elapsed() >= Duration::from_secs(1), "not asked");
            }
            client.send("hello").await;
            assert_eq!(client.answer().await.text(), "hello");
        }
        // The peer is waited for once and not each time.
        assert!(start.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn the_same_of_http2_by_nature() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        let endpoint = sidecar(&mesh, &voting, mute).await;
        mesh.service("voting", &[endpoint]);
        let mut client = connect(web.call().await).await;
        let request = Request::post("http://voting/")
            .header("expect", "100-continue")
            .body(())
            .unwrap();
        let (mut answer, mut body) = client.send_request(request, false).unwrap();
        let interim = std::future::poll_fn(|cx| answer.poll_informational(cx)).await;
        assert_eq!(interim.unwrap().unwrap().status(), 100);
        body.send_data(Bytes::from_static(b"hello"), true).unwrap();
        assert_eq!(whole(answer.await.unwrap().into_body()).await, b"hello");
    });
}

/// The application answers by path: `/mute` gives no leave, `/leave` does, `/refuse` says 417 at once.
async fn by_path(stream: TcpStream) {
    let mut server = Http1::new(stream);
    while let Some(head) = server.head().await {
        match head.split(' ').nth(1).unwrap() {
            "/refuse" => {
                server
                    .send("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
                    .await;
                continue;
            }
            "/leave" => server.send("HTTP/1.1 100 Continue\r\n\r\n").await,
            _ => {}
        }
        assert_eq!(server.exactly(5).await, b"hello");
        server
            .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
    }
}

#[test]
fn a_server_that_gives_leave_is_asked_for_it_again() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), by_path).await;
        let heads = async |path: &str| {
            let mut client = Http1::new(pod.enter().await);
            let fields = "Host: v\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
            client
                .send(format!("POST {path} HTTP/1.1\r\n{fields}"))
                .await;
            let mut heads = vec![client.head().await.unwrap()];
            if heads[0] == "HTTP/1.1 100 Continue" {
                client.send("hello").await;
                heads.push(client.head().await.unwrap());
            }
            heads
                .iter()
                .map(|head| head[9..12].parse::<u16>().unwrap())
                .collect::<Vec<_>>()
        };
        // A machine may be so slow that a refusal comes too late for it, but not each time.
        let asked = async || {
            for _ in 0..10 {
                if heads("/refuse").await == [417] {
                    return true;
                }
            }
            false
        };
        assert!(asked().await);
        assert_eq!(heads("/mute").await, [100, 200]);
        assert_eq!(heads("/refuse").await, [100, 417], "not asked for a while");
        assert_eq!(heads("/leave").await, [100, 200], "leave is given once");
        assert!(asked().await);
    });
}

fn absolute(host: &str, bridge: &str) -> Request<()> {
    Request::get("http://voting/a?b")
        .header("host", host)
        .header("l5d-orig-proto", bridge)
        .body(())
        .unwrap()
}

#[test]
fn of_an_absolute_uri_and_a_host_that_differ_the_uri_counts_for_policy_and_application() {
    run(async {
        let mesh = Mesh::new();
        let voting = mesh.pod("voting").await;
        app(voting.address(18080), echo).await;
        let mut peer = dial(&mesh, "web", &voting).await;
        let carried = absolute("other", "HTTP/1.1; absolute-form");
        let (answer, _) = peer.send_request(carried, true).unwrap();
        let seen = whole(answer.await.unwrap().into_body()).await;
        let client = identity("web");
        assert_eq!(
            String::from_utf8(seen).unwrap(),
            format!("GET http://voting/a?b HTTP/1.1\nhost: voting\nl5d-client-id: {client}\n\n")
        );
        // Only of an absolute URI: elsewhere one of the two is a lie.
        let (answer, _) = peer
            .send_request(absolute("other", "HTTP/1.1"), true)
            .unwrap();
        let refused = answer.await.unwrap_err();
        assert_eq!(refused.reason(), Some(Reason::PROTOCOL_ERROR));
    });
}

#[test]
fn a_stranger_that_plays_the_bridge_is_seen_as_what_it_sends() {
    run(async {
        let voting = Mesh::new().pod("voting").await;
        h2_app(&voting, |request, mut respond| async move {
            assert_eq!(request.uri(), "http://voting/a?b");
            let only_host = [("host", "voting")];
            let seen = request.headers().iter();
            let seen: Vec<_> = seen
                .map(|(n, v)| (n.as_str(), v.to_str().unwrap()))
                .collect();
            assert_eq!(seen, only_host);
            respond.send_response(Response::new(()), true).unwrap();
        })
        .await;
        let mut stranger = connect(voting.enter().await).await;
        let carried = absolute("other", "HTTP/1.1; absolute-form");
        let (answer, _) = stranger.send_request(carried, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
    });
}

#[test]
fn a_reset_of_the_carrying_stream_is_a_502_for_http1() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        let reset = |request: Request<RecvStream>, mut respond: Respond| async move {
            assert_eq!(request.headers()["l5d-orig-proto"], "HTTP/1.1");
            respond.send_reset(Reason::ENHANCE_YOUR_CALM);
        };
        let endpoint = sidecar(&mesh, &voting, reset).await;
        mesh.service("voting", &[endpoint]);
        let mut client = Http1::new(web.call().await);
        for _ in 0..2 {
            let answer = client.get("voting", "/").await;
            assert_eq!(answer.status(), 502, "{answer:?}");
            assert!(answer.field("l5d-proxy-error").is_some());
        }
    });
}

#[test]
fn http2_without_an_authority_reaches_the_application_without_one() {
    run(async {
        let voting = Mesh::new().pod("voting").await;
        h2_app(&voting, |request, mut respond| async move {
            assert_eq!(request.uri().authority(), None);
            assert!(!request.headers().contains_key("host"));
            respond.send_response(Response::new(()), true).unwrap();
        })
        .await;
        let mut client = connect(voting.enter().await).await;
        // A path alone: the `h2` crate then writes no `:authority`.
        let (answer, _) = client
            .send_request(Request::get("/a").body(()).unwrap(), true)
            .unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
    });
}
