//! The `tulle-proxy` binary: the sidecar, and with `init` the program that leads a pod's traffic to it.

use std::io::Write as _;
use std::process::ExitCode;

use tulle_proxy::config::{Config, EXIT_BAD_ENVIRONMENT, help, reader};
use tulle_proxy::metrics::process;
use tulle_proxy::{init, log, run};

/// Gives pages back after a burst, where glibc keeps them; of those that do, the one whose own are fewest
/// (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        None => sidecar(),
        Some("init") => init::main(&arguments[1..]),
        Some("--help" | "-h" | "help") => print(&help::text()),
        Some("--version" | "-V" | "version") => {
            print(concat!("tulle-proxy ", env!("CARGO_PKG_VERSION"), "\n"))
        }
        Some("--check" | "check") => check(),
        Some(other) => {
            eprintln!(
                "tulle-proxy: `{other}` is not something it can do.\nIt is configured by its environment and takes no arguments but init, --check, --version and --help.\nTry `tulle-proxy --help`."
            );
            ExitCode::from(2)
        }
    }
}

/// To standard output. Whoever stops reading half-way (`| head`) has what it wanted.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("tulle-proxy: standard output cannot be written: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// What a start with this environment would say of it; nothing is opened, connected or listened to.
fn check() -> ExitCode {
    match Config::from_env(&reader::of_process()) {
        Ok(config) => {
            for warning in &config.warnings {
                eprintln!("warning: {warning}");
            }
            print("tulle-proxy can start with this environment.\n")
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::from(EXIT_BAD_ENVIRONMENT)
        }
    }
}

fn sidecar() -> ExitCode {
    let environment = reader::of_process();
    let config = match Config::from_env(&environment) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(EXIT_BAD_ENVIRONMENT);
        }
    };
    let levels = log::start(&config.log_levels, config.log_json);
    process::count_panics();
    match run::run(config, environment, levels) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tulle-proxy stopped: {error}");
            ExitCode::FAILURE
        }
    }
}
