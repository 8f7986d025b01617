//! One outgoing request, from its head to its account.
//!
//! `handle` is the order of things: target, policy, rule, filters, backend, endpoint, exchange. The rule is chosen by
//! the engine; this file carries it out. `send` is the one loop over tries: `attempt` is a single try, `tries` says whether
//! there is another.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tulle_engine::deadline::Deadlines;
use tulle_engine::outbound::{HttpVersion, RouteBackend, Rule, Timeouts};
use tulle_engine::retry::Tried;
use tulle_engine::route::{Matcher, RuleId, RuleName};
use tulle_engine::tap::Labels;
use tulle_engine::{Meta, Reason};
use tulle_http::hop::UpgradeField;
use tulle_http::l5d::{self, Peer};
use tulle_http::{Head, TargetForm, Version, hop, translate};

use crate::clock;
use crate::drain::Guard;
use crate::http::Fault;
use crate::http::account::{self, Account};
use crate::http::answer::{self, Refusal};
use crate::http::decision::{self, Fields, Origin};
use crate::http::exchange::{self, Exchange, Failure};
use crate::http::fault;
use crate::http::replay::{self, Replay};
use crate::http::serve::{self, Handled, Handler};
use crate::http::side::{Answer, Downstream, Upstream, has_body};
use crate::http::time_left;
use crate::metrics::route::Edge;
use crate::net::io::Io;
use crate::net::relay;
use crate::observe::{Caller, Derivation, Direction, RequestId, request_id};
use crate::outbound::attempt::{Unsent, keep_authority, open_in_time, pick, restore, tried};
use crate::outbound::backend::{Backend, InUse, Member};
use crate::outbound::hedge::{self, Slow};
use crate::outbound::mirror::Copies;
use crate::outbound::rules::RuleState;
use crate::outbound::target::{Compiled, State};
use crate::outbound::tries::{Asked, Course};
use crate::outbound::{DISCOVERY_TIMEOUT, Outbound, captured, explicit};
use crate::tap::{Seen, Tls, Watched};

/// The requests of one accepted connection.
pub struct Requests {
    outbound: Rc<Outbound>,
    /// Who sends them.
    client: Option<SocketAddr>,
    to: To,
}

/// Where requests go.
enum To {
    /// All to the connection's own destination.
    Target(Rc<State>),
    /// All to a name, from another proxy that sent them through this one.
    Gateway(Rc<State>),
    /// Each to its authority; the last one is remembered.
    Authority {
        last: RefCell<Option<(Vec<u8>, Rc<State>)>>,
        original: Option<SocketAddr>,
    },
}

/// Where a tunnel leads to.
pub enum Tunnel {
    Server(Box<Io>),
    /// A client that was not redirected asked for a connection there (CONNECT).
    Target(Rc<State>),
}

impl Requests {
    pub fn to(outbound: Rc<Outbound>, client: Option<SocketAddr>, target: Rc<State>) -> Self {
        Requests {
            outbound,
            client,
            to: To::Target(target),
        }
    }

    pub fn by_authority(
        outbound: Rc<Outbound>,
        client: Option<SocketAddr>,
        original: Option<SocketAddr>,
    ) -> Self {
        Requests {
            outbound,
            client,
            to: To::Authority {
                last: RefCell::new(None),
                original,
            },
        }
    }

    pub fn through_gateway(outbound: Rc<Outbound>, target: Rc<State>) -> Self {
        Requests {
            outbound,
            client: None,
            to: To::Gateway(target),
        }
    }

    fn target(&self, head: &Head) -> Result<Rc<State>, Refusal> {
        match &self.to {
            To::Target(target) | To::Gateway(target) => Ok(target.clone()),
            To::Authority { last, original } => {
                explicit::target(&self.outbound, head, last, *original)
            }
        }
    }

    fn is_explicit(&self) -> bool {
        matches!(self.to, To::Authority { .. })
    }
}

impl Handler for Requests {
    type Tunnel = Tunnel;

