"""A mesh's folder: held by one, gone afterwards, readable from outside."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tulle.errors import TulleError, UsageError
from tulle.local import state, stopping


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_a_held_mesh_is_known_and_afterwards_nothing_is_left(tmp_path: Path) -> None:
    with state.claim("demo") as folder:
        folder.tell(state.Running("demo", os.getpid(), "netns"))
        assert state.running("demo") == state.Running("demo", os.getpid(), "netns")
        assert state.running_names() == ["demo"]
        assert folder.path.stat().st_mode & 0o777 == 0o700
    assert state.running("demo") is None
    assert list((tmp_path / "tulle").iterdir()) == []


def test_a_name_is_held_once() -> None:
    with state.claim("demo"), pytest.raises(state.AlreadyRunning, match="demo is running already") as caught:
        with state.claim("demo"):
            pass
    assert "tulle down --name demo" in caught.value.next_step


def test_what_a_killed_mesh_left_is_swept() -> None:
    path = state.folder_of("demo")
    (path / "pods" / "x").mkdir(parents=True)
    (path / "running.json").write_text("{}")
    with state.claim("demo") as folder:
        assert [entry.name for entry in folder.path.iterdir()] == ["lock"]


def test_the_lock_of_a_killed_process_does_not_hold() -> None:
    program = "import os, signal; from tulle.local import state\nwith state.claim('demo'): os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert state.folder_of("demo").exists()
    assert state.running("demo") is None


@pytest.mark.parametrize("name", ["", "Demo", "a/b", "../up", "-a", "a-", "x" * 41])
def test_a_name_is_a_plain_word(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a mesh"):
        state.folder_of(name)


def test_without_a_name_the_only_mesh_is_meant() -> None:
    with pytest.raises(TulleError, match="no mesh runs"):
        stopping.choose_names(None, every=False)
    with state.claim("one"):
        assert stopping.choose_names(None, every=False) == ["one"]
        with pytest.raises(TulleError, match="no mesh named two runs"):
            stopping.choose_names("two", every=False)
        with state.claim("two"):
            assert stopping.choose_names(None, every=True) == ["one", "two"]
            with pytest.raises(TulleError, match="several meshes run"):
                stopping.choose_names(None, every=False)
