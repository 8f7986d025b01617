//! The forms of HTTP/1 messages: what a hop may change and what it must keep, through one sidecar and through two.

use std::cell::Cell;
use std::rc::Rc;

use tokio::io::AsyncReadExt;

use crate::client::{Http1, echo};
use crate::rig::{Mesh, Pod, app, run};

/// A client of `voting` itself, and one that calls it through its own sidecar.
async fn both(mesh: &Mesh) -> (Pod, Pod, [Http1; 2]) {
    let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
    mesh.service("voting", &[voting.endpoint(80)]);
    let clients = [
        Http1::new(voting.enter().await),
        Http1::new(web.call().await),
    ];
    (web, voting, clients)
}

/// What the application saw, without who its client was and what its own connection is.
fn seen(text: &str) -> String {
    let lines = text.split_inclusive('\n');
    lines
        .filter(|line| !line.starts_with("l5d-client-id") && !line.starts_with("connection: "))
        .collect()
}

#[test]
fn fields_of_a_connection_go_no_further_than_it_in_either_direction() {
    run(async {
        let (_web, voting, clients) = both(&Mesh::new()).await;
        app(voting.address(18080), |stream| async {
            let mut server = Http1::new(stream);
            while let Some(request) = server.message().await {
                let length = request.head.len();
                server
                    .send(format!(
                        "HTTP/1.1 200 OK\r\nConnection: x-back, keep-alive\r\nX-Back: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nX-Kept: 2\r\nContent-Length: {length}\r\n\r\n{}",
                        request.head
                    ))
                    .await;
            }
        })
        .await;
        for mut client in clients {
            client.send("GET / HTTP/1.1\r\nHost: voting\r\nConnection: x-hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nX-Kept: 1\r\n\r\n").await;
            let answer = client.answer().await;
            assert_eq!(
                seen(answer.text()).trim_end(),
                "GET / HTTP/1.1\nhost: voting\nx-kept: 1"
            );
            let head = format!(
                "HTTP/1.1 200 OK\nx-kept: 2\ncontent-length: {}",
                answer.body.len()
            );
            assert_eq!(answer.head, head);
        }
    });
}

#[test]
fn a_target_in_utf8_arrives_octet_by_octet() {
    run(async {
        let (_web, voting, clients) = both(&Mesh::new()).await;
        app(voting.address(18080), echo).await;
        for mut client in clients {
            for target in [
                "/caf\u{e9}?\u{1f369}=\u{85}",
                "/caf%C3%A9",
                "/cafe\u{301}/%ff",
            ] {
                let text = client.get("voting", target).await.text().to_owned();
                assert_eq!(
                    seen(&text),
                    format!("GET {target} HTTP/1.1\nhost: voting\n\n")
                );
            }
        }
    });
}

#[test]
fn http10_stays_http10_with_and_without_a_host() {
    run(async {
        let (_web, voting, [mut near, mut far]) = both(&Mesh::new()).await;
        app(voting.address(18080), echo).await;
        near.send("GET /a HTTP/1.0\r\n\r\n").await;
        let text = seen(near.answer().await.text());
        assert_eq!(text, "GET /a HTTP/1.0\n\n", "a host was invented");
        let mut near = Http1::new(voting.enter().await);
        near.send("GET /b HTTP/1.0\r\nHost: voting\r\n\r\n").await;
        let text = seen(near.answer().await.text());
        assert_eq!(text, "GET /b HTTP/1.0\nhost: voting\n\n");
        far.send("GET /c HTTP/1.0\r\nHost: voting\r\n\r\n").await;
        let answer = far.answer().await;
        assert!(answer.head.starts_with("HTTP/1.0 200"), "{answer:?}");
        assert_eq!(seen(answer.text()), "GET /c HTTP/1.0\nhost: voting\n\n");
    });
}

#[test]
fn an_upgrade_to_http2_in_the_clear_is_not_passed_on() {
    run(async {
        let (_web, voting, clients) = both(&Mesh::new()).await;
        app(voting.address(18080), echo).await;
        for mut client in clients {
            client.send("GET / HTTP/1.1\r\nHost: voting\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n").await;
            let answer = client.answer().await;
            assert_eq!(seen(answer.text()), "GET / HTTP/1.1\nhost: voting\n\n");
            assert_eq!(client.get("voting", "/next").await.status(), 200);
        }
    });
}

#[test]
fn a_tunnel_to_the_application_carries_bytes_and_its_agreement_no_framing() {
    run(async {
        let (_web, voting, [mut client, _]) = both(&Mesh::new()).await;
        let closed = Rc::new(Cell::new(false));
        let told = closed.clone();
        app(voting.address(18080), move |stream| {
            let told = told.clone();
            async move {
                let mut server = Http1::new(stream);
                let head = server.head().await.unwrap();
                assert!(head.starts_with("CONNECT a.test:443 HTTP/1.1"), "{head}");
                server
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nraw")
                    .await;
                assert_eq!(server.rest().await, b"bytes");
                told.set(true);
                server.send("after").await;
            }
        })
        .await;
        client
            .send("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n")
            .await;
        let head = client.head().await.unwrap();
        assert_eq!(head, "HTTP/1.1 200 OK");
        assert_eq!(client.exactly(3).await, b"raw");
        client.send("bytes").await;
        tokio::io::AsyncWriteExt::shutdown(&mut client.stream)
            .await
            .unwrap();
        assert_eq!(client.rest().await, b"after", "a half is closed, not both");
        assert!(closed.get());
    });
}

