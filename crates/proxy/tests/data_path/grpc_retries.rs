//! Retries and deadlines of gRPC calls. The client and the application are the `h2` crate's.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};

use crate::grpc::{Respond, connect, h2_app, next, trailers};
use crate::rig::{Mesh, Pod, plain, policy_with, run};

/// Pods `web` and `voting`; calls may ask for retries themselves.
async fn pair() -> (Pod, Pod) {
    let mesh = Mesh::new();
    let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
    let allow = |rule: &mut tulle_api::outbound::http_route::Rule| {
        rule.allow_l5d_request_headers = true;
    };
    mesh.policy("voting", policy_with("voting", allow));
    mesh.endpoints("voting", &[voting.endpoint(80)]);
    (web, voting)
}

fn call() -> http::request::Builder {
    Request::post("http://voting/vote.Voting/Vote")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("l5d-retry-grpc", "unavailable")
}

/// What a server does with one call.
#[derive(Clone, Copy)]
enum Do {
    /// The status is in the answer's head, with this field beside it.
    HeadOnly(&'static str, Option<(&'static str, &'static str)>),
    /// … in trailers after no message.
    Trailers(&'static str),
    /// … in trailers after a message.
    Message(&'static str),
    Refuse,
    /// Refuses the stream when so much of the message has come.
    RefuseAfter(usize),
}

/// What reached the server: the messages, and the calls' heads.
type Seen = Rc<RefCell<Vec<(Vec<u8>, HeaderMap)>>>;

async fn scripted(pod: &Pod, script: &'static [Do]) -> Seen {
    let (seen, number) = (Seen::default(), Rc::new(Cell::new(0)));
    let kept = seen.clone();
    h2_app(pod, move |request, respond| {
        let step = script[number.get().min(script.len() - 1)];
        number.set(number.get() + 1);
        answer(step, request, respond, kept.clone())
    })
    .await;
    seen
}

async fn answer(step: Do, request: Request<RecvStream>, mut respond: Respond, seen: Seen) {
    if let Do::Refuse = step {
        return respond.send_reset(Reason::REFUSED_STREAM);
    }
    let (parts, mut body) = request.into_parts();
    let mut message = Vec::new();
    while let Some(Ok(data)) = next(&mut body).await {
        message.extend_from_slice(&data);
        if matches!(step, Do::RefuseAfter(count) if message.len() >= count) {
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
    }
    seen.borrow_mut().push((message, parts.headers));
    let head = Response::builder().header("content-type", "application/grpc");
    let plain = |head: http::response::Builder| head.body(()).unwrap();
    match step {
        Do::HeadOnly(status, field) => {
            let mut head = head.header("grpc-status", status);
            if let Some((name, value)) = field {
                head = head.header(name, value);
            }
            respond.send_response(plain(head), true).unwrap();
        }
        Do::Trailers(status) => {
            let mut stream = respond.send_response(plain(head), false).unwrap();
            stream.send_trailers(trailers(status)).unwrap();
        }
        Do::Message(status) => {
            let mut stream = respond.send_response(plain(head), false).unwrap();
            stream
                .send_data(Bytes::from_static(b"answer"), false)
                .unwrap();
            stream.send_trailers(trailers(status)).unwrap();
        }
        Do::Refuse | Do::RefuseAfter(_) => {}
    }
}

/// The call's status and messages.
async fn ask(web: &Pod, call: http::request::Builder, message: &[u8]) -> (String, Vec<u8>) {
    let mut send = connect(web.call().await).await;
    let (answer, mut stream) = send.send_request(call.body(()).unwrap(), false).unwrap();
    stream
        .send_data(Bytes::copy_from_slice(message), true)
        .unwrap();
    let (head, mut body) = answer.await.unwrap().into_parts();
    let mut messages = Vec::new();
    while let Some(Ok(data)) = next(&mut body).await {
        messages.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.unwrap().unwrap_or_default();
    let status = trailers
        .get("grpc-status")
        .or(head.headers.get("grpc-status"));
    (status.unwrap().to_str().unwrap().to_owned(), messages)
}

#[test]
fn a_status_in_the_head_or_in_trailers_that_come_at_once_is_retried_with_the_same_message() {
    run(async {
        for failure in [
            &[Do::HeadOnly("14", None), Do::Message("0")],
            &[Do::Trailers("14"), Do::Message("0")],
        ] {
            let (web, voting) = pair().await;
            let seen = scripted(&voting, failure).await;
            let message: Vec<u8> = (0..20_000_u32).map(|n| n as u8).collect();
            let (status, answer) = ask(&web, call(), &message).await;
            assert_eq!((status.as_str(), &*answer), ("0", &b"answer"[..]));
            assert_eq!(seen.borrow().len(), 2);
            assert!(seen.borrow().iter().all(|(seen, _)| *seen == message));
            let retries = "outbound_http_route_retry_requests_total";
            assert_eq!(web.metric(retries, &[]), 1.0);
        }
    });
}

#[test]
fn a_refused_call_of_64_kib_goes_to_another_without_a_rule_and_a_larger_one_does_not() {
    run(async {
        for (length, served) in [(64 * 1_024, true), (256_000, false)] {
            let (web, voting) = pair().await;
            let script: &'static [Do] = match served {
                true => &[Do::RefuseAfter(60_000), Do::Message("0")],
                false => &[Do::RefuseAfter(150_000), Do::Message("0")],
            };
            let seen = scripted(&voting, script).await;
            let message: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let plain = Request::post("http://voting/vote.Voting/Vote")
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            let mut send = connect(web.call().await).await;
            let (answer, mut stream) = send.send_request(plain.body(()).unwrap(), false).unwrap();
            stream.send_data(message.clone().into(), true).unwrap();
            // A refusal that is passed on is a reset, as it was.
            let answered = match answer.await {
                Ok(answer) => answer.headers().get("grpc-status").is_none(),
                Err(fault) => !fault.is_reset(),
            };
            assert_eq!(answered, served, "{length}");
            assert_eq!(seen.borrow().len(), usize::from(served), "{length}");
            assert!(seen.borrow().iter().all(|(seen, _)| *seen == message));
        }
    });
}

#[test]
fn an_answer_is_not_eaten_and_other_statuses_are_the_callers() {
    run(async {
        for (step, status, answer) in [
            (&[Do::Message("14")], "14", &b"answer"[..]),
            (&[Do::Trailers("5")], "5", b""),
            (&[Do::HeadOnly("13", None)], "13", b""),
            (&[Do::Trailers("0")], "0", b""),
        ] {
            let (web, voting) = pair().await;
            let seen = scripted(&voting, step).await;
            let got = ask(&web, call(), b"vote").await;
            assert_eq!((got.0.as_str(), &*got.1), (status, answer));
            assert_eq!(seen.borrow().len(), 1);
        }
    });
}

#[test]
fn a_server_pushes_back_for_a_time_or_for_good() {
    run(async {
        const NEVER: Option<(&str, &str)> = Some(("grpc-retry-pushback-ms", "-1"));
        const LATER: Option<(&str, &str)> = Some(("grpc-retry-pushback-ms", "150"));
        let (web, voting) = pair().await;
        let seen = scripted(&voting, &[Do::HeadOnly("14", NEVER)]).await;
        assert_eq!(ask(&web, call(), b"vote").await.0, "14");
        assert_eq!(seen.borrow().len(), 1);

        let (web, voting) = pair().await;
        let seen = scripted(&voting, &[Do::HeadOnly("14", LATER), Do::Message("0")]).await;
        let begun = Instant::now();
        assert_eq!(ask(&web, call(), b"vote").await.0, "0");
        assert!(begun.elapsed() >= Duration::from_millis(150));
        assert_eq!(seen.borrow().len(), 2);
    });
}

#[test]
fn a_refused_stream_goes_elsewhere_without_being_asked_for() {
    run(async {
        for meshed in [false, true] {
            let mesh = Mesh::new();
            let (web, full, free) = (
                mesh.pod("web").await,
                mesh.pod("full").await,
                mesh.pod("free").await,
            );
            let endpoints = match meshed {
                true => [full.endpoint(80), free.endpoint(80)],
                false => [plain(full.address(18080)), plain(free.address(18080))],
            };
            mesh.service("voting", &endpoints);
            let _full = scripted(&full, &[Do::Refuse]).await;
            let seen = scripted(&free, &[Do::Message("0")]).await;
            for number in 0..10 {
                let call = Request::post("http://voting/vote.Voting/Vote")
                    .header("content-type", "application/grpc")
                    .header("te", "trailers");
                let (status, answer) = ask(&web, call, b"vote").await;
                assert_eq!(
                    (status.as_str(), &*answer),
                    ("0", &b"answer"[..]),
                    "{number} {meshed}"
                );
            }
            assert!(seen.borrow().iter().all(|(message, _)| message == b"vote"));
        }
    });
}

#[test]
fn a_calls_own_deadline_is_kept_and_what_is_left_of_it_goes_on() {
    run(async {
        let (web, voting) = pair().await;
        let seen = scripted(&voting, &[Do::Message("0")]).await;
        let timed = call().header("grpc-timeout", "20S");
        assert_eq!(ask(&web, timed, b"vote").await.0, "0");
        let told = seen.borrow()[0].1["grpc-timeout"]
            .to_str()
            .unwrap()
            .to_owned();
        let left: u64 = told.strip_suffix('u').expect(&told).parse().unwrap();
        assert!((10_000_000..=20_000_000).contains(&left), "{told}");

        let (web, voting) = pair().await;
        h2_app(&voting, |_request, respond| async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(respond);
        })
        .await;
        let begun = Instant::now();
        let timed = call().header("grpc-timeout", "100m");
        assert_eq!(ask(&web, timed, b"vote").await.0, "4", "DEADLINE_EXCEEDED");
        assert!(begun.elapsed() < Duration::from_secs(20));
    });
}

/// Octets of an answer that is not wanted: with so many of them, several times what one connection may have under way.
const UNWANTED: usize = 32 * 1024;
const TIMES: usize = 120;

/// An application that answers `/again` with 503 and a body the first time, and what follows with 200; anything else
/// with a body that nobody may read to its end.
async fn generous(pod: &Pod) {
    let first = Rc::new(Cell::new(true));
    h2_app(pod, move |request, mut respond| {
        let fails = request.uri().path() == "/again" && first.replace(!first.get());
        async move {
            let status = if fails { 503 } else { 200 };
            let head = Response::builder().status(status).body(()).unwrap();
            let Ok(mut stream) = respond.send_response(head, false) else {
                return;
            };
            let mut left = UNWANTED;
            while left > 0 {
                stream.reserve_capacity(left);
                let Some(Ok(count)) = poll_fn(|cx| stream.poll_capacity(cx)).await else {
                    return;
                };
                let count = count.min(left);
                left -= count;
                if stream
                    .send_data(vec![b'x'; count].into(), left == 0)
                    .is_err()
                {
                    return;
                }
            }
        }
    })
    .await;
}

#[test]
fn answers_that_are_retried_leave_the_window_of_their_connection_as_it_was() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        let allow = |rule: &mut tulle_api::outbound::http_route::Rule| {
            rule.allow_l5d_request_headers = true;
            // Every request is tried twice: the budget must not be what ends it.
            rule.retry = Some(tulle_api::outbound::http_route::Retry {
                max_retries: 1,
                budget: Some(tulle_api::http_route::RetryBudget {
                    retry_ratio: 2.0,
                    ..Default::default()
                }),
                ..Default::default()
            });
        };
        mesh.policy("voting", policy_with("voting", allow));
        mesh.endpoints("voting", &[voting.endpoint(80)]);
        generous(&voting).await;
        let mut client = connect(web.call().await).await;
        for number in 0..TIMES {
            let again = Request::get("http://voting/again")
                .header("l5d-retry-http", "503")
                .body(())
                .unwrap();
            let (answer, _) = client.send_request(again, true).unwrap();
            let mut answer = answer.await.unwrap();
            assert_eq!(answer.status(), 200, "{number}");
            let mut length = 0;
            while let Some(data) = next(answer.body_mut()).await {
                length += data.unwrap().len();
            }
            assert_eq!(length, UNWANTED, "{number}");
            client = client.ready().await.unwrap();
        }
    });
}

#[test]
fn answers_whose_callers_leave_leave_the_window_of_their_connection_as_it_was() {
    run(async {
        let (web, voting) = pair().await;
        generous(&voting).await;
        let mut client = connect(web.call().await).await;
        for number in 0..TIMES {
            let request = || Request::get("http://voting/").body(()).unwrap();
            let (answer, mut stream) = client.send_request(request(), true).unwrap();
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), 200, "{number}");
            stream.send_reset(Reason::CANCEL);
            drop(answer);
            client = client.ready().await.unwrap();
        }
        let whole = Request::get("http://voting/").body(()).unwrap();
        let (answer, _) = client.send_request(whole, true).unwrap();
        let mut answer = answer.await.unwrap();
        let mut length = 0;
        while let Some(data) = next(answer.body_mut()).await {
            length += data.unwrap().len();
        }
        assert_eq!(length, UNWANTED);
    });
}
