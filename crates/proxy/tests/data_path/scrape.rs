//! What a scrape shows of requests: names, labels and buckets as dashboards for Linkerd look for them.

use std::collections::BTreeSet;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tulle_api::destination::WeightedAddrSet;
use tulle_api::destination::update::Update;

use crate::client::{Http1, echo};
use crate::rig::{Mesh, Pod, app, plain, run};

/// The shapes of the series of families that begin so: name, label names in their order, and `le` with its value.
fn shapes(pod: &Pod, prefix: &str) -> BTreeSet<String> {
    let page = pod.metrics();
    let lines = page.lines().filter(|line| line.starts_with(prefix));
    lines
        .map(|line| {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap();
            let labels = labels.trim_end_matches('}').split("\",");
            let names = labels.map(|label| match label.split_once("=\"").unwrap() {
                ("le", bound) => format!("le={}", bound.trim_end_matches('"')),
                (name, _) => name.to_owned(),
            });
            format!("{name} {}", names.collect::<Vec<_>>().join(" "))
        })
        .collect()
}

fn histogram(name: &str, labels: &str, bounds: &str) -> Vec<String> {
    let mut shapes: Vec<String> = bounds
        .split(' ')
        .chain(["+Inf"])
        .map(|bound| format!("{name}_bucket {labels} le={bound}"))
        .collect();
    shapes.push(format!("{name}_count {labels}"));
    shapes.push(format!("{name}_sum {labels}"));
    shapes
}

const ROUTE: &str = "parent_group parent_kind parent_namespace parent_name parent_port parent_section_name \
                     route_group route_kind route_namespace route_name";
const BACKEND: &str =
    "backend_group backend_kind backend_namespace backend_name backend_port backend_section_name";
const SERVER: &str = "srv_group srv_kind srv_name srv_port route_group route_kind route_name";

#[test]
fn a_request_is_seen_by_route_and_backend_on_both_sides() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        app(voting.address(18080), echo).await;
        mesh.service("voting", &[voting.endpoint(80)]);
        let mut client = Http1::new(web.call().await);
        client
            .send("POST / HTTP/1.1\r\nHost: voting\r\nContent-Length: 5\r\n\r\nhello")
            .await;
        assert_eq!(client.answer().await.status(), 200);
        assert_eq!(client.get("voting", "/").await.status(), 200);

        let route = format!("{ROUTE} hostname");
        let backend = format!("{ROUTE} {BACKEND} hostname");
        let mut wanted: Vec<String> = vec![
            format!("outbound_http_route_request_statuses_total {route} http_status error"),
            format!("outbound_http_route_backend_requests_total {backend}"),
            format!(
                "outbound_http_route_backend_response_statuses_total {backend} http_status error"
            ),
        ];
        let name = |suffix: &str| format!("outbound_http_route_{suffix}");
        let sizes = "128 1024 10240";
        wanted.extend(histogram(
            &name("request_duration_seconds"),
            &route,
            "0.05 0.5 1 10",
        ));
        wanted.extend(histogram(&name("request_frame_size_bytes"), &route, sizes));
        wanted.extend(histogram(
            &name("backend_response_duration_seconds"),
            &backend,
            "0.025 0.05 0.1 0.25 0.5 1 10",
        ));
        wanted.extend(histogram(
            &name("backend_response_frame_size_bytes"),
            &backend,
            sizes,
        ));
        let shown = shapes(&web, "outbound_http_route_");
        assert_eq!(shown, wanted.into_iter().collect());

        let mut wanted: Vec<String> = vec![
            format!("inbound_http_requests_total {SERVER}"),
            format!("inbound_http_statuses_total {SERVER} http_status error"),
        ];
        let name = |suffix: &str| format!("inbound_http_{suffix}");
        wanted.extend(histogram(
            &name("request_duration_seconds"),
            SERVER,
            "0.025 0.05 0.1 0.25 0.5 1 10",
        ));
        wanted.extend(histogram(
            &name("response_duration_seconds"),
            SERVER,
            "0.05 0.5 1 10",
        ));
        wanted.extend(histogram(&name("request_frame_size_bytes"), SERVER, sizes));
        wanted.extend(histogram(&name("response_frame_size_bytes"), SERVER, sizes));
        let mut shown = shapes(&voting, "inbound_http_");
        shown.retain(|shape| !shape.starts_with("inbound_http_authz"));
        assert_eq!(shown, wanted.into_iter().collect());

        let ok = ["http_status=\"200\"", "error=\"\""];
        for (pod, name) in [
            (&web, "outbound_http_route_request_statuses_total"),
            (&web, "outbound_http_route_backend_response_statuses_total"),
            (&voting, "inbound_http_statuses_total"),
        ] {
            assert_eq!(pod.metric(name, &ok), 2.0, "{name}\n{}", pod.metrics());
        }
        for (pod, name) in [
            (&web, "outbound_http_route_request_frame_size_bytes_sum"),
            (&voting, "inbound_http_request_frame_size_bytes_sum"),
        ] {
            assert_eq!(pod.metric(name, &[]), 5.0, "{name}\n{}", pod.metrics());
        }
    });
}

