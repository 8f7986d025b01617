"""A connection that begins inside a pod's network, as the kubelet makes one for a port-forward."""

import os
import socket

from tulle.local.net import kernel

__all__ = ["connect_inside"]

CONNECT_SECONDS = 5.0


def connect_inside(process: int, ip: str, port: int) -> socket.socket:
    """Connect from the network of this process to its own port: by loopback, else by the pod's address.

    A socket stays in the network in which it was made; the calling thread is back in its own when this returns.

    :raises OSError: nobody listens, or the network is gone.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(f"/proc/{process}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernel.setns(there, kernel.CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            try:
                connection = socket.create_connection(("127.0.0.1", port), CONNECT_SECONDS)
            except ConnectionRefusedError:
                connection = socket.create_connection((ip, port), CONNECT_SECONDS)
        finally:
            kernel.setns(home, kernel.CLONE_NEWNET)
    finally:
        os.close(home)
    connection.setblocking(False)
    return connection
