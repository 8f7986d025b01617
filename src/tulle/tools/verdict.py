"""What the proxies' engine says, with types: the JSON of `tulle._engine` as structs.

The engine is the proxies' own (crates/engine), so a verdict here is what a proxy would do with the same messages.
"""

from typing import Any, Literal

import msgspec

from tulle import _engine
from tulle.api import inbound_pb2, outbound_pb2

__all__ = [
    "Answer",
    "Authorization",
    "Backend",
    "Candidate",
    "Client",
    "Endpoint",
    "EndpointsVerdict",
    "InboundVerdict",
    "Object",
    "OutboundVerdict",
    "Reason",
    "Request",
    "Requirement",
    "RuleVerdict",
    "endpoints_verdict",
    "inbound_verdict",
    "outbound_verdict",
]


class Struct(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a verdict."""


class Request(Struct, frozen=True):
    """A request that nobody need have sent. `path` holds the query as well; `http2` says how the client speaks."""

    method: str
    authority: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    http2: bool = False


class Client(Struct, frozen=True):
    """Whom a server sees: an address, and the name in the certificate when the connection is the mesh's TLS."""

    address: str
    identity: str | None = None


class Object(Struct, frozen=True):
    """The object that a decision rests on; `kind` is `default` for one that no object wrote."""

    group: str
    kind: str
    name: str
    namespace: str
    section: str
    port: int
    source: str

    def __str__(self) -> str:
        """Name it as people do."""
        where = f"{self.namespace}/" if self.namespace else ""
        port = f":{self.port}" if self.port else ""
        return f"{self.kind} {where}{self.name}{port}"


class Reason(Struct, frozen=True):
    """Why a proxy answers by itself: the stable code, the answer's statuses, and what to do."""

    code: str
    text: str
    http: int
    grpc: int
    hint: str


class Candidate(Struct, frozen=True):
    """One match of one rule, and what became of it. `because` names the part that does not hold, `saw` what is there."""

    route: Object
    rule: int
    match: int | None
    asks: str
    outcome: Literal["matched", "shadowed", "wrong-host", "mismatch"]
    because: str | None
    saw: str | None


class Answer(Struct, frozen=True):
    """An answer that a rule gives without asking a backend."""

    reason: Reason
    http: int | None
    grpc: int | None
    message: str
    location: str | None


class Endpoint(Struct, frozen=True):
    """One address behind a backend. Without `identity` it is not in the mesh and is reached in plain text."""

    addr: str
    weight: int
    identity: str | None
    transport_port: int | None
    hint: Literal["unknown", "http2", "opaque"]
    object: Object
    labels: dict[str, str]


class Backend(Struct, frozen=True):
    """A backend of the rule that decides; `share` of its requests, between 0 and 1."""

    object: Object
    weight: int
    share: float
    dst: str | None
    endpoint: Endpoint | None
    filters: tuple[str, ...]
    answer: Answer | None


class Timeouts(Struct, frozen=True):
    """Milliseconds; None is no limit."""

    request: int | None
    response: int | None
    idle: int | None


class RuleVerdict(Struct, frozen=True):
    """The rule that decides, and what it does."""

    route: Object
    rule: int
    asks: str
    filters: tuple[str, ...]
    answer: Answer | None
    backends: tuple[Backend, ...]
    timeouts: Timeouts
    max_retries: int


class OutboundVerdict(Struct, frozen=True):
    """What the client's proxy does. `reason` is given when it answers by itself."""

    target: Object
    protocol: str
    candidates: tuple[Candidate, ...]
    rule: RuleVerdict | None
    reason: Reason | None
    problems: tuple[str, ...]


class Authorization(Struct, frozen=True):
    """One authorization; `lacks` is what the client lacks for it and `saw` what it has; None when it lets it in."""

    object: Object
    lacks: str | None
    saw: str | None


class Requirement(Struct, frozen=True):
    """What a request needs beside an authorization: a token, a place within a limit, a service's leave."""

    kind: Literal["token", "rate-limit", "concurrency-limit", "external-authorization"]
    object: Object
    needs: str


class InboundVerdict(Struct, frozen=True):
    """What the server's proxy does. `permit` is the authorization that lets the client in.

    `also` is what the request would need beside it, in the order in which the proxy asks.
    """

    server: Object
    protocol: str
    candidates: tuple[Candidate, ...]
    route: Object | None
    rule: int | None
    answer: Answer | None
    authorizations: tuple[Authorization, ...]
    permit: Object | None
    also: tuple[Requirement, ...]
    reason: Reason | None
    problems: tuple[str, ...]


class EndpointsVerdict(Struct, frozen=True):
    """The endpoints behind a name; `state` tells a service without endpoints from none at all."""

    state: Literal["unknown", "missing", "exists"]
    endpoints: tuple[Endpoint, ...]
    problems: tuple[str, ...]


def outbound_verdict(policy: outbound_pb2.OutboundPolicy, request: Request) -> OutboundVerdict:
    """Ask what a client's proxy with this policy does with the request."""
    said = _engine.decide_outbound(policy.SerializeToString(), http2=request.http2, **_facts(request))
    return msgspec.json.decode(said, type=OutboundVerdict)


def inbound_verdict(server: inbound_pb2.Server, client: Client, request: Request) -> InboundVerdict:
    """Ask what a server's proxy with this policy does with the client's request."""
    said = _engine.decide_inbound(
        server.SerializeToString(),
        client=client.address,
        identity=client.identity,
        tls=client.identity is not None,
        **_facts(request),
    )
    return msgspec.json.decode(said, type=InboundVerdict)


def endpoints_verdict(updates: list[bytes]) -> EndpointsVerdict:
    """Ask which endpoints a stream of encoded Updates leaves a client's proxy with."""
    return msgspec.json.decode(_engine.endpoints(updates), type=EndpointsVerdict)


def _facts(request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "authority": request.authority,
        "path": request.path,
        "headers": [(name.lower(), value.encode()) for name, value in request.headers],
    }
