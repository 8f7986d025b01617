"""Our HTTP/2 and nghttp2 make the same of the same frames, in both roles, and read each other's header blocks.

The conversations are those of `crates/http/tests/h2_differential`, which holds ours against the `h2` crate: sound ones
must mean the same message by message; of spoiled ones nothing whole may be read in two ways, and who ends the
connection or a stream names the same error, but for the differences that are listed here.
"""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.http2.nghttp2 import Deflater, Inflater, Message, Session, frames, library
from tests.http2.wire import COMPRESSION_ERROR, PREFACE, PROTOCOL_ERROR, STREAM_CLOSED

ROOT = Path(__file__).parents[2]
LIBRARY = library()
CONVERSATIONS = 1000

pytestmark = pytest.mark.skipif(
    LIBRARY is None,
    reason="libnghttp2 is not installed (apt-get install libnghttp2-14): nothing to compare with",
)

Fields = list[tuple[bytes, bytes]]


@pytest.fixture(scope="module")
def ours() -> Path:
    """Build the program that tells what our codec makes of frames."""
    build = ["cargo", "build", "--quiet", "--release", "--locked", "-p", "tulle-http", "--example", "h2_read"]
    subprocess.run(build, cwd=ROOT, check=True, timeout=300)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/examples/h2_read"


def said(program: Path, *words: str, stdin: str = "") -> list[Any]:
    """Return its lines."""
    done = subprocess.run(
        [program, *words], input=stdin, capture_output=True, text=True, timeout=120, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def unhexed(pairs: list[list[str]]) -> Fields:
    return [(bytes.fromhex(name), bytes.fromhex(value)) for name, value in pairs]


def normal(pairs: Fields) -> Fields:
    """Sort as ours are: only the order of one name's values means anything, and crumbs of cookies are one field."""
    crumbs = [value for name, value in pairs if name == b"cookie"]
    others = [(name, value) for name, value in pairs if name != b"cookie"]
    if crumbs:
        others.append((b"cookie", b"; ".join(crumbs)))
    return sorted(others, key=lambda pair: pair[0])


def start(head: Fields) -> bytes:
    """Return what stands for the pseudo fields, in the form of `ours.rs`."""
    pseudo = {name: value for name, value in head if name.startswith(b":")}
    if b":status" in pseudo:
        return pseudo[b":status"]
    authority = pseudo.get(b":authority") or next((value for name, value in head if name == b"host"), None)
    target = b"" if authority is None else pseudo.get(b":scheme", b"") + b"://" + authority
    return pseudo.get(b":method", b"") + b" " + target + pseudo.get(b":path", b"")


def plain(head: Fields) -> Fields:
    return normal([(name, value) for name, value in head if not name.startswith(b":") and name != b"host"])


def differences(message: dict[str, Any], theirs: Message) -> Iterator[str]:
    """Yield what two readings of one whole message differ in."""
    heads = [head for head in theirs.heads if not start(head).startswith(b"1")]
    ours = (
        bytes.fromhex(message["start"]),
        normal(unhexed(message["fields"])),
        bytes.fromhex(message["body"]),
    )
    their_start, their_fields = start(heads[0]), plain(heads[0])
    their_trailers = plain(heads[1]) if len(heads) > 1 else []
    our_fields = [(name, value) for name, value in ours[1] if name != b"host"]
    for what, one, other in (
        ("start", ours[0], their_start),
        ("fields", our_fields, their_fields),
        ("body", ours[2], theirs.body),
        ("trailers", normal(unhexed(message["trailers"])), their_trailers),
    ):
        if one != other:
            yield f"{what}: {one!r} or {other!r}"


def their_reading(role: str, wire: bytes) -> tuple[Session, bool]:
    assert LIBRARY is not None
    session = Session(LIBRARY, server=role == "server")
    if role == "client":
        for _ in range(5):
            session.request(
                [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"web"), (b":path", b"/")]
            )
    return session, session.feed(wire)


def last_word(written: bytes) -> int | None:
    """Return the code of the GOAWAY that ended the connection."""
    codes = [int.from_bytes(payload[4:8], "big") for kind, _, payload in frames(written) if kind == 7]
    return next((code for code in reversed(codes) if code), None)


@pytest.mark.parametrize("role", ["server", "client"])
def test_sound_conversations_mean_the_same_to_both(ours: Path, role: str) -> None:
    compared = 0
    for told in said(ours, role, "0", str(CONVERSATIONS)):
        if told["spoiled"]:
            continue
        session, alive = their_reading(role, bytes.fromhex(told["wire"]))
        with session:
            assert alive and not told["lost"], told["seed"]
            for stream, message in told["messages"].items():
                theirs = session.messages[int(stream)]
                assert (message["end"] == "Complete") == theirs.complete, (
                    told["seed"],
                    stream,
                    message["end"],
                )
                if theirs.complete:
                    assert list(differences(message, theirs)) == [], (told["seed"], stream)
                    compared += 1
    assert compared > CONVERSATIONS


