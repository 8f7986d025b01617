//! What an authorized request has to meet beside: tokens, rates, its place among the requests at once, and the word of
//! an external service.

use tulle_http::Head;
use tulle_http::h1::BodyKind;

use crate::http::Fault;
use crate::http::answer::Refusal;
use crate::http::replay::Replay;
use crate::http::side::{Downstream, has_body};
use crate::inbound::admission::external::{Changes, Verdict};
use crate::inbound::admission::{self, Slot};
use crate::inbound::http::Requests;
use crate::inbound::http::admit::{Admitted, Beside};

/// What a request has got from the requirements that it met.
pub struct Held {
    /// Its place among the requests at once.
    _slot: Option<Slot>,
    /// What an external service wishes for the answer.
    pub wishes: Option<Box<Changes>>,
}

/// Why a request goes no further.
pub enum Stop {
    Refuse(Box<Refusal>),
    /// The client left.
    Gone(Fault),
}

impl Requests {
    /// Holds the request to what its port requires beside authorization. `replay` gets what had to be read of its body.
    pub(super) async fn meet(
        &self,
        admitted: &Admitted,
        head: &mut Head,
        down: &mut Downstream<'_>,
        body: BodyKind,
        replay: &mut Replay,
    ) -> Result<Option<Box<Held>>, Stop> {
        let (server, port) = (&admitted.server, self.session.port());
        if admitted.beside == Beside::NothingAsProbe {
            admission::drop_claims(server, head);
            return Ok(None);
        }
        let refuse = |refusal| Stop::Refuse(Box::new(refusal));
        let slot = admission::meet(&self.inbound, &self.session, server, head).map_err(refuse)?;
        let mut wishes = None;
        let gate = port.gate(&self.inbound);
        if let Some(service) = gate.external(&self.inbound, port.number, server) {
            match service.ask(&self.session, head, down, has_body(body)).await {
                Verdict::Pass(changes, seen) => {
                    wishes = changes;
                    if let Some(seen) = seen {
                        *replay = seen;
                    }
                }
                Verdict::Refuse(refusal) => return Err(refuse(refusal)),
                Verdict::Gone(fault) => return Err(Stop::Gone(fault)),
            }
        }
        Ok(Some(Box::new(Held {
            _slot: slot,
            wishes,
        })))
    }
}
