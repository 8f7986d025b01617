"""h2spec, strict: every case passes. The suite's cases mean something only before a server that answers 200."""

import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.http2.go_programs import built
from tests.http2.sidecar import Server
from tests.http2.wire import Client, Outcome, request

pytestmark = pytest.mark.timeout(480)

CASES = 146


def test_every_case_passes(server: Server, tmp_path: Path) -> None:
    program = built("h2spec", "github.com/summerwind/h2spec/cmd/h2spec")
    with Client(server.port) as client:
        client.send(request(1))
        assert client.outcome(1) == Outcome("status", 200)
    report = tmp_path / "report.xml"
    target = ["-h", "127.0.0.1", "-p", str(server.port)]
    done = subprocess.run(
        [program, "--strict", *target, "--timeout", "3", "--junit-report", report],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    cases = list(ElementTree.parse(report).iter("testcase"))
    wrong = [
        f"{case.get('package')}: {case.get('classname')}"
        for case in cases
        if case.find("failure") is not None
        or case.find("error") is not None
        or case.find("skipped") is not None
    ]
    assert (len(cases), wrong) == (CASES, []), done.stdout[-3000:]
