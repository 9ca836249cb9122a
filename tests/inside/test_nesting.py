"""Runs that wait for the runs that they create."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from langgraph_sdk.client import LangGraphClient

pytestmark = pytest.mark.anyio

KINDS = ("wait", "sync_wait", "stream", "join", "thread_stream")
PATIENCE_SECONDS = 90  # what stands still stands still for ever


async def call(client: LangGraphClient, do: str, **more: Any) -> Any:
    with anyio.fail_after(PATIENCE_SECONDS):
        values = await client.runs.wait(None, "calls", input={"do": do, **more})
    assert isinstance(values, dict)
    return values["did"]


async def test_more_runs_than_lanes_three_deep_all_come_to_their_end(client: LangGraphClient) -> None:
    seen: list[Any] = []

    async def nest(kind: str) -> None:
        values: Any = await client.runs.wait(None, kind, input={"depth": 3})
        seen.append(values["seen"])

    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as group:
            for kind in KINDS * 3:
                group.start_soon(nest, kind)
    assert seen == [["0", "1", "2", "3"]] * (3 * len(KINDS))


async def test_nesting_deeper_than_a_worker_has_threads_comes_to_its_end(client: LangGraphClient) -> None:
    with anyio.fail_after(PATIENCE_SECONDS):
        values: Any = await client.runs.wait(None, "sync_wait", input={"depth": 70})
    assert len(values["seen"]) == 71


async def test_an_event_is_seen_inside_before_the_run_that_sent_it_goes_on(
    client: LangGraphClient, tmp_path: Path
) -> None:
    # The child waits for what its parent does at its first event: a reply that is collected first never ends.
    seen = await call(client, "first_event_ends_it", path=str(tmp_path / "gate"))
    assert seen == ["metadata", "custom", "custom"]


async def test_a_sync_client_that_blocks_the_loop_of_its_worker_gets_its_answer(
    client: LangGraphClient,
) -> None:
    assert await call(client, "block_the_loop") == "nothing"


async def test_what_a_run_creates_is_its_child_and_goes_first(
    client: LangGraphClient, stored_in: str
) -> None:
    thread = (await client.threads.create())["thread_id"]
    with anyio.fail_after(PATIENCE_SECONDS):
        values: Any = await client.runs.wait(thread, "calls", input={"do": "create_both_ways"})
        [parent] = await client.runs.list(thread)
        children = values["did"]
        assert len(children) == 3
        with psycopg.connect(stored_in) as stored:
            found = stored.execute(
                "SELECT parent_run_id::text, priority FROM matins.run WHERE run_id = ANY(%s::uuid[])",
                [children],
            ).fetchall()
            own = stored.execute(
                "SELECT parent_run_id, priority FROM matins.run WHERE run_id = %s", [parent["run_id"]]
            ).fetchall()
    assert found == [(parent["run_id"], 1)] * 3
    assert own == [(None, 0)]


@pytest.mark.parametrize(
    "do", ["wait_on_own_thread", "stream_on_own_thread", "join_itself", "join_own_stream"]
)
async def test_a_run_that_would_wait_for_itself_is_told_so(client: LangGraphClient, do: str) -> None:
    thread = (await client.threads.create())["thread_id"]
    with anyio.fail_after(PATIENCE_SECONDS):
        values: Any = await client.runs.wait(thread, "calls", input={"do": do})
    assert "409" in values["did"] or values["did"].startswith("ConflictError")
    assert f"would wait for itself: thread {thread} is held until it has ended" in values["did"]
    assert len(await client.runs.list(thread)) == 1  # nothing was created


async def test_a_run_that_would_wait_for_the_run_that_waits_for_it_is_told_so(
    client: LangGraphClient,
) -> None:
    thread = (await client.threads.create())["thread_id"]
    with anyio.fail_after(PATIENCE_SECONDS):
        values: Any = await client.runs.wait(thread, "calls", input={"do": "wait_for_parents_thread"})
    [run] = await client.runs.list(thread)
    refused = values["did"]["did"]
    assert f"thread {thread} is held by run {run['run_id']}, which waits for this one" in refused


async def test_a_run_may_create_one_on_its_own_thread_that_comes_after_it(client: LangGraphClient) -> None:
    thread = (await client.threads.create())["thread_id"]
    with anyio.fail_after(PATIENCE_SECONDS):
        values: Any = await client.runs.wait(thread, "calls", input={"do": "create_on_own_thread"})
        await client.runs.join(thread, values["did"])
    assert [run["status"] for run in await client.runs.list(thread)] == ["success", "success"]
