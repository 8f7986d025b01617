"""Pages as sidecars write them, made from counts, for the tests of the metrics pipeline."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tulle.viz.ingest import Observer
from tulle.viz.latency import BOUNDS_MS
from tulle.viz.store import Workload

__all__ = ["Sidecar", "observer"]

LES = [*(f"{bound:g}" for bound in BOUNDS_MS[:15]), *(f"{bound:.0f}" for bound in BOUNDS_MS[15:]), "+Inf"]


def observer(pod: str = "web-1", namespace: str = "shop", owner: str = "web") -> Observer:
    return Observer(
        namespace,
        pod,
        Workload(namespace, "Deployment", owner),
        lambda port: "web-svc" if port == 8080 else "",
        lambda authority: ("shop", "lost-svc") if authority.startswith("lost-svc.") else ("", ""),
        frozenset({4191}),
    )


def text(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{value}"' for name, value in labels.items())


@dataclass
class Sidecar:
    """The counters of one sidecar; `page` writes them."""

    started: float = 1000.0
    lines: dict[str, float] = field(default_factory=dict)

    def rise(self, series: str, by: float) -> None:
        self.lines[series] = self.lines.get(series, 0) + by

    def answered(
        self, labels: Mapping[str, str], took_ms: float, *, success: bool = True, times: int = 1
    ) -> None:
        """Count answers as the sidecar would: the outcome, and every bucket that holds the latency."""
        outcome = {"status_code": "200" if success else "500"}
        both = outcome | {"classification": "success" if success else "failure"}
        self.rise(f"response_total{{{text({**labels, **both})}}}", times)
        for le in LES:
            inside = took_ms <= float(le)
            self.rise(
                f"response_latency_ms_bucket{{{text({**labels, **outcome, 'le': le})}}}",
                times if inside else 0,
            )

    def restart(self, at: float) -> None:
        self.started = at
        self.lines.clear()

    def page(self) -> bytes:
        lines = ["# HELP response_total Answers.", "# TYPE response_total counter"]
        lines += [f"{series} {value:g}" for series, value in self.lines.items()]
        lines += [
            'proxy_build_info{version="0.1.0",vendor="tulle"} 1',
            f"process_start_time_seconds {self.started}",
            "identity_cert_expiration_timestamp_seconds 99999",
            "something_else_total 4",
            "",
        ]
        return "\n".join(lines).encode()


INBOUND = {
    "direction": "inbound",
    "target_port": "8080",
    "tls": "true",
    "client_id": "default.shop.serviceaccount.identity.linkerd.cluster.local",
    "route_kind": "default",
    "route_name": "default",
}
PLAIN = {"direction": "inbound", "target_port": "8080", "tls": "no_identity", "route_name": "default"}
OUTBOUND = {
    "direction": "outbound",
    "authority": "api.shop.svc.cluster.local:80",
    "target_port": "80",
    "tls": "true",
    "dst_deployment": "api",
    "dst_namespace": "shop",
    "dst_pod": "api-1",
    "dst_service": "api-svc",
}
