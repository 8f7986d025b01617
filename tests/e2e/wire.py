"""Capture what TCP carries in the network namespace this runs in: one JSON line per segment, until its input ends.

`python wire.py PREFIX` looks at segments between addresses that begin with PREFIX.
"""

import json
import select
import socket
import struct
import sys

ETH_P_IP = 0x0800


def main(prefix: str) -> None:
    # Every protocol, so that what is sent is seen as well as what is received.
    capture = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0003))
    capture.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    print(json.dumps({"ready": True}), flush=True)
    while True:
        readable, _, _ = select.select([capture, sys.stdin], [], [])
        if capture in readable:
            packet, (_, protocol, *_) = capture.recvfrom(65536)
            if protocol == ETH_P_IP:
                report(packet, prefix)
        elif sys.stdin in readable:
            return


def report(packet: bytes, prefix: str) -> None:
    header = (packet[0] & 15) * 4
    if packet[9] != socket.IPPROTO_TCP:
        return
    source, target = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    if not (source.startswith(prefix) and target.startswith(prefix)):
        return
    (length,) = struct.unpack_from("!H", packet, 2)
    ports = struct.unpack_from("!HH", packet, header)
    payload = packet[header + (packet[header + 12] >> 4) * 4 : length]
    if payload:
        line = {"from": f"{source}:{ports[0]}", "to": f"{target}:{ports[1]}", "bytes": payload.hex()}
        print(json.dumps(line), flush=True)


main(sys.argv[1])
