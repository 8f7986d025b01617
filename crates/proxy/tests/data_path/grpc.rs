//! HTTP/2 and gRPC through two sidecars: streaming both ways, trailers, resets both ways, many streams. The client and
//! the application are the `h2` crate's.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::client::Http1;
use crate::rig::{Mesh, Pod, app, plain, run};

pub type Send = h2::client::SendRequest<Bytes>;
pub type Respond = h2::server::SendResponse<Bytes>;

pub async fn connect(stream: TcpStream) -> Send {
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ended = connection.await;
    });
    send.ready().await.unwrap()
}

/// An application that answers each stream with `answer`.
pub async fn h2_app<F: Future<Output = ()> + 'static>(
    pod: &Pod,
    answer: impl Fn(Request<RecvStream>, Respond) -> F + 'static,
) {
    let answer = Rc::new(answer);
    app(pod.address(18080), move |stream| {
        let answer = answer.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::task::spawn_local(answer(request, respond));
            }
        }
    })
    .await;
}

pub async fn pair(mesh: &Mesh) -> (Pod, Pod) {
    let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
    mesh.service("voting", &[voting.endpoint(80)]);
    (web, voting)
}

pub fn call(path: &str) -> Request<()> {
    Request::post(format!("http://voting{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

pub async fn next(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let data = body.data().await?;
    if let Ok(data) = &data {
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    Some(data)
}

async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let count = poll_fn(|cx| stream.poll_capacity(cx))
            .await
            .unwrap()
            .unwrap();
        stream
            .send_data(data.split_to(count.min(data.len())), false)
            .unwrap();
    }
}

pub fn trailers(status: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers
}

/// Sends every message back, then the trailers.
async fn echo(request: Request<RecvStream>, mut respond: Respond) {
    assert_eq!(request.headers()["te"], "trailers");
    assert!(
        request.headers()["l5d-client-id"]
            .to_str()
            .unwrap()
            .starts_with("web.default.")
    );
    let mut answer = respond
        .send_response(
            Response::builder()
                .header("content-type", "application/grpc")
                .body(())
                .unwrap(),
            false,
        )
        .unwrap();
    let mut body = request.into_body();
    while let Some(Ok(data)) = next(&mut body).await {
        send(&mut answer, data).await;
    }
    answer.send_trailers(trailers("0")).unwrap();
}

#[test]
fn messages_stream_both_ways_and_trailers_end_them() {
    run(async {
        let (web, voting) = pair(&Mesh::new()).await;
        h2_app(&voting, echo).await;
        let mut client = connect(web.call().await).await;
        let (answer, mut request) = client.send_request(call("/Echo"), false).unwrap();
        send(&mut request, Bytes::from_static(b"one")).await;
        let mut answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers().get("l5d-orig-proto"), None);
        // The answer flows while the request does.
        assert_eq!(next(answer.body_mut()).await.unwrap().unwrap(), "one");
        send(&mut request, Bytes::from_static(b"two")).await;
        assert_eq!(next(answer.body_mut()).await.unwrap().unwrap(), "two");
        request.send_data(Bytes::new(), true).unwrap();
        assert!(next(answer.body_mut()).await.is_none());
        assert_eq!(
            answer.body_mut().trailers().await.unwrap().unwrap()["grpc-status"],
            "0"
        );
        let labels = [
            "direction=\"inbound\"",
            "grpc_status=\"0\"",
            "classification=\"success\"",
        ];
        assert_eq!(
            voting.metric("response_total", &labels),
            1.0,
            "{}",
            voting.metrics()
        );
    });
}

#[test]
fn a_stream_larger_than_every_window_passes_and_other_streams_beside_it() {
    run(async {
        let (web, voting) = pair(&Mesh::new()).await;
        h2_app(&voting, echo).await;
        let client = connect(web.call().await).await;
        let size = 3_000_000;
        let streams = (0..8).map(|n| {
            let mut client = client.clone();
            async move {
                let (answer, mut request) = client.send_request(call("/Big"), false).unwrap();
                let upload = async {
                    send(&mut request, Bytes::from(vec![n; size / 8])).await;
                    request.send_data(Bytes::new(), true).unwrap();
                };
                let download = async {
                    let mut answer = answer.await.unwrap();
                    let mut count = 0;
                    while let Some(data) = next(answer.body_mut()).await {
                        let data = data.unwrap();
                        assert!(data.iter().all(|byte| *byte == n));
                        count += data.len();
                    }
                    count
                };
                tokio::join!(upload, download).1
            }
        });
        let mut tasks = tokio::task::JoinSet::new();
        for stream in streams {
            tasks.spawn_local(stream);
        }
        while let Some(count) = tasks.join_next().await {
            assert_eq!(count.unwrap(), size / 8);
        }
    });
}

#[test]
fn an_error_in_trailers_is_a_failure_though_the_status_is_200() {
    run(async {
        let (web, voting) = pair(&Mesh::new()).await;
        h2_app(&voting, |_, mut respond: Respond| async move {
            let mut answer = respond.send_response(Response::new(()), false).unwrap();
            answer.send_trailers(trailers("2")).unwrap();
        })
        .await;
        let mut client = connect(web.call().await).await;
        let (answer, _) = client.send_request(call("/Vote"), true).unwrap();
        let mut answer = answer.await.unwrap();
        assert!(next(answer.body_mut()).await.is_none());
        assert_eq!(
            answer.body_mut().trailers().await.unwrap().unwrap()["grpc-status"],
            "2"
        );
        let labels = [
            "direction=\"outbound\"",
            "grpc_status=\"2\"",
            "classification=\"failure\"",
        ];
        assert_eq!(
            web.metric("response_total", &labels),
            1.0,
            "{}",
            web.metrics()
        );
    });
}

#[test]
fn a_reset_reaches_the_other_end_with_its_reason() {
    run(async {
        let (web, voting) = pair(&Mesh::new()).await;
        let (told, tell) = (
            Rc::new(tokio::sync::Notify::new()),
            Rc::new(tokio::sync::Notify::new()),
        );
        let (hears, begun) = (told.clone(), tell.clone());
        h2_app(
            &voting,
            move |request: Request<RecvStream>, mut respond: Respond| {
                let (hears, begun) = (hears.clone(), begun.clone());
                async move {
                    if request.uri().path() == "/Server" {
                        return respond.send_reset(Reason::ENHANCE_YOUR_CALM);
                    }
                    let mut answer = respond.send_response(Response::new(()), false).unwrap();
                    begun.notify_one();
                    let reason = poll_fn(|cx| answer.poll_reset(cx)).await.unwrap();
                    assert_eq!(reason, Reason::CANCEL);
                    hears.notify_one();
                }
            },
        )
        .await;
        let mut client = connect(web.call().await).await;
        let (answer, _) = client.send_request(call("/Server"), true).unwrap();
        assert_eq!(
            answer.await.unwrap_err().reason(),
            Some(Reason::ENHANCE_YOUR_CALM)
        );
        let (_answer, mut request) = client.send_request(call("/Client"), false).unwrap();
        tell.notified().await;
        request.send_reset(Reason::CANCEL);
        told.notified().await;
    });
}

#[test]
fn an_http1_client_gets_502_for_a_reset() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = pair(&mesh).await;
        app(voting.address(18080), |stream| async move { drop(stream) }).await;
        let mut client = Http1::new(web.call().await);
        let answer = client.get("voting", "/").await;
        assert_eq!(
            (answer.status(), answer.field("tulle-reason")),
            (502, Some("connection-closed"))
        );
    });
}

