//! Through two sidecars: mutual TLS, the transport header, HTTP/1 carried in HTTP/2, and who is not let in.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tulle_api::destination::protocol_hint::OpaqueTransport;
use tulle_proxy::identity::ClientAlpn;
use tulle_proxy::transport_header::TransportHeader;

use crate::client::{Http1, echo};
use crate::rig::{Mesh, Pod, app, identity, run};

/// `web` calls `voting`, whose application echoes.
async fn pair(mesh: &Mesh) -> (Pod, Pod) {
    let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
    app(voting.address(18080), echo).await;
    mesh.service("voting", &[voting.endpoint(80)]);
    (web, voting)
}

#[test]
fn http1_travels_in_http2_under_mutual_tls_and_arrives_as_it_was() {
    run(async {
        let (web, voting) = pair(&Mesh::new()).await;
        let mut client = Http1::new(web.call().await);
        for n in 0..3 {
            let answer = client.get("voting", &format!("/{n}")).await;
            let seen = format!(
                "GET /{n} HTTP/1.1\nhost: voting\nl5d-client-id: {}\n\n",
                identity("web")
            );
            assert_eq!(answer.text(), seen);
            assert_eq!(
                answer.head,
                format!(
                    "HTTP/1.1 200 OK\nx-app: echo\ncontent-length: {}",
                    answer.body.len()
                )
            );
        }
        let labels = [
            "direction=\"inbound\"",
            "dst_pod=\"voting\"",
            "src_pod=\"web\"",
            "src_namespace=\"default\"",
            "status_code=\"200\"",
        ];
        assert_eq!(
            voting.metric("http_requests_total", &labels),
            3.0,
            "{}",
            voting.metrics()
        );
        let labels = [
            "direction=\"outbound\"",
            "dst_pod=\"voting\"",
            "dst_service=\"voting\"",
            "src_pod=\"web\"",
        ];
        assert_eq!(web.metric("http_requests_total", &labels), 3.0);
        let labels = ["direction=\"outbound\"", "peer=\"dst\"", "tls=\"true\""];
        assert_eq!(
            web.metric("tcp_open_total", &labels),
            1.0,
            "one connection carries all requests"
        );
    });
}

#[test]
fn bodies_trailers_and_http10_cross_the_bridge() {
    run(async {
        let (web, _voting) = pair(&Mesh::new()).await;
        let mut client = Http1::new(web.call().await);
        let body = vec![b'y'; 250_000];
        client
            .send("POST /chunked HTTP/1.1\r\nHost: voting\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        client.send(format!("{:x}\r\n", body.len())).await;
        client.send(&body).await;
        client.send("\r\n0\r\nX-Sum: 7\r\n\r\n").await;
        let answer = client.answer().await;
        assert!(answer.body.ends_with(&body));
        assert_eq!(answer.trailers, "x-sum: 7\n");
        client
            .send(format!(
                "POST /len HTTP/1.1\r\nHost: voting\r\nContent-Length: {}\r\n\r\n",
                body.len()
            ))
            .await;
        client.send(&body).await;
        assert!(client.answer().await.body.ends_with(&body));
        client.send("HEAD / HTTP/1.1\r\nHost: voting\r\n\r\n").await;
        assert!(client.head().await.unwrap().contains("content-length: "));
        client
            .send("GET /old HTTP/1.0\r\nHost: voting\r\n\r\n")
            .await;
        let answer = client.answer().await;
        assert!(
            answer.head.starts_with("HTTP/1.0 200")
                && answer.text().starts_with("GET /old HTTP/1.0\n"),
            "{answer:?}"
        );
    });
}

#[test]
fn a_websocket_crosses_the_mesh() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        mesh.service("voting", &[voting.endpoint(80)]);
        app(voting.address(18080), |stream| async {
            let mut server = Http1::new(stream);
            let head = server.head().await.unwrap();
            assert!(head.contains("upgrade: websocket"), "{head}");
            server.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n").await;
            let (mut read, mut write) = server.stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        })
        .await;
        let mut client = Http1::new(web.call().await);
        client.send("GET /ws HTTP/1.1\r\nHost: voting\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n").await;
        assert!(client.head().await.unwrap().starts_with("HTTP/1.1 101"));
        client.send("frames").await;
        assert_eq!(client.exactly(6).await, b"frames");
        client.stream.shutdown().await.unwrap();
        assert!(client.ended().await);
    });
}

