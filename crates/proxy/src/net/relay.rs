//! Opaque relay between two connections: bytes both ways, half-close kept.
//!
//! Cost: while nothing flows a pair holds no buffer. Bytes pass through one buffer that all relays of the thread share;
//! only what the receiver does not take at once is kept, at most one buffer full per direction, and nothing more is
//! read from that sender until it has gone. A relay that filled the buffer is let try again a bounded number of times
//! per turn, then lets the others run.
//!
//! Where the bytes lie in that buffer matters: on current x86 a copy of 4 KiB or more (`rep movsb`) is some fifteen
//! times slower when its target lies 1 to 15 bytes behind its source, modulo the page.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::io::Io;

/// Octets of a relayed connection that one direction may keep: one gulp of a fast sender.
const SHARED: usize = 64 * 1024;
/// Gulps per turn and direction before others get theirs.
const TURN: usize = 8;

/// Off the beginning of a page, where the kernel's and the allocator's buffers begin.
const INSET: usize = 1024;

thread_local! {
    static SHARED_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; INSET + SHARED]);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    pub client_to_server: u64,
    pub server_to_client: u64,
}

/// Which side failed, and how.
#[derive(Debug)]
pub enum Broken {
    Client(io::Error),
    Server(io::Error),
}

/// Relays until both directions have ended or one side fails. Dropping the future cuts both connections.
pub async fn relay(client: &mut Io, server: &mut Io) -> Result<Relayed, Broken> {
    let (mut up, mut down) = (Half::default(), Half::default());
    std::future::poll_fn(|cx| {
        let up_done = up
            .poll(cx, client, server)
            .map_err(|end| end.name(Broken::Client, Broken::Server))?;
        let down_done = down
            .poll(cx, server, client)
            .map_err(|end| end.name(Broken::Server, Broken::Client))?;
        match (up_done, down_done) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(Relayed {
                client_to_server: up.relayed,
                server_to_client: down.relayed,
            })),
            _ => match (client.poll_cut(cx), server.poll_cut(cx)) {
                (Poll::Ready(error), _) => Poll::Ready(Err(Broken::Client(error))),
                (_, Poll::Ready(error)) => Poll::Ready(Err(Broken::Server(error))),
                _ => Poll::Pending,
            },
        }
    })
    .await
}

/// Relays to the end, in a task of its own. What led here has been a connection of any kind, whose task is large and
/// would be kept for as long as bytes flow, which may be days. `held` is dropped at the end.
pub fn relay_apart<H: 'static>(mut client: Io, mut server: Io, held: H) {
    drop(tokio::task::spawn_local(async move {
        // The bytes have been counted with their connections.
        let _ended = relay(&mut client, &mut server).await;
        drop(held);
    }));
}

enum End {
    From(io::Error),
    To(io::Error),
}

