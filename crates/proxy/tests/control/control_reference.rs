//! The generated pages say what the source says, and leave nothing out.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tulle_http::l5d::{self, Class};
use tulle_proxy::metrics::families;

#[path = "../../examples/reference"]
mod reference {
    pub mod headers;
    pub mod limits;
    pub mod pages;
    pub mod source;
}

use reference::headers::{self, Header, Message};
use reference::limits::{self, Home, Limit, Shown};
use reference::{pages, source};

#[test]
fn the_pages_are_those_of_this_source() {
    for (page, text) in pages::all() {
        let path = source::root().join("docs/reference").join(page);
        let written = fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == text,
            "docs/reference/{page} is stale: run `cargo run --release -p tulle-proxy --example reference`"
        );
    }
}

fn limits() -> impl Iterator<Item = &'static Limit> {
    limits::GROUPS.iter().flat_map(|(_, limits)| *limits)
}

/// Constants whose names sound like bounds and are none, or are another's, with the reason.
const NO_LIMITS: &[(&str, &str, &str)] = &[
    ("proxy/src/metrics/gzip.rs", "MAX_MATCH", "the format's own"),
    (
        "engine/src/inbound/external.rs",
        "DEFAULT_TIMEOUT",
        "a policy's default",
    ),
    (
        "http/src/h2/frame.rs",
        "MAX_CONCURRENT_STREAMS",
        "a setting's number",
    ),
    (
        "http/src/h2/frame.rs",
        "MAX_FRAME_SIZE",
        "a setting's number",
    ),
    (
        "http/src/h2/frame.rs",
        "MAX_HEADER_LIST_SIZE",
        "a setting's number",
    ),
    ("http/src/h2/frame.rs", "MAX_FRAME", "the protocol's own"),
    ("http/src/h2/frame.rs", "MAX_WINDOW", "the protocol's own"),
    (
        "http/src/hpack/integer.rs",
        "MAX_CONTINUATION",
        "what fits the number",
    ),
    ("http/src/hpack/huffman.rs", "MAX_BITS", "the code's own"),
    ("http/src/h1/chunk.rs", "MAX_DIGITS", "what fits the number"),
    (
        "proxy/src/net/tls/records.rs",
        "MAX_TEXT",
        "the protocol's own",
    ),
    ("proxy/src/outbound/target.rs", "MAX_TARGETS", "discovery's"),
    (
        "proxy/src/config/values.rs",
        "LONGEST",
        "a slip of the keyboard",
    ),
    (
        "proxy/src/config/near.rs",
        "LONGEST",
        "of a name that is compared",
    ),
];

/// Whether a constant of this name has to be in the table.
fn sounds_like_a_limit(name: &str) -> bool {
    [
        "MAX",
        "LONGEST",
        "MOST",
        "KEPT",
        "WAITING",
        "TICKETS",
        "REMEMBERED",
        "GENERATION",
        "DISCARD",
        "SPARE",
    ]
    .iter()
    .chain(&["PATIENCE", "ATTEMPT", "LINES", "TRIES"])
    .any(|word| name.starts_with(word))
        || name.ends_with("_TIMEOUT")
}

/// Every file of the three crates' source, as `engine/src/retry/mod.rs`.
fn files() -> Vec<String> {
    let mut found = Vec::new();
    for part in ["engine/src", "http/src", "proxy/src"] {
        gather(&source::root().join("crates").join(part), part, &mut found);
    }
    found.sort();
    found
}

fn gather(folder: &Path, name: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder of the source") {
        let entry = entry.expect("an entry");
        let inner = format!("{name}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            if !inner.ends_with("/tests") {
                gather(&entry.path(), &inner, found);
            }
        } else if inner.ends_with(".rs") && !inner.ends_with("tests.rs") {
            found.push(inner);
        }
    }
}

