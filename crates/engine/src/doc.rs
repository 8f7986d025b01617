//! Messages for the examples of the documentation.

use tulle_api::meta::{Metadata, Resource, metadata};
use tulle_api::outbound::{self as api, backend, http_route, proxy_protocol};

/// One HTTP route for everything, to the Service `voting`.
#[must_use]
pub fn policy() -> api::OutboundPolicy {
    let service = Metadata {
        kind: Some(metadata::Kind::Resource(Resource {
            group: "core".into(),
            kind: "Service".into(),
            name: "voting".into(),
            namespace: "default".into(),
            port: 80,
            ..Resource::default()
        })),
    };
    let balancer = backend::BalanceP2c {
        discovery: Some(backend::EndpointDiscovery {
            kind: Some(backend::endpoint_discovery::Kind::Dst(
                backend::endpoint_discovery::DestinationGet {
                    path: "voting.default.svc.cluster.local:80".into(),
                },
            )),
        }),
        load: Some(backend::balance_p2c::Load::PeakEwma(
            backend::balance_p2c::PeakEwma::default(),
        )),
        ..Default::default()
    };
    let backend = api::Backend {
        metadata: Some(service.clone()),
        kind: Some(backend::Kind::Balancer(balancer)),
        queue: None,
    };
    let rule = http_route::Rule {
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
    };
    let route = api::HttpRoute {
        metadata: Some(Metadata {
            kind: Some(metadata::Kind::Default("http".into())),
        }),
        hosts: Vec::new(),
        rules: vec![rule],
    };
    let http1 = proxy_protocol::Http1 {
        routes: vec![route],
        failure_accrual: None,
    };
    api::OutboundPolicy {
        protocol: Some(api::ProxyProtocol {
            kind: Some(proxy_protocol::Kind::Http1(http1)),
        }),
        metadata: Some(service),
        ..Default::default()
    }
}
