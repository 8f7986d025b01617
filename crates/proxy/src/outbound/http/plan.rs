//! What is to be done with a request: the engine's decision, put into one value.

use std::time::Duration;

use tulle_engine::outbound::{HttpVersion, RouteBackend, Rule};
use tulle_engine::route::{Matcher, RuleId, RuleName};
use tulle_engine::{Meta, Reason};
use tulle_http::Head;

use crate::http::answer::Refusal;
use crate::http::decision::{self, Fields, Origin};
use crate::outbound::Outbound;
use crate::outbound::target::Compiled;

/// What is to be done with a request, as the engine has decided.
pub struct Plan<'p> {
    pub route: &'p Meta,
    pub id: RuleId,
    pub rule: &'p Rule,
    /// The match of the rule that holds, for rewrites.
    pub matcher: &'p Matcher,
    pub backend: &'p RouteBackend,
    /// For the marks that CORS puts on the answer.
    pub origin: Option<Box<Origin>>,
}

impl<'p> Plan<'p> {
    pub fn name(&self) -> RuleName<'p> {
        RuleName {
            route: self.route,
            number: self.rule.number,
        }
    }
}

/// What comes before anything else, and what then; a refusal is rare, and boxed for the sake of the request's future.
pub type Decided<'p> = (Option<Duration>, Result<Plan<'p>, Box<Refusal>>);

/// Asks the engine. Pure, but for the dice.
pub fn decide<'p>(
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