    async fn handle(&self, head: &mut Head, down: &mut Downstream<'_>) -> Handled<Tunnel> {
        let _in_flight = match InFlight::new(&self.outbound) {
            Some(in_flight) => in_flight,
            None => {
                return self.refused(down, head, &Refusal::new(Reason::LoadShed), |_| {
                    Derivation::none()
                });
            }
        };
        let mut account = Account::begin(&self.outbound.shard, head);
        account.trace = self.outbound.observer.trace(Direction::Outbound, head);
        let target = match self.target(head) {
            Ok(target) => target,
            Err(refusal) => return self.refused(down, head, &refusal, |_| Derivation::none()),
        };
        let compiled = match target.current() {
            Some(compiled) => compiled,
            None => match Box::pin(target.ready(DISCOVERY_TIMEOUT)).await {
                Ok(compiled) => compiled,
                Err(reason) => {
                    return self.refused(down, head, &Refusal::new(reason), |_| Derivation::none());
                }
            },
        };
        if self.is_explicit() && down.asks_tunnel() && head.method() == b"CONNECT" {
            return open_tunnel(down, head, target);
        }
        if matches!(self.to, To::Gateway(_)) {
            match unpack(head) {
                Ok(bridged) => account.bridged = bridged,
                Err(error) => {
                    return self.refused(down, head, &Refusal::malformed(error), |_| {
                        Derivation::none()
                    });
                }
            }
        }
        l5d::strip_unbelievable(head, Peer::Untrusted);
        let required_id = head
            .get("l5d-require-id")
            .map(|id| Box::from(String::from_utf8_lossy(id)));
        if self.is_explicit() {
            head.set_target_form(TargetForm::Origin);
        }
        let version = if head.version() == Version::Http2 {
            HttpVersion::Http2
        } else {
            HttpVersion::Http1
        };
        let (delay, plan) = decide(&self.outbound, &compiled, version, head);
        if let Some(length) = delay {
            if let Err(fault) = Box::pin(fault::hold(down, length)).await {
                down.cut(fault);
                return Handled::Cut;
            }
        }
        let handled = match plan {
            Ok(ref plan) => {
                let asked = Asked::read(plan.rule, head);
                l5d::strip_controls(head);
                let wishes = (required_id.as_deref(), asked.as_deref());
                self.send(&compiled, plan, wishes, head, down, &mut account)
                    .await
            }
            Err(ref refusal) => Sent::Refused((**refusal).clone()),
        };
        match handled {
            Sent::Handled(handled) => handled,
            Sent::Refused(refusal) => {
                compiled.metrics.request();
                if self.outbound.observer.taps.is_on() && account.watched().is_none() {
                    let route = plan.as_ref().ok().map(|plan| plan.route);
                    account.watch(self.watched(head, route, None, account.bridged));
                }
                let handled = self.refused(down, head, &refusal, |head| match &plan {
                    Ok(plan) => Derivation::of_rule(plan.name()),
                    Err(_) => Derivation::outbound(compiled.policy(), version, head),
                });
                account.answered_itself(head);
                account.end(&compiled.metrics, answer::error_label(&refusal));
                handled
            }
        }
    }

    fn unreadable(&self, refusal: &Refusal) -> Option<RequestId> {
        let observer = &self.outbound.observer;
        observer.refused(Caller::workload(), &Head::new(), refusal, Derivation::none)
    }

    fn tunnel(&self, client: Io, to: Tunnel, guard: Guard) {
        match to {
            Tunnel::Server(server) => relay::relay_apart(client, *server, guard),
            // A connection inside of a connection, whose task this is.
            Tunnel::Target(target) => {
                let connection = captured(self.outbound.clone(), client, target, guard);
                drop(tokio::task::spawn_local(connection));
            }
        }
    }
}

/// What is to be done with a request, as the engine has decided.
struct Plan<'p> {
    route: &'p Meta,
    id: RuleId,
    rule: &'p Rule,
    /// The match of the rule that holds, for rewrites.
    matcher: &'p Matcher,
    backend: &'p RouteBackend,
    /// For the marks that CORS puts on the answer.
    origin: Option<Box<Origin>>,
}

