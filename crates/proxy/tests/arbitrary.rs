//! The drivers of the fuzz targets (`fuzz/`), with a bounded number of inputs: noise, the seeds of the corpus, and the
//! seeds with octets changed, cut and doubled. So a driver that no longer compiles or holds shows with every test run.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[path = "../../../fuzz/drivers/mod.rs"]
mod drivers;

/// Inputs of each kind per driver.
const CASES: u32 = 3_000;
/// Of a driver together; an input of which one takes longer than a tenth of this is a finding too.
const PATIENCE: Duration = Duration::from_secs(60);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The seeds of a target, in the order of their names.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder().join("seeds").join(target)) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn run(target: &str) {
    let (_, driver) = drivers::ALL
        .iter()
        .find(|(name, _)| *name == target)
        .unwrap_or_else(|| panic!("there is no driver {target}"));
    let begun = Instant::now();
    let timed = |bytes: &[u8]| {
        let since = Instant::now();
        driver(bytes);
        assert!(since.elapsed() < PATIENCE / 10, "{bytes:?}");
    };
    let seeds = seeds(target);
    seeds.iter().for_each(|seed| timed(seed));
    let mut runner = TestRunner::new_with_rng(
        Config {
            cases: CASES,
            failure_persistence: None,
            ..Config::default()
        },
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let noise = proptest::collection::vec(any::<u8>(), 0..400);
    runner
        .run(&noise, |bytes| {
            timed(&bytes);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{target}: {error}"));
    if !seeds.is_empty() {
        let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
        let changed = (
            prop::sample::select(seeds),
            changes,
            any::<prop::sample::Index>(),
            0..4_u8,
        );
        runner
            .run(&changed, |(mut seed, changes, place, how)| {
                for (place, value) in changes {
                    if let Some(at) = (!seed.is_empty()).then(|| place.index(seed.len())) {
                        seed[at] = value;
                    }
                }
                let at = place.index(seed.len() + 1);
                match how {
                    0 => seed.truncate(at),
                    1 => seed.extend_from_within(at..),
                    _ => {}
                }
                timed(&seed);
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{target}: {error}"));
    }
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn every_driver_is_run_here_and_has_its_target() {
            let here = [$(stringify!($name)),*];
            let drivers: Vec<&str> = drivers::ALL.iter().map(|(name, _)| *name).collect();
            assert_eq!(here[..], drivers);
            let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
            let mut targets: Vec<String> = fs::read_dir(folder().join("fuzz_targets"))
                .unwrap()
                .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
                .collect();
            targets.sort();
            assert_eq!(targets, drivers);
            for name in drivers {
                let path = format!("fuzz_targets/{name}.rs");
                assert!(manifest.contains(&path), "{path} is not in fuzz/Cargo.toml");
                let text = fs::read_to_string(folder().join(path)).unwrap();
                assert!(text.contains(&format!("run(\"{name}\"")), "{name}: {text}");
            }
        }
    };
}

targets! {
    balancer breaker client_hello deadlines detection discovery dns_answer h1 h2_client h2_server hpack inbound_policy
    jwt outbound_policy proxy_protocol rate_limit retry routes tap trace_context
    transport_header
}
