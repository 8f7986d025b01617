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
