//! Updates of endpoints, held against a plain map.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn tcp(number: u32) -> net::TcpAddress {
    let ip = net::IpAddress {
        ip: Some(net::ip_address::Ip::Ipv4(0x0a00_0000 + number)),
    };
    net::TcpAddress {
        ip: Some(ip),
        port: 80,
    }
}

fn weighted(number: u32, weight: u32) -> api::WeightedAddr {
    api::WeightedAddr {
        addr: Some(tcp(number)),
        weight,
        ..Default::default()
    }
}

fn add(endpoints: impl IntoIterator<Item = api::WeightedAddr>) -> api::Update {
    let set = api::WeightedAddrSet {
        addrs: endpoints.into_iter().collect(),
        ..Default::default()
    };
    api::Update {
        update: Some(api::update::Update::Add(set)),
    }
}

fn remove(numbers: &[u32]) -> api::Update {
    let set = api::AddrSet {
        addrs: numbers.iter().map(|number| tcp(*number)).collect(),
    };
    api::Update {
        update: Some(api::update::Update::Remove(set)),
    }
}

fn none(exists: bool) -> api::Update {
    api::Update {
        update: Some(api::update::Update::NoEndpoints(api::NoEndpoints {
            exists,
        })),
    }
}

#[test]
fn every_fact_of_an_endpoint_is_read() {
    let labels = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect::<BTreeMap<_, _>>()
    };
    let message = api::WeightedAddr {
        tls_identity: Some(api::TlsIdentity {
            strategy: Some(api::tls_identity::Strategy::UriLikeIdentity(
                api::tls_identity::UriLikeIdentity {
                    uri: "spiffe://a/b".into(),
                },
            )),
            server_name: Some(api::tls_identity::DnsLikeIdentity { name: "b.a".into() }),
        }),
        protocol_hint: Some(api::ProtocolHint {
            protocol: Some(api::protocol_hint::Protocol::H2(api::protocol_hint::H2 {})),
            opaque_transport: Some(api::protocol_hint::OpaqueTransport { inbound_port: 4143 }),
        }),
        authority_override: Some(api::AuthorityOverride {
            authority_override: "x:1".into(),
        }),
        http2: Some(api::Http2ClientParams {
            keep_alive: Some(api::http2_client_params::KeepAlive {
                interval: Some(prost_types::Duration {
                    seconds: 10,
                    nanos: 0,
                }),
                timeout: Some(prost_types::Duration {
                    seconds: 3,
                    nanos: 0,
                }),
                while_idle: true,
            }),
            ..Default::default()
        }),
        metric_labels: labels(&[("pod", "web-1"), ("ns", "own")]),
        ..weighted(1, 10_000)
    };
    let set = api::WeightedAddrSet {
        addrs: vec![message],
        metric_labels: labels(&[("service", "web"), ("ns", "shared")]),
    };
    let mut endpoints = Endpoints::default();

    let changes = endpoints.apply(
        &api::Update {
            update: Some(api::update::Update::Add(set)),
        },
        true,
    );

    let endpoint = &changes.added[0];
    assert_eq!(endpoint.addr.to_string(), "10.0.0.1:80");
    assert_eq!(
        endpoint.tls,
        Some(TlsIdentity {
            name: "spiffe://a/b".into(),
            server_name: "b.a".into()
        })
    );
    assert_eq!(
        (endpoint.hint, endpoint.transport_port),
        (ProtocolHint::Http2, Some(4143))
    );
    assert_eq!(endpoint.authority_override.as_deref(), Some("x:1"));
    assert_eq!(
        endpoint.http2.keep_alive.map(|ping| ping.interval),
        Some(Duration::from_secs(10))
    );
    assert_eq!(
        endpoint.labels,
        labels(&[("pod", "web-1"), ("ns", "own"), ("service", "web")])
    );
}

#[test]
fn an_endpoint_whose_identity_cannot_be_read_is_left_out_and_not_taken_in_plain_text() {
    let broken = api::WeightedAddr {
        tls_identity: Some(api::TlsIdentity::default()),
        ..weighted(1, 1)
    };
    let no_port = api::WeightedAddr {
        addr: Some(net::TcpAddress { port: 0, ..tcp(2) }),
        ..weighted(2, 1)
    };
    let mut endpoints = Endpoints::default();

    let changes = endpoints.apply(&add([broken, no_port, weighted(3, 1)]), true);

    assert_eq!(endpoints.len(), 1);
    let problems: Vec<_> = changes.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "add.addrs[0].tls_identity.strategy is missing",
            "add.addrs[1].addr.port is 0, not a port"
        ]
    );
}

#[test]
fn the_first_message_of_a_stream_replaces_what_was_known() {
    let mut endpoints = Endpoints::default();
    endpoints.apply(&add([weighted(1, 1), weighted(2, 1)]), true);

    let changes = endpoints.apply(&add([weighted(2, 1), weighted(3, 1)]), true);

    let removed: Vec<_> = changes.removed.iter().map(ToString::to_string).collect();
    assert_eq!(removed, ["10.0.0.1:80"]);
    assert_eq!(changes.added.len(), 1);
    assert!(
        changes.changed.is_empty(),
        "what stays the same is not told again"
    );
    assert_eq!(endpoints.len(), 2);
}

