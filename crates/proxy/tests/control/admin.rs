//! The admin server, from outside.

use super::proxy::{Proxy, eventually, request};

fn alone(more: &[(&str, &str)]) -> Proxy {
    let proxy = Proxy::start_with("web", &[("LINKERD2_PROXY_IDENTITY_DISABLED", "1")], more);
    proxy.wait_ready();
    proxy
}

#[test]
fn control_admin_pages_are_served_and_unknown_ones_named() {
    let proxy = alone(&[]);
    assert_eq!(proxy.get("/live"), Some((200, "live\n".to_owned())));
    assert_eq!(proxy.get("/nothing").unwrap().0, 404);
    assert_eq!(proxy.ask("POST", "/metrics", "").unwrap().0, 405);
    let config: serde_json::Value = serde_json::from_str(&proxy.get("/config").unwrap().1).unwrap();
    assert_eq!(config["ready"], "ready");
}

#[test]
fn control_admin_shows_only_the_proxys_own_environment() {
    let proxy = alone(&[("DATABASE_PASSWORD", "hunter2"), ("_pod_ns", "default")]);
    let (status, page) = proxy.get("/env.json").unwrap();
    assert_eq!(status, 200);
    assert!(
        page.contains("\"_pod_ns\": \"default\"")
            && page.contains("LINKERD2_PROXY_ADMIN_LISTEN_ADDR")
    );
    assert!(!page.contains("hunter2") && !page.contains("DATABASE_PASSWORD"));
}

#[test]
fn control_admin_changes_log_levels_and_refuses_nonsense() {
    let proxy = alone(&[]);
    assert_eq!(
        proxy
            .ask("PUT", "/proxy-log-level", "warn,linkerd=error")
            .unwrap()
            .0,
        204
    );
    assert_eq!(
        proxy.get("/proxy-log-level"),
        Some((200, "warn,tulle=error\n".to_owned()))
    );
    let (status, why) = proxy.ask("PUT", "/proxy-log-level", "loud").unwrap();
    assert_eq!((status, why.contains("`loud` is not a level")), (400, true));
    assert_eq!(
        proxy
            .ask("PUT", "/proxy-log-level", &"warn,".repeat(10_000))
            .unwrap()
            .0,
        400
    );
}

#[test]
fn control_admin_shuts_down_only_where_it_was_enabled() {
    let mut closed = alone(&[]);
    assert_eq!(closed.ask("POST", "/shutdown", "").unwrap().0, 404);
    assert!(closed.is_running());
    let mut open = alone(&[("LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED", "true")]);
    assert_eq!(open.ask("GET", "/shutdown", "").unwrap().0, 405);
    assert_eq!(
        open.ask("POST", "/shutdown", ""),
        Some((200, "shutdown\n".to_owned()))
    );
    assert_eq!(open.wait_end(), Some(0));
}

/// Every family that is there from the start, by name and type: a renamed metric breaks somebody's dashboard.
#[test]
fn control_admin_metrics_begin_with_these_families() {
    let proxy = alone(&[]);
    let (status, page) = proxy.get("/metrics").unwrap();
    assert_eq!(status, 200);
    let mut types: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .collect();
    types.sort_unstable();
    let expected = [
        "control_watch_invalid_total counter",
        "control_watch_oldest_contact_seconds gauge",
        "control_watch_updates_total counter",
        "control_watches gauge",
        "control_watches_refused_total counter",
        "process_cpu_seconds_total counter",
        "process_max_fds gauge",
        "process_open_fds gauge",
        "process_resident_memory_bytes gauge",
        "process_start_time_seconds gauge",
        "process_threads gauge",
        "process_uptime_seconds_total counter",
        "process_virtual_memory_bytes gauge",
        "proxy_build_info gauge",
        "proxy_metrics_series gauge",
        "proxy_metrics_series_evicted_total counter",
        "proxy_metrics_series_refused_total counter",
        "proxy_worker_lag_seconds gauge",
    ];
    for family in expected {
        assert!(types.contains(&family), "{family} is missing\n{page}");
    }
    for name in types.iter().filter_map(|line| line.split(' ').next()) {
        let known = tulle_proxy::metrics::families::all().any(|family| family.name == name);
        assert!(known, "{name} is not in metrics/families");
    }
}

