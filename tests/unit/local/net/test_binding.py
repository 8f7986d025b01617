"""Which address a program in loopback mode listens on: what it asked for, or the pod's where it asked for all."""

import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulle.local.net import seccomp
from tulle.local.net.binding import on_pod_address

POD = "127.20.0.7"


def v4(host: str, port: int) -> bytes:
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)


def v6(host: str, port: int) -> bytes:
    packed = socket.inet_pton(socket.AF_INET6, host)
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 5) + packed + struct.pack("=I", 9)


@pytest.mark.parametrize(
    ("asked", "v6_only", "bound"),
    [
        pytest.param(v4("0.0.0.0", 8080), False, v4(POD, 8080), id="all of IPv4"),
        pytest.param(v4("0.0.0.0", 80), False, v4(POD, 18080), id="a port that needs a privilege"),
        pytest.param(v6("::", 8080), False, v6("::ffff:" + POD, 8080), id="all of both"),
        pytest.param(v6("::ffff:0.0.0.0", 80), False, v6("::ffff:" + POD, 18080), id="all of IPv4, mapped"),
        pytest.param(v6("::", 8080), True, v6("::1", 0), id="all of IPv6 alone"),
        pytest.param(v4("127.0.0.1", 8080), False, None, id="an address that is named"),
        pytest.param(v4(POD, 80), False, None, id="its own"),
        pytest.param(v6("::1", 8080), False, None, id="IPv6's localhost"),
        pytest.param(v4("0.0.0.0", 0), False, None, id="any port, to call from"),
        pytest.param(v6("::", 0), False, None, id="any port of IPv6"),
        pytest.param(struct.pack("=H", socket.AF_UNIX) + b"/run/x\0", False, None, id="a unix socket"),
        pytest.param(v4("0.0.0.0", 8080)[:7], False, None, id="cut short"),
        pytest.param(b"", False, None, id="nothing"),
    ],
)
def test_all_addresses_are_the_pods(asked: bytes, v6_only: bool, bound: bytes | None) -> None:
    assert on_pod_address(asked, POD, 1024, v6_only=v6_only) == bound


@given(st.binary(max_size=28), st.booleans())
def test_whatever_is_written_is_as_long_as_what_was_asked(asked: bytes, v6_only: bool) -> None:
    changed = on_pod_address(asked, POD, 1024, v6_only=v6_only)
    assert changed is None or (len(changed) == len(asked) and changed[:2] == asked[:2])


@pytest.mark.parametrize(
    ("release", "machine"), [("5.4.0-150-generic", "x86_64"), ("4.4.0", "aarch64"), ("6.12.1", "riscv64")]
)
def test_a_kernel_that_cannot_let_a_call_go_on_is_not_asked_to_tell_of_it(
    release: str, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process told of there would wait for ever; without it, all addresses are all addresses."""
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "here", release, "#1", machine)))
    with pytest.raises(OSError, match=r"cannot let a call go on|no numbers"):
        seccomp.notify()
