//! One inbound request, from its head to its account: hygiene, route, permit, the application, the answer.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tulle_engine::deadline::Deadlines;
use tulle_engine::inbound::{Denial, Protocol, Server};
use tulle_engine::outbound::Timeouts;
use tulle_engine::retry;
use tulle_engine::route::{Filter, RuleName};
use tulle_engine::tap::Labels;
use tulle_engine::{Meta, Reason};
use tulle_http::h1::BodyKind;
use tulle_http::hop::UpgradeField;
use tulle_http::l5d::{self, Peer};
use tulle_http::{Head, Version, hop, translate};

use crate::clock;
use crate::drain::Guard;
use crate::http::Fault;
use crate::http::account::Account;
use crate::http::answer::{self, Refusal};
use crate::http::decision::{self, Fields, Origin};
use crate::http::exchange::{Exchange, Failure};
use crate::http::fault;
use crate::http::replay::Replay;
use crate::http::serve::{Handled, Handler};
use crate::http::side::{Answer, Downstream, Upstream, has_body};
use crate::http::time_left;
use crate::inbound::admission::Slot;
use crate::inbound::admission::external::{Changes, Seen, Verdict};
use crate::inbound::port::{Series, SeriesKey};
use crate::inbound::session::{ClientTls, Session};
use crate::inbound::{Inbound, admission, labels};
use crate::metrics::families;
use crate::metrics::http::HttpMetrics;
use crate::metrics::route::Edge;
use crate::net::io::Io;
use crate::net::reach::ConnectError;
use crate::net::relay;
use crate::observe::{Direction, RequestId, request_id};
use crate::tap::{self, Tls, Watched};

const CLIENT_ID: &str = "l5d-client-id";
/// No route, or no authorization: no such place in the policy's lists.
const NONE: usize = usize::MAX;

/// The requests of one accepted connection.
pub struct Requests {
    inbound: Rc<Inbound>,
    session: Session,
    /// The series of the last request; a connection's requests mostly have the same.
    last: RefCell<Option<Known>>,
}

struct Known {
    server: Arc<Server>,
    key: SeriesKey,
    series: Rc<Series>,
}

/// What the engine let in: a rule of the policy that admitted the request.
struct Admitted {
    server: Arc<Server>,
    rule: usize,
    /// How much of the path the rule's match is about, for rewrites.
    prefix: Option<usize>,
    /// For the marks that CORS puts on the answer.
    origin: Option<Box<Origin>>,
    /// What it has to meet beside.
    beside: Beside,
    /// What it holds while it is served.
    held: Option<Box<Held>>,
}

/// What a request has got from the requirements that it met.
struct Held {
    /// Its place among the requests at once.
    _slot: Option<Slot>,
    /// What an external service wishes for the answer.
    wishes: Option<Box<Changes>>,
    /// What was read of its body.
    seen: Option<Box<Seen>>,
}

/// Why a request goes no further.
enum Stop {
    Refuse(Box<Refusal>),
    /// The client left.
    Gone(Fault),
}

/// What an authorized request has to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// The port has requirements, and this is a probe: it needs to meet none, and may claim nothing.
    NothingAsProbe,
    Requirements,
}

impl Admitted {
    /// What was read of its body before it goes to the application.
    fn seen(&self) -> Option<&Seen> {
        self.held.as_ref()?.seen.as_deref()
    }

    fn name(&self) -> Option<RuleName<'_>> {
        let rule = self.server.rules.get(self.rule)?;
        let route = &self.server.routes.get(rule.route)?.meta;
        Some(RuleName {
            route,
            number: rule.number,
        })
    }

    fn filters(&self) -> &[Filter] {
        self.server
            .rules
            .get(self.rule)
            .map_or(&[], |rule| &rule.filters)
    }
}

impl Requests {
    pub fn new(inbound: Rc<Inbound>, session: Session) -> Self {
        Requests {
            inbound,
            session,
            last: RefCell::new(None),
        }
    }

