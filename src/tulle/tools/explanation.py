"""The answer of `tulle explain`: each step that a request takes, and where the decision about it was written."""

from typing import Literal

import msgspec

from tulle.tools.explain_origin import Origin
from tulle.tools.verdict import Candidate, InboundVerdict, OutboundVerdict, Reason

__all__ = [
    "AuthorizationStep",
    "BackendStep",
    "CandidateStep",
    "ClientStep",
    "Explanation",
    "Outcome",
    "ServerStep",
]

Outcome = Literal["allowed", "refused", "mixed", "outside"]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the way."""


class ClientStep(Step, frozen=True):
    """Who sends. Without a sidecar, `identity` is None and no route applies."""

    workload: str
    pod: str
    address: str
    meshed: bool
    identity: str | None
    origin: Origin


class CandidateStep(Step, frozen=True):
    """A match of a rule that was weighed, and where the rule was written."""

    candidate: Candidate
    origin: Origin | None


class AuthorizationStep(Step, frozen=True):
    """An authorization that was weighed; `lacks` is what the client lacks for it, `saw` what it has."""

    name: str
    lacks: str | None
    saw: str | None
    origins: list[Origin]


class ServerStep(Step, frozen=True):
    """What the proxy of one endpoint does. `verdict` is None for an endpoint without a sidecar."""

    pod: str
    address: str
    mtls: bool
    verdict: InboundVerdict | None
    origin: Origin | None
    rule_origin: Origin | None
    authorizations: list[AuthorizationStep]
    inert: list[str]


class BackendStep(Step, frozen=True):
    """A backend, its endpoints and what each of them does; `reason` when nothing reaches it."""

    name: str
    share: float
    origin: Origin | None
    servers: list[ServerStep]
    reason: Reason | None
    why: str = ""


class Explanation(Step, frozen=True):
    """All of it. `summary` is one sentence; `outcome` is `outside` for a target that is not the cluster's."""

    url: str
    method: str
    client: ClientStep
    target: str
    target_origin: Origin | None
    outbound: OutboundVerdict | None
    candidates: list[CandidateStep]
    backends: list[BackendStep]
    outcome: Outcome
    summary: str
