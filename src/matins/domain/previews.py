"""When a schedule is due, as people ask: in their own time, with what their clock does to it, and in words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from cron_descriptor import FormatError, MissingFieldError, Options, WrongArgumentError, get_description

from matins.domain.schedule_grammar import ALIASES, Once, parse
from matins.domain.schedules import upcoming, zone_named

MOST: Final = 1000
"""How many dates are previewed at most."""

_SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A date to come: the instant, the same in local time, and what the clock does there, if it does anything."""

    at: datetime
    local: datetime
    note: str | None


def preview(
    expression: str, timezone: str, after: datetime, count: int, *, first: datetime | None = None
) -> list[Occurrence]:
    """Give the next `count` dates after `after`, or as many as there are; `first`: the first, where that is known.

    Raises: InvalidSchedule, InvalidTimezone.
    """
    zone = zone_named(timezone)
    if first is None:
        dates = upcoming(expression, timezone, after, count)
    else:
        dates = [first, *upcoming(expression, timezone, first, count - 1)]
    found: list[Occurrence] = []
    before = after.astimezone(zone)
    for at in dates:
        local = at.astimezone(zone)
        found.append(Occurrence(at, local, _note(local, before, zone)))
        before = local
    return found


def in_words(expression: str) -> str | None:
    """Say a valid schedule in English, without its zone; None when there are no words for it."""
    text = " ".join(expression.split())
    if text.lower().startswith("@every "):
        return f"Every {text[len('@every ') :]}"
    if isinstance(schedule := parse(text), Once):
        return f"Once, at {schedule.at.isoformat(' ', 'seconds' if schedule.at.second else 'minutes')}"
    try:
        words: str = get_description(ALIASES.get(text.lower(), text), Options(use_24hour_time_format=True))
    except (FormatError, MissingFieldError, WrongArgumentError, ValueError, IndexError):
        return None
    return words


def _note(local: datetime, before: datetime, zone: ZoneInfo) -> str | None:
    offset = _offset(local)
    just_before = _offset((local.astimezone(UTC) - _SECOND).astimezone(zone))
    if offset != just_before:
        way = "forward" if offset > just_before else "back"
        return f"The clock goes {way} at this instant, from {local - (offset - just_before):%H:%M} to {local:%H:%M}."
    if local.fold:
        return "This local time comes twice; this is the second time."
    if _offset(local.replace(fold=1)) != offset:
        return "This local time comes twice; this is the first time."
    if offset != _offset(before):
        way = "forward" if offset > _offset(before) else "back"
        return f"The clock has gone {way} since the date before: the UTC offset is {_signed(offset)} now."
    return None


def _offset(local: datetime) -> timedelta:
    return local.utcoffset() or timedelta()


def _signed(offset: timedelta) -> str:
    minutes = abs(offset) // timedelta(minutes=1)
    return f"{'-' if offset < timedelta() else '+'}{minutes // 60:02d}:{minutes % 60:02d}"
