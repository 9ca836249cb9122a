from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matins.domain.crons import LATE, Plan, Slot, plan
from matins.domain.policies import Policy
from matins.domain.schedules import next_after

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ONCE = Policy()
GRACE = timedelta(seconds=ONCE.grace_seconds)
SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))


def planned(
    every: timedelta,
    first: datetime,
    now: datetime,
    *,
    end: datetime | None = None,
    limit: int = 10_000,
    policy: Policy = ONCE,
) -> Plan:
    return plan(first, now=now, end_time=end, after=lambda slot: slot + every, limit=limit, policy=policy)


def test_a_slot_on_time_fires_and_the_next_one_follows() -> None:
    assert planned(MINUTE, NOON, NOON) == Plan([Slot(NOON, fires=True)], NOON + MINUTE)


def test_a_slot_that_has_not_come_is_no_slot_yet() -> None:
    assert planned(MINUTE, NOON, NOON - timedelta.resolution) == Plan([], NOON)


def test_every_slot_of_the_last_ten_seconds_fires() -> None:
    found = planned(SECOND, NOON, NOON + 10 * SECOND)
    assert found == Plan([Slot(NOON + n * SECOND, fires=True) for n in range(11)], NOON + 11 * SECOND)


@pytest.mark.parametrize(
    ("late", "slot"),
    [
        (LATE, Slot(NOON, fires=True)),
        (LATE + timedelta.resolution, Slot(NOON, fires=True, trigger="catch_up")),
        (GRACE, Slot(NOON, fires=True, trigger="catch_up")),
        (GRACE + timedelta.resolution, Slot(NOON, fires=False)),
    ],
    ids=["late", "too late, but the newest", "still within the grace", "too old"],
)
def test_the_newest_slot_fires_by_its_age(late: timedelta, slot: Slot) -> None:
    assert planned(30 * DAY, NOON, NOON + late).slots == [slot]


def test_after_a_downtime_only_the_newest_missed_slot_fires() -> None:
    found = planned(HOUR, NOON, NOON + 3 * HOUR + MINUTE).slots
    assert [slot.fires for slot in found] == [False, False, False, True]
    assert found[-1] == Slot(NOON + 3 * HOUR, fires=True, trigger="catch_up")


@pytest.mark.parametrize(
    ("misfire", "fire"),
    [("skip", [False] * 4), ("run_once", [False, False, False, True]), ("run_all", [True] * 4)],
)
def test_what_was_missed_is_caught_up_as_the_policy_says(misfire: Any, fire: list[bool]) -> None:
    found = planned(HOUR, NOON, NOON + 3 * HOUR + MINUTE, policy=Policy(misfire=misfire)).slots
    assert [slot.fires for slot in found] == fire
    young = Policy(misfire=misfire, grace_seconds=3700)
    found = planned(HOUR, NOON, NOON + 3 * HOUR + MINUTE, policy=young).slots
    assert [slot.fires for slot in found] == [False, False, *fire[2:]]


def test_a_missed_slot_does_not_fire_when_a_newer_one_does() -> None:
    found = planned(MINUTE, NOON, NOON + 2 * MINUTE + 10 * SECOND).slots
    assert found == [
        Slot(NOON, fires=False),
        Slot(NOON + MINUTE, fires=False),
        Slot(NOON + 2 * MINUTE, fires=True),
    ]


def test_what_was_planned_is_not_planned_again() -> None:
    now = NOON + 3 * HOUR + MINUTE
    first = planned(HOUR, NOON, now)
    assert first.following is not None
    assert planned(HOUR, first.following, now).slots == []


def test_no_slot_is_later_than_the_end() -> None:
    end = NOON + 2 * SECOND
    found = planned(SECOND, NOON, NOON + 10 * SECOND, end=end)
    assert found == Plan([Slot(NOON + n * SECOND, fires=True) for n in range(3)], None)


def test_an_end_before_the_first_slot_leaves_none() -> None:
    assert planned(SECOND, NOON, NOON + MINUTE, end=NOON - SECOND) == Plan([], None)


def test_the_last_slot_before_the_end_is_caught_up_too() -> None:
    found = planned(HOUR, NOON, NOON + 5 * HOUR, end=NOON + HOUR)
    assert found == Plan([Slot(NOON, fires=False), Slot(NOON + HOUR, fires=True, trigger="catch_up")], None)


def test_a_limit_leaves_the_rest_due() -> None:
    found = planned(SECOND, NOON, NOON + 10 * SECOND, limit=4)
    assert (len(found.slots), found.following) == (4, NOON + 4 * SECOND)


@given(
    schedule=st.sampled_from(
        ["@every 1s", "@every 7s", "* * * * *", "*/7 3-5 * * *", "30 2 * * *", "0 0 1 * *"]
    ),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"]),
    start=st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds
    away=st.integers(0, 300),
    unit=st.sampled_from([SECOND, MINUTE, HOUR]),
    end=st.none() | st.integers(0, 300),
    limits=st.lists(st.integers(1, 50), min_size=1, max_size=10),
    policy=st.builds(
        Policy,
        misfire=st.sampled_from(["skip", "run_once", "run_all"]),
        grace_seconds=st.sampled_from([0, 60, 86400]),
    ),
)
def test_planning_in_parts_changes_nothing(
    schedule: str,
    zone: str,
    start: datetime,
    away: int,
    unit: timedelta,
    end: int | None,
    limits: list[int],
    policy: Policy,
) -> None:
    def after(slot: datetime) -> datetime:
        following = next_after(schedule, zone, slot)
        assert following is not None
        return following

    first = after(start)
    now = first + min(away * unit, 2000 * (after(first) - first))
    end_time = None if end is None else first + end * unit
    whole = plan(first, now=now, end_time=end_time, after=after, limit=100_000, policy=policy)
    parts: list[Slot] = []
    following: datetime | None = first
    turn = 0
    while following is not None and following <= now:
        part = plan(
            following,
            now=now,
            end_time=end_time,
            after=after,
            limit=limits[turn % len(limits)],
            policy=policy,
        )
        parts += part.slots
        following = part.following
        turn += 1
        if not part.slots:
            break
    assert Plan(parts, following) == whole
    instants = [slot.at for slot in parts]
    assert instants == sorted(set(instants))
    assert all(at <= now and (end_time is None or at <= end_time) for at in instants)
    caught_up = [slot for slot in parts if slot.trigger == "catch_up"]
    assert len(caught_up) <= {"skip": 0, "run_once": 1, "run_all": len(parts)}[policy.misfire]
    grace = timedelta(seconds=policy.grace_seconds)
    assert all(LATE < now - slot.at <= grace for slot in caught_up)
    if policy.misfire == "run_all":
        assert {slot.at for slot in caught_up} == {at for at in instants if LATE < now - at <= grace}
    assert all(slot.fires for slot in parts if now - slot.at <= LATE)
