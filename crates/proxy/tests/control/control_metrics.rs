//! The page of metrics from outside: formats, compression, exemplars.

use std::io::Write as _;

use super::control_plane::{Answer, ControlPlane, Script};
use super::mesh::{add, balanced, dns_server, plain};
use super::proxy::{Proxy, application, eventually, request, request_with};
use super::{census, gunzip};

/// What Prometheus sends.
pub const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
    application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

fn alone() -> Proxy {
    let proxy = Proxy::start_with("web", &[("LINKERD2_PROXY_IDENTITY_DISABLED", "1")], &[]);
    proxy.wait_ready();
    proxy
}

fn scrape(proxy: &Proxy, fields: &str) -> (String, Vec<u8>) {
    request_with(proxy.admin(), "GET", "admin", "/metrics", fields, "").unwrap()
}

pub fn text(proxy: &Proxy, fields: &str) -> (String, String) {
    let (head, body) = scrape(proxy, fields);
    (head, String::from_utf8(body).unwrap())
}

/// Makes the page long: each status has its own histograms.
fn busy(proxy: &Proxy) {
    let app = application("127.0.0.1:0", "web").to_string();
    for host in [&app, "nowhere.invalid:1", "nowhere.invalid:2"] {
        for path in ["/", "/a"] {
            let _answered = request(proxy.outbound(), "GET", host, path, "");
        }
    }
    eventually("the requests are counted", || {
        text(proxy, "").1.contains("http_requests_total{")
    });
}

#[test]
fn control_metrics_are_open_metrics_for_who_prefers_that_and_plain_text_for_all_others() {
    let proxy = alone();
    busy(&proxy);
    let (head, page) = text(&proxy, &format!("accept: {PROMETHEUS}\r\n"));
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    assert!(page.ends_with("\n# EOF\n") && page.matches("# EOF").count() == 1);
    assert!(page.contains("# TYPE process_cpu_seconds counter\n# UNIT process_cpu_seconds seconds\nprocess_cpu_seconds_total "), "{page}");
    assert!(page.contains("# UNIT tcp_read_bytes bytes\n"), "{page}");
    for fields in [
        "",
        "accept: */*\r\n",
        "accept: text/plain\r\n",
        "accept: text/plain, application/openmetrics-text; q=0.9\r\n",
        "accept: application/openmetrics-text; q=0\r\n",
    ] {
        let (head, page) = text(&proxy, fields);
        assert!(
            head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
            "{fields}{head}"
        );
        assert!(
            !page.contains("# EOF") && !page.contains("# UNIT"),
            "{fields}"
        );
        assert!(page.contains("# TYPE process_cpu_seconds_total counter\n"));
        super::documented::check(&page);
    }
}

/// Lines of which the value may be another at each scrape.
fn steady(page: &str) -> Vec<&str> {
    let series = page
        .lines()
        .map(|line| line.rsplit_once(' ').map_or(line, |(series, _)| series));
    series.filter(|series| !series.starts_with('#')).collect()
}

#[test]
fn control_metrics_are_compressed_for_who_takes_that() {
    let proxy = alone();
    busy(&proxy);
    let (head, packed) = scrape(&proxy, "accept-encoding: gzip\r\n");
    assert!(head.contains("content-encoding: gzip"), "{head}");
    let (head, page) = text(&proxy, "accept-encoding: br, gzip;q=0\r\n");
    assert!(!head.contains("content-encoding"), "{head}");
    let expanded = String::from_utf8(gunzip::expanded(&packed)).unwrap();
    assert_eq!(steady(&expanded), steady(&page));
    assert!(
        packed.len() * 5 < page.len(),
        "{} of {}",
        packed.len(),
        page.len()
    );
    assert!(page.len() > 16 << 10, "more than one piece: {}", page.len());
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
}

