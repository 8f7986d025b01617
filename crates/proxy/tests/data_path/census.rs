//! Linkerd's metric families, as its proxy of 2.20 shows them, and a check that pages of ours have them all.
//!
//! A row is a family with labels that at least one of its series must have (with a value where one is named), and the
//! bounds of a histogram. A family has several rows where Linkerd labels its series in several ways.

use std::collections::{BTreeMap, BTreeSet};

const LATENCY: &str = "1 2 3 4 5 10 20 30 40 50 100 200 300 400 500 1000 2000 3000 4000 5000 10000 20000 30000 40000 50000";
const COARSE: &str = "0.05 0.5 1 10";
const FINE: &str = "0.025 0.05 0.1 0.25 0.5 1 10";
const QUEUE: &str = "0.0005 0.005 0.05 0.5 1 3";
const DETECT: &str = "0.001 0.1";
const SIZE: &str = "128 1024 10240";

/// Short for labels that come together.
const GROUPS: &[(&str, &str)] = &[
    ("TARGET", "target_addr target_ip target_port"),
    ("SRV", "srv_group srv_kind srv_name srv_port"),
    ("ROUTE", "route_group route_kind route_name"),
    ("AUTHZ", "authz_group authz_kind authz_name"),
    (
        "PARENT",
        "parent_group parent_kind parent_namespace parent_name parent_port parent_section_name",
    ),
    (
        "WAY",
        "PARENT route_group route_kind route_namespace route_name",
    ),
    (
        "BACKEND",
        "backend_group backend_kind backend_namespace backend_name backend_port backend_section_name",
    ),
    ("LIMIT", "ratelimit_group ratelimit_kind ratelimit_name"),
    (
        "UNMESHED",
        "tls=no_identity no_tls_reason=not_provided_by_service_discovery",
    ),
    (
        "STRANGER",
        "tls=no_identity no_tls_reason=no_tls_from_remote",
    ),
    ("LOCAL", "tls=no_identity no_tls_reason=loopback"),
];

