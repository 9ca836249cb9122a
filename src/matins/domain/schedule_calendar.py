"""Calendar: which minutes of the wall clock a cron expression names.

Wall clocks alone: naive datetimes of no particular place. What becomes of them where clocks change is the
business of schedules.py; how the text is read, of schedule_grammar.py.
Sets are bit masks: "the next one from here on" is one operation, and a calendar is immutable and small.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

MINUTE: Final = timedelta(minutes=1)

_EVERY_SEVENTH: Final = 1 | 1 << 7 | 1 << 14 | 1 << 21 | 1 << 28
_SUNDAY: Final = 0
_SATURDAY: Final = 6

_CYCLE_START: Final = datetime(2000, 1, 1)  # noqa: DTZ001 - a wall clock has no zone
"""28 years from here hold every kind of year: each week day for January 1, leap and not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """The five fields as bit masks, bit n for the value n; day-of-week 0 is Sunday.

    `nearest_weekdays` has the n of `nW`, `last_week_days` the n of `nL`, `nth_week_days` 7(k-1)+n for `n#k`.
    `both_days`: day-of-month or day-of-week begins with `*`, so a day must match both; else either will do.
    `wild`: minute or hour begins with `*`, so the schedule follows the real clock where clocks change.
    """

    minutes: int
    hours: int
    month_days: int
    months: int
    week_days: int
    last_day: bool
    last_weekday: bool
    nearest_weekdays: int
    last_week_days: int
    nth_week_days: int
    both_days: bool
    wild: bool

    def following(self, wall: datetime, last_year: int) -> datetime | None:
        """Give the first matching minute strictly after `wall`, None if there is none up to `last_year`."""
        start = wall + MINUTE
        year, month, day, hour, minute = start.year, start.month, start.day, start.hour, start.minute
        while year <= last_year:
            found = _first_from(month, self.months)
            if found < 0:
                year, month, day, hour, minute = year + 1, 1, 1, 0, 0
                continue
            if found > month:
                month, day, hour, minute = found, 1, 0, 0
            found = _first_from(day, self._days_of(year, month))
            if found < 0:
                month, day, hour, minute = month + 1, 1, 0, 0
                continue
            if found > day:
                day, hour, minute = found, 0, 0
            found = _first_from(hour, self.hours)
            if found < 0:
                day, hour, minute = day + 1, 0, 0
                continue
            if found > hour:
                hour, minute = found, 0
            found = _first_from(minute, self.minutes)
            if found < 0:
                hour, minute = hour + 1, 0
                continue
            return datetime(year, month, day, hour, found)  # noqa: DTZ001 - a wall clock has no zone
        return None

    def ever_matches(self) -> bool:
        """Tell whether any year has a matching day."""
        return self.following(_CYCLE_START, _CYCLE_START.year + 27) is not None

    def _days_of(self, year: int, month: int) -> int:
        first_from_monday, length = calendar.monthrange(year, month)
        return self._days((first_from_monday + 1) % 7, length)

    def _days(self, first: int, length: int) -> int:
        """Give the matching days of a month whose first day is the week day `first`, as a mask."""
        by_date = self.month_days
        if self.last_day:
            by_date |= 1 << length
        if self.last_weekday:
            by_date |= 1 << _nearest_weekday(length, first, length)
        if self.nearest_weekdays:
            for day in range(1, length + 1):
                if self.nearest_weekdays >> day & 1:
                    by_date |= 1 << _nearest_weekday(day, first, length)
        by_week_day = 0
        for week_day in range(7):
            date = 1 + (week_day - first) % 7
            if self.week_days >> week_day & 1:
                by_week_day |= _EVERY_SEVENTH << date
            if self.last_week_days >> week_day & 1:
                by_week_day |= 1 << (date + (length - date) // 7 * 7)
            by_week_day |= (self.nth_week_days >> week_day & _EVERY_SEVENTH) << date
        matching = by_date & by_week_day if self.both_days else by_date | by_week_day
        return matching & ((1 << (length + 1)) - 2)


def _first_from(start: int, mask: int) -> int:
    """Give the lowest bit of `mask` that is at least `start`, -1 when there is none."""
    rest = mask >> start
    return start + (rest & -rest).bit_length() - 1 if rest else -1


def _nearest_weekday(day: int, first: int, length: int) -> int:
    """Give the Monday-to-Friday nearest to `day` without leaving the month."""
    week_day = (first + day - 1) % 7
    if week_day == _SATURDAY:
        return day - 1 if day > 1 else day + 2
    if week_day == _SUNDAY:
        return day + 1 if day < length else day - 2
    return day
