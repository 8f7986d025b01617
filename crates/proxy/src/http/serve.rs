//! The requests of one accepted connection, one after the other (HTTP/1) or each in a task of its own (HTTP/2).
//! What is done with a request is the [`Handler`]'s: there are two, the inbound and the outbound pipeline.

use std::rc::Rc;
use std::time::Duration;

use tulle_http::h1::{Answering, BodyKind};
use tulle_http::{Head, Limits, Version};

use crate::config::Config;
use crate::drain::Guard;
use crate::http::answer::{self, Refusal};
use crate::http::side::Downstream;
use crate::http::{Fault, h1, h2};
use crate::net::io::Io;
use crate::observe::RequestId;

/// Requests that are answered before they are complete: so much of the rest is taken in to keep the connection.
const DISCARD: usize = 1024 * 1024;
/// How long the rest of such a request is waited for. Also how long a closing connection is kept for the peer to read
/// its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest future that a request may be, in bytes: it is moved and polled for every request, so what is rare in it
/// (a dial, a wait) is boxed. A pipeline that grows beyond it does not compile.
pub const MAX_REQUEST_FUTURE: usize = 1536;

#[inline(always)]
fn bounded<F: Future>(request: F) -> F {
    const { assert!(size_of::<F>() <= MAX_REQUEST_FUTURE) }
    request
}

/// What became of a request. `T`: where a tunnel leads to.
pub enum Handled<T> {
    /// It was answered, by the server or by us.
    Answered,
    /// It was cut, or the caller left: the connection is of no more use.
    Cut,
    /// The connection is a tunnel from here on. The answer that says so has been sent.
    Tunnel(T),
}

/// A pipeline.
pub trait Handler {
    /// Where a tunnel leads to.
    type Tunnel;

    /// Serves one request. `head` is the request's; it is scratch space afterwards.
    fn handle(
        &self,
        head: &mut Head,
        down: &mut Downstream<'_>,
    ) -> impl Future<Output = Handled<Self::Tunnel>>;

    /// Takes note of a head that could not be read, and names the id for its answer.
    fn unreadable(&self, refusal: &Refusal) -> Option<RequestId>;

    /// Everything that the client sends from here on belongs to the tunnel.
    fn tunnel(&self, client: Io, to: Self::Tunnel, guard: Guard);
}

/// How long an HTTP/1 client may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// Between two requests; `None` is for ever.
    pub idle: Option<Duration>,
}

impl Timeouts {
    pub fn from_config(config: &Config) -> Self {
        Timeouts {
            head: config.http1_head_timeout,
            idle: config.http1_idle_timeout,
        }
    }
}

/// Serves HTTP/1 until the client leaves, breaks the rules, or draining lets go of it.
pub async fn http1<H: Handler>(
    io: Io,
    handler: &H,
    limits: Limits,
    timeouts: Timeouts,
    guard: Guard,
) {
    let mut connection = h1::Connection::server(io, limits);
    let mut head = Head::new();
    let mut watch = guard.clone();
    let draining = watch.draining();
    let mut draining = std::pin::pin!(draining);
    loop {
        let request = match connection
            .read_request(&mut head, draining.as_mut(), timeouts)
            .await
        {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(fault) => return refuse_head(connection, handler, fault, &guard).await,
        };
        let answering = Answering {
            method: head.method_kind(),
            version: head.version(),
        };
        let waits_for_continue = request.expect_continue;
        let upgrade = request.upgrade;
        let mut down = Downstream::H1 {
            connection: &mut connection,
            request,
            answering,
            guard: &guard,
            close: false,
        };
        match bounded(handler.handle(&mut head, &mut down)).await {
            // What was written before the cut still leaves, if it can at once.
            Handled::Cut => return connection.flush_now(),
            Handled::Tunnel(to) => {
                if connection.flush().await.is_ok() {
                    handler.tunnel(connection.into_tunnel(), to, guard);
                }
                return;
            }
            Handled::Answered => {}
        }
        if connection.flush().await.is_err() {
            return;
        }
        // A client that was never told to go on may send the body or the next request: nobody can tell which.
        let untold = waits_for_continue && !connection.incoming_done();
        if !connection.persists() || untold || !connection.discard_request(DISCARD, PATIENCE).await
        {
            return connection.linger(PATIENCE).await;
        }
        if upgrade {
            connection.resume_held();
        }
    }
}