impl<'p> Plan<'p> {
    fn name(&self) -> RuleName<'p> {
        RuleName {
            route: self.route,
            number: self.rule.number,
        }
    }
}

/// What comes before anything else, and what then; a refusal is rare, and boxed for the sake of the request's future.
type Decided<'p> = (Option<Duration>, Result<Plan<'p>, Box<Refusal>>);

/// Asks the engine. Pure, but for the dice.
fn decide<'p>(
    outbound: &Outbound,
    compiled: &'p Compiled,
    version: HttpVersion,
    head: &Head,
) -> Decided<'p> {
    let fields = Fields(head);
    let view = fields.view();
    let policy = compiled.policy();
    let Some(found) = policy.route(version, &view) else {
        let refusal = Refusal::new(Reason::RouteNotFound).of_rule(&policy.meta);
        return (None, Err(Box::new(refusal)));
    };
    let (name, random) = (found.name(), fastrand::u64(..));
    let mut delay = found.delay(&view, random);
    let mut origin = Origin::of(&found.rule.filters, head);
    let refusal = |answer| decision::refusal(answer, head, found.matcher, name);
    let refusal = match found.answer(&view, random) {
        Some(answer) => refusal(answer),
        None => match found.rule.backend(fastrand::u64(..), |_| true) {
            None => Refusal::new(Reason::NoBackend).of_rule(name),
            Some(backend) => {
                // The backend's filters draw apart from the rule's.
                let random = random.rotate_left(32);
                delay = delay.max(backend.delay(&view, random));
                origin = origin.or_else(|| Origin::of(&backend.filters, head));
                match backend.answer(&view, random) {
                    Some(answer) => refusal(answer),
                    None => {
                        outbound.delayed(delay, name);
                        let plan = Plan {
                            id: found.id,
                            route: &found.route.meta,
                            rule: found.rule,
                            matcher: found.matcher,
                            backend,
                            origin,
                        };
                        return (delay, Ok(plan));
                    }
                }
            }
        },
    };
    outbound.delayed(delay, name);
    (delay, Err(outbound.answered(refusal, name, origin)))
}

enum Sent {
    Handled(Handled<Tunnel>),
    Refused(Refusal),
}

