"""Two pods in each network: addresses, capture of Service addresses, names, files, processes and their ends."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.machine import MODES, modes_here

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def seen(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the pods of one mode saw."""
    script = Path(__file__).with_name("pods_in_a_network.py")
    source = Path(__file__).parents[2] / "src"
    run = subprocess.run(
        [sys.executable, str(script), request.param],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(source)},
    )
    assert run.returncode == 0, run.stderr
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return result


every = pytest.mark.parametrize("seen", MODES, indirect=True, scope="module")
isolated = pytest.mark.parametrize("seen", modes_here("netns", "userns"), indirect=True, scope="module")


@every
def test_each_pod_has_an_address_and_keeps_it(seen: dict[str, Any]) -> None:
    assert seen["same"]
    assert seen["ips"][0] != seen["ips"][1]


@every
def test_the_node_reaches_a_pod_by_its_address(seen: dict[str, Any]) -> None:
    assert seen["dialled"].startswith("two saw ")


@isolated
def test_a_service_is_reached_by_short_and_full_name(seen: dict[str, Any]) -> None:
    assert seen["by name"] == seen["by full name"] == f"two saw {seen['ips'][0]}"


@isolated
def test_a_service_is_reached_by_udp(seen: dict[str, Any]) -> None:
    assert seen["by UDP"] == f"hello to {seen['ips'][0]}"


@isolated
def test_a_pod_reaches_itself_through_its_service(seen: dict[str, Any]) -> None:
    assert seen["itself"] == "one saw 10.42.0.1"


@isolated
def test_a_service_without_endpoints_refuses_at_once(seen: dict[str, Any]) -> None:
    assert "Connection refused" in seen["refused"] or "Couldn't connect" in seen["refused"]
    assert "Connection refused" in seen["unknown port"] or "Couldn't connect" in seen["unknown port"]


@isolated
def test_the_c_library_resolves_services_headless_ones_and_their_hosts(seen: dict[str, Any]) -> None:
    assert seen["web.other"] == seen["alias.other"] == "['10.96.7.7']"
    assert seen["heads.other"] == seen["two.heads.other.svc.cluster.local"] == f"['{seen['ips'][1]}']"


@isolated
def test_a_container_sees_its_mounts_and_the_machine_keeps_its_files(seen: dict[str, Any]) -> None:
    hostname, contents, *rest = seen["inside"].splitlines()
    assert hostname == "one"
    assert contents == "t0ken" * 3
    assert "written" not in rest, "a read-only mount was written to"
    assert rest == ["touched"], "/etc is the container's own copy once a mount point was made in it"
    assert seen["on the machine"] == []


@pytest.mark.parametrize("seen", modes_here("netns"), indirect=True, scope="module")
def test_a_container_runs_as_the_user_it_asks_for(seen: dict[str, Any]) -> None:
    assert seen["uid"] == "65534"


@pytest.mark.parametrize("seen", modes_here("userns"), indirect=True, scope="module")
def test_in_a_user_namespace_there_is_one_user(seen: dict[str, Any]) -> None:
    assert seen["uid"] == "0"


@pytest.mark.parametrize("seen", modes_here("loopback"), indirect=True, scope="module")
def test_pods_on_loopback_reach_each_other_at_their_real_ports(seen: dict[str, Any]) -> None:
    assert seen["direct"].startswith("two saw 127.")


@every
def test_a_process_inherits_no_descriptor(seen: dict[str, Any]) -> None:
    assert seen["descriptors"] == "4", "three streams, and the one with which ls reads the folder"


@every
def test_a_program_that_is_not_there_is_named_with_the_step(seen: dict[str, Any]) -> None:
    assert seen["no program"] == ["run /no/such/program", 2]


@every
def test_nothing_outlives_its_container_or_its_pod(seen: dict[str, Any]) -> None:
    assert not seen["left behind by an ended container"]
    assert seen["ended with its pod"] == -9
