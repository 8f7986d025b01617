"""The arithmetic of a rolling update: how many pods old and new ReplicaSets should have now. Pure numbers.

Invariants (tested): the sum of wanted replicas never exceeds replicas + maxSurge, and a scale-down never takes the
available pods below replicas - maxUnavailable.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Bounds", "Generation", "bounds", "proportional", "scale_down_old", "scale_up_new"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a rollout may go from `replicas`, in pods."""

    replicas: int
    max_surge: int
    max_unavailable: int

    @property
    def most(self) -> int:
        """Most pods there may be."""
        return self.replicas + self.max_surge

    @property
    def least_available(self) -> int:
        """Fewest available pods there may be."""
        return self.replicas - self.max_unavailable


@dataclass(frozen=True, slots=True)
class Generation:
    """One ReplicaSet as the arithmetic sees it: wanted and available pods."""

    wanted: int
    available: int


def bounds(replicas: int, max_surge: int | str | None, max_unavailable: int | str | None) -> Bounds:
    """Resolve percentages: surge rounds up, unavailable down; both zero would never move, so then one may be unavailable."""
    surge = _resolve(max_surge, replicas, up=True)
    unavailable = _resolve(max_unavailable, replicas, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return Bounds(replicas, surge, min(unavailable, replicas))


def scale_up_new(limits: Bounds, new: Generation, old: Sequence[Generation]) -> int:
    """Return how many pods the new ReplicaSet should have now."""
    if new.wanted >= limits.replicas:
        return limits.replicas
    total = new.wanted + sum(generation.wanted for generation in old)
    room = max(limits.most - total, 0)
    return min(new.wanted + room, limits.replicas)


def scale_down_old(limits: Bounds, new: Generation, old: Sequence[Generation]) -> list[int]:
    """Return how many pods each old ReplicaSet (oldest first) should have now.

    Pods that are not available go first: they cost nothing. Then as many available ones as the bound allows.
    """
    wanted = [generation.wanted for generation in old]
    total = new.wanted + sum(wanted)
    unavailable_new = max(new.wanted - new.available, 0)
    removable = total - limits.least_available - unavailable_new
    for index, generation in enumerate(old):
        broken = max(generation.wanted - generation.available, 0)
        drop = max(min(broken, removable), 0)
        wanted[index] -= drop
        removable -= drop
    available = new.available + sum(min(generation.available, generation.wanted) for generation in old)
    spare = available - limits.least_available
    for index, generation in enumerate(old):
        drop = max(min(wanted[index], spare, generation.available), 0)
        wanted[index] -= drop
        spare -= drop
    return wanted


def proportional(limits: Bounds, wanted: Sequence[int], desired_before: int) -> list[int]:
    """Scale the ReplicaSets of a rollout under way in proportion when `replicas` changes (newest last).

    `desired_before` is the largest total allowed before the change; the newest takes what rounding leaves over.
    """
    total = sum(wanted)
    if total == 0:
        return list(wanted)
    target = limits.most if limits.replicas > 0 else 0
    change = target - total
    if change == 0:
        return list(wanted)
    base = desired_before or total
    scaled = [max(round(count * target / max(base, total)), 0) for count in wanted]
    left = target - sum(scaled)
    for index in reversed(range(len(scaled))):
        step = max(left, -scaled[index])
        scaled[index] += step
        left -= step
        if left == 0:
            break
    return scaled


def _resolve(value: int | str | None, replicas: int, *, up: bool) -> int:
    if value is None:
        value = "25%"
    if isinstance(value, int):
        return value
    if value.endswith("%"):
        share = int(value[:-1]) * replicas / 100
        return math.ceil(share) if up else math.floor(share)
    return int(value)
