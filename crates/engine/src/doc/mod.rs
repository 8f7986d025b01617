//! Messages for the examples of the documentation and for tests, those of the crates that carry decisions out included.

pub mod tap;
pub mod token;

use tulle_api::meta::{Metadata, Resource, metadata};
use tulle_api::outbound::{self as api, backend, http_route, proxy_protocol};

/// One HTTP route for everything, to the Service `voting`.
#[must_use]
pub fn policy() -> api::OutboundPolicy {
    let path = "voting.default.svc.cluster.local:80";
    let route = api::HttpRoute {
        metadata: Some(Metadata {
            kind: Some(metadata::Kind::Default("http".into())),
        }),
        hosts: Vec::new(),
        rules: vec![rule_to(balancer("voting", path))],
    };
    let http1 = proxy_protocol::Http1 {
        routes: vec![route],
        failure_accrual: None,
    };
    api::OutboundPolicy {
        protocol: Some(api::ProxyProtocol {
            kind: Some(proxy_protocol::Kind::Http1(http1)),
        }),
        metadata: Some(service("voting")),
        ..Default::default()
    }
}

/// Port 80 of a Service in the namespace `default`.
#[must_use]
pub fn service(name: &str) -> Metadata {
    Metadata {
        kind: Some(metadata::Kind::Resource(Resource {
            group: "core".into(),
            kind: "Service".into(),
            name: name.into(),
            namespace: "default".into(),
            port: 80,
            ..Resource::default()
        })),
    }
}

/// A backend that is this Service: the endpoints which discovery has at `path`, by their load.
#[must_use]
pub fn balancer(name: &str, path: &str) -> api::Backend {
    let balancer = backend::BalanceP2c {
        discovery: Some(backend::EndpointDiscovery {
            kind: Some(backend::endpoint_discovery::Kind::Dst(
                backend::endpoint_discovery::DestinationGet { path: path.into() },
            )),
        }),
        load: Some(backend::balance_p2c::Load::PeakEwma(
            backend::balance_p2c::PeakEwma::default(),
        )),
        ..Default::default()
    };
    api::Backend {
        metadata: Some(service(name)),
        kind: Some(backend::Kind::Balancer(balancer)),
        queue: None,
    }
}

/// A rule that sends everything to one backend.
#[must_use]
pub fn rule_to(backend: api::Backend) -> http_route::Rule {
    http_route::Rule {
        backends: Some(http_route::Distribution {
            kind: Some(http_route::distribution::Kind::FirstAvailable(
                http_route::distribution::FirstAvailable {
                    backends: vec![http_route::RouteBackend {
                        backend: Some(backend),
                        ..Default::default()
                    }],
                },
            )),
        }),
        ..Default::default()
    }
}
