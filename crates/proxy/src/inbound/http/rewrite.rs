//! What crosses between the mesh and the application: which fields of a request it sees, which of its answer the
//! caller.

use tulle_http::hop::UpgradeField;
use tulle_http::{Head, Version, hop, l5d, translate};

use crate::http::Fault;
use crate::http::answer::{self, Refusal};
use crate::http::decision;
use crate::http::side::Answer;
use crate::inbound::http::Requests;
use crate::inbound::http::admit::Admitted;
use crate::observe::request_id;

const CLIENT_ID: &str = "l5d-client-id";

impl Requests {
    /// What the application sees of the request.
    pub(super) fn prepare_request(
        &self,
        head: &mut Head,
        admitted: &Admitted,
        upgrade: bool,
    ) -> Result<(), Refusal> {
        let filtered = decision::modify_request(admitted.filters(), head, &mut { admitted.prefix });
        if let Err(refusal) = filtered {
            return Err(match admitted.name() {
                Some(name) => refusal.of_rule(name),
                None => refusal,
            });
        }
        self.claim(head, upgrade).map_err(Refusal::malformed)
    }

    /// Takes off what concerned the mesh, and says who the client is.
    fn claim(&self, head: &mut Head, upgrade: bool) -> Result<(), tulle_http::Error> {
        if head.version() == Version::Http2 {
            if head.get(l5d::ORIG_PROTO).is_some() {
                translate::request_to_h1(head)?;
                l5d::unbridge(head);
            }
        } else {
            hop::strip(head, UpgradeField::of(upgrade));
        }
        l5d::strip_controls(head);
        head.remove(CLIENT_ID);
        match self.session.peer() {
            Some(peer) => head.push(CLIENT_ID, &peer.name)?,
            // It would take us for a process of the pod.
            None if self.inbound.is_admin(self.session.port().number) => {
                head.push(CLIENT_ID, "none")?;
            }
            None => {}
        }
        Ok(())
    }
}

/// Rewrites the application's answer for the caller: it may assert nothing in the mesh's name.
pub fn prepare_answer(
    head: &mut Head,
    answer: Answer,
    bridged: bool,
    admitted: &Admitted,
    h2: bool,
) -> Result<(), Fault> {
    l5d::strip_all(head);
    head.remove(answer::REASON);
    head.remove(request_id::FIELD);
    if bridged && head.version() != Version::Http2 {
        l5d::bridge(head)?;
    }
    hop::strip(head, UpgradeField::of(answer == Answer::Tunnel));
    if h2 {
        translate::response_to_h2(head);
    }
    decision::modify_response(admitted.filters(), head)?;
    if let Some(origin) = &admitted.origin {
        origin.mark(head)?;
    }
    if let Some(wishes) = admitted.held.as_ref().and_then(|held| held.wishes.as_ref()) {
        wishes.apply(head)?;
    }
    Ok(())
}
