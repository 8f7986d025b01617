//! Authorization of connections and requests.

use proptest::prelude::*;
use tulle_api::inbound as api;
use tulle_api::{http_route, meta, net};

use super::*;
use crate::route::Answer;

const WEB: &str = "web.default.serviceaccount.identity.linkerd.cluster.local";

fn peer(addr: &str, tls: PeerTls<'static>) -> Peer<'static> {
    Peer {
        addr: addr.parse().unwrap(),
        tls,
    }
}

fn named(name: &str) -> Option<meta::Metadata> {
    Some(meta::Metadata {
        kind: Some(meta::metadata::Kind::Default(name.into())),
    })
}

fn network(first: u8, prefix_len: u32) -> net::IpNetwork {
    let ip = net::IpAddress {
        ip: Some(net::ip_address::Ip::Ipv4(u32::from(first) << 24)),
    };
    net::IpNetwork {
        ip: Some(ip),
        prefix_len,
    }
}

fn everywhere() -> Vec<api::Network> {
    vec![api::Network {
        net: Some(network(0, 0)),
        except: Vec::new(),
    }]
}

fn identities(names: &[&str], suffixes: &[&[&str]]) -> api::Authn {
    let clients = api::authn::permit_mesh_tls::PermitClientIdentities {
        identities: names
            .iter()
            .map(|name| api::Identity {
                name: name.to_string(),
            })
            .collect(),
        suffixes: suffixes
            .iter()
            .map(|parts| api::IdentitySuffix {
                parts: parts.iter().map(ToString::to_string).collect(),
            })
            .collect(),
    };
    api::Authn {
        permit: Some(api::authn::Permit::MeshTls(api::authn::PermitMeshTls {
            clients: Some(api::authn::permit_mesh_tls::Clients::Identities(clients)),
        })),
    }
}

fn anybody() -> api::Authn {
    api::Authn {
        permit: Some(api::authn::Permit::Unauthenticated(Default::default())),
    }
}

fn authz(name: &str, authentication: api::Authn) -> api::Authz {
    api::Authz {
        networks: everywhere(),
        authentication: Some(authentication),
        metadata: named(name),
        ..Default::default()
    }
}

fn route(name: &str, prefix: &str, authorizations: Vec<api::Authz>) -> api::HttpRoute {
    let path = http_route::PathMatch {
        kind: Some(http_route::path_match::Kind::Prefix(prefix.into())),
    };
    let matches = vec![http_route::HttpRouteMatch {
        path: Some(path),
        ..Default::default()
    }];
    api::HttpRoute {
        metadata: named(name),
        authorizations,
        rules: vec![api::http_route::Rule {
            matches,
            filters: Vec::new(),
        }],
        ..Default::default()
    }
}

fn server(authorizations: Vec<api::Authz>, routes: Vec<api::HttpRoute>) -> api::Server {
    let http = api::proxy_protocol::Http1 {
        routes,
        local_rate_limit: None,
    };
    api::Server {
        protocol: Some(api::ProxyProtocol {
            kind: Some(api::proxy_protocol::Kind::Http1(http)),
        }),
        authorizations,
        ..Default::default()
    }
}

fn get(path: &str) -> RequestView<'_, ()> {
    RequestView {
        method: b"GET",
        authority: b"voting:80",
        path: path.as_bytes(),
        headers: &(),
    }
}

/// The name of the authorization that lets the request in, or of the reason that keeps it out.
fn decide(server: &Server, peer: &Peer<'_>, path: &str) -> String {
    let grants = server.grants(peer);
    match server.route(&get(path)) {
        None => Reason::RouteNotFound.code().into(),
        Some(route) => match server.authorize(&grants, &route) {
            Ok(permit) => permit.authorization.meta.name().into(),
            Err(denial) => denial.reason.code().into(),
        },
    }
}

