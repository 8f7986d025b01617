"""What the tests of the suite share: the API under test, kubectl, waiting."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

KUBECTL = Path(sys.executable).with_name("kubectl")


@dataclass(frozen=True)
class Cluster:
    """An API under test."""

    kubeconfig: Path
    embedded: bool


def wait_until(
    holds: Callable[[], object],
    what: str,
    *,
    seconds: float = 20,
    alive: "subprocess.Popen[bytes] | None" = None,
) -> Any:
    """Poll until something holds and return it; fail with its description."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = holds()
        if value:
            return value
        assert alive is None or alive.poll() is None, f"the process ended before {what}"
        time.sleep(0.05)
    pytest.fail(f"not within {seconds} s: {what}")


class Kubectl:
    """kubectl on one namespace of a cluster."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self.namespace = cluster, namespace

    def run(self, *arguments: str, stdin: str = "", check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run kubectl; with `check`, fail the test when kubectl fails."""
        command = [str(KUBECTL), "--namespace", self.namespace, *arguments]
        environment = {**os.environ, "KUBECONFIG": str(self._cluster.kubeconfig)}
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, env=environment, timeout=70, check=False
        )
        if check:
            assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}\n{done.stdout}"
        return done

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl and return what it prints."""
        return self.run(*arguments, stdin=stdin).stdout

    def fails(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl, expect it to fail, and return what it says."""
        done = self.run(*arguments, stdin=stdin, check=False)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start kubectl and let it run."""
        command = [str(KUBECTL), "--namespace", self.namespace, *arguments]
        environment = {**os.environ, "KUBECONFIG": str(self._cluster.kubeconfig)}
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
