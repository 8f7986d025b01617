//! ServiceProfiles on the inbound side: watched by the name that requests come in by, followed as the control plane
//! changes its mind, and without a say in how long a server may take.

use std::net::SocketAddr;

use tonic::Code;
use tulle_api::destination::{
    DestinationProfile, PathMatch, RequestMatch, ResponseClass, ResponseMatch, Route,
    request_match, response_match,
};

use super::control_plane::{Answer, ControlPlane, Script};
use super::mesh::{dns_server, server};
use super::proxy::{Proxy, application, eventually, request};

const HOST: &str = "voting.default.svc.cluster.local";
const PATH: &str = "voting.default.svc.cluster.local:80";

/// One route for everything, whose answers of 200 are failures and which gives a server a tenth of a second.
fn profile(route: &str) -> DestinationProfile {
    let status = response_match::Match::Status(tulle_api::destination::HttpStatusRange {
        min: 200,
        max: 200,
    });
    DestinationProfile {
        fully_qualified_name: HOST.to_owned(),
        routes: vec![Route {
            condition: Some(RequestMatch {
                r#match: Some(request_match::Match::Path(PathMatch {
                    regex: "/.*".to_owned(),
                })),
            }),
            response_classes: vec![ResponseClass {
                condition: Some(ResponseMatch {
                    r#match: Some(status),
                }),
                is_failure: true,
            }],
            metrics_labels: [("route".to_owned(), route.to_owned())].into(),
            timeout: Some(prost_types::Duration {
                seconds: 0,
                nanos: 100_000_000,
            }),
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[test]
fn inbound_requests_are_counted_by_the_profile_of_the_name_they_come_by() {
    let script = Script::new();
    script.port(80, Answer::Say(server("voting", true)));
    script.profile(PATH, Answer::Say(profile("first")));
    let control = ControlPlane::start(&script);
    let map = format!("80={}", application("127.0.0.1:0", "voting").port());
    let proxy = Proxy::start(
        "voting",
        &control,
        &script,
        &[
            ("TULLE_PROXY_DNS_SERVER", dns_server()),
            ("LINKERD2_PROXY_INBOUND_PORTS", "80"),
            ("LINKERD2_PROXY_INBOUND_IPS", "127.0.0.1"),
            ("TULLE_PROXY_INBOUND_PORT_MAP", &map),
            ("TULLE_PROXY_INBOUND_EXTRA_LISTENERS", "{ip}:30080=80"),
        ],
    );
    proxy.wait_ready();
    let public: SocketAddr = format!("{}:30080", proxy.ip).parse().unwrap();
    let ask = |path: &str| {
        let answer = request(public, "GET", HOST, path, "");
        assert_eq!(answer.map(|(status, _)| status), Some(200));
    };
    let counted = |family: &str, labels: &[&str]| -> f64 {
        let (_, page) = proxy.get("/metrics").unwrap();
        let lines = page.lines().filter(|line| {
            line.starts_with(&format!("{family}{{direction=\"inbound\""))
                && labels.iter().all(|label| line.contains(label))
        });
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    };
    let dst = format!("dst=\"{PATH}\"");
    let by = |route: &str| {
        counted(
            "route_request_total",
            &[&dst, &format!("rt_route=\"{route}\"")],
        )
    };

    eventually("requests are counted by the route", || {
        ask("/vote");
        by("first") > 0.0
    });
    eventually("their outcome is what the profile says", || {
        let failed = ["rt_route=\"first\"", "classification=\"failure\""];
        counted("route_response_total", &failed) == by("first")
    });
    // Four seconds of an answer: a profile's timeouts are for the clients' proxies.
    ask("/stream");
    assert_eq!(proxy.metric("inbound_http_errors_total"), 0.0);

    script.profile(PATH, Answer::Say(profile("second")));
    eventually("the new routes are in force", || {
        ask("/vote");
        by("second") > 0.0
    });
    let opened = || script.opened(&format!("Destination.GetProfile {PATH}"));
    assert_eq!(opened(), 1, "one stream told it all");

    let address = control.address;
    drop(control);
    eventually("the proxy has noticed", || {
        proxy.metric("control_watch_oldest_contact_seconds{method=\"Destination.GetProfile\"}")
            > 0.0
    });
    let before = by("second");
    ask("/vote");
    assert_eq!(by("second"), before + 1.0, "what is known holds");

    script.profile(PATH, Answer::Refuse(Code::NotFound));
    let _control = ControlPlane::start_on(&script, address);
    eventually("a profile that is gone counts no more", || {
        let before = by("second");
        ask("/vote");
        by("second") == before
    });
}
