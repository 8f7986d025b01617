//! Writes the reference pages that are generated from the sidecar's source: the environment and the metrics.

use std::fs;

fn main() -> std::io::Result<()> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference");
    fs::create_dir_all(folder)?;
    fs::write(
        format!("{folder}/environment.md"),
        tulle_proxy::config::help::markdown(),
    )?;
    fs::write(
        format!("{folder}/metrics.md"),
        tulle_proxy::metrics::families::markdown(),
    )?;
    println!("wrote environment.md and metrics.md");
    Ok(())
}
