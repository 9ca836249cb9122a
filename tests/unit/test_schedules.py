from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

import pytest

from matins.domain.errors import Invalid
from matins.domain.schedules import (
    InvalidSchedule,
    InvalidTimezone,
    is_local,
    is_once,
    next_after,
    once,
    upcoming,
    zone_within,
)

DATA: Final = Path(__file__).parent / "data"
CORPUS: Final[dict[str, Any]] = json.loads((DATA / "cron_corpus.json").read_text("utf-8"))
SIX_FIELDS: Final = {"six-sec-step", "six-sec-weekday"}
"""The extension cases that are refused, since readers of cron disagree on where the seconds stand."""

NOON: Final = datetime(2025, 6, 10, 12, tzinfo=UTC)


def instants(texts: list[str]) -> list[datetime]:
    return [datetime.fromisoformat(text) for text in texts]


def text_of(invalid: dict[str, Any]) -> str:
    if invalid["expr"] is not None:
        return str(invalid["expr"])
    repeat = invalid["expr_repeat"]
    return str(repeat["sep"].join([repeat["token"]] * repeat["count"]) + repeat["suffix"])


def reason(expression: str, timezone: str = "UTC") -> str:
    with pytest.raises(InvalidSchedule) as refused:
        next_after(expression, timezone, NOON)
    message = str(refused.value)
    shown = expression if len(expression) <= 256 else expression[:40] + "…"
    opening = f"Invalid cron schedule: '{shown}'. Reason: "
    assert message.startswith(opening)
    return message.removeprefix(opening)


CASES: Final = [case for case in CORPUS["cases"] if case["id"] not in SIX_FIELDS]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_corpus_case_is_met_iterated(case: dict[str, Any]) -> None:
    expected = instants(case["next"])
    assert upcoming(case["expr"], case["tz"], datetime.fromisoformat(case["from"]), len(expected)) == expected


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_corpus_case_is_met_from_any_moment_between_its_dates(case: dict[str, Any]) -> None:
    expected = instants(case["next"])
    starts = [datetime.fromisoformat(case["from"]), *expected]
    for start, following in zip(starts, expected, strict=False):
        moments = [start, start + (following - start) / 2, following - timedelta(microseconds=1)]
        assert [next_after(case["expr"], case["tz"], moment) for moment in moments] == [following] * 3


@pytest.mark.parametrize("case_id", sorted(SIX_FIELDS))
def test_corpus_case_of_six_fields_is_refused(case_id: str) -> None:
    (case,) = (case for case in CORPUS["cases"] if case["id"] == case_id)
    assert "6 fields" in reason(case["expr"])


@pytest.mark.parametrize("invalid", CORPUS["invalid"], ids=[each["reason"] for each in CORPUS["invalid"]])
def test_corpus_invalid_expression_is_refused(invalid: dict[str, Any]) -> None:
    assert reason(text_of(invalid))


@pytest.mark.parametrize("pair", CORPUS["equivalent"], ids=lambda pair: f"{pair['a']} is {pair['b']}")
def test_corpus_equivalents_have_the_same_dates(pair: dict[str, str]) -> None:
    for zone, start in (("UTC", NOON), ("America/New_York", datetime(2024, 3, 8, tzinfo=UTC))):
        assert upcoming(pair["a"], zone, start, 50) == upcoming(pair["b"], zone, start, 50)


@pytest.mark.parametrize("pair", CORPUS["not_equivalent"], ids=lambda pair: str(pair["why"]))
def test_corpus_lookalikes_differ(pair: dict[str, str]) -> None:
    start = datetime.fromisoformat(pair["from"])
    assert upcoming(pair["a"], pair["tz"], start, 10) != upcoming(pair["b"], pair["tz"], start, 10)


