//! One inbound connection that is not looked into: a permit, the application, bytes. The permit is asked for again
//! whenever the policy changes, and without it the connection ends.

use std::rc::Rc;

use tulle_engine::Reason;

use crate::drain::Guard;
use crate::inbound::session::Session;
use crate::inbound::{Inbound, labels};
use crate::metrics::families;
use crate::net::io::Io;
use crate::net::relay;

/// `opened`: the application's side, when detection has opened it already.
pub async fn serve(
    inbound: Rc<Inbound>,
    mut client: Io,
    session: Session,
    opened: Option<Io>,
    guard: Guard,
) {
    client.measure(labels::client_meter(&inbound, &session));
    if !permitted(&inbound, &session) {
        return;
    }
    if inbound.is_admin(session.port().number) {
        // Bytes that are not looked into cannot be told from those of a process beside us.
        return inbound.refused(Reason::Forbidden);
    }
    let opened = match opened {
        Some(opened) => Ok(opened),
        None => Box::pin(session.port().application.connect(None)).await,
    };
    match opened {
        // A task of its own, as for every relay: this one is large, and bytes may flow for days.
        Ok(server) => drop(tokio::task::spawn_local(permitted_relay(
            inbound, client, server, session, guard,
        ))),
        Err(error) => inbound.refused(error.reason),
    }
}

async fn permitted_relay(
    inbound: Rc<Inbound>,
    mut client: Io,
    mut server: Io,
    session: Session,
    guard: Guard,
) {
    tokio::select! {
        // The bytes have been counted with their connections.
        _ended = relay::relay(&mut client, &mut server) => {}
        () = revoked(&session) => {
            let labels = labels::server(&inbound, &session);
            inbound.shard.counter(&families::INBOUND_TCP_AUTHZ_TERMINATE_TOTAL, &labels).inc();
        }
    }
    drop(guard);
}

/// The application's side of a connection that may turn out to be opaque; none without a permit for that.
pub async fn open(session: &Session) -> Option<Io> {
    let (server, grants) = session.policy();
    server.authorize_connection(&grants).ok()?;
    session.port().application.connect(None).await.ok()
}

pub fn permitted(inbound: &Inbound, session: &Session) -> bool {
    let (server, grants) = session.policy();
    match server.authorize_connection(&grants) {
        Ok(permit) => {
            if permit.is_audit() {
                inbound.audit.allowed(session, &server.meta, None);
            }
            let labels = labels::authorized(inbound, session, &permit.authorization.meta);
            inbound
                .shard
                .counter(&families::INBOUND_TCP_AUTHZ_ALLOW_TOTAL, &labels)
                .inc();
            true
        }
        Err(_) => {
            let labels = labels::server(inbound, session);
            inbound
                .shard
                .counter(&families::INBOUND_TCP_AUTHZ_DENY_TOTAL, &labels)
                .inc();
            false
        }
    }
}

/// Resolves when a change of policy takes the permit away.
async fn revoked(session: &Session) {
    let mut changes = session.port().watch();
    loop {
        if changes.changed().await.is_err() {
            // Nothing will change any more.
            return std::future::pending().await;
        }
        let (server, grants) = session.policy();
        if server.authorize_connection(&grants).is_err() {
            return;
        }
    }
}
