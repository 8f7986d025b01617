"""How many pods a PodDisruptionBudget lets go now, counted from the pods there are. Pure."""

import math
from collections.abc import Sequence
from typing import Any

from tulle.local.api.objects import Obj

__all__ = ["disruptions_allowed"]


def disruptions_allowed(budget: Obj, pods: Sequence[Obj]) -> tuple[int, int, int]:
    """Return (disruptions allowed, healthy pods needed, healthy pods) for the pods that a budget selects."""
    spec = budget.get("spec") or {}
    expected = len(pods)
    healthy = sum(_is_healthy(pod) for pod in pods)
    if spec.get("maxUnavailable") is not None:
        needed = max(0, expected - _share(spec["maxUnavailable"], expected))
    else:
        needed = _share(spec.get("minAvailable", 1), expected)
    return max(0, healthy - needed), needed, healthy


def _share(value: Any, of: int) -> int:
    """Read a count or a percentage; percentages are rounded up."""
    if isinstance(value, str) and value.endswith("%"):
        return math.ceil(int(value[:-1]) * of / 100)
    return int(value)


def _is_healthy(pod: Obj) -> bool:
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
