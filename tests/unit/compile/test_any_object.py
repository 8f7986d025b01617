"""Whatever the API lets through, compiling answers: no object of one user may take the answers of all others away."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.cluster import (
    POLICY,
    Obj,
    mesh_tls,
    networks,
    obj,
    pod,
    policy,
    route,
    server,
    service,
    slice_of,
    voting,
)
from tulle.compile import (
    AddressTarget,
    ClientContext,
    Mesh,
    endpoints,
    inbound_server,
    nearness,
    outbound_policy,
    profile,
    resolve,
)
from tulle.compile.status import route_status
from tulle.compile.validate import world_problems
from tulle.kube import kinds
from tulle.kube.world import World

MESH = Mesh()
CLIENT = ClientContext("default", "web-1", "n1")
NUMBER = st.sampled_from([-(2**40), -1, 0, 1, 80, 8080, 65536, 2**31, 2**32, 2**63 - 1])
WORD = st.sampled_from(
    ["", "voting", "s", "/", "/a", "*.x", "é\x00", "a" * 300, "10.42.0.3", "GET", "Exact", "(", "1s"]
)
MAYBE = st.none()


def shape(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Obj]:
    return st.fixed_dictionaries({}, optional=fields)


HEADERS = st.lists(st.fixed_dictionaries({"name": WORD, "value": WORD}), max_size=2)
MODIFIER = shape(set=HEADERS, add=HEADERS, remove=st.lists(WORD, max_size=2))
VALUES = st.lists(st.fixed_dictionaries({"name": WORD, "value": WORD}, optional={"type": WORD}), max_size=2)
PATH = st.fixed_dictionaries(
    {"type": st.sampled_from(["ReplaceFullPath", "ReplacePrefixMatch", ""])},
    optional={"replaceFullPath": WORD, "replacePrefixMatch": WORD},
)
FILTER = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            [
                "RequestHeaderModifier",
                "ResponseHeaderModifier",
                "RequestRedirect",
                "URLRewrite",
                "RequestMirror",
                "CORS",
                "",
            ]
        )
    },
    optional={
        "requestHeaderModifier": MODIFIER,
        "responseHeaderModifier": MODIFIER,
        "requestRedirect": shape(
            scheme=WORD,
            hostname=WORD,
            port=NUMBER,
            statusCode=NUMBER,
            path=PATH,
        ),
        "urlRewrite": shape(hostname=WORD, path=PATH),
        "requestMirror": st.fixed_dictionaries(
            {"backendRef": st.fixed_dictionaries({"name": WORD}, optional={"port": NUMBER})},
            optional={
                "percent": NUMBER,
                "fraction": st.fixed_dictionaries({"numerator": NUMBER}, optional={"denominator": NUMBER}),
            },
        ),
        "cors": shape(
            allowOrigins=st.lists(
                st.sampled_from(["*", "https://a.b", "https://*.b", "https://*", ""]), max_size=2
            ),
            allowMethods=st.lists(WORD, max_size=2),
            maxAge=NUMBER,
        ),
    },
)
BACKEND = st.fixed_dictionaries(
    {"name": WORD},
    optional={
        "port": NUMBER,
        "weight": NUMBER,
        "kind": WORD,
        "group": WORD,
        "namespace": WORD,
        "filters": st.lists(FILTER, max_size=1),
    },
)
MATCH = shape(
    path=shape(type=st.sampled_from(["Exact", "PathPrefix", "RegularExpression", "Glob"]), value=WORD),
    headers=VALUES,
    queryParams=VALUES,
    method=WORD,
)
RULE = shape(
    matches=MAYBE | st.lists(MATCH, max_size=2),
    filters=st.lists(FILTER, max_size=2),
    backendRefs=MAYBE | st.lists(BACKEND, max_size=3),
    timeouts=shape(request=WORD, backendRequest=WORD),
    retry=shape(codes=st.lists(NUMBER, max_size=2), attempts=NUMBER, backoff=WORD),
)
PARENT = st.sampled_from(
    [
        {"group": "", "kind": "Service", "name": "voting"},
        {"group": POLICY, "kind": "Server", "name": "s"},
        {"group": "", "kind": "Service", "name": "voting", "port": 2**40},
    ]
)
ROUTE = st.builds(
    lambda rules, parent, hosts: route("r", rules, parent, hostnames=hosts),
    st.lists(RULE, max_size=3),
    PARENT,
    st.lists(WORD, max_size=2),
)
SERVICE = st.builds(
    lambda port, target, protocol, ip, kind: service(
        "voting",
        ip,
        ports=[
            {"name": "http", "port": port, "targetPort": target, "protocol": "TCP", "appProtocol": protocol}
        ],
        type=kind,
    ),
    NUMBER,
    NUMBER | WORD,
    WORD,
    WORD,
    st.sampled_from(["ClusterIP", "ExternalName"]),
)
POD = st.builds(
    lambda ip, port, probe: pod(
        "voting-1",
        ip,
        containers=[
            {
                "ports": [{"containerPort": port, "name": "web"}],
                "livenessProbe": {"httpGet": {"path": probe, "port": port}},
            }
        ],
    ),
    WORD,
    NUMBER,
    WORD,
)
SLICE = st.builds(
    lambda ip, port, kind: slice_of(
        "voting",
        [{"addresses": [ip], "targetRef": {"kind": "Pod", "name": "voting-1", "namespace": "default"}}],
        ports=[{"name": "http", "port": port}],
        addressType=kind,
    ),
    WORD,
    NUMBER,
    st.sampled_from(["IPv4", "IPv6", "FQDN"]),
)
OTHERS = (
    st.sampled_from(
        [
            server("s", 8080),
            policy("p", ("Server", "s"), [{"group": POLICY, "kind": "NetworkAuthentication", "name": "n"}]),
        ]
    )
    | st.builds(lambda cidr, except_: networks("n", cidr, except_=[except_]), WORD, WORD)
    | st.builds(lambda name: mesh_tls("m", identities=[name]), WORD)
    | st.builds(lambda port: server("s", port), NUMBER | WORD)
)
STRAY = st.just(obj("Namespace", "default", ns=""))


@settings(max_examples=300)
@given(st.lists(ROUTE | SERVICE | POD | SLICE | OTHERS | STRAY, max_size=5))
def test_every_question_has_an_answer(objects: list[Obj]) -> None:
    world = World.of(voting(*objects))
    target = resolve(world, MESH, "voting", CLIENT)
    assert target is not None and not isinstance(target, AddressTarget)
    message = outbound_policy(world, MESH, target, CLIENT)
    assert message is None or message.SerializeToString()
    outbound_policy(world, MESH, AddressTarget("10.42.0.3", 8080), CLIENT)
    endpoints(world, MESH, target, nearness(world, target, CLIENT))
    profile(world, MESH, AddressTarget("10.42.0.3", 8080), CLIENT)
    inbound = inbound_server(world, MESH, "default", "voting-1", 8080)
    assert inbound is not None and inbound.SerializeToString() is not None
    for kind in (
        kinds.GATEWAY_HTTP_ROUTE,
        kinds.SERVICE,
        kinds.SERVER,
        kinds.NETWORK_AUTHENTICATION,
        kinds.AUTHORIZATION_POLICY,
    ):
        for view in world.all(kind):
            world_problems(world, MESH, view)
            if kind is kinds.GATEWAY_HTTP_ROUTE:
                route_status(world, MESH, view)
