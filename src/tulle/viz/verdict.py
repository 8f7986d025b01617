"""What a demonstration shows at its end, and whether it was one: pure functions of a Summary."""

from collections.abc import Sequence

from tulle.viz.answers import Summary

__all__ = ["failures", "lines"]


def failures(summary: Summary) -> list[str]:
    """Return one sentence for each reason why this was no working mesh; none means success.

    A mesh works when every Service was called, by mutual TLS, at least once.
    """
    found = [
        f"service {total.namespace}/{total.name} had no meshed traffic"
        + (f" ({total.requests} requests without mutual TLS)" if total.requests else "")
        for total in summary.services
        if not total.meshed_requests
    ]
    if not summary.services:
        found.append("no service was there to be called")
    return found


def lines(summary: Summary) -> Sequence[str]:
    """Return the summary as lines of text."""
    text = [
        f"requests      {summary.requests}",
        f"success rate  {_share(summary.successes, summary.requests)}",
        f"mTLS          {_share(summary.secured_requests, summary.requests)} of requests",
        f"edges         {summary.edges} between {summary.pods} meshed pods",
    ]
    if summary.latency_p50_ms is not None:
        quantiles = (summary.latency_p50_ms, summary.latency_p95_ms, summary.latency_p99_ms)
        shown = ", ".join(
            f"p{q} {value:.0f} ms"
            for q, value in zip((50, 95, 99), quantiles, strict=True)
            if value is not None
        )
        text.append(f"latency       {shown}")
    text += [
        f"  {total.namespace}/{total.name}: {total.requests} requests, {total.meshed_requests} by mTLS"
        for total in summary.services
    ]
    return text


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"
