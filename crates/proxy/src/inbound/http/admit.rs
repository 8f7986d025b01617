//! The engine's word about a request: may it come in, and by which rule? What a rule answers by itself ends here.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tulle_engine::inbound::{Denial, Server};
use tulle_engine::route::{Filter, RuleName};
use tulle_engine::{Meta, Reason};
use tulle_http::Head;

use crate::http::answer::Refusal;
use crate::http::decision::{self, Fields, Origin};
use crate::inbound::http::Requests;
use crate::inbound::http::requirements::Held;
use crate::inbound::http::series::NONE;
use crate::inbound::labels;
use crate::inbound::port::Series;
use crate::metrics::families;

/// What the engine let in: a rule of the policy that admitted the request.
pub struct Admitted {
    pub server: Arc<Server>,
    rule: usize,
    /// How much of the path the rule's match is about, for rewrites.
    pub prefix: Option<usize>,
    /// For the marks that CORS puts on the answer.
    pub origin: Option<Box<Origin>>,
    /// What it has to meet beside.
    pub beside: Beside,
    /// What it holds while it is served.
    pub held: Option<Box<Held>>,
}

/// What an authorized request has to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    Nothing,
    /// The port has requirements, and this is a probe: it needs to meet none, and may claim nothing.
    NothingAsProbe,
    Requirements,
}

impl Admitted {
    pub fn name(&self) -> Option<RuleName<'_>> {
        let rule = self.server.rules.get(self.rule)?;
        let route = &self.server.routes.get(rule.route)?.meta;
        Some(RuleName {
            route,
            number: rule.number,
        })
    }

    pub fn filters(&self) -> &[Filter] {
        self.server
            .rules
            .get(self.rule)
            .map_or(&[], |rule| &rule.filters)
    }
}

impl Requests {
    /// Asks the engine: may this request come in, and on which route?
    pub(super) fn admit(
        &self,
        head: &Head,
    ) -> (Result<Admitted, Refusal>, Rc<Series>, Option<Duration>) {
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
}
