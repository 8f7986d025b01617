"""From a sidecar's page to rises of rows: which series count, for whom, and how much they rose since the last look.

A series is understood once; afterwards its line costs one look-up by the hash of its text (the texts themselves would
be a megabyte per sidecar). A value below the last one means that the counter began anew.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from tulle.viz.exposition import Malformed, labels_of, name_of, samples, value_of
from tulle.viz.latency import bucket_of
from tulle.viz.store import FAILURE, LATENCY, READ, SUCCESS, WRITE, Edge, Row, Served, Store, Workload

__all__ = ["Ingest", "Observer", "Proxy"]

MAX_SERIES_PER_POD = 20_000  # what a sidecar's registry holds at most
MAX_SERIES = 200_000  # of all pods together, about 40 MB

_CONNECTIONS = -1  # the column of a gauge
_LONG = 19  # digits that may exceed 63 bits
LONGEST_NAME = 253  # of anything in Kubernetes
_LABEL_KINDS = {
    "dst_deployment": "Deployment",
    "dst_statefulset": "StatefulSet",
    "dst_daemonset": "DaemonSet",
    "dst_cronjob": "CronJob",
    "dst_k8s_job": "Job",
    "dst_replicaset": "ReplicaSet",
    "dst_replicationcontroller": "ReplicationController",
    "dst_pod": "Pod",
}
_START = "process_start_time_seconds"
_EXPIRY = "identity_cert_expiration_timestamp_seconds"
_BUILD = "proxy_build_info"
_NAMES = frozenset(
    {
        b"response_total",
        b"response_latency_ms_bucket",
        b"tcp_open_connections",
        b"tcp_read_bytes_total",
        b"tcp_write_bytes_total",
        _START.encode(),
        _EXPIRY.encode(),
        _BUILD.encode(),
    }
)


@dataclass(frozen=True)
class Observer:
    """The pod whose sidecar is read. `service_at(port)` names the Service by which others reach that port of the
    pod, `service_of(authority)` the (namespace, name) that an authority or address means; both empty when unknown.
    """

    namespace: str
    pod: str
    workload: Workload
    service_at: Callable[[int], str]
    service_of: Callable[[str], tuple[str, str]]
    ignored_ports: Collection[int] = ()


@dataclass(slots=True)
class Series:
    """A series that feeds rows: its last value, and the round in which it was last seen."""

    rows: tuple[Row, ...]
    column: int
    last: int = 0
    seen: int = 0


@dataclass
class Proxy:
    """What is known of one pod's sidecar."""

    observer: Observer
    started: float = 0.0
    certificate_expiry: float = 0.0
    version: str = ""
    pages: int = 0
    series: dict[int, Series | None] = field(default_factory=dict)


