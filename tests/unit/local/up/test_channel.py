"""Messages and descriptors between `tulle up` and its world."""

import os
import socket

import pytest

from tulle.local.channel import Channel, ChannelClosed, Grant, Progress, SourcedObject, Start


def pair() -> tuple[Channel, Channel]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(one), Channel(other)


async def test_a_descriptor_travels_with_its_message() -> None:
    ours, theirs = pair()
    read, write = os.pipe()
    ours.send(Grant(1, 8080), [write])
    os.close(write)
    message, descriptors = await theirs.receive()
    assert message == Grant(1, 8080)
    os.write(descriptors[0], b"hello")
    os.close(descriptors[0])
    assert os.read(read, 10) == b"hello"
    os.close(read)
    ours.close()
    theirs.close()


async def test_a_message_of_any_length_arrives_with_its_descriptors() -> None:
    ours, theirs = pair()
    objects = [SourcedObject({"kind": "ConfigMap", "data": "x" * 3_000_000}, "a.yaml:1")]
    null = os.open(os.devnull, os.O_RDONLY)
    ours.send(Start("tulle", "netns", "", "/tmp", objects, [], False), [null])
    os.close(null)
    message, descriptors = await theirs.receive()
    assert isinstance(message, Start)
    assert message.objects == objects
    assert len(descriptors) == 1
    os.close(descriptors[0])
    ours.close()
    theirs.close()


async def test_what_was_said_is_heard_before_the_end() -> None:
    ours, theirs = pair()
    for number in range(3):
        ours.send(Progress(str(number)))
    ours.close()
    assert [(await theirs.receive())[0] for _ in range(3)] == [Progress("0"), Progress("1"), Progress("2")]
    with pytest.raises(ChannelClosed):
        await theirs.receive()
    theirs.send(Progress("to nobody"))
    theirs.close()


async def test_a_slow_reader_loses_nothing() -> None:
    ours, theirs = pair()
    for number in range(2000):
        ours.send(Progress(f"{number} " + "x" * 1000))
    heard = [(await theirs.receive())[0] for _ in range(2000)]
    assert [message.text.split()[0] for message in heard if isinstance(message, Progress)] == [
        str(n) for n in range(2000)
    ]
    ours.close()
    theirs.close()
