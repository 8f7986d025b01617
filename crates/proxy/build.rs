//! Links the sidecar with startup.ld, which puts the functions that every sidecar runs before its first request next
//! to each other: Linux maps 64 KiB of a binary around each page that is touched, so scattered they cost 2 MB more (docs/performance.md).
//!
//! The script is understood by GNU ld and LLD, which are what rustc uses on Linux; with a linker that was chosen by
//! hand it is left out. Without it the sidecar works the same and is larger in memory.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=startup.ld");
    let told = |name: &str| env::var(name).unwrap_or_default();
    let chosen_by_hand =
        env::var_os("RUSTC_LINKER").is_some() || told("CARGO_ENCODED_RUSTFLAGS").contains("link");
    if told("CARGO_CFG_TARGET_OS") == "linux" && !chosen_by_hand {
        let script = format!("{}/startup.ld", told("CARGO_MANIFEST_DIR"));
        println!("cargo:rustc-link-arg-bin=tulle-proxy=-Wl,-T,{script}");
    }
}
