//! The loop over a request's tries. `attempt` is a single one, `tries` says whether there is another; here they meet
//! the account, the caller's connection and the body that may have to be sent again.

use std::rc::Rc;

use tulle_engine::Reason;
use tulle_engine::deadline::Deadlines;
use tulle_engine::outbound::Timeouts;
use tulle_engine::retry::Tried;
use tulle_http::Head;

use crate::clock;
use crate::http::Fault;
use crate::http::account::{self, Account};
use crate::http::answer::Refusal;
use crate::http::decision;
use crate::http::exchange::{self, Exchange, Failure};
use crate::http::replay::Replay;
use crate::http::serve::{self, Handled};
use crate::http::side::{Downstream, has_body};
use crate::http::time_left;
use crate::metrics::route::Edge;
use crate::observe::Derivation;
use crate::outbound::attempt::{
    Unsent, keep_authority, name_service, open_in_time, pick, restore, tried,
};
use crate::outbound::backend::{Backend, InUse};
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
        let mut course = self.course(plan, state, asked, head, clock::nanos(account.started));
        let mut replay = match upgrade {
            true => Replay::off(),
            false => Replay::new(
                &self.outbound.room,
                body,
                course.rule.map(|retry| retry.max_request_bytes as usize),
            ),
        };
        let mut choice = backend.choice(head, self.client.map(|client| client.ip()));
        let mut authority = None;
        loop {
            let mut in_use = match pick(backend, choice, course.since, &course.deadlines).await {
                Ok(in_use) => in_use,
                Err(unavailable) => {
                    let tried = unavailable.tried();
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
            if let Some(profile) = compiled.policy().profile() {
                if let Err(error) = name_service(head, profile, &in_use) {
                    return Sent::Refused(Refusal::malformed(error));
                }
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
                    exchange.tunnel = head.protocol().is_some();
                    exchange.time(&self.outbound.stalls, head, body, false);
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
                            let again = tried(failure, fresh)
                                .and_then(|t| course.decide(t, exchange.replay.body()));
                            exchange.up.cancel(failure.to_upstream());
                            let Some(after) = again else {
                                return self.failed(failure, plan, &in_use, account, down, head);
                            };
                            lost(failure, &in_use, &course, account);
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
}

/// The caller has left between two tries.
fn gone(fault: Fault, down: &mut Downstream<'_>) -> Sent {
    down.cut(fault);
    Sent::Handled(Handled::Cut)
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
