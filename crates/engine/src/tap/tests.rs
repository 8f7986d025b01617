//! A table of the language, its refusals, and a naive reading of the message as an oracle.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use tulle_api::{http_route, net};

use super::*;
use crate::doc::tap::{exact, http, label, not, ports, prefix, seq};

fn ip(addr: &str) -> net::IpAddress {
    let ip = match addr.parse().unwrap() {
        IpAddr::V4(v4) => net::ip_address::Ip::Ipv4(u32::from(v4)),
        IpAddr::V6(v6) => net::ip_address::Ip::Ipv6(net::IPv6 {
            first: (u128::from(v6) >> 64) as u64,
            last: u128::from(v6) as u64,
        }),
    };
    net::IpAddress { ip: Some(ip) }
}

fn netmask(addr: &str, mask: u32) -> kinds::Tcp {
    kinds::Tcp {
        r#match: Some(kinds::tcp::Match::Netmask(kinds::tcp::Netmask {
            ip: Some(ip(addr)),
            mask,
        })),
    }
}

fn method(number: i32) -> kinds::Match {
    http(kinds::http::Match::Method(http_types::HttpMethod {
        r#type: Some(http_types::http_method::Type::Registered(number)),
    }))
}

fn other_method(name: &str) -> kinds::Match {
    http(kinds::http::Match::Method(http_types::HttpMethod {
        r#type: Some(http_types::http_method::Type::Unregistered(name.to_owned())),
    }))
}

fn scheme(kind: http_types::scheme::Type) -> kinds::Match {
    http(kinds::http::Match::Scheme(http_types::Scheme {
        r#type: Some(kind),
    }))
}

fn message(one: Option<kinds::Match>) -> tap::ObserveRequest {
    tap::ObserveRequest {
        limit: 7,
        r#match: Some(api::Match { r#match: one }),
        ..Default::default()
    }
}

/// `GET http://voting/api/vote?id=1` from 10.0.0.1:4321 to 10.0.1.2:8080.
const VOTE: Subject<'static> = Subject {
    source: Some(SocketAddr::new(
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        4321,
    )),
    destination: Some(SocketAddr::new(
        IpAddr::V4(Ipv4Addr::new(10, 0, 1, 2)),
        8080,
    )),
    scheme: b"",
    method: b"GET",
    authority: Some(b"voting:80"),
    path: b"/api/vote?id=1",
    destination_labels: Labels::List(&[("pod", "voting-1")]),
    route_labels: Labels::List(&[("route_name", "votes")]),
};

#[test]
fn every_condition_of_the_language() {
    use http_types::scheme::Type::{Registered, Unregistered};
    use kinds::Match::{All, Any, Destination, DestinationLabel, RouteLabel, Source};
    use kinds::http::Match::{Authority, Path};
    let table = [
        (All(seq(vec![])), true),
        (Any(seq(vec![])), false),
        (All(seq(vec![method(0), Source(ports(4321, 0))])), true),
        (All(seq(vec![method(0), Source(ports(1, 2))])), false),
        (Any(seq(vec![method(1), Source(ports(1, 9999))])), true),
        (Any(seq(vec![method(1), Source(ports(1, 2))])), false),
        (not(method(1)), true),
        (not(not(method(1))), false),
        (Source(ports(0, 4321)), true),
        (Source(ports(4322, 65_535)), false),
        (Source(netmask("10.0.0.0", 24)), true),
        (Source(netmask("10.0.0.9", 32)), false),
        (Source(netmask("::", 1)), false),
        (Destination(netmask("10.0.0.0", 23)), true),
        (Destination(netmask("10.0.0.0", 24)), false),
        (Destination(ports(8080, 8080)), true),
        (DestinationLabel(label("pod", "voting-1")), true),
        (DestinationLabel(label("pod", "voting")), false),
        (DestinationLabel(label("route_name", "votes")), false),
        (RouteLabel(label("route_name", "votes")), true),
        (RouteLabel(label("route", "votes")), false),
        (scheme(Registered(0)), true),
        (scheme(Registered(1)), false),
        (scheme(Unregistered("HTTP".to_owned())), true),
        (method(0), true),
        (method(1), false),
        (other_method("GET"), true),
        (other_method("get"), false),
        (http(Authority(exact("voting:80"))), true),
        (http(Authority(exact("voting"))), false),
        (http(Authority(prefix("voting"))), true),
        (http(Path(exact("/api/vote"))), true),
        (http(Path(exact("/api/vote?id=1"))), false),
        (http(Path(prefix("/api"))), true),
        (http(Path(prefix("/apis"))), false),
        (http(Path(prefix(""))), true),
    ];
    for (one, expected) in table {
        let wish = Wish::compile(&message(Some(one.clone()))).unwrap();
        assert_eq!(wish.wants(&VOTE, 0), expected, "{one:?}");
    }
}

