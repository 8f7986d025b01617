//! The label sets of inbound series, in one place: Linkerd's and the golden metrics'.

use std::net::SocketAddr;
use std::rc::Rc;

use tulle_engine::inbound::{Denial, Scope, Server};
use tulle_engine::{Meta, Reason};

use crate::inbound::Inbound;
use crate::inbound::port::{Port, SeriesKey};
use crate::inbound::session::{ClientTls, Session};
use crate::metrics::http::HttpLabels;
use crate::metrics::tcp::TcpMetrics;
use crate::metrics::{Labels, LabelsBuilder};
use crate::net::io::Meter;
use crate::transport_header::SessionProtocol;

/// Why there is no TLS where this proxy has no identity: Linkerd's word, which needs no further reason.
pub const DISABLED: &str = "disabled";

fn direction() -> LabelsBuilder {
    Labels::builder().add("direction", "inbound")
}

fn target(labels: LabelsBuilder, address: SocketAddr) -> LabelsBuilder {
    labels
        .add("target_addr", &address.to_string())
        .add("target_ip", &address.ip().to_string())
        .add_number("target_port", u64::from(address.port()))
}

fn tls(labels: LabelsBuilder, session: &Session) -> LabelsBuilder {
    match session.tls() {
        ClientTls::None(DISABLED) => labels.add("tls", DISABLED),
        ClientTls::None(why) => labels.add("tls", "no_identity").add("no_tls_reason", why),
        ClientTls::Passthrough(name) => labels.add("tls", "opaque").add("sni", name),
        ClientTls::Unauthenticated => labels.add("tls", "true").add("client_id", ""),
        ClientTls::Peer(peer) => labels.add("tls", "true").add("client_id", &peer.name),
    }
}

fn meta(labels: LabelsBuilder, prefix: &str, meta: &Meta) -> LabelsBuilder {
    labels
        .add(&format!("{prefix}_group"), meta.group())
        .add(&format!("{prefix}_kind"), meta.kind())
        .add(&format!("{prefix}_name"), meta.name())
}

fn srv(labels: LabelsBuilder, session: &Session, server: &Server) -> LabelsBuilder {
    meta(labels, "srv", &server.meta).add_number("srv_port", u64::from(session.port().number))
}

fn base(session: &Session, server: &Server) -> LabelsBuilder {
    let labels = target(direction(), session.port().application.reach().address());
    srv(tls(labels, session), session, server)
}

/// A port's policy alone.
pub fn port(port: &Port, server: &Server) -> Labels {
    meta(Labels::builder(), "srv", &server.meta)
        .add_number("srv_port", u64::from(port.number))
        .build()
}

/// A port's policy and a client, for what it refuses.
pub fn server(_inbound: &Inbound, session: &Session) -> Labels {
    base(session, &session.port().server()).build()
}

/// What the proxy could not carry, and for which port.
pub fn error(session: &Session, error: &str, reason: Reason) -> Labels {
    let labels = Labels::builder()
        .add("error", error)
        .add("reason", reason.code());
    let labels = target(labels, session.port().application.reach().address());
    srv(labels, session, &session.port().server()).build()
}

/// A port's policy, a client that it refuses, and the route of its request.
pub fn denied(session: &Session, denial: &Denial<'_>) -> Labels {
    let labels = base(session, &session.port().server());
    match denial.route {
        Some(route) => meta(labels, "route", route).build(),
        None => labels.build(),
    }
}

/// A port's policy and the authorization that let something in.
pub fn authorized(_inbound: &Inbound, session: &Session, authorization: &Meta) -> Labels {
    meta(
        base(session, &session.port().server()),
        "authz",
        authorization,
    )
    .build()
}

/// A port's policy, a client, and the limit that it has reached.
pub fn rate_limit(session: &Session, server: &Server, limit: &Meta, scope: Scope) -> Labels {
    meta(base(session, server), "ratelimit", limit)
        .add("scope", scope.name())
        .build()
}

