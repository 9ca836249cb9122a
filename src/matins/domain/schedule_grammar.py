"""The schedule language: text -> Calendar, Every or Once, or a Flaw that says how to mend it. No zones here.

    schedule  = minute hour day-of-month month day-of-week | "@daily" and its like | "@every" duration | "@at" moment
    moment    = date "T" time [offset | "[" zone "]"]
    field     = item {"," item}
    item      = ("*" | value ["-" value]) ["/" step]
    day-of-month also takes L (last day), LW (last weekday), nW (weekday nearest the n-th)
    day-of-week  also takes nL (last n) and n#k (k-th n)

Where readers of cron disagree about a text, it is refused and both readings are named; nothing is guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import MAXYEAR, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NoReturn

from matins.domain.schedule_calendar import Calendar

HORIZON_YEARS: Final = 50
"""How far ahead a next date is looked for. Feb 29 on a given week day can be 40 years away."""

_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEK_DAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
ALIASES: Final = MappingProxyType(
    {
        "@hourly": "0 * * * *",
        "@daily": "0 0 * * *",
        "@midnight": "0 0 * * *",
        "@weekly": "0 0 * * 0",
        "@monthly": "0 0 1 * *",
        "@yearly": "0 0 1 1 *",
        "@annually": "0 0 1 1 *",
    }
)
_DURATION: Final = re.compile(r"(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?")
_MOMENT: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}(?::[0-9]{2})?)(Z|[+-][0-9]{2}:[0-9]{2})?(?:\[([^]]+)\])?"
)
_YEARS: Final = range(1970, MAXYEAR)
"""Those of `@at`. In the last one there is, the next day may be no date."""
_FIELD_ORDER: Final = "minute hour day-of-month month day-of-week"


class Flaw(Exception):
    """Why a text is no schedule: which field, which value, how to mend it."""


@dataclass(frozen=True, slots=True)
class Every:
    """A fixed interval of elapsed time."""

    interval: timedelta


@dataclass(frozen=True, slots=True)
class Once:
    """A single moment: aware, or what the wall clock says in `zone`, or where none is named in the cron's own."""

    at: datetime
    zone: str | None


@lru_cache(maxsize=4096)
def parse(expression: str) -> Calendar | Every | Once:
    """Read a schedule. The caller bounds its length.

    Raises: Flaw.
    """
    stranger = next((character for character in expression if not character.isascii()), None)
    if stranger is not None:
        raise Flaw(f"It holds U+{ord(stranger):04X}, no ASCII character; type it anew, with plain spaces.")
    words = expression.split()
    if not words:
        raise Flaw(f"It is empty; write five fields ({_FIELD_ORDER}), such as '*/5 * * * *'.")
    if words[0].startswith("@"):
        return _parse_alias(words)
    if "=" in words[0]:
        raise Flaw(f"'{words[0]}' is no field; give the time zone as `timezone`, beside the schedule.")
    if len(words) != len(_FIELDS):
        _refuse_count(words)
    return _parse_fields(words)


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of the expression: its name, bounds and the names it knows for some values."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    first_name: int = 0

    def flaw(self, item: str, why: str) -> Flaw:
        """Say what is wrong with an item of this field."""
        return Flaw(f"{self.name} field, '{item}': {why}")

    def value(self, text: str, item: str) -> int:
        """Read a number or a name that stands in `item`."""
        if text.isdigit():
            number = int(text)
            if not self.low <= number <= self.high:
                raise self.flaw(item, f"{text} is out of range; write {self._choices}.")
            return number
        name = text.upper()
        if name in self.names:
            return self.names.index(name) + self.first_name
        if not text:
            raise self.flaw(item, f"a value is missing; write {self._choices}.")
        if name[:3] in self.names and name.isalpha():
            raise self.flaw(item, f"names have three letters; write '{name[:3]}'.")
        if name in ("H", "R"):
            raise self.flaw(item, f"'{text}' is not supported; choose yourself: write {self._choices}.")
        if name == "?":
            raise self.flaw(item, "write '*' instead of '?'.")
        raise self.flaw(item, f"'{text}' is not understood; write {self._choices}.")

    def mask(self, item: str) -> int:
        """Read `*`, `a`, `a-b`, each with or without a step, as a mask."""
        body, slash, step_text = item.partition("/")
        step = 1
        if slash:
            if not step_text.isdigit() or int(step_text) == 0:
                raise self.flaw(item, f"the step '{step_text}' must be a whole number from 1, as in '*/5'.")
            step = int(step_text)
        if body == "*":
            low, high = self.low, self.high
        else:
            first, dash, last = body.partition("-")
            low = self.value(first, item)
            high = self.value(last, item) if dash else self.high if slash else low
            if low > high:
                raise self.flaw(item, f"the range is reversed; write '{self._unreversed(low, high)}'.")
            if self is _DAY_OF_WEEK and slash and not dash and 7 in range(low, high + 1, step):
                raise self.flaw(
                    item,
                    "some read it up to Saturday, others up to Sunday; "
                    f"write '{low}-6/{step}' or '{low}-7/{step}'.",
                )
        return sum(1 << value for value in range(low, high + 1, step))

    @property
    def _choices(self) -> str:
        numbers = f"a number from {self.low} to {self.high}"
        return f"{numbers} or a name from {self.names[0]} to {self.names[-1]}" if self.names else numbers

    def _unreversed(self, low: int, high: int) -> str:
        parts = [(low, self.high), (self.low, high)]
        if self is _DAY_OF_WEEK:  # Sunday is 0 and 7: it ends the first part, so the second begins on Monday
            parts = [(low, 7), (1, high)]
        return ",".join(f"{a}-{b}" if a < b else f"{a}" for a, b in parts if a <= b)


