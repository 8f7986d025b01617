"""DNS for the cluster's names: bytes of a question in, bytes of the answer out. No socket, no clock.

Zone contents follow the Kubernetes DNS specification: Services (one A record of the virtual address), headless
Services (one A record per ready pod), hosts below headless Services, SRV for named ports, pods by dashed
address. Every name is answered in full form; the search list in a pod's resolv.conf makes the short forms.
Formats: RFC 1035 §4, RFC 2782 (SRV), RFC 2308 (SOA in negative answers), RFC 6891 (payload size).
"""

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from tulle.local.net.model import ServiceRoute

__all__ = [
    "DOMAIN",
    "Answer",
    "MalformedQuestion",
    "Question",
    "Rcode",
    "Type",
    "Zone",
    "encode",
    "parse",
    "search",
]

DOMAIN = "cluster.local"
TTL = 5  # seconds: an endpoint that left is forgotten soon
PLAIN_LIMIT = 512  # bytes of a UDP answer when the asker does not say that she takes more (RFC 1035 §4.2.1)
LARGEST = 4096
_HEADER = struct.Struct("!HHHHHH")


class Type(IntEnum):
    """Record types that the zone holds, and the pseudo-record of EDNS."""

    A = 1
    CNAME = 5
    SOA = 6
    PTR = 12
    AAAA = 28
    SRV = 33
    OPT = 41
    ANY = 255


class Rcode(IntEnum):
    """Response codes."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4


class MalformedQuestion(ValueError):
    """The message is not one question that can be answered; nothing is sent back."""


@dataclass(frozen=True)
class Question:
    """A parsed question. `name` is lower case without the last dot; `raw` are its bytes, sent back as they came."""

    ident: int
    flags: int
    name: str
    kind: int
    raw: bytes
    payload: int = PLAIN_LIMIT


@dataclass(frozen=True)
class Answer:
    """What to say. `records` are (type, data) of the asked name; `ours` is False for names outside the cluster.

    Where the asked name is an alias, `alias` is what it stands for and `records` are that name's.
    """

    code: Rcode
    records: Sequence[tuple[Type, bytes]] = ()
    ours: bool = True
    alias: str = ""


def search(namespace: str, domain: str = DOMAIN) -> list[str]:
    """Return the search list of a pod in this namespace."""
    return [f"{namespace}.svc.{domain}", f"svc.{domain}", domain]


def parse(message: bytes) -> Question:
    """Read a query of exactly one question.

    :raises MalformedQuestion: it is an answer, is cut short, or does not hold one question.
    """
    if len(message) < _HEADER.size:
        raise MalformedQuestion("shorter than a header")
    ident, flags, questions, _, _, additional = _HEADER.unpack_from(message)
    if flags & 0x8000 or questions != 1:
        raise MalformedQuestion("not one question")
    labels = []
    at = _HEADER.size
    try:
        while length := message[at]:
            if length > 63 or at + 1 + length > len(message):
                raise MalformedQuestion("bad label")
            labels.append(message[at + 1 : at + 1 + length].decode("ascii", "replace").lower())
            at += 1 + length
        (kind,) = struct.unpack_from("!H", message, at + 1)
        end = at + 5
        if end > len(message):
            raise MalformedQuestion("cut short")
    except (IndexError, struct.error) as error:
        raise MalformedQuestion("cut short") from error
    payload = PLAIN_LIMIT
    if (
        additional
        and message[end : end + 3] == b"\0" + struct.pack("!H", Type.OPT)
        and len(message) >= end + 5
    ):
        (offered,) = struct.unpack_from("!H", message, end + 3)
        payload = max(PLAIN_LIMIT, min(offered, LARGEST))
    return Question(ident, flags, ".".join(labels), kind, message[_HEADER.size : end], payload)


def encode(question: Question, answer: Answer, *, stream: bool = False) -> bytes:
    """Return the answer's bytes; over UDP (`stream` False) one that does not fit says "ask by TCP" instead."""
    flags = 0x8000 | (0x0400 if answer.ours else 0) | (question.flags & 0x7900) | 0x0080 | answer.code
    owner, body = b"\xc0\x0c", b""  # a pointer to the question's name
    if answer.alias:
        alias = _name(answer.alias)
        body = owner + struct.pack("!HHIH", Type.CNAME, 1, TTL, len(alias)) + alias
        owner = alias
    body += b"".join(
        owner + struct.pack("!HHIH", kind, 1, TTL, len(data)) + data for kind, data in answer.records
    )
    authority = b""
    if answer.ours and not body and answer.code in (Rcode.NOERROR, Rcode.NXDOMAIN):
        soa = (
            _name(f"ns.{DOMAIN}")
            + _name(f"hostmaster.{DOMAIN}")
            + struct.pack("!IIIII", 1, 7200, 1800, 86400, TTL)
        )
        authority = _name(DOMAIN) + struct.pack("!HHIH", Type.SOA, 1, TTL, len(soa)) + soa
    counts = (1, len(answer.records) + bool(answer.alias), 1 if authority else 0, 0)
    message = _HEADER.pack(question.ident, flags, *counts) + question.raw + body + authority
    limit = 65535 if stream else question.payload
    if len(message) > limit:
        return _HEADER.pack(question.ident, flags | 0x0200, 1, 0, 0, 0) + question.raw
    return message


