//! What goes wrong: clients that are slow, large or broken, servers that die, services without endpoints.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{Http1, echo};
use crate::rig::{Mesh, app, plain, run};

#[test]
fn a_megabyte_of_headers_gets_431_and_the_next_client_is_served() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), echo).await;
        let mut client = Http1::new(pod.enter().await);
        client.send("GET / HTTP/1.1\r\nHost: v\r\n").await;
        let line = format!("X-Long: {}\r\n", "a".repeat(1000));
        for _ in 0..1000 {
            if client.stream.write_all(line.as_bytes()).await.is_err() {
                break;
            }
        }
        let answer = client.answer().await;
        assert_eq!(
            (answer.status(), answer.field("tulle-reason")),
            (431, Some("head-too-large"))
        );
        assert_eq!(answer.field("connection"), Some("close"));
        let mut client = Http1::new(pod.enter().await);
        client
            .send(format!(
                "GET /{} HTTP/1.1\r\nHost: v\r\n\r\n",
                "p".repeat(40_000)
            ))
            .await;
        assert_eq!(client.answer().await.status(), 414);
        assert_eq!(
            Http1::new(pod.enter().await).get("v", "/").await.status(),
            200
        );
    });
}

#[test]
fn a_malformed_head_is_refused_with_its_rule_and_nothing_reaches_the_application() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), |_| async {
            panic!("the application was called")
        })
        .await;
        for (request, why) in [
            (
                "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
                "more than one Host header",
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "both Content-Length and Transfer-Encoding",
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nX Y: 1\r\n\r\n",
                "invalid header name",
            ),
            ("GET / HTTP/1.1\r\n\r\n", "missing Host header"),
        ] {
            let mut client = Http1::new(pod.enter().await);
            client.send(request).await;
            let answer = client.answer().await;
            assert_eq!(answer.status(), 400, "{request}");
            assert_eq!(
                answer.field("l5d-proxy-error"),
                Some(format!("malformed request: {why}").as_str())
            );
            assert!(client.ended().await, "the connection stayed open");
        }
    });
}

#[test]
fn a_body_cut_short_is_cut_for_the_server_too() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        let (told, mut tell) = tokio::sync::mpsc::unbounded_channel();
        app(voting.address(18080), move |stream| {
            let told = told.clone();
            async move {
                let mut server = Http1::new(stream);
                server.head().await.unwrap();
                let body = server.rest().await;
                told.send(body.len()).unwrap();
            }
        })
        .await;
        mesh.service("voting", &[voting.endpoint(80)]);
        for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
            let mut client = Http1::new(web.call().await);
            client
                .send(format!(
                    "POST / HTTP/1.1\r\nHost: voting\r\n{framing}\r\n\r\n"
                ))
                .await;
            client
                .send(if framing.starts_with('C') {
                    "half"
                } else {
                    "64\r\nhalf"
                })
                .await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(client);
            assert!(
                tell.recv().await.unwrap() < 100,
                "the server took a cut body for a whole one"
            );
        }
    });
}

#[test]
fn an_answer_cut_short_is_cut_for_the_client_too() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        app(voting.address(18080), |stream| async move {
            let mut server = Http1::new(stream);
            let head = server.head().await.unwrap();
            let framing = if head.contains("/len") {
                "Content-Length: 100\r\n\r\nhalf"
            } else {
                "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
            };
            server.send(format!("HTTP/1.1 200 OK\r\n{framing}")).await;
        })
        .await;
        mesh.service("voting", &[voting.endpoint(80)]);
        for path in ["/len", "/chunked"] {
            let mut client = Http1::new(web.call().await);
            client
                .send(format!("GET {path} HTTP/1.1\r\nHost: voting\r\n\r\n"))
                .await;
            // What had not left yet may be answered 502 instead.
            if client
                .head()
                .await
                .is_some_and(|head| head.starts_with("HTTP/1.1 200"))
            {
                let rest = client.rest().await;
                assert!(
                    !rest.ends_with(b"0\r\n\r\n"),
                    "a cut answer was ended as if it were whole"
                );
            }
            let mut client = Http1::new(voting.enter().await);
            client
                .send(format!("GET {path} HTTP/1.1\r\nHost: voting\r\n\r\n"))
                .await;
            assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200"));
            assert!(
                !client.rest().await.ends_with(b"0\r\n\r\n"),
                "a cut answer was ended as if it were whole"
            );
        }
    });
}

#[test]
fn a_service_that_selects_nothing_answers_503_at_once_with_its_reason() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        mesh.service("voting", &[]);
        let begun = Instant::now();
        let answer = Http1::new(web.call().await).get("voting", "/").await;
        // Shorter than fail-fast's wait for an endpoint.
        assert!(begun.elapsed() < Duration::from_millis(2500));
        assert_eq!(
            (answer.status(), answer.field("tulle-reason")),
            (503, Some("no-endpoints"))
        );
        assert!(
            answer.text().contains("kubectl describe service"),
            "{answer:?}"
        );
    });
}