    /// Asks the engine: may this request come in, and on which route?
    fn admit(&self, head: &Head) -> (Result<Admitted, Refusal>, Rc<Series>, Option<Duration>) {
        let mut delay = None;
        let (server, grants) = self.session.policy();
        let fields = Fields(head);
        let view = fields.view();
        let mut found = server.route(&view);
        let mut permit = found.as_ref().map(|found| server.authorize(&grants, found));
        if matches!(permit, None | Some(Err(_))) {
            if let Some((route, by)) = server.probe(&grants, &view) {
                (found, permit) = (Some(route), Some(Ok(by)));
            }
        }
        let route = found.as_ref().map_or(NONE, |found| found.rule.route);
        let authorization = permit
            .as_ref()
            .and_then(|permit| permit.as_ref().ok())
            .map_or(NONE, |permit| permit.id.index());
        let series = self.series(&server, head, route, authorization);
        let admitted = match (&found, permit) {
            (Some(found), Some(Ok(permit))) => {
                if permit.is_audit() {
                    let audit = &self.inbound.audit;
                    audit.allowed(&self.session, &server.meta, Some(&found.route.meta));
                }
                let random = fastrand::u64(..);
                delay = found.delay(&view, random);
                if delay.is_some() {
                    self.inbound.fault(&found.route.meta, "delay");
                }
                let origin = Origin::of(&found.rule.filters, head);
                match found.answer(&view, random) {
                    Some(answer) => Err(self.answered(
                        decision::refusal(answer, head, found.matcher, found.name()),
                        &found.route.meta,
                        origin.as_deref(),
                    )),
                    None => {
                        series.allowed.inc();
                        let probe = || {
                            found.route.is_for_probes() || server.probe(&grants, &view).is_some()
                        };
                        let beside = match server.requires_more() {
                            false => Beside::Nothing,
                            true if probe() => Beside::NothingAsProbe,
                            true => Beside::Requirements,
                        };
                        Ok(Admitted {
                            rule: found.id.index(),
                            prefix: found.matcher.prefix(),
                            origin,
                            server: server.clone(),
                            beside,
                            held: None,
                        })
                    }
                }
            }
            (Some(_), Some(Err(denial))) => Err(self.denied(&denial)),
            _ => {
                let labels = labels::server(&self.inbound, &self.session);
                self.inbound
                    .shard
                    .counter(&families::INBOUND_HTTP_ROUTE_NOT_FOUND_TOTAL, &labels)
                    .inc();
                Err(Refusal::new(Reason::RouteNotFound).of_rule(&server.meta))
            }
        };
        (admitted, series, delay)
    }

    /// What a rule answers by itself: counted, and marked for browsers.
    fn answered(&self, mut answer: Refusal, route: &Meta, origin: Option<&Origin>) -> Refusal {
        match (answer.reason, origin) {
            (Reason::Preflight, _) => self.inbound.preflight(&answer),
            (reason, origin) => {
                if reason == Reason::FaultInjected {
                    self.inbound.fault(route, "abort");
                }
                if let Some(origin) = origin {
                    origin.mark_refusal(&mut answer);
                }
            }
        }
        answer
    }

    /// Counts a refusal and says which objects had a say in it.
    #[cold]
    fn denied(&self, denial: &Denial<'_>) -> Refusal {
        let labels = labels::denied(&self.session, denial);
        self.inbound
            .shard
            .counter(&families::INBOUND_HTTP_AUTHZ_DENY_TOTAL, &labels)
            .inc();
        Refusal::new(denial.reason).of_rule(denial)
    }