#[test]
fn an_opaque_connection_crosses_the_mesh_with_its_half_close() {
    run(async {
        let mesh = Mesh::new();
        let (web, db) = (mesh.pod("web").await, mesh.pod("db").await);
        mesh.service("db", &[db.endpoint(5432)]);
        app(db.address(5432), |mut stream| async move {
            // The server speaks first.
            stream.write_all(b"220 hello\r\n").await.unwrap();
            let mut request = Vec::new();
            stream.read_to_end(&mut request).await.unwrap();
            stream.write_all(&request).await.unwrap();
        })
        .await;
        let mut client = Http1::new(web.call().await);
        client
            .send("CONNECT db:80 HTTP/1.1\r\nHost: db:80\r\n\r\n")
            .await;
        assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200"));
        assert_eq!(client.exactly(11).await, b"220 hello\r\n");
        let body = vec![9; 500_000];
        client.send(&body).await;
        client.stream.shutdown().await.unwrap();
        assert!(client.rest().await == body);
        let labels = [
            "direction=\"inbound\"",
            "peer=\"src\"",
            "tls=\"true\"",
            "client_id=\"web.",
        ];
        assert_eq!(
            db.metric("tcp_read_bytes_total", &labels),
            500_000.0,
            "{}",
            db.metrics()
        );
    });
}

/// Begins TLS with a pod's inbound port, as another proxy would.
async fn dial(
    mesh: &Mesh,
    from: &str,
    to: &Pod,
    alpn: ClientAlpn,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to.address(4143)).await.unwrap();
    let config = mesh.epoch(from).client(alpn);
    TlsConnector::from(config)
        .connect(ServerName::try_from(identity(&to.name)).unwrap(), stream)
        .await
}

#[test]
fn the_inbound_port_takes_only_mutual_tls_with_a_transport_header() {
    run(async {
        let mesh = Mesh::new();
        let (_web, voting) = pair(&mesh).await;
        // Plain text.
        let mut plain = Http1::new(TcpStream::connect(voting.address(4143)).await.unwrap());
        plain.send("GET / HTTP/1.1\r\nHost: voting\r\n\r\n").await;
        assert!(plain.ended().await);
        // TLS and no header.
        let mut tls = dial(&mesh, "web", &voting, ClientAlpn::TransportHeader)
            .await
            .unwrap();
        tls.write_all(b"GET / HTTP/1.1\r\nHost: voting\r\n\r\n")
            .await
            .unwrap();
        let mut rest = Vec::new();
        let _cut = tls.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
        // A header for the proxy itself.
        let mut header = Vec::new();
        TransportHeader {
            port: 4143,
            name: None,
            protocol: None,
        }
        .encode(&mut header);
        let mut tls = dial(&mesh, "web", &voting, ClientAlpn::TransportHeader)
            .await
            .unwrap();
        tls.write_all(&header).await.unwrap();
        let _cut = tls.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
        // TLS without a certificate of the client's.
        let anonymous = tulle_proxy::identity::anonymous_client(&mesh.anchors()).unwrap();
        let mut anonymous = (*anonymous).clone();
        anonymous.alpn_protocols = vec![b"transport.l5d.io/v1".to_vec()];
        let stream = TcpStream::connect(voting.address(4143)).await.unwrap();
        let mut tls = TlsConnector::from(Arc::new(anonymous))
            .connect(ServerName::try_from(identity("voting")).unwrap(), stream)
            .await
            .unwrap();
        let _cut = tls.write_all(&header).await;
        let _cut = tls.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
        assert_eq!(
            voting.metric("inbound_tcp_errors_total", &[]),
            4.0,
            "{}",
            voting.metrics()
        );
        assert_eq!(voting.metric("request_total", &[]), 0.0);
    });
}

#[test]
fn before_its_first_certificate_a_sidecar_takes_no_mutual_tls() {
    run(async {
        let mesh = Mesh::new();
        let (_web, voting) = pair(&mesh).await;
        let epoch = voting.epochs.send_replace(None);
        let early = dial(&mesh, "web", &voting, ClientAlpn::TransportHeader).await;
        assert!(early.is_err());
        voting.epochs.send_replace(epoch);
        let late = dial(&mesh, "web", &voting, ClientAlpn::TransportHeader).await;
        assert!(late.is_ok(), "{late:?}");
    });
}

#[test]
fn a_peer_that_is_to_prove_itself_and_speaks_plain_text_hears_no_request() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        let heard: Rc<RefCell<Vec<u8>>> = Rc::default();
        let hearing = heard.clone();
        app(voting.address(24143), move |mut stream| {
            let heard = hearing.clone();
            async move {
                let mut piece = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut piece).await {
                    heard.borrow_mut().extend_from_slice(&piece[..count]);
                    let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                }
            }
        })
        .await;
        let mut endpoint = voting.endpoint(80);
        if let Some(hint) = &mut endpoint.protocol_hint {
            hint.opaque_transport = Some(OpaqueTransport {
                inbound_port: 24143,
            });
        }
        mesh.service("voting", &[endpoint]);
        let mut client = Http1::new(web.call().await);
        client
            .send("GET /secret HTTP/1.1\r\nHost: voting\r\n\r\n")
            .await;
        let answer = client.answer().await;
        assert!(answer.status() >= 502, "{answer:?}");
        let heard = heard.borrow();
        // The beginning of a ClientHello.
        assert_eq!(heard[..2], [0x16, 0x03]);
        assert!(!heard.windows(7).any(|seven| seven == b"/secret"));
    });
}

