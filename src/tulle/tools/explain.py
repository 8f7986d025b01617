"""The decision that the proxies would take for a request, step by step, each with its origin. Pure.

The same functions compile the messages (`tulle.compile`) and the same engine decides as in a live mesh. A client
without a sidecar has no proxy that decides for it; a server without one lets everybody in.
"""

import difflib

import msgspec

from tulle.compile import messages
from tulle.compile.endpoints import endpoints, nearness
from tulle.compile.inbound import inbound_server
from tulle.compile.mesh import ClientContext, Mesh
from tulle.compile.names import AddressTarget, BadName, ServiceTarget, resolve
from tulle.compile.outbound import outbound_policy
from tulle.compile.pods import meshed
from tulle.errors import TulleError
from tulle.kube import kinds
from tulle.kube.objects import Pod, Service
from tulle.kube.world import World
from tulle.tools.explain_origin import Locate, Origin, Origins
from tulle.tools.explanation import (
    AuthorizationStep,
    BackendStep,
    CandidateStep,
    ClientStep,
    Explanation,
    Outcome,
    ServerStep,
)
from tulle.tools.question import Question, Workload
from tulle.tools.verdict import (
    Authorization,
    Backend,
    Candidate,
    Client,
    Endpoint,
    OutboundVerdict,
    Reason,
    RuleVerdict,
    endpoints_verdict,
    inbound_verdict,
    outbound_verdict,
)

__all__ = ["explain"]


def explain(world: World, mesh: Mesh, question: Question, locate: Locate) -> Explanation:
    """Work out what becomes of a request. Raises TulleError when the workload has no pod or the name is none."""
    return _Explainer(world, mesh, question, Origins(world, mesh, locate)).explain()