    fn series(
        &self,
        server: &Arc<Server>,
        head: &Head,
        route: usize,
        authorization: usize,
    ) -> Rc<Series> {
        let service = server.service(head.authority().unwrap_or_default());
        let authority = match head.authority() {
            Some(authority) if self.inbound.config.inbound.authority_labels => {
                String::from_utf8_lossy(authority)
            }
            _ => "".into(),
        };
        let mut last = self.last.borrow_mut();
        if let Some(known) = &*last {
            let same = Arc::ptr_eq(&known.server, server)
                && (known.key.route, known.key.authorization) == (route, authorization)
                && *known.key.service == *service
                && *known.key.authority == *authority;
            if same {
                return known.series.clone();
            }
        }
        let peer = self.session.peer();
        let key = SeriesKey {
            route,
            authorization,
            service: service.into(),
            authority: authority.into(),
            client: match self.session.tls() {
                ClientTls::None(why) => (*why).into(),
                ClientTls::Unauthenticated => "tls".into(),
                ClientTls::Peer(peer) => peer.name.as_str().into(),
            },
            client_pod: peer.map_or("", |peer| &peer.pod).into(),
        };
        let resolve = |key: &SeriesKey| {
            let labels = labels::requests(&self.inbound, &self.session, server, key);
            let allowed = self
                .inbound
                .shard
                .counter(&families::INBOUND_HTTP_AUTHZ_ALLOW_TOTAL, &labels.linkerd);
            let grpc = matches!(server.protocol, Protocol::Grpc(_));
            let route = labels::route(&self.session, server, key.route);
            Series {
                edge: Rc::new(Edge::inbound(&self.inbound.shard, grpc, &route)),
                allowed,
                http: HttpMetrics::new(&self.inbound.shard, labels),
            }
        };
        let series = self.session.port().series(key.clone(), resolve);
        *last = Some(Known {
            server: server.clone(),
            key,
            series: series.clone(),
        });
        series
    }
}

impl Requests {
    /// Who watches this request, for which [`Requests::series`] has just been found.
    #[cold]
    fn watched(&self, head: &Head, bridged: bool) -> Option<Box<Watched>> {
        let last = self.last.borrow();
        let Known { server, key, .. } = last.as_ref()?;
        let route = server.routes.get(key.route).map(|route| &*route.meta);
        let authorization = server.authorizations.get(key.authorization);
        let labels = labels::watched(&server.meta, route, authorization.map(|by| &*by.meta));
        self.inbound.observer.taps.watch(&tap::Seen {
            direction: Direction::Inbound,
            source: Some(self.session.client()),
            source_tls: match self.session.tls() {
                ClientTls::None(why) => Tls::None(why),
                ClientTls::Unauthenticated => Tls::Peer(""),
                ClientTls::Peer(peer) => Tls::Peer(&peer.name),
            },
            destination: Some(self.session.port().application.reach().address()),
            destination_tls: Tls::None("loopback"),
            destination_labels: Labels::List(&labels),
            route,
            head,
            bridged,
        })
    }
}

impl Handler for Requests {
    type Tunnel = Box<Io>;

