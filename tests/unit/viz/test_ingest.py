"""Pages become rises of rows: what counts, for whom, across resets, restarts, pods that go, and bounds."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.viz.sidecar import INBOUND, OUTBOUND, PLAIN, Sidecar, observer
from tulle.viz import ingest as ingest_module
from tulle.viz import store as store_module
from tulle.viz.exposition import Malformed
from tulle.viz.ingest import Ingest
from tulle.viz.store import Counts, Edge, Served, Store, Workload

WEB = Workload("shop", "Deployment", "web")
API = Workload("shop", "Deployment", "api")
SERVED = Served("shop", "web-1", WEB, "", secured=True)


class Mesh:
    """A store with one sidecar, read once a second."""

    def __init__(self) -> None:
        self.store, self.sidecar, self.time = Store(), Sidecar(), 2000.0
        self.ingest = Ingest(self.store)

    def look(self, sidecar: Sidecar | None = None, pod: str = "web-1") -> None:
        self.store.begin(self.time)
        self.ingest.take(observer(pod), (sidecar or self.sidecar).page(), self.time - 1)
        self.store.end(self.time)
        self.time += 1

    def over(self, key: Served | Edge, seconds: float = 60.0) -> Counts:
        rows = self.store.served.rows if isinstance(key, Served) else self.store.edges.rows
        return rows[key].over(self.store.window(seconds))  # type: ignore[index]


@pytest.fixture
def mesh() -> Mesh:
    return Mesh()


def test_what_was_counted_before_the_first_look_counts_for_the_total_only(mesh: Mesh) -> None:
    mesh.sidecar.answered(INBOUND, 3, times=5)
    mesh.look()
    mesh.sidecar.answered(INBOUND, 3, times=2)
    mesh.look()
    assert mesh.over(SERVED).requests == 2
    assert mesh.store.served.rows[SERVED].total.requests == 7


def test_a_sidecar_that_started_since_the_last_round_counts_at_once(mesh: Mesh) -> None:
    mesh.look()
    newcomer = Sidecar(started=mesh.time - 0.5)
    newcomer.answered(INBOUND, 3, times=4)
    mesh.look(newcomer, "web-2")
    assert mesh.over(SERVED._replace(pod="web-2")).requests == 4


def test_a_series_that_appears_later_counts_from_zero(mesh: Mesh) -> None:
    mesh.look()
    mesh.sidecar.answered(INBOUND, 3, success=False, times=4)
    mesh.look()
    assert (mesh.over(SERVED).success, mesh.over(SERVED).failure) == (0, 4)


def test_a_counter_that_falls_has_begun_anew(mesh: Mesh) -> None:
    mesh.look()
    mesh.sidecar.answered(INBOUND, 3, times=10)
    mesh.look()
    mesh.sidecar.lines = {series: value * 0.3 for series, value in mesh.sidecar.lines.items()}
    mesh.look()
    assert mesh.over(SERVED).requests == 13


def test_a_restart_is_seen_even_when_the_counter_is_higher_than_before(mesh: Mesh) -> None:
    mesh.look()
    mesh.sidecar.answered(INBOUND, 3, times=2)
    mesh.look()
    mesh.sidecar.restart(at=mesh.time)
    mesh.sidecar.answered(INBOUND, 3, times=5)
    mesh.look()
    assert mesh.over(SERVED).requests == 7


def test_open_connections_are_those_of_now_and_close_with_the_pod(mesh: Mesh) -> None:
    labels = (
        'tcp_open_connections{direction="inbound",peer="src",target_port="8080",tls="true",client_id="x"}'
    )
    mesh.sidecar.lines[labels] = 3
    mesh.look()
    assert mesh.over(SERVED).connections == 3
    mesh.sidecar.lines[labels] = 1
    mesh.look()
    assert mesh.over(SERVED).connections == 1
    mesh.ingest.forget("shop", "web-1")
    assert mesh.over(SERVED).connections == 0


def test_a_gauge_whose_series_is_forgotten_closes_too(mesh: Mesh) -> None:
    labels = 'tcp_open_connections{direction="inbound",peer="src",tls="true",client_id="x"}'
    mesh.sidecar.lines[labels] = 3
    mesh.look()
    del mesh.sidecar.lines[labels]
    mesh.look()
    assert mesh.over(SERVED).connections == 0


def test_an_outbound_series_is_an_edge_to_the_workload_and_service_it_names(mesh: Mesh) -> None:
    mesh.look()
    mesh.sidecar.answered(OUTBOUND, 12, times=3)
    mesh.look()
    assert mesh.over(Edge(WEB, API, "api-svc", secured=True)).requests == 3


def test_a_call_that_found_no_endpoint_is_an_edge_to_the_service_alone(mesh: Mesh) -> None:
    mesh.look()
    labels = {"direction": "outbound", "authority": "lost-svc.shop.svc.cluster.local:80"}
    mesh.sidecar.answered(labels, 1, success=False)
    mesh.look()
    assert mesh.over(Edge(WEB, Workload("shop", "", ""), "lost-svc", secured=False)).failure == 1


def test_a_client_without_a_sidecar_is_an_edge_from_outside(mesh: Mesh) -> None:
    mesh.look()
    mesh.sidecar.answered(PLAIN, 2, times=6)
    mesh.look()
    assert mesh.over(Edge(Workload("", "", ""), WEB, "web-svc", secured=False)).requests == 6
    assert mesh.over(SERVED._replace(secured=False)).requests == 6


def test_probes_and_the_admin_port_are_not_traffic(mesh: Mesh) -> None:
    mesh.look()
    mesh.sidecar.answered(PLAIN | {"route_name": "probe"}, 2)
    mesh.sidecar.answered(OUTBOUND | {"target_port": "4191"}, 2)
    mesh.sidecar.answered({"direction": "outbound", "authority": "example.org:443"}, 2)
    mesh.look()
    assert not mesh.store.edges.rows
    assert not mesh.store.served.rows


def test_bytes_are_those_of_the_peer_not_of_the_application(mesh: Mesh) -> None:
    mesh.look()
    for peer, count in (("src", 100), ("dst", 900)):
        labels = f'direction="inbound",peer="{peer}",tls="true",client_id="x"'
        mesh.sidecar.lines[f"tcp_read_bytes_total{{{labels}}}"] = count
        mesh.sidecar.lines[f"tcp_write_bytes_total{{{labels}}}"] = count * 2
    mesh.look()
    assert (mesh.over(SERVED).read, mesh.over(SERVED).write) == (100, 200)


def test_what_a_page_tells_of_the_sidecar_is_kept(mesh: Mesh) -> None:
    mesh.look()
    proxy = mesh.ingest.proxies["shop", "web-1"]
    assert (proxy.version, proxy.certificate_expiry, proxy.pages) == ("0.1.0", 99999.0, 1)


@pytest.mark.parametrize(
    "line",
    [b'response_total{direction="inbound"} NaN', b"response_total{x} 1", b"process_start_time_seconds soon"],
)
def test_a_page_that_is_none_is_refused(mesh: Mesh, line: bytes) -> None:
    with pytest.raises(Malformed):
        mesh.ingest.take(observer(), line + b"\n", 0.0)


FRAGMENTS = st.sampled_from(
    [
        b"response_total",
        b"response_latency_ms_bucket",
        b"tcp_open_connections",
        b"process_start_time_seconds",
        b"proxy_build_info",
        b'{direction="inbound",tls="true",client_id="x"}',
        b'{direction="outbound",dst_service="s",dst_namespace="n",le="5"}',
        b'{direction="inbound",peer="src",target_port="99999999999999999999"}',
        *(b"{", b"}", b'"', b"\\", b",", b"=", b" ", b"\n", b"\xff", b"#"),
        *(b"1", b"-5", b"1e999", b"nan", b"9" * 25, b"9" * 5000, b"0x10", b"1_000"),
    ]
)


@given(st.lists(st.lists(FRAGMENTS, max_size=30), min_size=1, max_size=4))
def test_any_bytes_are_taken_or_refused_as_malformed(pages: list[list[bytes]]) -> None:
    mesh = Mesh()
    for fragments in pages:
        mesh.store.begin(mesh.time)
        with suppress(Malformed):
            mesh.ingest.take(observer(), b"".join(fragments), 0.0)
        mesh.store.end(mesh.time)
        mesh.time += 1
    for table in (mesh.store.served, mesh.store.edges):
        for _, row in table:
            counts = row.over(mesh.store.window(60))
            assert min(counts.success, counts.failure, counts.read, counts.connections) >= 0
    mesh.ingest.forget("shop", "web-1")
    assert mesh.ingest.known == 0


def test_an_absurd_rise_is_cut_and_breaks_nothing(mesh: Mesh) -> None:
    mesh.look()
    mesh.sidecar.lines[
        'response_total{direction="inbound",tls="true",client_id="x",classification="success"}'
    ] = 2**60
    mesh.look()
    assert mesh.over(SERVED).success == 2**32 - 1


def test_series_beyond_the_bound_are_refused_and_counted(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "MAX_SERIES_PER_POD", 10)
    for n in range(50):
        mesh.sidecar.rise(f'response_total{{direction="inbound",tls="true",client_id="{n}"}}', 1)
    mesh.look()
    assert len(mesh.ingest.proxies["shop", "web-1"].series) == 10
    assert mesh.ingest.refused >= 40


def test_rows_beyond_the_bound_are_refused_and_counted(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_ROWS", 3)
    for n in range(9):
        mesh.sidecar.rise(
            f'response_total{{direction="outbound",dst_service="s{n}",dst_namespace="shop"}}', 1
        )
    mesh.look()
    assert len(mesh.store.edges) == 3
    assert mesh.store.refused == 6


def test_ignored_series_that_come_and_go_do_not_pile_up(mesh: Mesh) -> None:
    for n in range(100):
        mesh.sidecar.lines = {f'response_total{{direction="outbound",authority="a{n}.example"}}': 1}
        mesh.look()
    assert len(mesh.ingest.proxies["shop", "web-1"].series) < 20


def test_a_row_that_nothing_feeds_is_forgotten_after_its_rest(mesh: Mesh) -> None:
    mesh.look()
    mesh.sidecar.answered(INBOUND, 3)
    mesh.look()
    mesh.ingest.forget("shop", "web-1")
    mesh.store.begin(mesh.time)
    mesh.store.end(mesh.time + 299)
    assert SERVED in mesh.store.served.rows
    mesh.store.begin(mesh.time + 300)
    mesh.store.end(mesh.time + 301)
    assert SERVED not in mesh.store.served.rows
