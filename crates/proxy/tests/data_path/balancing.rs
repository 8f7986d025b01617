//! Which of several real servers takes a request: failing ones, new ones, full ones, near ones, one's own.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tulle_api::outbound::backend::balance_p2c as p2c;
use tulle_api::{destination, outbound as api};

use crate::client::{Http1, Message};
use crate::rig::{Mesh, Pod, app, plain, policy, run};

/// Servers on ports 9000, 9001, … of the pod's address. Each says its number, and answers as it is told to.
struct Servers {
    served: Rc<RefCell<BTreeMap<usize, u32>>>,
    status: Rc<RefCell<BTreeMap<usize, u16>>>,
    /// What answers say beside their status: header lines.
    says: Rc<Cell<&'static str>>,
    /// While set, answers wait.
    held: Rc<tokio::sync::Semaphore>,
    holds: Rc<Cell<bool>>,
}

impl Servers {
    async fn start(pod: &Pod, count: usize) -> Self {
        let servers = Servers {
            served: Rc::default(),
            status: Rc::default(),
            says: Rc::default(),
            held: Rc::new(tokio::sync::Semaphore::new(0)),
            holds: Rc::default(),
        };
        for number in 0..count {
            let (served, status) = (servers.served.clone(), servers.status.clone());
            let (held, holds) = (servers.held.clone(), servers.holds.clone());
            let says = servers.says.clone();
            app(pod.address(9000 + number as u16), move |stream| {
                let (served, status) = (served.clone(), status.clone());
                let (held, holds) = (held.clone(), holds.clone());
                let says = says.clone();
                async move {
                    let mut server = Http1::new(stream);
                    while server.message().await.is_some() {
                        *served.borrow_mut().entry(number).or_default() += 1;
                        if holds.get() {
                            held.acquire().await.unwrap().forget();
                        }
                        let status = status.borrow().get(&number).copied().unwrap_or(200);
                        let says = says.get();
                        let answer = format!(
                            "HTTP/1.1 {status} X\r\n{says}Content-Length: 1\r\n\r\n{number}"
                        );
                        server.send(answer).await;
                    }
                }
            })
            .await;
        }
        servers
    }

    fn endpoints(pod: &Pod, count: usize) -> Vec<destination::WeightedAddr> {
        (0..count)
            .map(|number| plain(pod.address(9000 + number as u16)))
            .collect()
    }

    fn answer(&self, number: usize, status: u16) {
        self.status.borrow_mut().insert(number, status);
    }

    /// Requests since the last time, by server.
    fn taken(&self) -> BTreeMap<usize, u32> {
        std::mem::take(&mut self.served.borrow_mut())
    }
}

/// The Service's policy, with a changed balancer and circuit breaker.
fn balanced(
    change: impl Fn(&mut api::backend::BalanceP2c),
    accrual: Option<api::FailureAccrual>,
) -> api::OutboundPolicy {
    use api::http_route::distribution::Kind;
    let mut message = policy("voting");
    let Some(api::proxy_protocol::Kind::Detect(detect)) =
        message.protocol.as_mut().and_then(|p| p.kind.as_mut())
    else {
        panic!("the rig's policy has changed");
    };
    let http1 = detect.http1.as_mut().unwrap();
    http1.failure_accrual = accrual;
    for rule in &mut http1.routes[0].rules {
        let Some(Kind::FirstAvailable(first)) = rule.backends.as_mut().unwrap().kind.as_mut()
        else {
            panic!("the rig's policy has changed");
        };
        let Some(api::backend::Kind::Balancer(balancer)) =
            &mut first.backends[0].backend.as_mut().unwrap().kind
        else {
            panic!("the rig's policy has changed");
        };
        change(balancer);
    }
    let http2 = detect.http2.as_mut().unwrap();
    http2.routes = http1.routes.clone();
    http2.failure_accrual = accrual;
    message
}

fn duration(millis: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration {
        seconds: i64::from(millis / 1000),
        nanos: millis % 1000 * 1_000_000,
    })
}

/// How long a server is left alone after it was ejected: longer than a slow machine takes for a hundred requests.
const PAUSE: Duration = Duration::from_millis(1500);

