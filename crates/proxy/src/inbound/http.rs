//! One inbound request, from its head to its account.
//!
//! `handle` is the order of things: hygiene, route and permit (`admit`), what else the port requires (`requirements`),
//! the application, the answer. `rewrite` says what of a head crosses between the mesh and the application.

mod admit;
mod requirements;
mod rewrite;
mod series;

use std::cell::RefCell;
use std::rc::Rc;

use tulle_engine::Reason;
use tulle_engine::deadline::Deadlines;
use tulle_engine::outbound::Timeouts;
use tulle_engine::retry;
use tulle_http::h1::BodyKind;
use tulle_http::l5d::{self, Peer};
use tulle_http::{Head, Version};

use crate::clock;
use crate::drain::Guard;
use crate::http::Fault;
use crate::http::account::Account;
use crate::http::answer::{self, Refusal};
use crate::http::exchange::{Exchange, Failure};
use crate::http::fault;
use crate::http::replay::Replay;
use crate::http::serve::{Handled, Handler};
use crate::http::side::{Answer, Downstream, Upstream, has_body};
use crate::http::time_left;
use crate::inbound::session::Session;
use crate::inbound::{Inbound, profiles};
use crate::metrics::http::HttpMetrics;
use crate::net::io::Io;
use crate::net::reach::ConnectError;
use crate::net::relay;
use crate::observe::{Direction, RequestId};
use admit::{Admitted, Beside};
use requirements::Stop;
use rewrite::prepare_answer;
use series::Known;

/// The requests of one accepted connection.
pub struct Requests {
    inbound: Rc<Inbound>,
    session: Session,
    /// The series of the last request; a connection's requests mostly have the same.
    last: RefCell<Option<Known>>,
    profile: profiles::Last,
}

impl Requests {
    pub fn new(inbound: Rc<Inbound>, session: Session) -> Self {
        Requests {
            inbound,
            session,
            last: RefCell::new(None),
            profile: profiles::Last::default(),
        }
    }
}

impl Handler for Requests {
    type Tunnel = Box<Io>;

