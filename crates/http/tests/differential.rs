//! hyper as the oracle: what is right we read as it does; what is wrong in framing and refused by hyper, we never accept.
//! (The other way round does not hold: we refuse much that hyper takes, two Hosts for one.)

#![allow(clippy::unwrap_used)]

mod traffic;
mod transcript;

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use traffic::{spoil, valid, valid_responses, wrongs};
use transcript::{Ending, Message, requests, responses};
use tulle_http::h1::Asked;
use tulle_http::{Head, MethodKind, TargetForm};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// What hyper read of one message.
#[derive(Debug, Default, PartialEq)]
struct Oracle {
    start: String,
    fields: Fields,
    body: Vec<u8>,
    trailers: Fields,
    complete: bool,
}

fn sorted(map: &HeaderMap) -> Fields {
    let mut fields: Fields = map
        .iter()
        .map(|(name, value)| (name.as_str().into(), value.as_bytes().into()))
        .collect();
    fields.sort();
    fields
}

async fn collect(mut body: Incoming, oracle: &mut Oracle) {
    while let Some(frame) = body.frame().await {
        match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => oracle.body.extend_from_slice(&data),
            Ok(Err(frame)) => {
                oracle.trailers = frame.trailers_ref().map(sorted).unwrap_or_default()
            }
            Err(_) => return,
        }
    }
    oracle.complete = true;
}

fn on_a_runtime<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

/// What hyper's server makes of these bytes, followed by the end of input.
fn hyper_requests(bytes: &[u8]) -> Vec<Oracle> {
    on_a_runtime(async {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let (mut client, server) = duplex(1 << 20);
        let service = service_fn(|request: Request<Incoming>| {
            let seen = seen.clone();
            async move {
                let (parts, body) = request.into_parts();
                let start = format!("{} {} {:?}", parts.method, parts.uri, parts.version);
                let mut oracle = Oracle {
                    start,
                    fields: sorted(&parts.headers),
                    ..Oracle::default()
                };
                collect(body, &mut oracle).await;
                seen.borrow_mut().push(oracle);
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(server), service);
        let talk = async {
            client.write_all(bytes).await.unwrap();
            client.shutdown().await.unwrap();
            let _ = client.read_to_end(&mut Vec::new()).await;
        };
        let (_refused, ()) = tokio::join!(connection, talk);
        seen.take()
    })
}

/// What hyper's client makes of these bytes as the answer to a GET or HEAD.
fn hyper_response(bytes: &[u8], method: &str) -> Option<Oracle> {
    on_a_runtime(async {
        let (client, mut server) = duplex(1 << 20);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client))
            .await
            .unwrap();
        let request = Request::builder()
            .method(method)
            .uri("/")
            .header("host", "a")
            .body(Empty::<Bytes>::new())
            .unwrap();
        let ask = async {
            let response = sender.send_request(request).await.ok()?;
            let (parts, body) = response.into_parts();
            let mut oracle = Oracle {
                start: parts.status.as_u16().to_string(),
                fields: sorted(&parts.headers),
                ..Oracle::default()
            };
            collect(body, &mut oracle).await;
            Some(oracle)
        };
        let answer = async {
            // The answer goes out once the question is in: hyper takes bytes on an idle connection for an error.
            let mut question = [0; 512];
            assert!(server.read(&mut question).await.unwrap() > 0);
            server.write_all(bytes).await.unwrap();
            server.shutdown().await.unwrap();
            let _ = server.read_to_end(&mut Vec::new()).await;
        };
        let (answered, _broken, ()) = tokio::join!(ask, async { connection.await.is_ok() }, answer);
        answered
    })
}

fn fields(head: &Head) -> Fields {
    head.iter()
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect()
}

/// A request of ours in hyper's terms. Ours merges Host into the authority and writes an absolute target's into it.
fn as_hyper_saw(message: &Message) -> Oracle {
    let head = &message.head;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let authority = head.authority().map(text);
    let target = match head.target_form() {
        TargetForm::Absolute => format!(
            "{}://{}{}",
            text(head.scheme()),
            authority.clone().unwrap_or_default(),
            text(head.path())
        ),
        TargetForm::Authority => authority.clone().unwrap_or_default(),
        TargetForm::Origin | TargetForm::Asterisk => text(head.path()),
    };
    let version = if head.version() == tulle_http::Version::Http10 {
        "HTTP/1.0"
    } else {
        "HTTP/1.1"
    };
    let mut fields = fields(head);
    fields.extend(authority.map(|authority| (b"host".to_vec(), authority.into_bytes())));
    fields.sort();
    Oracle {
        start: format!("{} {target} {version}", text(head.method())),
        fields,
        ..payload(message)
    }
}