/// The golden metrics and Linkerd's families, with exactly these labels, after one request through the sidecar.
#[test]
fn control_admin_metrics_of_a_request_have_these_labels() {
    let app = super::proxy::application("127.0.0.1:0", "web");
    let proxy = alone(&[]);
    let host = app.to_string();
    eventually("the request is answered", || {
        request(proxy.outbound(), "GET", &host, "/", "").is_some_and(|(status, _)| status == 200)
    });
    let labels = |family: &str| {
        let (_, page) = proxy.get("/metrics").unwrap();
        let line = page
            .lines()
            .find(|line| line.starts_with(&format!("{family}{{")))
            .map(str::to_owned);
        let line = line.unwrap_or_else(|| panic!("{family} is missing\n{page}"));
        let inside = line
            .split_once('{')
            .unwrap()
            .1
            .rsplit_once('}')
            .unwrap()
            .0
            .to_owned();
        inside
            .split(',')
            .map(|pair| pair.split_once('=').unwrap().0.to_owned())
            .collect::<Vec<_>>()
    };
    eventually("the answer is counted", || {
        proxy
            .get("/metrics")
            .unwrap()
            .1
            .contains("http_requests_total{")
    });
    let article = [
        "direction",
        "dst_pod",
        "dst_service",
        "src_pod",
        "src_namespace",
        "status_code",
    ];
    assert_eq!(labels("http_requests_total"), article);
    assert_eq!(labels("http_request_duration_ms_sum"), article);
    assert_eq!(
        labels("http_request_duration_ms_bucket"),
        [&article[..], &["le"]].concat()
    );
    for family in [
        "request_total",
        "response_total",
        "response_latency_ms_count",
        "tcp_open_total",
    ] {
        assert_eq!(labels(family)[0], "direction", "{family}");
    }
}

/// A refused request is one line in the log and a page at `/explain`.
#[test]
fn control_admin_explains_refused_requests() {
    let proxy = alone(&[]);
    let malformed = b"GET /secret HTTP/1.1\r\nHost: voting\r\nContent-Length: x\r\n\r\n";
    let mut stream = std::net::TcpStream::connect(proxy.outbound()).unwrap();
    std::io::Write::write_all(&mut stream, malformed).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    let field = |line: &str| line.strip_prefix("tulle-request-id: ").map(str::to_owned);
    let id = answer.lines().find_map(field).unwrap();
    let (status, page) = proxy.get(&format!("/explain/{id}")).unwrap();
    assert_eq!(status, 200);
    let told: serde_json::Value = serde_json::from_str(&page).unwrap();
    assert_eq!(
        (&told["reason"], &told["request_id"]),
        (&"bad-request".into(), &id.as_str().into())
    );
    let all: serde_json::Value = serde_json::from_str(&proxy.get("/explain").unwrap().1).unwrap();
    assert_eq!(all["requests"][0], told);
    assert_eq!(proxy.get("/explain/unheard-of").unwrap().0, 404);
    assert_eq!(proxy.get("/explained").unwrap().0, 404);
    assert_eq!(proxy.ask("POST", "/explain", "").unwrap().0, 405);
    let line = |line: &&str| line.contains("request refused") && line.contains(&id);
    eventually("the refusal is logged", || {
        proxy.log().lines().any(|l| line(&l))
    });
}

/// Clients that take every place and say nothing are let go, and both are counted.
#[test]
fn control_admin_counts_what_its_bounds_cost_its_clients() {
    let proxy = alone(&[]);
    let reached = |limit: &str| {
        proxy.metric(&format!(
            "limit_reached_total{{limit=\"proxy::admin::{limit}\"}}"
        ))
    };
    assert_eq!(reached("HEADER_TIMEOUT"), 0.0);
    let silent: Vec<_> = (0..80)
        .map(|_| {
            let mut client = std::net::TcpStream::connect(proxy.admin()).unwrap();
            std::io::Write::write_all(&mut client, b"GET /live HTTP/1.1\r\n").unwrap();
            client
        })
        .collect();
    eventually("silent clients are let go", || {
        reached("HEADER_TIMEOUT") >= 64.0
    });
    assert!(reached("MAX_CONNECTIONS") >= 1.0);
    drop(silent);
}
