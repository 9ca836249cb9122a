"""The engine against a scan of every minute, by rules that are written here a second time and differently.

The scan walks UTC, reads the wall clock of each minute and keeps the furthest wall clock seen so far. A wild
schedule fires when the wall clock matches. A fixed one fires for each minute the wall clock passes for the
first time: none in the second pass of a repeated hour, all the left-out ones at once where the clock jumps.
"""

from __future__ import annotations

import calendar
import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from matins.domain.schedules import InvalidSchedule, next_after

CORPUS: Final = Path(__file__).parent / "data" / "cron_corpus.json"
ZONES: Final = sorted({str(case["tz"]) for case in json.loads(CORPUS.read_text("utf-8"))["cases"]})
EXPRESSIONS: Final = 1_000
PARTS: Final = 4

MINUTE: Final = timedelta(minutes=1)
DAY: Final = timedelta(days=1)
MONTH_NAMES: Final = {name.upper(): n for n, name in enumerate(calendar.month_abbr) if name}
WEEK_DAY_NAMES: Final = {name.upper(): (n + 1) % 7 for n, name in enumerate(calendar.day_abbr)}


# What an expression means.


def values(text: str, low: int, high: int, names: dict[str, int] | None = None) -> set[int]:
    def number(word: str) -> int:
        return (names or {})[word.upper()] if word.isalpha() else int(word)

    found: set[int] = set()
    for item in text.split(","):
        span, _, step = item.partition("/")
        if span == "*":
            first, last = low, high
        elif "-" in span:
            first, last = (number(word) for word in span.split("-"))
        else:
            first = number(span)
            last = high if step else first
        found |= {n for n in range(first, last + 1) if (n - first) % int(step or 1) == 0}
    return found


def week_day(day: date) -> int:
    return day.isoweekday() % 7


def month_of(day: date) -> list[date]:
    return [date(day.year, day.month, n) for n in range(1, calendar.monthrange(day.year, day.month)[1] + 1)]


def date_matches(item: str, day: date) -> bool:
    month = month_of(day)
    weekdays = [each for each in month if each.isoweekday() < 6]
    if item == "L":
        return day == month[-1]
    if item == "LW":
        return day == weekdays[-1]
    if item.endswith("W"):
        n = int(item[:-1])
        return n <= len(month) and day == min(weekdays, key=lambda each: abs(each.day - n))
    return day.day in values(item, 1, 31)


def week_day_matches(item: str, day: date) -> bool:
    same = [each for each in month_of(day) if each.isoweekday() == day.isoweekday()]
    if item.endswith("L"):
        return day == same[-1] and week_day(day) in {n % 7 for n in values(item[:-1], 0, 7, WEEK_DAY_NAMES)}
    if "#" in item:
        name, _, nth = item.partition("#")
        return (
            same.index(day) + 1 == int(nth) and week_day(day) == values(name, 0, 7, WEEK_DAY_NAMES).pop() % 7
        )
    return week_day(day) in {n % 7 for n in values(item, 0, 7, WEEK_DAY_NAMES)}


def day_rule(expression: str) -> Callable[[date], bool]:
    _, _, dates, months, week_days = expression.split()
    named_months = values(months, 1, 12, MONTH_NAMES)
    both = dates[0] == "*" or week_days[0] == "*"

    @cache
    def matches(day: date) -> bool:
        if day.month not in named_months:
            return False
        by_date = any(date_matches(item, day) for item in dates.split(","))
        by_week_day = any(week_day_matches(item, day) for item in week_days.split(","))
        return by_date and by_week_day if both else by_date or by_week_day

    return matches


# What the clocks show.


