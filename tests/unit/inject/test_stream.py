"""`tulle inject` and `uninject` as text in, text out, and through the command line."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tulle.errors import TulleError
from tulle.inject import InjectConfig
from tulle.inject.stream import annotate, remove, sidecar, transform

TWO_SERVICES = Path(__file__).parents[3] / "src/tulle/emojivoto/manifests/two-services.yaml"
CONFIG = InjectConfig(trust_anchors="PEM", proxy_image="tulle/proxy:1", proxy_version="1")
ENABLED = {"linkerd.io/inject": "enabled"}


def test_inject_annotates_workloads_and_reports_each_object() -> None:
    text, reports = transform(TWO_SERVICES.read_text(), "f.yaml", lambda obj: annotate(obj, ENABLED))
    assert [str(report) for report in reports] == [
        'deployment "voting-v1" injected',
        'service "voting" skipped',
        'deployment "emojisvc-v1" injected',
        'service "emojisvc" skipped',
    ]
    deployment = next(yaml.safe_load_all(text))
    assert deployment["spec"]["template"]["metadata"]["annotations"] == ENABLED


def test_uninject_undoes_inject_with_or_without_the_whole_sidecar() -> None:
    original = list(yaml.safe_load_all(TWO_SERVICES.read_text()))
    for change in (lambda obj: annotate(obj, ENABLED), lambda obj: sidecar(obj, CONFIG, ENABLED)):
        text, _ = transform(TWO_SERVICES.read_text(), "f.yaml", change)
        back, reports = transform(text, "f.yaml", remove)
        assert list(yaml.safe_load_all(back)) == original
        assert [report.outcome for report in reports] == ["uninjected", "skipped"] * 2


def test_manual_injection_writes_the_whole_sidecar() -> None:
    text, _ = transform(TWO_SERVICES.read_text(), "f.yaml", lambda obj: sidecar(obj, CONFIG, ENABLED))
    spec = next(yaml.safe_load_all(text))["spec"]["template"]["spec"]
    assert [c["name"] for c in spec["initContainers"]] == ["linkerd-init", "linkerd-proxy"]


def test_a_list_is_taken_apart_and_a_cronjob_reached_through_its_job() -> None:
    text = """
kind: List
items:
- kind: CronJob
  metadata: {name: nightly}
  spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: a}]}}}}}
"""
    out, reports = transform(text, "f", lambda obj: annotate(obj, ENABLED))
    assert [str(r) for r in reports] == ['cronjob "nightly" injected']
    template = yaml.safe_load(out)["spec"]["jobTemplate"]["spec"]["template"]
    assert template["metadata"]["annotations"] == ENABLED


def test_broken_yaml_names_file_line_and_column() -> None:
    with pytest.raises(TulleError, match=r"f\.yaml:2:1: broken YAML"):
        transform("a: 1\n\tb: 2\n", "f.yaml", remove)


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tulle", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_command_reads_stdin_and_reports_on_stderr() -> None:
    done = run("inject", "-", stdin=TWO_SERVICES.read_text())
    assert done.returncode == 0
    assert 'deployment "voting-v1" injected' in done.stderr
    back = run("uninject", "-", stdin=done.stdout)
    assert list(yaml.safe_load_all(back.stdout)) == list(yaml.safe_load_all(TWO_SERVICES.read_text()))


def test_wrong_usage_exits_with_2_and_bad_input_with_1() -> None:
    missing = run("inject", "no-such.yaml")
    assert missing.returncode == 2 and "no-such.yaml" in missing.stderr
    broken = run("inject", "-", stdin="a: [")
    assert (
        broken.returncode == 1 and "standard input:2:1" in broken.stderr and "Traceback" not in broken.stderr
    )
    flag = run("inject", "--opaque-ports", "0", "-")
    assert flag.returncode == 2 and "opaque-ports" in flag.stderr
    brief = run("install", "--set", "issuance_lifetime=5")
    assert brief.returncode == 2 and "choose at least 10 (seconds)" in brief.stderr
    value = run("install", "--set", "nothing=1")
    assert value.returncode == 2 and "choose among" in value.stderr
