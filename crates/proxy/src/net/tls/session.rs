//! A TLS connection over its socket.
//!
//! Cost: one system call per read that finds data and one per write, as without TLS. Records are opened out of a buffer
//! that all connections of the thread share, and sealed into another; a connection keeps a record that has not come
//! whole and what the socket did not take, at rest neither. It holds the keys of both directions.
//!
//! What a handshake has to say last is not written at once but with the first text behind it: a client's Finished, or
//! before it waits for an answer; a server's tickets, which the client needs for its next connection only.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::pki_types::CertificateDer;
use rustls::{Error, HandshakeKind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::handshake::{Established, Handshake, Progress};
use super::records::{self, KEY_UPDATE, MAX_RECORD, MAX_TEXT, OVERHEAD, Records};

/// Octets read at once.
const INCOMING: usize = 64 * 1024;
/// Octets of text that are sealed for one write.
const OUTGOING: usize = 64 * 1024;
/// Most octets that leave with a first text instead of for themselves.
const HELD: usize = 16 * 1024;
/// Octets of room that a reader must have.
pub const ROOM: usize = MAX_RECORD + 1024;

const PAGE: usize = 4096;

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; INCOMING]);
    static SEALED: RefCell<Vec<u8>> = RefCell::new(vec![
        0;
        PAGE + HELD + OUTGOING + OUTGOING.div_ceil(MAX_TEXT) * OVERHEAD + 2 * KEY_UPDATE
    ]);
}

pub struct Session {
    tcp: TcpStream,
    records: Records,
    kind: HandshakeKind,
    chain: Option<Vec<CertificateDer<'static>>>,
    /// What has come of a record that has not come whole; right after the handshake, all that has come behind it.
    input: Vec<u8>,
    /// Sealed and not written.
    out: Vec<u8>,
    sent: usize,
    waiting: Waiting,
}

/// Why there is something in `out`, if there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// For text to go with.
    Lazily,
    /// For text to go with, or for the peer to be waited for.
    Briefly,
    /// For the socket.
    Blocked,
}

impl Session {
    /// Carries a handshake to its end. `ahead` has been read from the socket before.
    pub(super) async fn establish(
        tcp: TcpStream,
        ahead: &[u8],
        handshake: Handshake,
    ) -> io::Result<Self> {
        // Boxed: what rustls keeps for a handshake is large.
        let mut shaking = Box::new(Shaking {
            tcp,
            handshake,
            input: ahead.to_vec(),
            begun: false,
            sent: 0,
        });
        std::future::poll_fn(|cx| shaking.poll(cx)).await?;
        let Shaking {
            tcp,
            handshake,
            input,
            ..
        } = *shaking;
        let Established {
            records,
            kind,
            chain,
            out,
            lazy,
        } = handshake.finish().map_err(invalid)?;
        Ok(Session {
            tcp,
            records,
            kind,
            chain,
            input,
            waiting: match lazy {
                _ if out.len() > HELD => Waiting::Blocked,
                true => Waiting::Lazily,
                false => Waiting::Briefly,
            },
            out,
            sent: 0,
        })
    }

    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Whether the handshake was one in full.
    pub fn kind(&self) -> HandshakeKind {
        self.kind
    }

    /// What the peer has shown, the leaf first, until it is let go.
    pub fn chain(&self) -> Option<&[CertificateDer<'static>]> {
        self.chain.as_deref()
    }

    /// Nobody will ask for the peer's certificates any more.
    pub fn forget_chain(&mut self) {
        self.chain = None;
    }