#[test]
fn no_bound_of_the_source_is_missing_from_the_page() {
    let listed: BTreeSet<(&str, &str)> = limits()
        .filter_map(|limit| match limit.home {
            Home::Constant(file, name) => Some((file, name)),
            _ => None,
        })
        .chain(NO_LIMITS.iter().map(|(file, name, _)| (*file, *name)))
        .collect();
    let mut missing = Vec::new();
    for file in files() {
        for constant in source::constants(&file) {
            if sounds_like_a_limit(&constant.name)
                && source::evaluate(&constant.expression).is_some()
                && !listed.contains(&(file.as_str(), constant.name.as_str()))
            {
                missing.push(format!("crates/{file}: {}", constant.name));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "add to crates/proxy/examples/reference/limits.rs: {missing:#?}"
    );
}

#[test]
fn a_bound_is_listed_once() {
    let mut seen = BTreeSet::new();
    for limit in limits() {
        let name = match limit.home {
            Home::Constant(file, name) => format!("{file} {name}"),
            Home::Default(name, ..) | Home::Variable(name) => name.to_owned(),
        };
        assert!(seen.insert(name.clone()), "{name}");
    }
}

#[test]
fn each_limit_names_metrics_that_exist_or_the_reason_why_it_has_none() {
    let known: BTreeSet<&str> = families::all().map(|family| family.name).collect();
    for limit in limits() {
        let home = limit.home;
        match limit.shown {
            Shown::Metric(names) => {
                let named: Vec<&str> = names.split('`').skip(1).step_by(2).collect();
                assert!(!named.is_empty(), "{home:?} names no metric");
                for name in named.into_iter().flat_map(alternatives) {
                    let name = name.split('{').next().unwrap_or_default();
                    assert!(known.contains(name), "{name} of {home:?}");
                }
            }
            Shown::Log => {}
            Shown::Uncounted(why) => assert!(!why.is_empty(), "{home:?} says nothing"),
        }
    }
}

/// Bounds by which something of somebody else's is refused or lost and that nothing counts, with the reason.
const REFUSED_UNCOUNTED: &[(&str, &str)] = &[
    ("MAX_STREAMS", "of tap's own identity, which is told"),
    ("LAST_WORDS", "the process that would count ends"),
    ("LONGEST_ATTRIBUTE", "of the pod's own configuration"),
    ("MAX_ATTRIBUTES", "of the pod's own configuration"),
    ("MAX_LEVELS", "whoever asks is told"),
];

#[test]
fn what_is_refused_closed_or_lost_at_a_limit_is_counted() {
    for limit in limits() {
        let Shown::Uncounted(_) = limit.shown else {
            continue;
        };
        let Home::Constant(_, name) = limit.home else {
            continue;
        };
        let lossy = ["refused", "closed", "lost", "left out", "40", "50"];
        let excepted = REFUSED_UNCOUNTED.iter().any(|(known, _)| *known == name);
        let said = limit.then;
        assert!(
            excepted || !lossy.iter().any(|word| said.contains(word)),
            "{:?}: {said}; count it, as `Shard::limit` does",
            limit.home
        );
    }
}

/// The names by which `Shard::limit` counts are those of the page.
#[test]
fn a_bound_is_counted_by_its_name_on_the_page() {
    let page = limits::markdown();
    let mut counted = 0;
    for file in files() {
        let text = fs::read_to_string(source::root().join("crates").join(&file)).unwrap();
        for call in text.split(".limit(\"").skip(1) {
            let name = call.split('"').next().unwrap_or_default();
            let row = page
                .lines()
                .find(|line| line.starts_with(&format!("| `{name}` |")));
            let row = row.unwrap_or_else(|| panic!("crates/{file}: {name} is not on the page"));
            assert!(row.contains("`limit_reached_total`"), "{row}");
            counted += 1;
        }
    }
    let rows = page
        .lines()
        .filter(|line| line.contains("`limit_reached_total`"));
    assert_eq!(
        counted,
        rows.count(),
        "each such bound is counted in one place"
    );
}

/// `{inbound,outbound}_x` is two names.
fn alternatives(name: &str) -> Vec<String> {
    match name.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        Some((all, rest)) => all.split(',').map(|one| format!("{one}{rest}")).collect(),
        None => vec![name.to_owned()],
    }
}

#[test]
fn what_is_read_of_the_source_is_what_it_says() {
    use source::Worth::{Number, Time};
    use std::time::Duration;
    for (expression, worth) in [
        ("16 * 1024 * 1024", Number(16 << 20)),
        ("1 << 20", Number(1 << 20)),
        ("(1 << 24) - 1", Number((1 << 24) - 1)),
        ("10_000", Number(10_000)),
        ("1000.0", Number(1000)),
        ("Duration::from_secs(5)", Time(Duration::from_secs(5))),
        ("Duration::from_millis(75)", Time(Duration::from_millis(75))),
    ] {
        assert_eq!(source::evaluate(expression), Some(worth), "{expression}");
    }
    assert_eq!(source::evaluate("crate::discovery::MAX_TARGETS"), None);
    let replay = source::constants("proxy/src/http/replay.rs");
    let held = replay
        .iter()
        .find(|constant| constant.name == "MAX_HELD")
        .unwrap();
    assert_eq!(
        source::evaluate(&held.expression),
        Some(Number(tulle_proxy::http::replay::MAX_HELD as u64))
    );
    assert!(
        held.comment.starts_with("Bytes that all requests"),
        "{}",
        held.comment
    );
}

fn headers() -> impl Iterator<Item = &'static Header> {
    headers::GROUPS.iter().flat_map(|(_, headers)| *headers)
}