    async fn handle(&self, head: &mut Head, down: &mut Downstream<'_>) -> Handled<Box<Io>> {
        let Some(_in_flight) = InFlight::new(&self.inbound) else {
            return self.refuse(down, head, &Refusal::new(Reason::LoadShed));
        };
        let mut account = Account::begin(&self.inbound.shard, head);
        account.access = self
            .inbound
            .observer
            .access(head, || self.session.named_client());
        account.trace = self.inbound.observer.trace(Direction::Inbound, head);
        let peer = if self.session.peer().is_some() {
            Peer::Meshed
        } else {
            Peer::Untrusted
        };
        l5d::strip_unbelievable(head, peer);
        // Policies of this side have no timeouts; the caller's are kept.
        let limit = time_left::of_caller(head, peer);
        let now = clock::nanos(account.started);
        let timeouts = Timeouts {
            idle: self.inbound.config.body_idle_timeout,
            ..Timeouts::default()
        };
        let deadlines = Deadlines::begin(&timeouts, None, now).within(limit, now);
        let bridged = head.version() == Version::Http2 && head.get(l5d::ORIG_PROTO).is_some();
        let (admitted, series, delay) = self.admit(head);
        let metrics = &series.http;
        metrics.request();
        account.of_route(Some(series.edge.clone()));
        if self.inbound.observer.taps.is_on() {
            account.watch(self.watched(head, bridged));
        }
        if let Some(length) = delay {
            if let Err(fault) = Box::pin(fault::hold(down, length)).await {
                account.end(metrics, "cancelled");
                down.cut(fault);
                return Handled::Cut;
            }
        }
        let mut admitted = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => return self.refused(down, head, &refusal, &mut account, metrics),
        };
        let body = down.request_body(head);
        let upgrade = down.asks_tunnel();
        if admitted.beside != Beside::Nothing {
            // Boxed: few ports have requirements, and all requests would carry the room for them.
            match Box::pin(self.meet(&admitted, head, down, body)).await {
                Ok(held) => admitted.held = held,
                Err(Stop::Refuse(refusal)) => {
                    return self.refused(down, head, &refusal, &mut account, metrics);
                }
                Err(Stop::Gone(fault)) => {
                    account.end(metrics, "cancelled");
                    down.cut(fault);
                    return Handled::Cut;
                }
            }
        }
        if let Err(refusal) = self.prepare_request(head, &admitted, upgrade) {
            return self.refused(down, head, &refusal, &mut account, metrics);
        }
        // A request that may do harm twice is not sent again, whatever became of its connection.
        let idempotent = retry::is_idempotent(head.method());
        let mut replay = Replay::off();
        let mut retried = false;
        loop {
            account.handed_on();
            account.trace.attempt(self.inbound.observer.tracer(), head);
            let (mut up, fresh) = match self.open(head, body, upgrade).await {
                Ok(opened) => opened,
                Err(error) => {
                    let refusal = Refusal::because(error.reason, error.detail);
                    return self.refused(down, head, &refusal, &mut account, metrics);
                }
            };
            if let Some(seen) = admitted.seen() {
                Box::pin(seen.replay(&mut up)).await;
            }
            let mut exchange = Exchange::new(down, up, &mut replay, deadlines);
            if let Some(seen) = admitted.seen() {
                exchange.was_begun(seen.whole());
            }
            exchange.edge = account.edge();
            exchange.patience = self.inbound.config.stall_timeout;
            exchange.tunnel = head.protocol().is_some();
            let answer = match exchange.head(head).await {
                Ok(answer) => answer,
                Err(Failure::Upstream(fault))
                    if !retried && !fresh && idempotent && !has_body(body) && fault.is_closed() =>
                {
                    // The idle connection was closed just when it was taken.
                    retried = true;
                    account.trace.attempt_ended(0, None, "stale");
                    replay.rewind();
                    continue;
                }
                Err(failure) => return self.failed(failure, down, head, &mut account, metrics),
            };
            return self
                .finish(
                    exchange,
                    answer,
                    bridged,
                    &admitted,
                    head,
                    &mut account,
                    metrics,
                )
                .await;
        }
    }

    fn unreadable(&self, refusal: &Refusal) -> Option<RequestId> {
        self.session
            .observe_refusal(&self.inbound, &Head::new(), refusal)
    }

    fn tunnel(&self, client: Io, server: Box<Io>, guard: Guard) {
        relay::relay_apart(client, *server, guard);
    }
}

impl Requests {
    /// Holds the request to what its port requires beside authorization.
    async fn meet(
        &self,
        admitted: &Admitted,
        head: &mut Head,
        down: &mut Downstream<'_>,
        body: BodyKind,
    ) -> Result<Option<Box<Held>>, Stop> {
        let (server, port) = (&admitted.server, self.session.port());
        if admitted.beside == Beside::NothingAsProbe {
            admission::drop_claims(server, head);
            return Ok(None);
        }
        let refuse = |refusal| Stop::Refuse(Box::new(refusal));
        let slot = admission::meet(&self.inbound, &self.session, server, head).map_err(refuse)?;
        let (mut wishes, mut seen) = (None, None);
        let gate = port.gate(&self.inbound);
        if let Some(service) = gate.external(&self.inbound, port.number, server) {
            match service.ask(&self.session, head, down, has_body(body)).await {
                Verdict::Pass(changes, read) => (wishes, seen) = (changes, read),
                Verdict::Refuse(refusal) => return Err(refuse(refusal)),
                Verdict::Gone(fault) => return Err(Stop::Gone(fault)),
            }
        }
        Ok(Some(Box::new(Held {
            _slot: slot,
            wishes,
            seen,
        })))
    }

