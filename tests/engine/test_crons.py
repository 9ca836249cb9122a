from __future__ import annotations

import anyio
import pytest

from matins.domain.access import EVERYONE
from matins.domain.errors import NotFound
from matins.storage import threads
from matins.storage.pool import Conn, Pool
from tests.support import rows
from tests.support.engine import create_cron, until

pytestmark = pytest.mark.anyio


async def test_a_thread_that_is_deleted_meanwhile_is_not_found(pool: Pool) -> None:
    async with pool.connection() as conn:
        thread = await rows.thread(conn)
    refused: list[NotFound] = []

    async def create() -> None:
        with pytest.raises(NotFound) as raised:
            await create_cron(pool, "* * * * *", thread_id=thread)
        refused.append(raised.value)

    async def is_waiting(conn: Conn) -> bool:
        return bool(await conn.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group, pool.transaction() as deleting:
            assert await threads.delete(deleting, [thread], scope=EVERYONE) == [thread]
            group.start_soon(create)
            await until(lambda: pool.run(is_waiting, transaction=False))
    assert [str(thread) in str(error) for error in refused] == [True]
