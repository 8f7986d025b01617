//! HTTP/1 through one sidecar: heads, bodies, connections, upgrades.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Http1, echo};
use crate::rig::{Mesh, app, plain, run};

#[test]
fn an_inbound_request_reaches_the_application_and_its_answer_the_client() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), echo).await;
        let mut client = Http1::new(pod.enter().await);
        let answer = client.get("voting", "/a?b=c").await;
        assert_eq!(
            answer.head,
            "HTTP/1.1 200 OK\nx-app: echo\ncontent-length: 34"
        );
        assert_eq!(answer.text(), "GET /a?b=c HTTP/1.1\nhost: voting\n\n");
        assert_eq!(client.get("voting", "/again").await.status(), 200);
        let labels = [
            "direction=\"inbound\"",
            "dst_pod=\"voting\"",
            "src_pod=\"\"",
            "status_code=\"200\"",
        ];
        assert_eq!(
            pod.metric("http_requests_total", &labels),
            2.0,
            "{}",
            pod.metrics()
        );
        assert_eq!(
            pod.metric("inbound_http_authz_allow_total", &["srv_kind=\"default\""]),
            2.0
        );
    });
}

#[test]
fn an_outbound_request_goes_to_its_authority() {
    run(async {
        let mesh = Mesh::new();
        let pod = mesh.pod("web").await;
        let server = pod.address(9000);
        app(server, echo).await;
        mesh.service("voting", &[plain(server)]);
        let mut client = Http1::new(pod.call().await);
        let answer = client.get("voting", "/").await;
        assert_eq!(answer.text(), "GET / HTTP/1.1\nhost: voting\n\n");
        client
            .send("GET http://voting:80/absolute HTTP/1.1\r\nHost: other\r\n\r\n")
            .await;
        assert_eq!(
            client.answer().await.text(),
            "GET /absolute HTTP/1.1\nhost: voting:80\n\n"
        );
        let labels = [
            "direction=\"outbound\"",
            "dst_service=\"voting\"",
            "src_pod=\"web\"",
            "status_code=\"200\"",
        ];
        assert_eq!(
            pod.metric("http_requests_total", &labels),
            2.0,
            "{}",
            pod.metrics()
        );
    });
}

#[test]
fn bodies_and_trailers_pass_whole_in_every_framing() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), echo).await;
        let mut client = Http1::new(pod.enter().await);
        for size in [0, 1, 10_000, 300_000] {
            let body = vec![b'x'; size];
            client
                .send(format!(
                    "POST /len HTTP/1.1\r\nHost: v\r\nContent-Length: {size}\r\n\r\n"
                ))
                .await;
            client.send(&body).await;
            let answer = client.answer().await;
            assert!(answer.body.ends_with(&body) && answer.body.len() > size);
            client
                .send("POST /chunked HTTP/1.1\r\nHost: v\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await;
            for chunk in body.chunks(7_000) {
                client.send(format!("{:x}\r\n", chunk.len())).await;
                client.send(chunk).await;
                client.send("\r\n").await;
            }
            client.send("0\r\nX-Sum: 7\r\n\r\n").await;
            let answer = client.answer().await;
            assert!(answer.body.ends_with(&body));
            assert_eq!(answer.trailers, "x-sum: 7\n");
        }
    });
}

#[test]
fn head_and_bodyless_statuses_have_no_body_and_the_connection_goes_on() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), |stream| async {
            let mut server = Http1::new(stream);
            while let Some(request) = server.message().await {
                let status = request.head.split(['/', ' ']).nth(2).unwrap().to_owned();
                server
                    .send(format!(
                        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n",
                        if status == "200" { "55" } else { "0" }
                    ))
                    .await;
            }
        })
        .await;
        let mut client = Http1::new(pod.enter().await);
        client.send("HEAD /200 HTTP/1.1\r\nHost: v\r\n\r\n").await;
        assert_eq!(
            client.head().await.unwrap(),
            "HTTP/1.1 200 OK\ncontent-length: 55"
        );
        for status in [204, 304] {
            client
                .send(format!("GET /{status} HTTP/1.1\r\nHost: v\r\n\r\n"))
                .await;
            assert!(
                client
                    .head()
                    .await
                    .unwrap()
                    .starts_with(&format!("HTTP/1.1 {status}"))
            );
        }
        assert_eq!(client.get("v", "/404").await.status(), 404);
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), echo).await;
        let mut client = Http1::new(pod.enter().await);
        let requests: String = (0..20)
            .map(|n| format!("GET /{n} HTTP/1.1\r\nHost: v\r\n\r\n"))
            .collect();
        client.send(requests).await;
        for n in 0..20 {
            assert!(
                client
                    .answer()
                    .await
                    .text()
                    .starts_with(&format!("GET /{n} "))
            );
        }
    });
}

