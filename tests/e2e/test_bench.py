"""The comparison itself works: real sidecars under the real control plane answer the load generators. Nothing is timed."""

from pathlib import Path

import pytest

from tests.bench import compare
from tests.bench.load import TARGET, load_generator
from tests.bench.measure import Contestant, measure
from tests.bench.places import Places, loopback, namespaces, why_no_namespaces
from tests.bench.scenarios import SCENARIOS
from tests.bench.sidecars import control_plane, linkerd_binary

SECONDS = 0.3


@pytest.fixture(scope="module")
def load() -> Path:
    return load_generator()


def _check(name: str, contestant: Contestant, load: Path, places: Places) -> None:
    cell = measure(contestant, SCENARIOS[name], places, load, SECONDS, prove=True)
    assert cell.full.errors == 0
    assert cell.full.requests or cell.full.bytes
    assert cell.full.cpu.total > 0
    if cell.paced is not None:
        assert cell.paced.errors == 0
        assert cell.paced.p50_ms > 0


def test_on_loopback_requests_and_calls_pass_two_sidecars(load: Path, tmp_path: Path) -> None:
    places = loopback()
    with control_plane(places, tmp_path):
        (tulle, *_), _ = compare.contestants(TARGET / "tulle-proxy", places, tmp_path)
        for name in ("a", "b", "c"):
            _check(name, tulle, load, places)


@pytest.mark.skipif(bool(why_no_namespaces()), reason=f"network namespaces: {why_no_namespaces()}")
def test_between_namespaces_every_scenario_passes_and_all_between_the_sidecars_is_tls(
    load: Path, tmp_path: Path
) -> None:
    with namespaces() as places, control_plane(places, tmp_path):
        (tulle, *_), _ = compare.contestants(TARGET / "tulle-proxy", places, tmp_path)
        for name in SCENARIOS:
            _check(name, tulle, load, places)


@pytest.mark.skipif(bool(why_no_namespaces()), reason=f"network namespaces: {why_no_namespaces()}")
@pytest.mark.skipif(linkerd_binary() is None, reason="LINKERD2_PROXY_BIN names no linkerd2-proxy")
def test_linkerd2_proxy_takes_part_in_every_scenario(load: Path, tmp_path: Path) -> None:
    with namespaces() as places, control_plane(places, tmp_path):
        found, _ = compare.contestants(TARGET / "tulle-proxy", places, tmp_path)
        linkerd = next(each for each in found if each.name == "linkerd2-proxy")
        for name in SCENARIOS:
            _check(name, linkerd, load, places)
