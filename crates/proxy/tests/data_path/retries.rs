//! Retries: each condition, each objection, the body, the budget, the choice of the endpoint.

use std::time::{Duration, Instant};

use tulle_api::outbound as api;

use crate::client::Http1;
use crate::rig::{Mesh, app, plain, policy_with, run};
use crate::scripted::{BUSY, Do, OK, Server, calling, conditions, millis, retry, retrying};

const REQUESTS: &str = "outbound_http_route_retry_requests_total";
const SKIPPED: &str = "outbound_http_route_retry_skipped_total";

#[test]
fn a_status_of_the_rule_is_retried_and_counted() {
    run(async {
        let (web, server) = retrying(&[BUSY, OK], |_| {}).await;
        let answer = Http1::new(web.call().await).get("voting", "/a").await;

        assert_eq!((answer.status(), answer.text()), (200, "done"));
        let seen = server.seen();
        assert_eq!((seen.len(), &seen[0]), (2, &seen[1]), "the same twice");
        let route = "route_name=\"http\"";
        assert_eq!(
            web.metric(REQUESTS, &["parent_name=\"voting\"", route]),
            1.0
        );
        let successes = "outbound_http_route_retry_successes_total";
        assert_eq!(web.metric(successes, &[route]), 1.0);
    });
}

#[test]
fn the_last_answer_is_the_callers_and_other_statuses_are_not_retried() {
    run(async {
        let (web, server) =
            retrying(&[Do::Answer(404, ""), Do::Answer(500, ""), BUSY], |_| {}).await;
        let mut client = Http1::new(web.call().await);

        assert_eq!(client.get("voting", "/").await.status(), 404);
        assert_eq!(server.count(), 1);
        assert_eq!(client.get("voting", "/").await.status(), 503);
        assert_eq!(server.count(), 4, "two retries");
        assert_eq!(web.metric(SKIPPED, &["reason=\"limit\""]), 1.0);
        let exceeded = "outbound_http_route_retry_limit_exceeded_total";
        assert_eq!(web.metric(exceeded, &[]), 1.0);
    });
}

#[test]
fn a_post_is_not_repeated_unless_the_rule_says_so() {
    run(async {
        for (non_idempotent, status, count) in [(false, 503, 1), (true, 200, 2)] {
            let (web, server) = retrying(&[BUSY, OK], |retry| {
                conditions(retry).non_idempotent = non_idempotent;
            })
            .await;
            let mut client = Http1::new(web.call().await);
            client
                .send("POST / HTTP/1.1\r\nHost: voting\r\nContent-Length: 4\r\n\r\nvote")
                .await;
            assert_eq!(client.answer().await.status(), status);
            assert_eq!(server.count(), count);
            assert!(server.seen().iter().all(|seen| seen.text() == "vote"));
            let skipped = web.metric(SKIPPED, &["reason=\"not_idempotent\""]);
            assert_eq!(skipped, f64::from(u8::from(!non_idempotent)));
        }
    });
}

#[test]
fn a_body_is_sent_again_byte_for_byte() {
    run(async {
        for size in [0, 1, 4096, 40_000, 65_536] {
            let (web, server) = retrying(&[BUSY, BUSY, OK], |_| {}).await;
            let body: Vec<u8> = (0..size).map(|n: usize| (n % 251) as u8).collect();
            let mut client = Http1::new(web.call().await);
            let head = format!("PUT / HTTP/1.1\r\nHost: voting\r\nContent-Length: {size}\r\n\r\n");
            client.send([head.as_bytes(), &body].concat()).await;
            assert_eq!(client.answer().await.status(), 200, "{size}");
            assert_eq!(server.count(), 3, "{size}");
            for seen in server.seen() {
                assert!(seen.body == body, "{size}: {} came", seen.body.len());
            }
            assert_eq!(web.metric("outbound_http_retry_buffer_bytes", &[]), 0.0);
        }
    });
}

#[test]
fn a_streamed_body_with_trailers_is_sent_again_while_it_comes() {
    run(async {
        let (web, server) = retrying(&[BUSY, OK], |_| {}).await;
        let mut client = Http1::new(web.call().await);
        client
            .send("PUT / HTTP/1.1\r\nHost: voting\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n")
            .await;
        for piece in [
            "5\r\nhello\r\n",
            "1\r\n \r\n",
            "5\r\nworld\r\n0\r\nx-sum: 11\r\n\r\n",
        ] {
            tokio::time::sleep(Duration::from_millis(10)).await;
            client.send(piece).await;
        }
        assert_eq!(client.answer().await.status(), 200);
        let seen = server.seen();
        assert_eq!(seen.len(), 2);
        for seen in seen {
            assert_eq!(
                (seen.text(), &*seen.trailers),
                ("hello world", "x-sum: 11\n")
            );
        }
    });
}

