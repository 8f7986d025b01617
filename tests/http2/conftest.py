"""Every case runs twice: against the codec alone, and against the sidecar with an application behind it."""

import shutil
from collections.abc import Iterator

import pytest

from tests.http2.sidecar import Server, application, codec, sidecar


@pytest.fixture(scope="module", params=["codec", "sidecar"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if request.param == "sidecar":
        with application() as port, sidecar(port) as running:
            yield running
    else:
        if shutil.which("cargo") is None:
            pytest.skip("the codec alone is built with cargo, which is not installed")
        with codec() as running:
            yield running


# What the `h2` crate beneath the sidecar gets wrong, until our codec takes its place.
NOT_YET = (
    "after the end]",
    "a short ",
    "SETTINGS of odd length",
    "SETTINGS ACK with a payload",
    "a window of 2^31",
    "index 0",
    "an index beyond the tables",
    "a block that ends amid a field",
    "an endless integer",
    "a table over the setting",
    "a table size after a field",
    "Huffman",
    "a pseudo field in trailers",
    "a :path with a fragment",
    "before SETTINGS",
    "test_padding_is_given_back",
    "test_malformed_requests_are_not_refused_for_ever",
    "test_floods_of_control_frames_end",
    "test_a_client_that_does_not_read_the_answers_is_left",
    "test_streams_that_are_not_read_do_not_stop_another_client",
    "test_a_window_opened_octet_by_octet",
)


@pytest.fixture(autouse=True)
def not_yet(request: pytest.FixtureRequest) -> None:
    """Let the sidecar fail where the library beneath it does."""
    name = request.node.name
    if "[sidecar" in name and any(part in name for part in NOT_YET):
        request.applymarker(pytest.mark.xfail(reason="the `h2` crate, not our codec", strict=False))
