"""The work queue of one controller: each key at most once, never two workers on one key, delays and retries."""

import asyncio
import heapq
from collections.abc import Callable

from tulle.local.controllers.cluster import Key

__all__ = ["RETRY_FIRST_SECONDS", "RETRY_MOST_SECONDS", "WorkQueue"]

RETRY_FIRST_SECONDS = 0.005
RETRY_MOST_SECONDS = 30.0


class WorkQueue:
    """Keys that want a reconcile. Bounded by the number of objects: a key is in it once or not at all."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._ready: dict[Key, None] = {}
        self._busy: set[Key] = set()
        self._again: set[Key] = set()
        self._later: list[tuple[float, Key]] = []
        self._due: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()

    def add(self, key: Key) -> None:
        """Ask for a reconcile now; one that is under way is followed by another."""
        if key in self._busy:
            self._again.add(key)
        else:
            self._ready[key] = None
            self._wake.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Ask for a reconcile in `seconds`; an earlier request stands."""
        due = self._monotonic() + seconds
        if self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._later, (due, key))
        self._wake.set()

    async def get(self) -> Key:
        """Wait for a key; the caller must give it to `done` or `retry`."""
        while True:
            pause = self._promote()
            if self._ready:
                key = next(iter(self._ready))
                del self._ready[key]
                self._busy.add(key)
                return key
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), pause)
            except TimeoutError:
                continue

    def done(self, key: Key) -> None:
        """Tell that the reconcile succeeded."""
        self._failures.pop(key, None)
        self._release(key)

    def retry(self, key: Key) -> float:
        """Tell that the reconcile failed; it is tried again with back-off. Returns the pause in seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(RETRY_FIRST_SECONDS * 2 ** min(failures - 1, 30), RETRY_MOST_SECONDS)
        self._release(key)
        self.add_after(key, pause)
        return float(pause)

    def _release(self, key: Key) -> None:
        self._busy.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _promote(self) -> float | None:
        """Move what is due to the ready keys; return seconds until the next one."""
        now = self._monotonic()
        while self._later:
            due, key = self._later[0]
            if due > now:
                return due - now
            heapq.heappop(self._later)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
        return None