impl End {
    fn name(self, from: fn(io::Error) -> Broken, to: fn(io::Error) -> Broken) -> Broken {
        match self {
            End::From(error) => from(error),
            End::To(error) => to(error),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Flowing,
    /// The sender has ended; what is kept still has to go, then the receiver is told.
    Closing,
    Closed,
}

/// One direction.
#[derive(Default)]
struct Half {
    state: State,
    kept: Vec<u8>,
    sent: usize,
    relayed: u64,
    unflushed: bool,
}

impl Half {
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Io, to: &mut Io) -> Result<Poll<()>, End> {
        for _ in 0..TURN {
            match self.poll_gulp(cx, from, to) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Err(end)) => return Err(end),
                Poll::Ready(Ok(())) if self.state == State::Closed => return Ok(Poll::Ready(())),
                Poll::Ready(Ok(())) => {}
            }
        }
        cx.waker().wake_by_ref();
        Ok(Poll::Pending)
    }

    fn poll_gulp(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Io,
        to: &mut Io,
    ) -> Poll<Result<(), End>> {
        ready!(self.poll_kept(cx, to))?;
        match self.state {
            State::Closed => Poll::Ready(Ok(())),
            State::Closing => {
                ready!(Pin::new(to).poll_shutdown(cx)).map_err(End::To)?;
                self.state = State::Closed;
                Poll::Ready(Ok(()))
            }
            State::Flowing => SHARED_BUFFER.with_borrow_mut(|shared| {
                let mut buf = ReadBuf::new(&mut shared[INSET..]);
                match Pin::new(from).poll_read(cx, &mut buf) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(End::From(error))),
                    Poll::Pending => {
                        // Nothing more for now: let what was written leave.
                        if self.unflushed {
                            ready!(Pin::new(to).poll_flush(cx)).map_err(End::To)?;
                            self.unflushed = false;
                        }
                        return Poll::Pending;
                    }
                }
                let bytes = buf.filled();
                if bytes.is_empty() {
                    self.state = State::Closing;
                    return Poll::Ready(Ok(()));
                }
                self.relayed += bytes.len() as u64;
                self.unflushed = true;
                let mut sent = 0;
                while sent < bytes.len() {
                    match Pin::new(&mut *to).poll_write(cx, &bytes[sent..]) {
                        Poll::Ready(Ok(0)) => {
                            return Poll::Ready(Err(End::To(io::ErrorKind::WriteZero.into())));
                        }
                        Poll::Ready(Ok(count)) => sent += count,
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(End::To(error))),
                        Poll::Pending => break,
                    }
                }
                self.kept.extend_from_slice(&bytes[sent..]);
                Poll::Ready(Ok(()))
            }),
        }
    }

    /// Sends what an earlier turn could not.
    fn poll_kept(&mut self, cx: &mut Context<'_>, to: &mut Io) -> Poll<Result<(), End>> {
        while self.sent < self.kept.len() {
            match ready!(Pin::new(&mut *to).poll_write(cx, &self.kept[self.sent..])) {
                Ok(0) => return Poll::Ready(Err(End::To(io::ErrorKind::WriteZero.into()))),
                Ok(count) => self.sent += count,
                Err(error) => return Poll::Ready(Err(End::To(error))),
            }
        }
        if self.sent > 0 {
            self.kept = Vec::new();
            self.sent = 0;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (ours, theirs) = tokio::join!(
            TcpStream::connect(listener.local_addr().unwrap()),
            listener.accept()
        );
        (ours.unwrap(), theirs.unwrap().0)
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            tokio::time::timeout(std::time::Duration::from_secs(20), test)
                .await
                .unwrap()
        })
    }

    #[test]
    fn each_direction_ends_on_its_own_and_every_byte_arrives() {
        run(async {
            let ((mut client, near), (far, mut server)) = (pair().await, pair().await);
            let (mut near, mut far) = (Io::from(near), Io::from(far));
            let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
            let talk = async {
                let (sent, received) = tokio::join!(
                    async {
                        client.write_all(&body).await.unwrap();
                        client.shutdown().await.unwrap();
                        let mut answer = Vec::new();
                        client.read_to_end(&mut answer).await.unwrap();
                        answer
                    },
                    async {
                        let mut request = Vec::new();
                        server.read_to_end(&mut request).await.unwrap();
                        // The client's half is closed; ours is still open.
                        server.write_all(b"after the end").await.unwrap();
                        server.shutdown().await.unwrap();
                        request
                    }
                );
                (sent, received)
            };
            let (relayed, (answer, request)) = tokio::join!(relay(&mut near, &mut far), talk);
            assert_eq!(
                relayed.unwrap(),
                Relayed {
                    client_to_server: 3_000_000,
                    server_to_client: 13
                }
            );
            assert!(request == body);
            assert_eq!(answer, b"after the end");
        });
    }

    #[test]
    fn a_receiver_that_does_not_read_stops_the_sender() {
        run(async {
            let ((client, near), (far, _server)) = (pair().await, pair().await);
            let (mut near, mut far) = (Io::from(near), Io::from(far));
            let sent = async {
                let mut sent = 0;
                loop {
                    client.writable().await.unwrap();
                    match client.try_write(&[7; 65536]) {
                        Ok(count) => sent += count,
                        Err(_) => {
                            let more = tokio::time::timeout(
                                std::time::Duration::from_millis(300),
                                client.writable(),
                            );
                            if more.await.is_err() {
                                return sent;
                            }
                        }
                    }
                    assert!(sent < 64 << 20, "nothing held the sender back");
                }
            };
            tokio::select! {
                sent = sent => assert!(sent > 0),
                _ = relay(&mut near, &mut far) => panic!("the relay ended"),
            }
        });
    }
}
