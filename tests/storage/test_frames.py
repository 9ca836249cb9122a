from __future__ import annotations

import pytest

from matins.domain.errors import LeaseLost
from matins.domain.frames import Frame
from matins.domain.ids import NodeId, uuid7
from matins.domain.runs import Change
from matins.storage import frames, queue
from matins.storage.pool import Pool
from tests.support import rows

pytestmark = pytest.mark.anyio


def numbered(*numbers: int) -> list[Frame]:
    return [Frame("values", b'{"n":%d}' % number, number) for number in numbers]


async def test_frames_are_read_in_order_after_a_number_page_by_page(pool: Pool) -> None:
    async with pool.connection() as conn:
        held = await rows.running(conn)
        await frames.append(conn, held, numbered(3, 1, 2))
        await frames.append(conn, held, numbered(4))
        assert await frames.read_after(conn, held.run_id, 0, limit=10) == numbered(1, 2, 3, 4)
        assert await frames.read_after(conn, held.run_id, 1, limit=2) == numbered(2, 3)
        assert await frames.read_after(conn, held.run_id, 4, limit=2) == []


async def test_what_is_kept_twice_is_there_once(pool: Pool) -> None:
    async with pool.connection() as conn:
        held = await rows.running(conn)
        for _ in range(2):
            await frames.append(conn, held, numbered(1, 2))
        assert await frames.read_after(conn, held.run_id, 0, limit=10) == numbered(1, 2)


async def test_a_payload_stays_as_it_was_byte_for_byte(pool: Pool) -> None:
    odd = Frame("custom|a:b", b'{"b": 1,"a":"\\u00e9\xc3\xa9", "a":2}', 1)
    async with pool.connection() as conn:
        held = await rows.running(conn)
        await frames.append(conn, held, [odd])
        assert await frames.read_after(conn, held.run_id, 0, limit=1) == [odd]


async def test_a_stale_attempt_keeps_nothing(pool: Pool) -> None:
    async with pool.connection() as conn:
        held = await rows.running(conn)
        await frames.append(conn, held, numbered(1))
        await rows.take_away(conn, held)
        with pytest.raises(LeaseLost):
            await frames.append(conn, held, numbered(2))
        assert await conn.fetchval("SELECT count(*) FROM matins.stream_event") == 1


async def test_a_run_that_has_ended_keeps_nothing_more(pool: Pool) -> None:
    async with pool.connection() as conn:
        held = await rows.running(conn)
    await pool.run(lambda conn: queue.settle(conn, held, queue.End(Change.SUCCEEDED)))
    async with pool.connection() as conn:
        with pytest.raises(LeaseLost):
            await frames.append(conn, held, numbered(1))


async def test_the_numbers_of_a_thread_go_on_over_its_runs_and_after_a_trim(pool: Pool) -> None:
    async with pool.connection() as conn:
        held = await rows.running(conn)
        assert await frames.last_seq(conn, held.thread_id) == 0
        await frames.append(conn, held, numbered(1, 2, 3))
        assert await frames.last_seq(conn, held.thread_id) == 3
    await pool.run(lambda conn: queue.settle(conn, held, queue.End(Change.SUCCEEDED, event_seq=3)))
    async with pool.connection() as conn:
        assert await frames.trim(conn, older_than_s=3600, limit=10) == 0
        assert len(await frames.read_after(conn, held.run_id, 0, limit=10)) == 3
        assert await frames.trim(conn, older_than_s=0, limit=1) == 1  # in bites
        await frames.trim(conn, older_than_s=0, limit=10)
        assert await frames.read_after(conn, held.run_id, 0, limit=10) == []
        assert await frames.last_seq(conn, held.thread_id) == 3


async def test_a_thread_keeps_that_a_run_is_done_where_its_events_are_kept(pool: Pool) -> None:
    async with pool.connection() as conn:
        held = await rows.running(conn)
        await frames.append(conn, held, numbered(1, 2))
    await pool.run(
        lambda conn: queue.settle(conn, held, queue.End(Change.SUCCEEDED, event_seq=2, keeps=True))
    )
    done = b'{"status":"run_done","run_id":"%b"}' % str(held.run_id).encode()
    async with pool.connection() as conn:
        assert await frames.read_after(conn, held.run_id, 0, limit=10) == numbered(1, 2)
        kept = await frames.read_thread_after(conn, held.thread_id, 0, limit=10)
        assert kept == [*numbered(1, 2), Frame("metadata", done, 3)]
        await frames.trim(conn, older_than_s=0, limit=10)
        assert await frames.end_of_thread(conn, held.thread_id) == (3, 0)


async def test_the_end_of_a_run_that_nobody_follows_is_written_nowhere(pool: Pool) -> None:
    async with pool.connection() as conn:
        held = await rows.running(conn)
    await pool.run(lambda conn: queue.settle(conn, held, queue.End(Change.SUCCEEDED)))
    async with pool.connection() as conn:
        assert await frames.read_thread_after(conn, held.thread_id, 0, limit=10) == []


async def test_a_run_is_marked_once_for_each_node_and_not_after_its_end(pool: Pool) -> None:
    here, there = NodeId(uuid7()), NodeId(uuid7())
    async with pool.connection() as conn:
        held, ended = await rows.running(conn), await rows.running(conn)
    await pool.run(lambda conn: queue.settle(conn, ended, queue.End(Change.SUCCEEDED)))
    for node_id in (here, here, there):
        await pool.run(
            lambda conn, node_id=node_id: frames.follow_runs(  # type: ignore[misc]
                conn, node_id, followed=[held.run_id, ended.run_id], awaited=[held.run_id]
            )
        )
    async with pool.connection() as conn:
        found = await conn.fetch(
            "SELECT followed_on, awaited_on FROM matins.run ORDER BY ended_at NULLS FIRST"
        )
    assert [(row["followed_on"], row["awaited_on"]) for row in found] == [
        ([here, there], [here, there]),
        ([], []),
    ]