#[test]
fn control_metrics_have_exemplars_once_open_metrics_was_asked_for() {
    let proxy = alone();
    let app = application("127.0.0.1:0", "web").to_string();
    let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    let send = |fields: &str| {
        let answer = request_with(proxy.outbound(), "GET", &app, "/", fields, "");
        answer.is_some_and(|(head, _)| head.contains(" 200 "))
    };
    let page = || text(&proxy, &format!("accept: {PROMETHEUS}\r\n")).1;
    eventually("the request is answered", || send(trace));
    assert!(!page().contains("# {"), "nobody had asked before");
    assert!(send(trace));
    let wanted = "# {trace_id=\"0af7651916cd43dd8448eb211c80319c\"} ";
    eventually("it is an exemplar", || page().contains(wanted));
    for line in page().lines().filter(|line| line.contains("# {")) {
        assert!(line.contains("_ms_bucket{"), "{line}");
        let (sample, exemplar) = line.split_once(" # ").unwrap();
        let le = sample
            .split_once("le=\"")
            .unwrap()
            .1
            .split_once('"')
            .unwrap()
            .0;
        let value: f64 = exemplar.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(le == "+Inf" || value <= le.parse().unwrap(), "{line}");
    }
    std::thread::sleep(std::time::Duration::from_millis(2));
    assert!(send("x-request-id: req-7\r\n"));
    eventually("an id is one too", || {
        page().contains("# {request_id=\"req-7\"} ")
    });
    assert!(
        !text(&proxy, "").1.contains("# {"),
        "plain text has no place for them"
    );
}

/// Sends requests with names that nobody has used before, many on one connection.
fn hostile(proxy: &Proxy, from: usize, count: usize) {
    use std::io::{BufRead as _, BufReader, Read as _};
    let enter: std::net::SocketAddr = format!("{}:30080", proxy.ip).parse().unwrap();
    let mut stream = std::net::TcpStream::connect(enter).unwrap();
    stream
        .set_read_timeout(Some(std::time::Duration::from_secs(20)))
        .unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    for number in from..from + count {
        let request = format!(
            "M{} /{number}?q={number} HTTP/1.1\r\nhost: h{number}.example\r\nx-request-id: id-{number}\r\nuser-agent: u{number}\r\n\r\n",
            number % 7_919
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            answers.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            assert!(!line.starts_with("http/1.1 5"), "{line}");
            if line.is_empty() {
                break;
            }
        }
        answers.read_exact(&mut vec![0; length]).unwrap();
    }
}

fn resident(proxy: &Proxy) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .split_ascii_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

/// Of the series of a family that have this label.
fn sum(proxy: &Proxy, family: &str, label: &str) -> f64 {
    sum_of(&text(proxy, "").1, family, label)
}

