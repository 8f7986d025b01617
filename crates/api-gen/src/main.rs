//! Writes crates/api/src/gen from proto/: `scripts/protos.sh` runs it.
//!
//! It is a program of its own, and its output is committed, so that building the proxy neither generates code nor
//! needs this program's dependencies.

use std::path::Path;

/// The services' code is compiled only where it is used: the engine needs the messages alone.
const GRPC_ONLY: &str = "#[cfg(feature = \"grpc\")]";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let protos = root.join("proto");
    let out = root.join("crates/api/src/gen");

    let mut files = Vec::new();
    for folder in ["tulle/api", "envoy", "spiffe", "opentelemetry"] {
        for entry in std::fs::read_dir(protos.join(folder))? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "proto")
            {
                files.push(path);
            }
        }
    }
    files.sort();

    let descriptors = protox::compile(&files, [&protos])?;
    std::fs::create_dir_all(&out)?;
    tonic_prost_build::configure()
        .out_dir(&out)
        .build_transport(false)
        .client_mod_attribute(".", GRPC_ONLY)
        .server_mod_attribute(".", GRPC_ONLY)
        // Labels are written out in a stable order.
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
