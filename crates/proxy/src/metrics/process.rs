//! `process_*` and `proxy_build_info`, read from `/proc` at scrape time.
//!
//! Reading costs three small files per scrape and nothing between scrapes.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use super::families;
use super::labels::Labels;
use super::registry::Registry;
use super::text::Sample;
use crate::identity;

/// Kernel clock ticks per second as user space sees them: 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// `statm` counts pages; x86_64 and the usual aarch64 kernels have 4 KiB ones. `status` gives kB and is used instead
/// where it has the number.
const KIB: f64 = 1024.0;

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Counts panics from now on and logs each with its place; the task it happened in ends, the process goes on.
pub fn count_panics() {
    std::panic::set_hook(Box::new(|panic| {
        PANICS.fetch_add(1, Relaxed);
        let payload = panic.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or(payload.downcast_ref::<String>().map(String::as_str));
        let message = message.unwrap_or("no message");
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let thread = std::thread::current()
            .name()
            .unwrap_or("unnamed")
            .to_owned();
        tracing::error!(
            thread,
            place,
            message,
            "panic: this is a bug, please report it"
        );
    }));
}

/// What of the process stays the same.
#[derive(Debug)]
pub struct Process {
    started: SystemTime,
    build: Labels,
}

impl Process {
    /// Call once at start.
    pub fn new() -> Self {
        let build = Labels::builder()
            .add("version", env!("CARGO_PKG_VERSION"))
            .add(
                "git_branch",
                option_env!("TULLE_GIT_BRANCH").unwrap_or("unknown"),
            )
            .add(
                "git_version",
                option_env!("TULLE_GIT_VERSION").unwrap_or("unknown"),
            )
            .add(
                "profile",
                if cfg!(debug_assertions) {
                    "debug"
                } else {
                    "release"
                },
            )
            .add("vendor", "tulle")
            .build();
        Self {
            started: SystemTime::now(),
            build,
        }
    }

    /// The samples of this moment. A file that cannot be read leaves its samples out.
    pub fn samples(&self, registry: &Registry) -> Vec<Sample> {
        let plain = |family, value| Sample {
            family,
            labels: Labels::none(),
            value,
        };
        let seconds =
            |since: SystemTime| since.elapsed().map_or(0.0, |elapsed| elapsed.as_secs_f64());
        let started = self
            .started
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |at| at.as_secs_f64());
        let mut samples = vec![
            Sample {
                family: &families::PROXY_BUILD_INFO,
                labels: self.build.clone(),
                value: 1.0,
            },
            plain(&families::PROCESS_START_TIME_SECONDS, started),
            plain(
                &families::PROCESS_UPTIME_SECONDS_TOTAL,
                seconds(self.started).floor(),
            ),
        ];
        samples.push(Sample {
            family: &families::RUSTLS_INFO,
            labels: rustls_info(),
            value: 1.0,
        });
        if let Some(cpu) = fs::read_to_string("/proc/self/stat")
            .ok()
            .as_deref()
            .and_then(cpu_seconds)
        {
            samples.push(plain(&families::PROCESS_CPU_SECONDS_TOTAL, cpu));
        }
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            for (key, family, scale) in [
                ("VmRSS:", &families::PROCESS_RESIDENT_MEMORY_BYTES, KIB),
                ("VmSize:", &families::PROCESS_VIRTUAL_MEMORY_BYTES, KIB),
                ("Threads:", &families::PROCESS_THREADS, 1.0),
            ] {
                if let Some(value) = status_number(&status, key) {
                    samples.push(plain(family, value * scale));
                }
            }
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // The listing holds the descriptor of the listing itself.
            samples.push(plain(
                &families::PROCESS_OPEN_FDS,
                entries.count().saturating_sub(1) as f64,
            ));
        }
        if let Some(max) = fs::read_to_string("/proc/self/limits")
            .ok()
            .as_deref()
            .and_then(max_open_files)
        {
            samples.push(plain(&families::PROCESS_MAX_FDS, max));
        }
        samples.push(plain(
            &families::PROXY_PANICS_TOTAL,
            PANICS.load(Relaxed) as f64,
        ));
        samples.push(plain(
            &families::PROXY_METRICS_SERIES,
            registry.series() as f64,
        ));
        samples.push(plain(
            &families::PROXY_METRICS_SERIES_REFUSED_TOTAL,
            registry.refused() as f64,
        ));
        samples.push(plain(
            &families::PROXY_METRICS_SERIES_EVICTED_TOTAL,
            registry.evicted() as f64,
        ));
        samples
    }
}

impl Default for Process {
    fn default() -> Self {
        Self::new()
    }
}

/// Made when it is asked for: an idle proxy holds nothing of it.
fn rustls_info() -> Labels {
    let provider = identity::provider();
    let suites = provider.cipher_suites.iter();
    let suites: Vec<&str> = suites.filter_map(|suite| suite.suite().as_str()).collect();
    let groups = provider.kx_groups.iter();
    let groups: Vec<&str> = groups.filter_map(|group| group.name().as_str()).collect();
    Labels::builder()
        .add("tls_suites", &suites.join(","))
        .add("tls_kx_groups", &groups.join(","))
        .add("tls_rand", "AwsLcRs")
        .add("tls_key_provider", "AwsLcRs")
        .add("tls_fips", if provider.fips() { "true" } else { "false" })
        .build()
}

/// utime + stime of `/proc/self/stat`. The command name may hold spaces and parentheses, so count from the last `)`.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let after = stat.rsplit_once(')')?.1;
    let mut fields = after.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn status_number(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find(|line| line.starts_with(key))?;
    line[key.len()..]
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

fn max_open_files(limits: &str) -> Option<f64> {
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))?;
    line["Max open files".len()..]
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_strange_command_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 2 0 100 1000 200";
        assert_eq!(cpu_seconds(stat), Some(3.0));
    }

    #[test]
    fn this_process_has_memory_threads_and_descriptors() {
        let registry = Registry::new(Default::default());
        let samples = Process::new().samples(&registry);
        for family in [
            &families::PROCESS_RESIDENT_MEMORY_BYTES,
            &families::PROCESS_THREADS,
            &families::PROCESS_OPEN_FDS,
            &families::PROCESS_MAX_FDS,
        ] {
            let sample = samples
                .iter()
                .find(|sample| sample.family.name == family.name);
            assert!(
                sample.is_some_and(|sample| sample.value > 0.0),
                "{}",
                family.name
            );
        }
    }
}
