//! One outgoing connection that is not looked into: a rule, an endpoint, bytes.

use std::net::IpAddr;
use std::rc::Rc;

use tulle_engine::outbound::RouteBackend;
use tulle_engine::{Reason, RequestView};

use crate::clock;
use crate::drain::Guard;
use crate::net::io::Io;
use crate::net::relay;
use crate::outbound::backend::{Backend, Choice, InUse};
use crate::outbound::target::{Compiled, State};
use crate::outbound::{DISCOVERY_TIMEOUT, Outbound};

/// Endpoints that are tried before the client's connection is closed.
const MAX_TRIES: u32 = 3;

/// Opens the server's side of a connection and leaves the two to each other. A refusal is a close: there is no other word for it in TCP. `opened`: the server's
/// side, when detection has opened it already.
pub async fn serve(
    outbound: Rc<Outbound>,
    client: Io,
    target: Rc<State>,
    server_name: &[u8],
    opened: Option<(InUse, Io)>,
    guard: Guard,
) {
    let opened = match opened {
        Some(opened) => Ok(opened),
        None => Box::pin(open(&target, server_name, client.client())).await,
    };
    match opened {
        Ok((in_use, server)) => relay::relay_apart(client, server, (in_use, guard)),
        Err(reason) => outbound.refused(reason),
    }
}

/// The server's side of a connection.
pub async fn open(
    target: &State,
    server_name: &[u8],
    client: Option<IpAddr>,
) -> Result<(InUse, Io), Reason> {
    let compiled = target.ready(DISCOVERY_TIMEOUT).await?;
    let chosen = decide(&compiled, server_name)?;
    let backend = compiled.backend(chosen.backend).ok_or(Reason::Internal)?;
    connect(backend, backend.choice_of_connection(client)).await
}

/// Asks the engine. Pure, but for the dice.
fn decide<'p>(compiled: &'p Compiled, server_name: &[u8]) -> Result<&'p RouteBackend, Reason> {
    let found = compiled
        .policy()
        .route_connection(server_name)
        .ok_or(Reason::RouteNotFound)?;
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
