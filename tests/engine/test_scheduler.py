from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

import anyio
import pytest

from matins import telemetry
from matins.domain.access import EVERYONE
from matins.domain.assistants import Assistant
from matins.domain.budgets import Ceilings
from matins.domain.crons import Cron
from matins.domain.errors import AssistantNotFound, Unavailable
from matins.domain.ids import AssistantId, CronId, ThreadId, system_assistant_id, uuid7
from matins.engine import assistants, crons
from matins.engine.catching_up import AT_ONCE
from matins.engine.crons import TZDATA, CronChange
from matins.engine.firing import SLOTS_AT_ONCE
from matins.engine.streams.wake import Wake
from matins.storage import crons as stored
from matins.storage import threads
from matins.storage.pool import Conn, Pool
from tests.support import rows
from tests.support.engine import Graphs, Twice, create_cron, move_clock, scheduling, until

pytestmark = pytest.mark.anyio

T = TypeVar("T")


async def fetch(pool: Pool, query: str, *arguments: Any) -> list[Any]:
    async with pool.connection() as conn:
        return list(await conn.fetch(query, *arguments))


async def value(pool: Pool, query: str, *arguments: Any) -> Any:
    async with pool.connection() as conn:
        return await conn.fetchval(query, *arguments)


async def fires(pool: Pool, cron: Cron) -> list[Any]:
    return await fetch(
        pool, "SELECT * FROM matins.cron_fire WHERE cron_id = $1 ORDER BY scheduled_for", cron.cron_id
    )


async def get(pool: Pool, cron: Cron) -> Cron:
    found = await pool.run(lambda conn: stored.get(conn, cron.cron_id, scope=EVERYONE))
    assert found is not None
    return found


async def update(pool: Pool, cron: Cron, **change: Any) -> Cron:
    return await pool.run(lambda conn: crons.update(conn, cron.cron_id, CronChange(**change), scope=EVERYONE))


async def edit(assistant_id: AssistantId, change: assistants.AssistantChange, conn: Conn) -> Assistant:
    return await assistants.update(conn, assistant_id, change, graphs=Graphs(), scope=EVERYONE)


async def pass_time(pool: Pool, due: Wake, **by: float) -> None:
    await move_clock(pool, **by)
    due()


async def has_looked(pool: Pool, due: Wake, **asked: Any) -> None:
    """Wait until a cron that was made just now has fired: the others had their chance."""
    witness = await create_cron(pool, "@every 1s", **asked)
    due()
    await until(lambda: fires(pool, witness))
    await pool.run(lambda conn: stored.delete(conn, witness.cron_id, scope=EVERYONE))


def at_least(pool: Pool, cron: Cron, number: int) -> Callable[[], Any]:
    async def there() -> bool:
        return len(await fires(pool, cron)) >= number

    return there


async def test_creating_a_cron_fires_nothing_and_its_first_slot_does(moving: Pool) -> None:
    async with scheduling(moving) as due:
        cron = await create_cron(moving, "0 0 1 1 *")
        assert cron.next_run_date is not None
        await has_looked(moving, due)
        assert await fires(moving, cron) == []
        left = cron.next_run_date - (await moving.run(stored.clock))[0]
        await pass_time(moving, due, seconds=left.total_seconds())
        await until(at_least(moving, cron, 1))
        [fire] = await fires(moving, cron)
        assert (fire["scheduled_for"], fire["outcome"], fire["trigger"]) == (
            cron.next_run_date,
            "fired",
            "schedule",
        )
        assert (await get(moving, cron)).next_run_date == cron.next_run_date.replace(
            year=cron.next_run_date.year + 1
        )


async def test_a_fire_comes_with_exactly_one_run_that_says_whose_it_is(moving: Pool) -> None:
    async with scheduling(moving) as due:
        async with moving.connection() as conn:
            thread = await rows.thread(conn)
        cron = await create_cron(moving, "* * * * *", thread_id=thread, metadata={"team": "x"})
        await pass_time(moving, due, minutes=1)
        await until(at_least(moving, cron, 1))
    [run] = await fetch(moving, "SELECT * FROM matins.run")
    [fire] = await fires(moving, cron)
    assert (run["run_id"], run["thread_id"], run["cron_id"], run["scheduled_for"]) == (
        fire["run_id"], thread, cron.cron_id, fire["scheduled_for"],
    )  # fmt: skip
    assert json.loads(run["metadata"]) == {
        "created_by": "system",
        "team": "x",
        "cron_id": str(cron.cron_id),
        "scheduled_for": fire["scheduled_for"].isoformat(),
        "graph_id": "echo",
        "assistant_id": str(system_assistant_id("echo")),
    }
    kwargs = json.loads(run["kwargs"])
    assert kwargs["input"] == {"messages": [{"role": "user", "content": "tick"}]}
    assert kwargs["context"] == {}
    written = await fetch(
        moving,
        "SELECT DISTINCT xmin::text FROM (SELECT xmin FROM matins.run UNION ALL SELECT xmin FROM matins.cron_fire"
        " UNION ALL SELECT xmin FROM matins.cron) AS written",
    )
    assert len(written) == 1  # one transaction


