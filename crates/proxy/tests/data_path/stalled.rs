//! Peers that hold an exchange up in the middle: senders and servers that stop are given up, who pauses by right is not.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::client::{Http1, echo};
use crate::grpc::{call, connect, h2_app, next, trailers};
use crate::rig::{Mesh, Pod, app, run};

/// Waits for so many ended answers with this error.
async fn counted(pod: &Pod, error: &str, expected: f64) {
    let error = format!("error=\"{error}\"");
    let labels = ["direction=\"inbound\"", &error];
    let end = Instant::now() + Duration::from_secs(20);
    while pod.metric("response_total", &labels) < expected {
        assert!(Instant::now() < end, "{}", pod.metrics());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(pod.metric("response_total", &labels), expected);
}

/// Takes what comes and never answers.
async fn patient(mut stream: TcpStream) {
    let mut taken = [0; 1_024];
    while stream.read(&mut taken).await.is_ok_and(|count| count > 0) {}
}

const HEAD: &str = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1000\r\n\r\n";

#[test]
fn a_client_that_stops_within_its_request_or_drips_is_answered_408() {
    run(async {
        let limit = [("TULLE_PROXY_HTTP_BODY_TIMEOUT", "800ms")];
        let pod = Mesh::new().pod_with("web", &limit).await;
        app(pod.address(18080), patient).await;
        let mut silent = Http1::new(pod.enter().await);
        silent.send(format!("{HEAD}abc")).await;
        let (mut reader, mut writer) = pod.enter().await.into_split();
        let drip = tokio::task::spawn_local(async move {
            use tokio::io::AsyncWriteExt;
            let mut sent = writer.write_all(HEAD.as_bytes()).await;
            while sent.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
                sent = writer.write_all(b"x").await;
            }
        });
        let answer = silent.answer().await;
        let said = (answer.status(), answer.field("tulle-reason"));
        assert_eq!(said, (408, Some("sender-stalled")), "{answer:?}");
        // A request that is not complete has no next one.
        assert!(silent.ended().await);
        let mut dripped = Vec::new();
        let _reset = reader.read_to_end(&mut dripped).await;
        let dripped = String::from_utf8(dripped).unwrap();
        assert!(dripped.starts_with("HTTP/1.1 408 "), "{dripped}");
        drip.abort();
        counted(&pod, "sender-stalled", 2.0).await;
    });
}

#[test]
fn a_stream_that_stops_within_its_request_leaves_its_connection_to_others() {
    run(async {
        let limit = [("TULLE_PROXY_HTTP_BODY_TIMEOUT", "400ms")];
        let pod = Mesh::new().pod_with("web", &limit).await;
        h2_app(&pod, |request, mut respond| async move {
            let mut body = request.into_body();
            while let Some(data) = next(&mut body).await {
                if data.is_err() {
                    return;
                }
            }
            let _left = respond.send_response(http::Response::new(()), true);
        })
        .await;
        let mut send = connect(pod.enter().await).await;
        let request = Request::post("http://web/").body(()).unwrap();
        let (answer, mut body) = send.send_request(request, false).unwrap();
        body.send_data(Bytes::from_static(b"abc"), false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 408);
        let request = Request::get("http://web/").body(()).unwrap();
        let (answer, _) = send.send_request(request, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        counted(&pod, "sender-stalled", 1.0).await;
    });
}

#[test]
fn a_client_that_is_slow_within_reason_is_served() {
    run(async {
        let limit = [("TULLE_PROXY_HTTP_BODY_TIMEOUT", "800ms")];
        let pod = Mesh::new().pod_with("web", &limit).await;
        app(pod.address(18080), echo).await;
        let mut slow = Http1::new(pod.enter().await);
        slow.send(HEAD).await;
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            slow.send([b'x'; 100]).await;
        }
        assert_eq!(slow.answer().await.status(), 200);
        assert_eq!(slow.get("web", "/").await.status(), 200);
    });
}

#[test]
fn who_waits_for_leave_to_send_owes_nothing_yet() {
    run(async {
        let limit = [("TULLE_PROXY_HTTP_BODY_TIMEOUT", "500ms")];
        let pod = Mesh::new().pod_with("web", &limit).await;
        app(pod.address(18080), |stream| async move {
            let mut server = Http1::new(stream);
            while server.head().await.is_some() {
                tokio::time::sleep(Duration::from_millis(1_200)).await;
                server.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            }
        })
        .await;
        let mut client = Http1::new(pod.enter().await);
        let head = HEAD.replace("Host", "Expect: 100-continue\r\nHost");
        client.send(head).await;
        let leave_head = client.head().await.unwrap();
        assert!(leave_head.starts_with("HTTP/1.1 100"), "{leave_head}");
        let leave = Instant::now();
        let answer = client.answer().await;
        assert_eq!(answer.status(), 408);
        assert!(leave.elapsed() > Duration::from_millis(400));
    });
}