#[test]
fn a_foreign_authority_is_refused_on_both_sides_and_counted() {
    run(async {
        let (mesh, foreign) = (Mesh::new(), Mesh::new());
        let voting = mesh.pod("voting").await;
        let web = foreign.pod("web").await;
        app(voting.address(18080), echo).await;
        foreign.service("voting", &[voting.endpoint(80)]);
        let mut client = Http1::new(web.call().await);
        let answer = tokio::time::timeout(Duration::from_secs(20), client.get("voting", "/"))
            .await
            .unwrap();
        assert!(answer.status() >= 502, "{answer:?}");
        assert!(
            answer
                .field("l5d-proxy-error")
                .unwrap()
                .contains("unknown_issuer"),
            "{answer:?}"
        );
        // A client whose certificate the server does not believe, but which believes the server.
        let stream = TcpStream::connect(voting.address(4143)).await.unwrap();
        let mut config = (*foreign.epoch("web").client(ClientAlpn::TransportHeader)).clone();
        config
            .dangerous()
            .set_certificate_verifier(Arc::new(Gullible));
        let handshake = TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from(identity("voting")).unwrap(), stream)
            .await;
        let mut rest = Vec::new();
        if let Ok(mut tls) = handshake {
            assert!(tls.read_to_end(&mut rest).await.is_err());
        }
        let labels = ["direction=\"inbound\"", "reason=\"unknown_issuer\""];
        assert_eq!(
            voting.metric("tls_handshake_failures_total", &labels),
            1.0,
            "{}",
            voting.metrics()
        );
    });
}

#[test]
fn an_endpoint_with_another_identity_than_expected_gets_no_request() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = pair(&mesh).await;
        let mut wrong = voting.endpoint(80);
        wrong.tls_identity = mesh.pod("somebody").await.endpoint(80).tls_identity;
        mesh.endpoints("voting", &[wrong]);
        let mut client = Http1::new(web.call().await);
        let answer = client.get("voting", "/").await;
        assert!(
            answer.status() >= 502 && answer.field("tulle-reason").is_some(),
            "{answer:?}"
        );
        assert_eq!(voting.metric("request_total", &[]), 0.0);
    });
}

#[test]
fn a_request_that_insists_on_an_identity_goes_to_nobody_else() {
    run(async {
        let (web, _voting) = pair(&Mesh::new()).await;
        let mut client = Http1::new(web.call().await);
        client
            .send(format!(
                "GET / HTTP/1.1\r\nHost: voting\r\nl5d-require-id: {}\r\n\r\n",
                identity("voting")
            ))
            .await;
        assert_eq!(client.answer().await.status(), 200);
        client
            .send(format!(
                "GET / HTTP/1.1\r\nHost: voting\r\nl5d-require-id: {}\r\n\r\n",
                identity("admin")
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status(), answer.field("tulle-reason")),
            (502, Some("identity-required"))
        );
    });
}

#[test]
fn an_expired_certificate_is_refused_and_counted() {
    run(async {
        let mesh = Mesh::new();
        let (_web, voting) = pair(&mesh).await;
        let (leaf, key) = mesh.leaf("web", 2021);
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
        .with_client_auth_cert(vec![leaf], key)
        .unwrap();
        config.alpn_protocols = vec![b"transport.l5d.io/v1".to_vec()];
        let stream = TcpStream::connect(voting.address(4143)).await.unwrap();
        let name = ServerName::try_from(identity("voting")).unwrap();
        if let Ok(mut tls) = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
        {
            assert!(tls.read_to_end(&mut Vec::new()).await.is_err());
        }
        let labels = ["direction=\"inbound\"", "reason=\"expired\""];
        assert_eq!(
            voting.metric("tls_handshake_failures_total", &labels),
            1.0,
            "{}",
            voting.metrics()
        );
    });
}

#[test]
fn a_renewal_drops_no_connection_and_new_ones_use_the_new_certificate() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = pair(&mesh).await;
        let mut client = Http1::new(web.call().await);
        assert_eq!(client.get("voting", "/").await.status(), 200);
        for pod in [&web, &voting] {
            pod.epochs
                .send_replace(Some(Arc::new(mesh.epoch(&pod.name))));
        }
        assert_eq!(client.get("voting", "/").await.status(), 200);
        assert_eq!(
            web.metric("tcp_open_total", &["peer=\"dst\"", "tls=\"true\""]),
            1.0
        );
        // A WebSocket gets a connection of its own, and a refused one is an ordinary answer.
        client.send("GET / HTTP/1.1\r\nHost: voting\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n").await;
        assert_eq!(client.answer().await.status(), 200);
        assert_eq!(
            web.metric("tcp_open_total", &["peer=\"dst\"", "tls=\"true\""]),
            2.0
        );
        assert_eq!(voting.metric("tls_handshake_failures_total", &[]), 0.0);
    });
}

/// Believes every server.
#[derive(Debug)]
pub struct Gullible;

impl rustls::client::danger::ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
