//! What the proxy knows at this moment, as JSON: the page at `/config`. The first thing to look at when a request
//! goes where nobody expected it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tulle_engine::destination::{Endpoint, Endpoints, State};
use tulle_engine::inbound::{self, Server};
use tulle_engine::outbound::{self, Backend, BackendKind, Distribution, Policy, ProfileRoutes};

use super::Control;
use super::watch::{Method, WatchStatus};
use crate::discovery::{OutboundView, Source};

impl Control {
    /// The whole page.
    pub fn snapshot(&self) -> Value {
        let known = self.discovery.snapshot();
        let outbound = known.outbound.iter().map(|(target, view)| {
            let status = status(&self.watches.outbound.policy_method, &target.to_string());
            (
                target.to_string(),
                json!({ "stream": status, "view": view.as_deref().map(outbound_view) }),
            )
        });
        let inbound = known.inbound.iter().map(|(port, server)| {
            let status = status(&self.watches.inbound.method, &port.to_string());
            (
                port.to_string(),
                json!({ "stream": status, "server": inbound_server(server) }),
            )
        });
        let endpoints = known.endpoints.iter().map(|(path, known)| {
            let status = status(&self.watches.destinations.method, path);
            (
                path.clone(),
                json!({ "stream": status, "endpoints": known.as_deref().map(endpoint_table) }),
            )
        });
        let profiles = known.profiles.iter().map(|(path, known)| {
            let status = status(&self.watches.profiles.method, path);
            let routes = known.as_deref().map_or(0, ProfileRoutes::len);
            (path.clone(), json!({ "stream": status, "routes": routes }))
        });
        let epoch = self.epochs.borrow().clone();
        let ready = self.readiness.check(SystemTime::now());
        json!({
            "ready": ready.as_ref().err().map_or("ready", String::as_str),
            "identity": epoch.map(|epoch| json!({ "name": epoch.name(), "notAfter": seconds(epoch.not_after()), "trustAnchors": epoch.anchors().count() })),
            "trustAnchors": { "stream": status(&self.watches.anchors, super::anchors::TARGET) },
            "inbound": Map::from_iter(inbound),
            "outbound": Map::from_iter(outbound),
            "endpoints": Map::from_iter(endpoints),
            "inboundProfiles": Map::from_iter(profiles),
        })
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn status(method: &Method, target: &str) -> Value {
    let Some(WatchStatus {
        connected,
        last_update,
        away_since,
        updates,
        last_error,
    }) = method.status(target)
    else {
        return Value::Null;
    };
    json!({
        "connected": connected,
        "lastUpdate": last_update.map(seconds),
        "awaySeconds": away_since.map(|since| Instant::now().duration_since(since).as_secs()),
        "updates": updates,
        "lastError": last_error,
    })
}

fn outbound_view(view: &OutboundView) -> Value {
    let source = match view.source {
        Source::Policy => "policy",
        Source::Profile => "profile",
        Source::Original => "original",
    };
    json!({ "source": source, "policy": policy(&view.policy) })
}

fn policy(policy: &Policy) -> Value {
    let protocol = match &policy.protocol {
        outbound::Protocol::Detect { .. } => "detect",
        outbound::Protocol::Http1(_) => "http1",
        outbound::Protocol::Http2(_) => "http2",
        outbound::Protocol::Grpc(_) => "grpc",
        outbound::Protocol::Opaque(_) => "opaque",
        outbound::Protocol::Tls(_) => "tls",
    };
    let rules = policy.rules.iter().map(|rule| {
        let route = policy
            .routes
            .get(rule.route)
            .map(|route| route.meta.to_string());
        json!({
            "route": route,
            "number": rule.number,
            "filters": rule.filters.len(),
            "timeouts": format!("{:?}", rule.timeouts),
            "backends": distribution(&policy.backends, &rule.distribution),
            "invalid": rule.invalid.as_ref().map(ToString::to_string),
        })
    });
    json!({
        "parent": policy.meta.to_string(),
        "protocol": protocol,
        "rules": rules.collect::<Vec<_>>(),
        "problems": policy.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn distribution(backends: &[Backend], distribution: &Distribution) -> Value {
    let (kind, list) = match distribution {
        Distribution::Empty => return Value::Null,
        Distribution::FirstAvailable(list) => ("firstAvailable", list),
        Distribution::RandomAvailable(list) => ("randomAvailable", list),
    };
    let shown = list.iter().filter_map(|entry| {
        let backend = backends.get(entry.backend.index())?;
        let to = match &backend.kind {
            BackendKind::Forward(endpoint) => endpoint_row(endpoint),
            BackendKind::Balancer { dst, .. } => json!({ "balancer": dst.as_ref() }),
            BackendKind::Missing => Value::Null,
        };
        Some(json!({ "backend": backend.meta.to_string(), "weight": entry.weight, "to": to }))
    });
    json!({ kind: shown.collect::<Vec<_>>() })
}

fn endpoint_table(endpoints: &Endpoints) -> Value {
    let state = match endpoints.state() {
        State::Unknown => "unknown",
        State::Missing => "missing",
        State::Exists => "exists",
    };
    json!({ "state": state, "addresses": endpoints.iter().map(|endpoint| endpoint_row(endpoint)).collect::<Vec<_>>() })
}

fn endpoint_row(endpoint: &Endpoint) -> Value {
    json!({
        "addr": endpoint.addr.to_string(),
        "weight": endpoint.weight,
        "identity": endpoint.tls.as_ref().map(|tls| tls.name.as_ref()),
        "hint": format!("{:?}", endpoint.hint),
        "transportPort": endpoint.transport_port,
        "labels": endpoint.labels,
    })
}

fn inbound_server(server: &Server) -> Value {
    let protocol = match &server.protocol {
        inbound::Protocol::Detect { .. } => "detect",
        inbound::Protocol::Http1(_) => "http1",
        inbound::Protocol::Http2(_) => "http2",
        inbound::Protocol::Grpc(_) => "grpc",
        inbound::Protocol::Opaque => "opaque",
        inbound::Protocol::Tls => "tls",
    };
    let authorizations = server.authorizations.iter().map(|authorization| {
        json!({
            "from": authorization.meta.to_string(),
            "networks": format!("{:?}", authorization.networks),
            "authentication": format!("{:?}", authorization.authentication),
        })
    });
    json!({
        "server": server.meta.to_string(),
        "protocol": protocol,
        "services": server.services.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
        "authorizations": authorizations.collect::<Vec<_>>(),
        "routes": server.routes.iter().map(|route| route.meta.to_string()).collect::<Vec<_>>(),
        "problems": server.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