#[test]
fn what_is_not_known_fits_nothing() {
    let unknown = Subject {
        source: None,
        destination: None,
        authority: None,
        destination_labels: Labels::List(&[]),
        ..VOTE
    };
    for one in [
        kinds::Match::Source(ports(1, 65_535)),
        kinds::Match::Destination(netmask("0.0.0.0", 1)),
        kinds::Match::DestinationLabel(label("pod", "voting-1")),
        http(kinds::http::Match::Authority(prefix(""))),
    ] {
        let wish = Wish::compile(&message(Some(one.clone()))).unwrap();
        assert!(!wish.wants(&unknown, 0), "{one:?}");
    }
}

#[test]
fn a_client_in_ipv6_clothes_is_its_ipv4_self() {
    let clothed = Subject {
        source: Some("[::ffff:10.0.0.1]:4321".parse().unwrap()),
        ..VOTE
    };
    let one = kinds::Match::Source(netmask("10.0.0.0", 8));
    assert!(
        Wish::compile(&message(Some(one)))
            .unwrap()
            .wants(&clothed, 0)
    );
}

#[test]
fn members_that_say_nothing_are_passed_over() {
    let silent = kinds::Seq {
        matches: vec![api::Match { r#match: None }],
    };
    let wish = Wish::compile(&message(Some(kinds::Match::All(silent)))).unwrap();
    assert!(wish.wants(&VOTE, 0));
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    use http_types::scheme::Type::{Registered, Unregistered};
    use kinds::Match::{All, Destination, DestinationLabel, Http, RouteLabel, Source};
    let many = vec![method(0); MAX_CONDITIONS];
    let table = [
        (None, "match is missing"),
        (Some(not(All(seq(many)))), "match.not.all[254] has more"),
        (
            Some(kinds::Match::Not(Box::default())),
            "match.not is missing",
        ),
        (
            Some(Source(kinds::Tcp { r#match: None })),
            "match.source.match is missing",
        ),
        (Some(Source(ports(0, 0))), "match.source.ports is missing"),
        (Some(Source(ports(9, 8))), "match.source.ports are 9 to 8"),
        (
            Some(Destination(ports(1, 65_536))),
            "match.destination.ports are 1 to 65536",
        ),
        (
            Some(Source(netmask("10.0.0.0", 0))),
            "match.source.netmask.mask is missing",
        ),
        (
            Some(Source(netmask("10.0.0.0", 33))),
            "match.source.netmask.mask is 33",
        ),
        (
            Some(Source(netmask("::", 129))),
            "match.source.netmask.mask is 129",
        ),
        (
            Some(DestinationLabel(label("", "x"))),
            "match.destination_label.key is missing",
        ),
        (
            Some(RouteLabel(label("x", ""))),
            "match.route_label.value is missing",
        ),
        (
            Some(Http(kinds::Http { r#match: None })),
            "match.http.match is missing",
        ),
        (Some(method(9)), "match.http.method is 9"),
        (Some(other_method("G T")), "match.http.method is no method"),
        (Some(other_method("")), "match.http.method is no method"),
        (Some(scheme(Registered(2))), "match.http.scheme is 2"),
        (
            Some(scheme(Unregistered("1x".to_owned()))),
            "match.http.scheme is no scheme",
        ),
        (
            Some(All(seq(vec![method(0), method(10)]))),
            "match.all[1].http.method is 10",
        ),
    ];
    for (one, why) in table {
        let error = Wish::compile(&message(one)).unwrap_err().to_string();
        assert!(error.starts_with(why), "{error} and not {why}");
    }
    let none = tap::ObserveRequest {
        limit: 0,
        ..message(Some(method(0)))
    };
    assert_eq!(Wish::compile(&none).unwrap_err().to_string(), "limit is 0");
}

#[test]
fn limits_have_a_limit_and_headers_are_told_on_request() {
    let mut asked = message(Some(method(0)));
    asked.limit = u32::MAX;
    assert_eq!(Wish::compile(&asked).unwrap().limit, MAX_LIMIT);
    assert!(!Wish::compile(&asked).unwrap().headers);
    let extract = |inner| api::Extract {
        extract: Some(api::extract::Extract::Http(api::extract::Http {
            extract: inner,
        })),
    };
    asked.extract = Some(extract(None));
    assert!(!Wish::compile(&asked).unwrap().headers);
    let headers = api::extract::http::Extract::Headers(Default::default());
    asked.extract = Some(extract(Some(headers)));
    assert!(Wish::compile(&asked).unwrap().headers);
}

#[test]
fn a_sample_is_a_share_of_the_draws() {
    let mut asked = message(Some(method(0)));
    asked.sample = Some(http_route::Ratio {
        numerator: 1,
        denominator: 4,
    });
    let wish = Wish::compile(&asked).unwrap();
    let draws = (0..400u64).map(|draw| draw * (u64::MAX / 400 + 1));
    let told = draws.filter(|draw| wish.wants(&VOTE, *draw)).count();
    assert_eq!(told, 100);
    asked.sample = Some(http_route::Ratio {
        numerator: 2,
        denominator: 1,
    });
    assert!(Wish::compile(&asked).is_err());
}

// --- the oracle -----------------------------------------------------------------------------------------------------

/// A request as owned words.
#[derive(Clone, Debug)]
struct Facts {
    source: Option<SocketAddr>,
    destination: Option<SocketAddr>,
    scheme: String,
    method: String,
    authority: Option<String>,
    path: String,
    destination_labels: BTreeMap<String, String>,
    route_labels: Vec<(String, String)>,
}

/// Bit by bit.
fn bits(ip: IpAddr) -> Vec<bool> {
    let octets = match ip.to_canonical() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    octets
        .iter()
        .flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1))
        .collect()
}

fn naive_tcp(message: &kinds::Tcp, at: Option<SocketAddr>) -> bool {
    let Some(at) = at else { return false };
    match message.r#match.as_ref().unwrap() {
        kinds::tcp::Match::Netmask(netmask) => {
            let base = bits(ip_addr(netmask.ip.as_ref().unwrap()).unwrap());
            let own = bits(at.ip());
            base.len() == own.len()
                && base
                    .iter()
                    .zip(&own)
                    .take(netmask.mask as usize)
                    .all(|(one, other)| one == other)
        }
        kinds::tcp::Match::Ports(range) => {
            let port = u32::from(at.port());
            let from = if range.min == 0 { range.max } else { range.min };
            let to = if range.max == 0 { range.min } else { range.max };
            port >= from && port <= to
        }
    }
}

fn naive_text(message: &kinds::http::StringMatch, text: &str) -> bool {
    match message.r#match.as_ref().unwrap() {
        kinds::http::string_match::Match::Exact(exact) => exact == text,
        kinds::http::string_match::Match::Prefix(prefix) => {
            text.chars().count() >= prefix.chars().count()
                && prefix.chars().zip(text.chars()).all(|(p, t)| p == t)
        }
    }
}

fn naive(message: &kinds::Match, facts: &Facts) -> bool {
    let each = |seq: &kinds::Seq| -> Vec<bool> {
        let said = seq.matches.iter().filter_map(|one| one.r#match.as_ref());
        said.map(|one| naive(one, facts)).collect()
    };
    match message {
        kinds::Match::All(seq) => !each(seq).contains(&false),
        kinds::Match::Any(seq) => each(seq).contains(&true),
        kinds::Match::Not(inner) => !naive(inner.r#match.as_ref().unwrap(), facts),
        kinds::Match::Source(tcp) => naive_tcp(tcp, facts.source),
        kinds::Match::Destination(tcp) => naive_tcp(tcp, facts.destination),
        kinds::Match::DestinationLabel(label) => {
            let found = facts.destination_labels.iter();
            found
                .into_iter()
                .any(|(key, value)| (key, value) == (&label.key, &label.value))
        }
        kinds::Match::RouteLabel(label) => facts
            .route_labels
            .contains(&(label.key.clone(), label.value.clone())),
        kinds::Match::Http(http) => match http.r#match.as_ref().unwrap() {
            kinds::http::Match::Scheme(scheme) => {
                let wanted = match scheme.r#type.as_ref().unwrap() {
                    http_types::scheme::Type::Registered(0) => "http",
                    http_types::scheme::Type::Registered(_) => "https",
                    http_types::scheme::Type::Unregistered(name) => name,
                };
                let said = match facts.scheme.as_str() {
                    "" => "http",
                    said => said,
                };
                wanted.to_lowercase() == said.to_lowercase()
            }
            kinds::http::Match::Method(method) => {
                let wanted = match method.r#type.as_ref().unwrap() {
                    http_types::http_method::Type::Registered(number) => {
                        const NAMES: [&str; 9] = [
                            "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "HEAD",
                            "TRACE",
                        ];
                        NAMES[*number as usize]
                    }
                    http_types::http_method::Type::Unregistered(name) => name,
                };
                wanted == facts.method
            }
            kinds::http::Match::Authority(text) => facts
                .authority
                .as_ref()
                .is_some_and(|authority| naive_text(text, authority)),
            kinds::http::Match::Path(text) => {
                let path = match facts.path.find('?') {
                    Some(at) => &facts.path[..at],
                    None => &facts.path,
                };
                naive_text(text, path)
            }
        },
    }
}

/// Few values, so that they meet.
fn addr() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u8..4, 0u8..4).prop_map(|(c, d)| IpAddr::V4(Ipv4Addr::new(10, 0, c, d))),
        (0u16..4).prop_map(|last| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last))),
    ]
}

