"""What the world reads out of API objects: routes, published ports, readiness."""

from typing import Any

import pytest

from tulle.local.net import Backend, ServiceRoute
from tulle.local.world.publishing import PublishedPort, preferred_port, wanted
from tulle.local.world.readiness import pods_ready, unready
from tulle.local.world.services import routes

Obj = dict[str, Any]


def service(name: str, ip: str | None, *ports: Obj, namespace: str = "default", **spec: Any) -> Obj:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": ip, "ports": list(ports), **spec},
    }


def piece(name: str, *endpoints: Obj, ports: list[Obj] | None = None) -> Obj:
    return {
        "metadata": {
            "name": f"{name}-x",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": name},
        },
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}] if ports is None else ports,
    }


def endpoint(ip: str, ready: bool | None = True, **more: Any) -> Obj:
    return {"addresses": [ip], "conditions": {"ready": ready}, **more}


HTTP = {"name": "http", "port": 80, "protocol": "TCP"}


def test_a_service_port_leads_to_its_ready_endpoints() -> None:
    found = routes(
        [service("web", "10.96.0.20", HTTP)],
        [piece("web", endpoint("10.42.0.3"), endpoint("10.42.0.2", None), endpoint("10.42.0.4", False))],
    )
    backends = (Backend("10.42.0.2", 8080), Backend("10.42.0.3", 8080))
    assert found == [ServiceRoute("default", "web", "http", 80, "TCP", "10.96.0.20", backends)]


def test_a_port_takes_the_endpoints_of_its_own_name_and_protocol() -> None:
    dns = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    ports = [
        {"name": "dns", "port": 5353, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 5354, "protocol": "TCP"},
    ]
    found = routes([service("dns", "10.96.0.30", *dns)], [piece("dns", endpoint("10.42.0.2"), ports=ports)])
    assert [(r.protocol, r.backends) for r in found] == [
        ("TCP", (Backend("10.42.0.2", 5354),)),
        ("UDP", (Backend("10.42.0.2", 5353),)),
    ]


def test_headless_external_and_unallocated_services() -> None:
    found = routes(
        [
            service("db", "None", HTTP),
            service("names", "None"),
            service("out", None, type="ExternalName", externalName="Example.com."),
            service("new", None, HTTP),
        ],
        [
            piece("db", endpoint("10.42.0.2", hostname="db-0")),
            piece("names", endpoint("10.42.0.3"), ports=[]),
        ],
    )
    assert [(r.name, r.virtual_ip, r.backends) for r in found] == [
        ("db", None, (Backend("10.42.0.2", 8080, "db-0"),)),
        ("names", None, (Backend("10.42.0.3", 0),)),
        ("out", None, ()),
    ]
    assert found[-1].external_name == "example.com"


def test_endpoints_that_are_not_ready_count_where_the_service_says_so() -> None:
    found = routes(
        [service("web", "None", HTTP, publishNotReadyAddresses=True)],
        [piece("web", endpoint("10.42.0.4", False))],
    )
    assert found[0].backends == (Backend("10.42.0.4", 8080),)


def test_the_users_tcp_ports_are_published() -> None:
    def route(
        name: str,
        namespace: str = "default",
        ip: str | None = "10.96.0.9",
        protocol: Any = "TCP",
        port_name: str = "http",
    ) -> ServiceRoute:
        return ServiceRoute(namespace, name, port_name, 80, protocol, ip)

    found = wanted(
        [
            route("web"),
            route("api", port_name="grpc-api"),
            route("headless", ip=None),
            route("dns", protocol="UDP"),
            route("linkerd-dst", "linkerd"),
            route("tulle-viz", "linkerd", port_name="admin-http"),
            route("kubernetes"),
        ]
    )
    assert found == [
        PublishedPort("default", "api", 80, "grpc"),
        PublishedPort("default", "web", 80, "http"),
        PublishedPort("linkerd", "tulle-viz", 80, "http"),
    ]


@pytest.mark.parametrize(("port", "preferred"), [(80, 8080), (443, 8443), (8080, 8080), (1024, 1024)])
def test_a_port_keeps_its_number_where_anybody_may_open_it(port: int, preferred: int) -> None:
    assert preferred_port(port) == preferred


def test_a_deployment_is_ready_when_its_new_pods_are() -> None:
    def deployment(**status: Any) -> Obj:
        return {
            "kind": "Deployment",
            "metadata": {"name": "web", "generation": 2, "namespace": "shop"},
            "spec": {"replicas": 2},
            "status": status,
        }

    assert unready([deployment()]) == ["deployment/web in shop: 0/2 ready"]
    assert unready([deployment(readyReplicas=2, updatedReplicas=1, observedGeneration=2)]) == [
        "deployment/web in shop: 1/2 ready"
    ]
    assert unready([deployment(readyReplicas=2, updatedReplicas=2, observedGeneration=1)]) == [
        "deployment/web in shop: 2/2 ready"
    ]
    assert unready([deployment(readyReplicas=2, updatedReplicas=2, observedGeneration=2)]) == []


def test_a_pod_that_is_not_ready_says_why() -> None:
    pod = {
        "metadata": {"name": "web-1"},
        "status": {
            "containerStatuses": [
                {
                    "name": "web",
                    "ready": False,
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
                }
            ]
        },
    }
    assert pods_ready([pod]) == ["pod/web-1: web: CrashLoopBackOff back-off 10s"]


def test_a_container_that_keeps_ending_is_shown_with_its_last_lines_and_what_to_do() -> None:
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    container = {
        "name": "app",
        "ready": False,
        "restartCount": 2,
        "state": waiting,
        "lastState": {"terminated": {"exitCode": 3}},
    }
    pod = {"metadata": {"name": "web-1", "uid": "u"}, "status": {"containerStatuses": [container]}}
    event = {"type": "Warning", "reason": "BackOff", "message": "again", "involvedObject": {"uid": "u"}}
    head = "pod/web-1: app ended with 3, restarted 2 times: CrashLoopBackOff back-off 10s"
    # Without a word in its log the event is all there is.
    assert pods_ready([pod], [event]) == [head + " (BackOff: again)"]
    wrote = ["starting", "listen tcp :8080: bind: address already in use"]
    told = pods_ready([pod], [event], lambda pod, container: wrote if container == "app" else [])
    assert told == [head, "  starting", "  listen tcp :8080: bind: address already in use"]
    told = pods_ready([pod], [event], lambda pod, container: wrote, share_ports=True)
    assert len(told) == 4 and "$HOST" in told[-1]