fn accrual(failures: u32, percent: u32) -> Option<api::FailureAccrual> {
    Some(api::FailureAccrual {
        ejection: Some(api::EjectionConfig {
            min_ready_endpoints: 0,
            max_ejected_percent: percent,
        }),
        kind: Some(api::failure_accrual::Kind::ConsecutiveFailures(
            api::failure_accrual::ConsecutiveFailures {
                max_failures: failures,
                backoff: Some(api::ExponentialBackoff {
                    min_backoff: prost_types::Duration::try_from(PAUSE).ok(),
                    max_backoff: duration(60_000),
                    jitter_ratio: 0.0,
                    respect_retry_after_hint: false,
                }),
            },
        )),
    })
}

async fn send(client: &mut Http1, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(client.get("voting", "/").await.status());
    }
    statuses
}

async fn ask(client: &mut Http1, field: &str) -> Message {
    client
        .send(format!("GET / HTTP/1.1\r\nHost: voting\r\n{field}\r\n"))
        .await;
    client.answer().await
}

#[test]
fn traffic_leaves_a_failing_server_and_comes_back_after_exactly_one_probe() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        let servers = Servers::start(&web, 3).await;
        let forgetful = |balancer: &mut api::backend::BalanceP2c| {
            balancer.load = Some(p2c::Load::PeakEwma(p2c::PeakEwma {
                default_rtt: duration(30),
                decay: duration(50),
            }));
        };
        mesh.policy("voting", balanced(forgetful, accrual(3, 50)));
        mesh.endpoints("voting", &Servers::endpoints(&web, 3));
        servers.answer(1, 500);
        let mut client = Http1::new(web.call().await);
        let statuses = send(&mut client, 100).await;
        assert_eq!(statuses.iter().filter(|status| **status == 500).count(), 3);
        assert_eq!(servers.taken()[&1], 3);
        let ejected = "outbound_http_balancer_ejected_endpoints";
        assert_eq!(web.metric(ejected, &["backend_name=\"voting\""]), 1.0);

        // Its time comes, and it still fails: one request finds out.
        tokio::time::sleep(PAUSE + Duration::from_millis(250)).await;
        send(&mut client, 100).await;
        assert_eq!(servers.taken()[&1], 1);

        // The next pause is twice as long. Then it works again.
        servers.answer(1, 200);
        tokio::time::sleep(PAUSE + Duration::from_millis(250)).await;
        send(&mut client, 50).await;
        assert_eq!(servers.taken().get(&1), None);
        tokio::time::sleep(PAUSE + Duration::from_millis(250)).await;
        // Its latency is forgotten quickly; then it has its share again.
        while servers
            .served
            .borrow()
            .get(&1)
            .is_none_or(|count| *count < 5)
        {
            assert_eq!(send(&mut client, 20).await, [200; 20]);
        }
        assert_eq!(web.metric(ejected, &[]), 0.0);
        let counted = |name, labels: &[&str]| web.metric(name, labels);
        let ejections = "outbound_http_balancer_ejections_total";
        assert_eq!(counted(ejections, &["reason=\"consecutive\""]), 1.0);
        assert_eq!(counted(ejections, &["reason=\"probe\""]), 1.0);
        assert_eq!(counted("outbound_http_balancer_probes_total", &[]), 2.0);
    });
}

#[test]
fn a_server_that_asks_for_time_is_not_probed_before_it_is_over() {
    run(async {
        for respected in [false, true] {
            let mesh = Mesh::new();
            let web = mesh.pod("web").await;
            let servers = Servers::start(&web, 2).await;
            servers.says.set("Retry-After: 60\r\n");
            let mut hinted = accrual(1, 50);
            let Some(api::failure_accrual::Kind::ConsecutiveFailures(failures)) =
                &mut hinted.as_mut().unwrap().kind
            else {
                panic!()
            };
            failures.backoff.as_mut().unwrap().respect_retry_after_hint = respected;
            mesh.policy("voting", balanced(|_| (), hinted));
            mesh.endpoints("voting", &Servers::endpoints(&web, 2));
            servers.answer(1, 503);
            let mut client = Http1::new(web.call().await);
            while web.metric("outbound_http_balancer_ejected_endpoints", &[]) < 1.0 {
                send(&mut client, 10).await;
            }
            servers.taken();
            tokio::time::sleep(PAUSE + Duration::from_millis(250)).await;
            send(&mut client, 50).await;
            let probed = servers.taken().contains_key(&1);
            assert_eq!(probed, !respected, "respected: {respected}");
        }
    });
}