impl Requests {
    /// Carries a plan out: an endpoint, the exchange with it, the account; and again, if the try calls for another.
    async fn send(
        &self,
        compiled: &Compiled,
        plan: &Plan<'_>,
        (required_id, asked): (Option<&str>, Option<&Asked>),
        head: &mut Head,
        down: &mut Downstream<'_>,
        account: &mut Account,
    ) -> Sent {
        let (Some(backend), Some(state)) = (
            compiled.backend(plan.backend.backend),
            compiled.rule(plan.id),
        ) else {
            return Sent::Refused(Refusal::new(Reason::Internal));
        };
        account.of_route(Some(self.edge(compiled, plan, state, head)));
        let body = down.request_body(head);
        let upgrade = down.asks_tunnel();
        let mut copies = None;
        if let Err(refusal) = self.filter(compiled, plan, head, upgrade, &mut copies) {
            return Sent::Refused(refusal.of_rule(plan.name()));
        }
        let (timeouts, retry) = match asked {
            Some(asked) => (&asked.timeouts, asked.retry.as_ref()),
            None => (&plan.rule.timeouts, plan.rule.retry.as_ref()),
        };
        let now = clock::nanos(account.started);
        let deadlines = self
            .deadlines(timeouts, plan, now)
            .within(time_left::of_grpc(head), now);
        let mut course = Course::new(state, retry, deadlines, head, now);
        let mut replay = match upgrade {
            true => Replay::off(),
            false => Replay::new(
                &self.outbound.room,
                body,
                retry.map_or(replay::UNASKED, |retry| retry.max_request_bytes as usize),
            ),
        };
        let mut choice = backend.choice(head, self.client.map(|client| client.ip()));
        let mut authority = None;
        loop {
            let mut in_use = match pick(backend, choice, course.since, &course.deadlines).await {
                Ok(in_use) => in_use,
                Err(unavailable) => {
                    let tried = match unavailable.reason {
                        Reason::FailFast => Some(Tried::FailFast),
                        Reason::TryTimeout => Some(Tried::Late),
                        _ => None,
                    };
                    match tried.and_then(|tried| course.decide(tried, replay.body())) {
                        None => return Sent::Refused(unavailable.into()),
                        Some(after) => match course.next(after, down).await {
                            Ok(()) => continue,
                            Err(fault) => return gone(fault, down),
                        },
                    }
                }
            };
            if required_id.is_some_and(|id| in_use.member.origin.reach().identity() != Some(id)) {
                return Sent::Refused(Refusal::new(Reason::IdentityRequired));
            }
            keep_authority(&mut authority, head, &in_use);
            if self.outbound.observer.taps.is_on() {
                let to = Some(&*in_use.member);
                account.watch(self.watched(head, Some(plan.route), to, account.bridged));
            }
            let left = course.deadlines.left(!has_body(body), course.since);
            if let Err(error) = time_left::hand_on(head, in_use.is_meshed(), left) {
                return Sent::Refused(Refusal::malformed(error));
            }
            account.trace.attempt(self.outbound.observer.tracer(), head);
            let opened = open_in_time(&in_use, head, body, upgrade, &course.deadlines).await;
            let after = match opened {
                Err(unsent) => {
                    account.trace.attempt_ended(0, None, unsent.label());
                    match self.unsent(unsent, &in_use, backend, &mut course, &replay) {
                        Ok(after) => after,
                        Err(refusal) => return Sent::Refused(refusal),
                    }
                }
                Ok((up, fresh)) => {
                    let mut exchange = Exchange::new(down, up, &mut replay, course.deadlines);
                    exchange.copies = copies.as_deref_mut();
                    exchange.edge = account.edge();
                    exchange.patience = self.outbound.config.stall_timeout;
                    exchange.tunnel = head.protocol().is_some();
                    // Beside the request's head, which another try may need.
                    let mut answer_head = serve::spare_boxed_head();
                    let headed = match hedge::wanted(&course, &plan.rule.hedge) {
                        Some((hedge, delay)) if !upgrade => {
                            let slow = Slow {
                                hedge,
                                delay,
                                course: &course,
                                backend,
                                choice,
                                required_id,
                                authority: authority.as_deref(),
                                body,
                                account,
                                tracer: self.outbound.observer.tracer(),
                            };
                            Box::pin(hedge::head(
                                &mut exchange,
                                &mut in_use,
                                head,
                                &mut answer_head,
                                slow,
                            ))
                            .await
                        }
                        _ => exchange.head(&mut answer_head).await,
                    };
                    let judged = match headed {
                        Ok(answer) => course
                            .judge(&mut exchange, answer, &answer_head)
                            .await
                            .map(|tried| (answer, tried)),
                        Err(failure) => Err(failure),
                    };
                    let verdict = match judged {
                        Ok((answer, tried)) => {
                            hedge::record(&course);
                            // Asked first: also when this request cannot be sent again, the next ones go elsewhere.
                            let tried = match in_use.declined(&answer_head) {
                                true => Some(Tried::Refused),
                                false => tried,
                            };
                            match tried.and_then(|t| course.decide(t, exchange.replay.body())) {
                                Some(after) => {
                                    discard(exchange, &in_use, &answer_head, &course, account);
                                    after
                                }
                                None => {
                                    course.settled(tried);
                                    exchange.replay.settled();
                                    std::mem::swap(head, &mut answer_head);
                                    serve::keep_boxed_head(answer_head);
                                    let passed = pass_on(
                                        &mut exchange,
                                        answer,
                                        plan,
                                        &in_use,
                                        head,
                                        account,
                                    );
                                    if !passed.await {
                                        return Sent::Handled(Handled::Cut);
                                    }
                                    return Sent::Handled(conclude(exchange.up, answer, &in_use));
                                }
                            }
                        }
                        Err(failure) => {
                            let tried = match failure {
                                Failure::Upstream(fault) => tried(fault, fresh),
                                Failure::Deadline(Reason::TryTimeout) => Some(Tried::Late),
                                _ => None,
                            };
                            let again =
                                tried.and_then(|t| course.decide(t, exchange.replay.body()));
                            exchange.up.cancel(failure.to_upstream());
                            let Some(after) = again else {
                                return self.failed(failure, plan, &in_use, account, down, head);
                            };
                            in_use.broke(clock::now());
                            let since = clock::instant(course.since);
                            let label = account::error_label(failure);
                            account.tried(&in_use.member.metrics, since, None, label);
                            account.unwatch(Err(failure));
                            after
                        }
                    };
                    serve::keep_boxed_head(answer_head);
                    verdict
                }
            };
            choice.exclude(&in_use);
            if let Err(error) = restore(head, &in_use, authority.as_deref()) {
                return Sent::Refused(Refusal::malformed(error));
            }
            drop(in_use);
            if let Err(fault) = course.next(after, down).await {
                return gone(fault, down);
            }
            replay.rewind();
        }
    }