#[test]
fn a_body_beyond_the_limit_streams_on_and_is_not_retried() {
    run(async {
        for declared in [true, false] {
            let (web, server) = retrying(&[BUSY, OK], |_| {}).await;
            let mut client = Http1::new(web.call().await);
            let body = vec![b'x'; 65_537];
            if declared {
                client
                    .send("PUT / HTTP/1.1\r\nHost: voting\r\nContent-Length: 65537\r\n\r\n")
                    .await;
                client.send(&body).await;
            } else {
                client
                    .send("PUT / HTTP/1.1\r\nHost: voting\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n")
                    .await;
                client.send(&body).await;
                client.send("\r\n0\r\n\r\n").await;
            }
            assert_eq!(client.answer().await.status(), 503);
            assert_eq!(server.seen()[0].body.len(), body.len());
            assert_eq!(server.count(), 1);
            assert_eq!(web.metric(SKIPPED, &["reason=\"body_too_large\""]), 1.0);
        }
    });
}

#[test]
fn a_reset_is_retried_when_the_rule_names_it() {
    run(async {
        for (reset, status, count) in [(false, 502, 1), (true, 200, 2)] {
            let (web, server) = retrying(&[Do::Close, OK], |retry| {
                conditions(retry).reset = reset;
            })
            .await;
            let answer = Http1::new(web.call().await).get("voting", "/").await;
            assert_eq!((answer.status(), server.count()), (status, count));
        }
    });
}

#[test]
fn an_endpoint_that_cannot_be_connected_to_costs_no_request() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        let dead = mesh.pod("dead").await;
        mesh.service(
            "voting",
            &[plain(voting.address(18080)), plain(dead.address(18080))],
        );
        let server = Server::start(voting.address(18080), &[OK]).await;
        let mut client = Http1::new(web.call().await);
        for number in 0..20 {
            client
                .send(format!(
                    "POST /{number} HTTP/1.1\r\nHost: voting\r\nContent-Length: 2\r\n\r\nhi"
                ))
                .await;
            assert_eq!(client.answer().await.status(), 200);
        }
        assert_eq!(server.count(), 20);
    });
}

#[test]
fn a_peer_whose_application_is_gone_declines_and_the_body_goes_elsewhere() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting, empty) = (
            mesh.pod("web").await,
            mesh.pod("voting").await,
            mesh.pod("empty").await,
        );
        mesh.service("voting", &[voting.endpoint(80), empty.endpoint(80)]);
        let server = Server::start(voting.address(18080), &[OK]).await;
        for number in 0..10 {
            let mut client = Http1::new(web.call().await);
            client
                .send(format!(
                    "POST /{number} HTTP/1.1\r\nHost: voting\r\nContent-Length: 4\r\n\r\nvote"
                ))
                .await;
            assert_eq!(client.answer().await.status(), 200, "{number}");
        }
        assert!(server.seen().iter().all(|seen| seen.text() == "vote"));
    });
}

#[test]
fn the_next_try_goes_to_another_endpoint() {
    run(async {
        let mesh = Mesh::new();
        let (web, good, bad) = (
            mesh.pod("web").await,
            mesh.pod("good").await,
            mesh.pod("bad").await,
        );
        let rule = |rule: &mut api::http_route::Rule| {
            rule.retry = Some(api::http_route::Retry {
                max_retries: 1,
                budget: Some(tulle_api::http_route::RetryBudget {
                    retry_ratio: 1.0,
                    ..Default::default()
                }),
                ..retry()
            });
        };
        mesh.policy("voting", policy_with("voting", rule));
        mesh.endpoints(
            "voting",
            &[plain(good.address(18080)), plain(bad.address(18080))],
        );
        let _good = Server::start(good.address(18080), &[OK]).await;
        let bad = Server::start(bad.address(18080), &[BUSY]).await;
        let mut client = Http1::new(web.call().await);
        for _ in 0..40 {
            assert_eq!(client.get("voting", "/").await.status(), 200);
        }
        assert!(bad.count() > 0);
    });
}

#[test]
fn a_try_that_takes_too_long_is_given_up_for_another() {
    run(async {
        let (web, server) = retrying(&[Do::Hang, OK], |retry| {
            retry.timeout = millis(100);
        })
        .await;
        let begun = Instant::now();
        let answer = Http1::new(web.call().await).get("voting", "/").await;
        assert_eq!(answer.status(), 200);
        assert!(begun.elapsed() >= Duration::from_millis(100));
        server.has_left().await;

        server.script(&[Do::Hang]);
        let answer = Http1::new(web.call().await).get("voting", "/").await;
        assert_eq!(
            (answer.status(), answer.field("tulle-reason")),
            (504, Some("try-timeout"))
        );
        assert_eq!(server.count(), 5);
    });
}