async def test_a_run_can_be_claimed_as_soon_as_the_claimer_is_woken(moving: Pool) -> None:
    """Woken before the commit, it would find nothing and sleep on."""
    seen = []
    woken = Wake()

    async def look() -> None:
        while True:
            await woken.wait(60)
            seen.append(await value(moving, "SELECT count(*) FROM matins.run"))

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        async with scheduling(moving, on_fired=woken) as due:
            cron = await create_cron(moving, "@every 1s")
            due()
            await until(at_least(moving, cron, 3))
        group.cancel_scope.cancel()
    assert seen != []
    assert 0 not in seen


async def test_of_racing_schedulers_each_slot_is_fired_by_one(moving: Pool) -> None:
    async with scheduling(moving) as one, scheduling(moving) as other, scheduling(moving) as third:
        made = [await create_cron(moving, "@every 1s") for _ in range(20)]
        await move_clock(moving, seconds=7)
        for due in (one, other, third):
            due()
        for cron in made:
            await until(at_least(moving, cron, 10), timeout_s=30)
    for cron in made:
        slots = [fire["scheduled_for"] for fire in await fires(moving, cron)]
        assert slots == [slots[0] + n * timedelta(seconds=1) for n in range(len(slots))]
    assert await value(moving, "SELECT bool_and(outcome = 'fired') FROM matins.cron_fire")
    assert await value(
        moving,
        "SELECT (SELECT count(*) FROM matins.run) = (SELECT count(*) FROM matins.cron_fire)"
        " AND (SELECT count(*) FROM matins.run JOIN matins.cron_fire USING (run_id, cron_id, scheduled_for))"
        " = (SELECT count(*) FROM matins.run)",
    )


async def test_a_fire_whose_commit_was_not_answered_is_not_fired_again(moving: Pool) -> None:
    async with scheduling(Twice(moving)) as due:
        cron = await create_cron(moving, "@every 1s")
        due()
        await until(at_least(moving, cron, 3))
    found = [fire["scheduled_for"] for fire in await fires(moving, cron)]
    assert found == [found[0] + n * timedelta(seconds=1) for n in range(len(found))]
    runs = await fetch(moving, "SELECT scheduled_for FROM matins.run ORDER BY 1")
    assert [run["scheduled_for"] for run in runs] == found


async def end_runs(pool: Pool) -> None:
    """End the runs that wait, as if they had been carried out."""
    async with pool.connection() as conn:
        await conn.execute(
            "UPDATE matins.run SET status = 'success', ended_at = matins.now() WHERE status = 'pending'"
        )


@pytest.mark.parametrize(("misfire", "n_runs"), [("skip", 0), ("run_once", 1), ("run_all", 3)])
async def test_after_a_downtime_each_slot_is_on_record_and_runs_as_its_policy_says(
    moving: Pool, misfire: str, n_runs: int
) -> None:
    cron = await create_cron(moving, "@every 1h", policy={"misfire": misfire})
    assert cron.next_run_date is not None
    await move_clock(moving, hours=3, minutes=30)
    async with scheduling(moving) as due:
        await until(at_least(moving, cron, 3))
        started: list[Any] = []
        for number in range(1, n_runs + 1):  # one after the other: nobody else carries them out
            await until(is_caught_up(moving, cron, number))
            started = [fire for fire in await fires(moving, cron) if fire["run_id"]]
            assert len(started) == number
            await end_runs(moving)
        await has_looked(moving, due)
    found = await fires(moving, cron)
    assert [fire["scheduled_for"] for fire in found] == [
        cron.next_run_date + n * timedelta(hours=1) for n in range(3)
    ]
    assert [fire["outcome"] for fire in found] == ["missed"] * (3 - n_runs) + ["fired"] * n_runs
    assert {fire["trigger"] for fire in found[3 - n_runs :]} <= {"catch_up"}
    assert all(fire["reason"] for fire in found if fire["outcome"] == "missed")
    counted = "SELECT count(*) FROM matins.run WHERE cron_id = $1"
    assert await value(moving, counted, cron.cron_id) == n_runs


def is_caught_up(pool: Pool, cron: Cron, number: int) -> Callable[[], Any]:
    async def started() -> bool:
        return sum(fire["run_id"] is not None for fire in await fires(pool, cron)) >= number

    return started