def resets(written: bytes) -> set[int]:
    """Return the codes with which streams were reset."""
    return {int.from_bytes(payload, "big") for kind, _, payload in frames(written) if kind == 3}


def reason(told: dict[str, Any], session: Session) -> str | None:
    """Return why the one ends the connection and the other does not; `None` when nothing excuses it."""
    wire, written = bytes.fromhex(told["wire"]), bytes.fromhex(told["written"])
    ours, theirs = last_word(written), last_word(session.written)
    if STREAM_CLOSED in (ours, theirs):
        return "a frame of a stream that is over: an error of the stream or of the connection (RFC 9113 §5.1)"
    if ours is None and theirs == PROTOCOL_ERROR and PROTOCOL_ERROR in resets(written):
        return "a malformed message is an error of its stream (RFC 9113 §8.1.1); nghttp2 ends the connection"
    if ours is None and theirs == PROTOCOL_ERROR and any(kind == 7 for kind, _, _ in frames(wire)):
        return "a GOAWAY whose last stream is no stream of ours (RFC 9113 §6.8): we do not look at it"
    if ours is None and theirs == COMPRESSION_ERROR and not ends_whole(wire):
        return "the last header block is not whole: nghttp2 reads it as it comes"
    if theirs is None and ours == PROTOCOL_ERROR and told["messages"]:
        return "a message against the rules that nghttp2 ignores"
    return None


def ends_whole(wire: bytes) -> bool:
    """Return whether the last frame of headers is followed by all of its block."""
    headers = [(flags & 0x4, kind) for kind, flags in kinds(wire) if kind in (1, 9)]
    whole = sum(9 + len(payload) for _, _, payload in frames(wire)) <= len(wire.removeprefix(PREFACE))
    return whole and bool(headers) and bool(headers[-1][0])


def kinds(wire: bytes) -> Iterator[tuple[int, int]]:
    wire = wire.removeprefix(PREFACE)
    while len(wire) >= 9:
        yield wire[3], wire[4]
        wire = wire[9 + int.from_bytes(wire[:3], "big") :]


@pytest.mark.parametrize("role", ["server", "client"])
def test_of_spoiled_conversations_nothing_is_read_in_two_ways(ours: Path, role: str) -> None:
    compared, excuses = 0, Counter[str]()
    ended = same = 0
    for told in said(ours, role, "0", str(CONVERSATIONS)):
        if not told["spoiled"]:
            continue
        session, _ = their_reading(role, bytes.fromhex(told["wire"]))
        with session:
            for stream, message in told["messages"].items():
                theirs = session.messages.get(int(stream))
                if message["end"] == "Complete" and theirs is not None and theirs.complete:
                    assert list(differences(message, theirs)) == [], (told["seed"], stream)
                    compared += 1
            one, other = last_word(bytes.fromhex(told["written"])), last_word(session.written)
            if one is not None and other is not None:
                # Of several faults, either may be the first that is seen.
                ended, same = ended + 1, same + (one == other)
            elif one != other:
                excuse = reason(told, session)
                assert excuse is not None, (told["seed"], one, other, told["wire"])
                excuses[excuse] += 1
    assert compared > CONVERSATIONS
    assert same > 0.85 * ended > CONVERSATIONS / 3, (same, ended)
    # Excuses are rare: else they would excuse anything.
    assert excuses.total() < CONVERSATIONS / 10, excuses


def test_nghttp2_reads_the_header_blocks_that_we_write(ours: Path) -> None:
    assert LIBRARY is not None
    inflater = Inflater(LIBRARY)
    for line in said(ours, "encode", "0", "2000"):
        assert inflater.read(bytes.fromhex(line["block"])) == unhexed(line["fields"])


def test_we_read_the_header_blocks_that_nghttp2_writes(ours: Path) -> None:
    assert LIBRARY is not None
    deflater, sent, blocks = Deflater(LIBRARY), [], []
    for number, line in enumerate(said(ours, "encode", "5000", "2000")):
        if number % 50 == 49:
            deflater.resize(number % 4096)
        pairs = unhexed(line["fields"])
        blocks.append(deflater.write(pairs).hex())
        sent.append(pairs)
    read = said(ours, "decode", stdin="\n".join(blocks) + "\n")
    assert [unhexed(pairs) for pairs in read] == sent