#[test]
fn tries_are_as_far_apart_as_the_backoff_says() {
    run(async {
        let (web, server) = retrying(&[BUSY, BUSY, OK], |retry| {
            retry.backoff = Some(api::ExponentialBackoff {
                min_backoff: millis(60),
                max_backoff: millis(1000),
                jitter_ratio: 0.0,
                respect_retry_after_hint: false,
            });
        })
        .await;
        assert_eq!(
            Http1::new(web.call().await)
                .get("voting", "/")
                .await
                .status(),
            200
        );
        assert!(
            server.pause(1) >= Duration::from_millis(60),
            "{:?}",
            server.pause(1)
        );
        assert!(
            server.pause(2) >= Duration::from_millis(120),
            "{:?}",
            server.pause(2)
        );
    });
}

#[test]
fn a_server_that_asks_for_a_pause_gets_it_and_one_that_asks_for_too_long_is_left_alone() {
    run(async {
        let (web, server) = retrying(
            &[
                Do::Answer(503, "Retry-After: 1\r\n"),
                OK,
                Do::Answer(503, "Retry-After: 60\r\n"),
            ],
            |_| {},
        )
        .await;
        let mut client = Http1::new(web.call().await);
        assert_eq!(client.get("voting", "/").await.status(), 200);
        assert!(
            server.pause(1) >= Duration::from_secs(1),
            "{:?}",
            server.pause(1)
        );

        let answer = client.get("voting", "/").await;
        assert_eq!(
            (answer.status(), answer.field("retry-after")),
            (503, Some("60"))
        );
        assert_eq!(server.count(), 3);
        assert_eq!(web.metric(SKIPPED, &["reason=\"server_says_no\""]), 1.0);
    });
}

#[test]
fn a_storm_of_failing_requests_stays_within_the_budget() {
    run(async {
        let (web, server) = retrying(&[BUSY], |_| {}).await;
        let begun = Instant::now();
        let mut clients = Vec::new();
        for _ in 0..10 {
            clients.push(Http1::new(web.call().await));
        }
        let storm = clients.into_iter().map(|mut client| async move {
            for _ in 0..50 {
                assert_eq!(client.get("voting", "/").await.status(), 503);
            }
        });
        for task in storm.map(tokio::task::spawn_local).collect::<Vec<_>>() {
            task.await.unwrap();
        }
        let allowed = 500.0 * 1.2 + 10.0 * (1.0 + begun.elapsed().as_secs_f64());
        assert!(
            server.count() as f64 <= allowed,
            "{} > {allowed}",
            server.count()
        );
        assert!(
            server.count() >= 600,
            "the budget was used: {}",
            server.count()
        );
        assert!(web.metric("outbound_http_route_retry_overflow_total", &[]) > 0.0);
        assert!(web.metric(SKIPPED, &["reason=\"no_budget\""]) > 0.0);
    });
}

#[test]
fn a_request_may_ask_for_retries_only_where_its_rule_allows_it() {
    run(async {
        for (allowed, status, count) in [(false, 503, 1), (true, 200, 3)] {
            let (web, server) = calling(&[BUSY, BUSY, OK], |rule| {
                rule.allow_l5d_request_headers = allowed;
            })
            .await;
            let mut client = Http1::new(web.call().await);
            client
                .send("GET / HTTP/1.1\r\nHost: voting\r\nl5d-retry-http: 5xx\r\nl5d-retry-limit: 2\r\n\r\n")
                .await;
            assert_eq!(client.answer().await.status(), status);
            assert_eq!(server.count(), count);
            assert!(server.seen().iter().all(|seen| !seen.head.contains("l5d-")));
        }
    });
}

#[test]
fn an_answer_that_is_retried_keeps_its_connection() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        mesh.policy(
            "voting",
            policy_with("voting", |rule| rule.retry = Some(retry())),
        );
        mesh.endpoints("voting", &[plain(voting.address(18080))]);
        let connections = std::rc::Rc::new(std::cell::Cell::new(0));
        let counted = connections.clone();
        app(voting.address(18080), move |stream| {
            counted.set(counted.get() + 1);
            async move {
                let mut server = Http1::new(stream);
                for status in [503, 200].into_iter().cycle() {
                    if server.message().await.is_none() {
                        return;
                    }
                    server
                        .send(format!(
                            "HTTP/1.1 {status} Said\r\nContent-Length: 2\r\n\r\nhi"
                        ))
                        .await;
                }
            }
        })
        .await;
        let mut client = Http1::new(web.call().await);
        for _ in 0..10 {
            assert_eq!(client.get("voting", "/").await.status(), 200);
        }
        assert_eq!(connections.get(), 1);
    });
}