#[test]
fn default_policies_let_in_whom_they_name() {
    let cluster = ["10.0.0.0/8".parse().unwrap()];
    let detect = DefaultProtocol::Detect(Duration::from_secs(10));
    let inside = "10.1.2.3";
    let outside = "8.8.8.8";
    for (name, address, tls, allowed) in [
        ("all-unauthenticated", outside, PeerTls::None, true),
        ("all-authenticated", outside, PeerTls::None, false),
        (
            "all-authenticated",
            outside,
            PeerTls::Unauthenticated,
            false,
        ),
        ("all-authenticated", outside, PeerTls::Identity(WEB), true),
        (
            "all-authenticated",
            outside,
            PeerTls::Identity("spiffe://x/y"),
            true,
        ),
        ("cluster-unauthenticated", inside, PeerTls::None, true),
        (
            "cluster-unauthenticated",
            outside,
            PeerTls::Identity(WEB),
            false,
        ),
        ("cluster-authenticated", inside, PeerTls::None, false),
        (
            "cluster-authenticated",
            inside,
            PeerTls::Identity(WEB),
            true,
        ),
        (
            "cluster-authenticated",
            outside,
            PeerTls::Identity(WEB),
            false,
        ),
        ("deny", inside, PeerTls::Identity(WEB), false),
        ("audit", outside, PeerTls::None, true),
    ] {
        let server = Server::by_default(name.parse().unwrap(), detect, &cluster);
        let peer = peer(address, tls);
        let expected = if allowed { name } else { "unauthorized" };

        assert_eq!(decide(&server, &peer, "/"), expected, "{name} {peer:?}");
        let connection = server.authorize_connection(&server.grants(&peer));
        assert_eq!(connection.is_ok(), allowed, "{name} {peer:?}");
        assert!(connection.is_ok_and(|permit| permit.is_audit()) == (name == "audit"));
    }
    assert_eq!(
        "no".parse::<DefaultPolicy>().unwrap_err().to_string(),
        "\"no\" is not a default policy; it is one of all-unauthenticated, all-authenticated, \
         cluster-unauthenticated, cluster-authenticated, deny, audit"
    );
}

#[test]
fn without_authorizations_nobody_comes_in() {
    let server = Server::compile(&server(Vec::new(), vec![route("all", "/", Vec::new())])).unwrap();
    let peer = peer("10.0.0.1", PeerTls::Identity(WEB));

    assert_eq!(decide(&server, &peer, "/"), "unauthorized");
    let grants = server.grants(&peer);
    let denial = server.authorize_connection(&grants).unwrap_err();
    assert_eq!(
        (denial.reason, denial.tried.len()),
        (Reason::Unauthorized, 0)
    );
}

#[test]
fn a_route_is_open_to_its_own_clients_and_to_the_servers() {
    let admin = authz("admin-only", identities(&["admin.a"], &[]));
    let message = server(
        vec![authz("everyone-in-a", identities(&[], &[&["a"]]))],
        vec![
            route("admin", "/admin", vec![admin]),
            route("rest", "/", Vec::new()),
        ],
    );
    let server = Server::compile(&message).unwrap();
    let decide = |tls, path| decide(&server, &peer("10.0.0.1", tls), path);

    assert_eq!(decide(PeerTls::Identity("admin.a"), "/admin"), "admin-only");
    assert_eq!(
        decide(PeerTls::Identity("web.a"), "/admin"),
        "everyone-in-a"
    );
    assert_eq!(decide(PeerTls::Identity("web.a"), "/x"), "everyone-in-a");
    assert_eq!(decide(PeerTls::Identity("web.b"), "/x"), "unauthorized");
    assert_eq!(decide(PeerTls::None, "/x"), "unauthorized");
}

#[test]
fn identities_are_compared_as_names_and_suffixes_never_fit_uris() {
    let compile = |names: &[&str], suffixes: &[&[&str]]| {
        let authorization =
            Authorization::compile(&authz("a", identities(names, suffixes))).unwrap();
        let Authentication::Identities(identities) = authorization.authentication else {
            panic!()
        };
        identities
    };

    let suffix = compile(&[], &[&["ns", "id"]]);
    for (name, expected) in [
        ("web.ns.id", true),
        ("a.web.ns.id", true),
        ("ns.id", false),
        (".ns.id", false),
        ("webns.id", false),
        ("web.nsxid", false),
        ("spiffe://x/web.ns.id", false),
        ("", false),
    ] {
        assert_eq!(suffix.contains(name), expected, "{name}");
    }
    let exact = compile(&["spiffe://x/y", "web.ns.id", ""], &[]);
    assert!(exact.contains("spiffe://x/y") && exact.contains("web.ns.id"));
    assert!(!exact.contains("spiffe://x/z") && !exact.contains(""));
    let any = compile(&[], &[&[]]);
    assert!(any.contains("spiffe://x/y") && any.contains("w") && !any.contains(""));
    assert!(
        !compile(&[], &[]).contains("w"),
        "an empty list names nobody"
    );
}