    async fn handle(&self, head: &mut Head, down: &mut Downstream<'_>) -> Handled<Box<Io>> {
        let Some(_entered) = self.inbound.in_flight.enter() else {
            return self.refuse(down, head, &Refusal::new(Reason::LoadShed));
        };
        let (mut account, deadlines) = self.begin(head);
        let bridged = head.version() == Version::Http2 && head.get(l5d::ORIG_PROTO).is_some();
        let (admitted, series, delay) = self.admit(head);
        let metrics = &series.http;
        metrics.request();
        let edge = match &admitted {
            Ok(_) => self.edge(&series, head),
            Err(_) => series.edge.clone(),
        };
        account.of_route(Some(edge));
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
        self.hand_on(
            &mut admitted,
            (deadlines, bridged),
            head,
            down,
            &mut account,
            metrics,
        )
        .await
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
    /// A request's account and its deadlines. What its client cannot be believed is taken off the head.
    #[inline]
    fn begin(&self, head: &mut Head) -> (Account, Deadlines) {
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
        (account, deadlines)
    }

    /// Carries an admitted request to the application and the answer back, once the port's other requirements are met.
    async fn hand_on(
        &self,
        admitted: &mut Admitted,
        (deadlines, bridged): (Deadlines, bool),
        head: &mut Head,
        down: &mut Downstream<'_>,
        account: &mut Account,
        metrics: &HttpMetrics,
    ) -> Handled<Box<Io>> {
        let now = clock::nanos(account.started);
        let body = down.request_body(head);
        let upgrade = down.asks_tunnel();
        let mut replay = Replay::off();
        if admitted.beside != Beside::Nothing {
            // Boxed: few ports have requirements, and all requests would carry the room for them.
            match Box::pin(self.meet(admitted, head, down, body, &mut replay)).await {
                Ok(held) => admitted.held = held,
                Err(Stop::Refuse(refusal)) => {
                    return self.refused(down, head, &refusal, account, metrics);
                }
                Err(Stop::Gone(fault)) => {
                    account.end(metrics, "cancelled");
                    down.cut(fault);
                    return Handled::Cut;
                }
            }
        }
        if let Err(refusal) = self.prepare_request(head, admitted, upgrade) {
            return self.refused(down, head, &refusal, account, metrics);
        }
        // A request that may do harm twice is not sent again, whatever became of its connection.
        let idempotent = retry::is_idempotent(head.method());
        let mut unseen = 0;
        loop {
            account.handed_on();
            account.trace.attempt(self.inbound.observer.tracer(), head);
            // The others that are idle may be about to be closed as well.
            let idle = (unseen == 0).then_some(now);
            let (up, fresh) = match self.open(head, body, upgrade, idle).await {
                Ok(opened) => opened,
                Err(error) => {
                    let refusal = Refusal::because(error.reason, error.detail);
                    return self.refused(down, head, &refusal, account, metrics);
                }
            };
            let mut exchange = Exchange::new(down, up, &mut replay, deadlines);
            exchange.edge = account.edge();
            exchange.tunnel = head.protocol().is_some();
            let application = &self.session.port().application;
            exchange.time(&self.inbound.stalls, application, head, body, true);
            let answer = match exchange.head(head).await {
                Ok(answer) => answer,
                Err(Failure::Upstream(fault))
                    if unseen < retry::MAX_UNSEEN
                        && idempotent
                        && !has_body(body)
                        && is_unread(fault, &exchange.up, fresh) =>
                {
                    unseen += 1;
                    account.trace.attempt_ended(0, None, "stale");
                    replay.rewind();
                    continue;
                }
                Err(failure) => return self.failed(failure, down, head, account, metrics),
            };
            exchange.replay.settled();
            let under = (&*admitted, bridged);
            let passed = pass_on(&mut exchange, answer, under, head, account, metrics);
            return match passed.await {
                Some(ended) => self.conclude(exchange.up, answer, ended),
                None => Handled::Cut,
            };
        }
    }

    /// A connection to the application with the request's head on it. `true`: made for it. `idle`: one that was good at
    /// this time will do.
    async fn open(
        &self,
        head: &Head,
        body: BodyKind,
        upgrade: bool,
        idle: Option<u64>,
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
        let idle = idle.filter(|_| !upgrade);
        let (connection, fresh) = match idle.and_then(|now| application.take_idle(now)) {
            Some(connection) => (connection, false),
            None => (Box::pin(application.dial_h1()).await?, true),
        };
        let up = Upstream::h1(connection, head, body, upgrade).map_err(broken)?;
        Ok((up, fresh))
    }

    /// What becomes of the application's connection after a whole answer, in ns.
    fn conclude(&self, up: Upstream, answer: Answer, ended: u64) -> Handled<Box<Io>> {
        match (up, answer) {
            (Upstream::H1(connection), Answer::Tunnel) => {
                Handled::Tunnel(Box::new(connection.into_tunnel()))
            }
            (Upstream::H2(_), Answer::Tunnel) => Handled::Cut,
            (Upstream::H1(connection), _) => {
                let application = &self.session.port().application;
                application.give_back(connection, ended);
                Handled::Answered
            }
            (Upstream::H2(_), _) => Handled::Answered,
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

/// Has the application, by all appearances, not read the request? An idle connection was closed just when it was taken; or
/// a new one was reset, as a socket is that is closed with something unread in it, or before it was accepted. Where the
/// application has left, the next connection finds that out, and the caller's proxy hears that it may ask another.
fn is_unread(fault: Fault, up: &Upstream, fresh: bool) -> bool {
    match up {
        Upstream::H1(_) if fresh => fault.is_reset(),
        Upstream::H1(_) => fault.is_closed(),
        Upstream::H2(_) => false,
    }
}

/// Passes the answer on to its end: the account's, in ns. `None`: one of the two ended early.
async fn pass_on(
    exchange: &mut Exchange<'_, '_>,
    answer: Answer,
    (admitted, bridged): (&Admitted, bool),
    head: &mut Head,
    account: &mut Account,
    metrics: &HttpMetrics,
) -> Option<u64> {
    account.answered(head);
    let to_h2 = matches!(exchange.down, Downstream::H2(_));
    let prepared = prepare_answer(head, answer, bridged, admitted, to_h2);
    if let Err(fault) = prepared.and_then(|()| exchange.down.send_head(head, answer)) {
        account.end(metrics, "cancelled");
        exchange.down.cut(fault);
        exchange.up.cancel(tulle_http::h2::Code::CANCEL);
        return None;
    }
    if answer != Answer::Tunnel {
        let moved = exchange.bodies().await;
        account.exchanged(exchange);
        if let Err(failure) = moved {
            account.fail(metrics, failure);
            exchange.cut(failure);
            return None;
        }
    }
    Some(clock::nanos(account.end(metrics, "")))
}
