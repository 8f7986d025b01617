"""The command line starts fast, imports late, and shows an example for every verb."""

import subprocess
import sys

import pytest

from tulle.cli import VERBS

HEAVY = ("grpc", "lightkube", "rich", "textual", "starlette", "cryptography", "yaml")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tulle", *arguments], capture_output=True, text=True, timeout=30, check=False
    )


def test_help_imports_nothing_heavy() -> None:
    script = "import sys, tulle.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert not set(HEAVY) & set(done.stdout.split())
    listed = run("--help")
    assert listed.returncode == 0
    assert all(verb in listed.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    done = run(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert "Example" in done.stdout


def test_an_unknown_verb_is_wrong_usage() -> None:
    done = run("uup")
    assert done.returncode == 2
    assert "uup" in done.stderr
