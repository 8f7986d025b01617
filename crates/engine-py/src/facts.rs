//! The facts of a hypothetical request, and the recorder that notes what became of each match.

use tulle_engine::route::{Candidate, Recorder, RuleId, RuleName};
use tulle_engine::{Headers, RequestView};

use crate::verdict::{CandidateVerdict, Object};

/// A request as Python describes it.
pub struct Request<'a> {
    pub method: &'a str,
    pub authority: &'a str,
    pub path: &'a str,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Request<'_> {
    pub fn view(&self) -> RequestView<'_, Vec<(String, Vec<u8>)>> {
        RequestView {
            method: self.method.as_bytes(),
            authority: self.authority.as_bytes(),
            path: self.path.as_bytes(),
            headers: &self.headers,
        }
    }
}

/// One match, as it was weighed.
struct Weighed {
    rule: RuleId,
    index: Option<usize>,
    asks: String,
    outcome: &'static str,
    because: Option<String>,
    saw: Option<String>,
}

/// Notes every match.
#[derive(Default)]
pub struct Notes(Vec<Weighed>);

impl Notes {
    /// The matches, each with what its rule is called in the policy.
    pub fn verdicts<'p>(
        self,
        name: impl Fn(RuleId) -> Option<RuleName<'p>>,
    ) -> Vec<CandidateVerdict> {
        let verdict = |weighed: Weighed| {
            let name = name(weighed.rule)?;
            Some(CandidateVerdict {
                route: Object::new(name.route),
                rule: name.number,
                index: weighed.index,
                asks: weighed.asks,
                outcome: weighed.outcome,
                because: weighed.because,
                saw: weighed.saw,
            })
        };
        self.0.into_iter().filter_map(verdict).collect()
    }
}

impl Recorder for Notes {
    const ALL: bool = true;

    fn candidate<H: Headers + ?Sized>(
        &mut self,
        candidate: &Candidate<'_>,
        request: &RequestView<'_, H>,
    ) {
        self.0.push(Weighed {
            rule: candidate.rule,
            index: candidate.index,
            asks: candidate.matcher.to_string(),
            outcome: candidate.outcome.as_str(),
            because: candidate.because(),
            saw: candidate.saw(request),
        });
    }
}