#[test]
fn while_a_probe_is_on_its_way_no_other_request_goes_there() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        let servers = Servers::start(&web, 2).await;
        mesh.policy("voting", balanced(|_| (), accrual(3, 50)));
        mesh.endpoints("voting", &Servers::endpoints(&web, 2));
        servers.answer(1, 503);
        let mut client = Http1::new(web.call().await);
        while web.metric("outbound_http_balancer_ejected_endpoints", &[]) < 1.0 {
            send(&mut client, 10).await;
        }
        servers.taken();
        tokio::time::sleep(PAUSE + Duration::from_millis(250)).await;
        servers.holds.set(true);
        let mut others = Vec::new();
        for _ in 0..20 {
            let mut client = Http1::new(web.call().await);
            others.push(tokio::task::spawn_local(async move {
                client.get("voting", "/").await.status()
            }));
        }
        while servers.served.borrow().values().sum::<u32>() < 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(servers.taken(), [(0, 19), (1, 1)].into());
        servers.held.add_permits(20);
        for other in others {
            other.await.unwrap();
        }
    });
}

#[test]
fn a_bad_deploy_leaves_half_of_the_servers_in() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        let servers = Servers::start(&web, 4).await;
        mesh.policy("voting", balanced(|_| (), accrual(2, 0)));
        mesh.endpoints("voting", &Servers::endpoints(&web, 4));
        for number in 0..4 {
            servers.answer(number, 500);
        }
        let mut client = Http1::new(web.call().await);
        assert_eq!(
            send(&mut client, 100).await,
            [500; 100],
            "the servers' own answers, not ours"
        );
        let ejected = "outbound_http_balancer_ejected_endpoints";
        assert_eq!(web.metric(ejected, &[]), 2.0);
        let refused = "outbound_http_balancer_ejections_refused_total";
        assert!(web.metric(refused, &[]) > 50.0);
    });
}

#[test]
fn where_all_may_be_ejected_the_refusal_says_that_they_are() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        let servers = Servers::start(&web, 1).await;
        let mut long = accrual(1, 100);
        let Some(api::failure_accrual::Kind::ConsecutiveFailures(failures)) =
            &mut long.as_mut().unwrap().kind
        else {
            panic!()
        };
        failures.backoff.as_mut().unwrap().min_backoff = duration(20_000);
        mesh.policy("voting", balanced(|_| (), long));
        mesh.endpoints("voting", &Servers::endpoints(&web, 1));
        servers.answer(0, 500);
        let mut client = Http1::new(web.call().await);
        assert_eq!(client.get("voting", "/").await.status(), 500);
        let answer = client.get("voting", "/").await;
        assert_eq!(
            (answer.status(), answer.field("tulle-reason")),
            (504, Some("failfast"))
        );
        assert!(
            answer.text().contains("ejected 1 of 1 endpoints"),
            "{answer:?}"
        );
    });
}

fn hashed(key: p2c::consistent_hash::Key) -> api::OutboundPolicy {
    balanced(
        |balancer| {
            balancer.consistent_hash = Some(p2c::ConsistentHash {
                key: Some(key.clone()),
                load_bound: 0.0,
            });
        },
        None,
    )
}

#[test]
fn requests_with_one_header_value_stay_with_one_server() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        let servers = Servers::start(&web, 5).await;
        let key = p2c::consistent_hash::Key::Header("X-User".to_owned());
        mesh.policy("voting", hashed(key));
        mesh.endpoints("voting", &Servers::endpoints(&web, 5));
        let mut client = Http1::new(web.call().await);
        let mut used = BTreeMap::new();
        for user in 0..40 {
            let field = format!("x-user: user-{user}\r\n");
            let first = ask(&mut client, &field).await.body;
            for _ in 0..3 {
                assert_eq!(ask(&mut client, &field).await.body, first);
            }
            *used.entry(first).or_insert(0) += 1;
        }
        assert_eq!(used.len(), 5, "all servers have users: {used:?}");
        servers.taken();
        send(&mut client, 100).await;
        assert!(servers.taken().len() >= 4, "without the header: by load");
    });
}

