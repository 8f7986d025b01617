"""Rules of single kinds. Pure."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from tulle.local.api.errors import Cause
from tulle.local.api.objects import Obj
from tulle.local.api.registry import ResourceType

__all__ = ["check_kind"]

Check: TypeAlias = Callable[[Obj, Obj | None], Iterator[Cause]]


def check_kind(resource: ResourceType, obj: Obj, old: Obj | None) -> Iterator[Cause]:
    """Yield what is wrong with an object of a built-in kind."""
    check = _CHECKS.get(resource.key)
    if check is not None:
        yield from check(obj, old)


_CHECKS: dict[str, Check] = {}
