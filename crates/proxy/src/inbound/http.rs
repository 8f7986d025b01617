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
        let body = down.request_body(head);
        let upgrade = down.asks_tunnel();
        let mut replay = Replay::off();
        if admitted.beside != Beside::Nothing {
            // Boxed: few ports have requirements, and all requests would carry the room for them.
            match Box::pin(self.meet(&admitted, head, down, body, &mut replay)).await {
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
        let mut retried = false;
        loop {
            account.handed_on();
            account.trace.attempt(self.inbound.observer.tracer(), head);
            let (up, fresh) = match self.open(head, body, upgrade, now).await {
                Ok(opened) => opened,
                Err(error) => {
                    let refusal = Refusal::because(error.reason, error.detail);
                    return self.refused(down, head, &refusal, &mut account, metrics);
                }
            };
            let mut exchange = Exchange::new(down, up, &mut replay, deadlines);
            exchange.edge = account.edge();
            exchange.tunnel = head.protocol().is_some();
            exchange.time(&self.inbound.stalls, head, body, true);
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
            exchange.replay.settled();
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
    /// A connection to the application with the request's head on it. `true`: made for it.
    async fn open(
        &self,
        head: &Head,
        body: BodyKind,
        upgrade: bool,
        now: u64,
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
            application.take_idle(now)
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
                let now = clock::nanos(account.end(metrics, ""));
                if let Upstream::H1(connection) = exchange.up {
                    self.session.port().application.give_back(connection, now);
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