@pytest.mark.parametrize(
    ("expression", "field", "value", "mend"),
    [
        ("61 * * * *", "minute", "61", "from 0 to 59"),
        ("0 24 * * *", "hour", "24", "from 0 to 23"),
        ("0 0 32 * *", "day-of-month", "32", "from 1 to 31"),
        ("0 0 * Smarch *", "month", "Smarch", "from JAN to DEC"),
        ("0 0 * * 8", "day-of-week", "8", "from SUN to SAT"),
        ("0 0 * * Monday", "day-of-week", "Monday", "'MON'"),
        ("*/0 * * * *", "minute", "*/0", "from 1"),
        ("1,,2 * * * *", "minute", "''", "a value is missing"),
        ("0 22-2 * * *", "hour", "22-2", "'22-23,0-2'"),
        ("0 0 28-3 * *", "day-of-month", "28-3", "'28-31,1-3'"),
        ("0 0 * nov-feb *", "month", "nov-feb", "'11-12,1-2'"),
        ("0 0 * * fri-mon", "day-of-week", "fri-mon", "'5-7,1'"),
        ("0 0 * * sat-sun", "day-of-week", "sat-sun", "'6-7'"),
        ("0 0 * * 1/2", "day-of-week", "1/2", "'1-6/2' or '1-7/2'"),
        ("0 0 ? * *", "day-of-month", "?", "'*'"),
        ("H * * * *", "minute", "H", "choose yourself"),
        ("0 0 * * L5", "day-of-week", "L5", "'5L'"),
        ("0 0 * * L", "day-of-week", "L", "'5L'"),
        ("0 0 * * 1#0", "day-of-week", "1#0", "'1#1'"),
        ("0 0 L-3 * *", "day-of-month", "L-3", "'LW'"),
        ("0 0 32W * *", "day-of-month", "32W", "from 1 to 31"),
        ("0 0 1-5W * *", "day-of-month", "1-5W", "from 1 to 31"),
        ("0 0 30 2 *", "day-of-month", "30", "'L'"),
    ],
)
def test_refusal_names_the_field_the_value_and_the_mend(
    expression: str, field: str, value: str, mend: str
) -> None:
    why = reason(expression)
    assert field in why
    assert value in why
    assert mend in why


@pytest.mark.parametrize(
    ("proposed", "meant"),
    [("0 22-23,0-2 * * *", "0 22,23,0,1,2 * * *"), ("0 0 * * 5-7,1", "0 0 * * fri,sat,sun,mon")],
)
def test_proposed_mend_of_a_reversed_range_means_what_was_meant(proposed: str, meant: str) -> None:
    assert upcoming(proposed, "UTC", NOON, 30) == upcoming(meant, "UTC", NOON, 30)


def test_six_fields_are_refused_with_both_readings_and_a_way_out() -> None:
    why = reason("0 */30 9 * * MON")
    assert "seconds first it is '*/30 9 * * MON' at second '0'" in why
    assert "seconds last it is '0 */30 9 * *' at second 'MON'" in why
    assert "@every" in why


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("@reboot", "no time"),
        ("@daily 5", "@daily 5"),
        ("@at", "write a date and a time"),
        ("@at tomorrow", "write a date and a time"),
        ("@at 2026-11-01", "write a date and a time"),
        ("@at 2026-11-01 09:00", "write a date and a time"),
        ("@at 2026-11-01T24:00", "write a date and a time"),
        ("@at 2026-11-01T09:00 [Europe/Paris]", "write a date and a time"),
        ("@at 2026-11-01T09:00+01:00[Europe/Paris]", "write one of them"),
        ("@at 2026-02-29T09:00", "no such date"),
        ("@at 2026-11-01T09:00+25:00", "no such date"),
        ("@at 9999-12-31T23:00", "write 1970 to 9998"),
        ("@at 1969-12-31T23:00", "write 1970 to 9998"),
        ("@at 2026-11-01T09:00[Europe/Paris]", "It names Europe/Paris, and `timezone` UTC"),
        ("TZ=UTC 0 9 * * *", "`timezone`"),
        ("CRON_TZ=Europe/Paris 0 9 * * *", "`timezone`"),
        ("0 9 * * * 2027-2030 1", "7 fields"),
        ("0\u00a09 * * *", "U+00A0"),
        ("\u0663 * * * *", "U+0663"),
        ("0 0 * * \u017fun", "U+017F"),
        ("1" * 257, "at most 256"),
        ("@every", "6h, 15m, 90s"),
        ("@every 15", "6h, 15m, 90s"),
        ("@every -15m", "6h, 15m, 90s"),
        ("@every 1.5h", "6h, 15m, 90s"),
        ("@every 15m 1s", "6h, 15m, 90s"),
        ("@every 1d", "6h, 15m, 90s"),
        ("@every 0s", "at least 1s"),
        ("@every 999999999h", "too long"),
    ],
)
def test_what_is_not_of_the_language_is_refused_with_a_reason(expression: str, told: str) -> None:
    assert told in reason(expression)