class _Explainer:
    def __init__(self, world: World, mesh: Mesh, question: Question, origins: Origins) -> None:
        self._world, self._mesh, self._origins = world, mesh, origins
        self._question, self._request = question, question.request
        self._pod = _pod_of(world, question.workload)
        self._meshed = meshed(mesh, self._pod)
        self._context = ClientContext(self._pod.namespace, self._pod.name, self._pod.spec.node_name or "")

    def explain(self) -> Explanation:
        authority = self._request.authority
        try:
            target = resolve(self._world, self._mesh, authority, self._context)
        except BadName as error:
            raise TulleError(
                f"--to {self._question.url}: {error}", "", "write http://NAME[:PORT]/PATH"
            ) from error
        policy = (
            outbound_policy(self._world, self._mesh, target, self._context) if target is not None else None
        )
        if policy is None:
            return self._outside(self._unknown(authority))
        outbound = outbound_verdict(policy, self._request)
        # Without a sidecar nobody looks at routes: the connection goes to the Service's own endpoints.
        rule = outbound.rule if self._meshed else None
        steps = []
        if self._meshed and outbound.reason is None and rule is not None:
            steps = [self._backend(rule, backend) for backend in rule.backends]
        elif not self._meshed and isinstance(target, ServiceTarget):
            steps = [self._directly(target)]
        elif not self._meshed and isinstance(target, AddressTarget):
            steps = [self._at(target)]
        outcome, summary = self._sum_up(outbound, steps)
        port = outbound.target.port
        return self._explanation(
            target=str(outbound.target),
            target_origin=self._origins.service(outbound.target.namespace, outbound.target.name, port),
            outbound=outbound if self._meshed else None,
            candidates=[self._candidate(c) for c in outbound.candidates] if self._meshed else [],
            backends=steps,
            outcome=outcome,
            summary=summary,
        )

    def _candidate(self, candidate: Candidate) -> CandidateStep:
        return CandidateStep(candidate=candidate, origin=self._origins.rule(candidate.route, candidate.rule))

    def _explanation(
        self,
        *,
        target: str,
        outcome: Outcome,
        summary: str,
        target_origin: Origin | None = None,
        outbound: OutboundVerdict | None = None,
        candidates: list[CandidateStep] | None = None,
        backends: list[BackendStep] | None = None,
    ) -> Explanation:
        kind, workload = self._origins.workload(self._pod)
        return Explanation(
            url=self._question.url,
            method=self._request.method,
            client=ClientStep(
                workload=str(self._question.workload),
                pod=f"{self._pod.namespace}/{self._pod.name}",
                address=self._address,
                meshed=self._meshed,
                identity=self._identity if self._meshed else None,
                origin=self._origins.of(kind, workload),
            ),
            target=target,
            target_origin=target_origin,
            outbound=outbound,
            candidates=candidates or [],
            backends=backends or [],
            outcome=outcome,
            summary=summary,
        )

    @property
    def _address(self) -> str:
        return self._pod.ips[0] if self._pod.ips else "0.0.0.0"

    @property
    def _identity(self) -> str:
        return self._mesh.identity(self._pod.namespace, self._pod.service_account)

    def _outside(self, why: str) -> Explanation:
        return self._explanation(target=self._request.authority, outcome="outside", summary=why)

    def _unknown(self, authority: str) -> str:
        name = authority.partition(":")[0].partition(".")[0]
        known = {service.name: service for service in self._world.all(kinds.SERVICE)}
        same = sorted(s.namespace for s in self._world.all(kinds.SERVICE) if s.name == name)
        if same:
            return f"{authority} is not a Service; there is {name} in namespace {', '.join(same)}"
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]} (namespace {known[close[0]].namespace})?" if close else ""
        return f"{authority} is neither a Service nor a pod of this cluster, so no policy of the mesh applies{hint}"

    def _backend(self, rule: RuleVerdict, backend: Backend) -> BackendStep:
        origin = self._origins.backend(rule.route, rule.rule, backend.object)
        name = str(backend.object)
        if backend.answer is not None:
            reason, why = backend.answer.reason, backend.answer.message
            return BackendStep(
                name=name, share=backend.share, origin=origin, servers=[], reason=reason, why=why
            )
        if backend.endpoint is not None:
            servers = [self._server(backend.endpoint)]
            return BackendStep(name=name, share=backend.share, origin=origin, servers=servers, reason=None)
        target = resolve(self._world, self._mesh, backend.dst or "", self._context)
        assert isinstance(target, ServiceTarget)
        return self._endpoints(target, name, backend.share, origin)

    def _directly(self, target: ServiceTarget) -> BackendStep:
        origin = self._origins.service(target.namespace, target.name, target.port)
        return self._endpoints(target, f"Service {target.namespace}/{target.name}:{target.port}", 1.0, origin)

    def _at(self, target: AddressTarget) -> BackendStep:
        service = self._world.service_by_ip(target.ip)
        if service is not None:
            return self._directly(ServiceTarget(service.namespace, service.name, target.port))
        policy = outbound_policy(self._world, self._mesh, target, self._context)
        assert policy is not None
        rule = outbound_verdict(policy, self._request).rule
        assert rule is not None
        return self._backend(rule, rule.backends[0])

    def _endpoints(
        self, target: ServiceTarget, name: str, share: float, origin: Origin | None
    ) -> BackendStep:
        found = endpoints(self._world, self._mesh, target, nearness(self._world, target, self._context))
        update = (
            messages.added(found.addresses.values(), found.labels)
            if found.addresses
            else messages.no_endpoints(found.exists)
        )
        told = endpoints_verdict([update])
        if not told.endpoints:
            why = self._why_none(target)
            reason = _reason("no-endpoints")
            return BackendStep(name=name, share=share, origin=origin, servers=[], reason=reason, why=why)
        servers = [self._server(endpoint) for endpoint in told.endpoints]
        return BackendStep(name=name, share=share, origin=origin, servers=servers, reason=None)

    def _why_none(self, target: ServiceTarget) -> str:
        service: Service | None = self._world.service(target.namespace, target.name)
        if service is None:
            return "there is no such Service"
        selector = service.spec.selector
        if not selector:
            return "the Service has no selector, and nobody wrote an EndpointSlice for it"
        pods = [
            pod
            for pod in self._world.pods_in(target.namespace)
            if not pod.finished and all(pod.labels.get(key) == value for key, value in selector.items())
        ]
        wanted = ", ".join(f"{key}={value}" for key, value in selector.items())
        return (
            f"{len(pods)} pods have the labels {wanted}, and none is ready"
            if pods
            else f"no pod has the labels {wanted}"
        )

    def _server(self, endpoint: Endpoint) -> ServerStep:
        namespace, name = endpoint.object.namespace, endpoint.object.name
        port = int(endpoint.addr.rpartition(":")[2])
        pod = self._world.pod(namespace, name) if endpoint.object.kind == "Pod" else None
        if pod is None or endpoint.identity is None:
            return ServerStep(
                pod=f"{namespace}/{name}" if pod is not None else "",
                address=endpoint.addr,
                mtls=False,
                verdict=None,
                origin=None,
                rule_origin=None,
                authorizations=[],
                inert=[],
            )
        message = inbound_server(self._world, self._mesh, namespace, name, port)
        assert message is not None
        client = Client(address=self._address, identity=self._identity if self._meshed else None)
        verdict = inbound_verdict(message, client, self._request)
        server_origin = self._origins.server(pod, port)
        return ServerStep(
            pod=f"{namespace}/{name}",
            address=endpoint.addr,
            mtls=self._meshed,
            verdict=verdict,
            origin=server_origin,
            rule_origin=self._origins.rule(verdict.route, verdict.rule)
            if verdict.route is not None and verdict.rule is not None
            else None,
            authorizations=[self._authorization(each, server_origin) for each in verdict.authorizations],
            inert=[f"{origin.object}: {why}" for origin, why in self._origins.inert(pod, port)],
        )

    def _authorization(self, authorization: Authorization, server_origin: Origin) -> AuthorizationStep:
        written = self._origins.authorization(authorization.object)
        return AuthorizationStep(
            name=written[0].object if written else str(authorization.object),
            lacks=authorization.lacks,
            saw=authorization.saw,
            origins=written or [server_origin],
        )

    def _sum_up(self, outbound: OutboundVerdict, steps: list[BackendStep]) -> tuple[Outcome, str]:
        if self._meshed and outbound.reason is not None:
            answer = outbound.rule.answer if outbound.rule is not None else None
            if answer is not None and answer.location is not None:
                return "allowed", f"the client's proxy redirects to {answer.location} ({answer.http})"
            detail = f": {answer.message}" if answer is not None and answer.message else ""
            return (
                "refused",
                f"the client's proxy answers {_status(outbound.reason, self._request.http2)}{detail}",
            )
        reasons = [reason for step in steps for reason in _reasons(step)]
        refusals = [reason for reason in reasons if reason is not None]
        if not refusals:
            secured = all(server.mtls for step in steps for server in step.servers)
            return (
                "allowed",
                f"every endpoint takes the request, {'over mTLS' if secured else 'not everywhere over mTLS'}",
            )
        first = _status(refusals[0], self._request.http2)
        if len(refusals) == len(reasons):
            return "refused", f"the request is answered {first}"
        return "mixed", f"{len(refusals)} of {len(reasons)} ways end in a refusal: {first}"


