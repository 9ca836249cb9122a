from __future__ import annotations

import anyio
import pytest

from matins.domain.access import EVERYONE
from matins.domain.assistants import Assistant
from matins.domain.ids import system_assistant_id
from matins.engine.assistants import (
    AssistantChange,
    AssistantRequest,
    GraphFacts,
    create,
    ensure_system,
    update,
)
from matins.storage import assistants
from matins.storage.pool import Conn, Pool
from tests.support.engine import Graphs, decoded

pytestmark = pytest.mark.anyio


async def of_graph(conn: Conn) -> Assistant:
    found = await assistants.get(conn, system_assistant_id("echo"), scope=EVERYONE)
    assert found is not None
    return found


async def test_a_system_assistant_says_what_its_graph_says_until_somebody_changes_it(pool: Pool) -> None:
    async with pool.connection() as conn:
        await ensure_system(conn, {"echo": GraphFacts()})
        first = await of_graph(conn)
        assert (first.name, first.description) == ("echo", None)
        await ensure_system(conn, {"echo": GraphFacts()})
        assert await of_graph(conn) == first
        await ensure_system(conn, {"echo": GraphFacts("Echo", "Says it again.")})
        second = await of_graph(conn)
        assert (second.name, second.description, second.version) == ("Echo", "Says it again.", 1)
        kept = await conn.fetchrow("SELECT name, description FROM matins.assistant_version")
        assert kept is not None
        assert tuple(kept) == ("Echo", "Says it again.")
        await conn.execute("UPDATE matins.assistant SET version = 2, name = 'mine'")
        await ensure_system(conn, {"echo": GraphFacts()})
        assert (await of_graph(conn)).name == "mine"


async def test_changes_at_once_are_each_a_version(pool: Pool) -> None:
    graphs = Graphs()

    async def make(conn: Conn) -> Assistant:
        return await create(conn, AssistantRequest(graph_id="echo"), graphs=graphs, scope=EVERYONE)

    made = await pool.run(make)

    async def change(number: int) -> None:
        asked = AssistantChange(metadata={str(number): number})
        await pool.run(lambda conn: update(conn, made.assistant_id, asked, graphs=graphs, scope=EVERYONE))

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(change, number)
    async with pool.connection() as conn:
        now = await assistants.get(conn, made.assistant_id, scope=EVERYONE)
        found = await assistants.versions(conn, made.assistant_id, metadata=None, limit=100, offset=0)
    assert now is not None
    assert [version.version for version in found] == list(range(9, 0, -1))
    assert decoded(now.metadata) == {str(number): number for number in range(8)}