#[test]
fn a_client_without_the_cookie_gets_one_and_stays_with_its_server() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        let _servers = Servers::start(&web, 5).await;
        let cookie = p2c::consistent_hash::Cookie {
            name: "stick".to_owned(),
            path: String::new(),
            ttl: duration(60_000),
        };
        mesh.policy("voting", hashed(p2c::consistent_hash::Key::Cookie(cookie)));
        mesh.endpoints("voting", &Servers::endpoints(&web, 5));
        let mut client = Http1::new(web.call().await);
        let mut used = BTreeMap::new();
        for _ in 0..40 {
            let first = ask(&mut client, "").await;
            let set = first.field("set-cookie").unwrap().to_owned();
            assert!(set.ends_with("; Path=/; Max-Age=60; HttpOnly"), "{set}");
            let value = set.split(';').next().unwrap();
            for _ in 0..3 {
                let field = format!("Cookie: other=1; {value}\r\n");
                let next = ask(&mut client, &field).await;
                assert_eq!(next.body, first.body);
                assert_eq!(next.field("set-cookie"), None);
            }
            *used.entry(first.body).or_insert(0) += 1;
        }
        assert!(used.len() >= 4, "clients are spread: {used:?}");
    });
}

#[test]
fn all_requests_of_one_address_stay_with_one_server() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        let servers = Servers::start(&web, 5).await;
        let source = p2c::consistent_hash::SourceAddress {};
        mesh.policy(
            "voting",
            hashed(p2c::consistent_hash::Key::SourceAddress(source)),
        );
        mesh.endpoints("voting", &Servers::endpoints(&web, 5));
        for _ in 0..20 {
            let mut client = Http1::new(web.call().await);
            client.get("voting", "/").await;
        }
        assert_eq!(servers.taken().len(), 1);
    });
}

#[test]
fn a_full_server_is_passed_over_and_when_all_are_full_the_answer_says_so() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        let servers = Servers::start(&web, 2).await;
        let limit = |balancer: &mut api::backend::BalanceP2c| {
            balancer.max_in_flight_per_endpoint = 2;
        };
        mesh.policy("voting", balanced(limit, None));
        mesh.endpoints("voting", &Servers::endpoints(&web, 2));
        servers.holds.set(true);
        let mut flying = Vec::new();
        for count in 1..=4 {
            let mut client = Http1::new(web.call().await);
            flying.push(tokio::task::spawn_local(async move {
                client.get("voting", "/").await.status()
            }));
            while servers.served.borrow().values().sum::<u32>() < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        assert_eq!(servers.taken(), [(0, 2), (1, 2)].into());
        let mut client = Http1::new(web.call().await);
        let answer = client.get("voting", "/").await;
        assert_eq!(
            (answer.status(), answer.field("tulle-reason")),
            (503, Some("endpoints-full"))
        );
        servers.holds.set(false);
        servers.held.add_permits(4);
        for request in flying {
            assert_eq!(request.await.unwrap(), 200);
        }
        assert_eq!(client.get("voting", "/").await.status(), 200);
    });
}

fn in_zone(mut endpoint: destination::WeightedAddr, locality: &str) -> destination::WeightedAddr {
    let label = ("zone_locality".to_owned(), locality.to_owned());
    endpoint.metric_labels.extend([label]);
    endpoint
}

