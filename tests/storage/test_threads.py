from __future__ import annotations

from uuid import uuid4

import pytest

from matins.domain.access import EVERYONE, Scope
from matins.domain.errors import Invalid
from matins.domain.ids import CronId, ThreadId
from matins.domain.runs import RunStatus, StopReason
from matins.domain.threads import Thread, ThreadStatus, TimeToLive
from matins.storage import order, runs, stops, thread_state, threads
from matins.storage.pool import Conn, Pool
from matins.storage.threads import Filter
from tests.support import rows

pytestmark = pytest.mark.anyio


async def insert(conn: Conn, metadata: bytes = b"{}", *, owner: str = "") -> ThreadId:
    thread = await threads.insert(conn, ThreadId(uuid4()), scope=Scope(owner), metadata=metadata)
    assert thread is not None
    return thread.thread_id


async def search(
    conn: Conn,
    wanted: Filter,
    *,
    scope: Scope = EVERYONE,
    sort_by: str = "created_at",
    direction: order.Direction = "asc",
    limit: int = 100,
    offset: int = 0,
) -> list[ThreadId]:
    found = await threads.search(
        conn, wanted, scope=scope, sort_by=sort_by, direction=direction, limit=limit, offset=offset
    )
    return [thread.thread_id for thread in found]


async def get(conn: Conn, thread_id: ThreadId) -> Thread:
    thread = await threads.get(conn, thread_id, scope=EVERYONE)
    assert thread is not None
    return thread


async def test_a_fresh_thread_is_idle_and_empty(pool: Pool) -> None:
    async with pool.connection() as conn:
        thread = await get(conn, await insert(conn, b'{"a":1}'))
    assert (thread.status, thread.metadata) == (ThreadStatus.IDLE, b'{"a": 1}')
    assert (thread.values, thread.interrupts, thread.error) == (None, None, None)
    assert thread.created_at.utcoffset() is not None


async def test_an_id_that_is_taken_is_not_taken_again(pool: Pool) -> None:
    async with pool.connection() as conn:
        thread_id = await insert(conn, b'{"first":true}')
        assert await threads.insert(conn, thread_id, scope=EVERYONE) is None
        assert (await get(conn, thread_id)).metadata == b'{"first": true}'


async def test_a_search_wants_every_part_to_match(pool: Pool) -> None:
    async with pool.connection() as conn:
        both = await insert(conn, b'{"a":1,"deep":{"x":1,"y":[1,2]}}')
        one = await insert(conn, b'{"a":1}')
        await conn.execute(
            "UPDATE matins.thread SET status = 'error', values = '{\"k\":2}' WHERE thread_id = $1", one
        )
        for wanted, expected in [
            (Filter(), [both, one]),
            (Filter(metadata=b'{"a":1}'), [both, one]),
            (Filter(metadata=b'{"deep":{"y":[2]}}'), [both]),
            (Filter(metadata=b'{"a":2}'), []),
            (Filter(status="error"), [one]),
            (Filter(values=b'{"k":2}'), [one]),
            (Filter(ids=[both, uuid4()]), [both]),
            (Filter(ids=[]), []),
            (Filter(ids=[both], status="error"), []),
        ]:
            assert await search(conn, wanted) == expected, wanted
            assert await threads.count(conn, wanted, scope=EVERYONE) == len(expected), wanted


async def test_everyone_sees_their_own(pool: Pool) -> None:
    ada, bob = Scope("ada"), Scope("bob")
    async with pool.connection() as conn:
        of_ada, of_bob = await insert(conn, owner="ada"), await insert(conn, owner="bob")
        assert await search(conn, Filter(), scope=ada) == [of_ada]
        assert await search(conn, Filter(), scope=EVERYONE) == [of_ada, of_bob]
        assert await threads.count(conn, Filter(), scope=bob) == 1
        assert await threads.count(conn, Filter(), scope=EVERYONE) == 2
        assert await threads.count(conn, Filter(), scope=EVERYONE, limit=1) == 1
        assert await threads.get(conn, of_ada, scope=bob) is None
        assert await threads.lock(conn, of_ada, scope=bob) is None
        assert await threads.update(conn, of_ada, scope=bob, metadata=b'{"stolen":1}') is None
        assert await threads.delete(conn, [of_ada], scope=bob) == []
        assert (await get(conn, of_ada)).metadata == b"{}"


@pytest.mark.parametrize("sort_by", order.THREADS)
async def test_pages_follow_each_other_without_gap_or_repeat_both_ways(pool: Pool, sort_by: str) -> None:
    async with pool.connection() as conn:
        made = [await insert(conn) for _ in range(7)]
        await conn.execute("UPDATE matins.thread SET created_at = now(), updated_at = now()")  # ties
        down: list[ThreadId] = []
        for offset in range(0, 9, 3):
            down += await search(conn, Filter(), sort_by=sort_by, direction="desc", limit=3, offset=offset)
        assert set(down) == set(made)
        assert len(down) == 7
        assert await search(conn, Filter(), sort_by=sort_by, direction="asc") == down[::-1]