    /// What the application sees of the request.
    fn prepare_request(
        &self,
        head: &mut Head,
        admitted: &Admitted,
        upgrade: bool,
    ) -> Result<(), Refusal> {
        let filtered = decision::modify_request(admitted.filters(), head, &mut { admitted.prefix });
        if let Err(refusal) = filtered {
            return Err(match admitted.name() {
                Some(name) => refusal.of_rule(name),
                None => refusal,
            });
        }
        self.claim(head, upgrade).map_err(Refusal::malformed)
    }

    /// Takes off what concerned the mesh, and says who the client is.
    fn claim(&self, head: &mut Head, upgrade: bool) -> Result<(), tulle_http::Error> {
        if head.version() == Version::Http2 {
            if head.get(l5d::ORIG_PROTO).is_some() {
                translate::request_to_h1(head)?;
                l5d::unbridge(head);
            }
        } else {
            hop::strip(
                head,
                if upgrade {
                    UpgradeField::Keep
                } else {
                    UpgradeField::Drop
                },
            );
        }
        l5d::strip_controls(head);
        head.remove(CLIENT_ID);
        match self.session.peer() {
            Some(peer) => head.push(CLIENT_ID, &peer.name)?,
            // It would take us for a process of the pod.
            None if self.inbound.is_admin(self.session.port().number) => {
                head.push(CLIENT_ID, "none")?;
            }
            None => {}
        }
        Ok(())
    }

    /// A connection to the application with the request's head on it. `true`: made for it.
    async fn open(
        &self,
        head: &Head,
        body: BodyKind,
        upgrade: bool,
    ) -> Result<(Upstream, bool), ConnectError> {
        let application = &self.session.port().application;
        let broken = |fault: Fault| ConnectError::new(Reason::ConnectFailed, fault);
        if head.version() == Version::Http2 {
            let connection = match application.open_h2() {
                Some(connection) => connection,
                None => Box::pin(application.dial_h2()).await?,
            };
            connection.ready(head).await.map_err(broken)?;
            let stream = connection.send(head, !has_body(body)).map_err(broken)?;
            return Ok((Upstream::H2(stream), true));
        }
        // A tunnel takes its connection with it, so it gets one of its own.
        let idle = if upgrade {
            None
        } else {
            application.take_idle()
        };
        let (connection, fresh) = match idle {
            Some(connection) => (connection, false),
            None => (Box::pin(application.dial_h1()).await?, true),
        };
        let up = Upstream::h1(connection, head, body, upgrade).map_err(broken)?;
        Ok((up, fresh))
    }

    #[allow(clippy::too_many_arguments)]
    async fn finish(
        &self,
        mut exchange: Exchange<'_, '_>,
        answer: Answer,
        bridged: bool,
        admitted: &Admitted,
        head: &mut Head,
        account: &mut Account,
        metrics: &HttpMetrics,
    ) -> Handled<Box<Io>> {
        account.answered(head);
        let prepared = prepare_answer(
            head,
            answer,
            bridged,
            admitted,
            matches!(exchange.down, Downstream::H2(_)),
        );
        if let Err(fault) = prepared.and_then(|()| exchange.down.send_head(head, answer)) {
            account.end(metrics, "cancelled");
            exchange.down.cut(fault);
            exchange.up.cancel(tulle_http::h2::Code::CANCEL);
            return Handled::Cut;
        }
        if answer == Answer::Tunnel {
            account.end(metrics, "");
            return match exchange.up {
                Upstream::H1(connection) => Handled::Tunnel(Box::new(connection.into_tunnel())),
                Upstream::H2(_) => Handled::Cut,
            };
        }
        let moved = exchange.bodies().await;
        account.exchanged(&exchange);
        match moved {
            Ok(()) => {
                account.end(metrics, "");
                if let Upstream::H1(connection) = exchange.up {
                    self.session.port().application.give_back(connection);
                }
                Handled::Answered
            }
            Err(failure) => {
                account.fail(metrics, failure);
                exchange.cut(failure);
                Handled::Cut
            }
        }
    }

