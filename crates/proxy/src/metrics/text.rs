//! The page at `/metrics`: Prometheus' text format 0.0.4, or OpenMetrics 1.0 when the scraper asks for it.
//!
//! It is written in pieces of [`PIECE`] bytes, each under the registry's lock for as long as it takes: a scrape of
//! thousands of series holds one piece and its place, not the page.

use std::fmt::Write as _;

use super::exemplar::Exemplars;
use super::families::{Family, Kind};
use super::labels::Labels;
use super::registry::Registry;

/// A piece of the page ends after so many bytes, with the series that it is in.
pub const PIECE: usize = 16 << 10;

/// The two expositions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for: OpenMetrics only when it is named, and not less wanted than plain
    /// text (RFC 9110 §12.5.1).
    pub fn from_accept(accept: &str) -> Self {
        let open = wanted(accept, "application/openmetrics-text");
        if open > 0.0 && open >= wanted(accept, "text/plain") {
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

/// How much a list like that of `Accept` wants this; 0 is not at all.
pub fn wanted(list: &str, this: &str) -> f32 {
    let mut entries = list.split(',').map(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        (name, weight.map_or(1.0, |q| q.parse().unwrap_or(0.0)))
    });
    entries
        .find(|(name, _)| name.eq_ignore_ascii_case(this))
        .map_or(0.0, |(_, weight)| weight)
}

/// A page that is being written: the registry's families in the order of their names, then the computed samples.
#[derive(Debug)]
pub struct Page {
    registry: Registry,
    computed: Vec<Sample>,
    format: Format,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// In a family; before the first one without a name.
    Family(&'static str),
    /// Behind these labels of a family.
    Series(&'static Family, Labels),
    Computed,
    End,
}

impl Page {
    /// A page at its begin.
    pub fn new(registry: &Registry, computed: Vec<Sample>, format: Format) -> Self {
        Page {
            registry: registry.clone(),
            computed,
            format,
            place: Place::Family(""),
        }
    }

    /// Writes the next piece; false when that was the last.
    pub fn piece(&mut self, page: &mut String) -> bool {
        let full = page.len() + PIECE;
        while page.len() < full {
            self.place = match std::mem::replace(&mut self.place, Place::End) {
                Place::Family(before) => match self.registry.family_after(before) {
                    Some(family) => {
                        head(page, family, self.format);
                        self.series(family, None, full, page)
                    }
                    None => Place::Computed,
                },
                Place::Series(family, labels) => self.series(family, Some(&labels), full, page),
                Place::Computed => {
                    self.computed(page);
                    Place::End
                }
                Place::End => return false,
            };
        }
        true
    }

    fn series(
        &self,
        family: &'static Family,
        after: Option<&Labels>,
        full: usize,
        page: &mut String,
    ) -> Place {
        let is_open = self.format == Format::OpenMetrics;
        let stopped = self.registry.series_after(family, after, |labels, cells| {
            let exemplars = match family.kind {
                Kind::Histogram(_) if is_open => self.registry.exemplars(family, labels),
                _ => None,
            };
            one(page, family, labels.as_str(), cells, exemplars.as_deref());
            page.len() < full
        });
        match stopped {
            Some(labels) => Place::Series(family, labels),
            None => Place::Family(family.name),
        }
    }

    fn computed(&self, page: &mut String) {
        let mut previous = "";
        for sample in &self.computed {
            let name = sample.family.name;
            if name != previous {
                head(page, sample.family, self.format);
                previous = name;
            }
            start(page, name, "", sample.labels.as_str(), None);
            let _ = writeln!(page, "{}", sample.value);
        }
        if self.format == Format::OpenMetrics {
            page.push_str("# EOF\n");
        }
    }
}

/// The whole page at once.
pub fn render(registry: &Registry, computed: Vec<Sample>, format: Format) -> String {
    let (mut page, mut text) = (Page::new(registry, computed, format), String::new());
    while page.piece(&mut text) {}
    text
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
    if format == Format::OpenMetrics {
        for unit in ["seconds", "bytes", "ms"] {
            if name.rsplit('_').next() == Some(unit) {
                let _ = writeln!(page, "# UNIT {name} {unit}");
            }
        }
    }
}

fn one(
    page: &mut String,
    family: &Family,
    labels: &str,
    cells: &[u64],
    exemplars: Option<&Exemplars>,
) {
    let name = family.name;
    let mut line = |suffix: &str, le: Option<&str>, value: &dyn std::fmt::Display| {
        start(page, name, suffix, labels, le);
        let _ = write!(page, "{value}");
        page.push('\n');
    };
    let bounds = match family.kind {
        Kind::Counter => return line("", None, &cells[0]),
        // A gauge's cells may each be "below zero": the wrapped sum is the true one.
        Kind::Gauge => return line("", None, &(cells[0] as i64 as f64)),
        Kind::Histogram(bounds) => bounds,
    };
    let mut so_far = 0u64;
    for (bucket, (le, count)) in bounds.le.iter().chain(&["+Inf"]).zip(cells).enumerate() {
        so_far += count;
        start(page, name, "_bucket", labels, Some(le));
        let _ = write!(page, "{so_far}");
        if let Some(exemplar) = exemplars.and_then(|exemplars| exemplars.get(bucket)) {
            exemplar.write(bounds.per_shown, page);
        }
        page.push('\n');
    }
    let sum = cells[bounds.upper.len() + 1] as f64 / bounds.per_shown as f64;
    let mut line = |suffix: &str, value: &dyn std::fmt::Display| {
        start(page, name, suffix, labels, None);
        let _ = writeln!(page, "{value}");
    };
    line("_sum", &sum);
    line("_count", &so_far);
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
            render(&registry, Vec::new(), Format::Prometheus),
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
        let page = render(&registry, Vec::new(), Format::Prometheus);
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
        let page = render(&registry, Vec::new(), Format::OpenMetrics);
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
