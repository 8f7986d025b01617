//! The word of an external service on each request: Envoy's `ext_authz` over gRPC.
//!
//! The question is asked by the worker that holds the request, over the same connections that requests travel on
//! (`http::origin`, mutual TLS where discovery or the policy names an identity): it waits as a request waits for its
//! server, and nothing blocks. The control thread, with its tonic client, would cost two thread hops per request and
//! make one thread the limit of all workers.
//!
//! Fail closed: no answer within the time means no entry, unless the policy says `fail_open`. An answer that cannot be
//! understood or carried out never lets anybody in. Cost: this is the slow path of a port that asks for it; each
//! question allocates its message.

mod body;
mod call;
mod endpoints;
mod question;
mod word;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;
use tulle_api::envoy::service::auth::v3::CheckResponse;
use tulle_engine::Reason;
use tulle_engine::inbound::{External, Server};
use tulle_http::Head;

use endpoints::Source;
pub use word::Changes;

use crate::http::answer::Refusal;
use crate::http::origin;
use crate::http::replay::{Replay, Room};
use crate::http::side::Downstream;
use crate::http::{Fault, h2};
use crate::inbound::session::Session;
use crate::inbound::{Inbound, labels};
use crate::metrics::{Counter, Gauge, Histogram, Labels, Shard, families};
use crate::net::dial::Dialer;
use crate::places::{Place, Places};

/// Questions at once, per port and worker; further requests are as if there was no answer.
pub const MAX_IN_FLIGHT: usize = 1_000;
/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    Timeout,
    Unreachable,
    /// No endpoint has, or proves, the identity.
    Identity,
    /// The call ended in this gRPC status.
    Status(u8),
    Overflow,
    /// The policy names no service that could be asked.
    Invalid,
    /// There is an answer, which makes no sense or asks for what this proxy does not do.
    BadAnswer(&'static str),
}

impl Silence {
    fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Identity => "identity",
            Self::Status(_) => "status",
            Self::Overflow => "overflow",
            Self::Invalid => "invalid_requirement",
            Self::BadAnswer(_) => "bad_answer",
        }
    }

    /// Whether `fail_open` is about this.
    fn may_pass(self) -> bool {
        !matches!(self, Self::Invalid | Self::BadAnswer(_))
    }
}

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Timeout => f.write_str("no answer in time"),
            Self::Unreachable => f.write_str("it cannot be reached"),
            Self::Identity => f.write_str("it does not prove its identity"),
            Self::Status(status) => write!(f, "its call ended in gRPC status {status}"),
            Self::Overflow => f.write_str("too many questions wait for it already"),
            Self::Invalid => f.write_str("the policy cannot be carried out"),
            Self::BadAnswer(why) => write!(f, "its answer {why}"),
        }
    }
}

/// What to do with the request.
pub enum Verdict {
    /// It goes on, changed as the service wished; the rest of the wish is for its answer. What was read of its body is to
    /// be sent first.
    Pass(Option<Box<Changes>>, Option<Replay>),
    Refuse(Refusal),
    /// The client left while its body was waited for.
    Gone(Fault),
}

/// A service, as one worker knows it.
pub struct Service {
    rule: Arc<External>,
    source: Source,
    dialer: Dialer,
    inbound: std::rc::Weak<Inbound>,
    limits: origin::Limits,
    /// Where the next question goes.
    turn: Cell<usize>,
    waiting: Places,
    /// For the bodies that it is shown.
    room: Rc<Room>,
    shard: Shard,
    labels: Labels,
    in_flight: Gauge,
    took: Histogram,
    allowed: Counter,
}

impl Service {
    pub fn new(inbound: &Rc<Inbound>, port: u16, server: &Server, rule: Arc<External>) -> Rc<Self> {
        let labels = labels::external(port, server, &rule.meta);
        let (series, shard) = (labels.build(), &inbound.shard);
        let allowed = series.extend().add("result", "allow").add("error", "");
        let limits = origin::Limits {
            connect_timeout: rule.timeout,
            idle: 0,
            idle_time: inbound.config.inbound.connections.pool_idle,
            h1: tulle_http::Limits::default(),
            h2: h2::Settings::default(),
        };
        let mut service = Service {
            source: Source::Nowhere,
            dialer: inbound.dialer,
            inbound: Rc::downgrade(inbound),
            limits,
            turn: Cell::new(fastrand::usize(..1024)),
            waiting: Places::new(MAX_IN_FLIGHT),
            room: Room::new(shard.gauge(&families::INBOUND_HTTP_EXT_AUTHZ_BUFFER_BYTES, &series)),
            in_flight: shard.gauge(&families::INBOUND_HTTP_EXT_AUTHZ_IN_FLIGHT, &series),
            took: shard.histogram(&families::INBOUND_HTTP_EXT_AUTHZ_DURATION_MS, &series),
            allowed: shard.counter(&families::INBOUND_HTTP_EXT_AUTHZ_TOTAL, &allowed.build()),
            shard: shard.clone(),
            labels: series,
            rule,
        };
        service.source = service.find(inbound);
        Rc::new(service)
    }

