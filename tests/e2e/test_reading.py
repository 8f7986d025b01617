"""The commands that read a running mesh: stat, metrics, exec, logs, check; each as a person calls it."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.mesh import Mesh, environment, mesh

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

BUSY_WITHIN = 30.0


def call(home: Path, *words: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """Run one command without a KUBECONFIG: it has to find the mesh that runs."""
    surroundings = environment(home) | {"HOME": str(home)}
    surroundings.pop("KUBECONFIG", None)
    return subprocess.run(
        [sys.executable, "-m", "tulle", *words],
        env=surroundings,
        input=stdin,
        capture_output=True,
        timeout=30,
        check=False,
    )


def text(home: Path, *words: str) -> str:
    done = call(home, *words)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with mesh(tmp_path_factory.mktemp("home"), "loopback", command="demo") as found:
        deadline = time.monotonic() + BUSY_WITHIN
        while time.monotonic() < deadline:
            rows = json.loads(text(found.home, "stat", "svc", "-A", "-o", "json"))["rows"]
            called = {row["name"] for row in rows if row["golden"]["requests"]}
            if {"web-svc", "emoji-svc", "voting-svc", "voting", "emojisvc"} <= called:
                yield found
                return
            time.sleep(0.5)
        raise AssertionError(f"only {called} were called\n{found.log}")


def test_stat_shows_golden_metrics_of_workloads(running: Mesh) -> None:
    lines = text(running.home, "stat", "deploy", "-n", "emojivoto").splitlines()
    assert lines[0].split() == [
        *("NAME", "MESHED", "SUCCESS", "RPS"),
        *("LATENCY_P50", "LATENCY_P95", "LATENCY_P99", "TCP_CONN"),
    ]
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    assert set(rows) == {"emoji", "vote-bot", "voting", "web"}
    assert rows["emoji"][:2] == ["1/1", "100.00%"]
    assert rows["emoji"][2].endswith("rps") and float(rows["emoji"][2].removesuffix("rps")) > 0
    assert all(cell.endswith("ms") for cell in rows["web"][3:6])
    assert rows["vote-bot"] == ["1/1", "-", "-", "-", "-", "-", "0"]


def test_stat_knows_kinds_names_namespaces_and_forms(running: Mesh) -> None:
    wide = text(running.home, "stat", "svc/voting", "-o", "wide").splitlines()
    assert wide[0].split()[-2:] == ["MTLS", "REQUESTS"]
    assert wide[1].split()[0] == "voting" and wide[1].split()[-2] == "100.00%"
    everywhere = text(running.home, "stat", "po", "-A").splitlines()
    assert {line.split()[0] for line in everywhere[1:]} == {"default", "emojivoto", "linkerd"}
    [row] = json.loads(text(running.home, "stat", "ns", "emojivoto", "-o", "json"))["rows"]
    assert (row["kind"], row["meshed"], row["pods"]) == ("Namespace", 4, 4)


def test_stat_shows_the_failures_of_a_service_that_selects_nothing(running: Mesh) -> None:
    nobody = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "nobody"},
        "spec": {"selector": {"app": "nobody"}, "ports": [{"port": 80}]},
    }
    kubectl = [str(Path(sys.executable).with_name("kubectl")), "--kubeconfig", str(running.kubeconfig)]
    apply = [*kubectl, "apply", "-f", "-"]
    subprocess.run(apply, input=json.dumps(nobody).encode(), check=True, timeout=20, capture_output=True)
    call_it = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://nobody/")
    deadline = time.monotonic() + BUSY_WITHIN
    while text(running.home, "exec", "deploy/voting-v1", "--", *call_it) != "503":
        assert time.monotonic() < deadline, "the Service is not known"
        time.sleep(0.2)
    while True:
        [row] = json.loads(text(running.home, "stat", "svc", "nobody", "-o", "json"))["rows"]
        if row["golden"]["requests"]:
            assert (row["golden"]["success_rate"], row["pods"]) == (0.0, 0)
            return
        assert time.monotonic() < deadline, row
        time.sleep(0.5)


def test_stat_refuses_in_words(running: Mesh) -> None:
    unknown = call(running.home, "stat", "ingress")
    assert unknown.returncode == 2
    assert b"'ingress' is none of deploy" in unknown.stderr
    missing = call(running.home, "stat", "deploy", "nothing")
    assert missing.returncode == 1
    assert missing.stderr.decode().splitlines() == [
        "error: Deployment nothing is not there in namespace default",
        "  no such resource, or none of its pods runs",
        "  list them: tulle stat deploy -A",
    ]
    too_long = call(running.home, "stat", "deploy", "-t", "3h")
    assert too_long.returncode == 2


def test_metrics_prints_the_sidecars_own_page(running: Mesh) -> None:
    page = text(running.home, "metrics", "deploy/voting", "-n", "emojivoto")
    assert 'http_requests_total{direction="inbound",dst_pod="voting-' in page
    assert 'src_pod="web-' in page, "the client's name comes from its certificate"
    assert page.endswith("\n")


def test_exec_passes_streams_and_the_exit_code_on(running: Mesh) -> None:
    done = call(
        running.home,
        *("exec", "-i", "deploy/web", "-n", "emojivoto", "--"),
        *("sh", "-c", "cat; echo oops >&2; exit 7"),
        stdin=b"in\x00put\n",
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, b"in\x00put\n", b"oops\n")


def test_exec_runs_inside_the_pods_network(running: Mesh) -> None:
    script = "import os, urllib.request as u; print(u.urlopen('http://voting.default/', timeout=20).status)"
    out = text(running.home, "exec", "deploy/emojisvc-v1", "--", sys.executable, "-c", script)
    assert out == "200\n"


def test_exec_of_what_is_not_there_is_told_in_words(running: Mesh) -> None:
    done = call(running.home, "exec", "deploy/web", "-n", "emojivoto", "--", "no-such-program")
    assert done.returncode == 1
    assert done.stderr.decode().startswith(
        "error: no-such-program could not be run in container web-svc of pod web-"
    )


def test_logs_are_those_of_the_application_or_the_container_named(running: Mesh) -> None:
    bot = text(running.home, "logs", "deploy/vote-bot", "-n", "emojivoto", "--tail", "2")
    assert len(bot.splitlines()) == 2
    sidecar = text(running.home, "logs", "deploy/web", "-n", "emojivoto", "-c", "linkerd-proxy")
    assert "certificate obtained" in sidecar


def test_logs_follow_as_more_is_written(running: Mesh) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tulle", "logs", "-f", "--tail", "0", "deploy/vote-bot", "-n", "emojivoto"],
        env=environment(running.home) | {"KUBECONFIG": str(running.kubeconfig)},
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        assert process.stdout.readline()
    finally:
        process.kill()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


def test_logs_of_a_run_that_never_was_are_refused_in_words(running: Mesh) -> None:
    done = call(running.home, "logs", "-p", "deploy/web", "-n", "emojivoto")
    assert done.returncode == 1
    assert b"previous terminated container" in done.stderr


def test_check_passes_and_fails_with_a_hint_when_something_is_taken_away(running: Mesh) -> None:
    report = json.loads(text(running.home, "check", "-o", "json"))
    assert report["success"] is True
    names = [category["categoryName"] for category in report["categories"]]
    assert names == ["machine", "kubernetes-api", "control-plane", "certificates", "proxies"]
    sidecars = report["categories"][-1]["checks"]
    assert len(sidecars) == 7
    assert all("is ready, its certificate valid for 23 h" in check["description"] for check in sidecars)

    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    name = "linkerd-policy-validator-webhook-config"
    kubectl = [str(Path(sys.executable).with_name("kubectl")), "--kubeconfig", str(running.kubeconfig)]
    subprocess.run(
        [*kubectl, "delete", "--raw", f"{path}/{name}"], check=True, timeout=20, capture_output=True
    )
    done = call(running.home, "check")
    assert done.returncode == 1
    lines = done.stdout.decode().splitlines()
    place = lines.index(f"× {name} is there")
    assert lines[place + 1 : place + 3] == [
        "    it is not there",
        "    hint: install it: tulle install | kubectl apply -f -",
    ]
    assert lines[-1] == "Status check results are ×"


@pytest.mark.parametrize(
    "words", [("stat", "deploy"), ("metrics", "web"), ("logs", "web"), ("exec", "web", "--", "ls")]
)
def test_without_a_mesh_every_command_says_how_to_get_one(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = call(tmp_path, *words)
    assert done.returncode == 1
    assert done.stderr.decode().startswith("error: no Kubernetes API to talk to")
    assert "tulle up" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_check_without_a_mesh_still_judges_the_machine(tmp_path: Path) -> None:
    done = call(tmp_path, "check", "-o", "json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["success"]) == (1, False)
    assert [category["categoryName"] for category in report["categories"]] == ["machine", "kubernetes-api"]
    assert call(tmp_path, "check", "--pre").returncode == 0


def test_a_mesh_that_has_gone_is_told_in_words(tmp_path: Path, running: Mesh) -> None:
    config = running.kubeconfig.read_text()
    address = config.partition("server: https://")[2].split()[0]
    (tmp_path / "config").write_text(config.replace(address, "127.0.0.1:1"))
    done = call(tmp_path, "stat", "deploy", "--kubeconfig", str(tmp_path / "config"))
    assert done.returncode == 1
    assert done.stderr.decode().startswith("error: the Kubernetes API https://127.0.0.1:1 does not answer")
