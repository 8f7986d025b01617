//! The `tulle-proxy` binary: the sidecar, and with `init` the program that leads a pod's traffic to it.

use std::process::ExitCode;

use tulle_proxy::config::{Config, EXIT_BAD_ENVIRONMENT, Environment, help};
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
        Some("--help" | "-h" | "help") => {
            print!("{}", help::text());
            ExitCode::SUCCESS
        }
        Some("--version" | "-V" | "version") => {
            println!("tulle-proxy {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some(other) => {
            eprintln!(
                "tulle-proxy: `{other}` is not something it can do.\nIt is configured by its environment and takes no arguments but init, --version and --help.\nTry `tulle-proxy --help`."
            );
            ExitCode::from(2)
        }
    }
}

fn sidecar() -> ExitCode {
    // Values that are not text cannot be ours; they are left out instead of ending the process.
    let environment: Environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
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