class Ingest:
    """Feeds a store with pages."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.proxies: dict[tuple[str, str], Proxy] = {}
        self.refused = 0
        self.known = 0

    def take(self, observer: Observer, page: bytes, last_round: float) -> None:
        """Add what a sidecar counted since its last page.

        On its first page everything counts for the totals; it also counts for this round if the sidecar started after
        `last_round` (Unix seconds). Raises Malformed; what was read before stays counted.
        """
        key = (observer.namespace, observer.pod)
        proxy = self.proxies.get(key)
        if proxy is not None and proxy.observer.workload != observer.workload:
            self.forget(*key)
            proxy = None
        if proxy is None:
            proxy = self.proxies[key] = Proxy(observer)
        proxy.observer = observer
        found = list(samples(page, _NAMES))
        before = proxy.started
        for text, value in found:
            if text == _START.encode():
                proxy.started = value_of(value)
        anew = before != proxy.started and proxy.pages > 0
        in_round = proxy.pages > 0 or proxy.started >= last_round
        proxy.pages += 1
        for text, value in found:
            self._sample(proxy, text, value, anew, in_round)
        self._drop_unseen(proxy, len(found))

    def forget(self, namespace: str, pod: str) -> None:
        """A pod is gone: its connections are closed; what it counted stays until it has aged."""
        proxy = self.proxies.pop((namespace, pod), None)
        if proxy is not None:
            for series in proxy.series.values():
                self._release(series)
            self.known -= len(proxy.series)

    def _sample(self, proxy: Proxy, text: bytes, value: bytes, anew: bool, in_round: bool) -> None:
        ident = hash(text)
        try:
            series = proxy.series[ident]
        except KeyError:
            if len(proxy.series) >= MAX_SERIES_PER_POD or self.known >= MAX_SERIES:
                self.refused += 1
                return
            series = proxy.series[ident] = self._understand(proxy, text, value)
            self.known += 1
        if series is None:
            if text.startswith(_EXPIRY.encode()):
                proxy.certificate_expiry = value_of(value)
            return
        number = int(value) if len(value) < _LONG and value.isdigit() else _whole(value_of(value))
        series.seen = proxy.pages
        if series.column == _CONNECTIONS:
            for row in series.rows:
                row.connections += number - series.last
        else:
            rise = number if anew or number < series.last else number - series.last
            if rise:
                for row in series.rows:
                    if in_round:
                        row.add(self.store.slot, series.column, rise, self.store.now)
                    else:
                        row.add_total(series.column, rise)
        series.last = number

    def _understand(self, proxy: Proxy, text: bytes, value: bytes) -> Series | None:
        """Decide what a new series feeds; None for nothing."""
        name, labels = name_of(text), labels_of(text)
        if name == _BUILD:
            proxy.version = labels.get("version", "")
            return None
        column = _column(name, labels)
        if column is None:
            return None
        rows = self._rows(proxy.observer, labels, is_tcp=name.startswith("tcp_"))
        for row in rows:
            row.users += 1
        return Series(rows, column) if rows else None

    def _rows(self, observer: Observer, labels: dict[str, str], *, is_tcp: bool) -> tuple[Row, ...]:
        port = labels.get("target_port", "")
        if port.isdigit() and int(port) in observer.ignored_ports:
            return ()
        peer = labels.get("peer", "")
        if labels.get("direction") == "inbound":
            # Probes come from the node, not from users; and what goes on to the application is the same bytes again.
            if labels.get("route_name") == "probe" or (is_tcp and peer != "src"):
                return ()
            return self._inbound(observer, labels, int(port) if port.isdigit() else 0)
        if is_tcp and peer != "dst":
            return ()
        return self._outbound(observer, labels)

    def _inbound(self, observer: Observer, labels: dict[str, str], port: int) -> tuple[Row, ...]:
        store = self.store
        secured = labels.get("tls") == "true" and bool(labels.get("client_id"))
        served = Served(observer.namespace, observer.pod, observer.workload, _route(labels), secured)
        rows = [store.row(store.served, served)]
        if not secured:
            # A meshed client tells of its calls itself; of others only the server knows.
            edge = Edge(Workload("", "", ""), observer.workload, observer.service_at(port), secured=False)
            rows.append(store.row(store.edges, edge))
        return tuple(row for row in rows if row is not None)

    def _outbound(self, observer: Observer, labels: dict[str, str]) -> tuple[Row, ...]:
        namespace, service = labels.get("dst_namespace", ""), labels.get("dst_service", "")
        if not service:
            of_authority = observer.service_of(labels.get("authority", ""))
            namespace, service = (namespace or of_authority[0]), of_authority[1]
        kind, name = next(
            ((kind, labels[label]) for label, kind in _LABEL_KINDS.items() if labels.get(label)), ("", "")
        )
        if not name and not service:
            return ()  # what lies outside the mesh has no name to list it under
        if max(map(len, (namespace, service, name))) > LONGEST_NAME:
            return ()
        edge = Edge(observer.workload, Workload(namespace, kind, name), service, labels.get("tls") == "true")
        row = self.store.row(self.store.edges, edge)
        return () if row is None else (row,)

    def _drop_unseen(self, proxy: Proxy, shown: int) -> None:
        """Let go of series that the sidecar has forgotten. Those that feed nothing cost little and go in bulk."""
        before = len(proxy.series)
        gone = [
            ident
            for ident, series in proxy.series.items()
            if series is not None and series.seen != proxy.pages
        ]
        for ident in gone:
            self._release(proxy.series.pop(ident))
        if len(proxy.series) > 2 * shown:
            proxy.series = {ident: series for ident, series in proxy.series.items() if series is not None}
        self.known -= before - len(proxy.series)

    @staticmethod
    def _release(series: Series | None) -> None:
        if series is None:
            return
        for row in series.rows:
            row.users -= 1
            if series.column == _CONNECTIONS:
                row.connections -= series.last


def _column(name: str, labels: dict[str, str]) -> int | None:
    match name:
        case "response_total":
            return SUCCESS if labels.get("classification") == "success" else FAILURE
        case "response_latency_ms_bucket":
            place = bucket_of(labels.get("le", ""))
            return None if place is None else LATENCY + place
        case "tcp_open_connections":
            return _CONNECTIONS
        case "tcp_read_bytes_total":
            return READ
        case "tcp_write_bytes_total":
            return WRITE
        case _:
            return None


def _route(labels: dict[str, str]) -> str:
    kind, name = labels.get("route_kind", "default"), labels.get("route_name", "")
    return "" if kind == "default" else f"{kind}/{name}"[:LONGEST_NAME]


def _whole(number: float) -> int:
    """Counters are whole; what no counter can be is an error of the page. Raises Malformed."""
    if not 0 <= number < 2**63:
        raise Malformed(f"{number} is not a count")
    return int(number)
