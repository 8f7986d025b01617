"""The control plane's own /metrics: gauges and counters read at scrape time from the parts that count."""

import gc
import resource
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tulle.clock import Clock
from tulle.control.hub import Hub
from tulle.control.identity import IdentityService
from tulle.control.issuing import IssuerKeeper
from tulle.control.lag import Lag
from tulle.control.limits import StreamLimits
from tulle.kube.watching import Watcher

__all__ = ["Sample", "Sources", "exposition"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of a family."""

    name: str
    kind: str
    help: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


@dataclass
class Sources:
    """What is counted; parts of roles that do not run are None."""

    clock: Clock
    watcher: Watcher
    hub: Hub
    limits: StreamLimits
    lag: Lag
    identity: IdentityService | None = None
    issuer: IssuerKeeper | None = None
    extra: Callable[[], Iterable[Sample]] = tuple

    def samples(self) -> Iterator[Sample]:
        """Read all counters."""
        for reflector in self.watcher.reflectors.values():
            labels = (("kind", str(reflector.kind)),)
            yield Sample("kube_reflector_objects", "gauge", "Objects known", len(reflector.store), labels)
            yield Sample("kube_reflector_synced", "gauge", "1 once listed", reflector.synced, labels)
            yield Sample(
                "kube_reflector_stale",
                "gauge",
                "1 while it cannot be kept in step",
                bool(reflector.trouble),
                labels,
            )
            yield Sample(
                "kube_reflector_relists_total", "counter", "Lists after a 410", reflector.relists, labels
            )
        yield Sample(
            "event_loop_lag_seconds", "gauge", "Longest delay of the loop lately", round(self.lag.worst, 4)
        )
        yield Sample("grpc_streams_open", "gauge", "Streams open", self.limits.open)
        yield Sample("grpc_streams_refused_total", "counter", "Streams over a bound", self.limits.refused)
        yield Sample("hub_groups", "gauge", "Distinct answers being kept", len(self.hub))
        yield Sample("hub_computed_total", "counter", "Answers computed", self.hub.computed)
        yield Sample("hub_published_total", "counter", "Answers that had changed", self.hub.published)
        yield Sample("hub_failed_total", "counter", "Answers that could not be computed", self.hub.failed)
        if self.identity is not None:
            for outcome, count in self.identity.outcomes.items():
                labels = (("outcome", outcome),)
                yield Sample("identity_certify_total", "counter", "Certificate requests", count, labels)
        if self.issuer is not None and (issuer := self.issuer.current) is not None:
            ttl = (issuer.not_after - self.clock.now()).total_seconds()
            yield Sample("issuer_cert_ttl_seconds", "gauge", "Until the issuer expires", ttl)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield Sample("process_cpu_seconds_total", "counter", "CPU used", usage.ru_utime + usage.ru_stime)
        yield Sample("process_resident_memory_bytes", "gauge", "Resident memory", _resident())
        yield Sample(
            "python_gc_collections_total",
            "counter",
            "Collections",
            sum(s["collections"] for s in gc.get_stats()),
        )
        yield from self.extra()


def exposition(samples: Iterable[Sample]) -> str:
    """Render samples as Prometheus text; families stay together in the order they first appear."""
    families: dict[str, list[Sample]] = {}
    for sample in samples:
        families.setdefault(sample.name, []).append(sample)
    lines = []
    for name, members in families.items():
        lines.append(f"# HELP {name} {members[0].help}.")
        lines.append(f"# TYPE {name} {members[0].kind}")
        for sample in members:
            labels = ",".join(f'{key}="{_escape(value)}"' for key, value in sample.labels)
            lines.append(
                f"{name}{{{labels}}} {sample.value:g}" if labels else f"{name} {float(sample.value)!r}"
            )
    return "\n".join(lines) + "\n"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
