//! `tulle-proxy init`: in a network namespace of its own where the machine allows one.

use std::process::Command;

use super::proxy::run;

#[test]
fn simulate_prints_the_rules_and_writes_nothing() {
    let output = run(
        &[
            "init",
            "--simulate",
            "--proxy-uid",
            "2102",
            "--inbound-ports-to-ignore",
            "4190,4191,25",
        ],
        &[],
    );
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("tcp dport { 25, 4190-4191 } return") && text.contains("redirect to :4143"),
        "{text}"
    );
}

#[test]
fn wrong_usage_names_the_option() {
    let output = run(&["init", "--proxy-uid", "root"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("--proxy-uid is \"root\"")
    );
}

#[test]
fn without_a_tool_the_message_says_what_is_needed() {
    let output = run(&["init"], &[("PATH", "/nowhere")]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("nft: is not here") && text.contains("NET_ADMIN"),
        "{text}"
    );
}

/// Skipped (with a word) where no namespace can be made or nft is missing.
#[test]
fn the_rules_are_written_and_written_again_without_harm() {
    let unshare = |script: &str| {
        Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "sh", "-c", script])
            .env("PROXY", env!("CARGO_BIN_EXE_tulle-proxy"))
            .output()
    };
    let can = unshare("nft list ruleset").is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("skipped: this machine gives no user and network namespace with nft");
        return;
    }
    let output = unshare("\"$PROXY\" init --proxy-mark 0x7e11 && \"$PROXY\" init --proxy-mark 0x7e11 && nft list ruleset").unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(text.matches("redirect to :4143").count(), 1, "{text}");
    assert_eq!(text.matches("redirect to :4140").count(), 1, "{text}");
    assert!(
        text.contains("meta skuid 2102 return") && text.contains("meta mark 0x00007e11 return"),
        "{text}"
    );
}