fn sum_of(page: &str, family: &str, label: &str) -> f64 {
    let begin = format!("{family}{{");
    let lines = page
        .lines()
        .filter(|line| line.starts_with(&begin) && line.contains(label));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

fn attacked(more: &[(&str, &str)]) -> Proxy {
    let app = application("127.0.0.1:0", "web").port();
    let map = format!("80={app}");
    let base = [
        ("LINKERD2_PROXY_IDENTITY_DISABLED", "1"),
        (
            "LINKERD2_PROXY_INBOUND_DEFAULT_POLICY",
            "all-unauthenticated",
        ),
        ("LINKERD2_PROXY_INBOUND_IPS", "127.0.0.1"),
        ("TULLE_PROXY_INBOUND_EXTRA_LISTENERS", "{ip}:30080=80"),
        ("TULLE_PROXY_INBOUND_PORT_MAP", &map),
    ];
    let proxy = Proxy::start_with("web", &base, more);
    proxy.wait_ready();
    hostile(&proxy, 0, 100);
    let _warm = scrape(&proxy, "");
    proxy
}

const NAMES: usize = 30_000;

#[test]
fn control_metrics_do_not_grow_with_names_that_clients_invent() {
    let proxy = attacked(&[("LINKERD2_PROXY_OUTBOUND_METRICS_HOSTNAME_LABELS", "true")]);
    let (before, resident_before) = (proxy.metric("proxy_metrics_series"), resident(&proxy));
    hostile(&proxy, 100, 5_000);
    let grown = proxy.metric("proxy_metrics_series") - before;
    assert!(grown <= 2.0, "{grown} series more");
    let grown = resident(&proxy).saturating_sub(resident_before);
    assert!(grown <= 2 << 10, "{grown} kB more");
}

#[test]
fn control_metrics_are_bounded_where_they_were_told_to_have_clients_names() {
    let proxy = attacked(&[("LINKERD2_PROXY_INBOUND_METRICS_AUTHORITY_LABELS", "unsafe")]);
    let before = resident(&proxy);
    hostile(&proxy, 100, NAMES);
    let grown = resident(&proxy).saturating_sub(before);
    let begun = std::time::Instant::now();
    let (_, page) = text(&proxy, "");
    let took = begun.elapsed();
    let scraped = resident(&proxy).saturating_sub(before);
    let series = proxy.metric("proxy_metrics_series");
    eprintln!(
        "{series} series, {} MB page in {took:?}, {grown} kB more, {scraped} kB after the scrape",
        page.len() >> 20
    );
    assert!(series <= 16_100.0, "{series}");
    assert!(proxy.metric("proxy_metrics_series_refused_total") > 10_000.0);
    assert_eq!(
        sum_of(&page, "request_total", ""),
        (NAMES + 100) as f64,
        "nothing is lost"
    );
    let overflow = proxy.metric("request_total{overflow=\"true\"}");
    assert!(overflow > (NAMES / 2) as f64, "{overflow}");
    assert!(
        grown <= 10 << 10 && scraped <= 10 << 10,
        "{grown} kB, {scraped} kB more"
    );
    assert!(took < std::time::Duration::from_secs(10), "{took:?}");
}

#[test]
fn control_metrics_that_nobody_uses_any_more_are_forgotten_and_their_memory_used_again() {
    let proxy = attacked(&[
        ("LINKERD2_PROXY_INBOUND_METRICS_AUTHORITY_LABELS", "unsafe"),
        ("LINKERD2_PROXY_METRICS_RETAIN_IDLE", "3s"),
        ("LINKERD2_PROXY_INBOUND_DISCOVERY_IDLE_TIMEOUT", "1s"),
    ]);
    let (before, series_before) = (resident(&proxy), proxy.metric("proxy_metrics_series"));
    for wave in 0..3 {
        hostile(&proxy, 100 + wave * NAMES / 2, NAMES / 2);
        eventually("idle series are forgotten", || {
            proxy.metric("proxy_metrics_series") < series_before + 10.0
        });
    }
    assert!(proxy.metric("proxy_metrics_series_evicted_total") > 10_000.0);
    let grown = resident(&proxy).saturating_sub(before);
    assert!(grown <= 18 << 10, "{grown} kB more after three waves");
}

#[test]
fn control_metrics_are_all_that_linkerds_proxy_shows_of_itself_and_its_control_plane() {
    let script = Script::new();
    let control = ControlPlane::start(&script);
    let more = [("TULLE_PROXY_DNS_SERVER", dns_server())];
    let proxy = Proxy::start("web", &control, &script, &more);
    proxy.wait_ready();
    let path = "voting.default.svc.cluster.local:80";
    let voting = application("127.0.0.1:0", "voting");
    script.policy("voting", Answer::Say(balanced("voting", path)));
    script.endpoints(path, Answer::Say(add(vec![plain(voting)])));
    eventually("a request passes", || {
        request(proxy.outbound(), "GET", "voting", "/", "").is_some_and(|(status, _)| status == 200)
    });
    let ready = |of: &str, state: &str| {
        let label = format!("endpoint_state=\"{state}\"");
        sum(&proxy, &format!("control_{of}_balancer_endpoints"), &label)
    };
    eventually(
        "each service has one address and a connection to it",
        || {
            ["destination", "policy", "identity"]
                .into_iter()
                .all(|of| ready(of, "ready") == 1.0 && ready(of, "pending") == 0.0)
        },
    );
    // Calls of which the first ended have an answer too.
    drop(control);
    eventually("all connections are gone", || {
        ["destination", "policy"].into_iter().all(|of| {
            ready(of, "ready") == 0.0
                && ready(of, "pending") == 1.0
                && sum(
                    &proxy,
                    &format!("control_{of}_balancer_queue_gate_shut_total"),
                    "",
                ) >= 1.0
        })
    });
    eventually("who asks for one waits", || {
        sum(&proxy, "control_policy_balancer_queue_length", "") > 0.0
    });
    let (_, page) = text(&proxy, "");
    super::documented::check(&page);
    let lacking = census::process(&page);
    assert!(lacking.is_empty(), "{}", lacking.join("\n"));
}
