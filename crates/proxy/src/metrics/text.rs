//! The page at `/metrics`: Prometheus' text format 0.0.4, or OpenMetrics 1.0 when the scraper asks for it.

use std::fmt::Write as _;

use super::families::{Family, Kind};
use super::labels::Labels;
use super::registry::{Registry, Scraped};

/// The two expositions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for. OpenMetrics only when it is named.
    pub fn from_accept(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The `content-type` of the page.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A value that is computed at scrape time instead of being counted.
#[derive(Debug)]
pub struct Sample {
    /// Its family; a counter or a gauge.
    pub family: &'static Family,
    /// Its labels.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
}

/// Renders the whole page: the registry's families in the order of their names, then the computed samples.
pub fn render(registry: &Registry, computed: &[Sample], format: Format) -> String {
    let scraped = registry.scrape();
    let mut page = String::with_capacity(4_096 + registry.series() * 160);
    for family in &scraped {
        head(&mut page, family.family, format);
        series(&mut page, family);
    }
    let mut previous = "";
    for sample in computed {
        if sample.family.name != previous {
            head(&mut page, sample.family, format);
            previous = sample.family.name;
        }
        line(
            &mut page,
            sample.family.name,
            "",
            sample.labels.as_str(),
            None,
            sample.value,
        );
    }
    if format == Format::OpenMetrics {
        page.push_str("# EOF\n");
    }
    page
}

fn head(page: &mut String, family: &Family, format: Format) {
    // OpenMetrics names a counter's family without the `_total` that its samples carry; a counter whose historic
    // name lacks it (`identity_cert_refresh_count`) may only be shown as `unknown`.
    let (name, kind) = match (family.kind, format) {
        (Kind::Counter, Format::Prometheus) => (family.name, "counter"),
        (Kind::Counter, Format::OpenMetrics) => match family.name.strip_suffix("_total") {
            Some(name) => (name, "counter"),
            None => (family.name, "unknown"),
        },
        (Kind::Gauge, _) => (family.name, "gauge"),
        (Kind::Histogram(_), _) => (family.name, "histogram"),
    };
    let _ = writeln!(page, "# HELP {name} {}", family.help);
    let _ = writeln!(page, "# TYPE {name} {kind}");
}

fn series(page: &mut String, scraped: &Scraped) {
    let name = scraped.family.name;
    for (labels, cells) in &scraped.series {
        let labels = labels.as_str();
        match scraped.family.kind {
            // A gauge's cells may each be "below zero": the wrapped sum is the true one.
            Kind::Counter => whole(page, name, "", labels, None, cells[0]),
            Kind::Gauge => line(page, name, "", labels, None, cells[0] as i64 as f64),
            Kind::Histogram(bounds) => {
                let mut so_far = 0u64;
                for (le, count) in bounds.le.iter().zip(cells) {
                    so_far += count;
                    whole(page, name, "_bucket", labels, Some(le), so_far);
                }
                so_far += cells[bounds.upper.len()];
                whole(page, name, "_bucket", labels, Some("+Inf"), so_far);
                let sum = cells[bounds.upper.len() + 1] as f64 / bounds.per_shown as f64;
                line(page, name, "_sum", labels, None, sum);
                whole(page, name, "_count", labels, None, so_far);
            }
        }
    }
}

fn start(page: &mut String, name: &str, suffix: &str, labels: &str, le: Option<&str>) {
    page.push_str(name);
    page.push_str(suffix);
    match (labels.is_empty(), le) {
        (true, None) => {}
        (true, Some(le)) => {
            let _ = write!(page, "{{le=\"{le}\"}}");
        }
        (false, None) => {
            let _ = write!(page, "{{{labels}}}");
        }
        (false, Some(le)) => {
            let _ = write!(page, "{{{labels},le=\"{le}\"}}");
        }
    }
    page.push(' ');
}

fn whole(page: &mut String, name: &str, suffix: &str, labels: &str, le: Option<&str>, value: u64) {
    start(page, name, suffix, labels, le);
    let _ = writeln!(page, "{value}");
}

fn line(page: &mut String, name: &str, suffix: &str, labels: &str, le: Option<&str>, value: f64) {
    start(page, name, suffix, labels, le);
    let _ = writeln!(page, "{value}");
}

#[cfg(test)]
mod tests {
    use super::super::families;
    use super::super::registry::Limits;
    use super::*;
    use std::time::Duration;

    fn registry() -> (Registry, super::super::Shard) {
        let registry = Registry::new(Limits::default());
        let shard = registry.shard();
        (registry, shard)
    }

    #[test]
    fn counters_and_gauges_are_shown_with_help_and_type() {
        let (registry, shard) = registry();
        let labels = Labels::builder().add("direction", "inbound").build();
        shard.counter(&families::TCP_OPEN_TOTAL, &labels).add(3);
        shard
            .gauge(&families::TCP_OPEN_CONNECTIONS, &Labels::none())
            .set(2);
        assert_eq!(
            render(&registry, &[], Format::Prometheus),
            "# HELP tcp_open_connections Connections open now.\n\
             # TYPE tcp_open_connections gauge\n\
             tcp_open_connections 2\n\
             # HELP tcp_open_total Connections opened.\n\
             # TYPE tcp_open_total counter\n\
             tcp_open_total{direction=\"inbound\"} 3\n"
        );
    }

    #[test]
    fn a_histogram_is_cumulative_and_its_sum_is_in_the_shown_unit() {
        let (registry, shard) = registry();
        let histogram = shard.histogram(
            &families::OUTBOUND_TCP_DETECT_HTTP_DURATION_SECONDS,
            &Labels::none(),
        );
        histogram.record(Duration::from_micros(500));
        histogram.record(Duration::from_millis(50));
        histogram.record(Duration::from_secs(2));
        let page = render(&registry, &[], Format::Prometheus);
        let lines: Vec<&str> = page.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "outbound_tcp_detect_http_duration_seconds_bucket{le=\"0.001\"} 1",
                "outbound_tcp_detect_http_duration_seconds_bucket{le=\"0.1\"} 2",
                "outbound_tcp_detect_http_duration_seconds_bucket{le=\"+Inf\"} 3",
                "outbound_tcp_detect_http_duration_seconds_sum 2.0505",
                "outbound_tcp_detect_http_duration_seconds_count 3",
            ]
        );
    }

    #[test]
    fn open_metrics_names_counters_without_total_and_ends_with_eof() {
        let (registry, shard) = registry();
        shard
            .counter(&families::TCP_OPEN_TOTAL, &Labels::none())
            .inc();
        shard
            .counter(&families::IDENTITY_CERT_REFRESH_COUNT, &Labels::none())
            .inc();
        let page = render(&registry, &[], Format::OpenMetrics);
        assert!(
            page.contains("# TYPE tcp_open counter\ntcp_open_total 1\n"),
            "{page}"
        );
        assert!(
            page.contains("# TYPE identity_cert_refresh_count unknown\n"),
            "{page}"
        );
        assert!(page.ends_with("# EOF\n"));
    }
}
