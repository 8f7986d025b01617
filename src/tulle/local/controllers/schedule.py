"""Cron schedules: the five fields, @hourly and its like, and the next moment they name. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

__all__ = ["BadSchedule", "Schedule", "parse_schedule"]

_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

_YEARS_AHEAD = 5
"""How far ahead a next moment is looked for; 29 February comes within this span."""


class BadSchedule(ValueError):
    """The text is no cron schedule; the message names the field."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A parsed schedule. As in cron, when both day fields are restricted either of them suffices."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    def next_after(self, moment: datetime, zone: tzinfo) -> datetime | None:
        """Return the first moment after `moment`; None when there is none within five years."""
        local = moment.astimezone(zone).replace(second=0, microsecond=0) + timedelta(minutes=1)
        end = local + timedelta(days=366 * _YEARS_AHEAD)
        while local < end:
            if local.month not in self.months or not self._day(local):
                local = (local + timedelta(days=1)).replace(hour=0, minute=0)
            elif local.hour not in self.hours:
                local = (local + timedelta(hours=1)).replace(minute=0)
            elif local.minute not in self.minutes:
                local += timedelta(minutes=1)
            else:
                return local.astimezone(moment.tzinfo)
        return None

    def _day(self, moment: datetime) -> bool:
        in_month = moment.day in self.days
        in_week = (moment.weekday() + 1) % 7 in self.weekdays
        return in_month or in_week if self.either_day else in_month and in_week


def parse_schedule(text: str) -> Schedule:
    """Read a schedule.

    Raises BadSchedule.
    """
    fields = _NAMED.get(text.strip().lower(), text).split()
    if len(fields) != 5:
        raise BadSchedule(
            f"schedule {text!r} has {len(fields)} fields (minute hour day month weekday are expected)"
        )
    minute, hour, day, month, weekday = fields
    return Schedule(
        minutes=frozenset(_field("minute", minute, 0, 59)),
        hours=frozenset(_field("hour", hour, 0, 23)),
        days=frozenset(_field("day", day, 1, 31)),
        months=frozenset(_field("month", month, 1, 12, _MONTHS)),
        weekdays=frozenset(number % 7 for number in _field("weekday", weekday, 0, 7, _DAYS)),
        either_day=not day.startswith(("*", "?")) and not weekday.startswith(("*", "?")),
    )


def _field(name: str, text: str, least: int, most: int, words: tuple[str, ...] = ()) -> Iterator[int]:
    for part in text.split(","):
        span, _, step = part.partition("/")
        if step and (not step.isdigit() or int(step) == 0):
            raise BadSchedule(f"schedule: {name} {part!r} has a step that is no number above 0")
        if span in ("*", "?"):
            first, last = least, most
        else:
            low, dash, high = span.partition("-")
            first = _number(name, low, words, least)
            last = _number(name, high, words, least) if dash else (most if step else first)
        if not least <= first <= last <= most:
            raise BadSchedule(f"schedule: {name} {part!r} is not within {least}-{most}")
        yield from range(first, last + 1, int(step or 1))


def _number(name: str, text: str, words: tuple[str, ...], offset: int) -> int:
    if text.lower() in words:
        return words.index(text.lower()) + offset
    if not text.isdigit():
        raise BadSchedule(f"schedule: {name} {text!r} is no number")
    return int(text)
