"""Whose connection is this? From a loopback connection to the process that dialled it, by /proc.

Needed in the loopback network only: there localhost:4140 is one socket for all pods, and the caller's pod decides
which sidecar serves it. The caller's end of the connection has an inode in /proc/net/tcp, the inode is an open
file of a process, and the process has a session or an ancestor that the mesh started.
"""

import os
import socket
import struct
from collections.abc import Iterator

__all__ = ["POD_ADDRESS", "ancestors", "inode_of", "pod_address", "process_with", "table_address"]

POD_ADDRESS = "TULLE_POD_ADDRESS"
"""Variable of every process in a pod of the loopback network."""

_MOST_ANCESTORS = 64


def table_address(ip: str, port: int) -> str:
    """Return an address as /proc/net/tcp writes it: bytes of the address in machine order, port in hex."""
    (number,) = struct.unpack("=I", socket.inet_aton(ip))
    return f"{number:08X}:{port:04X}"


def inode_of(table: str, local: tuple[str, int], remote: tuple[str, int]) -> str | None:
    """Find the inode of the socket with these ends in the text of /proc/net/tcp."""
    ends = (table_address(*local), table_address(*remote))
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and (fields[1], fields[2]) == ends:
            return fields[9]
    return None


def process_with(inode: str) -> int | None:
    """Return a process that has this socket open, among those whose open files this user may see."""
    wanted = f"socket:[{inode}]"
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        folder = f"/proc/{name}/fd"
        try:
            for descriptor in os.listdir(folder):
                if os.readlink(f"{folder}/{descriptor}") == wanted:
                    return int(name)
        except OSError:
            continue  # it has ended, or is another user's
    return None


def ancestors(pid: int) -> Iterator[int]:
    """Yield the process, its parent, and so on."""
    for _ in range(_MOST_ANCESTORS):
        if pid <= 1:
            return
        yield pid
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            return


def pod_address(environment: bytes) -> str | None:
    """Return the pod's address in the text of /proc/PID/environ; None when it holds none of the loopback's."""
    for entry in environment.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == POD_ADDRESS.encode():
            address = value.decode(errors="replace")
            try:
                packed = socket.inet_aton(address)
            except OSError:
                return None
            return socket.inet_ntoa(packed) if packed[0] == 127 else None
    return None
