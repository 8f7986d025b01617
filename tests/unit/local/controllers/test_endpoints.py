"""EndpointSlices against a naive oracle, and the rules one by one."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tulle.local.controllers.actions import Create, Delete, Patch
from tulle.local.controllers.cluster import ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES
from tulle.local.controllers.endpoints import ENDPOINTS_PER_SLICE, reconcile
from tulle.local.controllers.store import Stores

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Obj = dict[str, Any]


def service(**spec: Any) -> Obj:
    ports = [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}]
    full = {"selector": {"app": "a"}, "ports": ports, "clusterIP": "10.96.0.20", **spec}
    return {
        "metadata": {"name": "svc", "namespace": "default", "uid": "s", "resourceVersion": "1"},
        "spec": full,
    }


def pod(
    number: int,
    *,
    app: str = "a",
    ready: bool = True,
    port: int | None = 8080,
    phase: str = "Running",
    deleting: bool = False,
    ip: str | None = None,
    **spec: Any,
) -> Obj:
    metadata = {
        "name": f"p{number}",
        "namespace": "default",
        "uid": f"u{number}",
        "resourceVersion": "1",
        "labels": {"app": app},
    }
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    ports = [{"name": "web", "containerPort": port}] if port else []
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    address = f"10.42.{number >> 8}.{number & 255}" if ip is None else ip
    status = {"phase": phase, "podIP": address, "conditions": conditions}
    return {
        "metadata": metadata,
        "spec": {"containers": [{"name": "c", "ports": ports}], "nodeName": "tulle", **spec},
        "status": status,
    }


def slices(svc: Obj, pods: list[Obj], *present: Obj) -> list[Obj]:
    stores = Stores()
    stores[SERVICES].observe(svc)
    for obj in pods:
        stores[PODS].observe(obj)
    for obj in present:
        stores[ENDPOINT_SLICES].observe(obj)
    actions = reconcile(("default", "svc"), stores, NOW)
    return [a.obj for a in actions if isinstance(a, Create) and a.kind == ENDPOINT_SLICES]


pods_strategy = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.booleans(),
        st.sampled_from([8080, 9090, None]),
        st.sampled_from(["Running", "Pending", "Succeeded", "Failed"]),
        st.booleans(),
        st.sampled_from([None, ""]),
    ),
    max_size=12,
)


@given(pods_strategy, st.booleans())
def test_slices_equal_the_naive_oracle(
    drawn: list[tuple[str, bool, int | None, str, bool, str | None]], always: bool
) -> None:
    pods = [
        pod(n, app=app, ready=ready, port=port, phase=phase, deleting=deleting, ip=ip)
        for n, (app, ready, port, phase, deleting, ip) in enumerate(drawn)
    ]
    oracle = set()
    for n, (app, ready, port, phase, deleting, ip) in enumerate(drawn):
        if app == "a" and ip is None and port is not None and phase in ("Running", "Pending"):
            oracle.add((f"10.42.0.{n}", port, always or (ready and not deleting), ready, deleting))
    found = set()
    for made in slices(service(publishNotReadyAddresses=always), pods):
        for endpoint in made["endpoints"]:
            conditions = endpoint["conditions"]
            for port_ in made["ports"]:
                found.add(
                    (
                        endpoint["addresses"][0],
                        port_["port"],
                        conditions["ready"],
                        conditions["serving"],
                        conditions["terminating"],
                    )
                )
    assert found == oracle


def test_a_slice_holds_at_most_a_hundred_endpoints() -> None:
    made = slices(service(), [pod(n) for n in range(250)])
    assert sorted(len(s["endpoints"]) for s in made) == [50, ENDPOINTS_PER_SLICE, ENDPOINTS_PER_SLICE]
    assert len({s["metadata"]["name"] for s in made}) == 3


def test_a_headless_service_marks_its_slices_and_names_its_pods() -> None:
    (made,) = slices(service(clusterIP="None"), [pod(1, hostname="db-0", subdomain="svc")])
    assert made["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
    assert made["endpoints"][0]["hostname"] == "db-0"


def test_slices_of_a_service_without_selector_belong_to_their_author() -> None:
    own = {
        "metadata": {
            "name": "mine", "namespace": "default", "uid": "e", "resourceVersion": "2",
            "labels": {"kubernetes.io/service-name": "svc"},
        },
        "endpoints": [{"addresses": ["1.2.3.4"]}],
    }  # fmt: skip
    stores = Stores()
    stores[SERVICES].observe(service(selector=None))
    stores[ENDPOINT_SLICES].observe(own)
    assert list(reconcile(("default", "svc"), stores, NOW)) == []


def test_endpoints_written_by_hand_are_mirrored() -> None:
    stores = Stores()
    stores[SERVICES].observe(service(selector=None))
    stores[ENDPOINTS].observe(
        {
            "metadata": {"name": "svc", "namespace": "default", "uid": "e", "resourceVersion": "2"},
            "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 5432}]}],
        }
    )
    (action,) = reconcile(("default", "svc"), stores, NOW)
    assert isinstance(action, Create)
    assert action.obj["endpoints"] == [{"addresses": ["192.0.2.1"], "conditions": {"ready": True}}]
    assert action.obj["ports"] == [{"name": "", "protocol": "TCP", "port": 5432}]


def test_what_is_right_already_is_left_alone_and_what_is_stale_goes() -> None:
    (right,) = slices(service(), [pod(1)])
    stored = {**right, "metadata": {**right["metadata"], "uid": "x", "resourceVersion": "3"}}
    labels = stored["metadata"]["labels"]
    stale = {
        **stored,
        "metadata": {
            "name": "svc-old",
            "namespace": "default",
            "uid": "y",
            "resourceVersion": "4",
            "labels": labels,
        },
    }
    stores = Stores()
    stores[SERVICES].observe(service())
    stores[PODS].observe(pod(1))
    for obj in (stored, stale):
        stores[ENDPOINT_SLICES].observe(obj)
    actions = [a for a in reconcile(("default", "svc"), stores, NOW) if not isinstance(a, Create)]
    assert [(type(a), a.name) for a in actions if isinstance(a, Delete | Patch)] == [(Delete, "svc-old")]
