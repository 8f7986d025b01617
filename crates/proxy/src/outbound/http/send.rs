//! The loop over a request's tries. `attempt` is a single one, `tries` says whether there is another; here they meet
//! the account, the caller's connection and the body that may have to be sent again.

use std::ops::ControlFlow;
use std::rc::Rc;

use tulle_engine::Reason;
use tulle_engine::deadline::Deadlines;
use tulle_engine::hedge::Hedge;
use tulle_engine::outbound::Timeouts;
use tulle_engine::retry::Tried;
use tulle_http::Head;
use tulle_http::h1::BodyKind;

use crate::clock;
use crate::http::Fault;
use crate::http::account::{self, Account};
use crate::http::answer::Refusal;
use crate::http::decision;
use crate::http::exchange::{self, Exchange, Failure};
use crate::http::replay::Replay;
use crate::http::serve::{self, Handled};
use crate::http::side::{Answer, Downstream, has_body};
use crate::http::time_left;
use crate::metrics::route::Edge;
use crate::observe::Derivation;
use crate::outbound::attempt::{
    Unsent, keep_authority, name_service, open_in_time, pick, restore, tried,
};
use crate::outbound::backend::{Backend, Choice, InUse};
use crate::outbound::hedge::{self, Slow};
use crate::outbound::http::pass_on::{conclude, pass_on};
use crate::outbound::http::plan::Plan;
use crate::outbound::http::{Requests, Tunnel};
use crate::outbound::mirror::Copies;
use crate::outbound::rules::RuleState;
use crate::outbound::target::Compiled;
use crate::outbound::tries::{Asked, Course};

pub enum Sent {
    Handled(Handled<Tunnel>),
    Refused(Refusal),
}

/// What a try came to: the wait in ns before the next one, or the end of the request.
type Step = ControlFlow<Sent, u64>;

impl Requests {
    /// Carries a plan out: an endpoint, the exchange with it, the account; and again, if the try calls for another.
    pub(super) async fn send(
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
        let course = self.course(plan, state, asked, head, clock::nanos(account.started));
        let mut replay = match upgrade {
            true => Replay::off(),
            false => Replay::new(
                &self.outbound.room,
                body,
                course.rule.map(|retry| retry.max_request_bytes as usize),
            ),
        };
        let mut tries = Tries {
            requests: self,
            compiled,
            plan,
            backend,
            required_id,
            body,
            upgrade,
            copies,
            course,
            choice: backend.choice(head, self.client.map(|client| client.ip())),
            authority: None,
        };
        loop {
            let after = match tries.once(&mut replay, head, down, account).await {
                Step::Continue(after) => after,
                Step::Break(sent) => return sent,
            };
            if let Err(fault) = tries.course.next(after, down).await {
                // The caller has left between two tries.
                down.cut(fault);
                return Sent::Handled(Handled::Cut);
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

    /// The request's tries, under the rule's timeouts and retries or those that the caller has asked for.
    fn course<'c>(
        &self,
        plan: &'c Plan<'_>,
        state: &'c RuleState,
        asked: Option<&'c Asked>,
        head: &Head,
        now: u64,
    ) -> Course<'c> {
        let (timeouts, retry) = match asked {
            Some(asked) => (&asked.timeouts, asked.retry.as_ref()),
            None => (&plan.rule.timeouts, plan.rule.retry.as_ref()),
        };
        let timeouts = Timeouts {
            idle: timeouts.idle.or(self.outbound.config.body_idle_timeout),
            ..*timeouts
        };
        let deadlines = Deadlines::begin(&timeouts, plan.backend.response_timeout, now)
            .within(time_left::of_grpc(head), now);
        Course::new(state, retry, deadlines, head, now)
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
}

/// A request on its way to an endpoint, and to another.
struct Tries<'s> {
    requests: &'s Requests,
    compiled: &'s Compiled,
    plan: &'s Plan<'s>,
    backend: &'s Rc<Backend>,
    required_id: Option<&'s str>,
    body: BodyKind,
    upgrade: bool,
    copies: Option<Box<Copies>>,
    course: Course<'s>,
    choice: Choice,
    /// The caller's authority, where an endpoint asks for another.
    authority: Option<Box<[u8]>>,
}

impl Tries<'_> {
    /// One try, from the choice of its endpoint to the answer, or to a head that is ready for the next.
    async fn once(
        &mut self,
        replay: &mut Replay,
        head: &mut Head,
        down: &mut Downstream<'_>,
        account: &mut Account,
    ) -> Step {
        let since = self.course.since;
        let mut in_use = match pick(self.backend, self.choice, since, &self.course.deadlines).await
        {
            Ok(in_use) => in_use,
            Err(unavailable) => {
                let again = unavailable
                    .tried()
                    .and_then(|tried| self.course.decide(tried, replay.body()));
                return match again {
                    Some(after) => Step::Continue(after),
                    None => Step::Break(Sent::Refused(unavailable.into())),
                };
            }
        };
        if let Err(refusal) = self.prepare(&in_use, head, account) {
            return Step::Break(Sent::Refused(refusal));
        }
        let exchanged = self.exchange(&mut in_use, replay, head, down, account);
        let after = exchanged.await?;
        self.choice.exclude(&in_use);
        match restore(head, &in_use, self.authority.as_deref()) {
            Ok(()) => Step::Continue(after),
            Err(error) => Step::Break(Sent::Refused(Refusal::malformed(error))),
        }
    }