#[test]
fn what_a_client_lacks_is_named() {
    let mut message = authz("a", identities(&["web.a"], &[]));
    message.networks = vec![api::Network {
        net: Some(network(10, 8)),
        except: vec![network(10, 16)],
    }];
    let authorization = Authorization::compile(&message).unwrap();
    let lack = |addr: &str, tls| {
        authorization
            .check(&peer(addr, tls))
            .unwrap_err()
            .to_string()
    };

    assert_eq!(
        lack("11.0.0.1", PeerTls::Identity("web.a")),
        "client address in 10.0.0.0/8 except 10.0.0.0/16"
    );
    assert_eq!(
        lack("10.0.0.1", PeerTls::Identity("web.a")),
        "client address in 10.0.0.0/8 except 10.0.0.0/16"
    );
    assert_eq!(lack("10.1.0.1", PeerTls::None), "mesh TLS");
    assert_eq!(
        lack("10.1.0.1", PeerTls::Unauthenticated),
        "client identity web.a"
    );
    assert_eq!(
        lack("10.1.0.1", PeerTls::Identity("web.b")),
        "client identity web.a"
    );
    assert_eq!(
        authorization.check(&peer("10.1.0.1", PeerTls::Identity("web.a"))),
        Ok(())
    );
}

#[test]
fn what_cannot_be_read_stays_closed() {
    let broken_authz = api::Authz {
        networks: Vec::new(),
        ..authz("no-networks", anybody())
    };
    let no_authn = api::Authz {
        authentication: None,
        ..authz("no-authn", anybody())
    };
    let compiled = Server::compile(&server(
        vec![broken_authz, no_authn],
        vec![route("all", "/", Vec::new())],
    ))
    .unwrap();
    assert_eq!(
        decide(&compiled, &peer("10.0.0.1", PeerTls::Identity(WEB)), "/"),
        "unauthorized"
    );
    assert_eq!(compiled.problems.len(), 2);

    // The route for the administrator has a match that cannot be read: what it protected must not fall to the other.
    let mut admin = route(
        "admin",
        "/",
        vec![authz("admin-only", identities(&["admin.a"], &[]))],
    );
    admin.rules[0].matches[0].path = Some(http_route::PathMatch {
        kind: Some(http_route::path_match::Kind::Regex("/admin(".into())),
    });
    let compiled = Server::compile(&server(
        Vec::new(),
        vec![route("all", "/", vec![authz("open", anybody())]), admin],
    ))
    .unwrap();
    assert_eq!(
        decide(&compiled, &peer("10.0.0.1", PeerTls::None), "/admin"),
        "unauthorized"
    );
    let found = compiled.route(&get("/admin")).unwrap();
    assert!(matches!(
        found.answer(&get("/admin"), 0),
        Some(Answer::Invalid(_))
    ));

    assert!(Server::compile(&api::Server::default()).is_err());
}

#[test]
fn more_than_64_authorizations_are_told_apart() {
    let names: Vec<_> = (0..200).map(|index| format!("client-{index}.a")).collect();
    let authorizations = names
        .iter()
        .map(|name| authz(name, identities(&[name], &[])))
        .collect();
    let server =
        Server::compile(&server(authorizations, vec![route("all", "/", Vec::new())])).unwrap();

    for name in &names {
        let peer = Peer {
            addr: "10.0.0.1".parse().unwrap(),
            tls: PeerTls::Identity(name),
        };
        assert_eq!(&decide(&server, &peer, "/"), name);
    }
    assert_eq!(
        decide(&server, &peer("10.0.0.1", PeerTls::Identity("x.a")), "/"),
        "unauthorized"
    );
}

#[test]
fn the_service_is_the_one_the_authority_names_or_the_first() {
    let mut message = server(Vec::new(), Vec::new());
    message.services = vec!["voting".into(), "canary".into()];
    let server = Server::compile(&message).unwrap();

    for (authority, expected) in [
        ("voting", "voting"),
        ("VOTING.default.svc.cluster.local:80", "voting"),
        ("10.0.0.1:80", "canary"),
        ("", "canary"),
    ] {
        assert_eq!(
            server.service(authority.as_bytes()),
            expected,
            "{authority}"
        );
    }
    assert_eq!(
        Server::by_default(DefaultPolicy::Deny, DefaultProtocol::Opaque, &[]).service(b"x"),
        ""
    );
}