/// Of requests and connections. `{a,b}` in a name stands for each.
const TRAFFIC: &[(&str, &str, &str)] = &[
    (
        "{request_total,response_total}",
        "direction=outbound authority TARGET tls=true server_id dst_pod",
        "",
    ),
    (
        "{request_total,response_total}",
        "direction=outbound authority TARGET UNMESHED",
        "",
    ),
    (
        "{request_total,response_total}",
        "direction=inbound TARGET tls=true client_id SRV ROUTE AUTHZ",
        "",
    ),
    (
        "{request_total,response_total}",
        "direction=inbound TARGET STRANGER SRV ROUTE AUTHZ",
        "",
    ),
    (
        "response_total",
        "direction=outbound status_code classification=success",
        "",
    ),
    (
        "response_total",
        "direction=inbound status_code classification=failure",
        "",
    ),
    (
        "response_total",
        "direction=inbound classification grpc_status",
        "",
    ),
    (
        "response_total",
        "direction=outbound classification grpc_status",
        "",
    ),
    (
        "response_latency_ms",
        "direction=outbound authority TARGET tls status_code",
        LATENCY,
    ),
    (
        "response_latency_ms",
        "direction=inbound TARGET tls SRV ROUTE AUTHZ status_code",
        LATENCY,
    ),
    (
        "{route,route_actual}_request_total",
        "direction=outbound dst rt_route",
        "",
    ),
    (
        "{route,route_actual}_response_total",
        "direction=outbound dst rt_route status_code classification",
        "",
    ),
    (
        "route_response_latency_ms",
        "direction=outbound dst rt_route status_code",
        LATENCY,
    ),
    (
        "route_retryable_total",
        "direction=outbound dst rt_route",
        "",
    ),
    (
        "route_retryable_total",
        "direction=outbound dst rt_route skipped=no_budget",
        "",
    ),
    ("route_request_total", "direction=inbound dst rt_route", ""),
    (
        "route_response_total",
        "direction=inbound dst rt_route status_code classification",
        "",
    ),
    (
        "route_response_latency_ms",
        "direction=inbound dst rt_route status_code",
        LATENCY,
    ),
    (
        "tcp_{open_total,open_connections,read_bytes_total,write_bytes_total}",
        "direction=outbound peer=src LOCAL",
        "",
    ),
    (
        "tcp_{open_total,open_connections,read_bytes_total,write_bytes_total}",
        "direction=outbound peer=dst TARGET tls=true server_id dst_pod",
        "",
    ),
    (
        "tcp_{open_total,open_connections,read_bytes_total,write_bytes_total}",
        "direction=outbound peer=dst TARGET UNMESHED",
        "",
    ),
    (
        "tcp_{open_total,open_connections,read_bytes_total,write_bytes_total}",
        "direction=inbound peer=src TARGET tls=true client_id SRV",
        "",
    ),
    (
        "tcp_{open_total,open_connections,read_bytes_total,write_bytes_total}",
        "direction=inbound peer=src TARGET tls=no_identity no_tls_reason=port_skipped SRV",
        "",
    ),
    (
        "tcp_{open_total,open_connections,read_bytes_total,write_bytes_total}",
        "direction=inbound peer=src TARGET tls=opaque sni=pay.shop.test SRV",
        "",
    ),
    (
        "tcp_{open_total,open_connections,read_bytes_total,write_bytes_total}",
        "direction=inbound peer=dst LOCAL",
        "",
    ),
    (
        "tcp_close_total",
        "direction=outbound peer=src LOCAL errno classification",
        "",
    ),
    (
        "tcp_close_total",
        "direction=inbound peer=src TARGET tls SRV errno classification",
        "",
    ),
    (
        "inbound_http_authz_allow_total",
        "TARGET tls=true client_id SRV ROUTE AUTHZ",
        "",
    ),
    ("inbound_http_authz_deny_total", "TARGET tls SRV ROUTE", ""),
    ("inbound_http_route_not_found_total", "TARGET tls SRV", ""),
    (
        "inbound_http_local_ratelimit_total",
        "SRV LIMIT scope=total",
        "",
    ),
    ("inbound_tcp_authz_allow_total", "TARGET tls SRV AUTHZ", ""),
    (
        "inbound_tcp_authz_{deny,terminate}_total",
        "TARGET tls SRV",
        "",
    ),
    ("{inbound,outbound}_{http,tcp}_errors_total", "error", ""),
    ("outbound_http_errors_total", "error=failfast", ""),
    (
        "outbound_{http,grpc}_route_request_duration_seconds",
        "WAY hostname",
        COARSE,
    ),
    (
        "outbound_http_route_request_statuses_total",
        "WAY hostname http_status error",
        "",
    ),
    (
        "outbound_grpc_route_request_statuses_total",
        "WAY hostname grpc_status=OK error",
        "",
    ),
    (
        "outbound_{http,grpc}_route_request_frame_size_bytes",
        "WAY hostname",
        SIZE,
    ),
    (
        "outbound_{http,grpc}_route_retry_{requests,successes,limit_exceeded,overflow}_total",
        "WAY",
        "",
    ),
    (
        "outbound_{http,grpc}_route_backend_requests_total",
        "WAY BACKEND hostname",
        "",
    ),
    (
        "outbound_{http,grpc}_route_backend_response_duration_seconds",
        "WAY BACKEND hostname",
        FINE,
    ),
    (
        "outbound_http_route_backend_response_statuses_total",
        "WAY BACKEND hostname http_status error",
        "",
    ),
    (
        "outbound_grpc_route_backend_response_statuses_total",
        "WAY BACKEND hostname grpc_status error",
        "",
    ),
    (
        "outbound_{http,grpc}_route_backend_response_frame_size_bytes",
        "WAY BACKEND hostname",
        SIZE,
    ),
    ("outbound_{tcp,tls}_route_open_total", "WAY", ""),
    ("outbound_{tcp,tls}_route_close_total", "WAY error", ""),
    (
        "outbound_tcp_protocol_connections_total",
        "protocol=detect PARENT",
        "",
    ),
    (
        "outbound_tcp_protocol_connections_total",
        "protocol=tls PARENT",
        "",
    ),
    (
        "outbound_tcp_transfer_cost_bytes_total",
        "direction=outbound zone_locality",
        "",
    ),
    (
        "outbound_{http,tcp,tls}_balancer_endpoints",
        "BACKEND endpoint_state=ready",
        "",
    ),
    (
        "outbound_{http,tcp,tls}_balancer_endpoints",
        "BACKEND endpoint_state=pending",
        "",
    ),
    (
        "outbound_{http,tcp,tls}_balancer_{p2c_endpoints,queue_length,queue_requests_total}",
        "BACKEND",
        "",
    ),
    (
        "outbound_{http,tcp,tls}_balancer_p2c_updates_total",
        "BACKEND op=Reset",
        "",
    ),
    (
        "outbound_{http,tcp,tls}_balancer_queue_latency_seconds",
        "BACKEND",
        QUEUE,
    ),
    (
        "outbound_{http,tcp,tls}_balancer_queue_gate_{open_total,shut_total,open_time_seconds,shut_time_seconds,timeout_seconds}",
        "BACKEND",
        "",
    ),
    ("inbound_{http,grpc}_requests_total", "SRV ROUTE", ""),
    (
        "inbound_http_statuses_total",
        "SRV ROUTE http_status error",
        "",
    ),
    (
        "inbound_grpc_statuses_total",
        "SRV ROUTE grpc_status error",
        "",
    ),
    (
        "inbound_{http,grpc}_request_duration_seconds",
        "SRV ROUTE",
        FINE,
    ),
    (
        "inbound_{http,grpc}_response_duration_seconds",
        "SRV ROUTE",
        COARSE,
    ),
    (
        "inbound_{http,grpc}_{request,response}_frame_size_bytes",
        "SRV ROUTE",
        SIZE,
    ),
    (
        "{inbound,outbound}_tcp_detect_http_results_total",
        "result=http/1",
        "",
    ),
    (
        "{inbound,outbound}_tcp_detect_http_results_total",
        "result=not_http",
        "",
    ),
    (
        "{inbound,outbound}_tcp_detect_http_duration_seconds",
        "",
        DETECT,
    ),
    (
        "inbound_tcp_transport_header_connections_total",
        "session_protocol target_port client_id",
        "",
    ),
];

