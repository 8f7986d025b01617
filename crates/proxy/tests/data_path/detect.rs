//! What a connection speaks: servers that speak first, clients that take their time, and what silence must not buy.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tulle_api::destination::protocol_hint::Protocol;
use tulle_api::outbound::{ProxyProtocol, proxy_protocol::Kind};
use tulle_engine::inbound::{DefaultPolicy, DefaultProtocol, Server};

use crate::client::{Http1, echo};
use crate::rig::{Mesh, Pod, app, plain, policy, run};
use tulle_proxy::net::server_first::GRACE;

const BANNER: &[u8] = b"220 mail.example.org ESMTP\r\n";

/// Speaks first, then answers each line with itself.
async fn smtp(mut stream: TcpStream) {
    stream.write_all(BANNER).await.unwrap();
    let (mut read, mut write) = stream.split();
    let _ended = tokio::io::copy(&mut read, &mut write).await;
}

/// An application that counts its connections.
async fn counted<F: Future<Output = ()> + 'static>(
    address: SocketAddr,
    serve: impl Fn(TcpStream) -> F + 'static,
) -> Rc<Cell<usize>> {
    let count = Rc::new(Cell::new(0));
    let counting = count.clone();
    app(address, move |stream| {
        counting.set(counting.get() + 1);
        serve(stream)
    })
    .await;
    count
}

/// A tunnel to a Service through a pod's sidecar.
async fn tunnel(pod: &Pod, service: &str) -> Http1 {
    let mut client = Http1::new(pod.call().await);
    client
        .send(format!(
            "CONNECT {service}:80 HTTP/1.1\r\nHost: {service}:80\r\n\r\n"
        ))
        .await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200"));
    client
}

/// The shortest of five waits for the banner, so that a busy machine does not fail what a timer decides.
async fn heard_within<F: Future<Output = Http1>>(connect: impl Fn() -> F) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..5 {
        let mut client = connect().await;
        let begun = Instant::now();
        assert_eq!(client.exactly(BANNER.len()).await, BANNER);
        shortest = shortest.min(begun.elapsed());
        client.send("EHLO me\r\n").await;
        assert_eq!(client.exactly(9).await, b"EHLO me\r\n");
    }
    shortest
}

#[test]
fn a_server_that_speaks_first_is_heard_within_200_ms_through_two_sidecars() {
    run(async {
        let mesh = Mesh::new();
        let (web, mail) = (mesh.pod("web").await, mesh.pod("mail").await);
        app(mail.address(18080), smtp).await;
        // With a transport header, and without one: then both sidecars look.
        mesh.service("mail", &[mail.endpoint(80)]);
        let with_header = heard_within(|| tunnel(&web, "mail")).await;
        assert!(with_header < Duration::from_millis(200), "{with_header:?}");
        let labels = ["result=\"server\""];
        let family = "outbound_tcp_detect_server_first_total";
        assert_eq!(web.metric(family, &labels), 5.0, "{}", web.metrics());

        let inbound = heard_within(|| async { Http1::new(mail.enter().await) }).await;
        assert!(inbound < Duration::from_millis(200), "{inbound:?}");
        let mut transparent = mail.endpoint(30080);
        transparent.tls_identity = None;
        transparent.protocol_hint = None;
        mesh.service("plain", &[transparent]);
        let both_look = heard_within(|| tunnel(&web, "plain")).await;
        assert!(both_look < Duration::from_millis(200), "{both_look:?}");
        let family = "inbound_tcp_detect_server_first_total";
        assert_eq!(mail.metric(family, &labels), 10.0, "{}", mail.metrics());
    });
}

#[test]
fn a_server_without_a_sidecar_is_heard_as_soon() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        app(web.address(2525), smtp).await;
        mesh.service("mail", &[plain(web.address(2525))]);
        let heard = heard_within(|| tunnel(&web, "mail")).await;
        assert!(heard < Duration::from_millis(200), "{heard:?}");
    });
}

#[test]
fn an_http_client_that_takes_a_second_is_still_an_http_client() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        let connections = counted(voting.address(18080), echo).await;
        mesh.service("voting", &[voting.endpoint(80)]);
        let mut slow = [
            tunnel(&web, "voting").await,
            Http1::new(voting.enter().await),
        ];
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Each silent client's server is asked.
        while connections.get() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(connections.get(), 2);
        for client in &mut slow {
            let answer = client.get("voting", "/slow").await;
            assert!(
                answer.text().starts_with("GET /slow HTTP/1.1\n"),
                "{answer:?}"
            );
        }
        for (pod, direction) in [(&web, "outbound"), (&voting, "inbound")] {
            let family = format!("{direction}_tcp_detect_server_first_total");
            assert_eq!(pod.metric(&family, &["result=\"client\""]), 1.0);
            let family = format!("{direction}_tcp_detect_http_results_total");
            assert!(pod.metric(&family, &["result=\"http/1\""]) >= 1.0);
        }
    });
}