    /// Changes the request as the rule's filters say, then the backend's, and begins the copies that they ask for.
    fn filter(
        &self,
        compiled: &Compiled,
        plan: &Plan<'_>,
        head: &mut Head,
        upgrade: bool,
        copies: &mut Option<Box<Copies>>,
    ) -> Result<(), Refusal> {
        let mut prefix = plan.matcher.prefix();
        for filters in [&plan.rule.filters, &plan.backend.filters] {
            decision::modify_request(filters, head, &mut prefix)?;
            // A tunnel has no end that a copy could wait for.
            if !upgrade {
                Copies::begin(copies, filters, compiled, &self.outbound.mirrored, head);
            }
        }
        Ok(())
    }

    /// Where the request is counted as one of its route and backend.
    fn edge(
        &self,
        compiled: &Compiled,
        plan: &Plan<'_>,
        state: &RuleState,
        head: &Head,
    ) -> Rc<Edge> {
        let backend = compiled.policy().backends.get(plan.backend.backend.index());
        let hostname = match self.outbound.config.outbound.hostname_labels {
            true => head.authority().unwrap_or_default(),
            false => b"",
        };
        state.edge(backend.map(|backend| &backend.meta), hostname)
    }

    /// Who watches this request, or this try of it.
    #[cold]
    fn watched(
        &self,
        head: &Head,
        route: Option<&Meta>,
        to: Option<&Member>,
        bridged: bool,
    ) -> Option<Box<Watched>> {
        let nowhere = (None, Labels::List(&[]), Tls::None("no_endpoint"));
        let (destination, labels, proof) = to.map_or(nowhere, |member| {
            let (at, labels, proof) = member.as_watched();
            (Some(at), labels, proof)
        });
        self.outbound.observer.taps.watch(&Seen {
            direction: Direction::Outbound,
            source: self.client,
            source_tls: Tls::None("loopback"),
            destination,
            destination_tls: proof,
            destination_labels: labels,
            route,
            head,
            bridged,
        })
    }

    fn deadlines(&self, timeouts: &Timeouts, plan: &Plan<'_>, now: u64) -> Deadlines {
        let by_default = self.outbound.config.body_idle_timeout;
        let timeouts = Timeouts {
            idle: timeouts.idle.or(by_default),
            ..*timeouts
        };
        Deadlines::begin(&timeouts, plan.backend.response_timeout, now)
    }

    /// A try got no further than to its endpoint: the wait before the next, or what the caller is told.
    fn unsent(
        &self,
        unsent: Unsent,
        in_use: &InUse,
        backend: &Backend,
        course: &mut Course<'_>,
        replay: &Replay,
    ) -> Result<u64, Refusal> {
        let (tried, refusal) = match unsent {
            Unsent::Malformed(error) => return Err(Refusal::malformed(error)),
            Unsent::Refused => (Tried::Refused, Refusal::of_upstream(Fault::Refused)),
            Unsent::Connect(error) => {
                in_use.failed(error.clone());
                let others = !backend.is_single();
                let refusal = Refusal::because(error.reason, error.detail);
                (Tried::Unconnected { others }, refusal)
            }
            Unsent::Late(reason) => {
                in_use.broke(clock::now());
                if reason != Reason::TryTimeout {
                    return Err(Refusal::new(reason));
                }
                (Tried::Late, Refusal::new(reason))
            }
        };
        course.decide(tried, replay.body()).ok_or(refusal)
    }

