"""The page reader: only wanted families, labels with escapes, and no belief in what is no sample."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.viz.exposition import Malformed, labels_of, name_of, samples, value_of

NAMES = frozenset({b"a_total", b"b"})


def test_only_the_families_named_are_read() -> None:
    page = b'# HELP a_total x\n# TYPE a_total counter\na_total{x="1"} 2\nab_total 7\nb 3.5\n\nc{y="z"} 1\n'
    assert list(samples(page, NAMES)) == [(b'a_total{x="1"}', b"2"), (b"b", b"3.5")]


def test_a_space_or_brace_inside_a_label_does_not_end_the_series() -> None:
    page = b'a_total{x="one } two {",y="3 4"} 9\n'
    [(series, value)] = samples(page, NAMES)
    assert value == b"9"
    assert labels_of(series) == {"x": "one } two {", "y": "3 4"}


def test_a_family_without_labels_has_none() -> None:
    assert (name_of(b"b"), labels_of(b"b")) == ("b", {})


@pytest.mark.parametrize("series", [b'a{x="1"', b"a{x=1}", b'a{x="1" y="2"}', b'a{="1"}', b'a{x="1",,y="2"}'])
def test_broken_labels_are_refused(series: bytes) -> None:
    with pytest.raises(Malformed):
        labels_of(series)


def test_a_value_that_is_no_number_is_refused() -> None:
    with pytest.raises(Malformed):
        value_of(b"many")


@given(
    st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True), st.text(max_size=20), max_size=5)
)
def test_what_was_escaped_is_read_back(labels: dict[str, str]) -> None:
    def escape(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    written = ",".join(f'{name}="{escape(value)}"' for name, value in labels.items())
    # Surrogates cannot be written as UTF-8 at all; hypothesis does not make them from st.text's default alphabet.
    assert labels_of(f"a_total{{{written}}}".encode()) == labels