def test_256_characters_are_accepted() -> None:
    expression = ",".join(["0"] * 124) + " * * * *"
    assert next_after(expression.ljust(256), "UTC", NOON) == NOON + timedelta(hours=1)


def test_schedule_that_only_names_minutes_the_clock_leaves_out_never_fires() -> None:
    """The second Sunday of March has no 02:00 in New York, and a wild schedule catches up on nothing."""
    assert "never fires in America/New_York" in reason("*/5 2 * 3 SUN#2", "America/New_York")
    assert next_after("*/5 2 * 3 SUN#2", "UTC", NOON) == datetime(2026, 3, 8, 2, tzinfo=UTC)


def test_every_waits_a_full_interval_from_the_next_whole_second() -> None:
    created = datetime(2025, 6, 10, 12, 0, 0, 300_000, tzinfo=UTC)
    assert upcoming("@every 90s", "UTC", created, 3) == [
        datetime(2025, 6, 10, 12, 1, 31, tzinfo=UTC),
        datetime(2025, 6, 10, 12, 3, 1, tzinfo=UTC),
        datetime(2025, 6, 10, 12, 4, 31, tzinfo=UTC),
    ]


def test_every_keeps_its_phase_from_slot_to_slot() -> None:
    start = datetime(2025, 10, 25, tzinfo=UTC)
    slots = upcoming("@every 1h30m", "Europe/Paris", start, 1000)
    assert slots == [start + timedelta(minutes=90) * n for n in range(1, 1001)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("90s", 90), ("15m", 900), ("6h", 21600), ("1h1m1s", 3661), ("0h0m5s", 5), ("48h", 172800)],
)
def test_every_reads_hours_minutes_and_seconds(text: str, seconds: int) -> None:
    assert next_after(f"@every {text}", "UTC", NOON) == NOON + timedelta(seconds=seconds)


@pytest.mark.parametrize("expression", ["* * * * *", "0 9 * * *", "@every 1s"])
def test_naive_datetime_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="aware"):
        next_after(expression, "UTC", NOON.replace(tzinfo=None))


def test_any_aware_datetime_gives_an_instant_in_utc() -> None:
    start = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    due = next_after("0 9 * * *", "Europe/Paris", start)
    assert due == datetime(2025, 6, 11, 7, tzinfo=UTC)
    assert due is not None
    assert due.tzinfo is UTC


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "Bogus/Zone",
        "+05:30",
        "UTC+2",
        "America",
        "America/",
        "/etc/localtime",
        "../zoneinfo/UTC",
        "Europe/../UTC",
        "Europe/Paris\n",
        "Europe/Paris\0",
        "posix/UTC",
        "right/UTC",
        "localtime",
        "leapseconds",
        "zone.tab",
        "Z" * 256,
        "Z" * 100_000,
    ],
    ids=lambda name: f"{name[:20]!r} of {len(name)}",
)
@pytest.mark.parametrize("expression", ["* * * * *", "@every 1m"])
def test_what_is_no_iana_zone_is_refused(expression: str, name: str) -> None:
    with pytest.raises(InvalidTimezone) as refused:
        next_after(expression, name, NOON)
    shown = name if len(name) <= 256 else name[:40] + "…"
    expected = f"Invalid timezone: '{shown}'. Use IANA timezone format (e.g. 'America/New_York')."
    assert str(refused.value) == expected


