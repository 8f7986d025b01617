//! The budget of a decision: no allocation. Counted, not timed.

#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::time::Duration;

use allocation_counter::measure;
use tulle_engine::balance::{Balancer, Load};
use tulle_engine::deadline::Deadlines;
use tulle_engine::inbound::{DefaultPolicy, DefaultProtocol, Peer, PeerTls, Server};
use tulle_engine::outbound::{HttpVersion, Policy};
use tulle_engine::{RequestView, doc};

#[test]
fn an_outbound_request_is_decided_without_allocating() {
    let policy = Policy::compile(&doc::policy()).unwrap();
    let headers = [("user-agent", "curl"), ("accept", "*/*")];
    let request = RequestView {
        method: b"GET",
        authority: b"voting.default:80",
        path: b"/api/vote?choice=:doughnut:",
        headers: headers.as_slice(),
    };
    let mut balancer = Balancer::new(Load::default());
    balancer.update(0, (0..100_u32).map(|number| (number, 10_000)));

    let counted = measure(|| {
        let found = policy.route(HttpVersion::Http1, &request).unwrap();
        assert!(found.answer(&request, 1).is_none());
        assert!(found.rule.backend(1, |_| true).is_some());
        let mut deadlines = Deadlines::begin(&found.rule.timeouts, None, 0);
        let endpoint = balancer.pick(1, 0x1234_5678_9abc_def0).unwrap();
        balancer.on_start(endpoint);
        deadlines.request_sent(1);
        balancer.on_first_response(endpoint, 0, 2);
        balancer.on_end(endpoint);
        assert!(deadlines.expired(3).is_none());
    });

    assert_eq!(counted.count_total, 0);
}

#[test]
fn an_inbound_request_is_decided_without_allocating() {
    let detect = DefaultProtocol::Detect(Duration::from_secs(10));
    let server = Server::by_default(DefaultPolicy::AllAuthenticated, detect, &[]);
    let peer = Peer {
        addr: Ipv4Addr::LOCALHOST.into(),
        tls: PeerTls::Identity("web.default.serviceaccount.identity.linkerd.cluster.local"),
    };
    let request = RequestView {
        method: b"GET",
        authority: b"voting",
        path: b"/",
        headers: &(),
    };

    let counted = measure(|| {
        let grants = server.grants(&peer);
        let found = server.route(&request).unwrap();
        assert!(server.authorize(&grants, &found).is_ok());
        assert_eq!(server.service(b"voting"), "");
    });

    assert_eq!(counted.count_total, 0);
}
