"""Crons that fire once, later than their date, or not too often; and what is filled in of the past."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from matins.domain.access import EVERYONE
from matins.domain.crons import Cron
from matins.domain.errors import Conflict, Invalid
from matins.domain.fires import RETENTION
from matins.engine import crons
from matins.engine.backfilling import Backfill, backfill
from matins.engine.catching_up import AT_ONCE
from matins.engine.crons import CronChange
from matins.engine.streams.wake import Wake
from matins.storage import crons as stored
from matins.storage.pool import Pool
from tests.support.engine import create_cron, move_clock, node, scheduling, until

pytestmark = pytest.mark.anyio

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


async def value(pool: Pool, query: str, *arguments: Any) -> Any:
    async with pool.connection() as conn:
        return await conn.fetchval(query, *arguments)


async def execute(pool: Pool, query: str, *arguments: Any) -> None:
    async with pool.connection() as conn:
        await conn.execute(query, *arguments)


async def fires(pool: Pool, cron: Cron) -> list[Any]:
    async with pool.connection() as conn:
        query = "SELECT * FROM matins.cron_fire WHERE cron_id = $1 ORDER BY scheduled_for"
        return list(await conn.fetch(query, cron.cron_id))


async def outcomes(pool: Pool, cron: Cron) -> list[str]:
    return [fire["outcome"] for fire in await fires(pool, cron)]


async def get(pool: Pool, cron: Cron) -> Cron:
    found = await pool.run(lambda conn: stored.get(conn, cron.cron_id, scope=EVERYONE))
    assert found is not None
    return found


async def now(pool: Pool) -> datetime:
    return (await pool.run(stored.clock))[0]


async def update(pool: Pool, cron: Cron, **change: Any) -> Cron:
    return await pool.run(lambda conn: crons.update(conn, cron.cron_id, CronChange(**change), scope=EVERYONE))


async def resume(pool: Pool, cron: Cron) -> Cron:
    return await pool.run(lambda conn: crons.resume(conn, cron.cron_id, scope=EVERYONE))


async def end_runs(pool: Pool) -> None:
    """End the runs that wait, as if they had been carried out."""
    await execute(
        pool, "UPDATE matins.run SET status = 'success', ended_at = matins.now() WHERE status = 'pending'"
    )


async def has_looked(pool: Pool, due: Wake) -> None:
    """Wait until a cron that was made just now has fired: the others had their chance."""
    witness = await create_cron(pool, "@every 1s")
    due()
    await until(lambda: fires(pool, witness))
    await pool.run(lambda conn: stored.delete(conn, witness.cron_id, scope=EVERYONE))


async def move_to(pool: Pool, due: Wake, instant: datetime) -> None:
    await move_clock(pool, seconds=(instant - await now(pool)).total_seconds())
    due()
    await has_looked(pool, due)


@pytest.mark.parametrize(
    "late", [timedelta(), 3 * HOUR, 3 * DAY], ids=["on time", "after a downtime", "too late"]
)
async def test_what_is_to_fire_once_does_so_and_is_done(moving: Pool, late: timedelta) -> None:
    cron = await create_cron(moving, "@at 2099-01-31T09:00[Europe/Paris]")
    at = datetime.fromisoformat("2099-01-31T08:00+00:00")
    assert (cron.next_run_date, cron.due_at, cron.timezone) == (at, at, "Europe/Paris")
    await move_clock(moving, seconds=(at - await now(moving) + late).total_seconds() - 3)
    async with scheduling(moving) as due:
        await until(lambda: _is_off(moving, cron))
        await has_looked(moving, due)
        if late == 3 * HOUR:
            await until(
                lambda: value(moving, "SELECT count(*) = 1 FROM matins.run WHERE cron_id = $1", cron.cron_id)
            )
        await move_to(moving, due, await now(moving) + DAY)
    [fire] = await fires(moving, cron)
    assert fire["scheduled_for"] == at
    assert (fire["outcome"], fire["trigger"]) == {
        timedelta(): ("fired", "schedule"),
        3 * HOUR: ("fired", "catch_up"),
        3 * DAY: ("missed", "schedule"),
    }[late]
    done = await get(moving, cron)
    assert (done.enabled, done.next_run_date, done.due_at) == (False, None, None)
    assert done.paused_reason == "done: it was to fire once"
    with pytest.raises(Invalid, match="It was to fire once, and is done"):
        await resume(moving, cron)
    with pytest.raises(Conflict, match="is done"):
        await fill_in(moving, cron, at - DAY, at)


async def _is_off(pool: Pool, cron: Cron) -> bool:
    return not (await get(pool, cron)).enabled


async def test_a_done_cron_can_be_given_another_date(moving: Pool) -> None:
    cron = await create_cron(moving, None, after_seconds=1)
    async with scheduling(moving) as due:
        due()
        await until(lambda: _is_off(moving, cron))
        await update(moving, cron, metadata={"seen": True})
        assert (await get(moving, cron)).done_at is not None
        at = (await now(moving)).replace(microsecond=0) + HOUR
        again = await update(moving, cron, schedule=f"@at {at.isoformat()}", enabled=True)
        assert (again.enabled, again.next_run_date, again.paused_reason, again.done_at) == (
            True,
            at,
            None,
            None,
        )
        await end_runs(moving)
        await move_to(moving, due, at)
        await until(lambda: _is_off(moving, cron))
    assert await outcomes(moving, cron) == ["fired", "fired"]
    assert (await fires(moving, cron))[1]["scheduled_for"] == at


async def test_a_date_that_goes_by_while_its_cron_is_paused_never_fires(moving: Pool) -> None:
    cron = await create_cron(moving, None, after_seconds=600)
    paused = await update(moving, cron, enabled=False)
    async with scheduling(moving) as due:
        await move_to(moving, due, await now(moving) + HOUR)
    assert await fires(moving, cron) == []
    assert (await update(moving, paused, metadata={"still": "there"})).next_run_date == cron.next_run_date
    with pytest.raises(Invalid, match="Its time has gone by"):
        await resume(moving, cron)


async def test_what_waits_of_a_done_cron_outlasts_an_edit(moving: Pool) -> None:
    cron = await create_cron(moving, None, after_seconds=600)
    await move_clock(moving, hours=2)
    await moving.run(lambda conn: stored.hold(conn, "for now"))
    async with moving.connection() as conn:  # as it was missed, and waits
        await conn.execute(
            "INSERT INTO matins.cron_fire (cron_id, scheduled_for, outcome, trigger)"
            " VALUES ($1, $2, 'waiting', 'catch_up')",
            cron.cron_id, cron.next_run_date,
        )  # fmt: skip
    async with scheduling(moving) as due:
        due()
        await until(lambda: _is_off(moving, cron))
        await update(moving, cron, metadata={"seen": True})
        assert await outcomes(moving, cron) == ["waiting"]
        await moving.run(stored.let_go)
        await until(lambda: _are(moving, cron, ["fired"]))


async def _are(pool: Pool, cron: Cron, wanted: list[str]) -> bool:
    return await outcomes(pool, cron) == wanted


async def test_a_done_cron_is_gone_after_seven_days_and_its_ledger_is_not(moving: Pool) -> None:
    cron = await create_cron(moving, None, after_seconds=1)
    other = await create_cron(moving, "0 0 1 1 *", enabled=False)
    async with scheduling(moving) as due:
        due()
        await until(lambda: _is_off(moving, cron))

    async def purged() -> int:
        return await moving.run(lambda conn: stored.purge_done(conn, older_than=7 * DAY, limit=10))

    await move_clock(moving, days=6, hours=23)
    assert await purged() == 0
    await move_clock(moving, hours=1)
    await execute(moving, "UPDATE matins.cron_fire SET outcome = 'waiting', run_id = NULL, status = NULL")
    assert await purged() == 0, "it may still be caught up"
    await execute(moving, "UPDATE matins.cron_fire SET outcome = 'missed'")
    assert await purged() == 1
    assert await value(moving, "SELECT array_agg(cron_id) FROM matins.cron") == [other.cron_id]
    assert await outcomes(moving, cron) == ["missed"]


async def test_a_node_purges_what_is_done(database: str) -> None:
    async with node(database) as first:
        cron = await create_cron(first.pool, "0 0 1 1 *")
        await execute(
            first.pool,
            "UPDATE matins.cron SET enabled = false, next_run_date = NULL, due_at = NULL,"
            " done_at = matins.now() - interval '8 days'",
        )
        gone = "SELECT NOT EXISTS (SELECT FROM matins.cron WHERE cron_id = $1)"
        await until(lambda: value(first.pool, gone, cron.cron_id))


async def test_jitter_fires_a_slot_later_and_leaves_its_date(moving: Pool) -> None:
    made = [await create_cron(moving, "0 * * * *", policy={"jitter_seconds": 1800}) for _ in range(3)]
    [slot] = {cron.next_run_date for cron in made}
    assert slot is not None
    assert len({cron.due_at for cron in made}) == 3
    in_order = sorted(made, key=lambda cron: cron.delay)
    async with scheduling(moving) as due:
        for number, cron in enumerate(in_order):
            assert cron.due_at is not None
            assert slot < cron.due_at < slot + 30 * MINUTE
            await move_to(moving, due, cron.due_at - timedelta(seconds=3))
            assert [await outcomes(moving, each) for each in in_order] == [["fired"]] * number + [[]] * (
                3 - number
            )
            await move_to(moving, due, cron.due_at)
            await until(lambda of=cron: _are(moving, of, ["fired"]))  # type: ignore[misc]
    for cron in made:
        [fire] = await fires(moving, cron)
        assert (fire["scheduled_for"], fire["trigger"]) == (slot, "schedule")
        assert fire["recorded_at"] - (slot + cron.delay) < timedelta(seconds=30)
        following = await get(moving, cron)
        assert following.next_run_date == slot + HOUR
        assert following.delay == cron.delay
    assert await value(moving, "SELECT array_agg(DISTINCT scheduled_for) FROM matins.run WHERE cron_id = ANY($1)",
                       [cron.cron_id for cron in made]) == [slot]  # fmt: skip


async def test_an_edit_of_the_jitter_alone_moves_no_date(moving: Pool) -> None:
    cron = await create_cron(moving, "0 0 1 1 *", policy={"jitter_seconds": 3600})
    assert timedelta() < cron.delay < HOUR
    without = await update(moving, cron, policy={"jitter_seconds": None})
    assert (without.next_run_date, without.delay) == (cron.next_run_date, timedelta())
    again = await update(moving, cron, policy={"jitter_seconds": 1800})
    assert again.next_run_date == cron.next_run_date
    assert abs(again.delay - cron.delay / 2) <= timedelta.resolution


async def test_a_jittered_slot_that_nobody_served_is_caught_up_by_when_it_was_due(moving: Pool) -> None:
    cron = await create_cron(moving, "0 0 1 1 *", policy={"jitter_seconds": 86400, "misfire": "skip"})
    assert cron.due_at is not None
    await move_clock(moving, seconds=(cron.due_at - await now(moving)).total_seconds() + 20)
    async with scheduling(moving):
        await until(lambda: _are(moving, cron, ["fired"]))


async def test_a_slot_too_soon_after_the_last_is_skipped_on_record(moving: Pool) -> None:
    cron = await create_cron(moving, "*/20 * * * *", policy={"min_interval_seconds": 3600})
    free = await create_cron(moving, "*/20 * * * *")
    at = cron.next_run_date
    assert at is not None
    async with scheduling(moving) as due:
        for number in range(5):
            await move_to(moving, due, at + 20 * number * MINUTE)
            await until(lambda n=number: _counted(moving, cron, n + 1))  # type: ignore[misc]
            await until(lambda n=number: _counted(moving, free, n + 1))  # type: ignore[misc]
            await end_runs(moving)
    assert await outcomes(moving, cron) == ["fired", "skipped", "skipped", "fired", "skipped"]
    assert {fire["reason"] for fire in await fires(moving, cron)} == {None, "less than 3600 s after its last"}
    assert await outcomes(moving, free) == ["fired"] * 5
    assert await value(moving, "SELECT count(*) FROM matins.run WHERE cron_id = $1", cron.cron_id) == 2


async def _counted(pool: Pool, cron: Cron, number: int) -> bool:
    return len(await fires(pool, cron)) >= number


async def fill_in(
    pool: Pool, cron: Cron, since: datetime, until_: datetime, *, dry_run: bool = False
) -> Backfill:
    return await pool.run(
        lambda conn: backfill(conn, cron.cron_id, since=since, until=until_, dry_run=dry_run, scope=EVERYONE)
    )


async def missed_day(pool: Pool, **asked: Any) -> tuple[Cron, datetime]:
    """Give an hourly cron that has missed four slots and caught up the fifth, and the first of them."""
    cron = await create_cron(pool, "0 * * * *", **asked)
    assert cron.next_run_date is not None
    async with scheduling(pool) as due:
        await move_to(pool, due, cron.next_run_date + 4 * HOUR + MINUTE)
        await until(lambda: _are(pool, cron, ["missed"] * 4 + ["fired"]))
    await end_runs(pool)
    return cron, cron.next_run_date


async def test_what_was_missed_is_filled_in_oldest_first_and_what_was_served_never_again(
    moving: Pool,
) -> None:
    cron, first = await missed_day(moving)
    end = first + 4 * HOUR + MINUTE
    shown = await fill_in(moving, cron, first - HOUR, end, dry_run=True)
    assert [each.at for each in shown.slots] == [first + n * HOUR for n in range(-1, 5)]
    assert [each.outcome for each in shown.slots] == [None, *["missed"] * 4, "fired"]
    assert [each.fires for each in shown.slots] == [True] * 5 + [False]
    assert (shown.count, shown.slots[5].reason) == (5, "it has had its run")
    assert await outcomes(moving, cron) == ["missed"] * 4 + ["fired"], "a dry run changes nothing"
    assert (await fill_in(moving, cron, first - HOUR, end)).count == 5
    assert await outcomes(moving, cron) == ["waiting"] * 5 + ["fired"]
    again = await fill_in(moving, cron, first - HOUR, end)
    assert (again.count, {each.outcome for each in again.slots}) == (5, {"waiting", "fired"})
    for number in range(1, 6):
        expected = ["fired"] * number + ["waiting"] * (5 - number) + ["fired"]
        async with scheduling(moving) as due:  # each time a new one: what waits survives a restart
            await until(lambda wanted=expected: _are(moving, cron, wanted))  # type: ignore[misc]
            await has_looked(moving, due)
            assert (
                await value(moving, "SELECT count(*) FROM matins.run WHERE cron_id = $1", cron.cron_id)
                == number + 1
            )
        await end_runs(moving)
    assert {fire["trigger"] for fire in (await fires(moving, cron))[:5]} == {"backfill"}
    assert (await fill_in(moving, cron, first - HOUR, end)).count == 0
    await execute(moving, "DELETE FROM matins.run")
    assert (await fill_in(moving, cron, first - HOUR, end)).count == 0, "what had a run was served"


async def test_what_it_may_cost_is_told_by_the_newest_successes(moving: Pool) -> None:
    cron, first = await missed_day(moving)
    await execute(
        moving, "UPDATE matins.cron_fire SET tokens = 900, cost_usd = 0.25 WHERE status = 'success'"
    )
    shown = await fill_in(moving, cron, first, first + 3 * HOUR, dry_run=True)
    assert (shown.count, shown.estimated_tokens, shown.estimated_usd) == (3, 2700, 0.75)
    await execute(moving, "UPDATE matins.cron_fire SET status = 'error' WHERE status = 'success'")
    shown = await fill_in(moving, cron, first, first + 3 * HOUR, dry_run=True)
    assert (shown.estimated_tokens, shown.estimated_usd) == (None, None)


async def test_what_was_skipped_or_failed_can_be_filled_in(moving: Pool) -> None:
    cron, first = await missed_day(moving)
    for number, outcome in enumerate(("skipped", "failed")):
        await execute(
            moving,
            "UPDATE matins.cron_fire SET outcome = $1 WHERE scheduled_for = $2",
            outcome,
            first + number * HOUR,
        )
    assert (await fill_in(moving, cron, first, first + 2 * HOUR)).count == 2
    assert (await outcomes(moving, cron))[:3] == ["waiting", "waiting", "missed"]


async def test_few_are_filled_in_at_once_and_none_while_all_crons_are_held(moving: Pool) -> None:
    made = [await missed_day(moving) for _ in range(2)]
    many = [await create_cron(moving, "0 * * * *") for _ in range(AT_ONCE)]
    await moving.run(lambda conn: stored.hold(conn, "the bill"))
    _, first = made[0]
    for cron in [*(cron for cron, _ in made), *many]:
        assert (await fill_in(moving, cron, first, first + 3 * HOUR)).count == 3
    in_flight = "SELECT count(*) FROM matins.cron_fire WHERE trigger = 'backfill' AND status = 'pending'"
    async with scheduling(moving) as due:
        await has_looked(moving, due)  # its slot is skipped, on record
        assert await value(moving, in_flight) == 0
        await moving.run(stored.let_go)
        await until(lambda: value(moving, f"SELECT ({in_flight}) = {AT_ONCE}"))
        await has_looked(moving, due)
        assert await value(moving, in_flight) == AT_ONCE


async def test_a_pause_drops_what_was_to_be_filled_in_and_a_paused_cron_takes_nothing(moving: Pool) -> None:
    cron, first = await missed_day(moving)
    await fill_in(moving, cron, first, first + HOUR)
    await moving.run(lambda conn: crons.pause(conn, cron.cron_id, "enough", scope=EVERYONE))
    assert (await outcomes(moving, cron))[0] == "skipped"
    for dry_run in (True, False):
        with pytest.raises(Conflict, match="resume it first"):
            await fill_in(moving, cron, first, first + HOUR, dry_run=dry_run)
    await resume(moving, cron)
    assert (await fill_in(moving, cron, first, first + HOUR)).count == 1


async def test_slots_that_the_ledger_may_have_forgotten_are_refused(moving: Pool) -> None:
    cron, first = await missed_day(moving)
    await move_clock(moving, days=RETENTION.days + 1)
    with pytest.raises(Invalid, match="kept for 90 days"):
        await fill_in(moving, cron, first, first + HOUR)


async def test_an_interval_that_was_counted_anew_is_not_filled_in_beside_what_it_did(moving: Pool) -> None:
    cron = await create_cron(moving, "@every 1h")
    first = cron.next_run_date
    assert first is not None
    async with scheduling(moving) as due:
        for number in range(3):
            await move_to(moving, due, first + number * HOUR)
            await until(lambda n=number: _counted(moving, cron, n + 1))  # type: ignore[misc]
            await end_runs(moving)
    await move_clock(moving, minutes=30)
    await update(moving, cron, enabled=False)
    moved = await resume(moving, cron)
    assert moved.next_run_date is not None
    assert (moved.next_run_date - first) % HOUR != timedelta()
    shown = await fill_in(moving, cron, first - 10 * MINUTE, await now(moving))
    assert [(each.at, each.fires) for each in shown.slots] == [(first + n * HOUR, False) for n in range(3)]


async def test_a_slot_that_is_due_but_not_fired_yet_is_left_to_its_cron(moving: Pool) -> None:
    cron = await create_cron(moving, "0 * * * *", policy={"jitter_seconds": 3600})
    slot = cron.next_run_date
    assert slot is not None
    await move_clock(moving, seconds=(slot - await now(moving)).total_seconds() + 1)
    [past] = (await fill_in(moving, cron, slot, slot + timedelta(seconds=1))).slots
    assert (past.fires, past.reason) == (False, "its cron is about to fire it")
    assert await fires(moving, cron) == []
