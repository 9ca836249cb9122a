"""A run on a copy of its cron's thread: settled, deleted and posted are one fact."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from matins.domain.access import EVERYONE
from matins.domain.crons import Cron
from matins.domain.errors import LeaseLost
from matins.domain.ids import NodeId, RunId, ThreadId, uuid7
from matins.domain.runs import Change, Run
from matins.engine import forks
from matins.engine.triggering import trigger
from matins.storage import queue
from matins.storage.pool import Pool
from tests.support.engine import Graphs, Twice, create_cron

pytestmark = pytest.mark.anyio

NEWS = b'{"messages":[{"type":"human","content":"tick"},{"type":"ai","content":"news","id":"m1","tool_calls":[]}]}'


async def a_fork(pool: Pool) -> tuple[Cron, Run]:
    """A fired fork whose run is held, without workers."""
    async with pool.transaction() as conn:
        thread_id = ThreadId(uuid7())
        await conn.execute("INSERT INTO matins.thread (thread_id) VALUES ($1)", thread_id)
    cron = await create_cron(pool, "0 0 1 1 *", thread_id=thread_id, policy={"context_policy": "fork"})
    async with pool.transaction() as conn:
        made = await trigger(conn, cron.cron_id, run_id=RunId(uuid7()), graphs=Graphs(), scope=EVERYONE)
        assert made.thread_id is not None
        heads = [queue.Head(made.thread_id, 0)]
        [run] = await queue.claim(conn, heads, node_id=NodeId(uuid7()), limit=1)
    return cron, run


async def postings(pool: Pool, cron: Cron) -> list[dict[str, Any]]:
    async with pool.connection() as conn:
        found = await conn.fetch("SELECT kwargs FROM matins.run WHERE thread_id = $1", cron.thread_id)
    return [json.loads(row["kwargs"])["command"] for row in found]


SUCCESS = queue.End(Change.SUCCEEDED, values=NEWS)
POSTED = [{"update": {"messages": [{"content": "news", "id": "m1"}]}}]


async def test_a_fork_that_is_settled_twice_posts_once(pool: Pool) -> None:
    cron, run = await a_fork(pool)
    async with pool.connection() as conn:  # the process dies before the COMMIT
        transaction = conn.transaction()
        await transaction.start()
        await forks.settle(conn, run, SUCCESS)
        await transaction.rollback()
    assert await postings(pool, cron) == []
    with pytest.raises(LeaseLost):  # the answer to the COMMIT was lost
        await Twice(pool).run(lambda conn: forks.settle(conn, run, SUCCESS))
    assert await postings(pool, cron) == POSTED


@pytest.mark.parametrize(
    "end",
    [
        queue.End(Change.FAILED, values=NEWS, error=b"{}"),
        queue.End(Change.STOPPED, values=NEWS),
        replace(SUCCESS, has_next=True),
        replace(SUCCESS, values=None),
        replace(SUCCESS, values=b"[1]"),
        replace(SUCCESS, values=b'{"messages":[]}'),
        replace(SUCCESS, values=b'{"messages":[{"type":"human","content":"tick"}]}'),
        replace(SUCCESS, values=b'{"messages":[{"type":"ai","content":"","tool_calls":[{}]}]}'),
    ],
)
async def test_a_fork_that_said_nothing_in_the_end_posts_nothing(pool: Pool, end: queue.End) -> None:
    cron, run = await a_fork(pool)
    async with pool.transaction() as conn:
        await forks.settle(conn, run, end)
    assert await postings(pool, cron) == []


async def test_a_fork_whose_thread_is_gone_posts_nothing(pool: Pool) -> None:
    cron, run = await a_fork(pool)
    async with pool.transaction() as conn:
        await conn.execute("DELETE FROM matins.thread WHERE thread_id = $1", cron.thread_id)
    async with pool.transaction() as conn:
        ended = await forks.settle(conn, run, SUCCESS)
    assert ended is not None
    assert await postings(pool, cron) == []
