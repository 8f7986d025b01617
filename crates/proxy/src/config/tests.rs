//! What the environment may say, and what the operator reads when it says something else.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn without_identity(pairs: &[(&str, &str)]) -> Environment {
    let mut environment = environment(pairs);
    environment.insert("LINKERD2_PROXY_IDENTITY_DISABLED".into(), "1".into());
    environment
}

#[test]
fn the_defaults_are_linkerds() {
    let config = Config::from_env(&without_identity(&[])).expect("defaults");
    assert!(config.identity.is_none());
    assert_eq!(
        config.outbound.listen,
        ["127.0.0.1:4140".parse().expect("address")]
    );
    assert_eq!(config.inbound.listen.port(), 4143);
    assert_eq!(config.admin_listen.port(), 4191);
    assert_eq!(
        config.inbound.connections.connect_timeout,
        Duration::from_millis(300)
    );
    assert_eq!(
        config.outbound.connections.connect_timeout,
        Duration::from_secs(1)
    );
    assert_eq!(
        config.outbound.connections.detect_timeout,
        Duration::from_secs(10)
    );
    assert_eq!(config.shutdown_grace, Duration::from_secs(120));
    assert_eq!(config.workers, 1);
    assert!(config.warnings.is_empty());
}

#[test]
fn every_bad_value_is_reported_at_once_with_its_accepted_form() {
    let problems = Config::from_env(&environment(&[
        ("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", "not a certificate"),
        ("LINKERD2_PROXY_IDENTITY_LOCAL_NAME", "a b"),
        (
            "LINKERD2_PROXY_IDENTITY_SVC_ADDR",
            "linkerd-identity.linkerd.svc:8080",
        ),
        ("LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT", "1000"),
        ("LINKERD2_PROXY_INBOUND_DEFAULT_POLICY", "open"),
        ("LINKERD2_PROXY_INBOUND_PORTS", "80,http"),
    ]))
    .expect_err("nothing there is usable");
    let names: BTreeSet<&str> = problems
        .values
        .iter()
        .map(|problem| problem.name.as_str())
        .collect();
    assert_eq!(
        names,
        BTreeSet::from([
            "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS",
            "LINKERD2_PROXY_IDENTITY_TOKEN_FILE",
            "LINKERD2_PROXY_IDENTITY_LOCAL_NAME",
            "LINKERD2_PROXY_IDENTITY_SVC_NAME",
            "LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT",
            "LINKERD2_PROXY_INBOUND_DEFAULT_POLICY",
            "LINKERD2_PROXY_INBOUND_PORTS",
        ])
    );
    let text = problems.to_string();
    assert!(
        text.contains("LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT is \"1000\": the unit is missing."),
        "{text}"
    );
    assert!(
        text.contains("accepted: a whole number with ms, s, m, h or d"),
        "{text}"
    );
    assert!(
        text.contains("LINKERD2_PROXY_IDENTITY_TOKEN_FILE is not set: it is required."),
        "{text}"
    );
}

#[test]
fn an_unknown_name_is_warned_of_and_one_without_effect_is_not() {
    let config = Config::from_env(&without_identity(&[
        ("LINKERD2_PROXY_OUTBUOND_CONNECT_TIMEOUT", "1s"),
        ("LINKERD2_PROXY_TAP_SVC_NAME", "tap.linkerd-viz"),
        ("LINKERD2_PROXY_IDENTITY_DIR", "/var/run/linkerd/identity"),
        ("PATH", "/bin"),
    ]))
    .expect("only warnings");
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    assert!(
        config
            .warnings
            .iter()
            .any(|warning| warning.contains("OUTBUOND"))
    );
    assert!(
        config
            .warnings
            .iter()
            .any(|warning| warning.contains("tap is not served"))
    );
}

#[test]
fn a_control_plane_on_loopback_is_plain_text() {
    let config = Config::from_env(&without_identity(&[
        ("LINKERD2_PROXY_DESTINATION_SVC_ADDR", "localhost.:8086"),
        (
            "LINKERD2_PROXY_DESTINATION_SVC_NAME",
            "linkerd-destination.linkerd.serviceaccount.identity.linkerd.cluster.local",
        ),
    ]))
    .expect("valid");
    let service = config.destination.service.expect("a service");
    assert_eq!(service.identity, None);
    assert!(service.addr.is_loopback());
}

#[test]
fn the_pod_is_known_from_the_workload_in_either_form() {
    for workload in [r#"{"ns":"emojivoto","pod":"web-1"}"#, "emojivoto:web-1"] {
        let config = Config::from_env(&without_identity(&[(
            "LINKERD2_PROXY_POLICY_WORKLOAD",
            workload,
        )]))
        .expect("valid");
        assert_eq!(
            (config.pod.namespace.as_str(), config.pod.name.as_str()),
            ("emojivoto", "web-1")
        );
    }
}

#[test]
fn every_variable_of_the_table_is_read() {
    let environment = environment(&[]);
    let reader = Reader::new(&environment);
    let _ = Config::read(&reader);
    let read = reader.names_read();
    for variable in table::all() {
        assert!(
            read.contains(variable.name),
            "{} is in the table, but nothing reads it",
            variable.name
        );
    }
    assert_eq!(
        table::all().count(),
        table::all()
            .map(|variable| variable.name)
            .collect::<BTreeSet<_>>()
            .len()
    );
}

