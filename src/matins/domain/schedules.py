"""What a schedule means in a place: the instants at which it is due. No clock is asked here.

Where the wall clock of the place changes, a schedule is of one of two kinds:
- *wild* (minute or hour begins with `*`) follows the wall clock: what a jump leaves out does not happen,
  what is repeated happens twice, so `*/20 * * * *` stays evenly spaced;
- *fixed* (all others) fires each named minute once: if repeated, on the first pass; if left out, at the first
  instant after the jump. So `30 2 * * *` is one fire a day, every day.
`@every` knows no wall clock at all. `@at` is one moment, placed as those of a fixed schedule. Instants are aware UTC.
"""

from __future__ import annotations

import re
from datetime import MAXYEAR, UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from matins.domain.errors import Invalid
from matins.domain.schedule_calendar import Calendar
from matins.domain.schedule_grammar import HORIZON_YEARS, Every, Flaw, Once, parse

_LONGEST: Final = 256
_SECOND: Final = timedelta(seconds=1)
_INSTANT: Final = timedelta.resolution

_NEAR: Final = timedelta(days=2)
"""More than any clock ever jumped, so a jump cannot reach what is further away; and short enough to hold
at most one change (the nearest two in all of tzdata are four days apart)."""

_CATCH_UP: Final = timedelta(hours=3)
"""A clock that jumps further has changed its date (Samoa, 2011): what was left out is not caught up."""

_ZONE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*")
_NO_ZONES: Final = ("posix/", "posixrules", "right/", "localtime")
"""Files beside the zones: other encodings of them, and whatever this machine is set to."""


class InvalidSchedule(Invalid):
    """The text is no schedule, or one that never fires."""

    code = "invalid_schedule"

    def __init__(self, expression: str, reason: str) -> None:
        super().__init__(f"Invalid cron schedule: '{_shown(expression)}'. Reason: {reason}")


class InvalidTimezone(Invalid):
    """The name is no IANA time zone."""

    code = "invalid_timezone"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Invalid timezone: '{_shown(name)}'. Use IANA timezone format (e.g. 'America/New_York')."
        )


def next_after(expression: str, timezone: str, after: datetime) -> datetime | None:
    """Give the first instant, strictly later than `after`, at which the schedule is due; None after that of `@at`.

    `after` is aware. `@every` counts from the first whole second at or after it, so a new cron waits a full
    interval and from slot to slot nothing drifts.
    Raises: InvalidSchedule, also when nothing is due within 50 years; InvalidTimezone.
    """
    if after.tzinfo is None:
        raise ValueError("`after` must be an aware datetime")
    schedule = _parse(expression)
    zone = zone_named(timezone)
    after = after.astimezone(UTC)
    if isinstance(schedule, Every):
        return _whole_second(after) + schedule.interval
    if isinstance(schedule, Once):
        if schedule.zone not in (None, timezone):
            raise InvalidSchedule(expression, f"It names {schedule.zone}, and `timezone` {_shown(timezone)}.")
        instant = schedule.at if schedule.at.tzinfo else _placed(schedule.at, zone)[0]
        return instant.astimezone(UTC) if instant > after else None
    last_year = min(after.year + HORIZON_YEARS, MAXYEAR - 1)
    find = _next_wild if schedule.wild else _next_fixed
    found = find(schedule, zone, after, last_year)
    if found is None:
        raise InvalidSchedule(
            expression,
            f"It never fires in {timezone} within {HORIZON_YEARS} years; "
            "the minutes it names are left out where the clock changes. Choose another hour.",
        )
    return found


def is_local(expression: str) -> bool:
    """Whether the schedule depends on the rules of its time zone; `@every` and an `@at` with an offset do not.

    Raises: InvalidSchedule.
    """
    schedule = _parse(expression)
    return isinstance(schedule, Calendar) or (isinstance(schedule, Once) and schedule.at.tzinfo is None)


def is_once(expression: str) -> bool:
    """Whether the schedule has a single date. Raises: InvalidSchedule."""
    return isinstance(_parse(expression), Once)


def interval_of(expression: str) -> timedelta | None:
    """Give the interval of `@every`, None of any other schedule. Raises: InvalidSchedule."""
    schedule = _parse(expression)
    return schedule.interval if isinstance(schedule, Every) else None


def zone_within(expression: str) -> str | None:
    """Give the name of the time zone that an `@at` brings along. Raises: InvalidSchedule."""
    schedule = _parse(expression)
    return schedule.zone if isinstance(schedule, Once) else None


