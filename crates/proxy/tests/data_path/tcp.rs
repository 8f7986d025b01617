//! Connections that are not HTTP: servers that speak first, TLS that is not ours, half-closed ends, refusals.

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tulle_proxy::identity::{ClientAlpn, ServerAlpn};

use crate::rig::{Mesh, app, identity, run};

#[test]
fn a_server_that_speaks_first_is_waited_out_and_loses_no_byte() {
    run(async {
        let pod = Mesh::new()
            .pod_with(
                "mail",
                &[("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", "200ms")],
            )
            .await;
        app(pod.address(18080), |mut stream| async move {
            stream.write_all(b"220 mail\r\n").await.unwrap();
            let mut line = [0; 8];
            stream.read_exact(&mut line).await.unwrap();
            stream.write_all(&line).await.unwrap();
        })
        .await;
        let mut client = pod.enter().await;
        // A beginning that could still become HTTP is held back by detection, not lost.
        client.write_all(b"HELO").await.unwrap();
        let mut greeting = [0; 10];
        client.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220 mail\r\n");
        client.write_all(b" me\n").await.unwrap();
        let mut line = [0; 8];
        client.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"HELO me\n");
    });
}

#[test]
fn opaque_ports_are_not_looked_into() {
    run(async {
        let pod = Mesh::new()
            .pod_with(
                "db",
                &[(
                    "LINKERD2_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION",
                    "80",
                )],
            )
            .await;
        app(pod.address(18080), |mut stream| async move {
            stream.write_all(b"now").await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"GET / HTTP/1.1\r\nbare\n\n");
            stream.write_all(b"seen").await.unwrap();
        })
        .await;
        let mut client = pod.enter().await;
        let mut first = [0; 3];
        client.read_exact(&mut first).await.unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nbare\n\n")
            .await
            .unwrap();
        client.shutdown().await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&first, &rest[..]), (b"now", &b"seen"[..]));
    });
}

#[test]
fn tls_for_another_name_passes_through_and_tls_for_ours_ends_here() {
    run(async {
        let mesh = Mesh::new();
        let pod = mesh.pod("web").await;
        let theirs = mesh.epoch("application");
        let acceptor = TlsAcceptor::from(theirs.server(ServerAlpn::None));
        app(pod.address(18080), move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let mut first = [0; 1];
                stream.peek(&mut first).await.unwrap();
                if first == *b"G" {
                    return crate::client::echo(stream).await;
                }
                let mut tls = acceptor.accept(stream).await.unwrap();
                let mut line = [0; 4];
                tls.read_exact(&mut line).await.unwrap();
                tls.write_all(&line).await.unwrap();
            }
        })
        .await;
        let connector = TlsConnector::from(mesh.epoch("client").client(ClientAlpn::None));
        let name = |name: &str| ServerName::try_from(identity(name)).unwrap();
        let mut through = connector
            .connect(name("application"), pod.enter().await)
            .await
            .unwrap();
        through.write_all(b"ping").await.unwrap();
        let mut line = [0; 4];
        through.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"ping");
        let mut ours = connector
            .connect(name("web"), pod.enter().await)
            .await
            .unwrap();
        ours.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        ours.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.contains(&format!("l5d-client-id: {}", identity("client"))),
            "{answer}"
        );
        assert_eq!(
            pod.metric("request_total", &["tls=\"true\"", "client_id=\"client."]),
            1.0
        );
    });
}

#[test]
fn an_application_that_does_not_listen_ends_the_connection() {
    run(async {
        let pod = Mesh::new()
            .pod_with(
                "db",
                &[(
                    "LINKERD2_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION",
                    "80",
                )],
            )
            .await;
        let mut client = pod.enter().await;
        let mut rest = Vec::new();
        let _reset = client.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
        assert_eq!(
            pod.metric(
                "inbound_tcp_errors_total",
                &["error=\"i/o\"", "reason=\"connect-failed\""]
            ),
            1.0
        );
    });
}

#[test]
fn connections_are_counted_from_open_to_close() {
    run(async {
        let pod = Mesh::new()
            .pod_with(
                "db",
                &[(
                    "LINKERD2_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION",
                    "80",
                )],
            )
            .await;
        app(pod.address(18080), |mut stream: TcpStream| async move {
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(b"pong").await.unwrap();
            let _end = stream.read(&mut bytes).await;
        })
        .await;
        let mut client = pod.enter().await;
        client.write_all(b"ping!").await.unwrap();
        let mut bytes = [0; 4];
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(pod.metric("tcp_open_connections", &["peer=\"src\""]), 1.0);
        assert_eq!(pod.metric("tcp_open_connections", &["peer=\"dst\""]), 1.0);
        drop(client);
        while pod.metric("tcp_open_connections", &["peer=\"src\""]) > 0.0 {
            tokio::task::yield_now().await;
        }
        for (name, peer, value) in [
            ("tcp_read_bytes_total", "src", 5.0),
            ("tcp_write_bytes_total", "src", 4.0),
            ("tcp_read_bytes_total", "dst", 4.0),
            ("tcp_write_bytes_total", "dst", 5.0),
            ("tcp_open_total", "src", 1.0),
            ("tcp_close_total", "src", 1.0),
        ] {
            assert_eq!(
                pod.metric(name, &[&format!("peer=\"{peer}\"")]),
                value,
                "{name} {peer}\n{}",
                pod.metrics()
            );
        }
    });
}
