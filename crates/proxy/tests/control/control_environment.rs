//! What a person reads when the environment is wrong, and when she asks for help.

use super::proxy::run;

#[test]
fn every_bad_value_is_reported_at_once_and_the_exit_code_is_64() {
    let output = run(
        &[],
        &[
            ("LINKERD2_PROXY_IDENTITY_DISABLED", "1"),
            ("LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT", "soon"),
            ("LINKERD2_PROXY_INBOUND_PORTS", "80,http"),
            ("LINKERD2_PROXY_LOG", "warn,tulle=loud"),
            ("TULLE_PROXY_MARK", "red"),
        ],
    );
    assert_eq!(output.status.code(), Some(64));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.starts_with("tulle-proxy cannot start: 4 environment variables cannot be used.\n"),
        "{text}"
    );
    for line in [
        "LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT is \"soon\": it does not begin with a whole number.",
        "LINKERD2_PROXY_INBOUND_PORTS is \"80,http\": `http` is not a port or a range.",
        "LINKERD2_PROXY_LOG is \"warn,tulle=loud\": `tulle=loud` is not a level.",
        "TULLE_PROXY_MARK is \"red\": it is not a 32-bit number.",
        "accepted: ports and ranges separated by commas, such as 80,8000-8010",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn help_explains_every_variable() {
    let output = run(&["--help"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    for variable in tulle_proxy::config::table::all() {
        assert!(text.contains(variable.name), "{}", variable.name);
    }
}

#[test]
fn an_argument_that_means_nothing_is_wrong_usage() {
    let output = run(&["serve"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("`serve` is not something it can do")
    );
}

#[test]
fn the_reference_pages_are_those_of_this_source() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/");
    for (page, text) in [
        ("environment.md", tulle_proxy::config::help::markdown()),
        ("metrics.md", tulle_proxy::metrics::families::markdown()),
    ] {
        let written = std::fs::read_to_string(format!("{root}{page}")).unwrap_or_default();
        assert!(
            written == text,
            "docs/reference/{page} is stale: run `cargo run --release -p tulle-proxy --example reference`"
        );
    }
}
