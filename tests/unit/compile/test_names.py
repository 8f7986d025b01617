"""What authorities and workloads mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.cluster import namespace, service
from tulle.compile import (
    AddressTarget,
    BadName,
    ClientContext,
    Mesh,
    ServiceTarget,
    may_appear,
    parse_context,
    parse_workload,
    resolve,
)
from tulle.kube.world import World

WORLD = World.of([service("voting"), service("voting", ns="other"), service("db", "None")])
CLIENT = ClientContext("default", "web-1")


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("voting", ServiceTarget("default", "voting", 80)),
        ("VOTING.", ServiceTarget("default", "voting", 80)),
        ("voting:8080", ServiceTarget("default", "voting", 8080)),
        ("voting.other", ServiceTarget("other", "voting", 80)),
        ("voting.other.svc", ServiceTarget("other", "voting", 80)),
        ("voting.other.svc.cluster.local:81", ServiceTarget("other", "voting", 81)),
        ("gone.other.svc.cluster.local", ServiceTarget("other", "gone", 80)),
        ("db-0.db", ServiceTarget("default", "db", 80, "db-0")),
        ("db-0.db.default:5432", ServiceTarget("default", "db", 5432, "db-0")),
        ("db-0.db.default.svc.cluster.local", ServiceTarget("default", "db", 80, "db-0")),
        ("10.1.2.3:443", AddressTarget("10.1.2.3", 443)),
        ("[fd00::1]:443", AddressTarget("fd00::1", 443)),
        ("fd00::1", AddressTarget("fd00::1", 80)),
        ("gone", None),
        ("example.com", None),
        ("a.b.example.com", None),
        ("a.b.c.d.svc.cluster.local", None),
    ],
)
def test_an_authority_means_what_a_pods_resolver_would_say(authority: str, expected: object) -> None:
    assert resolve(WORLD, Mesh(), authority, CLIENT) == expected


@pytest.mark.parametrize(
    "authority",
    [
        "",
        "voting:",
        ":80",
        "voting:0",
        "voting:65536",
        "voting:-1",
        "vo ting",
        "a..b",
        "voting:80:90x",
        "[::1]x",
        "ü",
    ],
)
def test_what_is_no_authority_is_refused(authority: str) -> None:
    if authority in ("voting:",):  # an empty port is the default port (RFC 3986)
        assert resolve(WORLD, Mesh(), authority, CLIENT) == ServiceTarget("default", "voting", 80)
        return
    with pytest.raises(BadName):
        resolve(WORLD, Mesh(), authority, CLIENT)


@pytest.mark.parametrize(
    ("authority", "waited_for"),
    [
        ("new", True),
        ("new.default", True),
        ("pod-0.new.default", True),
        ("new.default.svc.cluster.local", True),
        ("10.96.0.250:80", True),
        ("example.com", False),
        ("api.example.com", False),
        ("new.nowhere.svc.cluster.local", False),
        ("93.184.216.34:443", False),
    ],
)
def test_only_what_could_be_of_the_cluster_is_waited_for(authority: str, waited_for: bool) -> None:
    world = World.of([namespace("default")])
    assert may_appear(world, Mesh(), resolve(world, Mesh(), authority, CLIENT), authority) == waited_for


@given(st.text(max_size=80))
def test_any_text_is_a_target_nothing_or_refused(text: str) -> None:
    try:
        found = resolve(WORLD, Mesh(), text, CLIENT)
    except BadName:
        return
    assert found is None or 1 <= found.port <= 65535


@given(st.text(max_size=200))
def test_any_context_is_read_or_refused(text: str) -> None:
    for read in (parse_context, parse_workload):
        try:
            assert isinstance(read(text), ClientContext)
        except BadName:
            continue


def test_workloads_are_json_or_colon_separated() -> None:
    assert parse_workload('{"ns":"a","pod":"b","nodeName":"n","extra":1}') == ClientContext("a", "b", "n")
    assert parse_workload("a:b") == ClientContext("a", "b")
    for bad in ("", "a", "a:", '{"ns":"a"}', '{"ns":1,"pod":"b"}', "[]", "{" * 5000):
        with pytest.raises(BadName):
            parse_workload(bad)
