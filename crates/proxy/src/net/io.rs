//! A connection's byte stream: plain TCP or TLS over it, with bytes that were read ahead given back first.
//!
//! Cost: one system call per read that finds data. Reads go into a buffer that all connections of the thread share, so
//! a short read tells tokio that the socket is empty (no call that only returns EAGAIN). What the caller has no room for
//! is kept with the connection; an idle connection keeps nothing.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::identity::Standing;
use crate::metrics::tcp::TcpMetrics;
use crate::net::tls::{ROOM, Session};

/// Octets read at once from a connection: two full TLS records.
const SHARED: usize = 32 * 1024;

thread_local! {
    static STREAM_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SHARED]);
}

/// Bytes that were read but not yet handed on.
#[derive(Default)]
pub struct Ahead {
    bytes: Vec<u8>,
    at: usize,
}

impl Ahead {
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Drops the first `count` bytes; the memory goes with the last one.
    fn consume(&mut self, count: usize) {
        self.at += count;
        if self.is_empty() {
            *self = Ahead::default();
        }
    }

    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let count = buf.remaining().min(self.as_slice().len());
        buf.put_slice(&self.as_slice()[..count]);
        self.consume(count);
    }
}

enum Stream {
    Tcp(TcpStream),
    Tls(Box<Session>),
}

/// What a pipeline reads from and writes to.
pub struct Io {
    stream: Stream,
    ahead: Ahead,
    metered: Option<Metered>,
    /// Of the peer, where one has proved itself.
    standing: Option<Arc<Standing>>,
}

/// The series that a connection's bytes are counted in; `None` counts nothing.
pub type Meter = Option<Rc<TcpMetrics>>;

/// Counts one connection from `measure` to drop.
struct Metered {
    metrics: Rc<TcpMetrics>,
    /// The error that ended it.
    errno: &'static str,
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.metrics.closed(self.errno);
    }
}

/// The name of an error in the `errno` label: a closed set.
fn errno(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionReset => "ECONNRESET",
        io::ErrorKind::ConnectionAborted => "ECONNABORTED",
        io::ErrorKind::BrokenPipe => "EPIPE",
        io::ErrorKind::TimedOut => "ETIMEDOUT",
        io::ErrorKind::NotConnected => "ENOTCONN",
        io::ErrorKind::HostUnreachable => "EHOSTUNREACH",
        io::ErrorKind::NetworkUnreachable => "ENETUNREACH",
        _ => "UNKNOWN",
    }
}

impl From<TcpStream> for Io {
    fn from(stream: TcpStream) -> Self {
        Io {
            stream: Stream::Tcp(stream),
            ahead: Ahead::default(),
            metered: None,
            standing: None,
        }
    }
}

impl From<Session> for Io {
    fn from(stream: Session) -> Self {
        Io {
            stream: Stream::Tls(Box::new(stream)),
            ahead: Ahead::default(),
            metered: None,
            standing: None,
        }
    }
}

impl Io {
    /// Counts the connection in these series from now on; what was read ahead is counted too. For the outermost stream
    /// only: bytes are counted as the pipeline sees them, without TLS.
    pub fn measure(&mut self, meter: Meter) {
        self.metered = meter.map(|metrics| {
            metrics.opened();
            metrics.read(self.ahead.as_slice().len());
            Metered { metrics, errno: "" }
        });
    }

    /// The series that it is counted in.
    pub fn meter(&self) -> Meter {
        let metered = self.metered.as_ref()?;
        Some(metered.metrics.clone())
    }

