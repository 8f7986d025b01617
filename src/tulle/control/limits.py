"""How much one peer and one workload may ask of the control plane: the bounds have their home here.

Behind the control plane's own sidecar many proxies share few connections, so a peer is told by the identity that the
sidecar vouches for (`l5d-client-id`) where there is one, else by its connection.
"""

import contextlib
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from tulle.clock import Clock

__all__ = ["MAX_MESSAGE", "Buckets", "StreamLimits", "TooMany"]

MAX_MESSAGE = 64 * 1024


class TooMany(Exception):
    """A bound is reached; the text names it."""


@dataclass
class StreamLimits:
    """Counts open streams."""

    per_peer: int = 10_000
    per_workload: int = 2_000
    in_all: int = 100_000
    open: int = 0
    refused: int = 0
    _by_peer: Counter[Hashable] = field(default_factory=Counter)

    @contextlib.contextmanager
    def admit(self, peer: str, workload: str) -> Iterator[None]:
        """Hold a place while the stream is open. Raises TooMany."""
        keys = (("peer", peer), ("workload", workload))
        for key, limit in zip(keys, (self.per_peer, self.per_workload), strict=True):
            if self._by_peer[key] >= limit:
                self.refused += 1
                raise TooMany(f"{key[0]} {key[1][:100]!r} has {limit} streams open")
        if self.open >= self.in_all:
            self.refused += 1
            raise TooMany(f"the control plane has {self.in_all} streams open")
        self.open += 1
        self._by_peer.update(keys)
        try:
            yield
        finally:
            self.open -= 1
            for key in keys:
                self._by_peer[key] -= 1
                if not self._by_peer[key]:
                    del self._by_peer[key]


@dataclass
class Buckets:
    """Token buckets by key: `burst` at once, then `rate` per second; at most `size` keys are remembered."""

    clock: Clock
    rate: float
    burst: float
    size: int = 20_000
    _level: dict[Hashable, tuple[float, float]] = field(default_factory=dict)

    def take(self, key: Hashable) -> bool:
        """Take a token of the key's bucket; False when it is empty."""
        now = self.clock.monotonic()
        level, at = self._level.pop(key, (self.burst, now))
        level = min(self.burst, level + (now - at) * self.rate)
        allowed = level >= 1.0
        self._level[key] = (level - 1.0 if allowed else level, now)
        if len(self._level) > self.size:
            del self._level[next(iter(self._level))]  # the one that was asked longest ago
        return allowed