async def test_what_is_no_column_cannot_be_sorted_by(pool: Pool) -> None:
    async with pool.connection() as conn:
        with pytest.raises(Invalid, match="Cannot sort by 'metadata; DROP TABLE'"):
            await search(conn, Filter(), sort_by="metadata; DROP TABLE")


async def test_an_update_merges_metadata_shallowly(pool: Pool) -> None:
    async with pool.connection() as conn:
        thread_id = await insert(conn, b'{"a":{"x":1},"b":1}')
        updated = await threads.update(conn, thread_id, scope=EVERYONE, metadata=b'{"a":{"y":2},"c":null}')
        assert updated is not None
        assert updated.metadata == b'{"a": {"y": 2}, "b": 1, "c": null}'
        assert updated.updated_at > updated.created_at
        assert await threads.update(conn, ThreadId(uuid4()), scope=EVERYONE, metadata=b"{}") is None


async def test_a_thread_that_shall_not_live_for_ever_has_a_date(pool: Pool) -> None:
    async with pool.connection() as conn:
        thread_id = ThreadId(uuid4())
        await threads.insert(conn, thread_id, scope=EVERYONE, ttl=TimeToLive("delete", 90))
        left = "SELECT round(extract(epoch FROM expires_at - now()) / 60)::int FROM matins.thread"
        assert await conn.fetchval(left) == 90
        await threads.update(conn, thread_id, scope=EVERYONE, metadata=b"{}")
        assert await conn.fetchval(left) == 90
        await threads.update(
            conn, thread_id, scope=EVERYONE, metadata=b"{}", ttl=TimeToLive("keep_latest", 0.5)
        )
        assert await conn.fetchval(left) in (0, 1)


@pytest.mark.parametrize("status", [ThreadStatus.IDLE, ThreadStatus.INTERRUPTED, ThreadStatus.ERROR])
async def test_a_thread_that_nothing_runs_on_any_more_rests_as_before(
    pool: Pool, status: ThreadStatus
) -> None:
    """Also one that stopped at a breakpoint, which has no interrupts to tell it by."""
    async with pool.connection() as conn:
        thread_id = await insert(conn)
        await thread_state.write_state(conn, thread_id, values=b"{}", interrupts=b"{}", status=status)
        await threads.occupy(conn, thread_id, metadata=b"{}", config=None)
        run_id = await rows.pending(conn, thread_id)
        run = await runs.get(conn, run_id, thread_id=thread_id, scope=EVERYONE)
        assert run is not None
        await threads.vacate(conn, run)
        assert (await get(conn, thread_id)).status is ThreadStatus.BUSY
        assert await stops.stop(conn, run_id, StopReason.INTERRUPT) is RunStatus.PENDING
        await threads.vacate(conn, run)
        assert (await get(conn, thread_id)).status is status


async def test_a_busy_thread_keeps_its_config_unless_told_another(pool: Pool) -> None:
    async with pool.connection() as conn:
        thread_id = await insert(conn, b'{"a":1}')
        await threads.occupy(conn, thread_id, metadata=b'{"b":2}', config=b'{"tags":["t"]}')
        await threads.occupy(conn, thread_id, metadata=b"{}", config=None)
        thread = await get(conn, thread_id)
    assert (thread.status, thread.metadata, thread.config) == (
        ThreadStatus.BUSY, b'{"a": 1, "b": 2}', b'{"tags":["t"]}',
    )  # fmt: skip


async def test_a_deleted_thread_takes_its_runs_events_crons_and_checkpoints_and_leaves_the_fires(
    pool: Pool,
) -> None:
    async with pool.connection() as conn:
        held = await rows.running(conn)
        cron = CronId(uuid4())
        await conn.execute(
            "INSERT INTO matins.stream_event (thread_id, seq, run_id, attempt, event, data) VALUES ($1,1,$2,1,'e','1')",
            held.thread_id,
            held.run_id,
        )
        await conn.execute(
            "INSERT INTO matins.cron (cron_id, assistant_id, thread_id, schedule, payload) VALUES ($1,$1,$2,'*','{}')",
            cron,
            held.thread_id,
        )
        await conn.execute(
            "INSERT INTO matins.cron_fire (cron_id, scheduled_for, outcome, run_id) VALUES ($1, now(), 'fired', $2)",
            cron,
            held.run_id,
        )
        await conn.execute(
            "INSERT INTO checkpoints (thread_id, checkpoint_id, checkpoint) VALUES ($1, 'a', '{}')",
            str(held.thread_id),
        )
        deleted = await threads.delete(conn, [held.thread_id, ThreadId(uuid4())], scope=EVERYONE)
        assert deleted == [held.thread_id]
        for table in ("matins.thread", "matins.run", "matins.stream_event", "matins.cron", "checkpoints"):
            assert await conn.fetchval(f"SELECT count(*) FROM {table}") == 0, table
        assert await conn.fetchval("SELECT count(*) FROM matins.cron_fire") == 1
