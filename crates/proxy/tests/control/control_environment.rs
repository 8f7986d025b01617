//! What a person reads when the environment is wrong, and when she asks for help.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::process::{Command, Output};

use tulle_proxy::config::table::{self, Form, Variable};

use super::control_plane::authority;
use super::proxy::run;

/// Runs the binary to its end with values that need not be text.
fn run_with(arguments: &[&str], environment: &[(&str, OsString)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tulle-proxy"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (*name, value)))
        .output()
        .unwrap()
}

/// With this alone the sidecar can start.
fn sound() -> Vec<(&'static str, OsString)> {
    let anchors = authority().pem();
    [
        ("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", anchors.as_str()),
        ("LINKERD2_PROXY_IDENTITY_TOKEN_FILE", "/var/run/token"),
        ("LINKERD2_PROXY_IDENTITY_LOCAL_NAME", "web.default.test"),
        ("LINKERD2_PROXY_IDENTITY_SVC_ADDR", "identity.test:8080"),
        ("LINKERD2_PROXY_IDENTITY_SVC_NAME", "identity.test"),
    ]
    .map(|(name, value)| (name, OsString::from(value)))
    .to_vec()
}

/// What this variable cannot be.
fn bad(variable: &Variable) -> OsString {
    let text = match variable.form {
        Form::Duration => "10",
        Form::Flag => "yes",
        Form::Number => "4294967296",
        Form::Workers => "65",
        Form::Window => "2147483648",
        Form::FrameSize => "16383",
        Form::Ratio => "1.1",
        Form::Address => "localhost:4140",
        Form::Addresses => "127.0.0.1:4140,[::1]",
        Form::Ips => "10.0.0.1/8",
        Form::ServiceAddress => "name-without-port",
        Form::Name | Form::Identity => "two words",
        Form::Suffixes => "cluster..local",
        Form::Ports => "9-8",
        Form::PortMap => "80:81",
        Form::Listeners => "127.0.0.1:80",
        Form::Networks => "10.0.0.0/33",
        Form::Mark => "0x100000000",
        Form::Policy => "open",
        Form::Json => "[]",
        Form::Pem => "-----BEGIN CERTIFICATE-----",
        Form::LogLevels => "tulle=loud",
        Form::LogFormat => "xml",
        Form::AccessLog => "nginx",
        Form::AuthorityLabels => "safe",
        Form::TraceProtocol => "opencensus",
        // Any text is taken; these octets are none.
        Form::Path | Form::Presence | Form::Attributes | Form::Text => {
            return OsString::from_vec(vec![b'a', 0xff]);
        }
    };
    text.into()
}

/// What is said of that variable: what was given, and what is accepted.
fn is_reported(text: &str, variable: &Variable, given: &OsStr) -> bool {
    let given = given.to_string_lossy();
    let found = format!("  {} is {given:?}: ", variable.name);
    let accepted = format!("    accepted: {}", variable.form.accepts());
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&found));
    lines.next().is_some() && lines.next() == Some(&accepted)
}

#[test]
fn whichever_variable_is_bad_is_reported_by_check_with_what_is_accepted() {
    let sound = sound();
    assert_eq!(run_with(&["--check"], &sound).status.code(), Some(0));
    for variable in table::all() {
        let mut environment = sound.clone();
        environment.retain(|(name, _)| *name != variable.name);
        environment.push((variable.name, bad(variable)));
        let output = run_with(&["--check"], &environment);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{}\n{text}", variable.name);
        assert!(
            is_reported(&text, variable, &bad(variable)),
            "{}\n{text}",
            variable.name
        );
    }
}

