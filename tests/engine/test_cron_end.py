from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from matins.domain.access import EVERYONE
from matins.domain.ids import CronId, uuid7
from matins.engine.crons import CronChange, update
from matins.storage.pool import Pool

pytestmark = pytest.mark.anyio


async def _overdue(pool: Pool) -> tuple[CronId, datetime, datetime]:
    """Insert a cron with a slot every quarter of an hour that was due three seconds ago; gives id, slot and now."""
    cron_id = CronId(uuid7())
    async with pool.connection() as conn:
        row = await conn.fetchrow(
            "INSERT INTO matins.cron (cron_id, assistant_id, schedule, payload, next_run_date, due_at)"
            " SELECT $1, $1, '@every 15m', '{}', slot, slot FROM (SELECT matins.now() - interval '3 s' AS slot) AS s"
            " RETURNING next_run_date, matins.now() AS now",
            cron_id,
        )
    assert row is not None
    return cron_id, row["next_run_date"], row["now"]


async def _change(pool: Pool, cron_id: CronId, change: CronChange) -> datetime | None:
    async with pool.transaction() as conn:
        return (await update(conn, cron_id, change, scope=EVERYONE)).next_run_date


async def test_a_new_end_neither_skips_a_slot_that_is_overdue_nor_moves_those_to_come(pool: Pool) -> None:
    cron_id, slot, now = await _overdue(pool)
    for end_time in ((now + timedelta(hours=1)).isoformat(), (now + timedelta(minutes=1)).isoformat()):
        assert await _change(pool, cron_id, CronChange(end_time=end_time)) == slot
    assert await _change(pool, cron_id, CronChange(clears_end_time=True)) == slot


async def test_a_cron_whose_end_is_put_off_goes_on_from_now(pool: Pool) -> None:
    cron_id, _, now = await _overdue(pool)
    async with pool.connection() as conn:
        await conn.execute(
            "UPDATE matins.cron SET next_run_date = NULL, due_at = NULL, end_time = matins.now()"
        )
    following = await _change(pool, cron_id, CronChange(end_time=(now + timedelta(hours=1)).isoformat()))
    assert following is not None
    assert timedelta(minutes=15) <= following - now <= timedelta(minutes=15, seconds=5)


async def test_an_end_before_the_next_slot_leaves_none(pool: Pool) -> None:
    cron_id, slot, now = await _overdue(pool)
    async with pool.connection() as conn:
        await conn.execute(
            "UPDATE matins.cron SET (next_run_date, due_at) ="
            " (SELECT at, at FROM (SELECT matins.now() + interval '10 min' AS at) AS later)"
        )
    assert slot < now
    assert await _change(pool, cron_id, CronChange(end_time=(now + timedelta(minutes=1)).isoformat())) is None
