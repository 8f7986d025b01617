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