#[test]
fn a_grpc_call_and_one_whose_answer_has_begun_may_be_silent() {
    run(async {
        let limit = [("TULLE_PROXY_HTTP_BODY_TIMEOUT", "300ms")];
        let pod = Mesh::new().pod_with("web", &limit).await;
        h2_app(&pod, |request, mut respond| async move {
            let early = request.uri().path() == "/early";
            let mut body = request.into_body();
            let mut answer = None;
            if early {
                let head = http::Response::new(());
                answer = Some(respond.send_response(head, false).unwrap());
            }
            let mut taken = 0;
            while let Some(data) = next(&mut body).await {
                taken += data.expect("the request was cut").len();
            }
            assert_eq!(taken, 6);
            let mut answer = answer.unwrap_or_else(|| {
                let head = http::Response::new(());
                respond.send_response(head, false).unwrap()
            });
            answer.send_trailers(trailers("0")).unwrap();
        })
        .await;
        let mut send = connect(pod.enter().await).await;
        let early = Request::post("http://web/early").body(()).unwrap();
        for request in [call("/silent"), early] {
            let (answer, mut body) = send.send_request(request, false).unwrap();
            body.send_data(Bytes::from_static(b"abc"), false).unwrap();
            tokio::time::sleep(Duration::from_millis(1_200)).await;
            body.send_data(Bytes::from_static(b"def"), true).unwrap();
            let mut answer = answer.await.unwrap();
            assert_eq!(answer.status(), 200);
            while let Some(data) = next(answer.body_mut()).await {
                data.unwrap();
            }
        }
        counted(&pod, "sender-stalled", 0.0).await;
    });
}

#[test]
fn a_server_that_takes_nothing_of_the_request_is_given_up() {
    run(async {
        let limit = [("TULLE_PROXY_HTTP_SERVER_STALL_TIMEOUT", "600ms")];
        let pod = Mesh::new().pod_with("web", &limit).await;
        let left = Rc::new(Cell::new(0));
        let leaving = left.clone();
        app(pod.address(18080), move |mut stream| {
            let left = leaving.clone();
            async move {
                let mut head = [0; 16];
                stream.read_exact(&mut head).await.unwrap();
                // Deaf from here on, until it is told.
                let _error = stream.ready(tokio::io::Interest::ERROR).await;
                left.set(left.get() + 1);
            }
        })
        .await;
        let (mut reader, mut writer) = pod.enter().await.into_split();
        let pour = tokio::task::spawn_local(async move {
            use tokio::io::AsyncWriteExt;
            let head = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1000000000000\r\n\r\n";
            let mut poured = writer.write_all(head.as_bytes()).await;
            while poured.is_ok() {
                poured = writer.write_all(&[7; 16 * 1_024]).await;
            }
        });
        let mut answer = [0; 12];
        reader.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 504");
        counted(&pod, "server-stalled", 1.0).await;
        pour.abort();
    });
}

#[test]
fn a_grpc_consumer_may_pause_for_longer_and_not_for_ever() {
    run(async {
        let limits = [
            ("TULLE_PROXY_HTTP_STALL_TIMEOUT", "300ms"),
            ("TULLE_PROXY_GRPC_STALL_TIMEOUT", "4s"),
        ];
        let pod = Mesh::new().pod_with("web", &limits).await;
        h2_app(&pod, |_, mut respond| async move {
            let head = http::Response::new(());
            let mut body = respond.send_response(head, false).unwrap();
            loop {
                body.reserve_capacity(16 * 1_024);
                let room = std::future::poll_fn(|cx| body.poll_capacity(cx)).await;
                let Some(Ok(room)) = room else { break };
                if body.send_data(vec![7; room].into(), false).is_err() {
                    break;
                }
            }
        })
        .await;
        let mut send = connect(pod.enter().await).await;
        let (answer, mut question) = send.send_request(call("/feed"), false).unwrap();
        question
            .send_data(Bytes::from_static(b"ask"), true)
            .unwrap();
        let (anybody, _) = send
            .send_request(Request::get("http://web/").body(()).unwrap(), true)
            .unwrap();
        let (mut paused, mut stalled) = (answer.await.unwrap(), anybody.await.unwrap());
        let end = Instant::now() + Duration::from_secs(20);
        let cut = loop {
            assert!(Instant::now() < end);
            if let Err(fault) = stalled.body_mut().data().await.unwrap() {
                break fault;
            }
        };
        assert!(cut.is_reset());
        counted(&pod, "receiver-stalled", 1.0).await;
        // The consumer goes on where it was, well beyond what its window held.
        let mut taken = 0;
        while taken < 1_000_000 {
            taken += next(paused.body_mut()).await.unwrap().unwrap().len();
        }
        drop(stalled);
        counted(&pod, "receiver-stalled", 2.0).await;
        let fault = loop {
            if let Err(fault) = next(paused.body_mut()).await.unwrap() {
                break fault;
            }
        };
        assert!(fault.is_reset());
        assert_eq!(pod.metric_of("http_stalled_exchanges"), 0.0);
    });
}