@pytest.mark.parametrize("name", ["UTC", "Etc/GMT+5", "America/Argentina/Buenos_Aires", "EST5EDT", "GMT0"])
def test_iana_zone_is_accepted(name: str) -> None:
    assert next_after("* * * * *", name, NOON) == NOON + timedelta(minutes=1)


def test_both_refusals_are_invalid_input() -> None:
    assert issubclass(InvalidSchedule, Invalid)
    assert issubclass(InvalidTimezone, Invalid)


def test_rarest_date_is_found_across_the_century_that_skips_a_leap_year() -> None:
    """Feb 29 is a Sunday in 2088 and then, since 2100 is no leap year, in 2128: 40 years."""
    due = upcoming("0 0 29 2 */7", "UTC", datetime(2088, 2, 28, tzinfo=UTC), 2)
    assert due == [datetime(2088, 2, 29, tzinfo=UTC), datetime(2128, 2, 29, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("text", "zone", "instant"),
    [
        ("2026-11-01T09:00[Europe/Paris]", "Europe/Paris", "2026-11-01T08:00Z"),
        ("2026-11-01T09:00", "Europe/Paris", "2026-11-01T08:00Z"),
        ("2026-11-01T09:00", "UTC", "2026-11-01T09:00Z"),
        ("2026-11-01T09:00:30Z", "Europe/Paris", "2026-11-01T09:00:30Z"),
        ("2026-11-01T09:00-05:30", "UTC", "2026-11-01T14:30Z"),
        ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29T01:00Z"),
        ("2026-10-25T02:30", "Europe/Berlin", "2026-10-25T00:30Z"),
        ("2026-10-04T02:15", "Australia/Lord_Howe", "2026-10-03T15:30Z"),
        ("2026-11-01T01:30", "America/New_York", "2026-11-01T05:30Z"),
    ],
    ids=["bracket", "timezone", "UTC", "Z", "offset", "gap", "overlap", "gap of half an hour", "first pass"],
)
def test_at_is_one_instant_and_then_no_more(text: str, zone: str, instant: str) -> None:
    at = datetime.fromisoformat(instant)
    assert upcoming(f"@at {text}", zone, NOON, 5) == [at]
    assert next_after(f"@AT  {text}", zone, at - timedelta.resolution) == at
    assert next_after(f"@at {text}", zone, at) is None


def test_at_says_what_it_depends_on() -> None:
    local, named, fixed = (
        "@at 2026-11-01T09:00",
        "@at 2026-11-01T09:00[Europe/Paris]",
        "@at 2026-11-01T09:00Z",
    )
    assert [is_local(text) for text in (local, named, fixed, "@every 1h", "@daily")] == [
        True,
        True,
        False,
        False,
        True,
    ]
    assert [zone_within(text) for text in (local, named, fixed, "@daily")] == [
        None,
        "Europe/Paris",
        None,
        None,
    ]
    assert [is_once(text) for text in (local, named, fixed, "@every 1h", "@daily")] == [True] * 3 + [
        False
    ] * 2
    with pytest.raises(InvalidTimezone):
        next_after("@at 2026-11-01T09:00[Nowhere]", "Nowhere", NOON)


def test_a_moment_is_once_at_the_next_whole_second() -> None:
    for at in (NOON, NOON - timedelta(microseconds=999_999), NOON.astimezone(timezone(timedelta(hours=5)))):
        assert once(at) == "@at 2025-06-10T12:00:00Z"