#[test]
fn an_early_answer_to_a_large_post_spoils_neither_the_answer_nor_the_next_requests() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), |stream| async {
            let mut server = Http1::new(stream);
            while let Some(head) = server.head().await {
                if head.starts_with("POST") {
                    // Answers without reading the body, and never reads it.
                    server
                        .send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nlate")
                        .await;
                    tokio::time::sleep(std::time::Duration::from_secs(20)).await;
                }
                server
                    .send(format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}",
                        head.len()
                    ))
                    .await;
            }
        })
        .await;
        let mut client = Http1::new(pod.enter().await);
        let mut bytes = b"POST /big HTTP/1.1\r\nHost: v\r\nContent-Length: 200000\r\n\r\n".to_vec();
        bytes.resize(bytes.len() + 200_000, b'G');
        for n in 0..3 {
            bytes
                .extend_from_slice(format!("GET /next/{n} HTTP/1.1\r\nHost: v\r\n\r\n").as_bytes());
        }
        client.send(bytes).await;
        let early = client.answer().await;
        assert_eq!((early.status(), early.text()), (413, "late"));
        for n in 0..3 {
            assert_eq!(
                client.answer().await.text(),
                format!("GET /next/{n} HTTP/1.1\nhost: v")
            );
        }
    });
}

#[test]
fn an_upgrade_is_a_byte_pipe_after_101_and_early_bytes_are_held_until_then() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), |stream| async {
            let mut server = Http1::new(stream);
            let head = server.head().await.unwrap();
            assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            let mut early = [0; 1];
            assert!(server.stream.try_read(&mut early).is_err(), "bytes of the tunnel came before the 101");
            server.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst").await;
            let mut stream = server.stream;
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        })
        .await;
        let mut client = Http1::new(pod.enter().await);
        client.send("GET /ws HTTP/1.1\r\nHost: v\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nearly").await;
        let head = client.head().await.unwrap();
        assert!(
            head.starts_with("HTTP/1.1 101") && head.contains("upgrade: websocket"),
            "{head}"
        );
        client.send(" and late").await;
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.rest().await, b"firstearly and late");
    });
}

#[test]
fn a_refused_upgrade_leaves_an_http_connection() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), echo).await;
        let mut client = Http1::new(pod.enter().await);
        client
            .send(
                "GET /ws HTTP/1.1\r\nHost: v\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            )
            .await;
        assert_eq!(client.answer().await.status(), 200);
        assert_eq!(client.get("v", "/next").await.status(), 200);
    });
}

#[test]
fn connect_opens_a_tunnel_whose_bytes_are_detected_and_routed() {
    run(async {
        let mesh = Mesh::new();
        let pod = mesh.pod("web").await;
        let server = pod.address(9000);
        app(server, echo).await;
        mesh.service("voting", &[plain(server)]);
        let mut client = Http1::new(pod.call().await);
        client
            .send("CONNECT voting:80 HTTP/1.1\r\nHost: voting:80\r\n\r\n")
            .await;
        assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200"));
        assert_eq!(
            client.get("anything", "/inside").await.text(),
            "GET /inside HTTP/1.1\nhost: anything\n\n"
        );
    });
}

#[test]
fn continue_is_the_servers_to_say() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), |stream| async {
            let mut server = Http1::new(stream);
            let head = server.head().await.unwrap();
            assert!(head.contains("expect: 100-continue"), "{head}");
            server.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            assert_eq!(server.exactly(5).await, b"hello");
            server
                .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
        })
        .await;
        let mut client = Http1::new(pod.enter().await);
        client
            .send("POST / HTTP/1.1\r\nHost: v\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
            .await;
        assert_eq!(client.head().await.unwrap(), "HTTP/1.1 100 Continue");
        client.send("hello").await;
        assert_eq!(client.answer().await.text(), "ok");
    });
}

#[test]
fn an_answer_until_close_passes_whole_and_closes() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), |stream| async {
            let mut server = Http1::new(stream);
            server.head().await.unwrap();
            server.send("HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
        })
        .await;
        let mut client = Http1::new(pod.enter().await);
        client.send("GET / HTTP/1.0\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.text()), (200, "until the end"));
        let mut nothing = [0; 1];
        assert_eq!(client.stream.read(&mut nothing).await.unwrap(), 0);
    });
}

#[test]
fn nobody_outside_asserts_anything_in_the_meshs_name() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), |stream| async {
            let mut server = Http1::new(stream);
            while let Some(request) = server.message().await {
                let body = request.head;
                server.send(format!("HTTP/1.1 200 OK\r\nl5d-proxy-error: spoof\r\ntulle-reason: spoof\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
            }
        })
        .await;
        let mut client = Http1::new(pod.enter().await);
        client.send("GET / HTTP/1.1\r\nHost: v\r\nl5d-client-id: admin\r\nl5d-orig-proto: HTTP/1.0\r\nl5d-new-name: x\r\nX-Kept: 1\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!(answer.text(), "GET / HTTP/1.1\nhost: v\nx-kept: 1");
        assert_eq!(
            (
                answer.field("l5d-proxy-error"),
                answer.field("tulle-reason")
            ),
            (None, None)
        );
    });
}
