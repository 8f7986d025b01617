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
mod question;
mod word;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use prost::Message as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tulle_api::envoy::service::auth::v3::CheckResponse;
use tulle_engine::destination::{
    Endpoint, Endpoints, Http2Params, ORDINARY_WEIGHT, ProtocolHint, TlsIdentity,
};
use tulle_engine::inbound::{External, Server};
use tulle_engine::{Meta, Reason};
use tulle_http::{Head, Version};

pub use word::Changes;

use crate::http::answer::Refusal;
use crate::http::exchange::grpc_status;
use crate::http::origin::{self, Origin};
use crate::http::replay::{Replay, Room};
use crate::http::serve::{keep_head, spare_head};
use crate::http::side::{Answer, Downstream, Upstream};
use crate::http::{Event, Fault, h2};
use crate::inbound::session::Session;
use crate::inbound::{Inbound, labels};
use crate::metrics::{Counter, Gauge, Histogram, Labels, Shard, families};
use crate::net::dial::Dialer;
use crate::net::reach::Reach;
use crate::net::tls::Handshakes;

/// Questions at once, per port and worker; further requests are as if there was no answer.
pub const MAX_IN_FLIGHT: u64 = 1_000;
/// The longest answer.
const MAX_ANSWER: usize = 128 * 1024;
/// Endpoints of a service that one worker keeps connections to.
const MAX_ENDPOINTS: usize = 8;
/// Endpoints that are tried for one question, if they cannot be reached.
const TRIES: usize = 2;
const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";

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
    waiting: Cell<u64>,
    /// For the bodies that it is shown.
    room: Rc<Room>,
    shard: Shard,
    labels: Labels,
    in_flight: Gauge,
    took: Histogram,
    allowed: Counter,
}

enum Source {
    Address(Rc<Origin>),
    Name {
        endpoints: RefCell<watch::Receiver<Option<Arc<Endpoints>>>>,
        origins: RefCell<Vec<(Arc<Endpoint>, Rc<Origin>)>>,
    },
    Nowhere,
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
            waiting: Cell::new(0),
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

    fn find(&self, inbound: &Inbound) -> Source {
        if self.rule.invalid.is_some() {
            return Source::Nowhere;
        }
        match self.rule.authority.parse::<SocketAddr>() {
            Ok(address) => {
                match self.origin(inbound, &at(address, self.rule.identity.as_deref())) {
                    Some(origin) => Source::Address(origin),
                    None => Source::Nowhere,
                }
            }
            Err(_) => Source::Name {
                endpoints: RefCell::new(inbound.discovery.endpoints(&self.rule.authority)),
                origins: RefCell::default(),
            },
        }
    }

