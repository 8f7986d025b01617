"""JSON patch, merge patch and strategic merge patch."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.local.api.errors import ApiError
from tulle.local.api.objects import copy_json
from tulle.local.api.patch import MAX_OPERATIONS, json_patch, merge_patch, strategic_merge
from tulle.local.api.schema import builtin

scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab~/", max_size=3)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~", max_size=2), inner, max_size=3)
    ),
    max_leaves=12,
)
objects = st.dictionaries(st.text("abc", min_size=1, max_size=2), documents, max_size=4)


@pytest.mark.parametrize(
    ("document", "operations", "expected"),
    [
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"foo": "bar", "baz": "qux"}),
        (
            {"foo": ["bar", "baz"]},
            [{"op": "add", "path": "/foo/1", "value": "qux"}],
            {"foo": ["bar", "qux", "baz"]},
        ),
        ({"foo": ["bar"]}, [{"op": "add", "path": "/foo/-", "value": ["a"]}], {"foo": ["bar", ["a"]]}),
        ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
        ({"foo": ["a", "b", "c"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["a", "c"]}),
        ({"baz": "qux"}, [{"op": "replace", "path": "/baz", "value": "boo"}], {"baz": "boo"}),
        (
            {"a": {"b": 1}, "c": {}},
            [{"op": "move", "from": "/a/b", "path": "/c/d"}],
            {"a": {}, "c": {"d": 1}},
        ),
        ({"a": [1, 2, 3]}, [{"op": "move", "from": "/a/0", "path": "/a/2"}], {"a": [2, 3, 1]}),
        ({"a": {"b": [1]}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": [1]}, "c": {"b": [1]}}),
        ({"a": 1}, [{"op": "test", "path": "/a", "value": 1}], {"a": 1}),
        ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
        ({"/": 9}, [{"op": "replace", "path": "/~1", "value": 1}], {"/": 1}),
        ({"a": None}, [{"op": "replace", "path": "/a", "value": 1}], {"a": 1}),
        ({"": 1}, [{"op": "replace", "path": "/", "value": 2}], {"": 2}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
    ],
)
def test_json_patch_does_what_the_rfc_says(document: Any, operations: Any, expected: Any) -> None:
    before = copy_json(document)
    assert json_patch(document, operations) == expected
    assert document == before, "the old object is left alone"


@pytest.mark.parametrize(
    ("operations", "code"),
    [
        ([{"op": "remove", "path": "/none"}], 422),
        ([{"op": "replace", "path": "/none", "value": 1}], 422),
        ([{"op": "add", "path": "/none/deeper", "value": 1}], 422),
        ([{"op": "add", "path": "/list/5", "value": 1}], 422),
        ([{"op": "add", "path": "/list/01", "value": 1}], 422),
        ([{"op": "add", "path": "/list/-1", "value": 1}], 422),
        ([{"op": "add", "path": "/list/x", "value": 1}], 422),
        ([{"op": "test", "path": "/a", "value": 2}], 422),
        ([{"op": "move", "from": "/list", "path": "/list/0"}], 422),
        ([{"op": "replace", "path": "", "value": 1}], 422),
        ([{"op": "add", "path": "/b"}], 400),
        ([{"op": "add", "path": "b", "value": 1}], 400),
        ([{"op": "jump", "path": "/b"}], 400),
        ([{"path": "/b"}], 400),
        ([7], 400),
        ({"op": "add"}, 400),
        ([{"op": "test", "path": "/a", "value": 1}] * (MAX_OPERATIONS + 1), 413),
    ],
)
def test_a_json_patch_that_does_not_fit_is_refused(operations: Any, code: int) -> None:
    with pytest.raises(ApiError) as raised:
        json_patch({"a": 1, "list": [1, 2]}, operations)
    assert raised.value.code == code


@given(
    objects,
    st.lists(
        st.fixed_dictionaries(
            {
                "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
                "path": st.text("/ab01-~", max_size=6),
            },
            optional={"value": documents, "from": st.text("/ab01-", max_size=6)},
        ),
        max_size=4,
    ),
)
def test_any_json_patch_works_or_is_refused(document: Any, operations: Any) -> None:
    before = copy_json(document)
    try:
        assert isinstance(json_patch(document, operations), dict)
    except ApiError as error:
        assert error.code in (400, 422)
    assert document == before


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_does_what_the_rfc_says(target: Any, patch: Any, expected: Any) -> None:
    assert merge_patch(target, patch) == expected


@given(objects, objects)
def test_a_merge_patch_twice_is_a_merge_patch_once(target: Any, patch: Any) -> None:
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once


def strategic(target: Any, patch: Any) -> Any:
    spec = strategic_merge(builtin("core_v1.Pod"), {"spec": target}, {"spec": patch})
    return spec["spec"]


def named(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, **more} for name in names]


def test_keyed_lists_merge_by_key() -> None:
    target = {
        "containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]
    }
    patch = {"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}]}, {"name": "c"}]}
    merged = strategic(target, patch)["containers"]
    assert [container["name"] for container in merged] == ["a", "b", "c"]
    assert merged[0] == {
        "name": "a",
        "image": "1",
        "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}],
    }


def test_entries_are_deleted_by_directive() -> None:
    merged = strategic({"containers": named("a", "b")}, {"containers": [{"name": "a", "$patch": "delete"}]})
    assert merged == {"containers": named("b")}


def test_a_list_is_replaced_by_directive() -> None:
    merged = strategic(
        {"containers": named("a", "b")}, {"containers": [{"$patch": "replace"}, {"name": "c"}]}
    )
    assert merged == {"containers": named("c")}


def test_an_object_is_replaced_by_directive() -> None:
    merged = strategic(
        {"securityContext": {"runAsUser": 1}}, {"securityContext": {"$patch": "replace", "runAsGroup": 2}}
    )
    assert merged == {"securityContext": {"runAsGroup": 2}}


def test_atomic_lists_are_replaced() -> None:
    target = {"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["1", "2"]}]}
    merged = strategic(target, {"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["3"]}]})
    assert merged == {"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["3"]}]}


def test_sets_merge_by_union_and_lose_by_directive() -> None:
    schema = builtin("core_v1.ConfigMap")
    target = {"metadata": {"finalizers": ["a", "b"]}}
    assert strategic_merge(schema, target, {"metadata": {"finalizers": ["b", "c"]}})["metadata"][
        "finalizers"
    ] == ["a", "b", "c"]
    less = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}
    assert strategic_merge(schema, target, less)["metadata"]["finalizers"] == ["b"]


def test_the_order_that_a_patch_asks_for() -> None:
    order = [{"name": "c"}, {"name": "a"}]
    patch = {"$setElementOrder/containers": order, "containers": [{"name": "c", "image": "2"}]}
    merged = strategic({"containers": named("a", "b", "c")}, patch)
    assert [container["name"] for container in merged["containers"]] == ["b", "c", "a"]


def test_retain_keys_clears_the_rest_of_a_union() -> None:
    schema = builtin("apps_v1.Deployment")
    target = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert strategic_merge(schema, target, patch) == {"spec": {"strategy": {"type": "Recreate"}}}


def test_null_deletes() -> None:
    assert strategic({"nodeName": "a", "hostname": "b"}, {"hostname": None}) == {"nodeName": "a"}


@pytest.mark.parametrize(
    "patch", [{"containers": [{"image": "x"}]}, {"$odd": 1}, {"securityContext": {"$patch": "odd"}}]
)
def test_a_strategic_patch_that_makes_no_sense_is_refused(patch: Any) -> None:
    with pytest.raises(ApiError) as raised:
        strategic({"containers": named("a")}, patch)
    assert raised.value.code == 400


containers = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from("abcd")},
        optional={"image": st.sampled_from(["1", "2"]), "args": st.lists(st.sampled_from("xy"), max_size=2)},
    ),
    max_size=4,
    unique_by=lambda container: container["name"],
)


@given(containers, containers)
def test_strategic_merging_keeps_each_name_once_and_settles(before: Any, patch: Any) -> None:
    target = {"containers": before}
    once = strategic(copy_json(target), {"containers": patch})
    names = [container["name"] for container in once["containers"]]
    assert len(names) == len(set(names))
    assert set(names) == {container["name"] for container in [*before, *patch]}
    assert strategic(once, {"containers": patch}) == once
    wanted = {container["name"]: container for container in patch}
    for container in once["containers"]:
        assert container.items() >= wanted.get(container["name"], {}).items()
