//! Copies of requests for other backends. Their answers are thrown away, and the caller never waits for them.
//!
//! A copy is made while the request passes: its head when it has been filtered, its body piece by piece. When the
//! request has been read to its end, each copy goes its own way in a task. A copy that cannot be made (too many at once,
//! too long a body, the caller left) is skipped and counted; nothing is ever held back for one.
//!
//! Bounds: [`MAX_MIRRORED`] copies at once per worker with [`MAX_BODY`] bytes of body, [`PATIENCE`] for each.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tulle_engine::outbound::BackendId;
use tulle_engine::route::Filter;
use tulle_http::Head;
use tulle_http::h1::BodyKind;
use tulle_http::h2::Code;

use crate::clock;
use crate::http::side::{Answer, Upstream};
use crate::http::{Event, Fault};
use crate::metrics::{Counter, Labels, Shard, families};
use crate::outbound::attempt::{Unsent, open};
use crate::outbound::backend::{Backend, Choice, InUse};
use crate::outbound::target::Compiled;
use crate::places::{Place, Places};

/// Copies of requests at once per worker, being made or under way.
pub const MAX_MIRRORED: usize = 128;
/// The longest body that is copied, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// How long a copy may take, from its last byte to the end of its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between looks for an endpoint, while discovery has not told of one. Mirrors do not queue where callers do.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What became of copies to one backend.
pub struct Series {
    answered: Counter,
    failed: Counter,
    skipped_full: Counter,
    skipped_body: Counter,
    skipped_cut: Counter,
}

impl Series {
    pub fn new(shard: &Shard, backend: &tulle_engine::Meta) -> Self {
        let labels = Labels::builder()
            .add("backend_group", backend.group())
            .add("backend_kind", backend.kind())
            .add("backend_namespace", backend.namespace())
            .add("backend_name", backend.name())
            .add_number("backend_port", u64::from(backend.port()))
            .build();
        let result = |word| {
            let labels = labels.extend().add("result", word).build();
            shard.counter(&families::OUTBOUND_HTTP_MIRRORED_TOTAL, &labels)
        };
        Series {
            answered: result("answered"),
            failed: result("failed"),
            skipped_full: result("skipped_full"),
            skipped_body: result("skipped_body"),
            skipped_cut: result("skipped_cut"),
        }
    }
}

/// The copies of one request, while it passes.
pub struct Copies {
    list: Vec<Copy>,
    body: Vec<u8>,
}

struct Copy {
    _place: Place<Rc<Places>>,
    backend: Rc<Backend>,
    series: Rc<Series>,
    head: Head,
}

impl Copies {
    /// Begins the copies that these filters ask for, of a head that they have been applied to.
    pub fn begin(
        copies: &mut Option<Box<Self>>,
        filters: &[Filter],
        compiled: &Compiled,
        places: &Rc<Places>,
        head: &Head,
    ) {
        for filter in filters {
            let Filter::Mirror(mirror) = filter else {
                continue;
            };
            if mirror.ratio.includes(fastrand::u64(..)) {
                let list = &mut copies
                    .get_or_insert_with(|| {
                        Box::new(Copies {
                            list: Vec::new(),
                            body: Vec::new(),
                        })
                    })
                    .list;
                list.extend(copy(mirror.backend, compiled, places, head));
            }
        }
    }

    /// A piece of the body has been read.
    pub fn data(&mut self, piece: &[u8]) {
        if self.list.is_empty() {
            return;
        }
        if self.body.len() + piece.len() > MAX_BODY {
            for copy in self.list.drain(..) {
                copy.series.skipped_body.inc();
            }
            self.body = Vec::new();
        } else {
            self.body.extend_from_slice(piece);
        }
    }

    /// The request has been read to its end: the copies leave.
    pub fn end(&mut self) {
        let body: Rc<[u8]> = std::mem::take(&mut self.body).into();
        for copy in self.list.drain(..) {
            tokio::task::spawn_local(copy.send(body.clone()));
        }
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        for copy in &self.list {
            copy.series.skipped_cut.inc();
        }
    }
}

fn copy(id: BackendId, compiled: &Compiled, places: &Rc<Places>, head: &Head) -> Option<Copy> {
    let (backend, series) = (compiled.backend(id)?, compiled.mirror_series(id)?);
    let Some(place) = places.enter_shared() else {
        series.skipped_full.inc();
        return None;
    };
    let mut head = head.clone();
    // The body is there already: nobody waits to be told to go on.
    head.remove("expect");
    Some(Copy {
        _place: place,
        backend: backend.clone(),
        series,
        head,
    })
}

impl Copy {
    async fn send(mut self, body: Rc<[u8]>) {
        let sent = tokio::time::timeout(PATIENCE, self.exchange(&body)).await;
        match sent {
            Ok(Ok(())) => self.series.answered.inc(),
            Ok(Err(_)) | Err(_) => self.series.failed.inc(),
        }
    }

    async fn exchange(&mut self, body: &[u8]) -> Result<(), Fault> {
        let in_use = self.endpoint().await;
        let kind = match body.len() {
            0 => BodyKind::None,
            length => BodyKind::Length(length as u64),
        };
        let opened = open(&in_use, &mut self.head, kind, false).await;
        let (mut up, _fresh) = opened.map_err(|unsent| match unsent {
            Unsent::Connect(_) => Fault::Closed,
            Unsent::Refused => Fault::Refused,
            Unsent::Late(_) => Fault::Timeout,
            Unsent::Malformed(error) => Fault::Malformed(error),
        })?;
        let passed = pass(&mut up, body, &in_use).await;
        match (&passed, up) {
            (Ok(()), Upstream::H1(connection)) => {
                in_use.member.origin.give_back(connection, clock::now());
            }
            (Ok(()), Upstream::H2(_)) => {}
            (Err(_), mut up) => up.cancel(Code::CANCEL),
        }
        passed
    }

    async fn endpoint(&self) -> InUse {
        loop {
            if let Some(in_use) = self.backend.pick(clock::now(), Choice::default()) {
                return in_use;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// Sends the body and reads the answer to its end.
async fn pass(up: &mut Upstream, mut body: &[u8], in_use: &InUse) -> Result<(), Fault> {
    let mut head = Head::new();
    let (mut sent, mut answered) = (false, false);
    poll_fn(|cx| {
        while !sent {
            if body.is_empty() {
                sent = true;
                up.finish(None)?;
                break;
            }
            match up.poll_capacity(cx, body.len())? {
                Poll::Ready(count) => {
                    let (piece, rest) = body.split_at(count.min(body.len()));
                    up.send(piece)?;
                    body = rest;
                }
                Poll::Pending => break,
            }
        }
        if up.poll_flush(cx)?.is_pending() {
            // The answer may come first; what is written then leaves when the socket takes it.
        }
        while !answered {
            match up.poll_head(cx, &mut head)? {
                Poll::Ready(Answer::Interim) => {}
                Poll::Ready(Answer::Tunnel) => return Poll::Ready(Err(Fault::Closed)),
                Poll::Ready(Answer::Final(_)) => {
                    answered = true;
                    in_use.begun(clock::now());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        loop {
            match up.poll_event(cx, &mut head)? {
                Poll::Ready(Event::Data) => {
                    let count = up.chunk().len();
                    up.consume(count);
                }
                Poll::Ready(Event::Trailers) => {}
                Poll::Ready(Event::End) if sent => return Poll::Ready(Ok(())),
                // An early answer: the connection is in the middle of a request.
                Poll::Ready(Event::End) => return Poll::Ready(Err(Fault::Closed)),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}