    /// Makes the head that of a request to this endpoint, if the request may go there.
    fn prepare(
        &mut self,
        in_use: &InUse,
        head: &mut Head,
        account: &mut Account,
    ) -> Result<(), Refusal> {
        let observer = &self.requests.outbound.observer;
        let identity = in_use.member.origin.reach().identity();
        if self.required_id.is_some_and(|id| identity != Some(id)) {
            return Err(Refusal::new(Reason::IdentityRequired));
        }
        keep_authority(&mut self.authority, head, in_use);
        if observer.taps.is_on() {
            let (route, to) = (Some(self.plan.route), Some(&*in_use.member));
            account.watch(self.requests.watched(head, route, to, account.bridged));
        }
        let course = &self.course;
        let left = course.deadlines.left(!has_body(self.body), course.since);
        time_left::hand_on(head, in_use.is_meshed(), left).map_err(Refusal::malformed)?;
        if let Some(profile) = self.compiled.policy().profile() {
            name_service(head, profile, in_use).map_err(Refusal::malformed)?;
        }
        account.trace.attempt(observer.tracer(), head);
        Ok(())
    }

    /// The exchange with an endpoint, to its end or to the verdict that there is to be another.
    async fn exchange(
        &mut self,
        in_use: &mut InUse,
        replay: &mut Replay,
        head: &mut Head,
        down: &mut Downstream<'_>,
        account: &mut Account,
    ) -> Step {
        let deadlines = &self.course.deadlines;
        let opening = open_in_time(in_use, head, self.body, self.upgrade, deadlines);
        let (up, fresh) = match opening.await {
            Ok(opened) => opened,
            Err(unsent) => {
                account.trace.attempt_ended(0, None, unsent.label());
                return match self.unsent(unsent, in_use, replay) {
                    Ok(after) => Step::Continue(after),
                    Err(refusal) => Step::Break(Sent::Refused(refusal)),
                };
            }
        };
        let mut copies = self.copies.take();
        let mut exchange = Exchange::new(down, up, replay, self.course.deadlines);
        exchange.copies = copies.as_deref_mut();
        exchange.edge = account.edge();
        exchange.tunnel = head.protocol().is_some();
        let stalls = &self.requests.outbound.stalls;
        exchange.time(stalls, &in_use.member.origin, head, self.body, false);
        // Beside the request's head, which another try may need.
        let mut answer_head = serve::spare_boxed_head();
        let judged = self
            .judged(&mut exchange, in_use, head, &mut answer_head, account)
            .await;
        let after = match judged {
            Ok((answer, tried)) => {
                hedge::record(&self.course);
                // Asked first: also when this request cannot be sent again, the next ones go elsewhere.
                let tried = match in_use.declined(&answer_head) {
                    true => Some(Tried::Refused),
                    false => tried,
                };
                let again = tried.and_then(|t| self.course.decide(t, exchange.replay.body()));
                let Some(after) = again else {
                    self.course.settled(tried);
                    exchange.replay.settled();
                    std::mem::swap(head, &mut answer_head);
                    serve::keep_boxed_head(answer_head);
                    let passed = pass_on(&mut exchange, answer, self.plan, in_use, head, account);
                    return Step::Break(Sent::Handled(match passed.await {
                        true => conclude(exchange.up, answer, in_use),
                        false => Handled::Cut,
                    }));
                };
                discard(exchange, in_use, &answer_head, &self.course, account);
                after
            }
            Err(failure) => {
                let again = tried(failure, fresh)
                    .and_then(|t| self.course.decide(t, exchange.replay.body()));
                exchange.up.cancel(failure.to_upstream());
                let Some(after) = again else {
                    let requests = self.requests;
                    return Step::Break(
                        requests.failed(failure, self.plan, in_use, account, down, head),
                    );
                };
                lost(failure, in_use, &self.course, account);
                after
            }
        };
        serve::keep_boxed_head(answer_head);
        self.copies = copies;
        Step::Continue(after)
    }

