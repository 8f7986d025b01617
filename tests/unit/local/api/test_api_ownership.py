"""Field sets and server-side apply."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.local.api.apply import MAX_UPDATE_MANAGERS, apply_configuration, managers_of, track_update
from tulle.local.api.errors import ApiError
from tulle.local.api.objects import copy_json
from tulle.local.api.ownership import decode_fields, delta, dotted, encode_fields, field_set
from tulle.local.api.schema import builtin

POD = builtin("core_v1.Pod")
CONF = builtin("core_v1.ConfigMap")
SERVICE = builtin("core_v1.Service")


def conf(**data: str) -> dict[str, Any]:
    return {"metadata": {"name": "c"}, "data": data}


def applied(live: Any, config: Any, manager: str, *, force: bool = False, schema: Any = CONF) -> Any:
    return apply_configuration(schema, live, config, manager=manager, api_version="v1", time="t", force=force)


def updated(old: Any, new: Any, manager: str, schema: Any = CONF, time: str = "t") -> Any:
    result = copy_json(new)
    track_update(schema, old, result, manager=manager, api_version="v1", time=time)
    return result


def owners(obj: Any) -> dict[str, set[str]]:
    return {entry.name: {dotted(path) for path in entry.fields} for entry in managers_of(obj)}


def test_a_set_names_leaves_entries_and_atomic_values() -> None:
    pod = {
        "metadata": {"name": "p", "labels": {"a": "b"}, "finalizers": ["x/y"]},
        "spec": {
            "nodeSelector": {"disk": "fast"},
            "containers": [{"name": "main", "args": ["1"], "ports": [{"containerPort": 80}]}],
            "securityContext": {},
        },
    }
    assert {dotted(path) for path in field_set(POD, pod)} == {
        ".metadata.labels.a",
        '.metadata.finalizers[="x/y"]',
        ".spec.nodeSelector",
        '.spec.containers[name="main"]',
        '.spec.containers[name="main"].name',
        '.spec.containers[name="main"].args',
        '.spec.containers[name="main"].ports[containerPort=80,protocol="TCP"]',
        '.spec.containers[name="main"].ports[containerPort=80,protocol="TCP"].containerPort',
        ".spec.securityContext",
    }


def test_fields_are_written_as_kubernetes_writes_them() -> None:
    pod = {"spec": {"containers": [{"name": "main", "image": "x"}]}}
    entry: Any = {".": {}, "f:image": {}, "f:name": {}}
    assert encode_fields(field_set(POD, pod)) == {"f:spec": {"f:containers": {'k:{"name":"main"}': entry}}}


values = st.sampled_from(["1", "2"])
variables: st.SearchStrategy[Any] = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("xy")}, optional={"value": values}),
    max_size=2,
    unique_by=lambda variable: str(variable["name"]),
)
containers: st.SearchStrategy[Any] = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("abc")}, optional={"image": values, "env": variables}),
    max_size=3,
    unique_by=lambda container: str(container["name"]),
)
selectors = st.dictionaries(st.sampled_from("ab"), values, max_size=2)
specs = st.fixed_dictionaries(
    {}, optional={"hostname": values, "nodeSelector": selectors, "containers": containers}
)
labels = st.dictionaries(st.sampled_from("abc"), values, max_size=3)
pods = st.fixed_dictionaries(
    {"metadata": st.fixed_dictionaries({"name": st.just("p")}, optional={"labels": labels})},
    optional={"spec": specs},
)


@given(pods)
def test_fields_survive_being_written_and_read(pod: Any) -> None:
    fields = field_set(POD, pod)
    assert decode_fields(encode_fields(fields)) == fields


@given(pods, pods)
def test_a_delta_explains_the_difference(old: Any, new: Any) -> None:
    change = delta(POD, old, new)
    before, after = field_set(POD, old), field_set(POD, new)
    assert change.changed <= after
    assert change.removed == before - after
    assert after - before <= change.changed
    if old == new:
        assert not change.changed


@given(pods)
def test_applying_twice_changes_nothing(pod: Any) -> None:
    once = applied(None, pod, "me", schema=POD)
    twice = applied(once, pod, "me", schema=POD)
    assert twice == once


@given(pods, pods)
def test_who_applies_less_takes_away_what_only_he_owned(first: Any, second: Any) -> None:
    live = applied(applied(None, first, "me", schema=POD), second, "me", schema=POD)
    assert field_set(POD, live) == field_set(POD, second)


@given(pods, pods)
def test_forcing_wins_and_what_others_own_alone_stays(mine: Any, theirs: Any) -> None:
    live = applied(applied(None, theirs, "they", schema=POD), mine, "me", force=True, schema=POD)
    assert not delta(POD, live, applied(live, mine, "me", schema=POD)).changed, "nothing is left to conflict"
    fields = field_set(POD, live)
    for path in field_set(POD, theirs) - field_set(POD, mine):
        inside = any(path[: len(m)] == m or m[: len(path)] == path for m in field_set(POD, mine))
        assert path in fields or inside, dotted(path)


@given(pods, pods)
def test_a_conflict_leaves_both_as_they_were(mine: Any, theirs: Any) -> None:
    live = applied(None, theirs, "they", schema=POD)
    before = copy_json(live)
    try:
        applied(live, mine, "me", schema=POD)
    except ApiError as error:
        assert error.code == 409
        assert error.details["causes"]
    assert live == before


def test_a_conflict_names_the_other_and_the_field() -> None:
    live = applied(None, conf(a="1", b="1"), "they")
    with pytest.raises(ApiError) as raised:
        applied(live, conf(a="2", b="2"), "me")
    assert (
        raised.value.message == 'Apply failed with 2 conflicts: conflicts with "they":\n- .data.a\n- .data.b'
    )
    assert [cause["field"] for cause in raised.value.details["causes"]] == [".data.a", ".data.b"]


def test_agreeing_is_no_conflict() -> None:
    live = applied(applied(None, conf(a="1"), "they"), conf(a="1"), "me")
    assert owners(live) == {"they": {".data.a"}, "me": {".data.a"}}
    assert applied(live, conf(), "me")["data"] == {"a": "1"}


def test_an_update_takes_over_only_what_it_changes() -> None:
    live = applied(None, conf(a="1", b="1"), "applier")
    live = updated(live, {**live, "data": {"a": "2", "b": "1", "c": "3"}}, "editor")
    assert owners(live) == {"applier": {".data.b"}, "editor": {".data.a", ".data.c"}}
    live = updated(live, {**live, "data": {"b": "1"}}, "editor")
    assert owners(live) == {"applier": {".data.b"}}


def test_managed_fields_can_be_forgotten() -> None:
    live = applied(None, conf(a="1"), "applier")
    reset = updated(live, {"metadata": {"name": "c", "managedFields": []}, "data": {"a": "1"}}, "editor")
    assert "applier" not in owners(reset)


def test_the_number_of_update_managers_is_bounded() -> None:
    live: Any = conf()
    for number in range(MAX_UPDATE_MANAGERS + 5):
        new = {"metadata": live["metadata"], "data": {**live.get("data", {}), f"k{number}": "v"}}
        live = updated(live, new, f"manager-{number:02}", time=f"2026-01-01T00:00:{number:02}Z")
    names = set(owners(live))
    assert len(names) == MAX_UPDATE_MANAGERS
    assert "ancient-changes" in names
    assert len(set().union(*owners(live).values())) == MAX_UPDATE_MANAGERS + 5, "nothing loses its owner"


def test_entries_with_a_defaulted_key_are_the_same_entry() -> None:
    first = {"spec": {"ports": [{"port": 80, "name": "http"}]}}
    live = applied(None, first, "me", schema=SERVICE)
    live["spec"]["ports"][0]["protocol"] = "TCP"
    again = applied(live, {"spec": {"ports": [{"port": 80, "name": "web"}]}}, "me", schema=SERVICE)
    assert again["spec"]["ports"] == [{"port": 80, "name": "web", "protocol": "TCP"}]


def test_applied_order_of_entries_is_kept() -> None:
    live = applied(None, {"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}, "me", schema=POD)
    live = applied(live, {"spec": {"containers": [{"name": "side"}]}}, "they", schema=POD)
    live = applied(live, {"spec": {"containers": [{"name": "b"}, {"name": "a"}]}}, "me", schema=POD)
    names = [container["name"] for container in live["spec"]["containers"]]
    assert names.index("b") < names.index("a")
    assert sorted(names) == ["a", "b", "side"]