    /// Something has been read that was not asked for yet.
    pub fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Reads text into `out`, which has [`ROOM`]; 0 is the end that the peer has told.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        READ.with_borrow_mut(|shared| {
            loop {
                if self.records.is_closed() {
                    return Poll::Ready(Ok(0));
                }
                let (_, text) = if self.records.is_faulty() || records::whole(&self.input).is_some()
                {
                    let mut from = std::mem::take(&mut self.input);
                    let opened = self.open(cx, &from, out)?;
                    from.drain(..opened.0);
                    self.input = from;
                    opened
                } else {
                    let kept = self.input.len();
                    shared[..kept].copy_from_slice(&self.input);
                    let limit = out.len().min(INCOMING);
                    let mut read = ReadBuf::new(&mut shared[kept..limit]);
                    match Pin::new(&mut self.tcp).poll_read(cx, &mut read) {
                        Poll::Ready(result) => result?,
                        Poll::Pending => {
                            if self.input.is_empty() {
                                self.input = Vec::new();
                            }
                            self.before_waiting(cx)?;
                            return Poll::Pending;
                        }
                    }
                    let come = read.filled().len();
                    if come == 0 {
                        return Poll::Ready(Err(io::Error::new(
                            io::ErrorKind::UnexpectedEof,
                            "the peer ended the connection without saying so in TLS",
                        )));
                    }
                    let filled = kept + come;
                    let opened = self.open(cx, &shared[..filled], out)?;
                    self.input.clear();
                    self.input.extend_from_slice(&shared[opened.0..filled]);
                    opened
                };
                if text > 0 {
                    return Poll::Ready(Ok(text));
                }
            }
        })
    }

    fn open(
        &mut self,
        cx: &mut Context<'_>,
        from: &[u8],
        out: &mut [u8],
    ) -> io::Result<(usize, usize)> {
        self.records.open(from, out).map_err(|error| {
            // The first error is the one to tell of, whatever becomes of the peer's part.
            let told = self.records.last_words(&error, &mut self.out);
            let _last_words = told.is_ok() && self.poll_send(cx).is_ready();
            invalid(error)
        })
    }

    /// Nothing is held back while we wait for the peer.
    fn before_waiting(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.poll_flush(cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    /// Takes what it has room for; what the socket does not take of that is kept.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, text: &[u8]) -> Poll<io::Result<usize>> {
        if self.waiting == Waiting::Blocked {
            ready!(self.poll_send(cx))?;
        }
        SEALED.with_borrow_mut(|sealed| {
            let held = self.out.len();
            // Half a page from where the text lies: a cipher that reads ahead of what it writes waits for itself where
            // the two lie a little apart, modulo the page.
            let apart = (sealed.as_ptr() as usize + held).wrapping_sub(text.as_ptr() as usize);
            let begin = (PAGE / 2).wrapping_sub(apart) % PAGE;
            let sealed = &mut sealed[begin..];
            sealed[..held].copy_from_slice(&self.out);
            self.out = Vec::new();
            let (taken, written) = self
                .records
                .seal(text, &mut sealed[held..])
                .map_err(invalid)?;
            let sealed = &sealed[..held + written];
            let mut sent = 0;
            while sent < sealed.len() {
                match Pin::new(&mut self.tcp).poll_write(cx, &sealed[sent..]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) => sent += count,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
            }
            self.out.extend_from_slice(&sealed[sent..]);
            self.waiting = Waiting::Blocked;
            Poll::Ready(Ok(taken))
        })
    }

    /// Writes what waits, but for what may wait for text.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting == Waiting::Lazily {
            return Poll::Ready(Ok(()));
        }
        self.poll_send(cx)
    }

    /// Writes all that waits.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waiting = Waiting::Blocked;
        while self.sent < self.out.len() {
            match ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.out[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        if self.sent > 0 {
            (self.out, self.sent) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Says that this was all, and ends the socket's sending half.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.records.close(&mut self.out).map_err(invalid)?;
        ready!(self.poll_send(cx))?;
        match ready!(Pin::new(&mut self.tcp).poll_shutdown(cx)) {
            // It is gone already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}

/// A handshake on its way.
struct Shaking {
    tcp: TcpStream,
    handshake: Handshake,
    input: Vec<u8>,
    /// It has had its first turn, for which nothing is read.
    begun: bool,
    /// Octets of its output that have been written.
    sent: usize,
}

impl Shaking {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(cx))?;
            let progress = READ.with_borrow_mut(|shared| self.poll_turn(cx, shared));
            match ready!(progress)? {
                Progress::More => {}
                Progress::Done => return Poll::Ready(Ok(())),
                Progress::Closed => return Poll::Ready(Err(ended())),
            }
        }
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>, shared: &mut [u8]) -> Poll<io::Result<Progress>> {
        let mut filled = self.input.len();
        if filled >= shared.len() {
            // More than any message of a handshake may have.
            let error = rustls::InvalidMessage::HandshakePayloadTooLarge;
            return Poll::Ready(Err(invalid(error.into())));
        }
        shared[..filled].copy_from_slice(&self.input);
        if std::mem::replace(&mut self.begun, true) {
            let mut read = ReadBuf::new(&mut shared[filled..]);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Err(ended()));
            }
            filled += read.filled().len();
        }
        match self.handshake.advance(&mut shared[..filled]) {
            Ok((used, progress)) => {
                self.input.clear();
                self.input.extend_from_slice(&shared[used..filled]);
                Poll::Ready(Ok(progress))
            }
            Err(error) => {
                let _last_words = self.poll_send(cx).is_ready();
                Poll::Ready(Err(invalid(error)))
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let out = &mut self.handshake.out;
        while self.sent < out.len() {
            match ready!(Pin::new(&mut self.tcp).poll_write(cx, &out[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        out.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof")
}