#[test]
fn a_name_that_discovery_does_not_answer_for_is_given_up_and_asked_for_again() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        app(web.address(18080), echo).await;
        let mut client = Http1::new(web.call().await);
        let answer = client.get("voting", "/").await;
        let seen = (answer.status(), answer.field("tulle-reason"));
        assert_eq!(seen, (504, Some("discovery-timeout")));
        // It was late and not lost.
        mesh.service("voting", &[plain(web.address(18080))]);
        assert_eq!(client.get("voting", "/").await.status(), 200);
    });
}

#[test]
fn endpoints_that_refuse_end_in_failfast_and_a_new_one_is_used_at_once() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        mesh.service("voting", &[plain(web.address(9001))]);
        let waiting = tokio::task::spawn_local({
            let stream = web.call().await;
            async move { Http1::new(stream).get("voting", "/").await }
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        app(web.address(9000), echo).await;
        mesh.endpoints(
            "voting",
            &[plain(web.address(9001)), plain(web.address(9000))],
        );
        assert_eq!(
            waiting.await.unwrap().status(),
            200,
            "a request that waits is served by the endpoint that comes"
        );
        for _ in 0..20 {
            assert_eq!(
                Http1::new(web.call().await)
                    .get("voting", "/")
                    .await
                    .status(),
                200
            );
        }
        mesh.endpoints("voting", &[plain(web.address(9001))]);
        let begun = Instant::now();
        let answer = Http1::new(web.call().await).get("voting", "/").await;
        assert_eq!(
            (answer.status(), answer.field("tulle-reason")),
            (504, Some("failfast"))
        );
        assert!(answer.text().contains("refused"), "{answer:?}");
        assert!(
            begun.elapsed() > Duration::from_millis(2500)
                && begun.elapsed() < Duration::from_secs(20)
        );
        // In fail-fast nobody waits again.
        let begun = Instant::now();
        assert_eq!(
            Http1::new(web.call().await)
                .get("voting", "/")
                .await
                .status(),
            504
        );
        assert!(begun.elapsed() < Duration::from_millis(2500));
    });
}

#[test]
fn an_application_that_is_not_there_is_502_with_its_address() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        let answer = Http1::new(pod.enter().await).get("voting", "/").await;
        assert_eq!(
            (answer.status(), answer.field("tulle-reason")),
            (502, Some("connect-failed"))
        );
        assert!(answer.field("l5d-proxy-error").unwrap().contains(":18080"));
    });
}

#[test]
fn a_request_that_no_application_has_seen_goes_to_another_endpoint() {
    run(async {
        let mesh = Mesh::new();
        let (web, dead, voting) = (
            mesh.pod("web").await,
            mesh.pod("dead").await,
            mesh.pod("voting").await,
        );
        app(voting.address(18080), echo).await;
        mesh.service("voting", &[dead.endpoint(80), voting.endpoint(80)]);
        let mut client = Http1::new(web.call().await);
        for _ in 0..30 {
            assert_eq!(client.get("voting", "/").await.status(), 200);
        }
        // Where there is no other, its own word is passed on.
        mesh.endpoints("voting", &[dead.endpoint(80)]);
        let answer = client.get("voting", "/").await;
        assert_eq!(
            (answer.status(), answer.field("tulle-reason")),
            (502, Some("connect-failed"))
        );
    });
}

#[test]
fn a_body_is_not_sent_twice_but_the_next_requests_go_to_another_endpoint() {
    run(async {
        let mesh = Mesh::new();
        let (web, dead, voting) = (
            mesh.pod("web").await,
            mesh.pod("dead").await,
            mesh.pod("voting").await,
        );
        app(voting.address(18080), echo).await;
        mesh.service("voting", &[dead.endpoint(80), voting.endpoint(80)]);
        let mut client = Http1::new(web.call().await);
        let mut statuses = Vec::new();
        for _ in 0..30 {
            client
                .send("POST / HTTP/1.1\r\nHost: voting\r\nContent-Length: 4\r\n\r\nbody")
                .await;
            statuses.push(client.answer().await.status());
        }
        let failed = statuses.iter().filter(|status| **status != 200).count();
        assert!(failed <= 2, "{statuses:?}");
    });
}

#[test]
fn an_idle_connection_that_the_server_closed_costs_no_request() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), |stream| async move {
            let mut server = Http1::new(stream);
            server.message().await.unwrap();
            // Says that it stays, and goes.
            server
                .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
        })
        .await;
        let mut client = Http1::new(pod.enter().await);
        for _ in 0..30 {
            assert_eq!(client.get("v", "/").await.text(), "ok");
        }
    });
}