@lru_cache(maxsize=4096)
def walls_of(zone: str, day: date) -> list[datetime]:
    """The wall clock at each minute of a UTC day."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    place = ZoneInfo(zone)
    return [(midnight + n * MINUTE).astimezone(place).replace(tzinfo=None, fold=0) for n in range(1440)]


@lru_cache(maxsize=4096)
def furthest_before(zone: str, day: date) -> datetime:
    """The furthest the wall clock has got by the end of the UTC day before."""
    return max(walls_of(zone, day - DAY) + walls_of(zone, day - 2 * DAY))


@lru_cache(maxsize=64)
def changes(zone: str) -> list[datetime]:
    """Moments within a day before each change of the clock, from 2000 to 2060."""
    place = ZoneInfo(zone)
    days = [datetime(2000, 1, 1, tzinfo=UTC) + n * DAY for n in range(60 * 365)]
    offsets = [day.astimezone(place).utcoffset() for day in days]
    return [day for day, now, later in zip(days, offsets, offsets[1:], strict=False) if now != later]


def scan(expression: str, zone: str, after: datetime, until: datetime) -> Iterator[datetime]:
    """Every instant in (after, until) at which the schedule fires."""
    minute, hour, *_ = expression.split()
    minutes, hours = values(minute, 0, 59), values(hour, 0, 23)
    wild = minute[0] == "*" or hour[0] == "*"
    day_matches = day_rule(expression)

    def matches(wall: datetime) -> bool:
        return wall.minute in minutes and wall.hour in hours and day_matches(wall.date())

    day = after.date()
    while day <= until.date():
        if any(day_matches(day + n * DAY) for n in (-2, -1, 0, 1, 2)):
            furthest = furthest_before(zone, day)
            midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
            for n, wall in enumerate(walls_of(zone, day)):
                if wild:
                    fires = matches(wall)
                else:
                    passed = (wall - furthest) // MINUTE
                    if passed > 181:  # the date was changed: what was left out is not caught up
                        passed = 1
                    fires = any(matches(wall - back * MINUTE) for back in range(passed))
                    furthest = max(furthest, wall)
                if fires and after < midnight + n * MINUTE < until:
                    yield midnight + n * MINUTE
        day += DAY


# What is asked.


def random_expression(rng: random.Random) -> str:
    def one(low: int, high: int) -> str:
        a, b = sorted(rng.choices(range(low, high + 1), k=2))
        step = rng.randint(1, max(1, (high - low) // 2))
        return rng.choice(
            [f"{a}", f"{a}", f"{a}-{b}", f"{a}-{b}/{step}", f"{a}/{step}" if high != 7 else f"{a}"]
        )

    def field(low: int, high: int, star: float) -> str:
        if rng.random() < star:
            return rng.choice(["*", "*", f"*/{rng.randint(1, high)}", f"*,{low}"])
        return ",".join(one(low, high) for _ in range(rng.choice([1, 1, 1, 2, 3])))

    def extended(plain: str, special: list[str]) -> str:
        if rng.random() < 0.75:
            return plain
        item = rng.choice(special)
        return item if rng.random() < 0.7 or plain.startswith("*") else f"{plain},{item}"

    minute = field(0, 59, 0.25)
    hour = ",".join(str(rng.randint(0, 4)) for _ in range(2)) if rng.random() < 0.4 else field(0, 23, 0.35)
    dates = extended(field(1, 31, 0.6), ["L", "LW", f"{rng.randint(1, 31)}W"])
    months = (
        field(1, 12, 0.75) if rng.random() < 0.8 else rng.choice([*MONTH_NAMES, "Jan-jun", "mar,OCT,nov"])
    )
    named = rng.choice([*WEEK_DAY_NAMES, "0", "7", "3"])
    plain_week_days = field(0, 7, 0.6) if rng.random() < 0.8 else rng.choice([named, "mon-FRI", "Tue-sat/2"])
    week_days = extended(plain_week_days, [f"{named}L", f"{named}#{rng.randint(1, 5)}"])
    return f"{minute} {hour} {dates} {months} {week_days}"


def random_moment(rng: random.Random, zone: str) -> datetime:
    second = timedelta(seconds=1)
    if changes(zone) and rng.random() < 0.75:
        moment = rng.choice(changes(zone)) + rng.randrange(-86400, 2 * 86400) * second
    else:
        moment = datetime(2000, 1, 1, tzinfo=UTC) + rng.randrange(60 * 365 * 86400) * second
    return rng.choice(
        [moment, moment.replace(second=0), moment.replace(microsecond=rng.randrange(1_000_000))]
    )


def engine(expression: str, zone: str, after: datetime, until: datetime) -> Iterator[datetime]:
    while True:
        try:
            following = next_after(expression, zone, after)
        except InvalidSchedule:
            return
        if following is None or following >= until:
            return
        yield (after := following)


def first(instants: Iterator[datetime], count: int) -> list[datetime]:
    return [instant for instant, _ in zip(instants, range(count), strict=False)]


@pytest.mark.parametrize("part", range(PARTS))
def test_random_schedules_equal_a_scan_of_every_minute(part: int) -> None:
    rng = random.Random(f"matins {part}")
    fired = 0
    for _ in range(EXPRESSIONS // PARTS):
        expression, zone = random_expression(rng), rng.choice(ZONES)
        after = random_moment(rng, zone)
        near = after + 3 * DAY
        expected = list(scan(expression, zone, after, near))
        assert list(engine(expression, zone, after, near)) == expected, (expression, zone, after)
        if not expected:  # rare: look much further, for the first few
            far = after + 800 * DAY
            expected = first(scan(expression, zone, after, far), 2)
            assert first(engine(expression, zone, after, far), 2) == expected, (expression, zone, after)
        fired += bool(expected)
    assert fired > 0.8 * EXPRESSIONS / PARTS  # else it compares nothing with nothing


def test_scan_itself_agrees_with_the_corpus() -> None:
    for case in json.loads(CORPUS.read_text("utf-8"))["cases"]:
        expected = [datetime.fromisoformat(text) for text in case["next"]]
        if len(case["expr"].split()) != 5 or expected[-1].year > 2060 or expected[-1].second:
            continue
        after = datetime.fromisoformat(case["from"])
        until = min(expected[-1] + MINUTE, after + 1200 * DAY)
        within = [instant for instant in expected if instant < until]
        assert list(scan(case["expr"], case["tz"], after, until)) == within, case["id"]