#[test]
fn an_http_server_that_cannot_wait_does_not_make_its_connection_opaque() {
    run(async {
        let settings = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64";
        for early in [
            &b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"[..],
            settings,
        ] {
            let pod = Mesh::new().pod("web").await;
            let first = Cell::new(true);
            app(pod.address(18080), move |mut stream| {
                let first = first.replace(false);
                async move {
                    if first {
                        stream.write_all(early).await.unwrap();
                        let _end = stream.read(&mut [0; 64]).await;
                    } else {
                        echo(stream).await;
                    }
                }
            })
            .await;
            let mut client = Http1::new(pod.enter().await);
            let family = "inbound_tcp_detect_server_first_total";
            let waited = tokio::time::timeout(Duration::from_millis(300), client.ended()).await;
            assert!(waited.is_err(), "the client was told something");
            let answer = client.get("web", "/").await;
            assert!(answer.text().starts_with("GET / HTTP/1.1\n"), "{answer:?}");
            assert_eq!(
                pod.metric(family, &["result=\"http\""]),
                1.0,
                "{}",
                pod.metrics()
            );
            assert_eq!(pod.metric("request_total", &["direction=\"inbound\""]), 1.0);
        }
    });
}

#[test]
fn a_silent_client_reaches_no_application_that_it_may_not_talk_to() {
    run(async {
        let pod = Mesh::new().pod("web").await;
        let connections = counted(pod.address(18080), smtp).await;
        let detect = DefaultProtocol::Detect(Duration::from_secs(10));
        pod.allow(80, Server::by_default(DefaultPolicy::Deny, detect, &[]))
            .await;
        let mut client = Http1::new(pod.enter().await);
        let heard = tokio::time::timeout(Duration::from_millis(400), client.ended()).await;
        assert!(heard.is_err() && connections.get() == 0);
        client.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        assert_eq!(client.answer().await.status(), 403);
    });
}

#[test]
fn so_many_silent_clients_have_their_server_asked_and_no_more() {
    run(async {
        let most = tulle_proxy::net::server_first::MAX_ASKED;
        let pod = Mesh::new().pod("web").await;
        let connections = counted(pod.address(18080), |mut stream| async move {
            let _end = stream.read(&mut [0; 64]).await;
        })
        .await;
        let mut silent = Vec::new();
        for _ in 0..most + 20 {
            silent.push(pod.enter().await);
        }
        while connections.get() < most {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Time for one too many.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(connections.get(), most);
        drop(silent);
        let family = "inbound_tcp_detect_server_first_total";
        while pod.metric(family, &[]) < (most + 20) as f64 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(
            pod.metric(family, &["result=\"limit\""]),
            20.0,
            "{}",
            pod.metrics()
        );
        // Their places are free again.
        let _one = pod.enter().await;
        while connections.get() < most + 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn where_the_policy_says_opaque_nothing_is_waited_for() {
    run(async {
        let mesh = Mesh::new();
        let (web, mail) = (mesh.pod("web").await, mesh.pod("mail").await);
        app(mail.address(18080), smtp).await;
        let mut message = policy("mail");
        let Some(Kind::Detect(detect)) = message.protocol.take().and_then(|protocol| protocol.kind)
        else {
            panic!("the rig's policy has changed")
        };
        message.protocol = Some(ProxyProtocol {
            kind: detect.opaque.map(Kind::Opaque),
        });
        mesh.policy("mail", message);
        mesh.endpoints("mail", &[mail.endpoint(80)]);
        let heard = heard_within(|| tunnel(&web, "mail")).await;
        assert!(heard < GRACE, "{heard:?}");
        assert_eq!(
            web.metric("outbound_tcp_detect_http_results_total", &["not_http"]),
            0.0
        );
    });
}

#[test]
fn a_destination_that_nobody_knows_is_forwarded_to_as_it_is() {
    run(async {
        let web = Mesh::new().pod("web").await;
        app(web.address(2525), smtp).await;
        let authority = web.address(2525);
        let mut client = Http1::new(web.call().await);
        client
            .send(format!(
                "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
            ))
            .await;
        assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200"));
        assert_eq!(client.exactly(BANNER.len()).await, BANNER);
    });
}

#[test]
fn http_for_a_port_that_is_opaque_passes_the_direct_port_as_bytes() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        app(voting.address(18080), echo).await;
        let opaque = Server::by_default(
            DefaultPolicy::AllUnauthenticated,
            DefaultProtocol::Opaque,
            &[],
        );
        let mut named = opaque;
        named.meta = tulle_engine::Meta::named("opaque");
        voting.allow(80, named).await;
        let mut endpoint = voting.endpoint(80);
        endpoint.protocol_hint.as_mut().unwrap().protocol =
            Some(Protocol::Opaque(Default::default()));
        mesh.service("voting", &[endpoint]);
        let mut client = Http1::new(web.call().await);
        for _ in 0..2 {
            let answer = client.get("voting", "/").await;
            assert_eq!(
                answer.text(),
                "GET / HTTP/1.1\nhost: voting\n\n",
                "bytes are not added to"
            );
        }
        assert_eq!(voting.metric("request_total", &[]), 0.0);
    });
}