    /// The exchange failed before there was an answer.
    fn failed(
        &self,
        failure: Failure,
        plan: &Plan<'_>,
        in_use: &InUse,
        account: &mut Account,
        down: &mut Downstream<'_>,
        head: &mut Head,
    ) -> Sent {
        let metrics = &in_use.member.metrics;
        metrics.request();
        if !matches!(failure, Failure::Downstream(_)) {
            in_use.broke(clock::now());
        }
        let refusal = match failure {
            Failure::Downstream(fault) => {
                account.fail(metrics, failure);
                down.cut(fault);
                return Sent::Handled(Handled::Cut);
            }
            // HTTP/2 has a word for it on both sides.
            Failure::Upstream(fault @ (Fault::Reset(_) | Fault::Refused))
                if matches!(down, Downstream::H2(_)) =>
            {
                account.fail(metrics, failure);
                down.cut(fault);
                return Sent::Handled(Handled::Cut);
            }
            Failure::Upstream(fault) => Refusal::of_upstream(fault),
            // The limit is the rule's.
            Failure::Deadline(reason) => Refusal::new(reason).of_rule(plan.name()),
        };
        let mut refusal = refusal;
        if let Some(origin) = &plan.origin {
            origin.mark_refusal(&mut refusal);
        }
        let handled = self.refused(down, head, &refusal, |_| Derivation::of_rule(plan.name()));
        account.answered_itself(head);
        account.end(metrics, refusal.reason.code());
        Sent::Handled(handled)
    }

    fn refused(
        &self,
        down: &mut Downstream<'_>,
        head: &mut Head,
        refusal: &Refusal,
        derivation: impl FnOnce(&Head) -> Derivation,
    ) -> Handled<Tunnel> {
        self.outbound.answered_itself(refusal.reason);
        let observer = &self.outbound.observer;
        let id = observer.refused(Caller::workload(), head, refusal, || derivation(head));
        match answer::refuse(down, head, refusal, id.as_ref()) {
            Ok(()) => Handled::Answered,
            Err(_) => Handled::Cut,
        }
    }
}

/// The caller has left between two tries.
fn gone(fault: Fault, down: &mut Downstream<'_>) -> Sent {
    down.cut(fault);
    Sent::Handled(Handled::Cut)
}

/// An answer that is not the caller's, because there is another try.
fn discard(
    exchange: Exchange<'_, '_>,
    in_use: &InUse,
    head: &Head,
    course: &Course<'_>,
    account: &mut Account,
) {
    let grpc = exchange.grpc_status().or(exchange::grpc_status(head));
    in_use.answered(clock::now(), head);
    in_use.ended(clock::now(), grpc);
    let since = clock::instant(course.since);
    account.tried(
        &in_use.member.metrics,
        since,
        Some((head.status(), grpc)),
        "",
    );
    account.unwatch(Ok(head));
    if let Some(connection) = exchange.discard() {
        in_use.member.origin.give_back(connection);
    }
}

