//! The facts of a hypothetical request, and the recorder that notes what became of each match.

use tulle_engine::RequestView;
use tulle_engine::route::{Candidate, Outcome, Recorder};

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
pub struct Weighed {
    pub rule: usize,
    pub index: Option<usize>,
    pub asks: String,
    pub outcome: &'static str,
    pub because: Option<String>,
}

/// Notes every match.
#[derive(Default)]
pub struct Notes(pub Vec<Weighed>);

impl Recorder for Notes {
    const ALL: bool = true;

    fn candidate(&mut self, candidate: &Candidate<'_>) {
        let (outcome, because) = match candidate.outcome {
            Outcome::Matched => ("matched", None),
            Outcome::Shadowed => ("shadowed", None),
            Outcome::WrongHost => ("wrong-host", Some(format!("host is {}", candidate.host))),
            Outcome::Mismatch(mismatch) => ("mismatch", Some(mismatch.to_string())),
        };
        self.0.push(Weighed {
            rule: candidate.rule.index(),
            index: candidate.index,
            asks: candidate.matcher.to_string(),
            outcome,
            because,
        });
    }
}
