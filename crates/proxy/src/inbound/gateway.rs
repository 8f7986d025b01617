//! A gateway: what another proxy sends with a name in its transport header is forwarded to that name, as if an
//! application beside this proxy had sent it.
//!
//! Who may do that is the policy of the proxy's own inbound port. A name outside of the configured suffixes is refused,
//! and so is a request that has been here before: each one takes along, in `forwarded`, whose gateways it has passed.

use std::rc::Rc;

use tulle_engine::Reason;
use tulle_http::Head;

use crate::config::values;
use crate::drain::Guard;
use crate::http::answer::{self, Refusal};
use crate::http::serve::{self, Handled, Handler};
use crate::http::side::Downstream;
use crate::inbound::labels;
use crate::inbound::port::Ports;
use crate::inbound::session::{ClientTls, Session};
use crate::inbound::{Inbound, tcp};
use crate::net::io::Io;
use crate::observe::RequestId;
use crate::outbound;
use crate::transport_header::{SessionProtocol, TransportHeader};

const FORWARDED: &str = "forwarded";

/// Serves a connection for a name to its end.
pub async fn serve(
    inbound: Rc<Inbound>,
    mut io: Io,
    tls: ClientTls,
    client: std::net::SocketAddr,
    header: TransportHeader,
    guard: Guard,
) {
    let own = inbound.config.inbound.listen;
    let port = Ports::get(&inbound, own.port(), own);
    let session = Session::new(port, client, tls);
    let known = inbound.gateway().filter(|_| {
        let name = header.name.as_deref().unwrap_or_default();
        values::has_suffix(name.as_bytes(), &inbound.config.inbound.gateway_suffixes)
    });
    inbound.counted_direct(&labels::direct(&session, header.protocol));
    let target = match known {
        Some(outbound) => Ok((
            outbound.clone(),
            outbound::named(outbound, &header.authority()),
        )),
        None => Err(Reason::GatewayDomain),
    };
    let Some(protocol) = header.protocol else {
        return match target {
            Ok((outbound, target)) if tcp::permitted(&inbound, &session) => {
                io.measure(labels::client_meter(&inbound, &session));
                outbound::opaque(outbound, io, target, guard).await;
            }
            Ok(_) => {}
            Err(reason) => inbound.refused(reason),
        };
    };
    io.measure(labels::client_meter(&inbound, &session));
    let guard = guard.with(io.standing());
    let settings = inbound.server_settings();
    let timeouts = inbound.h1_timeouts();
    let peer = session.peer().map_or("", |peer| peer.name.as_str());
    let requests = Requests {
        onward: target.map(|(outbound, target)| {
            outbound::Requests::through_gateway(outbound, target, client, peer)
        }),
        inbound,
        session,
    };
    match protocol {
        SessionProtocol::Http2 => {
            // The connection's task has told the peer what was wrong with it.
            let _ended = serve::http2(io, Rc::new(requests), settings, guard).await;
        }
        SessionProtocol::Http1 => {
            let limits = tulle_http::Limits::default();
            serve::http1(io, &requests, limits, timeouts, guard).await;
        }
    }
}

/// The requests of one peer for one name.
struct Requests {
    inbound: Rc<Inbound>,
    session: Session,
    onward: Result<outbound::Requests, Reason>,
}

impl Requests {
    /// May it pass, and has it not passed before?
    fn admit(&self, head: &mut Head) -> Result<&outbound::Requests, Refusal> {
        let onward = self
            .onward
            .as_ref()
            .map_err(|reason| Refusal::new(*reason))?;
        let (server, grants) = self.session.policy();
        if server.authorize_connection(&grants).is_err() {
            return Err(Refusal::new(Reason::Unauthorized));
        }
        let own = self.inbound.config.identity.as_ref();
        let own = own.map_or("", |identity| &identity.local_name);
        if has_passed(head, own) {
            return Err(Refusal::because(
                Reason::Loop,
                "this gateway has forwarded it before",
            ));
        }
        let client = self.session.peer().map_or("", |peer| &peer.name);
        let host = String::from_utf8_lossy(head.authority().unwrap_or_default());
        let passed = format!("by={own};for={client};host={host};proto=https");
        head.push(FORWARDED, passed).map_err(Refusal::malformed)?;
        Ok(onward)
    }
}

/// Does an element of `forwarded` (RFC 7239) name this proxy?
fn has_passed(head: &Head, own: &str) -> bool {
    head.get_all(FORWARDED.as_bytes()).any(|value| {
        let pairs = value.split(|byte| matches!(byte, b',' | b';'));
        pairs
            .filter_map(|pair| {
                let pair = pair.trim_ascii();
                let (key, value) = pair.split_at_checked(3)?;
                key.eq_ignore_ascii_case(b"by=").then_some(value)
            })
            .map(|by| {
                by.strip_prefix(b"\"")
                    .and_then(|by| by.strip_suffix(b"\""))
                    .unwrap_or(by)
            })
            .any(|by| by.eq_ignore_ascii_case(own.as_bytes()))
    })
}

impl Handler for Requests {
    type Tunnel = outbound::Tunnel;

    async fn handle(&self, head: &mut Head, down: &mut Downstream<'_>) -> Handled<Self::Tunnel> {
        match self.admit(head) {
            // Boxed: a request's task has room for one pipeline, and few pass a gateway.
            Ok(onward) => Box::pin(onward.handle(head, down)).await,
            Err(refusal) => {
                self.inbound.answered_itself(&self.session, refusal.reason);
                let id = self.session.observe_refusal(&self.inbound, head, &refusal);
                match answer::refuse(down, head, &refusal, id.as_ref()) {
                    Ok(()) => Handled::Answered,
                    Err(_) => Handled::Cut,
                }
            }
        }
    }

    fn unreadable(&self, refusal: &Refusal) -> Option<RequestId> {
        self.session
            .observe_refusal(&self.inbound, &Head::new(), refusal)
    }

    fn tunnel(&self, client: Io, to: Self::Tunnel, guard: Guard) {
        if let Ok(onward) = &self.onward {
            onward.tunnel(client, to, guard);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_has_passed_is_known_by_any_element() {
        for (value, expected) in [
            ("by=gw.ns;for=x;proto=https", true),
            ("for=x;by=\"GW.ns\"", true),
            ("by=other, for=y;By=gw.ns", true),
            ("by=gw.ns2;for=gw.ns", false),
            ("by", false),
        ] {
            let mut head = Head::new();
            head.push(FORWARDED, "for=first").unwrap();
            head.push(FORWARDED, value).unwrap();
            assert_eq!(has_passed(&head, "gw.ns"), expected, "{value}");
        }
    }
}