def _name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


@dataclass(frozen=True)
class Zone:
    """All names of the cluster at one moment. Built once per change, looked up by dictionary."""

    domain: str = DOMAIN
    _addresses: dict[str, list[str]] = field(default_factory=dict)
    _services: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    _pointers: dict[str, str] = field(default_factory=dict)
    _branches: set[str] = field(default_factory=set)
    _aliases: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, routes: Sequence[ServiceRoute], domain: str = DOMAIN) -> "Zone":
        """Build the zone of these Services."""
        zone = cls(domain)
        for route in routes:
            service = f"{route.name}.{route.namespace}.svc.{domain}"
            zone._branches.update({service, f"{route.namespace}.svc.{domain}", f"svc.{domain}", domain})
            if route.external_name:
                zone._aliases[service] = route.external_name
                continue
            protocol = route.protocol.lower()
            port = f"_{route.port_name}._{protocol}.{service}" if route.port_name else None
            if port:
                zone._branches.add(f"_{protocol}.{service}")
            if route.virtual_ip is not None:
                zone._addresses[service] = [route.virtual_ip]
                zone._pointers[_reverse(route.virtual_ip)] = service
                if port:
                    zone._services.setdefault(port, []).append((route.port, service))
                continue
            for backend in route.backends:
                zone._add(service, backend.ip)
                host = f"{backend.hostname or backend.ip.replace('.', '-')}.{service}"
                zone._add(host, backend.ip)
                if backend.hostname:
                    zone._pointers[_reverse(backend.ip)] = host
                if port:
                    zone._services.setdefault(port, []).append((backend.port, host))
        return zone

    def _add(self, name: str, ip: str) -> None:
        known = self._addresses.setdefault(name, [])
        if ip not in known:
            known.append(ip)

    def lookup(self, name: str, kind: int) -> Answer:
        """Answer one question; `ours` False means that somebody else must be asked."""
        if name.endswith(".in-addr.arpa"):
            pointer = self._pointers.get(name)
            if pointer is not None:
                return Answer(
                    Rcode.NOERROR, [(Type.PTR, _name(pointer))] if kind in (Type.PTR, Type.ANY) else []
                )
            return Answer(Rcode.NXDOMAIN, ours=name.endswith((".42.10.in-addr.arpa", ".96.10.in-addr.arpa")))
        if name != self.domain and not name.endswith("." + self.domain):
            return Answer(Rcode.NXDOMAIN, ours=False)
        if name in self._aliases:
            # An alias of an alias is left to the asker, and so is a name outside: she knows whom to ask.
            other = self._aliases[name]
            known_other = other not in self._aliases and self.lookup(other, kind)
            records = known_other.records if known_other and known_other.ours else ()
            return Answer(Rcode.NOERROR, records, alias=other)
        return self._own(name, kind)

    def _own(self, name: str, kind: int) -> Answer:
        records: list[tuple[Type, bytes]] = []
        addresses = self._addresses.get(name) or _dashed(name, self.domain)
        if kind in (Type.A, Type.ANY):
            records += [(Type.A, socket.inet_aton(ip)) for ip in addresses]
        targets = self._services.get(name, ())
        if kind in (Type.SRV, Type.ANY):
            share = 100 // max(1, len(targets))
            records += [
                (Type.SRV, struct.pack("!HHH", 0, share, port) + _name(target)) for port, target in targets
            ]
        known = bool(addresses or targets or name in self._branches)
        return Answer(Rcode.NOERROR if known else Rcode.NXDOMAIN, records)


def _reverse(ip: str) -> str:
    return ".".join(reversed(ip.split("."))) + ".in-addr.arpa"


def _dashed(name: str, domain: str) -> list[str]:
    """Return the address in a name like 10-42-0-7.default.pod.cluster.local."""
    first, _, rest = name.partition(".")
    parts = first.split("-")
    if (
        rest.endswith(f".pod.{domain}")
        and len(parts) == 4
        and all(p.isdecimal() and int(p) < 256 for p in parts)
    ):
        return [".".join(parts)]
    return []
