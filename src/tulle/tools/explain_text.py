"""An explanation as lines for people: what decides first, then what nearly did, each with where it was written."""

from collections.abc import Iterator

from tulle.tools.explain_origin import Origin
from tulle.tools.explanation import BackendStep, CandidateStep, Explanation, ServerStep
from tulle.tools.verdict import OutboundVerdict

__all__ = ["lines"]

COLUMN = 96
OUTCOMES = {
    "allowed": "allowed",
    "refused": "REFUSED",
    "mixed": "MIXED",
    "outside": "outside the mesh",
}


def lines(explanation: Explanation) -> Iterator[str]:
    """Yield the lines. Origins stand at the right, as `file:line` where that is known."""
    client = explanation.client
    yield f"{explanation.method} {explanation.url} from {client.workload}"
    yield ""
    identity = (
        f"identity {client.identity}" if client.identity else "no sidecar, so no identity and no routes"
    )
    yield _line("client", f"pod {client.pod} {client.address}, {identity}", client.origin)
    yield _line("target", explanation.target, explanation.target_origin)
    if explanation.outbound is not None:
        yield from _outbound(explanation.outbound, explanation.candidates)
    for backend in explanation.backends:
        yield from _backend(backend)
    yield ""
    yield _line("verdict", f"{OUTCOMES[explanation.outcome]}: {explanation.summary}")
    for hint in sorted(_hints(explanation)):
        yield _line("hint", hint)


def _line(label: str, text: str, origin: Origin | None = None) -> str:
    body = f"{label:<10} {text}".rstrip()
    return f"{body:<{COLUMN}}  {origin}" if origin is not None else body


def _outbound(outbound: OutboundVerdict, candidates: list[CandidateStep]) -> Iterator[str]:
    yield _line(
        "protocol", {"detect": "detected from the first bytes"}.get(outbound.protocol, outbound.protocol)
    )
    rule = outbound.rule
    if rule is None:
        yield _line("route", "none matches")
    for step in candidates:
        if step.candidate.outcome == "matched":
            candidate = step.candidate
            yield _line("route", f"{candidate.route}, rule {candidate.rule}: {candidate.asks}", step.origin)
    if rule is not None and not any(step.candidate.outcome == "matched" for step in candidates):
        yield _line("route", f"{rule.route}, rule {rule.rule}")
    yield from _others(candidates)
    if rule is None:
        return
    for name, limit in (
        ("request", rule.timeouts.request),
        ("response", rule.timeouts.response),
        ("idle", rule.timeouts.idle),
    ):
        if limit is not None:
            yield _line("", f"  {name} timeout {limit} ms")
    if rule.max_retries:
        yield _line("", f"  up to {rule.max_retries} retries")
    for change in rule.filters:
        yield _line("", f"  a filter {change}")


def _others(candidates: list[CandidateStep]) -> Iterator[str]:
    """Name every match that did not decide, and why."""
    for step in candidates:
        candidate = step.candidate
        if candidate.outcome == "matched":
            continue
        if candidate.outcome == "shadowed":
            why = "holds as well, but one more specific or earlier decides"
        else:
            why = f"not so: {candidate.because}, saw {candidate.saw}"
        yield _line("  not", f"{candidate.route}, rule {candidate.rule}: {why}", step.origin)


def _backend(step: BackendStep) -> Iterator[str]:
    yield _line("backend", f"{step.share:4.0%} {step.name}", step.origin)
    if step.reason is not None:
        yield _line("", f"  {step.reason.code}: {step.why or step.reason.text}")
    told: list[tuple[str, ...]] = []
    for server in step.servers:
        said = tuple(_server(server))
        where = f"pod {server.pod} at {server.address}" if server.pod else server.address
        how = "over mTLS" if server.mtls else "in plain text"
        yield _line("", f"  endpoint {where}, {how}")
        # The pods of one workload mostly say the same.
        if said not in told:
            told.append(said)
            yield from said


def _server(server: ServerStep) -> Iterator[str]:
    verdict = server.verdict
    if verdict is None:
        yield _line("", "    no sidecar: nothing is asked of the client")
        return
    route = ""
    if verdict.route is not None and verdict.route.kind != "default":
        route = f", {verdict.route}, rule {verdict.rule}"
    yield _line("", f"    policy {verdict.server}{route}", server.rule_origin or server.origin)
    for authorization in server.authorizations:
        says = "lets the client in"
        if authorization.lacks is not None:
            says = f"needs {authorization.lacks}, saw {authorization.saw}"
        for index, origin in enumerate(authorization.origins):
            yield _line(
                "", f"      {authorization.name} {says}" if index == 0 else f"        {origin.object}", origin
            )
    if not server.authorizations:
        yield _line("", "      no authorization, so nobody comes in", server.origin)
    for requirement in verdict.also:
        yield _line("", f"      would also need {requirement.needs} ({requirement.object})", server.origin)
    for why in server.inert:
        yield _line("", f"      {why}, so it lets nobody in")
    if verdict.reason is not None:
        yield _line("", f"      {verdict.reason.code}: {verdict.reason.text} ({verdict.reason.http})")


def _hints(explanation: Explanation) -> set[str]:
    reasons = [explanation.outbound.reason] if explanation.outbound is not None else []
    for backend in explanation.backends:
        reasons.append(backend.reason)
        reasons += [server.verdict.reason for server in backend.servers if server.verdict is not None]
    # What explain itself has answered needs no hint to call it.
    return {reason.hint for reason in reasons if reason is not None and "tulle explain" not in reason.hint}