/// The answer has begun: passes it on, keeps the account. False when it had to be cut.
async fn pass_on(
    exchange: &mut Exchange<'_, '_>,
    answer: Answer,
    plan: &Plan<'_>,
    in_use: &InUse,
    head: &mut Head,
    account: &mut Account,
) -> bool {
    let metrics = &in_use.member.metrics;
    metrics.request();
    if let Some(tap) = account.watched() {
        let (at, labels, proof) = in_use.member.as_watched();
        tap.answered_by(at, labels, proof);
    }
    in_use.answered(clock::nanos(account.answered(head)), head);
    let prepared = prepare_answer(head, answer, in_use, plan, account.bridged, exchange.down);
    if let Err(fault) = prepared.and_then(|()| exchange.down.send_head(head, answer)) {
        account.end(metrics, "cancelled");
        exchange.down.cut(fault);
        exchange.up.cancel(fault.to_code());
        return false;
    }
    if answer == Answer::Tunnel {
        account.end(metrics, "");
        return true;
    }
    let moved = exchange.bodies().await;
    account.exchanged(exchange);
    match moved {
        Ok(()) => {
            in_use.ended(clock::now(), exchange.grpc_status());
            account.end(metrics, "");
            true
        }
        Err(failure) => {
            if !matches!(failure, Failure::Downstream(_)) {
                in_use.broke(clock::now());
            }
            account.fail(metrics, failure);
            exchange.cut(failure);
            false
        }
    }
}

/// What becomes of the server's connection after a whole answer.
fn conclude(up: Upstream, answer: Answer, in_use: &InUse) -> Handled<Tunnel> {
    match (up, answer) {
        (Upstream::H1(connection), Answer::Tunnel) => {
            Handled::Tunnel(Tunnel::Server(Box::new(connection.into_tunnel())))
        }
        (Upstream::H2(_), Answer::Tunnel) => Handled::Cut,
        (Upstream::H1(connection), _) => {
            in_use.member.origin.give_back(connection);
            Handled::Answered
        }
        (Upstream::H2(_), _) => Handled::Answered,
    }
}

/// Rewrites the answer's head for the caller.
fn prepare_answer(
    head: &mut Head,
    answer: Answer,
    in_use: &InUse,
    plan: &Plan<'_>,
    bridged: bool,
    down: &mut Downstream<'_>,
) -> Result<(), Fault> {
    if in_use.member.origin.reach().is_meshed() {
        // The peer proxy's word about its connection to us: ours to the caller goes with it.
        if head
            .get("l5d-proxy-connection")
            .is_some_and(|value| value.eq_ignore_ascii_case(b"close"))
        {
            down.close_after();
        }
        l5d::unbridge(head);
        head.remove("l5d-proxy-connection");
        l5d::strip_controls(head);
    } else {
        l5d::strip_all(head);
        head.remove(answer::REASON);
        head.remove(request_id::FIELD);
    }
    if bridged {
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
    if matches!(down, Downstream::H2(_)) {
        translate::response_to_h2(head);
    }
    decision::modify_response(&plan.rule.filters, head)?;
    decision::modify_response(&plan.backend.filters, head)?;
    if let Some(origin) = &plan.origin {
        origin.mark(head)?;
    }
    in_use.stick(head).map_err(Fault::Malformed)
}

/// Takes an HTTP/1 request out of the HTTP/2 in which another proxy carried it. `false`: it is HTTP/2 by nature.
fn unpack(head: &mut Head) -> Result<bool, tulle_http::Error> {
    let bridged = head.version() == Version::Http2 && head.get(l5d::ORIG_PROTO).is_some();
    if bridged {
        translate::request_to_h1(head)?;
        l5d::unbridge(head);
    }
    Ok(bridged)
}

/// Agrees to a CONNECT: what the client says next is detected and routed as if it had been redirected here.
fn open_tunnel(down: &mut Downstream<'_>, head: &mut Head, target: Rc<State>) -> Handled<Tunnel> {
    head.clear();
    let opened = head
        .set_status(200)
        .map_err(Fault::Malformed)
        .and_then(|()| down.send_head(head, Answer::Tunnel));
    match opened {
        Ok(()) => Handled::Tunnel(Tunnel::Target(target)),
        Err(_) => Handled::Cut,
    }
}

/// One of the requests at once.
struct InFlight<'o>(&'o Outbound);

impl<'o> InFlight<'o> {
    fn new(outbound: &'o Outbound) -> Option<Self> {
        let count = outbound.in_flight.get();
        (count < outbound.config.outbound.connections.max_in_flight).then(|| {
            outbound.in_flight.set(count + 1);
            InFlight(outbound)
        })
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}
