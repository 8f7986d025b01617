//! What is told of single requests: why one was refused or failed (a log line, and the pages at `/explain`), the id
//! that its answer carries, and the access log of the inbound side.
//!
//! An ordinary request costs one test here. What is refused is a cold path: it may allocate, and takes a lock that
//! only the admin server wants too. Everything that is kept has a bound in this folder.

pub mod access;
mod derivation;
mod refused;
pub mod request_id;
mod text;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::time::Instant;
use tulle_http::Head;

use crate::http::answer::Refusal;
use crate::metrics::{Counter, Labels, Shard, families};
use crate::trace::queue::Traces;
use crate::trace::{Trace, Tracer};
pub use derivation::Derivation;
pub use refused::{Direction, KEPT};
use refused::{Refused, Ring};
pub use request_id::RequestId;

use crate::tap::Taps;

/// Log lines about refusals at once on a worker.
const LINES_AT_ONCE: u32 = 20;
/// Log lines about refusals per second and worker, in the long run. Further ones are counted, and the next line says
/// how many.
const LINES_PER_SECOND: f64 = 10.0;

/// The process's side: what the admin server reads, and what each worker begins with.
#[derive(Debug, Default)]
pub struct Observed {
    rings: Mutex<Vec<Arc<Mutex<Ring>>>>,
    access: Option<access::Writer>,
    taps: Arc<Taps>,
    traces: Option<Arc<Traces>>,
}

impl Observed {
    /// `access`: where access lines go, when they are wanted. `traces`: where spans go, when they are.
    pub fn new(access: Option<access::Writer>, traces: Option<Arc<Traces>>) -> Arc<Self> {
        Arc::new(Observed {
            rings: Mutex::default(),
            access,
            taps: Arc::default(),
            traces,
        })
    }

    /// Who watches requests.
    pub fn taps(&self) -> &Arc<Taps> {
        &self.taps
    }

    /// A worker's side.
    pub fn worker(&self, shard: &Shard) -> Rc<Observer> {
        let ring = Arc::default();
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        rings.push(Arc::clone(&ring));
        let dropped = |log| {
            let labels = Labels::builder().add("log", log).build();
            shard.counter(&families::PROXY_LOG_LINES_DROPPED_TOTAL, &labels)
        };
        Rc::new(Observer {
            taps: self.taps.clone(),
            ring,
            lines: Cell::new(f64::from(LINES_AT_ONCE)),
            refilled: Cell::new(Instant::now()),
            left_out: Cell::new(0),
            dropped: dropped("refusals"),
            access: self.access.as_ref().map(|writer| access::Log {
                writer: writer.clone(),
                dropped: dropped("access"),
            }),
            tracer: (self.traces.as_ref()).map(|traces| Tracer::new(traces, shard)),
        })
    }

    /// The last refused requests of all workers, the newest first, as JSON.
    pub fn explain(&self) -> serde_json::Value {
        let mut all = self.all(|_| true);
        all.truncate(KEPT);
        serde_json::json!({ "requests": all.iter().map(Refused::json).collect::<Vec<_>>() })
    }

    /// The newest one with this id.
    pub fn explain_one(&self, id: &str) -> Option<serde_json::Value> {
        self.all(|refused| refused.id.as_str() == id)
            .first()
            .map(Refused::json)
    }

    fn all(&self, wanted: impl Fn(&Refused) -> bool) -> Vec<Refused> {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::new();
        for ring in rings.iter() {
            let ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(ring.iter().filter(|refused| wanted(refused)).cloned());
        }
        all.sort_by_key(|refused| std::cmp::Reverse(refused.at));
        all
    }
}

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    pub direction: Direction,
    /// The identity that its certificate proves; empty without one.
    pub identity: &'a str,
    /// Its `x-request-id` is believed: it is the workload beside this proxy, or a peer of the mesh.
    pub is_trusted: bool,
}

impl<'a> Caller<'a> {
    /// The workload itself.
    pub const fn workload() -> Self {
        Caller {
            direction: Direction::Outbound,
            identity: "",
            is_trusted: true,
        }
    }

    /// A client of the workload.
    pub fn client(identity: Option<&'a str>) -> Self {
        Caller {
            direction: Direction::Inbound,
            identity: identity.unwrap_or_default(),
            is_trusted: identity.is_some(),
        }
    }
}

/// A worker's side.
#[derive(Debug)]
pub struct Observer {
    /// Who watches requests.
    pub taps: Arc<Taps>,
    ring: Arc<Mutex<Ring>>,
    lines: Cell<f64>,
    refilled: Cell<Instant>,
    left_out: Cell<u64>,
    dropped: Counter,
    access: Option<access::Log>,
    tracer: Option<Tracer>,
}

impl Observer {
    /// Where spans are begun; `None`: nobody wants them.
    pub fn tracer(&self) -> Option<&Tracer> {
        self.tracer.as_ref()
    }

    /// Begins the spans of a request, where they are wanted: one test where they are not.
    pub fn trace(&self, direction: Direction, head: &mut Head) -> Trace {
        match &self.tracer {
            Some(tracer) => tracer.begin(direction, head),
            None => Trace::default(),
        }
    }

    /// Keeps and logs what is refused, and returns the id for the answer; `None` for what is no failure (a redirect).
    /// `head` is the request's, or cleared when it could not be read.
    pub fn refused(
        &self,
        caller: Caller<'_>,
        head: &Head,
        refusal: &Refusal,
        derivation: impl FnOnce() -> Derivation,
    ) -> Option<RequestId> {
        if refusal.reason.is_ordinary() {
            return None;
        }
        let id = RequestId::of(head, caller.is_trusted);
        let refused = Refused::new(SystemTime::now(), id, caller, head, refusal, derivation());
        if let Some(left_out) = self.may_log() {
            refused.log(left_out);
        }
        self.ring
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(refused);
        Some(id)
    }

    /// Whether a line may be written now, and how many could not be since the last.
    fn may_log(&self) -> Option<u64> {
        let now = Instant::now();
        let since = now - self.refilled.replace(now);
        let lines = self.lines.get() + since.as_secs_f64() * LINES_PER_SECOND;
        let lines = lines.min(f64::from(LINES_AT_ONCE));
        if lines < 1.0 {
            self.lines.set(lines);
            self.left_out.set(self.left_out.get() + 1);
            self.dropped.inc();
            return None;
        }
        self.lines.set(lines - 1.0);
        Some(self.left_out.take())
    }

    /// Begins the line of a request, where an access log is wanted. Called before anything is changed in `head`.
    pub fn access(
        self: &Rc<Self>,
        head: &Head,
        client: impl FnOnce() -> (std::net::SocketAddr, String),
    ) -> Option<Box<access::Line>> {
        self.access.as_ref()?;
        let (addr, identity) = client();
        Some(access::Line::begin(self.clone(), head, addr, &identity))
    }
}
