//! The label sets of outbound series, in one place: Linkerd's and the golden metrics'.

use std::net::SocketAddr;
use std::rc::Rc;

use tulle_engine::destination::Endpoint;
use tulle_engine::{Meta, Reason};

use crate::discovery::Target;
use crate::metrics::http::HttpLabels;
use crate::metrics::tcp::TcpMetrics;
use crate::metrics::tcp::Transfer;
use crate::metrics::{Labels, LabelsBuilder, families};
use crate::net::io::Meter;
use crate::outbound::Outbound;

/// The `authority` of a target, as Linkerd labels it.
pub fn authority(target: &Target) -> String {
    match target {
        Target::Addr(address) => address.to_string(),
        Target::Authority(authority) => authority.clone(),
    }
}

/// For what an endpoint answers. `authority` is the backend's name.
pub fn endpoint(
    outbound: &Outbound,
    authority: &str,
    endpoint: &Endpoint,
    meshed: bool,
) -> HttpLabels {
    let linkerd = peer(
        Labels::builder()
            .add("direction", "outbound")
            .add("authority", authority),
        endpoint,
        meshed,
    )
    .build();
    let label = |name: &str| {
        endpoint
            .labels
            .get(name)
            .map(String::as_str)
            .unwrap_or_default()
    };
    HttpLabels {
        linkerd,
        article: article(outbound, label("pod"), label("service")),
    }
}

/// For what the proxy answers before it has chosen an endpoint.
pub fn no_endpoint(outbound: &Outbound, target: &Target) -> HttpLabels {
    let linkerd = Labels::builder()
        .add("direction", "outbound")
        .add("authority", &authority(target))
        .build();
    HttpLabels {
        linkerd,
        article: article(outbound, "", ""),
    }
}

/// What the proxy could not carry.
pub fn error(error: &str, reason: Reason) -> LabelsBuilder {
    Labels::builder()
        .add("error", error)
        .add("reason", reason.code())
}

/// The object that a target belongs to.
pub fn parent(parent: &Meta) -> LabelsBuilder {
    Labels::builder()
        .add("parent_group", parent.group())
        .add("parent_kind", parent.kind())
        .add("parent_namespace", parent.namespace())
        .add("parent_name", parent.name())
        .add_number("parent_port", u64::from(parent.port()))
        .add("parent_section_name", parent.section())
}

/// For what is decided per rule. Without a route (none should be) its labels are empty.
pub fn route(of: &Meta, route: Option<&Meta>) -> Labels {
    let empty = Meta::Default("".into());
    let route = route.unwrap_or(&empty);
    parent(of)
        .add("route_group", route.group())
        .add("route_kind", route.kind())
        .add("route_namespace", route.namespace())
        .add("route_name", route.name())
        .build()
}

/// The host of an authority, as it is asked for: without its port, in lower case.
pub fn host(authority: &[u8]) -> String {
    let text = String::from_utf8_lossy(authority).to_ascii_lowercase();
    match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host.to_owned(),
        _ => text,
    }
}

/// A route's labels, and those of the backend that its request goes to.
pub fn edge(route: &Labels, backend: Option<&Meta>, hostname: &str) -> (Labels, Option<Labels>) {
    let of_backend = backend.map(|backend| {
        route
            .extend()
            .add("backend_group", backend.group())
            .add("backend_kind", backend.kind())
            .add("backend_namespace", backend.namespace())
            .add("backend_name", backend.name())
            .add_number("backend_port", u64::from(backend.port()))
            .add("backend_section_name", backend.section())
            .add("hostname", hostname)
            .build()
    });
    let of_route = route.extend().add("hostname", hostname).build();
    (of_route, of_backend)
}

fn article(outbound: &Outbound, pod: &str, service: &str) -> Labels {
    Labels::builder()
        .add("direction", "outbound")
        .add("dst_pod", pod)
        .add("dst_service", service)
        .add("src_pod", &outbound.config.pod.name)
        .add("src_namespace", &outbound.config.pod.namespace)
        .build()
}

fn peer(labels: LabelsBuilder, endpoint: &Endpoint, meshed: bool) -> LabelsBuilder {
    let labels = target_address(labels, endpoint.addr);
    let labels = match (&endpoint.tls, meshed) {
        (Some(identity), true) => labels.add("tls", "true").add("server_id", &identity.name),
        _ => labels
            .add("tls", "no_identity")
            .add("no_tls_reason", "not_provided_by_service_discovery"),
    };
    let names: Vec<(String, &str)> = endpoint
        .labels
        .iter()
        .map(|(name, value)| (format!("dst_{name}"), value.as_str()))
        .collect();
    labels.add_all(names.iter().map(|(name, value)| (name.as_str(), *value)))
}

pub fn target_address(labels: LabelsBuilder, address: SocketAddr) -> LabelsBuilder {
    labels
        .add("target_addr", &address.to_string())
        .add("target_ip", &address.ip().to_string())
        .add_number("target_port", u64::from(address.port()))
}

/// Connections to an endpoint.
pub fn endpoint_meter(outbound: &Outbound, endpoint: &Endpoint, meshed: bool) -> Meter {
    let labels = peer(
        Labels::builder()
            .add("direction", "outbound")
            .add("peer", "dst"),
        endpoint,
        meshed,
    );
    let metrics = TcpMetrics::new(&outbound.shard, labels.build());
    Some(Rc::new(metrics.with_transfer(transfer(outbound, endpoint))))
}

/// What bytes to and from an endpoint may cost: by its zone.
fn transfer(outbound: &Outbound, endpoint: &Endpoint) -> Transfer {
    let zone = match endpoint.labels.get("zone_locality").map(String::as_str) {
        Some("local") => "Local",
        Some("remote") => "Remote",
        _ => "Unknown",
    };
    let counter = |op| {
        let labels = Labels::builder()
            .add("direction", "outbound")
            .add("op", op)
            .add("zone_locality", zone)
            .build();
        let family = &families::OUTBOUND_TCP_TRANSFER_COST_BYTES_TOTAL;
        outbound.shard.counter(family, &labels)
    };
    Transfer {
        received: counter("Recv"),
        sent: counter("Send"),
    }
}

/// Connections of the application. Those that name their destination in each request share one set of series.
pub fn client_meter(outbound: &Outbound, original: SocketAddr, explicit: bool) -> Meter {
    let labels = Labels::builder()
        .add("direction", "outbound")
        .add("peer", "src")
        .add("tls", "no_identity");
    let labels = if explicit {
        labels
    } else {
        target_address(labels, original)
    };
    Some(Rc::new(TcpMetrics::new(
        &outbound.shard,
        labels.add("no_tls_reason", "loopback").build(),
    )))
}
