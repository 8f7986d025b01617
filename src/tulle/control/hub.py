"""Shared answers: everybody who asks the same is in one group, and each change is computed and encoded once for all.

There is no queue anywhere: a group holds its newest answer and one Future that wakes whoever waits. A slow stream finds
the newest answer when it comes back (latest wins), so a stalled proxy costs one suspended coroutine.

Changes are collected for `COALESCE` seconds (a rollout touches one Service a hundred times) and groups are computed in
slices between which the loop may do other work, such as certifying.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tulle.kube.world import Topic, Topics, World

__all__ = ["Group", "Hub", "Subscription"]

log = logging.getLogger("tulle.control")

Answer = TypeVar("Answer")

COALESCE = 0.05
SLICE = 50


@dataclass(eq=False)
class Group(Generic[Answer]):
    """One question and its newest answer; `version` counts the answers that differed."""

    key: Hashable
    compute: Callable[[], Answer]
    answer: Answer
    topics: Topics
    version: int = 1
    members: int = 0
    woken: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def __repr__(self) -> str:
        return f"<Group {self.key!r} v{self.version} members={self.members} topics={len(self.topics)}>"

    def publish(self, answer: Answer) -> None:
        """Install a new answer and wake all who wait."""
        self.answer, self.version = answer, self.version + 1
        woken, self.woken = self.woken, asyncio.get_running_loop().create_future()
        woken.set_result(None)


@dataclass(slots=True)
class Subscription(Generic[Answer]):
    """One stream's place in a group: which version it has seen."""

    group: Group[Answer]
    seen: int = 0

    @property
    def answer(self) -> Answer:
        """The newest answer; it counts as seen."""
        self.seen = self.group.version
        return self.group.answer

    async def changed(self) -> None:
        """Wait until there is an answer that was not seen."""
        while self.seen == self.group.version:
            await asyncio.shield(self.group.woken)


class Hub:
    """All groups of one World."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._groups: dict[Hashable, Group[object]] = {}
        self._by_topic: dict[Topic, set[Group[object]]] = defaultdict(set)
        self._touched: Topics = set()
        self._wake = asyncio.Event()
        self.computed = 0
        self.failed = 0
        self.published = 0

    def __len__(self) -> int:
        return len(self._groups)

    def touch(self, topics: Topics) -> None:
        """Note that what these topics name has changed."""
        self._touched |= topics
        self._wake.set()

    @contextlib.contextmanager
    def subscribe(self, key: Hashable, compute: Callable[[], Answer]) -> Iterator[Subscription[Answer]]:
        """Join the group of `key`, which is computed at once when it is new. `compute` must be pure."""
        group = self._groups.get(key)
        if group is None:
            group = self._open(key, compute)
        elif group.topics & self._touched:
            # Changes that are still being collected must not make a newcomer's first answer stale.
            self._refresh(group)
        group.members += 1
        try:
            yield Subscription(group)  # type: ignore[arg-type]
        finally:
            group.members -= 1
            if not group.members:
                self._close(group)

    async def run(self) -> None:
        """Compute the groups that changes concern, until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(COALESCE)
            self._wake.clear()
            touched, self._touched = self._touched, set()
            stale = {group for topic in touched & self._by_topic.keys() for group in self._by_topic[topic]}
            for count, group in enumerate(stale, 1):
                if group.members:
                    self._refresh(group)
                if count % SLICE == 0:
                    await asyncio.sleep(0)

    def _open(self, key: Hashable, compute: Callable[[], object]) -> Group[object]:
        with self._world.reading() as topics:
            answer = compute()
        self.computed += 1
        group: Group[object] = Group(key, compute, answer, set(topics))
        self._groups[key] = group
        for topic in group.topics:
            self._by_topic[topic].add(group)
        return group

    def _refresh(self, group: Group[object]) -> None:
        self.computed += 1
        with self._world.reading() as topics:
            try:
                answer = group.compute()
            except Exception:
                # One object that trips the compiler must not take the control plane down with it.
                self.failed += 1
                log.exception("cannot compute %r; its subscribers keep the last answer", group.key)
                answer = group.answer
        for topic in group.topics - topics:
            self._drop(topic, group)
        for topic in topics - group.topics:
            self._by_topic[topic].add(group)
        group.topics = set(topics)
        if answer != group.answer:
            self.published += 1
            group.publish(answer)

    def _close(self, group: Group[object]) -> None:
        del self._groups[group.key]
        for topic in group.topics:
            self._drop(topic, group)

    def _drop(self, topic: Topic, group: Group[object]) -> None:
        members = self._by_topic[topic]
        members.discard(group)
        if not members:
            del self._by_topic[topic]
