//! What a scrape shows of requests: names, labels and buckets as dashboards for Linkerd look for them.

use std::collections::BTreeSet;

use crate::client::{Http1, echo};
use crate::rig::{Mesh, Pod, app, run};

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
