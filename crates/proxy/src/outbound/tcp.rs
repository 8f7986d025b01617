//! One outgoing connection that is not looked into: a rule, an endpoint, bytes.

use std::net::IpAddr;
use std::rc::Rc;

use tulle_engine::outbound::{RouteBackend, RouteKind, RouteRef};
use tulle_engine::{Reason, RequestView};

use crate::clock;
use crate::drain::Guard;
use crate::net::io::Io;
use crate::net::relay;
use crate::outbound::backend::{Backend, Choice, InUse};
use crate::outbound::rules::RuleState;
use crate::outbound::target::State;
use crate::outbound::{DISCOVERY_TIMEOUT, Outbound};

/// Endpoints that are tried before the client's connection is closed.
const MAX_TRIES: u32 = 3;

/// Where a connection goes, and the rule that has sent it there.
pub struct Chosen {
    rule: Rc<RuleState>,
    _in_use: InUse,
}

/// Why a connection goes nowhere, and the rule that took it, if one did.
pub struct Failed {
    reason: Reason,
    rule: Option<Rc<RuleState>>,
}

/// One of the connections that a rule has taken, until it ends.
struct Open(Chosen);

impl Open {
    fn new(chosen: Chosen) -> Self {
        chosen.rule.connection_opened();
        Open(chosen)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.rule.connection_closed(None);
    }
}

/// Opens the server's side of a connection and leaves the two to each other. A refusal is a close: there is no other
/// word for it in TCP. `opened`: the server's
/// side, when detection has opened it already.
pub async fn serve(
    outbound: Rc<Outbound>,
    client: Io,
    target: Rc<State>,
    server_name: &[u8],
    opened: Option<(Chosen, Io)>,
    guard: Guard,
) {
    let opened = match opened {
        Some(opened) => Ok(opened),
        None => Box::pin(open(&target, server_name, client.client())).await,
    };
    match opened {
        // The bytes have been counted with their connections.
        Ok((chosen, server)) => relay::relay_apart(client, server, (Open::new(chosen), guard)),
        Err(failed) => {
            if let Some(rule) = failed.rule {
                rule.connection_opened();
                rule.connection_closed(Some(failed.reason));
            }
            outbound.refused(target.target(), failed.reason);
        }
    }
}

/// The server's side of a connection.
pub async fn open(
    target: &State,
    server_name: &[u8],
    client: Option<IpAddr>,
) -> Result<(Chosen, Io), Failed> {
    let early = |reason| Failed { reason, rule: None };
    let compiled = target.ready(DISCOVERY_TIMEOUT).await.map_err(early)?;
    let found = compiled.policy().route_connection(server_name);
    let found = found.ok_or_else(|| early(Reason::RouteNotFound))?;
    let rule = compiled.rule(found.id).cloned();
    let rule = rule.ok_or_else(|| early(Reason::Internal))?;
    let opened = async {
        let chosen = decide(&found, server_name)?;
        let backend = compiled.backend(chosen.backend).ok_or(Reason::Internal)?;
        let tls = found.route.kind == RouteKind::Tls;
        let choice = backend.choice_of_connection(client, tls);
        connect(backend, choice).await
    };
    match opened.await {
        Ok((in_use, server)) => {
            let chosen = Chosen {
                rule,
                _in_use: in_use,
            };
            Ok((chosen, server))
        }
        Err(reason) => Err(Failed {
            reason,
            rule: Some(rule),
        }),
    }
}

/// Asks the engine. Pure, but for the dice.
fn decide<'p>(found: &RouteRef<'p>, server_name: &[u8]) -> Result<&'p RouteBackend, Reason> {
    let random = fastrand::u64(..);
    if let Some(answer) = found.answer(&RequestView::connection(server_name), random) {
        return Err(answer.reason());
    }
    let backend = found
        .rule
        .backend(fastrand::u64(..), |_| true)
        .ok_or(Reason::NoBackend)?;
    match backend.answer(&RequestView::connection(server_name), random) {
        Some(answer) => Err(answer.reason()),
        None => Ok(backend),
    }
}

async fn connect(backend: &Rc<Backend>, mut choice: Choice) -> Result<(InUse, Io), Reason> {
    let mut failed = Reason::ConnectFailed;
    for _ in 0..MAX_TRIES {
        let in_use = match backend.pick(clock::now(), choice) {
            Some(in_use) => in_use,
            None => backend
                .wait(choice)
                .await
                .map_err(|unavailable| unavailable.reason)?,
        };
        match in_use.member.origin.connect(None).await {
            Ok(server) => {
                in_use.begun(clock::now());
                return Ok((in_use, server));
            }
            Err(error) => {
                failed = error.reason;
                choice.exclude(&in_use);
                in_use.failed(error);
            }
        }
        if backend.is_single() {
            break;
        }
    }
    Err(failed)
}