    /// What the peer has shown in its TLS handshake, the leaf first, until it has [proved](Io::proved) itself.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.tls()?.chain()
    }

    /// The peer has proved itself. Its certificates are kept with its standing, once for all of its connections.
    pub fn proved(&mut self, standing: Arc<Standing>) {
        if let Stream::Tls(session) = &mut self.stream {
            session.forget_chain();
        }
        self.standing = Some(standing);
    }

    /// Of a peer that has proved itself.
    pub fn standing(&self) -> Option<&Arc<Standing>> {
        self.standing.as_ref()
    }

    /// The peer has proved itself, and would not any more.
    pub fn is_distrusted(&self) -> bool {
        self.standing.as_ref().is_some_and(|peer| peer.is_lost())
    }

    /// For who waits for this connection: an error when its peer has lost its standing and the time to finish is over.
    /// Else the task is woken then.
    pub fn poll_cut(&self, cx: &Context<'_>) -> Poll<io::Error> {
        match &self.standing {
            Some(peer) => peer
                .poll_cut(cx)
                .map(|()| io::ErrorKind::ConnectionAborted.into()),
            None => Poll::Pending,
        }
    }

    /// The bytes read ahead so far; they stay in front of the stream.
    pub fn ahead(&self) -> &[u8] {
        self.ahead.as_slice()
    }

    /// Reads more ahead and says how many bytes came; 0 is the end of the stream.
    pub async fn read_ahead(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_read_ahead(cx)).await
    }

    fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        STREAM_BUFFER.with_borrow_mut(|shared| {
            let mut read = ReadBuf::new(shared);
            ready!(self.poll_stream(cx, &mut read))?;
            self.ahead.keep(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
    }

    /// Appends what is there to `out` and says how many bytes came; 0 is the end of the stream. `out` grows by what
    /// came, not by what might have come: a connection holds a buffer only as large as its messages.
    pub fn poll_read_onto(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        if !self.ahead.is_empty() {
            let count = self.ahead.as_slice().len();
            out.extend_from_slice(self.ahead.as_slice());
            self.ahead.consume(count);
            return Poll::Ready(Ok(count));
        }
        STREAM_BUFFER.with_borrow_mut(|shared| {
            let mut read = ReadBuf::new(shared);
            ready!(self.poll_stream(cx, &mut read))?;
            out.extend_from_slice(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
    }

    /// Hands what is there to `take`, where it lies in a buffer that the thread shares; `None` is the end of the stream.
    pub fn poll_read_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Poll<io::Result<Option<T>>> {
        if !self.ahead.is_empty() {
            let taken = take(self.ahead.as_slice());
            self.ahead = Ahead::default();
            return Poll::Ready(Ok(Some(taken)));
        }
        STREAM_BUFFER.with_borrow_mut(|shared| {
            let mut read = ReadBuf::new(shared);
            ready!(self.poll_stream(cx, &mut read))?;
            let bytes = read.filled();
            Poll::Ready(Ok((!bytes.is_empty()).then(|| take(bytes))))
        })
    }

    /// Puts bytes back in front of the stream.
    pub fn unread(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let mut ahead = bytes.to_vec();
            ahead.extend_from_slice(self.ahead.as_slice());
            self.ahead = Ahead {
                bytes: ahead,
                at: 0,
            };
        }
    }

    /// Takes the first `count` bytes read ahead as dealt with.
    pub fn consume_ahead(&mut self, count: usize) {
        self.ahead.consume(count);
    }

    /// The TCP stream below and what was read ahead of it, for a TLS handshake to begin on. `None`: it is TLS already.
    pub fn into_tcp(self) -> Option<(TcpStream, Ahead)> {
        match self.stream {
            Stream::Tcp(stream) => Some((stream, self.ahead)),
            Stream::Tls(_) => None,
        }
    }

    /// The address at the other end; one system call.
    pub fn client(&self) -> Option<IpAddr> {
        self.peer().map(|peer| peer.ip())
    }

    /// The same with its port.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.tcp().peer_addr().ok()
    }

    fn tcp(&self) -> &TcpStream {
        match &self.stream {
            Stream::Tcp(stream) => stream,
            Stream::Tls(session) => session.tcp(),
        }
    }

    pub fn tls(&self) -> Option<&Session> {
        match &self.stream {
            Stream::Tls(session) => Some(session),
            Stream::Tcp(_) => None,
        }
    }

    /// Has an idle connection got something to read (an answer nobody asked for, or its end)? Costs no system call
    /// as long as the socket is not readable.
    pub fn poll_idle_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.ahead.is_empty() || self.tls().is_some_and(Session::has_input) {
            return Poll::Ready(());
        }
        self.tcp().poll_read_ready(cx).map(|_| ())
    }

    /// Reads what has not been read yet. TLS is given a buffer with [`ROOM`].
    fn poll_stream(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(session) => session
                .poll_read(cx, buf.initialize_unfilled())
                .map_ok(|count| buf.advance(count)),
        });
        if let Some(metered) = &mut self.metered {
            match &result {
                Ok(()) => metered.metrics.read(buf.filled().len() - before),
                Err(error) => metered.errno = errno(error),
            }
        }
        Poll::Ready(result)
    }

    fn count_written(&mut self, result: &io::Result<usize>) {
        if let Some(metered) = &mut self.metered {
            match result {
                Ok(count) => metered.metrics.wrote(*count),
                Err(error) => metered.errno = errno(error),
            }
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            self.ahead.give(buf);
            return Poll::Ready(Ok(()));
        }
        if self.tls().is_some() && buf.remaining() < ROOM {
            return self.poll_read_ahead(cx).map_ok(|_| self.ahead.give(buf));
        }
        self.poll_stream(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(session) => session.poll_write(cx, bytes),
        });
        self.count_written(&result);
        Poll::Ready(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(_) => Poll::Ready(Ok(())),
            Stream::Tls(session) => session.poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(session) => session.poll_shutdown(cx),
        }
    }
}
