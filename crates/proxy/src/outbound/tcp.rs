//! One outgoing connection that is not looked into: a rule, an endpoint, bytes.

use std::rc::Rc;

use tulle_engine::outbound::RouteBackend;

use crate::clock;
use crate::drain::Guard;
use crate::net::io::Io;
use crate::net::relay;
use crate::outbound::backend::{Backend, InUse};
use crate::outbound::target::{Compiled, State};
use crate::outbound::{DISCOVERY_TIMEOUT, Outbound};

/// Endpoints that are tried before the client's connection is closed.
const MAX_TRIES: u32 = 3;

/// Serves a connection to its end. A refusal is a close: there is no other word for it in TCP.
pub async fn serve(_outbound: Rc<Outbound>, mut client: Io, target: Rc<State>, server_name: &[u8], guard: Guard) {
    let Ok(compiled) = target.ready(DISCOVERY_TIMEOUT).await else { return };
    let Some(backend) = decide(&compiled, server_name) else { return };
    let Some(backend) = compiled.backend(backend.backend) else { return };
    let Some((_in_use, mut server)) = connect(backend).await else { return };
    // The bytes have been counted with their connections.
    let _ended = relay::relay(&mut client, &mut server).await;
    drop(guard);
}

fn decide<'p>(compiled: &'p Compiled, server_name: &[u8]) -> Option<&'p RouteBackend> {
    let found = compiled.policy().route_connection(server_name)?;
    let random = fastrand::u64(..);
    if found.answer(random).is_some() {
        return None;
    }
    let backend = found.rule.backend(fastrand::u64(..), |_| true)?;
    backend.answer(random).is_none().then_some(backend)
}

async fn connect(backend: &Rc<Backend>) -> Option<(InUse, Io)> {
    for _ in 0..MAX_TRIES {
        let in_use = match backend.pick(clock::now()) {
            Some(in_use) => in_use,
            None => backend.wait().await.ok()?,
        };
        match in_use.member.origin.connect(None).await {
            Ok(server) => {
                in_use.answered(clock::now());
                return Some((in_use, server));
            }
            Err(error) => in_use.failed(error),
        }
        if backend.is_single() {
            break;
        }
    }
    None
}
