"""Which kubeconfig a command takes."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tulle.cli.cluster import kubeconfig_of
from tulle.errors import TulleError
from tulle.local.state import claim


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return tmp_path


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_the_one_given_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/other")
    assert kubeconfig_of("/given") == "/given"
    assert kubeconfig_of(None) == "/other"


def test_without_a_mesh_the_usual_places_are_meant() -> None:
    assert kubeconfig_of(None) is None


def test_the_only_mesh_is_meant_whatever_its_name(home: Path, running: ExitStack) -> None:
    running.enter_context(claim("demo"))
    assert kubeconfig_of(None) == str(home / "tulle" / "demo" / "kubeconfig")


def test_of_several_the_one_with_the_default_name_is_meant(home: Path, running: ExitStack) -> None:
    running.enter_context(claim("demo"))
    running.enter_context(claim("other"))
    with pytest.raises(TulleError, match="several meshes run"):
        kubeconfig_of(None)
    running.enter_context(claim("tulle"))
    assert kubeconfig_of(None) == str(home / "tulle" / "tulle" / "kubeconfig")
