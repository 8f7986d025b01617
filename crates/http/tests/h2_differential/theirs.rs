//! The `h2` crate's reading.

use std::cell::RefCell;
use std::rc::Rc;

use h2::{RecvStream, client, server};
use http::{HeaderMap, Request, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::{LocalSet, spawn_local, yield_now};

use super::told::{End, Fields, Message, Told, normal};

type Shared = Rc<RefCell<Told>>;

fn fields(map: &HeaderMap) -> Fields {
    normal(
        map.iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes())),
    )
}

fn on_a_runtime<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, future)
}

/// Nothing that the codec says is of interest.
fn discard(mut reader: tokio::io::ReadHalf<DuplexStream>) {
    spawn_local(async move {
        let mut buffer = [0; 4096];
        while reader.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    });
}

fn end_of(error: &h2::Error) -> End {
    match error.reason() {
        Some(code) if error.is_reset() && error.is_remote() => End::Reset(code.into()),
        Some(_) if error.is_reset() => End::Broken,
        _ => End::Open,
    }
}

async fn collect(told: Shared, id: u32, mut body: RecvStream) {
    let set = |change: &dyn Fn(&mut Message)| {
        change(told.borrow_mut().messages.get_mut(&id).unwrap());
    };
    while let Some(data) = body.data().await {
        match data {
            Ok(data) => {
                let _ = body.flow_control().release_capacity(data.len());
                set(&|message| message.body.extend_from_slice(&data));
            }
            Err(error) => return set(&|message| message.end = end_of(&error)),
        }
    }
    match body.trailers().await {
        Ok(trailers) => set(&|message| {
            message.trailers = trailers.as_ref().map(fields).unwrap_or_default();
            message.end = End::Complete;
        }),
        Err(error) => set(&|message| message.end = end_of(&error)),
    }
}

/// As a server reads a client's octets.
pub fn server(wire: &[u8]) -> Told {
    on_a_runtime(async {
        let told = Shared::default();
        let (near, far) = duplex(1 << 22);
        let (reader, mut writer) = tokio::io::split(near);
        discard(reader);
        writer.write_all(wire).await.unwrap();
        let accepting = spawn_local(accept(far, told.clone()));
        // At the end of its input the crate forgets what it has not handed out: it gets time to do so.
        for _ in 0..200 {
            yield_now().await;
        }
        writer.shutdown().await.unwrap();
        accepting.await.unwrap();
        Rc::try_unwrap(told).unwrap().into_inner()
    })
}

async fn accept(far: DuplexStream, told: Shared) {
    let mut builder = server::Builder::new();
    builder
        .initial_connection_window_size(1 << 20)
        .max_concurrent_streams(1024)
        .max_header_list_size(64 * 1024);
    let Ok(mut connection) = builder.handshake::<_, bytes::Bytes>(far).await else {
        told.borrow_mut().lost = true;
        return;
    };
    let (mut answers, mut bodies) = (Vec::new(), Vec::new());
    while let Some(accepted) = connection.accept().await {
        let Ok((request, respond)) = accepted else {
            // The end of the input is none.
            told.borrow_mut().lost = accepted.is_err_and(|error| !error.is_io());
            break;
        };
        let id = u32::from(respond.stream_id());
        let (parts, body) = request.into_parts();
        let message = Message {
            start: format!("{} {}", parts.method, parts.uri),
            fields: fields(&parts.headers),
            ..Message::default()
        };
        told.borrow_mut().messages.insert(id, message);
        // Dropped, it would reset the stream.
        answers.push(respond);
        bodies.push(spawn_local(collect(told.clone(), id, body)));
    }
    drop(connection);
    for body in bodies {
        body.await.unwrap();
    }
}

/// As a client that has asked `streams` times reads a server's octets.
pub fn client(wire: &[u8], streams: u32) -> Told {
    on_a_runtime(async {
        let told = Shared::default();
        let (near, far) = duplex(1 << 22);
        let (reader, mut writer) = tokio::io::split(near);
        discard(reader);
        let mut builder = client::Builder::new();
        builder
            .initial_connection_window_size(1 << 20)
            .max_header_list_size(64 * 1024)
            .enable_push(false);
        let (mut send, connection) = builder.handshake::<_, bytes::Bytes>(far).await.unwrap();
        let mut bodies = Vec::new();
        let mut open = Vec::new();
        for _ in 0..streams {
            let request = Request::get("http://web/")
                .version(Version::HTTP_2)
                .body(())
                .unwrap();
            let (answer, _) = send.send_request(request, true).unwrap();
            open.push(answer);
        }
        let task = spawn_local(connection);
        // The requests are out before the answers come.
        for _ in 0..10 {
            yield_now().await;
        }
        for (n, answer) in open.into_iter().enumerate() {
            let (told, id) = (told.clone(), 2 * n as u32 + 1);
            bodies.push(spawn_local(async move {
                if let Ok(answer) = answer.await {
                    let (parts, body) = answer.into_parts();
                    let message = Message {
                        start: parts.status.as_u16().to_string(),
                        fields: fields(&parts.headers),
                        ..Message::default()
                    };
                    told.borrow_mut().messages.insert(id, message);
                    collect(told, id, body).await;
                }
            }));
        }
        writer.write_all(wire).await.unwrap();
        writer.shutdown().await.unwrap();
        // The connection ends by itself only once nobody may ask any more.
        drop(send);
        for body in bodies {
            body.await.unwrap();
        }
        let ended = task.await.unwrap();
        told.borrow_mut().lost = ended.is_err_and(|error| !error.is_io() && !error.is_remote());
        Rc::try_unwrap(told).unwrap().into_inner()
    })
}
