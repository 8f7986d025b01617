//! Holds a page of metrics against `docs/reference/metrics.md`: every family, its type and help, its labels, its
//! buckets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

struct Family {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
    bounds: Vec<String>,
}

/// The rows of a Markdown table, without its head.
fn rows<'p>(page: &'p str, section: &str) -> Vec<Vec<&'p str>> {
    let begin = page.find(&format!("\n## {section}\n"));
    let begin = begin.unwrap_or_else(|| panic!("no section {section}"));
    let lines = page[begin + 1..].lines().skip(1);
    let lines = lines.take_while(|line| !line.starts_with("## "));
    let rows = lines.filter(|line| line.starts_with("| "));
    rows.skip(1)
        .map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect()
}

/// Names of labels, without what is said about them.
fn names(text: &str) -> impl Iterator<Item = String> + '_ {
    let mut depth = 0;
    let plain: String = text
        .chars()
        .filter(|c| {
            depth += i32::from(*c == '(');
            let keep = depth == 0;
            depth -= i32::from(*c == ')');
            keep
        })
        .collect();
    let names: Vec<String> = plain
        .split(',')
        .map(|name| name.trim().to_owned())
        .collect();
    names.into_iter().filter(|name| !name.is_empty())
}

fn documented() -> &'static BTreeMap<String, Family> {
    static KNOWN: OnceLock<BTreeMap<String, Family>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../docs/reference/metrics.md"
        );
        let page = std::fs::read_to_string(path).unwrap();
        let groups: BTreeMap<&str, &str> = rows(&page, "Label groups")
            .iter()
            .map(|row| (row[0], row[1]))
            .collect();
        let buckets: BTreeMap<&str, &str> = rows(&page, "Buckets")
            .iter()
            .map(|row| (row[0], row[1]))
            .collect();
        let mut known = BTreeMap::new();
        for section in [
            "HTTP and TCP",
            "Policy and errors",
            "Routes",
            "Balancers",
            "Control plane and identity",
            "Process",
        ] {
            for row in rows(&page, section) {
                let (kind, bounds) = match row[1].split_once(" (") {
                    Some((kind, bounds)) => (kind, buckets[bounds.trim_end_matches(')')]),
                    None => (row[1], ""),
                };
                let mut labels: BTreeSet<String> = ["overflow".to_owned()].into();
                for label in names(row[2]) {
                    match groups.get(label.as_str()) {
                        Some(group) => labels.extend(names(group)),
                        None => drop(labels.insert(label)),
                    }
                }
                let family = Family {
                    kind: kind.to_owned(),
                    help: row[3].to_owned(),
                    labels,
                    bounds: names(bounds).collect(),
                };
                known.insert(row[0].trim_matches('`').to_owned(), family);
            }
        }
        known
    })
}

/// A page in Prometheus' format.
pub fn check(page: &str) {
    let known = documented();
    let mut current: Option<(&str, &Family)> = None;
    let mut buckets: Vec<&str> = Vec::new();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            let family = known
                .get(name)
                .unwrap_or_else(|| panic!("{name} is not documented"));
            assert_eq!(help, family.help, "{name}");
            current = Some((name, family));
            continue;
        }
        let (name, family) = current.expect("a family has a HELP");
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            assert_eq!(kind, format!("{name} {}", family.kind));
            continue;
        }
        let (series, _value) = line.rsplit_once(' ').unwrap();
        let (sample, labels) = series.split_once('{').unwrap_or((series, ""));
        let suffix = sample
            .strip_prefix(name)
            .unwrap_or_else(|| panic!("{line} below {name}"));
        let labels = labels.trim_end_matches('}').split("\",");
        for label in labels.filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once("=\"").unwrap();
            if label == "le" {
                buckets.push(value.trim_end_matches('"'));
                continue;
            }
            let is_known = family.labels.contains(label)
                || (label.starts_with("rt_") && family.labels.contains("rt_*"))
                || (label.starts_with("dst_") && family.labels.contains("dst_namespace"));
            assert!(
                is_known,
                "{label} of {name} is not documented: {:?}",
                family.labels
            );
        }
        match (family.kind.as_str(), suffix) {
            ("histogram", "_count") => {
                assert_eq!(buckets, family.bounds, "{name}");
                buckets.clear();
            }
            ("histogram", "_bucket" | "_sum") | ("counter" | "gauge", "") => {}
            _ => panic!("{line}"),
        }
    }
}