_MINUTE: Final = _Field("minute", 0, 59)
_HOUR: Final = _Field("hour", 0, 23)
_DAY_OF_MONTH: Final = _Field("day-of-month", 1, 31)
_MONTH: Final = _Field("month", 1, 12, _MONTHS, first_name=1)
_DAY_OF_WEEK: Final = _Field("day-of-week", 0, 7, _WEEK_DAYS)
_FIELDS: Final = (_MINUTE, _HOUR, _DAY_OF_MONTH, _MONTH, _DAY_OF_WEEK)


def _parse_fields(words: list[str]) -> Calendar:
    minute, hour, day_of_month, month, day_of_week = words
    month_days = nearest_weekdays = week_days = last_week_days = nth_week_days = 0
    last_day = last_weekday = False

    for item in day_of_month.split(","):
        name = item.upper()
        if name == "L":
            last_day = True
        elif name == "LW":
            last_weekday = True
        elif name.endswith("W"):
            nearest_weekdays |= 1 << _DAY_OF_MONTH.value(item[:-1], item)
        elif "L" in name:
            raise _DAY_OF_MONTH.flaw(
                item, "L takes no number: 'L' is the month's last day, 'LW' its last weekday."
            )
        else:
            month_days |= _DAY_OF_MONTH.mask(item)

    for item in day_of_week.split(","):
        name = item.upper()
        if "#" in name:
            day, _, nth = name.partition("#")
            if nth not in ("1", "2", "3", "4", "5"):
                raise _DAY_OF_WEEK.flaw(item, f"a month has no such day; write '{day}#1' to '{day}#5'.")
            nth_week_days |= 1 << (7 * (int(nth) - 1) + _DAY_OF_WEEK.value(day, item) % 7)
        elif name.endswith("L") and name != "L":
            last_week_days |= 1 << _DAY_OF_WEEK.value(item[:-1], item) % 7
        elif name.startswith("L"):
            raise _DAY_OF_WEEK.flaw(item, "write the day before the L: '5L' is the last Friday of the month.")
        else:
            week_days |= _DAY_OF_WEEK.mask(item)

    result = Calendar(
        minutes=_union(_MINUTE, minute),
        hours=_union(_HOUR, hour),
        month_days=month_days,
        months=_union(_MONTH, month),
        week_days=(week_days | week_days >> 7) & 0b1111111,
        last_day=last_day,
        last_weekday=last_weekday,
        nearest_weekdays=nearest_weekdays,
        last_week_days=last_week_days,
        nth_week_days=nth_week_days,
        both_days=day_of_month.startswith("*") or day_of_week.startswith("*"),
        wild=minute.startswith("*") or hour.startswith("*"),
    )
    if not result.ever_matches():
        raise Flaw(
            f"It never fires: in the months '{month}' no day matches the day-of-month field '{day_of_month}' "
            f"with the day-of-week field '{day_of_week}'; change one of them ('L' is a month's last day)."
        )
    return result


def _union(field: _Field, text: str) -> int:
    mask = 0
    for item in text.split(","):
        mask |= field.mask(item)
    return mask


def _parse_alias(words: list[str]) -> Calendar | Every | Once:
    name = words[0].lower()
    if name == "@every":
        return _parse_every(" ".join(words[1:]))
    if name == "@at":
        return _parse_at(" ".join(words[1:]))
    if name == "@reboot":
        raise Flaw("@reboot names no time: a server's start is no date; write five fields or '@every 1h'.")
    if name not in ALIASES or len(words) > 1:
        known = ", ".join(ALIASES)
        raise Flaw(
            f"'{' '.join(words)}' is not known; write one of {known} '@every 15m' or '@at 2030-01-31T09:00'."
        )
    return _parse_fields(ALIASES[name].split())


def _parse_every(text: str) -> Every:
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise Flaw(f"@every, '{text}': write hours, minutes, seconds, in that order: 6h, 15m, 90s or 1h30m.")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    interval = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if not interval:
        raise Flaw(f"@every, '{text}': the interval is too short; write at least 1s.")
    if interval > timedelta(days=365 * HORIZON_YEARS):
        raise Flaw(f"@every, '{text}': the interval is too long; write less than {HORIZON_YEARS} years.")
    return Every(interval)


def _parse_at(text: str) -> Once:
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise Flaw(
            f"@at, '{text}': write a date and a time, with an offset or a time zone or neither: 2030-01-31T09:00, "
            "2030-01-31T09:00+01:00 or 2030-01-31T09:00[Europe/Paris]."
        )
    wall, offset, zone = match.groups()
    if offset and zone:
        raise Flaw(f"@at, '{text}': an offset and a time zone may contradict each other; write one of them.")
    try:
        at = datetime.fromisoformat(wall + (offset or ""))
    except ValueError as unfit:
        raise Flaw(f"@at, '{text}': there is no such date: {unfit}.") from None
    if at.year not in _YEARS:
        raise Flaw(f"@at, '{text}': the year is out of range; write {_YEARS[0]} to {_YEARS[-1]}.")
    return Once(at, zone)


def _refuse_count(words: list[str]) -> NoReturn:
    if len(words) == 6:
        raise Flaw(
            "It has 6 fields, which some programs read with seconds first, others with seconds last: "
            f"seconds first it is '{' '.join(words[1:])}' at second '{words[0]}', "
            f"seconds last it is '{' '.join(words[:5])}' at second '{words[5]}'. "
            f"Write the five fields you mean ({_FIELD_ORDER}), or '@every 30s' for less than a minute."
        )
    raise Flaw(f"It has {len(words)} fields; write five ({_FIELD_ORDER}), such as '*/5 * * * *'.")