#[test]
fn many_calls_share_one_connection_and_none_is_lost() {
    run(async {
        let (web, voting) = pair(&Mesh::new()).await;
        h2_app(&voting, echo).await;
        let client = connect(web.call().await).await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let mut client = client.clone();
            tasks.spawn_local(async move {
                client = client.ready().await.unwrap();
                let (answer, _) = client.send_request(call("/Many"), true).unwrap();
                answer.await.unwrap().status()
            });
        }
        while let Some(status) = tasks.join_next().await {
            assert_eq!(status.unwrap(), 200);
        }
        assert_eq!(
            web.metric("tcp_open_total", &["peer=\"dst\"", "tls=\"true\""]),
            1.0
        );
    });
}

#[test]
fn a_grpc_caller_gets_a_grpc_status_for_what_the_proxy_answers() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        mesh.service("voting", &[]);
        let mut client = connect(web.call().await).await;
        let (answer, _) = client.send_request(call("/None"), true).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(
            (
                &answer.headers()["grpc-status"],
                &answer.headers()["tulle-reason"]
            ),
            (&"14".parse().unwrap(), &"no-endpoints".parse().unwrap())
        );
        assert!(answer.body().is_end_stream());
    });
}

#[test]
fn http2_to_a_server_outside_of_the_mesh_stays_http2() {
    run(async {
        let mesh = Mesh::new();
        let (web, other) = (mesh.pod("web").await, mesh.pod("other").await);
        h2_app(&other, |request, mut respond: Respond| async move {
            assert_eq!(request.version(), http::Version::HTTP_2);
            respond
                .send_response(Response::builder().status(204).body(()).unwrap(), true)
                .unwrap();
        })
        .await;
        mesh.service("voting", &[plain(other.address(18080))]);
        let mut client = connect(web.call().await).await;
        let (answer, _) = client.send_request(call("/Plain"), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 204);
    });
}