#[test]
fn labels_that_discovery_changes_are_those_of_the_next_request() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        app(voting.address(18080), echo).await;
        mesh.service("voting", &[plain(voting.address(18080))]);
        let told = |pod: &str, service: &str| {
            let mut endpoint = plain(voting.address(18080));
            endpoint.metric_labels = [("pod".to_owned(), pod.to_owned())].into();
            mesh.change(
                "voting",
                Update::Add(WeightedAddrSet {
                    addrs: vec![endpoint],
                    metric_labels: [("service".to_owned(), service.to_owned())].into(),
                }),
            );
        };
        let mut client = Http1::new(web.call().await);
        assert_eq!(client.get("voting", "/").await.status(), 200);
        // An endpoint's own label, then one of all endpoints of its message.
        for (pod, service) in [("one", "first"), ("two", "first"), ("two", "second")] {
            told(pod, service);
            assert_eq!(client.get("voting", "/").await.status(), 200);
        }
        for (pod, service) in [("one", "first"), ("two", "first"), ("two", "second")] {
            let labels = [
                "direction=\"outbound\"",
                &format!("dst_pod=\"{pod}\""),
                &format!("dst_service=\"{service}\""),
            ];
            for family in ["request_total", "response_total"] {
                assert_eq!(web.metric(family, &labels), 1.0, "{}", web.metrics());
            }
        }
    });
}

#[test]
fn a_request_without_an_endpoint_has_an_error_instead_of_a_status() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        mesh.service("voting", &[]);
        let mut client = Http1::new(web.call().await);
        assert_eq!(client.get("voting", "/").await.status(), 503);
        let failed = ["http_status=\"\"", "error=\"FAIL_FAST\""];
        for name in [
            "outbound_http_route_request_statuses_total",
            "outbound_http_route_backend_response_statuses_total",
        ] {
            assert_eq!(web.metric(name, &failed), 1.0, "{name}\n{}", web.metrics());
        }
    });
}

/// Opens a tunnel to a Service, says something opaque, and waits for its end.
pub async fn opaque(pod: &Pod, service: &str) -> Vec<u8> {
    let mut client = Http1::new(pod.call().await);
    let connect = format!("CONNECT {service}:80 HTTP/1.1\r\nHost: {service}:80\r\n\r\n");
    client.send(connect).await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200"));
    client.send(b"\x00 opaque").await;
    client.stream.shutdown().await.unwrap();
    client.rest().await
}

#[test]
fn a_connection_is_seen_by_route_balancer_and_zone() {
    run(async {
        let mesh = Mesh::new();
        let (web, db) = (mesh.pod("web").await, mesh.pod("db").await);
        app(db.address(18080), |mut stream| async move {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            stream.write_all(b"ok").await.unwrap();
        })
        .await;
        let mut near = plain(db.address(18080));
        near.metric_labels = [("zone_locality".to_owned(), "local".to_owned())].into();
        mesh.service("db", &[near]);
        assert_eq!(opaque(&web, "db").await, b"ok");
        let closed = "outbound_tcp_route_close_total";
        while web.metric(closed, &[]) == 0.0 {
            tokio::task::yield_now().await;
        }
        let (parent, backend) = ("parent_name=\"voting\"", "backend_name=\"voting\"");
        for (name, labels, value) in [
            ("outbound_tcp_route_open_total", &[parent][..], 1.0),
            (closed, &[parent, "error=\"\""], 1.0),
            (
                "outbound_tcp_protocol_connections_total",
                &["protocol=\"detect\"", parent],
                1.0,
            ),
            (
                "outbound_tcp_detect_http_results_total",
                &[parent, "result=\"not_http\""],
                1.0,
            ),
            (
                "outbound_tcp_balancer_endpoints",
                &[backend, "endpoint_state=\"ready\""],
                1.0,
            ),
            (
                "outbound_tcp_balancer_p2c_updates_total",
                &["op=\"Reset\""],
                1.0,
            ),
            ("outbound_http_balancer_endpoints", &[], 0.0),
            (
                "outbound_tcp_transfer_cost_bytes_total",
                &["op=\"Send\"", "zone_locality=\"Local\""],
                8.0,
            ),
            (
                "outbound_tcp_transfer_cost_bytes_total",
                &["op=\"Recv\"", "zone_locality=\"Local\""],
                2.0,
            ),
            ("outbound_tls_route_open_total", &[], 0.0),
        ] {
            assert_eq!(
                web.metric(name, labels),
                value,
                "{name} {labels:?}\n{}",
                web.metrics()
            );
        }
    });
}

#[test]
fn a_connection_without_an_endpoint_is_closed_with_an_error_of_its_route() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        mesh.service("db", &[]);
        assert_eq!(opaque(&web, "db").await, b"");
        let unexpected = ["error=\"unexpected\""];
        assert_eq!(
            web.metric("outbound_tcp_route_close_total", &unexpected),
            1.0
        );
        let failed = ["error=\"failfast\"", "reason=\"no-endpoints\""];
        assert_eq!(
            web.metric("outbound_tcp_errors_total", &failed),
            1.0,
            "{}",
            web.metrics()
        );
    });
}
