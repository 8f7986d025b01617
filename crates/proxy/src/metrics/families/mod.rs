//! Every metric family of the proxy: its name, kind, help text and labels. `docs/reference/metrics.md` is generated
//! from these files by `cargo run --example reference`, and a test says when the page is stale.
//!
//! A new metric is one row in the file of its section. Names and labels are Linkerd's wherever Linkerd has one; `http_requests_total` and
//! `http_request_duration_ms` are those that readers of service-mesh articles look for first.

use super::histogram::Bounds;

/// What kind of numbers a family holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts per bound, with sum and count.
    Histogram(&'static Bounds),
}

/// One metric family.
#[derive(Debug)]
pub struct Family {
    /// The name as exposed, `_total` included.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// One sentence for `# HELP` and the reference page.
    pub help: &'static str,
    /// Names of the labels, for the reference page. Label groups stand for what `LABEL_GROUPS` lists.
    pub labels: &'static [&'static str],
}

/// Label groups that many families share: the name used in a family's `labels`, and what it stands for.
pub const LABEL_GROUPS: &[(&str, &str)] = &[
    ("{target}", "target_addr, target_ip, target_port"),
    (
        "{tls}",
        "tls (true, disabled, no_identity, opaque), no_tls_reason (no_identity: loopback, no_tls_from_remote, port_skipped, not_provided_by_service_discovery), sni (opaque), client_id (inbound), server_id (outbound)",
    ),
    ("{srv}", "srv_group, srv_kind, srv_name, srv_port (inbound)"),
    ("{route}", "route_group, route_kind, route_name (inbound)"),
    ("{authz}", "authz_group, authz_kind, authz_name (inbound)"),
    (
        "{parent_route}",
        "parent_group, parent_kind, parent_namespace, parent_name, parent_port, parent_section_name, route_group, route_kind, route_namespace, route_name (outbound)",
    ),
    (
        "{parent}",
        "parent_group, parent_kind, parent_namespace, parent_name, parent_port, parent_section_name (outbound)",
    ),
    (
        "{backend}",
        "backend_group, backend_kind, backend_namespace, backend_name, backend_port, backend_section_name",
    ),
    (
        "{ratelimit}",
        "ratelimit_group, ratelimit_kind, ratelimit_name (inbound)",
    ),
    ("{jwt}", "jwt_group, jwt_kind, jwt_name (inbound)"),
    (
        "{ext_authz}",
        "ext_authz_group, ext_authz_kind, ext_authz_name (inbound)",
    ),
    (
        "{dst}",
        "dst_namespace, dst_deployment and its kin, dst_service, dst_serviceaccount, dst_pod, dst_pod_template_hash, dst_control_plane_ns, dst_zone (outbound, as the control plane labels endpoints)",
    ),
];

macro_rules! families {
    ($($name:ident $kind:expr, $text:literal, [$($label:literal),* $(,)?], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $name: Family = Family { name: $text, kind: $kind, help: $help, labels: &[$($label),*] };
        )*
        /// All of this file, in its order.
        pub(super) static ROWS: &[&Family] = &[$(&$name),*];
    };
}

mod balancer;
mod control;
mod page;
mod policy;
mod process;
mod requests;
mod routes;

pub use balancer::*;
pub use control::*;
pub use page::markdown;
pub use policy::*;
pub use process::*;
pub use requests::*;
pub use routes::*;

/// The sections of the page: title and families.
static SECTIONS: [(&str, &[&Family]); 6] = [
    ("HTTP and TCP", requests::ROWS),
    ("Policy and errors", policy::ROWS),
    ("Routes", routes::ROWS),
    ("Balancers", balancer::ROWS),
    ("Control plane and identity", control::ROWS),
    ("Process", process::ROWS),
];

/// All families, in the order of their files.
pub fn all() -> impl Iterator<Item = &'static Family> {
    SECTIONS.iter().flat_map(|(_, rows)| rows.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_helps_are_sentences() {
        let names: BTreeSet<_> = all().map(|family| family.name).collect();
        assert_eq!(names.len(), all().count());
        for family in all() {
            assert!(family.help.ends_with('.'), "{}", family.name);
            assert!(!family.help.contains(['\n', '"', '\\']), "{}", family.name);
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(family.name.chars().all(allowed), "{}", family.name);
        }
    }

    #[test]
    fn every_label_group_that_is_named_is_explained() {
        for label in all().flat_map(|family| family.labels) {
            let is_group = label.starts_with('{');
            let known = LABEL_GROUPS.iter().any(|(group, _)| group == label);
            assert!(!is_group || known, "{label}");
        }
    }
}