#[test]
fn a_websocket_over_http2_crosses_the_mesh_and_a_server_that_takes_none_is_told_of_none() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = pair(&mesh).await;
        app(voting.address(18080), |stream| {
            let mut server = h2::server::Builder::new();
            server.enable_connect_protocol();
            async move {
                let mut connection = server.handshake::<_, Bytes>(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let protocol = request.extensions().get::<h2::ext::Protocol>();
                    assert_eq!(protocol.unwrap().as_str(), "websocket");
                    assert_eq!(request.uri().path(), "/chat");
                    tokio::task::spawn_local(async move {
                        let mut answer = respond.send_response(Response::new(()), false).unwrap();
                        let mut body = request.into_body();
                        while let Some(Ok(data)) = next(&mut body).await {
                            send(&mut answer, data).await;
                        }
                        answer.send_data(Bytes::new(), true).unwrap();
                    });
                }
            }
        })
        .await;
        let tunnel = || {
            let mut request = Request::connect("http://voting/chat").body(()).unwrap();
            let protocol = h2::ext::Protocol::from_static("websocket");
            request.extensions_mut().insert(protocol);
            request
        };
        let mut client = connect(web.call().await).await;
        // Our SETTINGS have to arrive first.
        while !client.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
        let (answer, mut up) = client.send_request(tunnel(), false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut down = answer.into_body();
        for n in 0..20u8 {
            send(&mut up, Bytes::from(vec![n; 1000])).await;
            let mut echoed = Vec::new();
            while echoed.len() < 1000 {
                echoed.extend_from_slice(&next(&mut down).await.unwrap().unwrap());
            }
            assert!(echoed.iter().all(|byte| *byte == n));
        }
        up.send_data(Bytes::new(), true).unwrap();
        // The end may come with an empty piece.
        while let Some(data) = next(&mut down).await {
            assert!(data.unwrap().is_empty());
        }

        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        app(voting.address(18080), |stream| async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            assert!(
                connection
                    .accept()
                    .await
                    .is_none_or(|request| request.is_err())
            );
        })
        .await;
        mesh.endpoints("voting", &[voting.endpoint(80)]);
        let mut client = connect(web.call().await).await;
        while !client.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
        let (answer, _up) = client.send_request(tunnel(), false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 502);
    });
}

/// A tunnel on the `h2` crate's client.
fn tunnel() -> Request<()> {
    let mut request = Request::connect("http://voting/tunnel").body(()).unwrap();
    *request.method_mut() = http::Method::CONNECT;
    request
        .extensions_mut()
        .insert(h2::ext::Protocol::from_static("websocket"));
    request
}