/// Answers a head that could not be read.
async fn refuse_head<H: Handler>(
    mut connection: h1::Connection,
    handler: &H,
    fault: Fault,
    guard: &Guard,
) {
    let refusal = match fault {
        Fault::Malformed(error) => Refusal::malformed(error),
        Fault::Timeout => Refusal {
            close: true,
            ..Refusal::new(tulle_engine::Reason::HeadTimeout)
        },
        _ => return,
    };
    let mut head = Head::new();
    let answering = Answering {
        method: head.method_kind(),
        version: Version::Http11,
    };
    let request = tulle_http::h1::Framing {
        body: BodyKind::None,
        keep_alive: false,
        upgrade: false,
        expect_continue: false,
        interim: false,
    };
    let mut down = Downstream::H1 {
        connection: &mut connection,
        request,
        answering,
        guard,
        close: true,
    };
    let id = handler.unreadable(&refusal);
    if answer::refuse(&mut down, &mut head, &refusal, id.as_ref()).is_ok() {
        connection.linger(PATIENCE).await;
    }
}

/// Serves HTTP/2 until the client leaves or draining has finished.
pub async fn http2<H: Handler + 'static>(
    io: Io,
    handler: Rc<H>,
    settings: h2::Settings,
    guard: Guard,
) -> Result<(), Fault> {
    let held = guard.of_process();
    h2::server::serve(io, settings, guard, move |head, stream| {
        let mut boxed = spare_boxed_head();
        keep_head(std::mem::replace(&mut *boxed, head));
        let request = serve_stream(handler.clone(), boxed, stream, held.clone());
        drop(tokio::task::spawn_local(bounded(request)));
    })
    .await
}

/// One stream. `_held` keeps a draining process alive until it has ended.
async fn serve_stream<H: Handler>(
    handler: Rc<H>,
    mut head: Box<Head>,
    stream: h2::stream::Stream,
    _held: Guard,
) {
    stream.accept();
    let mut down = Downstream::H2(stream);
    if let Handled::Cut = handler.handle(&mut head, &mut down).await {
        down.cut(Fault::Closed);
    }
    keep_boxed_head(head);
}

thread_local! {
    static SPARE_HEADS: std::cell::RefCell<Vec<Head>> = const { std::cell::RefCell::new(Vec::new()) };
    #[allow(clippy::vec_box, reason = "the boxes are what is kept: a request's future holds a pointer")]
    static SPARE_BOXES: std::cell::RefCell<Vec<Box<Head>>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Heads of ended streams, with their buffers; so many are kept.
const SPARE_HEADS_KEPT: usize = 64;

/// A head to be used for a while, with the buffers of an ended one.
pub fn spare_head() -> Head {
    SPARE_HEADS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives such a head back.
pub fn keep_head(mut head: Head) {
    head.clear();
    SPARE_HEADS.with_borrow_mut(|heads| {
        if heads.len() < SPARE_HEADS_KEPT {
            heads.push(head);
        }
    });
}

/// The same behind a pointer, for a future that holds it while it waits.
pub fn spare_boxed_head() -> Box<Head> {
    SPARE_BOXES.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives such a head back.
pub fn keep_boxed_head(mut head: Box<Head>) {
    head.clear();
    SPARE_BOXES.with_borrow_mut(|heads| {
        if heads.len() < SPARE_HEADS_KEPT {
            heads.push(head);
        }
    });
}
