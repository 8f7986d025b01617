"""The package as a user gets it: a wheel installed into an empty environment, and the demo run from it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]


def uv() -> str:
    found = shutil.which("uv") or str(ROOT / ".uv/bin/uv")
    if not Path(found).exists():
        pytest.skip("uv is neither on PATH nor in .uv: run `make build`")
    return found


def run(*command: str | Path, **env: str) -> str:
    # An empty environment but for what programs are found by; the checkout must not lend its packages.
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        cwd="/",
        env={**kept, **env},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_demo_runs_from_the_wheel_in_an_empty_environment(tmp_path: Path) -> None:
    run(uv(), "build", "--wheel", "--out-dir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("tulle-*.whl")
    assert wheel.stat().st_size < 20_000_000
    assert "cp311-abi3" in wheel.name
    environment = tmp_path / "env"
    run(uv(), "venv", "--python", sys.executable, environment)
    run(uv(), "pip", "install", "--python", environment / "bin/python", wheel)
    for name in ("tulle", "tulle-proxy"):
        assert (environment / "bin" / name).exists()
    assert run(
        environment / "bin/python", "-c", "import tulle._engine; print(tulle._engine.__file__)"
    ).startswith(str(environment))
    printed = run(
        environment / "bin/tulle",
        *("demo", "--for", "8s", "--mode", "loopback", "--name", f"wheel-{os.getpid()}"),
        XDG_STATE_HOME=str(tmp_path / "state"),
    )
    assert "mTLS" in printed and "success rate" in printed
