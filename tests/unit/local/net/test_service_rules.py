"""Service addresses as packet-filter rules: what is written for which change."""

from tulle.local.net import Backend, ServiceRoute
from tulle.local.net.service_rules import EMPTY, change, table_of


def service(ip: str | None = "10.96.0.20", *backends: str, port: int = 80) -> ServiceRoute:
    return ServiceRoute("default", "web", "http", port, "TCP", ip, tuple(Backend(b, 8080) for b in backends))


def test_a_new_service_gets_a_chain_and_then_its_address() -> None:
    lines = change(EMPTY, table_of([service("10.96.0.20", "10.42.0.2")])).splitlines()
    assert lines == [
        "add chain ip tulle to_10_96_0_20_tcp_80",
        "add rule ip tulle to_10_96_0_20_tcp_80 meta l4proto tcp dnat to numgen random mod 1 map { 0 : 10.42.0.2 . 8080 }",
        "add element ip tulle services { 10.96.0.20 . tcp . 80 : goto to_10_96_0_20_tcp_80 }",
        "add element ip tulle hairpins { 10.42.0.2 . 10.42.0.2 }",
    ]


def test_a_changed_endpoint_touches_its_service_only() -> None:
    other = service("10.96.0.21", "10.42.0.9")
    before = table_of([service("10.96.0.20", "10.42.0.2"), other])
    after = table_of([service("10.96.0.20", "10.42.0.3"), other])
    script = change(before, after)
    assert "10.96.0.21" not in script
    assert "0_21" not in script
    assert script.startswith("flush chain ip tulle to_10_96_0_20_tcp_80\n")
    assert "add element ip tulle services" not in script


def test_a_service_without_endpoints_has_no_address_and_is_refused_by_the_base_rules() -> None:
    with_one = table_of([service("10.96.0.20", "10.42.0.2")])
    assert change(with_one, table_of([service("10.96.0.20")])).splitlines() == [
        "delete element ip tulle services { 10.96.0.20 . tcp . 80 }",
        "flush chain ip tulle to_10_96_0_20_tcp_80",
        "delete chain ip tulle to_10_96_0_20_tcp_80",
        "delete element ip tulle hairpins { 10.42.0.2 . 10.42.0.2 }",
    ]


def test_a_headless_service_has_no_rule() -> None:
    assert table_of([service(None, "10.42.0.2")]) == EMPTY


def test_nothing_changed_is_nothing_to_do() -> None:
    table = table_of([service("10.96.0.20", "10.42.0.3", "10.42.0.2")])
    assert change(table, table_of([service("10.96.0.20", "10.42.0.2", "10.42.0.3")])) == ""
