"""Rows of crons that somebody meddled with, in 25 ways: each is paused with a reason that people can read, and the good
ones beside them fire on time."""

from __future__ import annotations

from typing import Final

import pytest

from matins.domain.crons import Cron
from matins.domain.ids import ThreadId
from matins.storage.pool import Pool
from tests.support import rows
from tests.support.engine import create_cron, move_clock, scheduling, until

pytestmark = pytest.mark.anyio

EACH: Final = 4

CORRUPTIONS: Final[dict[str, tuple[str, str]]] = {
    "no expression": ("schedule = 'every now and then'", "schedule"),
    "an empty expression": ("schedule = ''", "schedule"),
    "six fields": ("schedule = '0 * * * * *'", "schedule"),
    "a date that never comes": ("schedule = '0 0 30 2 *'", "schedule"),
    "an endless expression": ("schedule = repeat('1,', 500) || '1 * * * *'", "schedule"),
    "an interval of nothing": ("schedule = '@every 0s'", "schedule"),
    "a start of the machine": ("schedule = '@reboot'", "schedule"),
    "digits of another script": ("schedule = E'\\\\u0661 * * * *'", "schedule"),
    "an unknown zone": ("timezone = 'Mars/Olympus_Mons'", "Mars/Olympus_Mons"),
    "a path for a zone": ("timezone = '../../etc/passwd'", "timezone"),
    "a missing assistant": ("assistant_id = gen_random_uuid()", "does not exist"),
    "a null payload": ("payload = 'null'", "payload"),
    "a list for a payload": ("payload = '[]'", "payload"),
    "a text for a payload": ("payload = '\"tick\"'", "payload"),
    "a number for a config": ("payload = '{\"config\": 5}'", "payload"),
    "a number for a webhook": ("payload = '{\"webhook\": 7}'", "payload"),
    "a text for a context": ('payload = \'{"context": "x"}\'', "payload"),
    "a number for a mode": ("payload = '{\"stream_mode\": 5}'", "payload"),
    "a list for headers": ("payload = '{\"configurable_headers\": []}'", "payload"),
    "a strategy that there is not": ('payload = \'{"multitask_strategy": "sometimes"}\'', "sometimes"),
    "a list for a policy": ("policy = '[]'", "policy"),
    "an unknown misfire": ('policy = \'{"misfire": "sometimes"}\'', "misfire"),
    "an unknown field of a policy": ("policy = '{\"bogus\": 1}'", "bogus"),
    "a policy that cannot be": ('policy = \'{"overlap": "allow"}\'', "allow"),
    "a list for metadata": ("metadata = '[]'", "could not be fired"),
}


async def one(pool: Pool) -> Cron:
    async with pool.connection() as conn:
        thread = ThreadId(await rows.thread(conn))
    return await create_cron(pool, "* * * * *", thread_id=thread)


async def test_the_good_fire_on_time_and_each_bad_one_is_paused_with_a_reason(moving: Pool) -> None:
    assert len(CORRUPTIONS) == 25
    good = [await one(moving) for _ in range(100)]
    bad: dict[str, list[Cron]] = {}
    for name, (change, _) in CORRUPTIONS.items():
        bad[name] = [await one(moving) for _ in range(EACH)]
        async with moving.connection() as conn:
            await conn.execute(
                f"UPDATE matins.cron SET {change} WHERE cron_id = ANY($1::uuid[])",
                [cron.cron_id for cron in bad[name]],
            )
    slot = good[0].next_run_date
    assert slot is not None
    async with scheduling(moving) as due:
        async with moving.connection() as conn:
            left = (slot - await conn.fetchval("SELECT matins.now()")).total_seconds()
        await move_clock(moving, seconds=left)
        due()

        async def are_paused() -> bool:
            async with moving.connection() as conn:
                on = await conn.fetchval("SELECT count(*) FROM matins.cron WHERE enabled")
                return bool(on == len(good))

        await until(are_paused, timeout_s=60)
    async with moving.connection() as conn:
        fires = await conn.fetch(
            "SELECT cron_id, outcome, extract(epoch FROM recorded_at - scheduled_for) AS late_s FROM matins.cron_fire"
            " WHERE scheduled_for = $1 AND outcome = 'fired'",
            slot,
        )
        paused = {
            row["cron_id"]: row["paused_reason"]
            for row in await conn.fetch("SELECT cron_id, paused_reason FROM matins.cron WHERE NOT enabled")
        }
        failed = {
            row["cron_id"]: row["reason"]
            for row in await conn.fetch(
                "SELECT cron_id, reason FROM matins.cron_fire WHERE outcome = 'failed'"
            )
        }
    assert {fire["cron_id"] for fire in fires} == {cron.cron_id for cron in good}
    assert max(fire["late_s"] for fire in fires) < 5
    for name, (_, word) in CORRUPTIONS.items():
        for cron in bad[name]:
            assert word in paused[cron.cron_id], (name, paused[cron.cron_id])
            assert "\n" not in paused[cron.cron_id]
            assert failed[cron.cron_id] == paused[cron.cron_id], name
