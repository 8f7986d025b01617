//! Timeouts over all tries, deadlines that travel, callers who leave, and second tries beside slow first ones.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tulle_api::outbound as api;
use tulle_api::{http_route, outbound::http_route as route};

use crate::client::Http1;
use crate::grpc::{call, connect, h2_app};
use crate::rig::{Mesh, Pod, app, plain, policy_with, run};
use crate::scripted::{Do, OK, Server, calling, millis, retry};

#[test]
fn the_requests_timeout_covers_all_of_its_tries() {
    run(async {
        let (web, server) = calling(&[Do::Hang], |rule| {
            rule.timeouts = Some(http_route::Timeouts {
                request: millis(1400),
                ..Default::default()
            });
            rule.retry = Some(route::Retry {
                max_retries: 50,
                timeout: millis(400),
                ..retry()
            });
        })
        .await;
        let begun = Instant::now();
        let answer = Http1::new(web.call().await).get("voting", "/").await;
        let took = begun.elapsed();
        assert_eq!(
            (answer.status(), answer.field("tulle-reason")),
            (504, Some("request-timeout"))
        );
        assert!(
            took >= Duration::from_millis(1400) && took < Duration::from_secs(20),
            "{took:?}"
        );
        assert!((2..=4).contains(&server.count()), "{}", server.count());
    });
}

/// A pod that calls `voting`, whose rule has these timeouts and whose server is this.
async fn hurried<F: Future<Output = ()> + 'static>(
    timeouts: http_route::Timeouts,
    serve: impl Fn(Http1) -> F + 'static,
) -> Pod {
    let mesh = Mesh::new();
    let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
    let policy = policy_with("voting", |rule| rule.timeouts = Some(timeouts));
    mesh.policy("voting", policy);
    mesh.endpoints("voting", &[plain(voting.address(18080))]);
    app(voting.address(18080), move |stream| {
        serve(Http1::new(stream))
    })
    .await;
    web
}

#[test]
fn an_answer_that_has_begun_is_cut_when_the_time_of_request_or_answer_is_over() {
    run(async {
        let limit = millis(2_000);
        for timeouts in [
            http_route::Timeouts {
                request: limit,
                ..Default::default()
            },
            http_route::Timeouts {
                response: limit,
                ..Default::default()
            },
        ] {
            let web = hurried(timeouts, |mut server| async move {
                server.message().await.unwrap();
                server
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf ")
                    .await;
                server.rest().await;
            })
            .await;
            let begun = Instant::now();
            let mut client = Http1::new(web.call().await);
            client.send("GET / HTTP/1.1\r\nHost: voting\r\n\r\n").await;
            assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200"));
            assert_eq!(client.rest().await, b"half ");
            assert!(begun.elapsed() >= Duration::from_millis(2_000));
        }
    });
}

#[test]
fn the_time_of_the_answer_begins_when_the_request_is_complete() {
    run(async {
        let timeouts = http_route::Timeouts {
            response: millis(5_000),
            ..Default::default()
        };
        let web = hurried(timeouts, |mut server| async move {
            let request = server.message().await.unwrap();
            assert_eq!(request.body, b"slowly");
            server
                .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
        })
        .await;
        let mut client = Http1::new(web.call().await);
        client
            .send("POST / HTTP/1.1\r\nHost: voting\r\nContent-Length: 6\r\n\r\nslow")
            .await;
        tokio::time::sleep(Duration::from_millis(6_000)).await;
        client.send("ly").await;
        assert_eq!(client.answer().await.text(), "ok");
    });
}

#[test]
fn a_request_may_ask_for_its_own_timeout_where_its_rule_allows_it() {
    run(async {
        for header in ["l5d-timeout", "l5d-request-timeout", "l5d-response-timeout"] {
            let (web, _server) = calling(&[Do::Late(1000)], |rule| {
                rule.allow_l5d_request_headers = true;
            })
            .await;
            let mut client = Http1::new(web.call().await);
            client
                .send(format!(
                    "GET / HTTP/1.1\r\nHost: voting\r\n{header}: 100ms\r\n\r\n"
                ))
                .await;
            assert_eq!(client.answer().await.status(), 504, "{header}");
        }
        let (web, _server) = calling(&[Do::Late(200)], |_| {}).await;
        let mut client = Http1::new(web.call().await);
        client
            .send("GET / HTTP/1.1\r\nHost: voting\r\nl5d-timeout: 50ms\r\n\r\n")
            .await;
        assert_eq!(client.answer().await.status(), 200, "not allowed");
    });
}