fn word() -> impl Strategy<Value = String> {
    "[ab/]{0,3}"
}

fn tcp() -> impl Strategy<Value = kinds::Tcp> {
    let networks = (addr(), 1u32..=32).prop_map(|(addr, mask)| netmask(&addr.to_string(), mask));
    let ranges = (0u32..6, 0u32..6)
        .prop_map(|(one, other)| ports(one.min(other), one.max(other)))
        .prop_filter("one end at least", |tcp| *tcp != ports(0, 0));
    prop_oneof![networks, ranges]
}

fn string_match() -> impl Strategy<Value = kinds::http::StringMatch> {
    prop_oneof![
        word().prop_map(|word| exact(&word)),
        word().prop_map(|word| prefix(&word)),
    ]
}

fn labels() -> impl Strategy<Value = kinds::Label> {
    ("[ab]", "[ab]").prop_map(|(key, value)| label(&key, &value))
}

fn condition() -> impl Strategy<Value = kinds::Match> {
    use http_types::scheme::Type;
    let leaf = prop_oneof![
        tcp().prop_map(kinds::Match::Source),
        tcp().prop_map(kinds::Match::Destination),
        labels().prop_map(kinds::Match::DestinationLabel),
        labels().prop_map(kinds::Match::RouteLabel),
        (0i32..2).prop_map(|number| scheme(Type::Registered(number))),
        Just(scheme(Type::Unregistered("HttP".to_owned()))),
        (0i32..9).prop_map(method),
        Just(other_method("GET")),
        string_match().prop_map(|text| http(kinds::http::Match::Authority(text))),
        string_match().prop_map(|text| http(kinds::http::Match::Path(text))),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let members = prop::collection::vec(inner.clone(), 0..4);
        prop_oneof![
            members
                .clone()
                .prop_map(|members| kinds::Match::All(seq(members))),
            members.prop_map(|members| kinds::Match::Any(seq(members))),
            inner.prop_map(not),
        ]
    })
}