def _reasons(step: BackendStep) -> list[Reason | None]:
    """Return for each way through a backend why it ends, None when it leads to the application."""
    if step.share == 0:
        return []
    if not step.servers:
        return [step.reason]
    return [server.verdict.reason if server.verdict is not None else None for server in step.servers]


def _status(reason: Reason, grpc: bool) -> str:
    status = f"grpc-status {reason.grpc}" if grpc else str(reason.http)
    return f"{status} ({reason.code}: {reason.text})"


def _reason(code: str) -> Reason:
    from tulle import _engine

    every = msgspec.json.decode(_engine.reasons(), type=list[Reason])
    return next(reason for reason in every if reason.code == code)


def _pod_of(world: World, workload: Workload) -> Pod:
    pods = [pod for pod in world.pods_in(workload.namespace) if not pod.finished]
    if workload.kind == "Pod":
        mine = [pod for pod in pods if pod.name == workload.name]
    else:
        mine = [pod for pod in pods if world.owner(pod) == (workload.kind, workload.name)]
        if not mine:
            # A ReplicaSet or Job that something else owns.
            refs = [(pod, pod.metadata.owner_references or ()) for pod in pods]
            mine = [
                pod
                for pod, owners in refs
                if any((o.kind, o.name) == (workload.kind, workload.name) for o in owners)
            ]
    if not mine:
        owners = {" ".join(world.owner(pod)) for pod in pods}
        known = f"namespace {workload.namespace} has {', '.join(sorted(owners)[:10])}" if owners else ""
        raise TulleError(
            f"{workload} has no running pod",
            known or f"namespace {workload.namespace} has no running pod at all",
            "name another workload with --from [NAMESPACE/]KIND/NAME",
        )
    with_address = [pod for pod in mine if pod.ips]
    return (with_address or mine)[0]
