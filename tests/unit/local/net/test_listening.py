"""Who listens, read from the kernel's table."""

import os
import socket
import sys

import pytest

from tulle.local.net.listening import is_listened_on, listeners

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0502A8C0:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0502A8C0:0050 0602A8C0:9C40 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 20 4 30 10 -1
"""


@pytest.mark.skipif(sys.byteorder != "little", reason="the table above is a little-endian machine's")
def test_listening_sockets_are_told_from_connections() -> None:
    assert list(listeners(TABLE)) == [("192.168.2.5", 80), ("", 8080)]


@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")],
)
def test_a_socket_of_this_process_is_found(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family) as server:
        server.bind((address, 0))
        port = server.getsockname()[1]
        assert not is_listened_on(os.getpid(), "127.0.0.1", port), "bound is not yet listening"
        server.listen()
        assert is_listened_on(os.getpid(), "127.0.0.1", port)
        assert is_listened_on(os.getpid(), "127.0.0.2", port) == (address != "127.0.0.1")