/// An environment with an identity from the service, and more.
fn with_identity(pairs: &[(&str, &str)]) -> Environment {
    let mut all = environment(&[
        ("LINKERD2_PROXY_IDENTITY_TOKEN_FILE", "/token"),
        ("LINKERD2_PROXY_IDENTITY_SVC_ADDR", "localhost.:8080"),
    ]);
    let anchors = crate::identity::testing::Authority::new().pem();
    all.insert("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS".into(), anchors);
    all.extend(environment(pairs));
    all
}

const LOCAL_NAME: (&str, &str) = ("LINKERD2_PROXY_IDENTITY_LOCAL_NAME", "web.a.identity");
const SERVER_ID: &str = "LINKERD2_PROXY_IDENTITY_SERVER_ID";
const SERVER_NAME: &str = "LINKERD2_PROXY_IDENTITY_SERVER_NAME";
const SOCKET: &str = "LINKERD2_PROXY_IDENTITY_SPIRE_SOCKET";

#[test]
fn tap_is_served_to_whom_the_environment_names_and_not_without_an_identity() {
    let read = |pairs: &[(&str, &str)]| {
        let mut all = vec![LOCAL_NAME];
        all.extend_from_slice(pairs);
        Config::from_env(&with_identity(&all)).expect("valid").tap
    };
    assert_eq!(read(&[]), None);
    let name = "LINKERD2_PROXY_TAP_SVC_NAME";
    let tap = read(&[(name, "tap.linkerd-viz")]).expect("served");
    assert_eq!(tap.listen, "0.0.0.0:4190".parse().expect("address"));
    assert_eq!(tap.identity, "tap.linkerd-viz");
    let at = ("LINKERD2_PROXY_CONTROL_LISTEN_ADDR", "127.0.0.1:5190");
    let tap = read(&[(name, "spiffe://a/tap"), at]).expect("served");
    assert_eq!(
        (tap.listen.port(), &*tap.identity),
        (5190, "spiffe://a/tap")
    );
    let disabled = without_identity(&[(name, "tap.linkerd-viz")]);
    assert_eq!(Config::from_env(&disabled).expect("warned").tap, None);
}

#[test]
fn an_identity_from_the_service_is_the_local_name_or_the_server_s() {
    let read = |pairs: &[(&str, &str)]| Config::from_env(&with_identity(pairs));
    let own = read(&[LOCAL_NAME]).expect("valid").identity.expect("one");
    assert_eq!(
        (&*own.local_name, &*own.server_name),
        ("web.a.identity", "web.a.identity")
    );
    assert!(matches!(own.source, IdentitySource::Service(_)));
    let both = [(SERVER_ID, "web.b"), (SERVER_NAME, "web.b")];
    let own = read(&both).expect("valid").identity.expect("one");
    assert_eq!(own.local_name, "web.b");
    for (pairs, name, why) in [
        (
            vec![],
            "LINKERD2_PROXY_IDENTITY_LOCAL_NAME",
            "it is required",
        ),
        (vec![(SERVER_ID, "web.b")], SERVER_NAME, "must be the same"),
        (
            vec![(SERVER_ID, "spiffe://a/b")],
            SERVER_ID,
            "needs LINKERD2_PROXY_IDENTITY_SPIRE_SOCKET",
        ),
    ] {
        let problems = read(&pairs).expect_err(why);
        let problem = &problems.values[0];
        assert_eq!(problem.name, name);
        assert!(problem.why.contains(why), "{problem:?}");
    }
}

#[test]
fn an_identity_from_a_spiffe_agent_is_an_id_and_the_name_that_peers_dial() {
    let whole = [
        (SOCKET, "unix:///run/agent.sock"),
        (SERVER_ID, "spiffe://a/web"),
        (SERVER_NAME, "web.a"),
    ];
    let config = Config::from_env(&environment(&whole)).expect("valid without anchors");
    let own = config.identity.expect("one");
    assert_eq!(
        (&*own.local_name, &*own.server_name),
        ("spiffe://a/web", "web.a")
    );
    assert!(own.trust_anchors.is_empty());
    let IdentitySource::Spire(socket) = own.source else {
        panic!("{:?}", own.source);
    };
    assert_eq!(socket.to_str(), Some("/run/agent.sock"));
    let mut environment = environment(&whole);
    let newer = "LINKERD2_PROXY_IDENTITY_SPIRE_WORKLOAD_API_ADDRESS";
    environment.insert(newer.into(), "/run/other.sock".into());
    let config = Config::from_env(&environment).expect("valid");
    let source = config.identity.expect("one").source;
    assert!(matches!(source, IdentitySource::Spire(path) if path.ends_with("other.sock")));

    let table: [(&[(&str, &str)], &str); 5] = [
        (&[(SOCKET, "run/agent.sock")], SOCKET),
        (&[(SOCKET, "/a"), (SERVER_NAME, "web.a")], SERVER_ID),
        (
            &[(SOCKET, "/a"), (SERVER_NAME, "web.a"), (SERVER_ID, "web.a")],
            SERVER_ID,
        ),
        (
            &[
                (SOCKET, "/a"),
                (SERVER_NAME, "web.a"),
                (SERVER_ID, "spiffe://a"),
            ],
            SERVER_ID,
        ),
        (
            &[(SOCKET, "/a"), (SERVER_ID, "spiffe://a/web")],
            SERVER_NAME,
        ),
    ];
    for (pairs, name) in table {
        let problems = Config::from_env(&super::tests::environment(pairs)).expect_err(name);
        assert!(
            problems.values.iter().any(|problem| problem.name == name),
            "{problems}"
        );
    }
}
