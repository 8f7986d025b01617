//! Going away without failing a request.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::Http1;
use crate::grpc::{call, connect, h2_app, next, trailers};
use crate::rig::{Mesh, app, plain, run};

#[test]
fn a_request_in_flight_is_finished_and_idle_connections_close() {
    run(async {
        let mesh = Mesh::new();
        let (web, mut voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        app(voting.address(18080), |stream| async move {
            let mut server = Http1::new(stream);
            while server.message().await.is_some() {
                tokio::time::sleep(Duration::from_millis(300)).await;
                server
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
                    .await;
            }
        })
        .await;
        mesh.service("voting", &[voting.endpoint(80)]);
        let mut idle = Http1::new(voting.enter().await);
        assert_eq!(idle.get("v", "/").await.text(), "done");
        let mut meshed = Http1::new(web.call().await);
        meshed
            .send("GET /meshed HTTP/1.1\r\nHost: voting\r\n\r\n")
            .await;
        let mut plain = Http1::new(voting.enter().await);
        plain
            .send("GET /plain HTTP/1.1\r\nHost: voting\r\n\r\n")
            .await;
        tokio::time::sleep(Duration::from_millis(100)).await;

        voting.inbound.begin();
        assert!(idle.ended().await, "an idle connection was kept");
        assert_eq!(meshed.answer().await.text(), "done");
        let answer = plain.answer().await;
        assert_eq!(answer.text(), "done");
        assert!(plain.ended().await);
        assert!(
            voting.inbound.finish(Duration::from_secs(20)).await,
            "a connection did not end"
        );
        assert!(
            TcpStream::connect(voting.address(30080)).await.is_err(),
            "the listener is still there"
        );
        // The outbound side goes on until it is told.
        let mut outbound = Http1::new(voting.call().await);
        outbound.send("GET / HTTP/1.0\r\n\r\n").await;
        assert_eq!(outbound.answer().await.status(), 400);
        drop(outbound);
        voting.outbound.begin();
        assert!(voting.outbound.finish(Duration::from_secs(20)).await);
    });
}

#[test]
fn requests_after_a_goaway_go_to_another_endpoint() {
    run(async {
        let mesh = Mesh::new();
        let (web, mut old, new) = (
            mesh.pod("web").await,
            mesh.pod("old").await,
            mesh.pod("new").await,
        );
        for pod in [&old, &new] {
            app(pod.address(18080), crate::client::echo).await;
        }
        mesh.service("voting", &[old.endpoint(80)]);
        let mut client = Http1::new(web.call().await);
        assert_eq!(client.get("voting", "/").await.status(), 200);
        mesh.endpoints("voting", &[old.endpoint(80), new.endpoint(80)]);
        old.inbound.begin();
        for _ in 0..50 {
            assert_eq!(client.get("voting", "/").await.status(), 200);
        }
        assert!(old.inbound.finish(Duration::from_secs(20)).await);
    });
}

#[test]
fn streams_in_flight_finish_after_a_goaway_and_the_connection_then_ends() {
    run(async {
        let mesh = Mesh::new();
        let mut voting = mesh.pod("voting").await;
        app(voting.address(18080), |stream| async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    let answer = http::Response::new(());
                    let mut body = respond.send_response(answer, false).unwrap();
                    body.send_data(bytes::Bytes::from(vec![7; 16 * 1024]), true)
                        .unwrap();
                });
            }
        })
        .await;
        // The answers are read one after the other: the connection's window must hold them all.
        let (send, connection) = h2::client::Builder::new()
            .initial_connection_window_size(2_000_000)
            .handshake::<_, bytes::Bytes>(voting.enter().await)
            .await
            .unwrap();
        let ended = tokio::task::spawn_local(connection);
        let mut send = send.ready().await.unwrap();
        let answers: Vec<_> = (0..50)
            .map(|_| {
                let request = http::Request::get("http://voting/").body(()).unwrap();
                send.send_request(request, true).unwrap().0
            })
            .collect();
        // Until the application has them all.
        tokio::time::sleep(Duration::from_millis(150)).await;
        voting.inbound.begin();
        for answer in answers {
            let mut body = answer.await.unwrap().into_body();
            let mut length = 0;
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                length += data.len();
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            assert_eq!(length, 16 * 1024);
        }
        drop(send);
        ended.await.unwrap().unwrap();
        assert!(voting.inbound.finish(Duration::from_secs(20)).await);
    });
}

#[test]
fn an_opaque_connection_is_waited_for_and_the_grace_period_bounds_the_wait() {
    run(async {
        let mesh = Mesh::new();
        let mut db = mesh.pod("db").await;
        app(db.address(18080), |stream| async move {
            let mut server = Http1::new(stream);
            server.send("220 db\r\n").await;
            server.rest().await;
            server.send("bye").await;
        })
        .await;
        let mut client = Http1::new(db.enter().await);
        assert_eq!(client.exactly(8).await, b"220 db\r\n");
        db.inbound.begin();
        assert!(
            !db.inbound.finish(Duration::from_millis(300)).await,
            "it was cut"
        );
        tokio::io::AsyncWriteExt::shutdown(&mut client.stream)
            .await
            .unwrap();
        assert_eq!(client.rest().await, b"bye");
        assert!(db.inbound.finish(Duration::from_secs(20)).await);
    });
}

/// Reads the beginning of a call, says that it has looked at nothing, and is gone with the rest unread: the socket is
/// reset, and whoever writes to it is told so before it has read what was said.
async fn leaving(mut stream: TcpStream) {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    stream.write_all(SETTINGS).await.unwrap();
    let mut read = [0; 200];
    stream.read_exact(&mut read).await.unwrap();
    stream.write_all(GOAWAY).await.unwrap();
}

#[test]
fn a_call_that_a_leaving_application_has_not_looked_at_goes_to_another() {
    run(async {
        let mesh = Mesh::new();
        let (web, old, new) = (
            mesh.pod("web").await,
            mesh.pod("old").await,
            mesh.pod("new").await,
        );
        app(old.address(18080), leaving).await;
        h2_app(&new, |request, mut respond| async move {
            let mut body = request.into_body();
            let mut length = 0;
            while let Some(Ok(data)) = next(&mut body).await {
                length += data.len();
            }
            assert_eq!(length, 10 * 1_000);
            let head = http::Response::builder().header("content-type", "application/grpc");
            let mut answer = respond
                .send_response(head.body(()).unwrap(), false)
                .unwrap();
            answer.send_trailers(trailers("0")).unwrap();
        })
        .await;
        mesh.service(
            "voting",
            &[plain(old.address(18080)), plain(new.address(18080))],
        );
        let mut client = connect(web.call().await).await;
        for number in 0..30 {
            let (answer, mut request) = client.send_request(call("/Vote"), false).unwrap();
            for piece in 0..10 {
                let message = bytes::Bytes::from(vec![7; 1_000]);
                request.send_data(message, piece == 9).unwrap();
                // In pieces, so that there is something to write when the server has gone.
                tokio::task::yield_now().await;
            }
            let answer = answer.await;
            assert_eq!(answer.unwrap().status(), 200, "call {number}");
        }
        let refused = web.metric("outbound_http_route_retry_requests_total", &[]);
        assert!(refused > 0.0, "the one that leaves was never tried");
    });
}