#[test]
fn the_own_zone_is_used_until_too_little_of_it_is_left() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        let servers = Servers::start(&web, 4).await;
        let near = |balancer: &mut api::backend::BalanceP2c| {
            balancer.zone_preference = Some(p2c::ZonePreference {
                spill_over_below_percent: 60,
            });
        };
        mesh.policy("voting", balanced(near, accrual(1, 50)));
        let all = Servers::endpoints(&web, 4);
        let endpoints: Vec<_> = all
            .into_iter()
            .zip(["local", "local", "remote", "remote"])
            .map(|(endpoint, locality)| in_zone(endpoint, locality))
            .collect();
        mesh.endpoints("voting", &endpoints);
        let mut client = Http1::new(web.call().await);
        send(&mut client, 50).await;
        assert_eq!(servers.taken().into_keys().collect::<Vec<_>>(), [0, 1]);

        // Whichever of the two is asked fails and is ejected, and then the other: nothing of the zone is ready.
        servers.answer(0, 500);
        servers.answer(1, 500);
        send(&mut client, 10).await;
        servers.taken();
        send(&mut client, 50).await;
        let taken = servers.taken();
        let other_zone: u32 = [2, 3].iter().filter_map(|server| taken.get(server)).sum();
        // On a slow machine their time out may be over already: then each gets its probes, and fails them.
        assert!(other_zone >= 40, "the other zone takes part: {taken:?}");
    });
}

#[test]
fn a_new_server_begins_with_a_small_share() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        let servers = Servers::start(&web, 3).await;
        let slowly = |balancer: &mut api::backend::BalanceP2c| {
            balancer.slow_start = duration(60_000);
        };
        mesh.policy("voting", balanced(slowly, None));
        mesh.endpoints("voting", &Servers::endpoints(&web, 2));
        let mut client = Http1::new(web.call().await);
        send(&mut client, 20).await;
        servers.taken();
        mesh.endpoints("voting", &Servers::endpoints(&web, 3));
        send(&mut client, 300).await;
        let new = servers.taken().get(&2).copied().unwrap_or_default();
        assert!(new < 45, "{new} of 300, where 100 is the full share");
    });
}

#[test]
fn servers_get_requests_by_their_weights() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        let servers = Servers::start(&web, 2).await;
        mesh.policy("voting", balanced(|_| (), None));
        let mut endpoints = Servers::endpoints(&web, 2);
        endpoints[0].weight = 0;
        mesh.endpoints("voting", &endpoints);
        let mut client = Http1::new(web.call().await);
        send(&mut client, 50).await;
        assert_eq!(servers.taken(), [(1, 50)].into());
        // A changed weight is the same endpoint: its connection goes on.
        endpoints[0].weight = 10_000;
        endpoints[1].weight = 0;
        mesh.endpoints("voting", &endpoints);
        send(&mut client, 50).await;
        assert_eq!(servers.taken(), [(0, 50)].into());
    });
}

#[test]
fn of_ten_thousand_endpoints_a_change_touches_those_that_changed() {
    run(async {
        let mesh = Mesh::new();
        let web = mesh.pod("web").await;
        let servers = Servers::start(&web, 2).await;
        mesh.policy("voting", balanced(|_| (), None));
        let [first, second] = [0, 1].map(|number| plain(web.address(9000 + number)));
        let mut endpoints = vec![first.clone()];
        // Nothing listens there, and nothing is sent there.
        endpoints.extend((0..9_998_u32).map(|number| {
            let ip = std::net::Ipv4Addr::from(0x0a00_0000 + number);
            destination::WeightedAddr {
                weight: 0,
                ..plain((ip, 80).into())
            }
        }));
        mesh.endpoints("voting", &endpoints);
        let mut client = Http1::new(web.call().await);
        assert_eq!(send(&mut client, 5).await, [200; 5]);
        let updates = |op: &str| {
            let op = format!("op=\"{op}\"");
            let family = "outbound_http_balancer_p2c_updates_total";
            web.metric(family, &[op.as_str()])
        };
        let before = [updates("Reset"), updates("Add"), updates("Remove")];

        let added = destination::WeightedAddrSet {
            addrs: vec![second],
            ..Default::default()
        };
        mesh.change("voting", destination::update::Update::Add(added));
        let removed = destination::AddrSet {
            addrs: vec![first.addr.unwrap()],
        };
        mesh.change("voting", destination::update::Update::Remove(removed));
        servers.taken();
        assert_eq!(send(&mut client, 5).await, [200; 5]);

        assert_eq!(servers.taken(), [(1, 5)].into());
        let after = [updates("Reset"), updates("Add"), updates("Remove")];
        assert_eq!(after, [before[0], before[1] + 1.0, before[2] + 1.0]);
        assert_eq!(
            web.metric("outbound_http_balancer_p2c_endpoints", &[]),
            9_999.0
        );
    });
}
