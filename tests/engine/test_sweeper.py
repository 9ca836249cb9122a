from __future__ import annotations

import json
from collections.abc import Sequence
from uuid import UUID, uuid4

import anyio
import pytest

from matins.domain.access import EVERYONE
from matins.domain.ids import ThreadId
from matins.domain.threads import ThreadStatus, TimeToLive
from matins.engine import sweeper
from matins.engine.sweeper import Sweeper
from matins.manifest.checkpointer import Sweeping
from matins.storage import checkpoints, thread_state, threads
from matins.storage.pool import Conn, Pool
from tests.support import rows
from tests.support.engine import HeldLease, create_cron, move_clock, running, until
from tests.wire.compatibility import covers

pytestmark = pytest.mark.anyio


def sweeping(
    pool: Pool, *, default: TimeToLive | None = None, limit: int = 1000, interval_s: float = 3600
) -> Sweeper:
    config = Sweeping(default=default, interval_s=interval_s, limit=limit)
    return Sweeper(pool=pool, lease=HeldLease(), config=config)  # type: ignore[arg-type]


async def sweep(pool: Pool, *, default: TimeToLive | None = None, limit: int = 1000) -> tuple[int, int]:
    swept = await sweeping(pool, default=default, limit=limit).sweep()
    return swept.deleted, swept.pruned


async def thread(pool: Pool, strategy: str | None = None, minutes: float = 60) -> ThreadId:
    """A thread with three checkpoints, and a time to live of its own if a strategy is named."""
    made = ThreadId(uuid4())
    async with pool.connection() as conn:
        ttl = TimeToLive(strategy, minutes) if strategy else None
        await threads.insert(conn, made, scope=EVERYONE, ttl=ttl)
        for number in range(3):
            await conn.execute(
                "INSERT INTO checkpoints (thread_id, checkpoint_id, checkpoint) VALUES ($1, $2, $3)",
                str(made),
                str(number),
                b'{"v":4,"channel_versions":{},"channel_values":{}}',
            )
    return made


async def left(pool: Pool, of: Sequence[UUID]) -> list[list[str] | None]:
    """The checkpoints of each thread that is there."""

    async def look(conn: Conn) -> list[list[str] | None]:
        found: list[list[str] | None] = []
        for each in of:
            there = await threads.get(conn, ThreadId(each), scope=EVERYONE)
            kept = await conn.fetch("SELECT checkpoint_id FROM checkpoints WHERE thread_id = $1", str(each))
            found.append(sorted(row["checkpoint_id"] for row in kept) if there else None)
            assert there or not kept
        return found

    return await pool.run(look, transaction=False)


ALL = ["0", "1", "2"]
LATEST = ["2"]


@covers("ThreadCreate", "ttl, when it has passed")
@covers("Defects", "the time to live of a thread is ignored")
async def test_threads_are_swept_when_their_own_time_to_live_is_over(moving: Pool) -> None:
    gone, kept, later = (
        await thread(moving, "delete"),
        await thread(moving, "keep_latest"),
        await thread(moving, "delete", 600),
    )
    await move_clock(moving, minutes=59)
    assert await sweep(moving) == (0, 0)
    await move_clock(moving, minutes=2)
    assert await sweep(moving) == (1, 1)
    assert await left(moving, [gone, kept, later]) == [None, LATEST, ALL]


async def test_without_a_time_to_live_a_thread_lives_for_ever(moving: Pool) -> None:
    made = await thread(moving)
    await move_clock(moving, days=3650)
    assert await sweep(moving) == (0, 0)
    assert await left(moving, [made]) == [ALL]


@pytest.mark.parametrize(("strategy", "expected"), [("delete", None), ("keep_latest", LATEST)])
async def test_the_default_is_for_threads_without_their_own_however_old(
    moving: Pool, strategy: str, expected: list[str] | None
) -> None:
    old, own = await thread(moving), await thread(moving, "keep_latest", 600)
    await move_clock(moving, minutes=61)
    young = await thread(moving)
    await sweep(moving, default=TimeToLive(strategy, 60))
    assert await left(moving, [old, own, young]) == [expected, ALL, ALL]


@pytest.mark.parametrize("default", [None, TimeToLive("keep_latest", 60)])
async def test_a_thread_that_was_pruned_is_left_alone_until_it_is_used(
    moving: Pool, default: TimeToLive | None
) -> None:
    made = await thread(moving, None if default else "keep_latest")
    await move_clock(moving, minutes=61)
    assert await sweep(moving, default=default) == (0, 1)
    await move_clock(moving, minutes=6000)
    assert await sweep(moving, default=default) == (0, 0)
    async with moving.connection() as conn:
        await thread_state.write_state(conn, made, values=b"{}", interrupts=b"{}", status=ThreadStatus.IDLE)
    await move_clock(moving, minutes=59)
    assert await sweep(moving, default=default) == (0, 0)
    await move_clock(moving, minutes=2)
    assert await sweep(moving, default=default) == (0, 1)


async def test_a_thread_that_is_used_lives_on(moving: Pool) -> None:
    own, other = await thread(moving, "delete"), await thread(moving)
    await move_clock(moving, minutes=40)
    async with moving.connection() as conn:
        for each in (own, other):
            await thread_state.write_state(
                conn, each, values=b"{}", interrupts=b"{}", status=ThreadStatus.IDLE
            )
    await move_clock(moving, minutes=40)
    assert await sweep(moving, default=TimeToLive("delete", 60)) == (0, 0)
    assert await left(moving, [own, other]) == [ALL, ALL]


