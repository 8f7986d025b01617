//! How the engine came to its decision about a refused request: asked again, with a recorder, once it is refused.

use serde_json::{Value, json};
use tulle_engine::inbound::{Peer, Server};
use tulle_engine::outbound::{HttpVersion, Policy};
use tulle_engine::route::{Candidate, Recorder, RuleId, RuleName};
use tulle_engine::{Headers, RequestView};
use tulle_http::Head;

use super::text::visible;
use crate::http::decision::Fields;

/// Most matches and authorizations that are kept of a decision; how many there were is said beside them.
const MOST: usize = 16;
/// Longest text of one of them, in bytes.
const LONGEST: usize = 256;

/// What is known of the decision.
#[derive(Clone, Debug, Default)]
pub struct Derivation {
    policy: Option<String>,
    rule: Option<String>,
    candidates: Vec<Weighed>,
    weighed: usize,
    authorizations: Vec<Authorization>,
    authorizations_weighed: usize,
}

#[derive(Clone, Debug)]
struct Weighed {
    id: RuleId,
    rule: String,
    asks: String,
    outcome: &'static str,
    because: Option<String>,
    saw: Option<String>,
}

/// An authorization, and what the client lacks for it and has instead.
#[derive(Clone, Debug)]
struct Authorization {
    object: String,
    lacks: Option<(String, String)>,
}

impl Derivation {
    /// Nothing was decided: there was no policy yet, or the request could not be read.
    pub fn none() -> Self {
        Self::default()
    }

    /// A rule was found; what failed came behind it.
    pub fn of_rule(rule: RuleName<'_>) -> Self {
        Derivation {
            rule: Some(bounded(rule)),
            ..Self::default()
        }
    }

    /// Which rule of an outbound policy a request is for.
    pub fn outbound(policy: &Policy, version: HttpVersion, head: &Head) -> Self {
        let mut derivation = Derivation {
            policy: Some(bounded(&policy.meta)),
            ..Self::default()
        };
        let fields = Fields(head);
        let found = policy.route_with(version, &fields.view(), &mut derivation);
        derivation.rule = found.map(|found| bounded(found.name()));
        derivation.name_rules(|id| policy.rule_name(id));
        derivation
    }

    /// Which rule of an inbound policy a request is for, and what its client lacks.
    pub fn inbound(server: &Server, peer: &Peer<'_>, head: &Head) -> Self {
        let mut derivation = Derivation {
            policy: Some(bounded(&server.meta)),
            ..Self::default()
        };
        if !head.is_request() {
            return derivation;
        }
        let fields = Fields(head);
        let found = server.route_with(&fields.view(), &mut derivation);
        if let Some(found) = &found {
            derivation.rule = Some(bounded(found.name()));
            let asked = &found.route.authorizations;
            derivation.authorizations_weighed = asked.len();
            derivation.authorizations = asked
                .iter()
                .take(MOST)
                .filter_map(|id| server.authorizations.get(id.index()))
                .map(|authorization| Authorization {
                    object: bounded(&authorization.meta),
                    lacks: (authorization.check(peer).err())
                        .map(|lack| (bounded(lack), bounded(lack.saw(peer)))),
                })
                .collect();
        }
        derivation.name_rules(|id| server.rule_name(id));
        derivation
    }

    fn name_rules<'p>(&mut self, name: impl Fn(RuleId) -> Option<RuleName<'p>>) {
        for weighed in &mut self.candidates {
            weighed.rule = name(weighed.id).map(bounded).unwrap_or_default();
        }
    }

    pub fn json(&self) -> Value {
        let candidates = self.candidates.iter().map(|weighed| {
            json!({
                "rule": weighed.rule,
                "asks": weighed.asks,
                "outcome": weighed.outcome,
                "because": weighed.because,
                "saw": weighed.saw,
            })
        });
        let authorizations = self.authorizations.iter().map(|authorization| {
            let lacks = authorization.lacks.as_ref();
            json!({
                "authorization": authorization.object,
                "lacks": lacks.map(|(lacks, _)| lacks),
                "saw": lacks.map(|(_, saw)| saw),
            })
        });
        json!({
            "policy": self.policy,
            "rule": self.rule,
            "matches": candidates.collect::<Vec<_>>(),
            "matches_weighed": self.weighed,
            "authorizations": authorizations.collect::<Vec<_>>(),
            "authorizations_weighed": self.authorizations_weighed,
        })
    }
}

impl Recorder for Derivation {
    const ALL: bool = true;

    fn candidate<H: Headers + ?Sized>(
        &mut self,
        candidate: &Candidate<'_>,
        request: &RequestView<'_, H>,
    ) {
        self.weighed += 1;
        if self.candidates.len() == MOST {
            return;
        }
        self.candidates.push(Weighed {
            id: candidate.rule,
            rule: String::new(),
            asks: bounded(candidate.matcher),
            outcome: candidate.outcome.as_str(),
            because: candidate.because().map(bounded),
            saw: candidate.saw(request).map(bounded),
        });
    }
}

fn bounded(text: impl std::fmt::Display) -> String {
    visible(text.to_string().as_bytes(), LONGEST)
}