/// A port's policy, a requirement of a token, and what became of one.
pub fn token(session: &Session, server: &Server, requirement: &Meta, result: &str) -> Labels {
    let labels = meta(Labels::builder(), "srv", &server.meta)
        .add_number("srv_port", u64::from(session.port().number));
    meta(labels, "jwt", requirement)
        .add("result", result)
        .build()
}

/// A port's policy and the external service that it asks.
pub fn external(number: u16, server: &Server, service: &Meta) -> LabelsBuilder {
    let labels =
        meta(Labels::builder(), "srv", &server.meta).add_number("srv_port", u64::from(number));
    meta(labels, "ext_authz", service)
}

/// A port's policy and one of its routes; labels of the route are empty for what none of them matched.
pub fn route(session: &Session, server: &Server, route: usize) -> Labels {
    let none = Meta::Default("".into());
    let route = server.routes.get(route).map_or(&none, |route| &route.meta);
    meta(srv(Labels::builder(), session, server), "route", route).build()
}

/// For requests of one client on one route.
pub fn requests(
    inbound: &Inbound,
    session: &Session,
    server: &Server,
    key: &SeriesKey,
) -> HttpLabels {
    let labels = base(session, server);
    let labels = if key.authority.is_empty() {
        labels
    } else {
        labels.add("authority", &key.authority)
    };
    let labels = match server.routes.get(key.route) {
        Some(route) => meta(labels, "route", &route.meta),
        None => labels,
    };
    let labels = match server.authorizations.get(key.authorization) {
        Some(authorization) => meta(labels, "authz", &authorization.meta),
        None => labels,
    };
    let (pod, namespace) = session.peer().map_or(("", ""), |peer| {
        (peer.pod.as_str(), peer.namespace.as_str())
    });
    let article = direction()
        .add("dst_pod", &inbound.config.pod.name)
        .add("dst_service", &key.service)
        .add("src_pod", pod)
        .add("src_namespace", namespace)
        .build();
    HttpLabels {
        linkerd: labels.build(),
        article,
    }
}

/// What a watched request is told to be for; empty labels are left out.
pub fn watched<'a>(
    server: &'a Meta,
    route: Option<&'a Meta>,
    authorization: Option<&'a Meta>,
) -> [(&'static str, &'a str); 9] {
    let of = |meta: Option<&'a Meta>| match meta {
        Some(meta) => [meta.group(), meta.kind(), meta.name()],
        None => [""; 3],
    };
    let [srv, route, authz] = [of(Some(server)), of(route), of(authorization)];
    [
        ("srv_group", srv[0]),
        ("srv_kind", srv[1]),
        ("srv_name", srv[2]),
        ("route_group", route[0]),
        ("route_kind", route[1]),
        ("route_name", route[2]),
        ("authz_group", authz[0]),
        ("authz_kind", authz[1]),
        ("authz_name", authz[2]),
    ]
}

/// Connections of clients.
pub fn client_meter(inbound: &Inbound, session: &Session) -> Meter {
    let labels = target(
        direction().add("peer", "src"),
        session.port().application.reach().address(),
    );
    let labels = srv(tls(labels, session), session, &session.port().server());
    Some(Rc::new(TcpMetrics::new(&inbound.shard, labels.build())))
}

/// Connections to the application.
pub fn application_meter(inbound: &Inbound, address: SocketAddr) -> Meter {
    let labels = target(direction().add("peer", "dst"), address)
        .add("tls", "no_identity")
        .add("no_tls_reason", "loopback");
    Some(Rc::new(TcpMetrics::new(&inbound.shard, labels.build())))
}

/// Connections that came with a transport header.
pub fn direct(session: &Session, protocol: Option<SessionProtocol>) -> Labels {
    let protocol = match protocol {
        Some(SessionProtocol::Http1) => "http/1",
        Some(SessionProtocol::Http2) => "http/2",
        None => "",
    };
    let client = session.peer().map_or("", |peer| &peer.name);
    let labels = Labels::builder()
        .add("session_protocol", protocol)
        .add_number("target_port", u64::from(session.port().number));
    labels.add("client_id", client).build()
}
