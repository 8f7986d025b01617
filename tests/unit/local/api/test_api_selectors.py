"""Label and field selectors."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.local.api.errors import ApiError
from tulle.local.api.selectors import Selector, matches_labels, parse_fields, parse_labels, selector_of


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "b"}, True),
        ("a=b", {"a": "c"}, False),
        ("a=b", {}, False),
        ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False),
        ("a=", {"a": ""}, True),
        ("a=", {}, False),
        ("a in (b, c)", {"a": "c"}, True),
        ("a in (b)", {"a": "c"}, False),
        ("a notin (b)", {}, True),
        ("a notin (b,c)", {"a": "c"}, False),
        ("a", {"a": "x"}, True),
        ("a", {}, False),
        ("!a", {}, True),
        ("!a", {"a": "x"}, False),
        ("a=b,c=d", {"a": "b", "c": "d"}, True),
        ("a=b,!c", {"a": "b", "c": "d"}, False),
        ("a in (x,y),b notin (z), c", {"a": "x", "c": ""}, True),
        ("app.kubernetes.io/name=web", {"app.kubernetes.io/name": "web"}, True),
        ("in=notin", {"in": "notin"}, True),
        ("", {"anything": "x"}, True),
    ],
)
def test_label_selectors(text: str, labels: dict[str, str], matches: bool) -> None:
    assert matches_labels(parse_labels(text), labels) is matches


@pytest.mark.parametrize("text", ["((", "a in b", "a=b c", "=b", "a in (", "a,,b", "a~b", "!", "a=b=c"])
def test_what_is_no_label_selector_is_shown(text: str) -> None:
    with pytest.raises(ApiError) as raised:
        parse_labels(text)
    assert raised.value.code == 400
    assert text in raised.value.message


@given(st.text("abc=!,() innot", max_size=20))
def test_any_text_is_a_selector_or_refused(text: str) -> None:
    try:
        parse_labels(text)
    except ApiError as error:
        assert error.code == 400


keys = st.sampled_from(["a", "b", "c"])
labels = st.dictionaries(keys, st.sampled_from(["1", "2"]))


@given(keys, st.sampled_from(["1", "2"]), labels)
def test_a_term_and_its_negation_disagree(key: str, value: str, given_labels: dict[str, str]) -> None:
    for term, negation in (
        (f"{key}={value}", f"{key}!={value}"),
        (f"{key} in ({value})", f"{key} notin ({value})"),
        (key, f"!{key}"),
    ):
        assert matches_labels(parse_labels(term), given_labels) is not matches_labels(
            parse_labels(negation), given_labels
        )


@pytest.mark.parametrize(
    ("selector", "labels_", "matches"),
    [
        ({}, {"a": "b"}, True),
        (None, {}, True),
        ({"matchLabels": {"a": "b"}}, {"a": "b"}, True),
        (
            {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]},
            {"a": "b"},
            False,
        ),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["x", "y"]}]}, {"a": "y"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["x"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
    ],
)
def test_selector_objects(selector: Any, labels_: dict[str, str], matches: bool) -> None:
    assert matches_labels(selector_of(selector), labels_) is matches


def test_field_selectors() -> None:
    pod = {
        "metadata": {"name": "a", "namespace": "n"},
        "spec": {"nodeName": "x"},
        "status": {"phase": "Running"},
    }

    def selects(text: str) -> bool:
        return Selector(fields=parse_fields(text, "pods")).matches(pod)

    assert selects("metadata.name=a,spec.nodeName==x")
    assert selects("status.phase!=Failed")
    assert not selects("status.phase!=Running")
    assert selects("status.podIP=")
    assert selects("spec.hostNetwork=false")
    with pytest.raises(ApiError) as raised:
        selects("spec.containers=x")
    assert raised.value.message == "field label not supported: spec.containers"
    with pytest.raises(ApiError):
        selects("nonsense")
    assert parse_fields("spec.size=small", "cogs", ["spec.size"]) == (("spec.size", True, "small"),)