async def test_what_is_older_than_the_grace_is_not_caught_up(moving: Pool) -> None:
    cron = await create_cron(moving, "@every 1h", policy={"misfire": "run_all", "grace_seconds": 5000})
    await move_clock(moving, hours=3, minutes=30)
    async with scheduling(moving) as due:
        await until(is_caught_up(moving, cron, 1))
        await has_looked(moving, due)
    assert [fire["outcome"] for fire in await fires(moving, cron)] == ["missed", "missed", "fired"]


async def test_many_crons_are_caught_up_a_few_at_a_time_and_what_is_due_now_does_not_wait(
    moving: Pool,
) -> None:
    crons_ = [await create_cron(moving, "@every 1h") for _ in range(4 * AT_ONCE)]
    await move_clock(moving, hours=1, minutes=30)
    in_flight = "SELECT count(*) FROM matins.cron_fire WHERE trigger = 'catch_up' AND status = 'pending'"
    waiting = "SELECT count(*) FROM matins.cron_fire WHERE outcome = 'waiting'"
    async with scheduling(moving) as due:
        for number in range(1, 5):
            await until(lambda: _is(moving, in_flight, AT_ONCE))
            await has_looked(moving, due)
            assert await value(moving, in_flight) == AT_ONCE
            assert await value(moving, waiting) == len(crons_) - number * AT_ONCE
            await end_runs(moving)
        await has_looked(moving, due)
    assert await value(moving, waiting) == await value(moving, in_flight) == 0


async def _is(pool: Pool, query: str, number: int) -> bool:
    return bool(await value(pool, query) == number)


@pytest.mark.parametrize("how", ["paused", "deleted", "without its assistant"])
async def test_a_slot_that_waits_runs_no_more_when_its_cron_is_off(moving: Pool, how: str) -> None:
    first = await create_cron(moving, "@every 1h", policy={"misfire": "run_all"})
    await move_clock(moving, hours=3, minutes=30)
    async with scheduling(moving) as due:
        await until(is_caught_up(moving, first, 1))
        if how == "deleted":
            await moving.run(lambda conn: stored.delete(conn, first.cron_id, scope=EVERYONE))
        elif how == "paused":
            await moving.run(lambda conn: crons.pause(conn, first.cron_id, "enough", scope=EVERYONE))
        else:
            async with moving.connection() as conn:
                await conn.execute(
                    "UPDATE matins.cron SET assistant_id = gen_random_uuid() WHERE cron_id = $1",
                    first.cron_id,
                )
        await end_runs(moving)
        await has_looked(moving, due)
        await until(lambda: _is(moving, "SELECT count(*) FROM matins.cron_fire WHERE outcome = 'waiting'", 0))
    outcomes = [(fire["outcome"], fire["reason"]) for fire in await fires(moving, first)]
    expected = {
        "paused": ("skipped", "its cron was paused before it could be caught up"),
        "deleted": ("skipped", "its cron was deleted before it could be caught up"),
    }.get(how)
    assert outcomes[0] == ("fired", None)
    if expected:
        assert outcomes[1:] == [expected] * 2
    else:
        assert {outcome for outcome, _ in outcomes[1:]} == {"failed"}


@pytest.mark.timeout(300)
async def test_a_day_of_seconds_is_recorded_in_bounded_transactions_while_others_fire_on_time(
    moving: Pool,
) -> None:
    cron = await create_cron(moving, "@every 1s")
    await move_clock(moving, days=1)
    punctual = await create_cron(moving, "@every 1s")
    async with scheduling(moving):

        async def is_level() -> bool:
            now, _ = await moving.run(stored.clock)
            next_date = (await get(moving, cron)).next_run_date
            return next_date is not None and next_date > now - timedelta(seconds=2)

        await until(is_level, timeout_s=280)
    assert cron.next_run_date is not None
    counted = await fetch(
        moving,
        "SELECT count(*) AS n, min(scheduled_for) AS first, max(scheduled_for) AS last FROM matins.cron_fire"
        " WHERE cron_id = $1",
        cron.cron_id,
    )
    [row] = counted
    assert row["first"] == cron.next_run_date
    assert row["n"] == (row["last"] - row["first"]).total_seconds() + 1 > 86_000
    assert await value(
        moving, "SELECT max(n) FROM (SELECT count(*) AS n FROM matins.cron_fire GROUP BY xmin::text) AS written"
    ) <= SLOTS_AT_ONCE  # fmt: skip
    waited_for = await value(
        moving,
        "SELECT max(n) FROM (SELECT count(DISTINCT other.xmin::text) AS n FROM matins.cron_fire AS mine"
        " JOIN matins.cron_fire AS other ON other.cron_id <> mine.cron_id"
        " AND other.recorded_at BETWEEN mine.scheduled_for AND mine.recorded_at"
        " WHERE mine.cron_id = $1 GROUP BY mine.scheduled_for) AS counted",
        punctual.cron_id,
    )
    assert waited_for <= 3, "transactions with slots of the other between a slot and its fire"
    assert len(await fires(moving, punctual)) > 2