    /// The answer's head, and what is wrong with it in the eyes of the rule's retries.
    async fn judged(
        &self,
        exchange: &mut Exchange<'_, '_>,
        in_use: &mut InUse,
        request: &Head,
        answer_head: &mut Head,
        account: &mut Account,
    ) -> Result<(Answer, Option<Tried>), Failure> {
        let answer = match hedge::wanted(&self.course, &self.plan.rule.hedge) {
            Some(wanted) if !self.upgrade => {
                let slow = self.slow(wanted, account);
                Box::pin(hedge::head(exchange, in_use, request, answer_head, slow)).await?
            }
            _ => exchange.head(answer_head).await?,
        };
        let tried = self.course.judge(exchange, answer, answer_head).await?;
        Ok((answer, tried))
    }

    /// What second tries beside a slow one need to know.
    fn slow<'t>(&'t self, (hedge, delay): (&'t Hedge, u64), account: &'t mut Account) -> Slow<'t> {
        Slow {
            hedge,
            delay,
            course: &self.course,
            backend: self.backend,
            choice: self.choice,
            required_id: self.required_id,
            authority: self.authority.as_deref(),
            body: self.body,
            account,
            tracer: self.requests.outbound.observer.tracer(),
        }
    }

    /// A try got no further than to its endpoint: the wait before the next, or what the caller is told.
    fn unsent(&mut self, unsent: Unsent, in_use: &InUse, replay: &Replay) -> Result<u64, Refusal> {
        let (tried, refusal) = match unsent {
            Unsent::Malformed(error) => return Err(Refusal::malformed(error)),
            Unsent::Refused => (Tried::Refused, Refusal::of_upstream(Fault::Refused)),
            Unsent::Connect(error) => {
                in_use.failed(error.clone());
                let others = !self.backend.is_single();
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
        self.course.decide(tried, replay.body()).ok_or(refusal)
    }
}

/// The account of a try without an answer, because there is another.
fn lost(failure: Failure, in_use: &InUse, course: &Course<'_>, account: &mut Account) {
    in_use.broke(clock::now());
    let since = clock::instant(course.since);
    let label = account::error_label(failure);
    account.tried(&in_use.member.metrics, since, None, label);
    account.unwatch(Err(failure));
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
    let now = clock::now();
    in_use.answered(now, head);
    in_use.ended(now, grpc);
    let since = clock::instant(course.since);
    account.tried(
        &in_use.member.metrics,
        since,
        Some((head.status(), grpc)),
        "",
    );
    account.unwatch(Ok(head));
    if let Some(connection) = exchange.discard() {
        in_use.member.origin.give_back(connection, now);
    }
}