#[test]
fn when_all_are_bad_all_are_reported_at_once_by_check_and_by_a_start() {
    let environment: Vec<(&str, OsString)> = table::all()
        .map(|variable| (variable.name, bad(variable)))
        .collect();
    for arguments in [&["--check"][..], &[]] {
        let output = run_with(arguments, &environment);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{text}");
        let missed: Vec<&str> = table::all()
            .filter(|variable| !is_reported(&text, variable, &bad(variable)))
            .map(|variable| variable.name)
            .collect();
        assert_eq!(missed, [""; 0], "{text}");
        let count = table::all().count();
        assert!(
            text.starts_with(&format!(
                "tulle-proxy cannot start: {count} environment variables cannot be used.\n"
            )),
            "{text}"
        );
    }
}

#[test]
fn values_that_contradict_each_other_are_reported() {
    for (more, less, why) in [
        (
            ("LINKERD2_PROXY_IDENTITY_MIN_REFRESH", "2d"),
            ("LINKERD2_PROXY_IDENTITY_MAX_REFRESH", "1h"),
            "which is 1h",
        ),
        (
            ("LINKERD2_PROXY_DNS_MIN_TTL", "2m"),
            ("LINKERD2_PROXY_LOG", "warn"),
            "which is 1m",
        ),
        (
            ("LINKERD2_PROXY_OUTBOUND_CONNECT_EXP_BACKOFF_MIN", "2s"),
            ("LINKERD2_PROXY_OUTBOUND_CONNECT_EXP_BACKOFF_MAX", "1s"),
            "which is 1s",
        ),
        (
            ("LINKERD2_PROXY_CORES_MIN", "4"),
            ("LINKERD2_PROXY_CORES_MAX", "2"),
            "it is more than LINKERD2_PROXY_CORES_MAX",
        ),
    ] {
        let mut environment = sound();
        environment.extend([more, less].map(|(name, value)| (name, value.into())));
        let output = run_with(&["--check"], &environment);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{more:?}\n{text}");
        assert!(text.contains(more.0) && text.contains(why), "{text}");
    }
}

#[test]
fn an_unknown_name_is_tolerated_and_the_one_that_was_meant_is_named() {
    let mut environment = sound();
    environment.extend(
        [
            ("LINKERD2_PROXY_OUTBOUND_CONECT_TIMEOUT", "1s"),
            ("LINKERD2_PROXY_WEATHER", "fine"),
            ("LINKERD_OF_SOMEBODY_ELSE", "1"),
        ]
        .map(|(name, value)| (name, value.into())),
    );
    let output = run_with(&["--check"], &environment);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "warning: LINKERD2_PROXY_OUTBOUND_CONECT_TIMEOUT is not a variable of this proxy and has no effect; \
         is LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT meant?\n\
         warning: LINKERD2_PROXY_WEATHER is not a variable of this proxy and has no effect\n"
    );
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "tulle-proxy can start with this environment.\n"
    );
    // Beside a bad value, the slip is told too: it may be why a required variable is missing.
    environment.retain(|(name, _)| *name != "LINKERD2_PROXY_IDENTITY_TOKEN_FILE");
    environment.push(("LINKERD2_PROXY_IDENTITY_TOKEN_FIEL", "/token".into()));
    let output = run_with(&[], &environment);
    assert_eq!(output.status.code(), Some(64));
    let text = String::from_utf8(output.stderr).unwrap();
    for line in [
        "LINKERD2_PROXY_IDENTITY_TOKEN_FILE is not set: it is required.",
        "is LINKERD2_PROXY_IDENTITY_TOKEN_FILE meant?",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn the_version_is_the_packages() {
    let output = run(&["--version"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("tulle-proxy {}\n", env!("CARGO_PKG_VERSION"))
    );
}

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
    for (title, variables) in table::groups() {
        assert!(
            text.contains(&format!("\n{title}\n  {} (", variables[0].name)),
            "{title}"
        );
        for variable in variables {
            let default = match variable.default {
                "" => "no default".to_owned(),
                default => format!("default {default}"),
            };
            let entry = format!(
                "\n  {} ({}; {default})\n      {}\n      Accepts {}.\n",
                variable.name,
                variable.form.kind(),
                variable.meaning,
                variable.form.accepts(),
            );
            assert!(text.contains(&entry), "{entry}");
        }
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
