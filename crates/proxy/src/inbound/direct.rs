//! Connections to the proxy's own inbound port: from other proxies only. Mutual TLS with a client certificate, then a
//! transport header that names the port and what is spoken. Anything else is closed.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tulle_engine::Reason;

use crate::drain::Guard;
use crate::identity::ServerAlpn;
use crate::inbound::port::Ports;
use crate::inbound::session::{ClientTls, Session};
use crate::inbound::{Inbound, client_tls, gateway, labels, ours, serve_http, tcp};
use crate::net::io::Io;
use crate::net::sniff;
use crate::net::tls;
use crate::transport_header::{SessionProtocol, TransportHeader};

/// How long a peer may take for its transport header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

pub async fn serve(
    inbound: Rc<Inbound>,
    mut io: Io,
    client: SocketAddr,
    local: SocketAddr,
    guard: Guard,
) {
    let detect_timeout = inbound.config.inbound.connections.detect_timeout;
    let Ok(spoken) = sniff::sniff(&mut io, detect_timeout).await else {
        return;
    };
    let Some(epoch) = ours(&inbound.trust, &spoken) else {
        return inbound.refused(Reason::MeshTlsRequired);
    };
    let mut io = match tls::accept(
        io,
        epoch.server(ServerAlpn::TransportHeader),
        detect_timeout,
    )
    .await
    {
        Ok(io) => io,
        Err(error) => return inbound.handshake_failed(&error),
    };
    inbound.handshakes.count(&io);
    let Some(tls @ ClientTls::Peer(_)) = client_tls(&inbound.trust, &epoch, &mut io) else {
        return inbound.refused(Reason::MeshTlsRequired);
    };
    let header = match tokio::time::timeout(HEADER_TIMEOUT, read_header(&mut io)).await {
        Ok(Some(header)) => header,
        _ => return inbound.refused(Reason::TransportHeaderInvalid),
    };
    if header.name.is_some() {
        return Box::pin(gateway::serve(inbound, io, tls, client, header, guard)).await;
    }
    if inbound.is_own_port(header.port) {
        return inbound.refused(Reason::Loop);
    }
    let port = Ports::get(
        &inbound,
        header.port,
        inbound.application(local.ip(), header.port),
    );
    let session = Session::new(port, client, tls);
    inbound.counted_direct(&labels::direct(&session, header.protocol));
    match header
        .protocol
        .filter(|_| session.port().server().http().is_some())
    {
        Some(protocol) => {
            serve_http(
                inbound,
                io,
                session,
                protocol == SessionProtocol::Http2,
                guard,
            )
            .await
        }
        None => tcp::serve(inbound, io, session, None, guard).await,
    }
}

async fn read_header(io: &mut Io) -> Option<TransportHeader> {
    loop {
        match TransportHeader::decode(io.ahead()) {
            Ok(Some((header, length))) => {
                io.consume_ahead(length);
                return Some(header);
            }
            Ok(None) => {}
            Err(_) => return None,
        }
        if io.read_ahead().await.ok()? == 0 {
            return None;
        }
    }
}