@pytest.mark.parametrize("strategy", ["delete", "keep_latest"])
async def test_a_thread_with_a_run_in_flight_is_never_swept(moving: Pool, strategy: str) -> None:
    """Not even one whose status does not show it."""
    made = await thread(moving, strategy)
    async with moving.connection() as conn:
        await rows.pending(conn, made, due_in_s=1e6)
        await move_clock(moving, minutes=61)
        assert await sweep(moving) == (0, 0)
        await conn.execute("UPDATE matins.thread SET status = 'idle'")
        assert await sweep(moving) == (0, 0)
        await conn.execute("DELETE FROM matins.run")
    assert await sweep(moving) == ((1, 0) if strategy == "delete" else (0, 1))


async def test_a_cron_that_will_fire_keeps_its_thread_and_one_that_is_paused_goes_with_it(
    moving: Pool,
) -> None:
    fires, paused, ended = [await thread(moving, "delete") for _ in range(3)]
    await create_cron(moving, "0 0 1 1 *", thread_id=fires)
    await create_cron(moving, "0 0 1 1 *", thread_id=paused, enabled=False)
    over = await create_cron(moving, "0 0 1 1 *", thread_id=ended)
    async with moving.connection() as conn:
        await conn.execute(
            "UPDATE matins.cron SET next_run_date = NULL, due_at = NULL WHERE cron_id = $1", over.cron_id
        )
        await move_clock(moving, minutes=61)
        assert await sweep(moving) == (2, 0)
        crons = await conn.fetch("SELECT thread_id FROM matins.cron")
    assert await left(moving, [fires, paused, ended]) == [ALL, None, None]
    assert [row["thread_id"] for row in crons] == [fires]


async def test_a_thread_that_somebody_holds_is_passed_over(moving: Pool) -> None:
    held, free = await thread(moving, "delete"), await thread(moving, "delete")
    await move_clock(moving, minutes=61)
    async with moving.transaction() as conn:
        assert await threads.lock(conn, held, scope=EVERYONE)
        with anyio.fail_after(20):
            assert await sweep(moving) == (1, 0)
    assert await left(moving, [held, free]) == [ALL, None]
    assert await sweep(moving) == (1, 0)


async def test_a_thread_that_cannot_be_pruned_is_left_as_it_is_and_not_looked_at_again(moving: Pool) -> None:
    whole, plain = await thread(moving, "keep_latest"), await thread(moving, "keep_latest")
    async with moving.connection() as conn:
        await conn.execute(
            "UPDATE checkpoints SET metadata = $2 WHERE thread_id = $1",
            str(whole),
            json.dumps({"counters_since_delta_snapshot": {"x": 1}}).encode(),
        )
        assert await checkpoints.list_delta_threads(conn, thread_ids=[str(whole)]) == [str(whole)]
    await move_clock(moving, minutes=61)
    assert await sweep(moving) == (0, 1)
    assert await left(moving, [whole, plain]) == [ALL, LATEST]
    async with moving.connection() as conn:
        waiting = await conn.fetchval("SELECT count(*) FROM matins.thread WHERE expires_at IS NOT NULL")
    assert waiting == 0


async def test_a_sweep_takes_no_more_than_its_limit_the_longest_expired_first(moving: Pool) -> None:
    made = [await thread(moving, "delete", 60 - number) for number in range(5)]
    await move_clock(moving, minutes=61)
    assert await sweep(moving, limit=2) == (2, 0)
    assert await left(moving, made) == [ALL, ALL, ALL, None, None]


async def test_of_two_nodes_that_sweep_at_once_each_thread_is_swept_by_one(
    moving: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "BITE", 3)
    made = [await thread(moving, "delete") for _ in range(20)]
    await move_clock(moving, minutes=61)
    swept: list[int] = []

    async def one() -> None:
        swept.append((await sweep(moving))[0])

    async with anyio.create_task_group() as group:
        group.start_soon(one)
        group.start_soon(one)
    swept.append((await sweep(moving))[0])  # what both passed over because the other held it, and then let go
    assert sum(swept) == 20
    assert await left(moving, made) == [None] * 20


async def test_a_thread_that_the_database_cannot_take_does_not_hold_up_the_others(
    moving: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [await thread(moving, "delete") for _ in range(4)]
    await move_clock(moving, minutes=61)
    async with moving.connection() as conn:
        await conn.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN RAISE serialization_failure; END$$"
        )
        await conn.execute(
            "CREATE TRIGGER refuse BEFORE DELETE ON matins.thread FOR EACH ROW"
            f" WHEN (OLD.thread_id = '{made[1]}') EXECUTE FUNCTION refuse()"
        )
    monkeypatch.setattr(sweeper, "PATIENCE_SECONDS", 0.0)
    swept = await sweeping(moving).sweep()
    assert (swept.deleted, swept.failed) == (3, 1)
    assert await left(moving, made) == [None, ALL, None, None]


async def test_a_node_sweeps_at_once_and_then_at_every_interval(moving: Pool) -> None:
    first = await thread(moving, "delete")
    await move_clock(moving, minutes=61)

    async def is_gone(thread_id: ThreadId) -> bool:
        return await left(moving, [thread_id]) == [None]

    async with running(sweeping(moving, interval_s=0.05)):
        await until(lambda: is_gone(first), 30)
        second = await thread(moving, "delete", 0)
        await until(lambda: is_gone(second), 30)
