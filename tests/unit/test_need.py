"""What a build needs and a machine lacks is named at once, with the way to get it."""

import shutil
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/need.sh"
BASICS = ("sh", "sed", "uname", "printf")


def need(tmp_path: Path, **scripts: str) -> subprocess.CompletedProcess[str]:
    """Run the check where only the shell's basics and these scripts, by name, are found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in BASICS:
        found = shutil.which(name)
        if found:
            (folder / name).symlink_to(found)
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return subprocess.run(
        ["sh", str(SCRIPT)],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


PYTHON = f'exec {sys.executable} "$@"'
NEW_RUST = {"cargo": "echo cargo 1.90.0", "rustc": "echo 'rustc 1.90.0 (abc 2026-01-01)'"}


def test_a_machine_with_everything_is_silent(tmp_path: Path) -> None:
    done = need(tmp_path, python3=PYTHON, cc="exit 0", **NEW_RUST)
    assert (done.returncode, done.stderr) == (0, "")


def test_everything_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    done = need(tmp_path)
    assert done.returncode == 1
    for what in ("Python 3.11", "Rust 1.85", "C compiler"):
        assert what in done.stderr
    assert done.stderr.count("get:") == 3


def test_an_old_rust_is_named_with_its_version(tmp_path: Path) -> None:
    old = {"cargo": "echo cargo 1.63.0", "rustc": "echo 'rustc 1.63.0 (abc 2022-01-01)'"}
    done = need(tmp_path, python3=PYTHON, cc="exit 0", **old)
    assert done.returncode == 1
    assert "1.63.0" in done.stderr and "rustup update stable" in done.stderr


def test_a_python_without_venv_is_named(tmp_path: Path) -> None:
    python = 'case "$*" in *ensurepip*) exit 1;; *) exit 0;; esac'
    done = need(tmp_path, cc="exit 0", python3=python, **NEW_RUST)
    assert done.returncode == 1
    assert "python3-venv" in done.stderr
