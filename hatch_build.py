"""The wheel's native parts: the sidecar as a script `tulle-proxy`, the engine as the module `tulle._engine`.

Why a hook and not maturin: maturin makes a wheel of either a binary or an extension module and, with a binary,
refuses `[project.scripts]`; we have one of each and a Python command. Cargo is called as `make` calls it, so a
checkout that was built is not compiled again. An editable install builds nothing: there `make` does.
"""

import os
import platform
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeParts(BuildHookInterface):
    """Builds the two native parts with cargo and adds them to a standard wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the binary, the module and a platform tag; raises RuntimeError when cargo is missing or fails."""
        if version == "editable" or self.target_name != "wheel":
            return
        if shutil.which("cargo") is None:
            raise RuntimeError(
                "cargo was not found: the sidecar is built from source; install Rust 1.85 or newer"
            )
        root = Path(self.root)
        subprocess.run(
            ["cargo", "build", "--release", "--locked", "-p", "tulle-proxy", "-p", "tulle-engine-py"],
            cwd=root,
            check=True,
        )
        release = Path(os.environ.get("CARGO_TARGET_DIR", root / "target")) / "release"
        build_data["pure_python"] = False
        # abi3: one wheel serves every CPython from 3.11 on.
        build_data["tag"] = f"cp311-abi3-{_platform_tag()}"
        build_data["shared_scripts"][str(self._stripped(release / "tulle-proxy"))] = "tulle-proxy"
        module = self._stripped(release / "libtulle_engine_py.so")
        build_data["force_include"][str(module)] = "tulle/_engine.abi3.so"

    def _stripped(self, built: Path) -> Path:
        """Return a copy without debug information, where the machine has `strip`."""
        copy = Path(self.directory) / ".native" / built.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(built, copy)
        if shutil.which("strip"):
            subprocess.run(["strip", "--strip-unneeded", str(copy)], check=True)
        return copy

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the stripped copy."""
        shutil.rmtree(Path(self.directory) / ".native", ignore_errors=True)


def _platform_tag() -> str:
    """Return manylinux with this machine's glibc (what the binary is linked against), else plain linux."""
    architecture = sysconfig.get_platform().removeprefix("linux-").replace("-", "_").replace(".", "_")
    library, number = platform.libc_ver()
    if library == "glibc":
        major, minor = number.split(".")[:2]
        return f"manylinux_{major}_{minor}_{architecture}"
    return f"linux_{architecture}"