#[test]
fn idle_connections_that_are_closed_one_after_the_other_cost_no_request() {
    run(async {
        let mesh = Mesh::new();
        let (web, leaving, voting) = (
            mesh.pod("web").await,
            mesh.pod("leaving").await,
            mesh.pod("voting").await,
        );
        let listener = TcpListener::bind(leaving.address(18080)).await.unwrap();
        let kept = 8;
        let leaves = tokio::task::spawn_local(async move {
            let mut connections = Vec::new();
            for _ in 0..kept {
                let mut server = Http1::new(listener.accept().await.unwrap().0);
                server.message().await.unwrap();
                connections.push(server);
            }
            drop(listener);
            for server in &mut connections {
                server
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await;
            }
            // Each ends only when it has been asked again.
            for server in connections {
                tokio::task::spawn_local(leaves_unread(server.stream));
            }
        });
        app(voting.address(18080), echo).await;
        mesh.service("voting", &[leaving.endpoint(80)]);
        let mut clients = Vec::new();
        for _ in 0..kept {
            let mut client = Http1::new(web.call().await);
            client.send("GET / HTTP/1.1\r\nHost: voting\r\n\r\n").await;
            clients.push(client);
        }
        for client in &mut clients {
            assert_eq!(client.answer().await.text(), "ok");
        }
        leaves.await.unwrap();
        mesh.endpoints("voting", &[leaving.endpoint(80), voting.endpoint(80)]);
        for _ in 0..30 {
            assert_eq!(clients[0].get("voting", "/").await.status(), 200);
        }
    });
}

/// Ends as a program does that closes its listener while a connection waits to be accepted: with the request unread.
async fn leaves_unread(stream: TcpStream) {
    let request = stream.peek(&mut [0]).await.unwrap();
    assert!(request > 0);
}

#[test]
fn a_request_that_a_leaving_application_has_not_read_goes_to_another_endpoint() {
    run(async {
        let mesh = Mesh::new();
        let (web, leaving, voting) = (
            mesh.pod("web").await,
            mesh.pod("leaving").await,
            mesh.pod("voting").await,
        );
        let listener = TcpListener::bind(leaving.address(18080)).await.unwrap();
        tokio::task::spawn_local(async move {
            let (stream, _) = listener.accept().await.unwrap();
            drop(listener);
            leaves_unread(stream).await;
        });
        app(voting.address(18080), echo).await;
        mesh.service("voting", &[leaving.endpoint(80), voting.endpoint(80)]);
        let mut client = Http1::new(web.call().await);
        for _ in 0..30 {
            assert_eq!(client.get("voting", "/").await.status(), 200);
        }
    });
}

#[test]
fn a_request_that_may_do_harm_twice_or_was_read_is_sent_once() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        let asked = Rc::new(Cell::new(0));
        let count = asked.clone();
        app(pod.address(18080), move |mut stream| {
            count.set(count.get() + 1);
            async move {
                let mut head = [0; 8];
                let read = stream.peek(&mut head).await.unwrap();
                if head[..read].starts_with(b"GET ") {
                    // Read to its end: the connection is ended, not reset.
                    stream
                        .read_buf(&mut Vec::with_capacity(4096))
                        .await
                        .unwrap();
                }
            }
        })
        .await;
        for (number, request) in [
            "POST / HTTP/1.1\r\nHost: v\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: v\r\n\r\n",
        ]
        .into_iter()
        .enumerate()
        {
            let mut client = Http1::new(pod.enter().await);
            client.send(request).await;
            let answer = client.answer().await;
            let seen = (answer.status(), answer.field("tulle-reason"));
            assert_eq!(seen, (502, Some("connection-closed")));
            assert_eq!(asked.get(), number + 1);
        }
    });
}

#[test]
fn a_client_that_never_ends_its_head_is_told_so() {
    run(async {
        let pod = Mesh::new()
            .pod_with("voting", &[("TULLE_PROXY_HTTP1_HEAD_TIMEOUT", "300ms")])
            .await;
        app(pod.address(18080), echo).await;
        let mut client = Http1::new(pod.enter().await);
        client.send("GET / HTTP/1.1\r\nHost: v\r\nX-Slow: ").await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status(), answer.field("tulle-reason")),
            (408, Some("head-timeout"))
        );
    });
}

#[test]
fn an_application_that_says_what_nobody_asked_for_is_not_believed() {
    run(async {
        let pod = Mesh::new().pod("voting").await;
        app(pod.address(18080), |stream| async move {
            let mut server = Http1::new(stream);
            while server.message().await.is_some() {
                server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nspoof").await;
            }
        })
        .await;
        let mut client = Http1::new(pod.enter().await);
        for _ in 0..3 {
            assert_eq!(client.get("v", "/").await.text(), "ok");
        }
    });
}

#[test]
fn an_unknown_route_an_empty_host_and_our_own_port_are_refused() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        let mut client = Http1::new(web.call().await);
        client.send("GET / HTTP/1.0\r\n\r\n").await;
        assert_eq!(client.answer().await.status(), 400);
        let own = web.address(4140).to_string();
        let answer = Http1::new(web.call().await).get(&own, "/").await;
        assert_eq!(
            (answer.status(), answer.field("tulle-reason")),
            (508, Some("loop"))
        );
    });
}
