"""What the sidecar runs on: the oldest Rust, other processors, and which libraries of the machine it asks for."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIDECAR = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/tulle-proxy"


def test_the_oldest_rust_is_the_same_wherever_it_is_named() -> None:
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    oldest = manifest["workspace"]["package"]["rust-version"]
    for crate in (ROOT / "crates").glob("*/Cargo.toml"):
        assert tomllib.loads(crate.read_text())["package"]["rust-version"] == {"workspace": True}, crate
    for name, pattern in {
        "README.md": r"Rust ≥ (\d+\.\d+)",
        "scripts/need.sh": r"Rust (\d+\.\d+) or newer",
        "Makefile": r"cargo \+(\d+\.\d+) ",
        "docs/builds.md": r"Rust (\d+\.\d+) (?:or newer|itself)",
    }.items():
        assert set(re.findall(pattern, (ROOT / name).read_text())) == {oldest}, name


def lacks(target: str, compiler: str, package: str) -> str:
    """Return what the machine lacks for a target, as the Makefile's check says it."""
    command = ["sh", str(ROOT / "scripts/target.sh"), target, compiler, package]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode == 0) == (done.stderr == "")
    return done.stderr


def test_a_target_that_is_not_there_is_said_with_the_way_to_get_it() -> None:
    said = lacks("riscv64gc-unknown-linux-nowhere", "riscv64-nowhere-gcc", "gcc-riscv64-nowhere")
    assert "rustup target add riscv64gc-unknown-linux-nowhere" in said or "install it with your Rust" in said
    assert "apt-get install gcc-riscv64-nowhere" in said


def test_codecs_and_decisions_compile_for_arm64() -> None:
    # The rest of the sidecar needs the cryptography library in C: minutes; `make check-arm64`.
    target = "aarch64-unknown-linux-gnu"
    missing = lacks(target, "aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")
    if missing:
        pytest.skip(missing)
    command = ["cargo", "check", "--quiet", "--release", "--locked", "--offline", "--target", target]
    done = subprocess.run(
        [*command, "-p", "tulle-http", "-p", "tulle-engine"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# What a sidecar asks for that was linked on a machine whose C library cannot be put inside (docs/builds.md).
SHARED = {
    "linux-vdso.so.1",
    "libgcc_s.so.1",
    "libm.so.6",
    "libc.so.6",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
}


@pytest.mark.skipif(
    not shutil.which("ldd"), reason="ldd tells which libraries a program asks for; it is not here"
)
def test_the_sidecar_asks_for_no_library_but_the_c_library() -> None:
    done = subprocess.run(["ldd", str(SIDECAR)], capture_output=True, text=True, timeout=30, check=False)
    said = done.stdout + done.stderr
    if "statically linked" in said or "not a dynamic executable" in said:
        return
    asked = {Path(line.split()[0]).name for line in done.stdout.splitlines()}
    assert "libc.so.6" in asked, said
    assert asked <= SHARED