#[test]
fn a_stranger_is_not_believed_to_speak_for_a_proxy() {
    run(async {
        let voting = Mesh::new().pod("voting").await;
        let server = Server::start(voting.address(18080), &[Do::Late(400)]).await;
        let mut stranger = Http1::new(voting.enter().await);
        stranger
            .send("GET / HTTP/1.1\r\nHost: voting\r\nl5d-timeout: 50ms\r\n\r\n")
            .await;
        assert_eq!(stranger.answer().await.status(), 200);
        assert!(
            !server.seen()[0].head.contains("l5d-timeout"),
            "the application hears nothing"
        );
    });
}

#[test]
fn what_is_left_of_the_deadline_reaches_the_next_proxy() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        let rule = |rule: &mut api::http_route::Rule| {
            rule.timeouts = Some(http_route::Timeouts {
                request: millis(200),
                ..Default::default()
            });
        };
        mesh.policy("voting", policy_with("voting", rule));
        mesh.endpoints("voting", &[voting.endpoint(80)]);
        let server = Server::start(voting.address(18080), &[Do::Hang]).await;
        let answer = Http1::new(web.call().await).get("voting", "/").await;
        assert_eq!(answer.status(), 504);
        server.has_left().await;
        let timed_out = ["direction=\"inbound\"", "error=\"request-timeout\""];
        let cancelled = ["direction=\"inbound\"", "error=\"cancelled\""];
        let ended = voting.metric("response_total", &timed_out)
            + voting.metric("response_total", &cancelled);
        assert_eq!(ended, 1.0, "{}", voting.metrics());
    });
}

#[test]
fn an_inbound_sidecar_ends_a_call_whose_deadline_has_passed_by_itself() {
    run(async {
        let voting = Mesh::new().pod("voting").await;
        let reset = Rc::new(Cell::new(None));
        let seen = reset.clone();
        h2_app(&voting, move |_request, mut respond| {
            let seen = seen.clone();
            async move {
                // Never answers, and waits for the word that it need not.
                let reason = poll_fn(|cx| respond.poll_reset(cx)).await;
                seen.set(reason.ok());
            }
        })
        .await;
        // No sidecar at the caller's end, and no limit in any policy: only the call's own deadline.
        let mut send = connect(voting.enter().await).await;
        let mut call = call("/vote.Voting/Vote");
        let limit = http::HeaderValue::from_static("200m");
        call.headers_mut().insert("grpc-timeout", limit);
        let begun = Instant::now();
        let (answer, _) = send.send_request(call, true).unwrap();
        let answer = answer.await.unwrap();
        let took = begun.elapsed();
        assert_eq!(answer.headers()["grpc-status"], "4");
        assert_eq!(answer.headers()["tulle-reason"], "request-timeout");
        assert!(
            took >= Duration::from_millis(190) && took < Duration::from_secs(20),
            "{took:?}"
        );
        while reset.get().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(reset.get(), Some(h2::Reason::CANCEL));
        let labels = ["direction=\"inbound\"", "error=\"request-timeout\""];
        assert_eq!(voting.metric("response_total", &labels), 1.0);
    });
}

#[test]
fn a_caller_who_leaves_takes_the_servers_work_along() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        mesh.service("voting", &[voting.endpoint(80)]);
        let server = Server::start(voting.address(18080), &[Do::Hang]).await;
        let mut client = Http1::new(web.call().await);
        client.send("GET / HTTP/1.1\r\nHost: voting\r\n\r\n").await;
        while server.count() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(client);
        server.has_left().await;
    });
}

#[test]
fn a_caller_who_leaves_between_two_tries_gets_no_other() {
    run(async {
        let (web, server) = calling(&[Do::Answer(503, "Retry-After: 1\r\n"), OK], |rule| {
            rule.retry = Some(retry());
        })
        .await;
        let mut client = Http1::new(web.call().await);
        client.send("GET / HTTP/1.1\r\nHost: voting\r\n\r\n").await;
        while server.count() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(client);
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert_eq!(server.count(), 1);
    });
}

