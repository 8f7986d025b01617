//! Writes the reference pages that are generated from the sidecar's source into `docs/reference`.

mod headers;
mod limits;
mod pages;
mod source;

fn main() -> std::io::Result<()> {
    let folder = source::root().join("docs/reference");
    for (name, text) in pages::all() {
        std::fs::write(folder.join(name), text)?;
        println!("wrote docs/reference/{name}");
    }
    Ok(())
}
