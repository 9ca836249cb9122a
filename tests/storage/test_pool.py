from __future__ import annotations

import asyncpg
import pytest

from matins.storage.pool import Conn, Pool

pytestmark = pytest.mark.anyio


async def test_work_that_a_broken_connection_interrupts_is_done_again(pool: Pool) -> None:
    tries = []

    async def work(conn: Conn) -> int:
        tries.append(conn)
        if len(tries) == 1:  # what the driver raises when a killed server leaves it in the middle of something
            raise asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")
        return int(await conn.fetchval("SELECT 1"))

    assert await pool.run(work) == 1
    assert len(tries) == 2