async def test_a_backlog_of_many_crons_does_not_hold_up_what_is_due_now(moving: Pool) -> None:
    behind = await create_cron(moving, "@every 1s")
    async with moving.connection() as conn:
        await conn.execute(
            "INSERT INTO matins.cron (cron_id, assistant_id, schedule, next_run_date, due_at, payload)"
            " SELECT gen_random_uuid(), assistant_id, schedule, next_run_date, due_at, payload"
            " FROM matins.cron, generate_series(1, 999) WHERE cron_id = $1",
            behind.cron_id,
        )
    await move_clock(moving, hours=8)
    punctual = await create_cron(moving, "@every 1s")
    async with scheduling(moving):
        await until(at_least(moving, punctual, 3))
    found = await fires(moving, punctual)
    assert {fire["outcome"] for fire in found} == {"fired"}
    assert await value(moving, "SELECT count(*) FROM matins.cron_fire WHERE outcome = 'missed'") > 0


class Frail(Pool):
    """A database that gives up on a transaction with more than two fires."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool._pool)

    async def run(
        self, work: Callable[[Conn], Awaitable[T]], *, transaction: bool = True, patience_s: float = 8
    ) -> T:
        async def weakly(conn: Conn) -> T:
            done = await work(conn)
            mine = "SELECT count(*) FROM matins.cron_fire WHERE xmin = pg_current_xact_id()::xid"
            if transaction and await conn.fetchval(mine) > 2:
                raise Unavailable
            return done

        return await super().run(weakly, transaction=transaction, patience_s=0)


async def test_crons_that_are_too_much_for_the_database_at_once_fire_in_smaller_numbers(moving: Pool) -> None:
    made = [await create_cron(moving, "* * * * *") for _ in range(6)]
    async with scheduling(Frail(moving)) as due:
        await pass_time(moving, due, minutes=1)
        for cron in made:
            await until(at_least(moving, cron, 1))


async def test_no_slot_is_later_than_the_end_and_then_there_is_no_next_date(moving: Pool) -> None:
    now, _ = await moving.run(stored.clock)
    ending = await create_cron(moving, "* * * * *", end_time=(now + timedelta(minutes=2)).isoformat())
    other = await create_cron(moving, "* * * * *")
    async with scheduling(moving) as due:
        for _ in range(4):
            await pass_time(moving, due, minutes=1)
            await has_looked(moving, due)
        await until(at_least(moving, other, 4))
    assert ending.end_time is not None
    assert [fire["scheduled_for"] <= ending.end_time for fire in await fires(moving, ending)] == [True, True]
    assert (await get(moving, ending)).next_run_date is None


async def test_a_cron_that_is_off_does_not_fire_and_switched_on_fires_nothing_stale(moving: Pool) -> None:
    async with scheduling(moving) as due:
        born_off = await create_cron(moving, "* * * * *", enabled=False)
        paused = await create_cron(moving, "* * * * *")
        await update(moving, paused, enabled=False)
        await pass_time(moving, due, minutes=5)
        await has_looked(moving, due)
        now, _ = await moving.run(stored.clock)
        for cron in (born_off, paused):
            on = await update(moving, cron, enabled=True)
            assert on.next_run_date is not None
            assert on.next_run_date > now
        due()
        await has_looked(moving, due)
        early = [fire for cron in (born_off, paused) for fire in await fires(moving, cron)]
        assert all(fire["scheduled_for"] > now for fire in early)
        await pass_time(moving, due, minutes=1)
        for cron in (born_off, paused):
            await until(at_least(moving, cron, 1))


async def test_an_edit_between_the_look_ahead_and_the_instant_fires_nothing_stale(moving: Pool) -> None:
    async with scheduling(moving) as due:
        while True:  # a machine that stands still for a moment may be too late with its edit
            cron = await create_cron(moving, "0 * * * *")
            assert cron.next_run_date is not None
            left = cron.next_run_date - (await moving.run(stored.clock))[0]
            await pass_time(moving, due, seconds=left.total_seconds() - 0.7)
            await anyio.sleep(0.3)  # it has been read ahead by now; nothing shows it
            edited = await update(moving, cron, schedule="30 * * * *")
            if edited.updated_at < cron.next_run_date:
                break
        await anyio.sleep(0.6)
        await has_looked(moving, due)
        assert await fires(moving, cron) == []
        assert (await get(moving, cron)).next_run_date == edited.next_run_date


async def test_a_run_is_called_as_its_assistant_is_at_the_instant(moving: Pool) -> None:
    async with scheduling(moving) as due:
        asked = assistants.AssistantRequest(graph_id="echo")
        made = await moving.run(lambda conn: assistants.create(conn, asked, graphs=Graphs(), scope=EVERYONE))
        while True:  # a machine that stands still for a moment may be too late with its edit
            cron = await create_cron(moving, "0 * * * *", assistant=str(made.assistant_id))
            assert cron.next_run_date is not None
            left = cron.next_run_date - (await moving.run(stored.clock))[0]
            await pass_time(moving, due, seconds=left.total_seconds() - 4)
            await has_looked(moving, due)  # so it has been read ahead
            change = assistants.AssistantChange(context={"said": str(cron.cron_id)})
            edited = await moving.run(partial(edit, made.assistant_id, change))
            await until(at_least(moving, cron, 1))
            if edited.updated_at < cron.next_run_date:
                break
    kwargs = await value(moving, "SELECT kwargs FROM matins.run WHERE cron_id = $1", cron.cron_id)
    assert json.loads(kwargs)["context"] == {"said": str(cron.cron_id)}


async def test_a_cron_whose_assistant_is_gone_is_paused_and_the_others_fire(moving: Pool) -> None:
    good = await create_cron(moving, "* * * * *")
    gone = await create_cron(moving, "* * * * *")
    async with moving.connection() as conn:  # without the pause that deleting an assistant brings
        await conn.execute(
            "UPDATE matins.cron SET assistant_id = $2 WHERE cron_id = $1", gone.cron_id, uuid4()
        )
    await assert_paused(moving, gone, good, "does not exist")


async def test_every_slot_of_a_cron_that_is_given_up_is_on_record(moving: Pool) -> None:
    gone = await create_cron(moving, "@every 1s")
    async with moving.connection() as conn:
        await conn.execute("UPDATE matins.cron SET assistant_id = $1", uuid4())
    await move_clock(moving, minutes=20)

    async def is_paused() -> bool:
        return not (await get(moving, gone)).enabled

    async with scheduling(moving):
        await until(is_paused)
    found = await fires(moving, gone)
    assert {fire["outcome"] for fire in found} == {"failed"}
    assert gone.next_run_date is not None
    assert [fire["scheduled_for"] for fire in found] == [
        gone.next_run_date + timedelta(seconds=number) for number in range(len(found))
    ]
    assert len(found) > SLOTS_AT_ONCE


async def test_deleting_an_assistant_pauses_its_crons_with_a_reason(moving: Pool) -> None:
    async def make(conn: Conn) -> AssistantId:
        request = assistants.AssistantRequest(graph_id="echo")
        return (await assistants.create(conn, request, graphs=Graphs(), scope=EVERYONE)).assistant_id

    assistant_id = await moving.run(make)
    cron = await create_cron(moving, "* * * * *", assistant=str(assistant_id))
    await moving.run(lambda conn: assistants.delete(conn, assistant_id, scope=EVERYONE))
    paused = await get(moving, cron)
    assert not paused.enabled
    assert "deleted" in (paused.paused_reason or "")
    with pytest.raises(AssistantNotFound):
        await moving.run(lambda conn: assistants.delete(conn, assistant_id, scope=EVERYONE))


@pytest.mark.parametrize(
    ("column", "broken", "reason"),
    [
        ("schedule", "every tuesday", "its schedule is invalid"),
        ("timezone", "Mars/Olympus", "its schedule is invalid"),
        ("payload", "[1]", "its payload cannot be read"),
        ("payload", '{"config": 3}', "its payload cannot be read"),
        ("payload", '{"multitask_strategy": "ponder"}', "it could not be fired"),
        ("metadata", "[1]", "it could not be fired"),
    ],
    ids=["schedule", "time zone", "payload", "payload's config", "strategy", "metadata"],
)
async def test_a_row_that_makes_no_sense_is_paused_and_the_others_fire(
    moving: Pool, column: str, broken: str, reason: str
) -> None:
    good = await create_cron(moving, "* * * * *")
    bad = await create_cron(moving, "* * * * *")
    kind = {"payload": "::text::json", "metadata": "::text::jsonb"}.get(column, "")
    async with moving.connection() as conn:
        await conn.execute(
            f"UPDATE matins.cron SET {column} = $2{kind} WHERE cron_id = $1", bad.cron_id, broken
        )
    await assert_paused(moving, bad, good, reason)


@pytest.mark.parametrize(
    ("column", "broken"),
    [("payload", '{"multitask_strategy": "ponder"}'), ("policy", "[1]"), ("policy", '{"misfire": "ponder"}')],
)
async def test_a_policy_that_makes_no_sense_pauses_its_cron_alone(
    moving: Pool, column: str, broken: str
) -> None:
    async with moving.connection() as conn:
        thread = await rows.thread(conn)
    good = await create_cron(moving, "* * * * *")
    bad = await create_cron(moving, "* * * * *", thread_id=thread)
    async with moving.connection() as conn:
        await conn.execute(
            f"UPDATE matins.cron SET {column} = $2::text::json WHERE cron_id = $1", bad.cron_id, broken
        )
    await assert_paused(moving, bad, good, "its policy cannot be used")


async def assert_paused(pool: Pool, bad: Cron, good: Cron, reason: str) -> None:
    async def is_off() -> bool:
        return not (await get(pool, bad)).enabled

    async with scheduling(pool) as due:
        await pass_time(pool, due, minutes=1)
        await until(at_least(pool, good, 1))
        if "could not be fired" in reason:  # it might have passed: tried for as long as the slot may fire
            assert (await get(pool, bad)).enabled
            await pass_time(pool, due, seconds=31)
        await until(at_least(pool, bad, 1))
        await until(is_off)
    paused = await get(pool, bad)
    assert not paused.enabled
    assert reason in (paused.paused_reason or "")
    for number, fire in enumerate(await fires(pool, bad)):  # two, if a minute went by
        assert (fire["outcome"], fire["run_id"]) == ("failed", None)
        assert reason in fire["reason"]
        assert bad.next_run_date is not None
        assert fire["scheduled_for"] == bad.next_run_date + timedelta(minutes=number)
    fired = await fires(pool, good)
    assert {fire["outcome"] for fire in fired} == {"fired"}
    assert await value(pool, "SELECT count(*) FROM matins.run") == len(fired)


async def test_a_cron_goes_with_its_thread_and_its_ledger_stays(moving: Pool) -> None:
    async with moving.connection() as conn:
        thread = await rows.thread(conn)
    cron = await create_cron(moving, "* * * * *", thread_id=thread)
    async with scheduling(moving) as due:
        await pass_time(moving, due, minutes=1)
        await until(at_least(moving, cron, 1))
        await moving.run(lambda conn: threads.delete(conn, [thread], scope=EVERYONE))
        await pass_time(moving, due, minutes=3)
        await has_looked(moving, due)
    assert len(await fires(moving, cron)) == 1
    assert await moving.run(lambda conn: stored.get(conn, cron.cron_id, scope=EVERYONE)) is None


async def test_firing_waits_for_no_thread_that_somebody_holds(moving: Pool) -> None:
    async with moving.connection() as conn:
        held, free = await rows.thread(conn), await rows.thread(conn)
    slow = await create_cron(moving, "* * * * *", thread_id=held)
    quick = await create_cron(moving, "* * * * *", thread_id=free)
    async with scheduling(moving) as due:
        async with moving.transaction() as holder:
            await threads.lock(holder, held, scope=EVERYONE)
            await pass_time(moving, due, minutes=1)
            await until(at_least(moving, quick, 1))
            assert await fires(moving, slow) == []
        await until(at_least(moving, slow, 1))
    assert [fire["outcome"] for fire in await fires(moving, slow)] == ["fired"]


async def test_a_cron_that_rejects_is_skipped_on_record_while_its_thread_is_busy(moving: Pool) -> None:
    async with moving.connection() as conn:
        thread = await rows.thread(conn)
    cron = await create_cron(moving, "* * * * *", thread_id=thread, payload={"multitask_strategy": "reject"})
    async with scheduling(moving) as due:
        for number in (1, 2):  # nobody carries the first run out
            await pass_time(moving, due, minutes=1)
            await until(at_least(moving, cron, number))
    found = await fires(moving, cron)
    assert [(fire["outcome"], fire["reason"]) for fire in found] == [
        ("fired", None),
        ("skipped", "its previous run was still under way"),
    ]
    assert await value(moving, "SELECT count(*) FROM matins.run WHERE thread_id = $1", thread) == 1


@pytest.mark.parametrize(
    ("asked", "durability"),
    [
        ({}, "async"),
        ({"checkpoint_during": True}, "async"),
        ({"checkpoint_during": False}, "exit"),
        ({"checkpoint_during": False, "durability": "sync"}, "sync"),
    ],
)
async def test_the_old_name_of_durability_counts_where_the_new_one_is_not_given(
    moving: Pool, asked: dict[str, Any], durability: str
) -> None:
    cron = await create_cron(moving, "* * * * *", payload={"input": None, **asked})
    async with scheduling(moving) as due:
        await pass_time(moving, due, minutes=1)
        await until(at_least(moving, cron, 1))
    assert await value(moving, "SELECT kwargs->>'durability' FROM matins.run") == durability


@pytest.mark.parametrize(("wish", "is_temporary"), [(None, True), ("delete", True), ("keep", False)])
async def test_a_cron_without_a_thread_makes_one_for_each_run_and_says_whether_it_stays(
    moving: Pool, wish: str | None, is_temporary: bool
) -> None:
    async with scheduling(moving) as due:
        cron = await create_cron(moving, "* * * * *", on_run_completed=wish)
        for number in (1, 2):
            await pass_time(moving, due, minutes=1)
            await until(at_least(moving, cron, number))
    found = await fetch(
        moving,
        "SELECT t.status, r.temporary, t.metadata FROM matins.run r JOIN matins.thread t USING (thread_id)",
    )
    assert [(row["status"], row["temporary"]) for row in found] == [("busy", is_temporary)] * 2
    assert all(json.loads(row["metadata"])["cron_id"] == str(cron.cron_id) for row in found)
    assert await value(moving, "SELECT count(DISTINCT thread_id) FROM matins.run") == 2


async def test_other_time_zone_rules_give_dates_to_come_anew(moving: Pool) -> None:
    local = await create_cron(moving, "0 9 * * *", timezone="Europe/Paris")
    ended = await create_cron(
        moving, "0 9 * * *", timezone="Europe/Paris",
        end_time=((await moving.run(stored.clock))[0] + timedelta(days=2)).isoformat(),
    )  # fmt: skip
    elapsed = await create_cron(moving, "@every 6h", timezone="Europe/Paris")
    universal = await create_cron(moving, "0 9 * * *")
    bad = await create_cron(moving, "0 9 * * *", timezone="Europe/Paris")
    async with moving.connection() as conn:
        await conn.execute(
            "UPDATE matins.cron SET tzdata = 'old', next_run_date = next_run_date + interval '1h',"
            " due_at = due_at + interval '1h'"
        )
        await conn.execute("UPDATE matins.cron SET schedule = 'x' WHERE cron_id = $1", bad.cron_id)
    moved = {cron.cron_id: (await get(moving, cron)).next_run_date for cron in (elapsed, universal, bad)}
    async with scheduling(moving) as due:
        await has_looked(moving, due)
    assert await value(
        moving, "SELECT array_agg(DISTINCT tzdata) FROM matins.cron WHERE timezone IS NOT NULL"
    ) == [TZDATA]  # fmt: skip
    assert (await get(moving, local)).next_run_date == local.next_run_date
    assert (await get(moving, ended)).next_run_date == ended.next_run_date
    for cron in (elapsed, universal, bad):
        assert (await get(moving, cron)).next_run_date == moved[cron.cron_id]


async def test_a_cron_whose_creation_is_repeated_is_there_once(moving: Pool) -> None:
    request = crons.CronRequest(assistant_id="echo", schedule="* * * * *")

    async def work(conn: Conn) -> Cron:
        return await crons.create(conn, request, thread_id=None, graphs=Graphs(), scope=EVERYONE)

    first = await moving.run(work)
    assert await moving.run(work) == first
    assert await value(moving, "SELECT count(*) FROM matins.cron") == 1


async def test_a_look_that_fails_does_not_end_the_scheduler(
    moving: Pool, capfd: pytest.CaptureFixture[str]
) -> None:
    async def has_failed() -> bool:
        out, err = capfd.readouterr()
        return telemetry.SCHEDULER_FAILED in out + err

    async with scheduling(moving) as due:
        cron = await create_cron(moving, "* * * * *")
        async with moving.connection() as conn:
            await conn.execute("ALTER TABLE matins.cron_fire RENAME TO hidden")
            await conn.execute("ALTER TABLE matins.cron RENAME TO hidden_cron")
            due()
            await until(has_failed)
            await conn.execute("ALTER TABLE matins.hidden RENAME TO cron_fire")
            await conn.execute("ALTER TABLE matins.hidden_cron RENAME TO cron")
        await pass_time(moving, due, minutes=1)
        await until(at_least(moving, cron, 1))
    assert (await get(moving, cron)).enabled


async def test_the_thread_of_a_fired_run_keeps_what_it_was_called_with(moving: Pool) -> None:
    async with moving.connection() as conn:
        thread = await rows.thread(conn)
    asked = {"input": None, "config": {"configurable": {"who": "me"}}}
    async with scheduling(moving) as due:
        for thread_id in (thread, None):
            cron = await create_cron(moving, "* * * * *", thread_id=thread_id, payload=asked)
            await pass_time(moving, due, minutes=1)
            await until(at_least(moving, cron, 1))
    configs = await fetch(moving, "SELECT config FROM matins.thread")
    assert len(configs) >= 2
    assert {json.loads(row["config"])["configurable"]["who"] for row in configs} == {"me"}


async def test_the_same_schedule_said_again_changes_no_date(moving: Pool) -> None:
    cron = await create_cron(moving, "@every 1h", timezone="Europe/Paris")
    await move_clock(moving, minutes=30)
    for change in ({"schedule": "@every 1h"}, {"timezone": "Europe/Paris"}):
        assert (await update(moving, cron, **change)).next_run_date == cron.next_run_date
    assert (await update(moving, cron, schedule="@every 2h")).next_run_date != cron.next_run_date


async def test_a_cron_whose_creation_had_to_wait_for_its_thread_counts_from_then(moving: Pool) -> None:
    async with moving.connection() as conn:
        thread = await rows.thread(conn)
    made: list[Cron] = []

    async def create() -> None:
        made.append(await create_cron(moving, "@every 1s", thread_id=thread))

    async def waits() -> bool:
        return bool(await value(moving, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))

    async with anyio.create_task_group() as group, moving.transaction() as holder:
        await threads.lock(holder, thread, scope=EVERYONE)
        group.start_soon(create)
        await until(waits)
        await move_clock(moving, seconds=20)
    assert made[0].next_run_date is not None
    assert made[0].next_run_date > made[0].created_at


async def test_a_cron_without_a_thread_takes_any_strategy(moving: Pool) -> None:
    asked = {"input": None, "multitask_strategy": "interrupt"}
    async with scheduling(moving) as due:
        cron = await create_cron(moving, "* * * * *", payload=asked)
        await pass_time(moving, due, minutes=1)
        await until(at_least(moving, cron, 1))
    [fire] = await fires(moving, cron)
    assert fire["outcome"] == "fired"


async def test_a_thread_and_a_cron_that_nobody_knows_are_named(moving: Pool) -> None:
    with pytest.raises(Exception, match="not found"):
        await create_cron(moving, "* * * * *", thread_id=ThreadId(uuid4()))
    with pytest.raises(Exception, match="not found"):
        await moving.run(lambda conn: crons.update(conn, CronId(uuid7()), CronChange(), scope=EVERYONE))


async def test_a_cron_has_no_more_runs_in_a_day_than_the_server_allows(moving: Pool) -> None:
    async with scheduling(moving, ceilings=Ceilings(runs_per_day=3)) as due:
        seldom = await create_cron(moving, "0 0 * * *")
        often = await create_cron(moving, "0,30 * * * *")
        for number in range(1, 5):
            slot = (await get(moving, often)).next_run_date
            assert slot is not None
            left = slot - (await moving.run(stored.clock))[0]
            await pass_time(moving, due, seconds=left.total_seconds())
            await until(at_least(moving, often, number))
        found = await fires(moving, often)
        assert [each["outcome"] for each in found] == ["fired"] * 3 + ["skipped"]
        assert found[-1]["reason"] == (
            "3 runs in 24 hours, the most that this server allows a cron (MATINS_CRON_RUNS_PER_DAY)"
        )
        assert (await get(moving, often)).paused_reason == found[-1]["reason"]
        assert (await get(moving, seldom)).enabled


async def test_a_run_is_its_creators_as_the_cron_is(moving: Pool) -> None:
    async with scheduling(moving) as due:
        cron = await create_cron(moving, "* * * * *")
        async with moving.connection() as conn:
            await conn.execute(
                "UPDATE matins.cron SET creator = $2 WHERE cron_id = $1", cron.cron_id, b'{"identity":"ada"}'
            )
        await pass_time(moving, due, minutes=1)
        await until(at_least(moving, cron, 1))
    assert json.loads(await value(moving, "SELECT creator FROM matins.run")) == {"identity": "ada"}


async def test_slots_from_before_what_the_ledger_keeps_are_passed_over(moving: Pool) -> None:
    async with scheduling(moving) as due:
        cron = await create_cron(moving, "0 0 * * *")
        async with moving.connection() as conn:
            await conn.execute("UPDATE matins.cron SET next_run_date = '2001-01-01', due_at = '2001-01-01'")
            now = await conn.fetchval("SELECT matins.now()")
        due()
        await until(at_least(moving, cron, 89))
        await has_looked(moving, due)
    found = await fires(moving, cron)
    assert {each["outcome"] for each in found[:-1]} == {"missed"}
    assert len(found) in (89, 90, 91)
    assert found[0]["scheduled_for"] > now - timedelta(days=91)
