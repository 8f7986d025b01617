//! The page `docs/reference/metrics.md`.

use std::fmt::Write as _;

use super::super::histogram::{
    Bounds, COARSE_SECONDS, DETECT_SECONDS, FINE_SECONDS, FRAME_BYTES, LATENCY_MS, QUEUE_SECONDS,
};
use super::super::registry::{MAX_FAMILY, MAX_SERIES};
use super::{Kind, LABEL_GROUPS, SECTIONS};

/// Histograms by their bounds.
static BUCKETS: [(&str, &Bounds); 6] = [
    ("latency", &LATENCY_MS),
    ("coarse", &COARSE_SECONDS),
    ("fine", &FINE_SECONDS),
    ("queue", &QUEUE_SECONDS),
    ("detection", &DETECT_SECONDS),
    ("size", &FRAME_BYTES),
];

/// What Linkerd's proxy shows and Tulle's does not.
const ABSENT: &[(&str, &str)] = &[
    (
        "`stack_create_total`, `stack_drop_total`, `stack_poll_total`, `stack_poll_total_ms`",
        "They count the middleware objects of which linkerd2-proxy is built (each `Service` made, dropped, polled): here a \
         request runs through plain functions, so nothing is made or polled that the labels could name. What they are \
         read for is in `control_watches` (targets at hand), `outbound_*_balancer_queue_*` (what waits) and \
         `proxy_worker_lag_seconds`.",
    ),
    (
        "`tokio_rt_noop_total`, `tokio_rt_polls_total`, `tokio_rt_{local,remote}_schedule_total`, `tokio_rt_local_queue_depth`, `tokio_rt_budget_forced_yield_total`, `tokio_rt_io_driver_ready_total`",
        "Tokio counts them only when it is built with interfaces that it declares unstable (`--cfg tokio_unstable`), at a \
         cost for every poll.",
    ),
    (
        "`inbound_tcp_transfer_cost_bytes_total`",
        "A server does not know its clients' zones.",
    ),
];

/// The page as Markdown.
pub fn markdown() -> String {
    let mut page = format!(
        "# The sidecar's metrics\n\n\
         <!-- Generated from crates/proxy/src/metrics/families by `cargo run -p tulle-proxy --example reference`. -->\n\n\
         Served at `:4191/metrics` as Prometheus text; as OpenMetrics, with exemplars, to a scraper whose `Accept`\n\
         prefers it; compressed to one whose `Accept-Encoding` has gzip.\n\n\
         At most {} series are kept, and {} of one family. What comes beyond is counted in the family's\n\
         series `{{overflow=\"true\"}}`, and in `proxy_metrics_series_refused_total`. A series that nothing uses and that has\n\
         not changed for `LINKERD2_PROXY_METRICS_RETAIN_IDLE` (10 minutes) is forgotten. A family has no lines before its\n\
         first series.\n\n\
         Exemplars name one request per bucket of `response_latency_ms` and `http_request_duration_ms`: its trace\n\
         (`traceparent`, `b3`, `x-b3-traceid`), else its `x-request-id`. They are kept while somebody reads them.\n",
        number(MAX_SERIES),
        number(MAX_FAMILY),
    );
    for (title, families) in &SECTIONS {
        let _ = writeln!(
            page,
            "\n## {title}\n\n| metric | type | labels | meaning |\n|---|---|---|---|"
        );
        for family in *families {
            let kind = match family.kind {
                Kind::Counter => "counter".to_owned(),
                Kind::Gauge => "gauge".to_owned(),
                Kind::Histogram(bounds) => format!("histogram ({})", name(bounds)),
            };
            let labels = family.labels.join(", ");
            let _ = writeln!(
                page,
                "| `{}` | {kind} | {labels} | {} |",
                family.name, family.help
            );
        }
    }
    page.push_str("\n## Label groups\n\n| group | labels |\n|---|---|\n");
    for (group, labels) in LABEL_GROUPS {
        let _ = writeln!(page, "| {group} | {labels} |");
    }
    page.push_str("\n## Buckets\n\nUpper bounds, in the unit of the metric's name.\n\n| histogram | bounds |\n|---|---|\n");
    for (name, bounds) in BUCKETS {
        let _ = writeln!(page, "| {name} | {}, +Inf |", bounds.le.join(", "));
    }
    page.push_str("\n## Not here\n\nMetrics of linkerd2-proxy that this proxy does not have.\n\n| metric | why |\n|---|---|\n");
    for (metric, why) in ABSENT {
        let _ = writeln!(page, "| {metric} | {why} |");
    }
    page
}

fn number(thousands: usize) -> String {
    format!("{},{:03}", thousands / 1_000, thousands % 1_000)
}

fn name(bounds: &Bounds) -> &'static str {
    let mut known = BUCKETS.iter();
    known
        .find(|(_, known)| known.le == bounds.le)
        .map_or("", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::super::all;
    use super::*;

    #[test]
    fn every_histogram_has_a_name_for_its_buckets() {
        for family in all() {
            if let Kind::Histogram(bounds) = family.kind {
                assert!(!name(bounds).is_empty(), "{}", family.name);
            }
        }
    }

    /// A row that nothing counts would be a promise.
    #[test]
    fn every_family_is_filled_somewhere() {
        let mut source = String::new();
        let mut folders = vec![std::path::PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src"
        ))];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && path.ends_with("families") {
                    continue;
                } else if path.is_dir() {
                    folders.push(path);
                } else {
                    source.push_str(&std::fs::read_to_string(path).unwrap());
                }
            }
        }
        let words: std::collections::HashSet<&str> = source
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .collect();
        for family in all() {
            let constant = family.name.to_ascii_uppercase();
            assert!(words.contains(constant.as_str()), "{}", family.name);
        }
    }
}
