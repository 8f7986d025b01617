"""Bad input to `tulle up`: one clear message each, the right exit code, nothing half-started left behind."""

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.e2e.machine import Traces
from tests.e2e.mesh import SOURCE, Mesh, mesh, tulle

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

SERVICE = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n"


def refuse(home: Path, text: str, *words: str) -> tuple[int, str]:
    """Run `tulle up` on a manifest; return exit code and the error, and see that nothing is left."""
    manifest = home / "app.yaml"
    manifest.write_text(text)
    told = tulle(home / "state", "up", str(manifest), *words)
    assert "Traceback" not in told.stderr
    left = [path for path in (home / "state").rglob("*") if not path.is_dir()]
    assert left == []
    return told.returncode, told.stderr.replace(str(manifest), "app.yaml")


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        pytest.param("a: [\n", 1, "app.yaml:2:1: not valid YAML", id="broken YAML"),
        pytest.param("kind: Service\n", 1, "app.yaml:1: apiVersion is missing", id="no version"),
        pytest.param(
            "# top\napiVersion: v1\nkind: Servicee\nmetadata: {name: web}\n",
            1,
            "app.yaml:3: there is no kind Servicee in v1",
            id="unknown kind",
        ),
        pytest.param(
            SERVICE + "  ports: [{port: 80}]\n  portss: []\n",
            1,
            'app.yaml:7: Service web was refused\n  Service in version "v1" cannot be handled as a Service: '
            'strict decoding error: unknown field "spec.portss"',
            id="unknown field",
        ),
        pytest.param(
            SERVICE + "  ports:\n  - name: a\n    port: eighty\n",
            1,
            'app.yaml:8: Service web was refused\n  Service in version "v1" cannot be handled as a Service: json',
            id="a value of another type",
        ),
        pytest.param(
            SERVICE + "  ports:\n  - port: 99999\n", 1, "app.yaml:7: Service web was refused", id="bad value"
        ),
        pytest.param(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - {name: x, image: 'shop/till:2'}\n",
            1,
            "app.yaml:1: Pod a: container x: nothing to run for image shop/till:2",
            id="no image mapping",
        ),
    ],
)
def test_a_manifest_that_cannot_run_is_refused_with_its_place(
    tmp_path: Path, text: str, code: int, expected: str
) -> None:
    exit_code, error = refuse(tmp_path, text, "--mode", "loopback")
    assert exit_code == code
    assert error.startswith(f"error: {expected}"), error


def test_an_image_without_a_program_comes_with_the_lines_to_add(tmp_path: Path) -> None:
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: x, image: 'shop/till:2'}]}\n"
    _, error = refuse(tmp_path, pod)
    lines = [line.strip() for line in error.splitlines()[-3:]]
    assert lines[:2] == ["[[images]]", 'image = "shop/till:*"']
    assert lines[2].startswith("command = [")


WITHOUT_PRIVILEGE = (
    "unshare", "-Ur", "sh", "-c",
    'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all "$@"', "sh",
)  # fmt: skip
unprivileged = pytest.mark.skipif(
    subprocess.run([*WITHOUT_PRIVILEGE, "true"], capture_output=True, check=False).returncode != 0
    if shutil.which("unshare") and shutil.which("setpriv")
    else True,
    reason="no way to take all privileges away: needs unshare, setpriv and a user namespace to do it in",
)


@unprivileged
@pytest.mark.parametrize("mode", ["netns", "userns"])
def test_a_network_without_its_privilege_says_what_is_missing(tmp_path: Path, mode: str) -> None:
    manifest = tmp_path / "app.yaml"
    manifest.write_text(SERVICE + "  ports: [{port: 80}]\n")
    told = tulle(tmp_path, "up", str(manifest), "--mode", mode, before=WITHOUT_PRIVILEGE)
    assert told.returncode == 2
    what, why, hint = told.stderr.splitlines()
    assert what == f"error: --mode {mode} cannot run on this machine"
    assert "unshare: " in why
    assert "--mode loopback" in hint


@unprivileged
def test_without_any_privilege_pods_run_on_loopback(tmp_path: Path) -> None:
    manifest = SOURCE / "tulle" / "emojivoto" / "manifests" / "two-services.yaml"
    running = Mesh(tmp_path / "state", ["up", str(manifest)], before=WITHOUT_PRIVILEGE)
    try:
        running.wait_until_ready()
        assert running.lines[0].startswith("network: loopback (")
        with urlopen(running.url("voting.default"), timeout=20) as answer:
            assert answer.status == 200
    finally:
        running.end()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["up"], "nothing to start"),
        (["up", "/no/such/file.yaml"], "/no/such/file.yaml does not exist"),
        (["up", "/no/such/file.yaml", "--name", "Not A Name"], "'Not A Name' cannot be the name of a mesh"),
        (["demo", "--for", "soon"], "'soon' is not a span of time"),
        (["down", "--name", "../up"], "'../up' cannot be the name of a mesh"),
    ],
)
def test_a_wrong_call_has_exit_code_2(tmp_path: Path, words: list[str], expected: str) -> None:
    told = tulle(tmp_path, *words)
    assert (told.returncode, expected in told.stderr) == (2, True), told.stderr


def test_a_missing_sidecar_program_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TULLE_PROXY_BINARY", "/no/such/tulle-proxy")
    code, error = refuse(tmp_path, SERVICE + "  ports: [{port: 80}]\n")
    assert (code, "the program tulle-proxy is not installed" in error) == (1, True)


def test_a_port_in_use_is_passed_over(tmp_path: Path) -> None:
    manifest = tmp_path / "app.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        manifest.write_text(SERVICE + f"  ports:\n  - port: {port}\n")
        with mesh(tmp_path / "state", "loopback", str(manifest)) as running:
            assert running.url("web.default") != f"http://127.0.0.1:{port}"


def test_a_detached_mesh_goes_on_until_it_is_told_to_end(tmp_path: Path) -> None:
    manifest = tmp_path / "app.yaml"
    manifest.write_text(SERVICE + "  ports: [{port: 80}]\n")
    started = tulle(tmp_path, "up", str(manifest), "--mode", "loopback", "--name", "away", "--detach")
    try:
        assert started.returncode == 0, started.stderr
        assert "ready in " in started.stdout
        assert tulle(tmp_path, "kubeconfig").stdout.strip() == str(tmp_path / "tulle" / "away" / "kubeconfig")
    finally:
        ended = tulle(tmp_path, "down")
    assert (ended.returncode, ended.stdout) == (0, "away has ended\n")
    assert list((tmp_path / "tulle").iterdir()) == []
    assert tulle(tmp_path, "down").returncode == 1


def test_a_mesh_that_is_interrupted_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    manifest = tmp_path / "app.yaml"
    manifest.write_text(SERVICE + "  ports: [{port: 80}]\n")
    traces = Traces(tmp_path / "state")
    starting = Mesh(tmp_path / "state", ["up", str(manifest), "--mode", "loopback"])
    while not starting.lines:  # the first line is said when the world is about to be made
        assert starting.process.poll() is None
        time.sleep(0.01)
    assert starting.end(signal.SIGINT) == 1
    assert "stopped before everything was ready" in starting.log
    assert traces.left() == {}
