//! When and how an HTTP/1 connection writes: late, once, whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tulle_http::{MethodKind, Version};

use super::*;

/// Counts how often its task was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(20), test)
            .await
            .expect("nothing happens any more")
    })
}

/// A server's connection with the head of an answer of so many octets, and its client. The socket takes few at a time.
async fn answering(length: usize) -> (Connection, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, server) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    let (client, server) = (client.unwrap(), server.unwrap().0);
    socket2::SockRef::from(&server)
        .set_send_buffer_size(4_096)
        .unwrap();
    server.writable().await.unwrap();
    let mut connection = Connection::server(Io::from(server), Limits::default());
    let mut head = Head::new();
    head.set_status(200).unwrap();
    let to = Answering {
        method: MethodKind::Other,
        version: Version::Http11,
    };
    let body = BodyKind::Length(length as u64);
    connection
        .send_response(&head, to, body, Persist::KeepAlive)
        .unwrap();
    (connection, client)
}

/// What has come, without waiting for more.
fn come(client: &TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 64 * 1024];
    let count = client.try_read(&mut bytes).unwrap_or_default();
    bytes.truncate(count);
    bytes
}

/// Long enough for the reactor to tell of what has come.
async fn turns() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn what_gathers_in_a_round_leaves_in_one_write_after_one_wake() {
    run(async {
        let (mut connection, client) = answering(10).await;
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let wakes = || woken.0.load(Ordering::Relaxed);

        assert!(connection.poll_flush(&mut cx).is_pending());
        assert_eq!(wakes(), 1, "it has itself called again");
        connection.send(b"hello").unwrap();
        connection.send(b", you").unwrap();
        turns().await;
        assert_eq!(come(&client), b"", "nothing has been written yet");

        assert!(connection.poll_flush(&mut cx).is_ready());
        client.readable().await.unwrap();
        let text = String::from_utf8(come(&client)).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\nhello, you"), "{text}");

        assert!(connection.poll_flush(&mut cx).is_ready());
        connection.finish(None).unwrap();
        assert!(connection.poll_flush(&mut cx).is_ready());
        turns().await;
        assert_eq!(come(&client), b"", "nothing is written twice");
        assert_eq!(wakes(), 1);
        // What gathers after a flush waits for its turn again.
        let mut next = Head::new();
        next.set_status(204).unwrap();
        let to = Answering {
            method: MethodKind::Other,
            version: Version::Http11,
        };
        connection
            .send_response(&next, to, BodyKind::None, Persist::KeepAlive)
            .unwrap();
        assert!(connection.poll_flush(&mut cx).is_pending());
        turns().await;
        assert_eq!((wakes(), come(&client)), (2, Vec::new()));
    });
}

#[test]
fn a_flush_is_made_though_nothing_else_wakes_the_task() {
    run(async {
        let (mut connection, mut client) = answering(5).await;
        connection.send(b"hello").unwrap();
        connection.flush().await.unwrap();
        let mut text = vec![0; 1_024];
        let count = client.read(&mut text).await.unwrap();
        assert!(text[..count].ends_with(b"\r\n\r\nhello"));
    });
}

#[test]
fn a_client_that_reads_little_by_little_gets_every_octet_once() {
    const LENGTH: usize = 1 << 20;
    run(async {
        let (mut connection, client) = answering(LENGTH).await;
        let octet = |place: usize| (place % 251) as u8;
        let body: Vec<u8> = (0..LENGTH).map(octet).collect();
        let sending = async {
            for piece in body.chunks(7_001) {
                let room = std::future::poll_fn(|cx| connection.poll_capacity(cx, piece.len()));
                room.await.unwrap();
                connection.send(piece).unwrap();
            }
            connection.finish(None).unwrap();
            connection.flush().await.unwrap();
            drop(connection);
        };
        let reading = async {
            let mut client = client;
            let (mut got, mut piece) = (Vec::new(), [0; 1_009]);
            loop {
                let count = client.read(&mut piece).await.unwrap();
                if count == 0 {
                    return got;
                }
                got.extend_from_slice(&piece[..count]);
                tokio::task::yield_now().await;
            }
        };
        let ((), got) = tokio::join!(sending, reading);
        let head = got.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(got.len() - head, LENGTH);
        assert!(got[head..] == body);
    });
}