    fn origin(&self, inbound: &Inbound, endpoint: &Endpoint) -> Option<Rc<Origin>> {
        let reach = Reach::endpoint(endpoint).ok()?;
        let trust = inbound.trust.clone();
        let handshakes = reach
            .is_meshed()
            .then(|| Rc::new(Handshakes::new(&self.shard, "outbound")));
        Some(Origin::new(
            reach,
            self.dialer,
            trust,
            self.limits,
            None,
            handshakes,
        ))
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

    async fn call(&self, inbound: &Inbound, question: &[u8]) -> Result<CheckResponse, Silence> {
        let origins = self.origins(inbound).await?;
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let mut last = Silence::Unreachable;
        for attempt in 0..origins.len().min(TRIES) {
            let origin = &origins[turn.wrapping_add(attempt) % origins.len()];
            match self.call_at(origin, question).await {
                Err(silence @ (Silence::Unreachable | Silence::Identity)) => last = silence,
                outcome => return outcome,
            }
        }
        Err(last)
    }

    /// The endpoints that may be asked; waits for discovery's first word.
    async fn origins(&self, inbound: &Inbound) -> Result<Vec<Rc<Origin>>, Silence> {
        let (endpoints, origins) = match &self.source {
            Source::Address(origin) => return Ok(vec![origin.clone()]),
            Source::Nowhere => return Err(Silence::Invalid),
            Source::Name { endpoints, origins } => (endpoints, origins),
        };
        let unknown = endpoints.borrow().borrow().is_none();
        if unknown {
            let mut first = endpoints.borrow().clone();
            let known = first.wait_for(Option::is_some).await;
            known.map_err(|_| Silence::Unreachable)?;
        }
        let changed = endpoints.borrow().has_changed().unwrap_or(false);
        if changed || origins.borrow().is_empty() {
            self.follow(
                inbound,
                &mut endpoints.borrow_mut(),
                &mut origins.borrow_mut(),
            )?;
        }
        let origins = origins.borrow();
        Ok(origins.iter().map(|(_, origin)| origin.clone()).collect())
    }

    /// Takes over a change of the endpoints; those that stay keep their connections.
    fn follow(
        &self,
        inbound: &Inbound,
        endpoints: &mut watch::Receiver<Option<Arc<Endpoints>>>,
        origins: &mut Vec<(Arc<Endpoint>, Rc<Origin>)>,
    ) -> Result<(), Silence> {
        let Some(known) = endpoints.borrow_and_update().clone() else {
            return Err(Silence::Unreachable);
        };
        let wanted = self.rule.identity.as_deref();
        let proves = |endpoint: &&Arc<Endpoint>| match (wanted, &endpoint.tls) {
            (None, _) => true,
            (Some(wanted), Some(tls)) => tls.name.eq_ignore_ascii_case(wanted),
            (Some(_), None) => false,
        };
        let fit: Vec<_> = known.iter().filter(proves).cloned().collect();
        let before = std::mem::take(origins);
        let from = self.turn.get() % fit.len().max(1);
        let some = fit
            .iter()
            .cycle()
            .skip(from)
            .take(fit.len().min(MAX_ENDPOINTS));
        *origins = some
            .filter_map(|endpoint| {
                let same = before.iter().find(|(known, _)| known == endpoint);
                let origin = match same {
                    Some((_, origin)) => origin.clone(),
                    None => self.origin(inbound, endpoint)?,
                };
                Some((endpoint.clone(), origin))
            })
            .collect();
        match (origins.is_empty(), known.is_empty()) {
            (false, _) => Ok(()),
            (true, true) => Err(Silence::Unreachable),
            (true, false) => Err(Silence::Identity),
        }
    }

    async fn call_at(
        &self,
        origin: &Rc<Origin>,
        question: &[u8],
    ) -> Result<CheckResponse, Silence> {
        let connection = match origin.open_h2() {
            Some(connection) => connection,
            None => origin.dial_h2().await.map_err(|error| match error.reason {
                Reason::IdentityMismatch | Reason::TlsFailed => Silence::Identity,
                _ => Silence::Unreachable,
            })?,
        };
        let unreachable = |_: Fault| Silence::Unreachable;
        let mut head = spare_head();
        let opened = match self.compose(&mut head, origin) {
            Err(_) => Err(Silence::Invalid),
            Ok(()) => match connection.ready(&head).await {
                Ok(()) => connection.send(&head, false).map_err(unreachable),
                Err(fault) => Err(unreachable(fault)),
            },
        };
        let outcome = match opened {
            Ok(stream) => converse(Upstream::H2(stream), question, &mut head).await,
            Err(silence) => Err(silence),
        };
        keep_head(head);
        outcome
    }

    fn compose(&self, head: &mut Head, origin: &Origin) -> Result<(), tulle_http::Error> {
        let secure = origin.reach().is_meshed();
        head.set_version(Version::Http2);
        head.set_method(b"POST")?;
        head.set_scheme(if secure { b"https" } else { b"http" })?;
        head.set_authority(self.rule.authority.as_bytes())?;
        head.set_path(METHOD.as_bytes())?;
        head.push("content-type", "application/grpc")?;
        head.push("te", "trailers")?;
        head.push(
            "grpc-timeout",
            format!("{}m", self.rule.timeout.as_millis()),
        )
    }
}

/// Sends the question and reads the one answer.
async fn converse(
    mut up: Upstream,
    question: &[u8],
    head: &mut Head,
) -> Result<CheckResponse, Silence> {
    let broken = |_: Fault| Silence::Unreachable;
    let mut left = question;
    while !left.is_empty() {
        let count = poll_fn(|cx| up.poll_capacity(cx, left.len())).await;
        let (now, later) = left.split_at(count.map_err(broken)?);
        up.send(now).map_err(broken)?;
        left = later;
    }
    up.finish(None).map_err(broken)?;
    let mut answer = Answer::Interim;
    while answer == Answer::Interim {
        answer = poll_fn(|cx| up.poll_head(cx, head)).await.map_err(broken)?;
    }
    if head.status() != 200 {
        return Err(Silence::Status(14));
    }
    let mut status = grpc_status(head);
    let mut message = Vec::new();
    let mut trailers = Head::new();
    loop {
        match poll_fn(|cx| up.poll_event(cx, &mut trailers))
            .await
            .map_err(broken)?
        {
            Event::Data => {
                let chunk = up.chunk();
                let count = chunk.len();
                if message.len() + count > MAX_ANSWER {
                    return Err(Silence::BadAnswer("is longer than 128 KiB"));
                }
                message.extend_from_slice(chunk);
                up.consume(count);
            }
            Event::Trailers => {
                status = grpc_status(&trailers);
                break;
            }
            Event::End => break,
        }
    }
    match status {
        Some(0) => {}
        Some(status) => return Err(Silence::Status(status)),
        None => return Err(Silence::BadAnswer("has no gRPC status")),
    }
    let [0, a, b, c, d, message @ ..] = &message[..] else {
        return Err(Silence::BadAnswer("is no plain gRPC message"));
    };
    if u32::from_be_bytes([*a, *b, *c, *d]) as usize != message.len() {
        return Err(Silence::BadAnswer("is not one gRPC message"));
    }
    CheckResponse::decode(message).map_err(|_| Silence::BadAnswer("is no CheckResponse"))
}

/// One of the questions at once.
struct Waiting<'s>(&'s Service);

impl<'s> Waiting<'s> {
    fn begin(service: &'s Service) -> Option<Self> {
        let waiting = service.waiting.get();
        (waiting < MAX_IN_FLIGHT).then(|| {
            service.waiting.set(waiting + 1);
            service.in_flight.inc();
            Waiting(service)
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
        self.0.in_flight.dec();
    }
}

/// A service at a fixed address.
fn at(addr: SocketAddr, identity: Option<&str>) -> Endpoint {
    Endpoint {
        addr,
        weight: ORDINARY_WEIGHT,
        tls: identity.map(|name| TlsIdentity {
            name: name.into(),
            server_name: name.into(),
        }),
        hint: ProtocolHint::Http2,
        transport_port: None,
        authority_override: None,
        http2: Http2Params::default(),
        labels: BTreeMap::new(),
        meta: Meta::named("external authorization"),
    }
}
