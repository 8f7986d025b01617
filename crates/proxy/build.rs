//! How the sidecar is linked: in the order of `startup.ld`, and with the C library inside where the machine has it so.
//!
//! `startup.ld` puts the functions that every sidecar runs before its first request next to each other: Linux maps
//! 64 KiB of a binary around each page that is touched, so scattered they cost 2 MB more (docs/performance.md).
//!
//! With the C library inside, a sidecar runs on any Linux of its architecture, in an empty image too, and maps 1.5 MB
//! less. `-C target-feature=+crt-static` would do that, but cargo gives it to procedural macros as well, which cannot
//! be built so, unless every build names a target. Hence the same by hand, for this one binary: the linker is told to
//! make a static, position-independent program, and finds, in place of each shared library that rustc names, a
//! script that names the archive.
//!
//! Both are understood by GNU ld and LLD, which are what rustc uses on Linux; with a linker that was chosen by hand
//! they are left out. Without them the sidecar works the same and is larger in memory.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What rustc names for a program on Linux with glibc, and the archives that are in its place.
const LIBRARIES: [(&str, &str); 7] = [
    ("gcc_s", "-l:libgcc_eh.a -l:libgcc.a -l:libc.a"),
    ("c", "-l:libc.a -l:libgcc_eh.a -l:libgcc.a"),
    ("m", "-l:libm.a"),
    ("dl", "-l:libdl.a"),
    ("pthread", "-l:libpthread.a"),
    ("rt", "-l:librt.a"),
    ("util", "-l:libutil.a"),
];
/// What a static, position-independent program starts with: not on every machine that has a compiler.
const START_FILE: &str = "rcrt1.o";

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=startup.ld");
    let told = |name: &str| env::var(name).unwrap_or_default();
    let chosen_by_hand =
        env::var_os("RUSTC_LINKER").is_some() || told("CARGO_ENCODED_RUSTFLAGS").contains("link");
    if told("CARGO_CFG_TARGET_OS") != "linux" || chosen_by_hand {
        return Ok(());
    }
    println!(
        "cargo:rustc-link-arg-bin=tulle-proxy=-Wl,-T,{}/startup.ld",
        told("CARGO_MANIFEST_DIR")
    );
    // Another machine's C library is its own affair: a cross compiler is chosen by hand.
    if told("CARGO_CFG_TARGET_ENV") == "gnu"
        && told("HOST") == told("TARGET")
        && has_archives()
        && relocates_packed()
    {
        let scripts = write_scripts(&PathBuf::from(told("OUT_DIR")))?;
        for argument in [
            &format!("-L{}", scripts.display()),
            "-static-pie",
            // A weak symbol that nobody defines is null, and not the address at which the program is loaded.
            "-Wl,-z,nodynamic-undefined-weak",
            // 0.6 MB less to read at start.
            "-Wl,-z,pack-relative-relocs",
        ] {
            println!("cargo:rustc-link-arg-bin=tulle-proxy={argument}");
        }
    }
    Ok(())
}

/// Whether the C compiler, which rustc links with, has all that a static program needs.
fn has_archives() -> bool {
    let archives = LIBRARIES.iter().flat_map(|(_, named)| named.split(' '));
    archives
        .filter_map(|named| named.strip_prefix("-l:"))
        .chain([START_FILE])
        .all(|file| find(file).is_some())
}

fn write_scripts(out: &Path) -> io::Result<PathBuf> {
    let folder = out.join("static");
    fs::create_dir_all(&folder)?;
    for (name, archives) in LIBRARIES {
        fs::write(
            folder.join(format!("lib{name}.so")),
            format!("GROUP({archives})\n"),
        )?;
    }
    Ok(folder)
}

/// Where the C compiler has a file.
fn find(file: &str) -> Option<PathBuf> {
    let asked = Command::new("cc")
        .arg(format!("-print-file-name={file}"))
        .output()
        .ok()?;
    let path = PathBuf::from(String::from_utf8(asked.stdout).ok()?.trim());
    path.is_absolute().then_some(path) // What it does not have it names back, without a folder.
}

/// Whether this C library, which relocates itself in a static program, knows the packed form: since glibc 2.36. Older
/// ones have threads in a library of their own, which is not safe to link so; with them the sidecar is linked as usual.
fn relocates_packed() -> bool {
    let library = find("libc.so.6").and_then(|path| fs::read(path).ok());
    let marked = b"GLIBC_ABI_DT_RELR";
    library.is_some_and(|bytes| bytes.windows(marked.len()).any(|window| window == marked))
}