#[test]
fn only_the_workloads_own_addresses_are_served() {
    let mut message = server(Vec::new(), Vec::new());
    message.server_ips = vec![net::IpAddress {
        ip: Some(net::ip_address::Ip::Ipv4(0x0a00_0001)),
    }];
    let server = Server::compile(&message).unwrap();

    assert!(
        server.serves("10.0.0.1".parse().unwrap())
            && server.serves("::ffff:10.0.0.1".parse().unwrap())
    );
    assert!(!server.serves("10.0.0.2".parse().unwrap()));
}

fn arbitrary_authz() -> impl Strategy<Value = api::Authz> {
    let authn = prop_oneof![
        Just(anybody()),
        Just(identities(&[], &[&[]])),
        proptest::collection::vec("[ab]\\.[xy]", 0..3).prop_map(|names| identities(
            &names.iter().map(String::as_str).collect::<Vec<_>>(),
            &[]
        )),
        "[xy]".prop_map(|suffix| identities(&[], &[&[&suffix]])),
    ];
    let block = || {
        (
            8_u8..12,
            prop_oneof![Just(0_u32), Just(6), Just(8), Just(33)],
        )
    };
    let networks =
        proptest::collection::vec((block(), proptest::collection::vec(block(), 0..2)), 0..3);
    (authn, networks, 0..4_usize).prop_map(|(authn, networks, name)| api::Authz {
        networks: networks
            .into_iter()
            .map(|(net, except)| api::Network {
                net: Some(network(net.0, net.1)),
                except: except
                    .into_iter()
                    .map(|except| network(except.0, except.1))
                    .collect(),
            })
            .collect(),
        ..authz(["p", "q", "r", "s"][name], authn)
    })
}

/// The rule of the proto's comments, read naively from the message.
fn allows(message: &api::Authz, addr: u32, tls: PeerTls<'_>) -> bool {
    let valid = |net: &net::IpNetwork| net.prefix_len <= 32;
    let inside = |net: &net::IpNetwork| {
        let Some(net::ip_address::Ip::Ipv4(base)) = net.ip.and_then(|ip| ip.ip) else {
            return false;
        };
        let shift = 32 - net.prefix_len;
        u64::from(base) >> shift == u64::from(addr) >> shift
    };
    let nets = || {
        message
            .networks
            .iter()
            .flat_map(|network| network.net.iter().chain(&network.except))
    };
    if message.networks.is_empty() || !nets().all(valid) {
        return false;
    }
    let from = message.networks.iter().any(|network| {
        network.net.as_ref().is_some_and(inside) && !network.except.iter().any(inside)
    });
    let who = match message
        .authentication
        .as_ref()
        .and_then(|authn| authn.permit.as_ref())
    {
        Some(api::authn::Permit::Unauthenticated(_)) => true,
        Some(api::authn::Permit::MeshTls(tls_permit)) => match (&tls_permit.clients, tls) {
            (
                Some(api::authn::permit_mesh_tls::Clients::Identities(names)),
                PeerTls::Identity(name),
            ) => {
                names
                    .identities
                    .iter()
                    .any(|identity| identity.name == name)
                    || names.suffixes.iter().any(|suffix| {
                        suffix.parts.is_empty()
                            || name.ends_with(&format!(".{}", suffix.parts.join(".")))
                    })
            }
            _ => false,
        },
        None => false,
    };
    from && who
}

proptest! {
    #[test]
    fn authorization_agrees_with_the_message_read_naively(
        of_server in proptest::collection::vec(arbitrary_authz(), 0..3),
        of_route in proptest::collection::vec(arbitrary_authz(), 0..3),
        first in 7_u8..13,
        name in prop_oneof![Just(None), "[abc]\\.[xyz]".prop_map(Some)],
    ) {
        let compiled =
            Server::compile(&server(of_server.clone(), vec![route("all", "/", of_route.clone())])).unwrap();
        let addr = u32::from(first) << 24 | 0x0001_0203;
        let tls = name.as_deref().map_or(PeerTls::None, PeerTls::Identity);
        let peer = Peer { addr: std::net::Ipv4Addr::from(addr).into(), tls };
        let grants = compiled.grants(&peer);

        let connection = compiled.authorize_connection(&grants);
        prop_assert_eq!(connection.is_ok(), of_server.iter().any(|authz| allows(authz, addr, tls)));

        let found = compiled.route(&get("/")).unwrap();
        let request = compiled.authorize(&grants, &found);
        let by = of_route.iter().chain(&of_server).find(|authz| allows(authz, addr, tls));
        let expected = by.map(|authz| Meta::compile(authz.metadata.as_ref()));
        prop_assert_eq!(request.ok().map(|permit| permit.authorization.meta.clone()), expected);
    }
}