def once(at: datetime) -> str:
    """Give the schedule of the first whole second at or after an instant."""
    return f"@at {_whole_second(at.astimezone(UTC)).replace(tzinfo=None).isoformat()}Z"


def upcoming(expression: str, timezone: str, after: datetime, count: int) -> list[datetime]:
    """Give the next `count` due instants after `after`, in order, or as many as there are. Raises as next_after."""
    instants: list[datetime] = []
    following = next_after(expression, timezone, after) if count > 0 else None
    while following is not None:
        instants.append(following)
        following = next_after(expression, timezone, following) if len(instants) < count else None
    return instants


def most_a_day(expression: str) -> float:
    """Give a number of slots that the schedule never has more of in 24 hours. Raises: InvalidSchedule."""
    schedule = _parse(expression)
    if isinstance(schedule, Once):
        return 1
    if isinstance(schedule, Every):
        return timedelta(hours=24) / schedule.interval
    return schedule.minutes.bit_count() * schedule.hours.bit_count()


def _parse(expression: str) -> Calendar | Every | Once:
    if len(expression) > _LONGEST:
        raise InvalidSchedule(
            expression, f"It has {len(expression)} characters; write at most {_LONGEST}, by ranges and steps."
        )
    try:
        return parse(expression)
    except Flaw as flaw:
        raise InvalidSchedule(expression, str(flaw)) from None


@lru_cache(maxsize=1024)
def zone_named(name: str) -> ZoneInfo:
    """Give the IANA time zone of that name. Raises: InvalidTimezone."""
    if not _ZONE_NAME.fullmatch(name) or name.startswith(_NO_ZONES):
        raise InvalidTimezone(name)
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; a file that is no zone; a directory
        raise InvalidTimezone(name) from None


def _next_fixed(schedule: Calendar, zone: ZoneInfo, after: datetime, last_year: int) -> datetime | None:
    """Walk the named minutes, whose instants never go back, until one is later than `after`."""
    wall = schedule.following(_wall(zone, after), last_year)
    while wall is not None:
        instant, jump = _placed(wall, zone)
        if jump > _CATCH_UP:
            wall = schedule.following(_wall(zone, instant) - _INSTANT, last_year)
            continue
        if instant > after:
            return instant
        wall = schedule.following(wall, last_year)
    return None


def _placed(wall: datetime, zone: ZoneInfo) -> tuple[datetime, timedelta]:
    """Give when a wall clock says this, and by how much it jumps there if it leaves this out: then, after the jump."""
    placed = wall.replace(tzinfo=zone)  # where minutes repeat, the first pass
    instant = placed.astimezone(UTC)
    if _wall(zone, instant) == wall:
        return instant, timedelta()
    # Left out: placed by the offset before the jump, so after the jump.
    offset_before, offset_after = _offset(placed), _offset(placed.replace(fold=1))
    change = _first_change(zone, instant + offset_before - offset_after, instant)
    return change or instant, offset_after - offset_before


def _next_wild(schedule: Calendar, zone: ZoneInfo, after: datetime, last_year: int) -> datetime | None:
    """Look as if the wall clock never changed; where it does before the match, start again from there."""
    wall = _wall(zone, after)
    while (match := schedule.following(wall, last_year)) is not None:
        instant = (match - _offset(after.astimezone(zone))).replace(tzinfo=UTC)
        if instant - after > _NEAR:
            after = instant - _NEAR  # no change moves the clock so far that something matched before this
            wall = _wall(zone, after)
            continue
        change = _first_change(zone, after, instant)
        if change is None:
            return instant
        after, wall = change, _wall(zone, change) - _INSTANT
    return None


def _first_change(zone: ZoneInfo, start: datetime, end: datetime) -> datetime | None:
    """Give the second in (start, end] at which the offset changes; there is at most one."""
    offset = _offset(start.astimezone(zone))
    if _offset(end.astimezone(zone)) == offset:
        return None
    start = start.replace(microsecond=0)
    while (seconds := (end - start) // _SECOND) > 1:
        middle = start + seconds // 2 * _SECOND
        if _offset(middle.astimezone(zone)) == offset:
            start = middle
        else:
            end = middle
    return end


def _wall(zone: ZoneInfo, instant: datetime) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def _offset(local: datetime) -> timedelta:
    return local.utcoffset() or timedelta()


def _whole_second(instant: datetime) -> datetime:
    return instant + (-instant.microsecond % 1_000_000) * _INSTANT


def _shown(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:40] + "…"