#[test]
fn targets_that_do_not_fit_their_method_are_refused() {
    run(async {
        let (web, voting, _) = both(&Mesh::new()).await;
        app(voting.address(18080), echo).await;
        for line in [
            "CONNECT /x HTTP/1.1",
            "CONNECT / HTTP/1.1",
            "CONNECT http://test/bar HTTP/1.1",
            "CONNECT http://test HTTP/1.1",
            "CONNECT * HTTP/1.1",
            "GET test HTTP/1.1",
            "GET * HTTP/1.1",
        ] {
            for stream in [voting.enter().await, web.call().await] {
                let mut client = Http1::new(stream);
                client.send(format!("{line}\r\nHost: voting\r\n\r\n")).await;
                assert_eq!(client.answer().await.status(), 400, "{line}");
            }
        }
        assert_eq!(
            voting.metric("request_total", &["status_code=\"200\""]),
            0.0
        );
    });
}

#[test]
fn bodies_that_are_not_there_are_not_invented_and_empty_ones_are_kept() {
    run(async {
        let (_web, voting, clients) = both(&Mesh::new()).await;
        app(voting.address(18080), echo).await;
        for mut client in clients {
            for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
                for length in ["", "content-length: 0\n"] {
                    let field = length.replace('\n', "\r\n");
                    client
                        .send(format!(
                            "{method} / HTTP/1.1\r\nHost: voting\r\n{field}\r\n"
                        ))
                        .await;
                    let text = seen(client.answer().await.text());
                    assert_eq!(
                        text,
                        format!("{method} / HTTP/1.1\nhost: voting\n{length}\n")
                    );
                }
            }
        }
    });
}

#[test]
fn answers_without_a_body_keep_what_they_say_of_one() {
    run(async {
        let (_web, voting, clients) = both(&Mesh::new()).await;
        app(voting.address(18080), |stream| async {
            let mut server = Http1::new(stream);
            while let Some(request) = server.message().await {
                let answer = match request.head.split(' ').nth(1).unwrap() {
                    "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                    "/304" => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
                    _ => "HTTP/1.1 200 OK\r\nContent-Length: 55\r\n\r\n",
                };
                server.send(answer).await;
            }
        })
        .await;
        for mut client in clients {
            client.send("HEAD / HTTP/1.1\r\nHost: voting\r\n\r\n").await;
            assert_eq!(
                client.head().await.unwrap(),
                "HTTP/1.1 200 OK\ncontent-length: 55"
            );
            client
                .send("GET /204 HTTP/1.1\r\nHost: voting\r\n\r\n")
                .await;
            assert_eq!(client.head().await.unwrap(), "HTTP/1.1 204 No Content");
            client
                .send("GET /304 HTTP/1.1\r\nHost: voting\r\n\r\n")
                .await;
            assert_eq!(
                client.head().await.unwrap(),
                "HTTP/1.1 304 Not Modified\netag: \"a\""
            );
        }
    });
}

#[test]
fn interim_answers_reach_the_client_before_the_final_one() {
    run(async {
        let (_web, voting, clients) = both(&Mesh::new()).await;
        app(voting.address(18080), |stream| async {
            let mut server = Http1::new(stream);
            while server.head().await.is_some() {
                server
                    .send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
                    .await;
                server.send("HTTP/1.1 100 Continue\r\n\r\n").await;
                assert_eq!(server.exactly(4).await, b"body");
                server
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await;
            }
        })
        .await;
        for mut client in clients {
            for _ in 0..2 {
                client.send("POST / HTTP/1.1\r\nHost: voting\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
                let hints = client.head().await.unwrap();
                assert_eq!(hints, "HTTP/1.1 103 Early Hints\nlink: </a.css>");
                assert_eq!(client.head().await.unwrap(), "HTTP/1.1 100 Continue");
                client.send("body").await;
                assert_eq!(client.answer().await.text(), "ok");
            }
        }
    });
}

#[test]
fn a_client_that_leaves_is_missed_by_the_server() {
    run(async {
        let (web, voting, _) = both(&Mesh::new()).await;
        let left = Rc::new(Cell::new(0));
        let counting = left.clone();
        app(voting.address(18080), move |mut stream| {
            let left = counting.clone();
            async move {
                let mut all = Vec::new();
                let _end = stream.read_to_end(&mut all).await;
                left.set(left.get() + 1);
            }
        })
        .await;
        let mut through = Http1::new(web.call().await);
        through
            .send("CONNECT voting:80 HTTP/1.1\r\nHost: voting:80\r\n\r\n")
            .await;
        through.head().await.unwrap();
        through.send(b"\x00").await;
        let mut near = Http1::new(voting.enter().await);
        near.send(b"\x00").await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        drop((through, near));
        while left.get() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
}
