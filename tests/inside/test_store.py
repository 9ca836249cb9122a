"""The store of graphs, over the wire: what one run remembers, another one knows."""

from __future__ import annotations

from typing import Any

import anyio
import psycopg
import pytest
from langgraph_sdk.client import LangGraphClient

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("server", [1], indirect=True, ids=["one worker"]),
]


async def did(client: LangGraphClient, graph: str, do: str) -> Any:
    with anyio.fail_after(30):
        values: Any = await client.runs.wait(None, graph, input={"do": do})
    return values["did"]


async def test_async_and_sync_nodes_share_what_they_store(client: LangGraphClient, stored_in: str) -> None:
    with psycopg.connect(stored_in) as stored:
        stored.execute("DELETE FROM store")
    assert await did(client, "calls", "remember") is None
    assert await did(client, "sync_calls", "") == [
        {"n": 1},
        ["key", "key"],
        [["inside", "async"], ["inside", "sync"]],
    ]
    assert await did(client, "calls", "remember") == {"n": 2}
    with psycopg.connect(stored_in) as stored:
        found = stored.execute("SELECT prefix, key, value FROM store ORDER BY prefix").fetchall()
    assert found == [("inside.async", "key", {"n": 1}), ("inside.sync", "key", {"n": 2})]


async def test_a_sync_call_in_the_event_loop_is_told_what_to_call_instead(client: LangGraphClient) -> None:
    assert "await store.aget(" in await did(client, "calls", "store_on_the_loop")


async def test_a_factory_has_the_store(client: LangGraphClient, stored_in: str) -> None:
    await did(client, "asks", "nothing")
    with psycopg.connect(stored_in) as stored:
        found = stored.execute("SELECT key FROM store WHERE prefix = 'inside.factory'").fetchall()
    assert found == [("threads.create_run",)]
