"""The loopback network's pure parts: ports, paths, ranges of addresses, whose connection it is."""

import os
import socket

import pytest

from tulle.local.net import Mount, caller
from tulle.local.net.loopback import app_port, claim_range, plain_port, redirect_paths


@pytest.mark.parametrize(
    ("port", "lowest", "real"), [(80, 1024, 18080), (80, 0, 80), (8080, 1024, 8080), (1023, 1024, 19023)]
)
def test_an_app_gets_another_port_where_its_own_needs_a_privilege(port: int, lowest: int, real: int) -> None:
    assert app_port(port, lowest) == real


@pytest.mark.parametrize(
    ("port", "plain"), [(80, 30080), (8080, 38080), (35535, 65535), (35536, 5536), (65535, 35535)]
)
def test_the_port_for_plain_clients_is_a_port(port: int, plain: int) -> None:
    assert plain_port(port) == plain


def test_paths_below_a_mount_lead_to_its_source() -> None:
    mounts = [Mount("/state/token", "/var/run/secrets/"), Mount("/state/deep", "/var/run/secrets/deep")]
    assert redirect_paths("/var/run/secrets/token", mounts) == "/state/token/token"
    assert redirect_paths("/var/run/secrets", mounts) == "/state/token"
    assert redirect_paths("/var/run/secrets/deep/x", mounts) == "/state/deep/x"
    assert redirect_paths("/var/run/secretsauce", mounts) == "/var/run/secretsauce"
    assert redirect_paths("text with /var/run/secrets inside", mounts) == "text with /var/run/secrets inside"


def test_two_meshes_of_one_name_have_different_ranges() -> None:
    first, held = claim_range("tulle")
    second, also_held = claim_range("tulle")
    with held, also_held:
        assert first != second
    again, held = claim_range("tulle")
    with held:
        assert again == first, "a range that was let go is free again"


def test_a_connection_leads_to_the_process_that_dialled_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()):
            accepted, peer = server.accept()
            with accepted, open("/proc/net/tcp") as table:
                inode = caller.inode_of(table.read(), peer, server.getsockname())
            assert inode is not None
            assert caller.process_with(inode) == os.getpid()
    assert list(caller.ancestors(os.getpid()))[:2] == [os.getpid(), os.getppid()]


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        (b"PATH=/bin\0TULLE_POD_ADDRESS=127.20.0.3\0", "127.20.0.3"),
        (b"PATH=/bin\0", None),
        (b"TULLE_POD_ADDRESS=192.0.2.1\0", None),
        (b"TULLE_POD_ADDRESS=example.com\0", None),
        (b"", None),
    ],
)
def test_a_process_tells_its_pod_by_its_environment(environment: bytes, address: str | None) -> None:
    assert caller.pod_address(environment) == address