#[test]
fn a_probe_is_found_beside_the_route_that_is_closer() {
    let probe = authz("probe", anybody());
    let mut closer = route(
        "users",
        "/live",
        vec![authz("web-only", identities(&[WEB], &[]))],
    );
    closer.hosts = vec![http_route::HostMatch {
        r#match: Some(http_route::host_match::Match::Exact("voting".into())),
    }];
    let message = server(
        Vec::new(),
        vec![closer, route("probe", "/live", vec![probe])],
    );
    let compiled = Server::compile(&message).unwrap();
    let kubelet = peer("10.0.0.1", PeerTls::None);
    let grants = compiled.grants(&kubelet);

    assert_eq!(decide(&compiled, &kubelet, "/live"), "unauthorized");
    let (route, permit) = compiled.probe(&grants, &get("/live")).unwrap();
    assert_eq!(
        (route.route.meta.name(), permit.authorization.meta.name()),
        ("probe", "probe")
    );
    assert!(compiled.probe(&grants, &get("/other")).is_none());

    // An object that is called `probe` is none of the control plane's.
    let mut object = message;
    let Some(api::proxy_protocol::Kind::Http1(http)) = &mut object.protocol.as_mut().unwrap().kind
    else {
        panic!()
    };
    http.routes[1].metadata = Some(meta::Metadata {
        kind: Some(meta::metadata::Kind::Resource(meta::Resource {
            kind: "HTTPRoute".into(),
            name: "probe".into(),
            ..Default::default()
        })),
    });
    let compiled = Server::compile(&object).unwrap();
    assert!(compiled.probe(&grants, &get("/live")).is_none());
}

#[test]
fn what_a_port_asks_for_beside_authorization_is_read_or_named() {
    let mut message = server(
        vec![authz("all", anybody())],
        vec![route("all", "/", Vec::new())],
    );
    assert!(!Server::compile(&message).unwrap().requires_more());
    message.max_in_flight = 5;
    assert!(Server::compile(&message).unwrap().requires_more());
    message.external_authorization = Some(api::ExternalAuthorization {
        authority: "[::1]:9000".into(),
        ..Default::default()
    });
    let compiled = Server::compile(&message).unwrap();
    let grants = compiled.grants(&peer("10.0.0.1", PeerTls::None));
    assert!(
        compiled
            .authorize(&grants, &compiled.route(&get("/")).unwrap())
            .is_ok()
    );
    let unseen = compiled.authorize_connection(&grants);
    assert!(
        unseen.is_err(),
        "bytes that nobody looks into pass no question"
    );
    let external = compiled.external.unwrap();
    assert_eq!(
        (
            external.timeout,
            external.fail_open,
            external.identity.as_deref(),
            &external.invalid
        ),
        (Duration::from_millis(200), false, None, &None)
    );
    for (change, field) in [
        (
            api::ExternalAuthorization {
                authority: "authz".into(),
                ..Default::default()
            },
            "authority",
        ),
        (
            api::ExternalAuthorization {
                authority: "a/b:1".into(),
                ..Default::default()
            },
            "authority",
        ),
        (
            api::ExternalAuthorization {
                authority: "authz:0".into(),
                ..Default::default()
            },
            "authority",
        ),
        (
            api::ExternalAuthorization {
                authority: "a:1".into(),
                max_request_bytes: 65_537,
                ..Default::default()
            },
            "max_request_bytes",
        ),
        (
            api::ExternalAuthorization {
                authority: "a:1".into(),
                timeout: Some(prost_types::Duration {
                    seconds: 11,
                    nanos: 0,
                }),
                ..Default::default()
            },
            "timeout",
        ),
    ] {
        message.external_authorization = Some(change);
        let compiled = Server::compile(&message).unwrap();
        let invalid = compiled.external.unwrap().invalid.clone().unwrap();
        assert_eq!(invalid.field, format!("external_authorization.{field}"));
        assert_eq!(compiled.problems, [invalid]);
    }
    message.external_authorization = None;
    message.jwt = vec![api::Jwt::default(); 17];
    assert_eq!(Server::compile(&message).unwrap_err().field, "jwt");
}
