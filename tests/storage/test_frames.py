from __future__ import annotations

import pytest

from matins.domain.errors import LeaseLost
from matins.domain.frames import Frame
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
        assert await frames.last_seq(conn, held.thread_id) == 4, "one more: that the run is done"