    /// Whether this is the service that the policy names.
    pub fn is_for(&self, rule: &Arc<External>) -> bool {
        Arc::ptr_eq(&self.rule, rule) || *self.rule == **rule
    }

    /// Asks about a request, whose head is changed as the answer says.
    pub async fn ask(
        &self,
        session: &Session,
        head: &mut Head,
        down: &mut Downstream<'_>,
        has_body: bool,
    ) -> Verdict {
        let mut seen = None;
        if has_body && self.rule.max_request_bytes > 0 {
            match body::read(down, head, &self.room, self.rule.max_request_bytes).await {
                Ok(body) => seen = Some(body),
                Err(body::Unread::Gone(fault)) => return Verdict::Gone(fault),
                Err(body::Unread::NoRoom) => {
                    // What was read of it is gone, so it does not pass even where silence is consent.
                    self.count("failed_closed", Silence::Overflow.name());
                    return Verdict::Refuse(self.refusal(Silence::Overflow));
                }
                Err(body::Unread::Slow) => {
                    self.count("failed_closed", "slow_body");
                    let why = format!(
                        "its body did not come, and {} wants to see it",
                        self.rule.meta
                    );
                    let refusal = Refusal::because(Reason::RequestTimeout, why);
                    return Verdict::Refuse(Refusal {
                        status: 408,
                        close: true,
                        ..refusal
                    });
                }
            }
        }
        let begun = Instant::now();
        let outcome = self.answer(session, head, seen.as_ref(), has_body).await;
        self.took.record(begun.elapsed());
        let outcome = outcome.and_then(|answer| word::carry_out(&answer, head, &self.rule));
        match outcome {
            Ok(Ok(changes)) => {
                self.allowed.inc();
                Verdict::Pass(changes, seen)
            }
            Ok(Err(refusal)) => {
                self.count("deny", "");
                Verdict::Refuse(refusal)
            }
            Err(silence) if self.rule.fail_open && silence.may_pass() => {
                self.count("failed_open", silence.name());
                Verdict::Pass(None, seen)
            }
            Err(silence) => {
                self.count("failed_closed", silence.name());
                Verdict::Refuse(self.refusal(silence))
            }
        }
    }

    fn refusal(&self, silence: Silence) -> Refusal {
        match (silence, &self.rule.invalid) {
            (Silence::Invalid, error) => {
                let text = error.as_ref().map_or_else(String::new, ToString::to_string);
                Refusal::because(Reason::RequirementInvalid, text).of_rule(&self.rule.meta)
            }
            (silence, _) => {
                Refusal::because(Reason::ExternalUnavailable, silence).of_rule(&self.rule.meta)
            }
        }
    }

    fn count(&self, result: &str, error: &str) {
        let labels = self
            .labels
            .extend()
            .add("result", result)
            .add("error", error);
        self.shard
            .counter(&families::INBOUND_HTTP_EXT_AUTHZ_TOTAL, &labels.build())
            .inc();
    }

    async fn answer(
        &self,
        session: &Session,
        head: &Head,
        seen: Option<&Replay>,
        has_body: bool,
    ) -> Result<CheckResponse, Silence> {
        if matches!(self.source, Source::Nowhere) {
            return Err(Silence::Invalid);
        }
        let inbound = self.inbound.upgrade().ok_or(Silence::Unreachable)?;
        let _waiting = Waiting::begin(self).ok_or(Silence::Overflow)?;
        let question = question::question(&inbound, session, head, seen, has_body);
        match tokio::time::timeout(self.rule.timeout, self.call(&inbound, &question)).await {
            Ok(answer) => answer,
            Err(_) => Err(Silence::Timeout),
        }
    }
}

/// One of the questions at once.
struct Waiting<'s> {
    in_flight: &'s Gauge,
    _place: Place<&'s Places>,
}

impl<'s> Waiting<'s> {
    fn begin(service: &'s Service) -> Option<Self> {
        let place = service.waiting.enter()?;
        service.in_flight.inc();
        Some(Waiting {
            in_flight: &service.in_flight,
            _place: place,
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.in_flight.dec();
    }
}