#[test]
fn a_tunnel_in_http2_may_end_in_one_direction_and_go_on_in_the_other() {
    run(async {
        let (web, voting) = pair(&Mesh::new()).await;
        app(voting.address(18080), |stream| async move {
            let mut connection = h2::server::Builder::new()
                .enable_connect_protocol()
                .handshake::<_, Bytes>(stream)
                .await
                .unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                tokio::task::spawn_local(async move {
                    let server_first = request.uri().path() == "/server-first";
                    let mut said = respond.send_response(Response::new(()), false).unwrap();
                    let mut body = request.into_body();
                    let heard = async {
                        let mut heard = Vec::new();
                        while let Some(data) = next(&mut body).await {
                            heard.extend_from_slice(&data.unwrap());
                        }
                        heard
                    };
                    if server_first {
                        said.send_data(Bytes::from_static(b"bye"), true).unwrap();
                        // What comes after our own end still arrives.
                        assert_eq!(heard.await, b"after the server's end");
                    } else {
                        let heard = heard.await;
                        said.send_data(Bytes::from(heard), true).unwrap();
                    }
                });
            }
        })
        .await;
        let mut client = connect(web.call().await).await;
        for (path, first) in [("/client-first", false), ("/server-first", true)] {
            let mut request = tunnel();
            *request.uri_mut() = format!("http://voting{path}").parse().unwrap();
            let (answer, mut say) = client.send_request(request, false).unwrap();
            let mut answer = answer.await.unwrap();
            assert_eq!(answer.status(), 200);
            if !first {
                send(&mut say, Bytes::from_static(b"the client's end")).await;
                say.send_data(Bytes::new(), true).unwrap();
            }
            let mut heard = Vec::new();
            while let Some(data) = next(answer.body_mut()).await {
                heard.extend_from_slice(&data.unwrap());
            }
            if first {
                assert_eq!(heard, b"bye");
                for piece in [&b"after the "[..], b"server's end"] {
                    send(&mut say, Bytes::copy_from_slice(piece)).await;
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                say.send_data(Bytes::new(), true).unwrap();
                let reset = poll_fn(|cx| say.poll_reset(cx));
                let reset = tokio::time::timeout(std::time::Duration::from_millis(200), reset);
                assert!(!matches!(reset.await, Ok(Ok(_))), "the client was reset");
            } else {
                assert_eq!(heard, b"the client's end");
            }
        }
        assert_eq!(
            voting.metric("response_total", &["error=\"stream-reset\""]),
            0.0
        );
    });
}

#[test]
fn a_client_that_fills_an_applications_limit_of_streams_does_not_hold_up_another() {
    run(async {
        let (_, voting) = pair(&Mesh::new()).await;
        let (connections, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        // Until then, what hangs hangs.
        let (release, released) = watch::channel(false);
        let opened = connections.clone();
        app(voting.address(18080), move |stream| {
            opened.set(opened.get() + 1);
            let (most, released) = (most.clone(), released.clone());
            async move {
                let mut connection = h2::server::Builder::new()
                    .max_concurrent_streams(4)
                    .handshake::<_, Bytes>(stream)
                    .await
                    .unwrap();
                let now = Rc::new(Cell::new(0));
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let (now, most) = (now.clone(), most.clone());
                    let mut released = released.clone();
                    now.set(now.get() + 1);
                    most.set(most.get().max(now.get()));
                    assert!(most.get() <= 4, "the limit was not kept");
                    tokio::task::spawn_local(async move {
                        if request.uri().path() == "/hang" {
                            let _told = released.wait_for(|released| *released).await;
                        }
                        let _gone = respond.send_response(Response::new(()), true);
                        now.set(now.get() - 1);
                    });
                }
            }
        })
        .await;
        let mut greedy = connect(voting.enter().await).await;
        let first = Request::get("http://voting/").body(()).unwrap();
        let answer = greedy.send_request(first, true).unwrap().0.await;
        assert_eq!(answer.unwrap().status(), 200);
        let mut hanging = Vec::new();
        // More than one connection takes, fewer than all that there may be.
        for _ in 0..20 {
            let request = Request::get("http://voting/hang").body(()).unwrap();
            hanging.push(greedy.send_request(request, true).unwrap().0);
        }
        while connections.get() < 5 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let mut modest = connect(voting.enter().await).await;
        for _ in 0..10 {
            let request = Request::get("http://voting/").body(()).unwrap();
            let answer = modest.send_request(request, true).unwrap().0;
            let answer = tokio::time::timeout(std::time::Duration::from_secs(20), answer).await;
            let answer = answer.expect("it waited for the other client");
            assert_eq!(answer.unwrap().status(), 200);
        }
        release.send_replace(true);
        for answer in hanging {
            assert_eq!(answer.await.unwrap().status(), 200);
        }
        assert!(
            (5..=8).contains(&connections.get()),
            "{} connections",
            connections.get()
        );
        // And never more than the bound, however many ask.
        release.send_replace(false);
        let all: Vec<_> = (0..60)
            .map(|_| {
                let request = Request::get("http://voting/hang").body(()).unwrap();
                greedy.send_request(request, true).unwrap().0
            })
            .collect();
        while connections.get() < tulle_proxy::http::origin::MAX_H2 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        release.send_replace(true);
        for answer in all {
            assert_eq!(answer.await.unwrap().status(), 200);
        }
        assert_eq!(connections.get(), tulle_proxy::http::origin::MAX_H2);
    });
}
