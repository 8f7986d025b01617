//! The facts of a hypothetical request, and the recorder that notes what became of each match.

use tulle_engine::route::{Candidate, Outcome, Recorder};
use tulle_engine::{Headers, RequestView};

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
    pub saw: Option<String>,
}

/// Notes every match.
#[derive(Default)]
pub struct Notes(pub Vec<Weighed>);

impl Recorder for Notes {
    const ALL: bool = true;

    fn candidate<H: Headers + ?Sized>(
        &mut self,
        candidate: &Candidate<'_>,
        request: &RequestView<'_, H>,
    ) {
        let outcome = match candidate.outcome {
            Outcome::Matched => "matched",
            Outcome::Shadowed => "shadowed",
            Outcome::WrongHost => "wrong-host",
            Outcome::Mismatch(_) => "mismatch",
        };
        self.0.push(Weighed {
            rule: candidate.rule.index(),
            index: candidate.index,
            asks: candidate.matcher.to_string(),
            outcome,
            because: candidate.because(),
            saw: candidate.saw(request),
        });
    }
}
