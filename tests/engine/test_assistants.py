from __future__ import annotations

import pytest

from matins.domain.access import EVERYONE
from matins.domain.assistants import Assistant
from matins.domain.ids import system_assistant_id
from matins.engine.assistants import GraphFacts, ensure_system
from matins.storage import assistants
from matins.storage.pool import Conn, Pool

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