    /// The exchange failed before there was an answer.
    fn failed(
        &self,
        failure: Failure,
        down: &mut Downstream<'_>,
        head: &mut Head,
        account: &mut Account,
        metrics: &HttpMetrics,
    ) -> Handled<Box<Io>> {
        match failure {
            Failure::Downstream(fault) => {
                account.fail(metrics, failure);
                down.cut(fault);
                Handled::Cut
            }
            // HTTP/2 has a word for it on both sides.
            Failure::Upstream(fault @ (Fault::Reset(_) | Fault::Refused))
                if matches!(down, Downstream::H2(_)) =>
            {
                account.fail(metrics, failure);
                down.cut(fault);
                Handled::Cut
            }
            Failure::Upstream(fault) => {
                self.refused(down, head, &Refusal::of_upstream(fault), account, metrics)
            }
            Failure::Deadline(reason) => {
                self.refused(down, head, &Refusal::new(reason), account, metrics)
            }
        }
    }

    fn refused(
        &self,
        down: &mut Downstream<'_>,
        head: &mut Head,
        refusal: &Refusal,
        account: &mut Account,
        metrics: &HttpMetrics,
    ) -> Handled<Box<Io>> {
        let handled = self.refuse(down, head, refusal);
        account.answered_itself(head);
        account.end(metrics, answer::error_label(refusal));
        handled
    }

    fn refuse(
        &self,
        down: &mut Downstream<'_>,
        head: &mut Head,
        refusal: &Refusal,
    ) -> Handled<Box<Io>> {
        self.inbound.answered_itself(&self.session, refusal.reason);
        let id = self.session.observe_refusal(&self.inbound, head, refusal);
        match answer::refuse(down, head, refusal, id.as_ref()) {
            Ok(()) => Handled::Answered,
            Err(_) => Handled::Cut,
        }
    }
}

/// Rewrites the application's answer for the caller: it may assert nothing in the mesh's name.
fn prepare_answer(
    head: &mut Head,
    answer: Answer,
    bridged: bool,
    admitted: &Admitted,
    h2: bool,
) -> Result<(), Fault> {
    l5d::strip_all(head);
    head.remove(answer::REASON);
    head.remove(request_id::FIELD);
    if bridged && head.version() != Version::Http2 {
        l5d::bridge(head)?;
    }
    hop::strip(
        head,
        if answer == Answer::Tunnel {
            UpgradeField::Keep
        } else {
            UpgradeField::Drop
        },
    );
    if h2 {
        translate::response_to_h2(head);
    }
    decision::modify_response(admitted.filters(), head)?;
    if let Some(origin) = &admitted.origin {
        origin.mark(head)?;
    }
    if let Some(wishes) = admitted.held.as_ref().and_then(|held| held.wishes.as_ref()) {
        wishes.apply(head)?;
    }
    Ok(())
}

/// One of the requests at once.
struct InFlight<'i>(&'i Inbound);

impl<'i> InFlight<'i> {
    fn new(inbound: &'i Inbound) -> Option<Self> {
        let count = inbound.in_flight.get();
        (count < inbound.config.inbound.connections.max_in_flight).then(|| {
            inbound.in_flight.set(count + 1);
            InFlight(inbound)
        })
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}
