"""What all printers share: columns, ages, small texts. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from tulle.local.api.objects import Obj

__all__ = [
    "NAME",
    "Cells",
    "Column",
    "Printer",
    "age",
    "column",
    "duration",
    "elapsed",
    "joined",
    "label_text",
    "text_columns",
]

Cells: TypeAlias = list[Any]
Column: TypeAlias = Mapping[str, Any]

NAME: Column = {"name": "Name", "type": "string", "format": "name"}


@dataclass(frozen=True, slots=True)
class Printer:
    """Columns and the cells of one object under them. `priority` 1 columns are shown by `-o wide` only."""

    columns: Sequence[Column]
    cells: Callable[[Obj, datetime], Cells]

    def definitions(self) -> list[Obj]:
        """Return the column definitions of a Table."""
        return [{"format": "", "description": "", "priority": 0} | dict(column) for column in self.columns]


def column(name: str, kind: str = "string", *, wide: bool = False) -> Column:
    """Return a column."""
    return {"name": name, "type": kind, "priority": 1 if wide else 0}


def text_columns(names: str, wide: str = "") -> list[Column]:
    """Return the name column, columns of text, and columns of text for the wide form (separated by commas)."""
    plain = [column(name) for name in names.split(",") if name]
    return [NAME, *plain, *(column(name, wide=True) for name in wide.split(",") if name)]


def _instant(value: str | None) -> datetime | None:
    if not value:
        return None
    try:
        return datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return None


def age(value: str | None, now: datetime) -> str:
    """Return how long ago a time was, as kubectl writes it: 5s, 3m12s, 2h, 4d."""
    then = _instant(value)
    return "<unknown>" if then is None else duration((now - then).total_seconds())


def duration(seconds: float) -> str:
    """Write a duration in one or two units."""
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    total = max(total, 0)
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if total < 120:
        return f"{total}s"
    if minutes < 10:
        return f"{minutes}m{total % 60}s" if total % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 365 * 2:
        return f"{days}d"
    return f"{days // 365}y{days % 365}d" if days % 365 else f"{days // 365}y"


def elapsed(start: str | None, end: str | None, now: datetime) -> str:
    """Return the duration between two times, until now when there is no end; empty when there is no start."""
    begun = _instant(start)
    if begun is None:
        return ""
    return duration(((_instant(end) or now) - begun).total_seconds())


def joined(values: Sequence[Any], limit: int = 0) -> str:
    """Join values with commas; `<none>` when there are none, `+ n more...` beyond the limit."""
    if not values:
        return "<none>"
    shown = ",".join(str(value) for value in (values[:limit] if limit else values))
    return f"{shown} + {len(values) - limit} more..." if limit and len(values) > limit else shown


def label_text(selector: Obj | None) -> str:
    """Write labels or a LabelSelector as kubectl does."""
    if not selector:
        return "<none>"
    labels = (
        selector.get("matchLabels", {})
        if "matchLabels" in selector or "matchExpressions" in selector
        else selector
    )
    terms = [f"{key}={value}" for key, value in sorted((labels or {}).items())]
    for expression in (
        selector.get("matchExpressions") or () if isinstance(selector.get("matchExpressions"), list) else ()
    ):
        key, values = expression["key"], ",".join(sorted(expression.get("values") or ()))
        match expression["operator"]:
            case "In":
                terms.append(f"{key} in ({values})")
            case "NotIn":
                terms.append(f"{key} notin ({values})")
            case "Exists":
                terms.append(key)
            case _:
                terms.append(f"!{key}")
    return ",".join(terms) or "<none>"