#[test]
fn the_mesh_s_headers_are_listed_as_the_codec_treats_them() {
    for (name, class) in l5d::TABLE {
        let header = headers()
            .find(|header| header.name == *name)
            .unwrap_or_else(|| panic!("{name} is not listed"));
        match class {
            Class::Control => {
                assert_eq!(header.message, Message::Request, "{name}");
                assert!(header.inbound.ends_with("removed"), "{name}");
            }
            Class::Assertion | Class::Bridge => {
                let believed = ["a meshed peer", "nobody: it is ours to set"];
                assert!(believed.contains(&header.trust), "{name}");
            }
        }
    }
    for header in headers().filter(|header| header.name.starts_with("l5d-")) {
        assert!(
            l5d::class(header.name.as_bytes()).is_some(),
            "{}",
            header.name
        );
    }
    for known in tulle_http::Known::ALL {
        let listed = headers().any(|header| header.name == known.name());
        assert!(listed, "{}", known.name());
    }
}

/// Names in the source that look like headers and are none that the sidecar acts on.
const NO_HEADERS: &[&str] = &[
    "x-gzip",
    "x-compress",
    "tulle-control",
    "tulle-access-log",
    "tulle-init",
];

#[test]
fn no_header_of_the_source_is_missing_from_the_page() {
    let listed: BTreeSet<&str> = headers().map(|header| header.name).collect();
    let mut missing = BTreeSet::new();
    for file in files() {
        // A list of what is compressed or never compressed, not of what is acted on.
        if file == "http/src/hpack/known.rs" {
            continue;
        }
        let text = fs::read_to_string(source::root().join("crates").join(&file)).unwrap();
        let text = text.split("\nmod tests {").next().unwrap_or_default();
        let code = |line: &&str| !line.trim_start().starts_with("//");
        let text: String = text.lines().filter(code).collect();
        for literal in text.split('"').skip(1).step_by(2) {
            let ours = ["l5d-", "tulle-", "x-", "access-control-", "grpc-", "retry-"]
                .iter()
                .any(|prefix| literal.len() > prefix.len() && literal.starts_with(prefix));
            let name = literal
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            if ours && name && !listed.contains(literal) && !NO_HEADERS.contains(&literal) {
                missing.insert(format!("{literal} of crates/{file}"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "add to crates/proxy/examples/reference/headers.rs: {missing:#?}"
    );
}