#[test]
fn no_endpoints_tells_whether_the_service_exists() {
    let mut endpoints = Endpoints::default();
    assert_eq!(endpoints.state(), State::Unknown);
    endpoints.apply(&add([weighted(1, 1)]), true);

    assert_eq!(endpoints.apply(&none(true), false).removed.len(), 1);
    assert_eq!(
        (endpoints.state(), endpoints.is_empty()),
        (State::Exists, true)
    );

    endpoints.apply(&none(false), false);
    assert_eq!(endpoints.state(), State::Missing);
}

#[test]
fn a_message_of_a_later_version_changes_nothing() {
    let mut endpoints = Endpoints::default();
    endpoints.apply(&add([weighted(1, 1)]), true);

    let changes = endpoints.apply(&api::Update { update: None }, true);

    assert_eq!(
        (
            endpoints.len(),
            changes.problems.len(),
            changes.removed.len()
        ),
        (1, 1, 0)
    );
}

#[derive(Clone, Debug)]
enum Step {
    Add(Vec<(u32, u32)>, bool),
    Remove(Vec<u32>),
    None(bool),
}

proptest! {
    /// The endpoints are those of a plain map, and the changes lead from one state to the next.
    #[test]
    fn updates_agree_with_a_plain_map(
        steps in proptest::collection::vec(
            prop_oneof![
                (proptest::collection::vec((0_u32..8, 1_u32..3), 0..6), any::<bool>())
                    .prop_map(|(set, first)| Step::Add(set, first)),
                proptest::collection::vec(0_u32..8, 0..4).prop_map(Step::Remove),
                any::<bool>().prop_map(Step::None),
            ],
            1..30,
        ),
    ) {
        let mut endpoints = Endpoints::default();
        let mut plain: BTreeMap<SocketAddr, u32> = BTreeMap::new();
        let mut followed: BTreeMap<SocketAddr, u32> = BTreeMap::new();
        let addr = |number: u32| socket_addr(&tcp(number)).unwrap();
        for step in steps {
            let (update, first) = match &step {
                Step::Add(set, first) => {
                    if *first {
                        plain.clear();
                    }
                    plain.extend(set.iter().map(|(number, weight)| (addr(*number), *weight)));
                    (add(set.iter().map(|(number, weight)| weighted(*number, *weight))), *first)
                }
                Step::Remove(numbers) => {
                    plain.retain(|known, _| !numbers.iter().any(|number| addr(*number) == *known));
                    (remove(numbers), false)
                }
                Step::None(exists) => {
                    plain.clear();
                    (none(*exists), false)
                }
            };
            let changes = endpoints.apply(&update, first);
            for gone in &changes.removed {
                prop_assert!(followed.remove(gone).is_some(), "only what was there can go");
            }
            for endpoint in changes.added.iter().chain(&changes.changed) {
                followed.insert(endpoint.addr, endpoint.weight);
            }
            let known: BTreeMap<_, _> =
                endpoints.iter().map(|endpoint| (endpoint.addr, endpoint.weight)).collect();
            prop_assert_eq!(&known, &plain);
            prop_assert_eq!(&followed, &plain);
            let unique: BTreeSet<_> = changes.removed.iter().collect();
            prop_assert_eq!(unique.len(), changes.removed.len());
        }
    }
}

proptest! {
    /// A reader that follows the changes, as often or seldom as it likes, has the list.
    #[test]
    fn a_reader_of_changes_has_the_same_endpoints(
        steps in proptest::collection::vec(
            (any::<bool>(), any::<bool>(), proptest::collection::vec(0_u32..2_000, 0..400), any::<bool>()),
            1..12,
        ),
    ) {
        let mut endpoints = Endpoints::default();
        let mut reader = Cursor::default();
        let mut seen: BTreeMap<SocketAddr, Arc<Endpoint>> = BTreeMap::new();
        let (mut deltas, mut whole) = (0, 0);
        for (adds, first, numbers, reads) in steps {
            let update = if adds { add(numbers.iter().map(|number| weighted(*number, 1))) } else { remove(&numbers) };
            endpoints.apply(&update, first);
            if !reads {
                continue;
            }
            match endpoints.since(&mut reader) {
                Some(changes) => {
                    deltas += 1;
                    for change in changes {
                        match change {
                            Change::Set(endpoint) => drop(seen.insert(endpoint.addr, endpoint.clone())),
                            Change::Removed(addr) => drop(seen.remove(addr)),
                        }
                    }
                }
                None => {
                    whole += 1;
                    seen = endpoints.iter().map(|endpoint| (endpoint.addr, endpoint.clone())).collect();
                }
            }
            prop_assert!(seen.values().eq(endpoints.iter()));
            prop_assert!(endpoints.since(&mut reader).is_some_and(|mut rest| rest.next().is_none()));
        }
        prop_assert!(whole + deltas == 0 || whole >= 1, "a new reader reads the whole list");
    }
}

#[test]
fn a_reader_of_another_list_reads_the_whole_of_this_one() {
    let mut reader = Cursor::default();
    let mut lists = [Endpoints::default(), Endpoints::default()];
    for list in &mut lists {
        list.apply(&add([weighted(1, 1)]), true);
        assert!(list.since(&mut reader).is_none());
        list.apply(&add([weighted(2, 1)]), false);
        assert_eq!(list.since(&mut reader).map(Iterator::count), Some(1));
    }
}