/// Of the process and its control plane.
const PROCESS: &[(&str, &str, &str)] = &[
    ("control_{request,response}_total", "addr server_id", ""),
    ("control_response_latency_ms", "addr server_id", LATENCY),
    (
        "control_{destination,policy,identity}_balancer_endpoints",
        "addr endpoint_state=ready",
        "",
    ),
    (
        "control_{destination,policy,identity}_balancer_endpoints",
        "addr endpoint_state=pending",
        "",
    ),
    (
        "control_{destination,policy,identity}_balancer_{p2c_endpoints,queue_length,queue_requests_total}",
        "addr",
        "",
    ),
    (
        "control_{destination,policy,identity}_balancer_p2c_updates_total",
        "addr op=Reset",
        "",
    ),
    (
        "control_{destination,policy,identity}_balancer_queue_latency_seconds",
        "addr",
        QUEUE,
    ),
    (
        "control_{destination,policy,identity}_balancer_queue_gate_{open_total,shut_total,open_time_seconds,shut_time_seconds,timeout_seconds}",
        "addr",
        "",
    ),
    (
        "control_identity_cert_{expiration,refresh}_timestamp_seconds",
        "",
        "",
    ),
    (
        "identity_cert_{expiration_timestamp_seconds,refresh_count}",
        "",
        "",
    ),
    ("control_identity_cert_refreshes_total", "result=ok", ""),
    (
        "control_dns_resolutions_total",
        "client record_type result",
        "",
    ),
    (
        "proxy_build_info",
        "version git_branch git_version profile vendor",
        "",
    ),
    (
        "rustls_info",
        "tls_suites tls_kx_groups tls_rand tls_key_provider tls_fips",
        "",
    ),
    (
        "process_{start_time_seconds,uptime_seconds_total,cpu_seconds_total,open_fds,max_fds,virtual_memory_bytes,resident_memory_bytes,threads}",
        "",
        "",
    ),
    (
        "tokio_rt_{workers,park_total,steal_total,steal_operations_total,overflow_total,busy_seconds_total,injection_queue_depth}",
        "",
        "",
    ),
];

/// What pages lack of the families of requests and connections.
#[allow(dead_code, reason = "each of the two test binaries uses one")]
pub fn traffic(pages: &[String]) -> Vec<String> {
    lacking(pages, TRAFFIC)
}

