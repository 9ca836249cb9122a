"""Seven years of daily crons, through the scheduler and its ledger: one fire on every date, whatever the clocks do.

Around each change of a clock every slot fires at its time; between changes time jumps, and what was due meanwhile is on
record as missed. With CRON_YEARS=every (`make years`) all 61,000 slots fire, which takes some eleven minutes.
"""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import anyio
import pytest

from matins.domain.crons import Cron
from matins.engine.streams.wake import Wake
from matins.storage.pool import Pool
from tests.support.engine import create_cron, scheduling

pytestmark = pytest.mark.anyio

ZONES = (
    "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Antarctica/Troll", "Africa/Cairo",
    "America/St_Johns",
)  # fmt: skip
TIMES = ("0 0 * * *", "30 1 * * *", "30 2 * * *", "45 23 * * *")
BEGIN, END = datetime(2023, 12, 31, 12, tzinfo=UTC), datetime(2031, 1, 1, 12, tzinfo=UTC)
FIRST, LAST = date(2024, 1, 1), date(2030, 12, 31)
EVERY = os.environ.get("CRON_YEARS") == "every"
BOUND = timedelta(days=60)  # the ledger takes no slots that it would not keep
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def changes(zone: str) -> list[datetime]:
    """The hours in which the zone's offset changes."""
    place, hours = ZoneInfo(zone), int((END - BEGIN) / HOUR)
    marks = [BEGIN + hour * HOUR for hour in range(hours + 1)]
    return [after for before, after in pairwise(marks) if utcoffset(place, before) != utcoffset(place, after)]


def utcoffset(place: ZoneInfo, at: datetime) -> timedelta | None:
    return at.astimezone(place).utcoffset()


async def set_clock(pool: Pool, at: datetime) -> None:
    async with pool.connection() as conn:
        await conn.execute("UPDATE matins.test_offset SET by = $1 - clock_timestamp()", at)


async def next_due(pool: Pool) -> datetime:
    async with pool.connection() as conn:
        due: datetime = await conn.fetchval("SELECT min(next_run_date) FROM matins.cron")
        return due


async def pass_to(pool: Pool, due: Wake, fired: Wake, at: datetime) -> None:
    """Let it be that time, and all that was due until then be decided."""
    await set_clock(pool, at)
    due()
    with anyio.fail_after(60):
        while await next_due(pool) <= at:
            await fired.wait(0.02)  # what was missed starts no run, and nobody is told


@pytest.mark.timeout(3600 if EVERY else 900)
async def test_a_daily_cron_fires_once_on_every_date_in_every_place(moving: Pool) -> None:
    fired = Wake()
    await set_clock(moving, BEGIN)
    crons: dict[tuple[str, str], Cron] = {}
    async with scheduling(moving, on_fired=fired) as due:
        for zone in ZONES:
            for schedule in TIMES:
                crons[zone, schedule] = await create_cron(
                    moving, schedule, timezone=zone, policy={"misfire": "skip"}
                )
        now = BEGIN
        while EVERY and (slot := await next_due(moving)) < END:
            await pass_to(moving, due, fired, now := slot)
        near = [] if EVERY else sorted({change for zone in ZONES for change in changes(zone)})
        for change in near:
            # Up to the change in bounds, as after a downtime; then each slot on time, until the day after.
            while change - 1.5 * DAY > now:
                await pass_to(moving, due, fired, now := min(change - 1.5 * DAY, now + BOUND))
            while (slot := await next_due(moving)) < change + 1.5 * DAY:
                await pass_to(moving, due, fired, now := slot)
        while now < END:
            await pass_to(moving, due, fired, now := min(END, now + BOUND))
    async with moving.connection() as conn:
        rows = await conn.fetch("SELECT cron_id, scheduled_for, outcome FROM matins.cron_fire")
    outcomes = Counter(row["outcome"] for row in rows)
    assert outcomes["fired"] > (61_000 if EVERY else 3_500)
    assert set(outcomes) == ({"fired"} if EVERY else {"fired", "missed"})
    expected = Counter(FIRST + n * DAY for n in range((LAST - FIRST).days + 1))
    for (zone, _), cron in crons.items():
        dates = Counter(
            row["scheduled_for"].astimezone(ZoneInfo(zone)).date()
            for row in rows
            if row["cron_id"] == cron.cron_id
        )
        found = Counter({day: number for day, number in dates.items() if FIRST <= day <= LAST})
        assert found == expected, (zone, cron.schedule)
    assert len({(row["cron_id"], row["scheduled_for"]) for row in rows}) == len(rows)