fn payload(message: &Message) -> Oracle {
    let mut trailers = message.trailers.as_ref().map(fields).unwrap_or_default();
    trailers.sort();
    Oracle {
        body: message.body.clone(),
        trailers,
        complete: message.complete,
        ..Oracle::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn right_requests_are_read_as_hyper_reads_them(bytes in valid()) {
        let ours: Vec<Oracle> = requests([&bytes[..]]).messages.iter().map(as_hyper_saw).collect();
        prop_assert_eq!(ours, hyper_requests(&bytes));
    }

    #[test]
    fn right_responses_are_read_as_hyper_reads_them(bytes in valid_responses()) {
        let ours = final_response(&bytes, MethodKind::Other).expect("right");
        prop_assert_eq!(Some(ours), hyper_response(&bytes, "GET"));
    }

    #[test]
    fn no_request_is_accepted_that_hyper_refuses_or_reads_differently(bytes in valid(), wrongs in wrongs()) {
        let bytes = spoil(&bytes, &wrongs);
        let read = requests([&bytes[..]]);
        let hyper = hyper_requests(&bytes);
        for (at, message) in read.messages.iter().filter(|message| message.complete).enumerate() {
            let ours = as_hyper_saw(message);
            // hyper's Uri refuses octets in targets that have nothing to do with framing; then it stops here.
            if hyper::Uri::try_from(message.head.path()).is_err() || message.head.target_form() == TargetForm::Absolute {
                break;
            }
            let Some(theirs) = hyper.get(at) else {
                return Err(TestCaseError::fail(format!("only we accept {ours:?}")));
            };
            prop_assert_eq!((&ours.start, &ours.fields, &ours.body, theirs.complete), (&theirs.start, &theirs.fields, &theirs.body, true));
            prop_assert!(ours.trailers.iter().all(|field| theirs.trailers.contains(field)));
        }
    }

    #[test]
    fn no_response_is_accepted_that_hyper_refuses_or_reads_differently(
        bytes in valid_responses(), wrongs in wrongs(), head in any::<bool>(),
    ) {
        let bytes = spoil(&bytes, &wrongs);
        let (kind, method) = if head { (MethodKind::Head, "HEAD") } else { (MethodKind::Other, "GET") };
        if let Some(ours) = final_response(&bytes, kind).filter(|ours| ours.complete) {
            let theirs = hyper_response(&bytes, method);
            let Some(mut theirs) = theirs else { return Err(TestCaseError::fail(format!("only we accept {ours:?}"))) };
            // A Host in a response means nothing; we leave it out.
            theirs.fields.retain(|(name, _)| name != b"host");
            prop_assert_eq!((&ours.start, &ours.fields, &ours.body, theirs.complete), (&theirs.start, &theirs.fields, &theirs.body, true));
        }
    }
}

/// The final response that we read, in hyper's terms; `None` if it was refused or is not there.
fn final_response(bytes: &[u8], method: MethodKind) -> Option<Oracle> {
    let read = responses(
        Asked {
            method,
            upgrade: false,
        },
        [bytes],
    );
    let message = read
        .messages
        .iter()
        .find(|message| !message.framing.interim)?;
    // A refusal after the end of the message is about bytes that nobody asked for.
    if !message.complete && matches!(read.ending, Ending::Refused(_)) {
        return None;
    }
    let mut fields = fields(&message.head);
    fields.sort();
    Some(Oracle {
        start: message.head.status().to_string(),
        fields,
        ..payload(message)
    })
}

#[test]
fn the_oracle_itself_tells_right_from_wrong() {
    let one = hyper_requests(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(
        (one.len(), &one[0].body[..], one[0].complete),
        (1, &b"hi"[..], true)
    );
    assert!(
        hyper_requests(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\nhi").is_empty()
    );
    assert!(hyper_response(b"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n", "GET").is_none());
}