async fn hedging() -> (Pod, Server, Server) {
    let mesh = Mesh::new();
    let (web, one, two) = (
        mesh.pod("web").await,
        mesh.pod("one").await,
        mesh.pod("two").await,
    );
    let rule = |rule: &mut api::http_route::Rule| {
        rule.hedge = Some(http_route::Hedge {
            percentile: 0.9,
            min_delay: millis(60),
            max_hedges: 1,
        });
    };
    mesh.policy("voting", policy_with("voting", rule));
    mesh.endpoints(
        "voting",
        &[plain(one.address(18080)), plain(two.address(18080))],
    );
    let one = Server::start(one.address(18080), &[OK]).await;
    let two = Server::start(two.address(18080), &[OK]).await;
    let mut client = Http1::new(web.call().await);
    for _ in 0..40 {
        assert_eq!(client.get("voting", "/").await.status(), 200);
    }
    (web, one, two)
}

const HEDGES: &str = "outbound_http_route_hedge_requests_total";
const HEDGES_SKIPPED: &str = "outbound_http_route_hedge_skipped_total";
const WINS: &str = "outbound_http_route_hedge_wins_total";

#[test]
fn a_second_try_answers_for_a_first_that_hangs_and_the_first_is_cancelled() {
    run(async {
        let (web, one, two) = hedging().await;
        one.script(&[Do::Hang]);
        let asked = one.count();
        let mut client = Http1::new(web.call().await);
        // The balancer may prefer the other for a while.
        while one.count() == asked || web.metric(WINS, &[]) < 1.0 {
            assert_eq!(client.get("voting", "/").await.status(), 200);
        }
        // On a slow machine an ordinary request may be hedged too, and win.
        assert!(web.metric(HEDGES, &[]) >= web.metric(WINS, &[]));
        one.has_left().await;
        assert!(two.count() > 0);
    });
}

#[test]
fn a_first_try_that_is_quicker_in_the_end_wins_and_the_second_is_cancelled() {
    run(async {
        let (web, one, two) = hedging().await;
        // Both take as long, so the one that is asked second is later.
        one.script(&[Do::Late(200)]);
        two.script(&[Do::Late(200)]);
        let before = one.count() + two.count();
        let mut client = Http1::new(web.call().await);
        assert_eq!(client.get("voting", "/").await.status(), 200);
        assert_eq!(one.count() + two.count(), before + 2, "each was asked once");
        assert_eq!((web.metric(HEDGES, &[]), web.metric(WINS, &[])), (1.0, 0.0));
    });
}

#[test]
fn second_tries_beside_slow_ones_stay_within_the_budget() {
    run(async {
        let (web, one, two) = hedging().await;
        // From now on everything is slow: each request would have a second try beside it, and the servers twice the work.
        one.script(&[Do::Late(150)]);
        two.script(&[Do::Late(150)]);
        let (asked, begun) = (one.count() + two.count(), Instant::now());
        let entry = web.address(4140);
        let storm = (0..300).map(|_| async move {
            let mut client = Http1::new(TcpStream::connect(entry).await.unwrap());
            assert_eq!(client.get("voting", "/").await.status(), 200);
        });
        let storm: Vec<_> = storm.map(tokio::task::spawn_local).collect();
        for client in storm {
            client.await.unwrap();
        }
        let second = (one.count() + two.count() - asked) as f64 - 300.0;
        // A fifth of all requests, the forty of before among them, and ten a second.
        let allowed = 340.0 * 0.2 + 10.0 * (1.0 + begun.elapsed().as_secs_f64());
        assert!(second > 0.0 && second <= allowed, "{second} of {allowed}");
        assert!(web.metric(HEDGES_SKIPPED, &["reason=\"no_budget\""]) > 0.0);
    });
}

#[test]
fn a_post_is_never_sent_beside_itself() {
    run(async {
        let (web, one, two) = hedging().await;
        one.script(&[Do::Late(300)]);
        two.script(&[Do::Late(300)]);
        let before = one.count() + two.count();
        let mut client = Http1::new(web.call().await);
        client
            .send("POST / HTTP/1.1\r\nHost: voting\r\nContent-Length: 0\r\n\r\n")
            .await;
        assert_eq!(client.answer().await.status(), 200);
        assert_eq!(one.count() + two.count(), before + 1);
        assert_eq!(web.metric(HEDGES, &[]), 0.0);
    });
}
