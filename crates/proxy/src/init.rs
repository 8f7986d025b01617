//! `tulle-proxy init`: writes the packet-filter rules that lead a pod's TCP traffic to the sidecar.
//!
//! `init/options.rs` reads the arguments (those of linkerd-init), `init/rules.rs` says in nft and in iptables what is
//! to be written, both pure; this file runs the tool that is there. Rules are written whole or not at all, and again
//! without harm.

mod options;
mod rules;

use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};

pub use options::{Options, USAGE};

/// A tool that can write the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Nft,
    Iptables(&'static str),
}

impl Tool {
    fn program(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Iptables(program) => program,
        }
    }
}

/// Tried in this order. nft changes everything in one transaction.
const TOOLS: [Tool; 4] = [
    Tool::Nft,
    Tool::Iptables("iptables-nft"),
    Tool::Iptables("iptables"),
    Tool::Iptables("iptables-legacy"),
];

/// Runs `tulle-proxy init` with these arguments.
pub fn main(arguments: &[String]) -> ExitCode {
    if arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h")
    {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(why) => {
            eprintln!(
                "tulle-proxy init: {why}.\nNo rule was written.\nTry `tulle-proxy init --help`."
            );
            return ExitCode::from(2);
        }
    };
    if options.simulate {
        print!("{}", rules::nft(&options));
        return ExitCode::SUCCESS;
    }
    match write(&options) {
        Ok(tool) => {
            println!(
                "capture rules written with {tool}: inbound to {}, outbound to {}",
                options.incoming, options.outgoing
            );
            ExitCode::SUCCESS
        }
        Err(failures) => {
            eprintln!("tulle-proxy init: the capture rules could not be written.");
            for failure in &failures {
                eprintln!("  {failure}");
            }
            eprintln!(
                "It needs the capability NET_ADMIN in the pod's network namespace, and nft or iptables.\n\
                 Run the container with that capability, or `tulle-proxy init --simulate …` to see the rules."
            );
            ExitCode::FAILURE
        }
    }
}

/// Writes the rules with the first tool that can; the name of the tool, or why each failed.
fn write(options: &Options) -> Result<&'static str, Vec<String>> {
    let mut failures = Vec::new();
    for tool in TOOLS {
        let outcome = match tool {
            Tool::Nft => run("nft", &["-f", "-"], &rules::nft(options)),
            Tool::Iptables(program) => iptables(program, options),
        };
        match outcome {
            Ok(()) => return Ok(tool.program()),
            Err(why) => failures.push(format!("{}: {why}", tool.program())),
        }
    }
    Err(failures)
}

/// `iptables-restore --noflush` takes the chains whole; only the two jumps have to be looked at first.
fn iptables(program: &'static str, options: &Options) -> Result<(), String> {
    run(
        &format!("{program}-restore"),
        &["--noflush", "--wait"],
        &rules::iptables(options),
    )?;
    for jump in rules::iptables_jumps() {
        let check: Vec<&str> = ["-w", "-t", "nat", "-C"].into_iter().chain(jump).collect();
        if run(program, &check, "").is_err() {
            let append: Vec<&str> = ["-w", "-t", "nat", "-A"].into_iter().chain(jump).collect();
            run(program, &append, "")?;
        }
    }
    Ok(())
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                "is not here".to_owned()
            } else {
                error.to_string()
            }
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends before it has read all tells why in its own words.
        let _unread = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("it gave no reason")
        .trim()
        .to_owned();
    Err(format!("{first} ({})", output.status))
}