/// What a page lacks of the families of the process and its control plane.
#[allow(dead_code, reason = "each of the two test binaries uses one")]
pub fn process(page: &str) -> Vec<String> {
    lacking(&[page.to_owned()], PROCESS)
}

type Series<'p> = BTreeMap<&'p str, &'p str>;

fn lacking(pages: &[String], rows: &[(&str, &str, &str)]) -> Vec<String> {
    let mut shown: BTreeMap<&str, Vec<Series<'_>>> = BTreeMap::new();
    for line in pages.iter().flat_map(|page| page.lines()) {
        if line.starts_with('#') {
            continue;
        }
        let (series, _value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split("\",");
        let labels = labels.filter_map(|label| label.split_once("=\""));
        let labels = labels.map(|(name, value)| (name, value.trim_end_matches('"')));
        shown.entry(name).or_default().push(labels.collect());
    }
    let mut lacking = Vec::new();
    for (names, labels, bounds) in rows {
        for name in each(names) {
            let full = match bounds.is_empty() {
                true => name.clone(),
                false => format!("{name}_bucket"),
            };
            let fits = |series: &&Series<'_>| {
                expanded(labels)
                    .iter()
                    .all(|label| match label.split_once('=') {
                        Some((label, value)) => series.get(label) == Some(&value),
                        None => series.contains_key(label.as_str()),
                    })
            };
            let fitting: Vec<&Series<'_>> = shown
                .get(full.as_str())
                .into_iter()
                .flatten()
                .filter(fits)
                .collect();
            if fitting.is_empty() {
                let known = shown.get(full.as_str());
                lacking.push(format!("{name} {{{labels}}}: there is {known:?}"));
                continue;
            }
            let found: BTreeSet<&str> = fitting
                .iter()
                .filter_map(|series| series.get("le").copied())
                .collect();
            let wanted: BTreeSet<&str> = match bounds.is_empty() {
                true => BTreeSet::new(),
                false => bounds.split(' ').chain(["+Inf"]).collect(),
            };
            if found != wanted {
                lacking.push(format!("{name}: the bounds are {found:?}"));
            }
        }
    }
    lacking
}

/// Each of the names that `{a,b}` stand for.
fn each(pattern: &str) -> Vec<String> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return vec![pattern.to_owned()];
    };
    let (choices, after) = rest.split_once('}').unwrap();
    let endings = each(after);
    let choices = choices.split(',');
    choices
        .flat_map(|choice| {
            endings
                .iter()
                .map(move |end| format!("{before}{choice}{end}"))
        })
        .collect()
}

/// Labels without short forms.
fn expanded(labels: &str) -> Vec<String> {
    let words = labels.split(' ').filter(|word| !word.is_empty());
    words
        .flat_map(
            |word| match GROUPS.iter().find(|(short, _)| *short == word) {
                Some((_, long)) => expanded(long),
                None => vec![word.to_owned()],
            },
        )
        .collect()
}

#[test]
fn a_family_a_label_and_a_bound_that_are_not_there_are_named() {
    let page = |text: &str| vec![text.to_owned()];
    let rows = [
        ("a_total", "direction=inbound peer", ""),
        ("b_{x,y}", "", "1 2"),
    ];
    let whole = "a_total{direction=\"inbound\",peer=\"src\"} 1\n\
        b_x_bucket{le=\"1\"} 0\nb_x_bucket{le=\"2\"} 0\nb_x_bucket{le=\"+Inf\"} 0\n\
        b_y_bucket{le=\"1\"} 0\nb_y_bucket{le=\"2\"} 0\nb_y_bucket{le=\"+Inf\"} 0\n";
    assert!(lacking(&page(whole), &rows).is_empty());
    for (from, to) in [
        ("direction=\"inbound\"", "direction=\"outbound\""),
        (",peer=\"src\"", ""),
        ("b_y_bucket{le=\"2\"} 0\n", ""),
        ("b_x_bucket{le=\"2\"}", "b_x_bucket{le=\"3\"}"),
    ] {
        let lacking = lacking(&page(&whole.replace(from, to)), &rows);
        assert_eq!(lacking.len(), 1, "{from}: {lacking:?}");
    }
}