fn facts() -> impl Strategy<Value = Facts> {
    let at = || prop::option::weighted(0.9, (addr(), 0u16..6).prop_map(SocketAddr::from));
    let requests = (
        prop_oneof![Just(""), Just("http"), Just("HTTPS")],
        prop_oneof![Just("GET"), Just("POST"), Just("TRACE")],
        prop::option::weighted(0.9, word()),
        "[ab/]{0,3}(\\?[ab]{0,2})?",
    );
    let map = prop::collection::btree_map("[ab]", "[ab]", 0..3);
    let list = prop::collection::btree_map("[ab]", "[ab]", 0..3);
    (at(), at(), requests, map, list).prop_map(|(source, destination, request, map, list)| Facts {
        source,
        destination,
        scheme: request.0.to_owned(),
        method: request.1.to_owned(),
        authority: request.2,
        path: request.3,
        destination_labels: map,
        route_labels: list.into_iter().collect(),
    })
}

proptest! {
    #[test]
    fn compiled_and_naive_agree(one in condition(), facts in facts()) {
        let routes: Vec<(&str, &str)> = facts
            .route_labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let subject = Subject {
            source: facts.source,
            destination: facts.destination,
            scheme: facts.scheme.as_bytes(),
            method: facts.method.as_bytes(),
            authority: facts.authority.as_ref().map(String::as_bytes),
            path: facts.path.as_bytes(),
            destination_labels: Labels::Map(&facts.destination_labels),
            route_labels: Labels::List(&routes),
        };
        let wish = Wish::compile(&message(Some(one.clone()))).unwrap();
        prop_assert_eq!(wish.wants(&subject, 0), naive(&one, &facts));
    }
}
