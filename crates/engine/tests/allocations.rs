//! The budget of a decision: no allocation. Counted, not timed.

#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::time::Duration;

use allocation_counter::measure;
use tulle_engine::balance::{Balance, Balancer, Choice, Facts};
use tulle_engine::breaker::Outcome;
use tulle_engine::budget::{Bucket, RetryBudget};
use tulle_engine::deadline::{Deadlines, grpc_timeout, read_grpc_timeout};
use tulle_engine::hedge::Latencies;
use tulle_engine::inbound::{DefaultPolicy, DefaultProtocol, Peer, PeerTls, Server};
use tulle_engine::outbound::{HttpVersion, Policy, Timeouts};
use tulle_engine::retry::{Request, Tried, Tries, Verdict, Wishes, retry_after};
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
    let mut balancer = Balancer::new(&Balance::default(), None);
    balancer.update(0, (0..100_u32).map(|number| (number, Facts::default())));

    let counted = measure(|| {
        let found = policy.route(HttpVersion::Http1, &request).unwrap();
        assert!(found.answer(&request, 1).is_none());
        assert!(found.rule.backend(1, |_| true).is_some());
        let mut deadlines = Deadlines::begin(&found.rule.timeouts, None, 0);
        let random = 0x1234_5678_9abc_def0;
        let picked = balancer.pick(1, random, Choice::default()).unwrap();
        deadlines.request_sent(1);
        balancer.on_first_response(picked, 0, 2);
        let outcome = Outcome::of_answer(200, None, None);
        balancer.on_result(picked, 0, 2, random, &outcome);
        balancer.on_end(picked, 2);
        assert!(deadlines.expired(3).is_none());
    });

    assert_eq!(counted.count_total, 0);
}

#[test]
fn further_tries_are_decided_without_allocating() {
    let headers = [
        ("l5d-retry-http", "5xx,429"),
        ("l5d-retry-grpc", "unavailable"),
        ("l5d-retry-limit", "3"),
        ("l5d-timeout", "2s"),
    ];
    let mut bucket = Bucket::new(&RetryBudget::default());
    let mut latencies = Latencies::default();
    let deadlines = Deadlines::begin(&Timeouts::default(), None, 0);

    let counted = measure(|| {
        let rule = Wishes::read(headers.as_slice()).retry(None).unwrap();
        let mut tries = Tries::default();
        let request = Request {
            idempotent: true,
            ..Request::default()
        };
        for number in 0..10_000_000_000_u64.div_ceil(500_000_000) {
            bucket.deposit(number * 500_000_000);
        }
        let verdict = tries.decide(Some(&rule), Tried::answer(503), &request, &mut bucket);
        assert_eq!(verdict, Verdict::Retry { after: 0 });
        (0..100).for_each(|now| latencies.record(1_000_000, now));
        assert!(latencies.percentile(0.9).is_some());
        assert!(retry_after(b"Sun, 06 Nov 1994 08:49:37 GMT", 0).is_some());
        let left = deadlines.within(read_grpc_timeout(b"5S"), 0).left(true, 1);
        assert!(grpc_timeout(left.unwrap()).as_bytes().ends_with(b"u"));
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
