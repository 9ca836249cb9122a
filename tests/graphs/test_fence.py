from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from operator import add
from typing import Annotated, Any, Literal, TypedDict

import anyio
import pytest
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import END, START, StateGraph

from matins.domain.errors import LeaseLost
from matins.domain.runs import Held
from matins.graphs.checkpoints import Saver
from matins.storage.pool import Pool
from tests.support import rows

pytestmark = pytest.mark.anyio

Durability = Literal["sync", "async", "exit"]
TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


class State(TypedDict):
    seen: Annotated[list[str], add]


async def contents(pool: Pool) -> dict[str, list[tuple[Any, ...]]]:
    async with pool.connection() as conn:
        found = {table: await conn.fetch(f"SELECT * FROM {table}") for table in TABLES}
    return {table: sorted((tuple(row) for row in records), key=repr) for table, records in found.items()}


async def somebody_waits(pool: Pool) -> None:
    """Return when a statement waits for a lock."""
    async with pool.connection() as watcher:
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while not await watcher.fetchval(waiting):  # noqa: ASYNC110 - the server tells nobody
            await anyio.sleep(0.005)


@dataclass
class Lane:
    """What a lane does with a saver: cancelled on loss, it asks between steps where LangGraph does not."""

    pool: Pool
    held: Held
    started: list[str] = field(default_factory=list)
    lost: int = 0
    at: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.saver = Saver.for_run(self.pool, self.held, self.lose)

    def lose(self) -> None:
        self.lost += 1
        self.scope.cancel()

    def node(self, name: str) -> Callable[[State], Awaitable[State]]:
        async def run(state: State) -> State:
            self.started.append(name)
            if name in self.at:
                await self.at[name]()
            return {"seen": [name]}

        return run

    async def run(self, durability: Durability, *names: str) -> None:
        graph = StateGraph(State)
        for before, name in zip((START, *names), (*names, END), strict=True):
            if name != END:
                graph.add_node(name, RunnableLambda(self.node(name)))
            graph.add_edge(before, name)
        compiled = graph.compile(checkpointer=self.saver)
        with self.scope, suppress(LeaseLost):
            async for _ in compiled.astream(
                {"seen": []}, config(self.held), stream_mode="updates", durability=durability
            ):
                if durability != "sync":
                    await self.saver.confirm()


def config(held: Held) -> RunnableConfig:
    return {"configurable": {"thread_id": str(held.thread_id)}}


async def claim(pool: Pool) -> Held:
    async with pool.connection() as conn:
        return await rows.running(conn)


async def take_away(pool: Pool, held: Held) -> None:
    async with pool.connection() as conn:
        await rows.take_away(conn, held)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_run_whose_lease_is_taken_away_starts_no_further_node_and_writes_nothing(
    pool: Pool, durability: Durability
) -> None:
    lane = Lane(pool, await claim(pool))
    before: dict[str, list[tuple[Any, ...]]] = {}

    async def lose_it() -> None:
        await lane.saver.confirm()  # what went before is written
        await take_away(pool, lane.held)
        before.update(await contents(pool))

    lane.at["second"] = lose_it
    with anyio.fail_after(20):
        await lane.run(durability, "first", "second", "third", "fourth")
    assert lane.started == ["first", "second"]
    assert lane.lost == 1
    assert await contents(pool) == before
    assert (before["checkpoints"] == []) is (durability == "exit")


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_loss_that_no_cancellation_follows_ends_the_run_at_its_step(
    pool: Pool, durability: Durability
) -> None:
    lane = Lane(pool, await claim(pool))
    lane.saver = Saver.for_run(pool, lane.held, lambda: None)

    async def notice() -> None:
        await take_away(pool, lane.held)
        with pytest.raises(LeaseLost):
            await lane.saver.confirm()

    lane.at["first"] = notice
    await lane.run(durability, "first", "second")
    assert lane.started == ["first"]


async def test_a_stale_put_and_a_stale_write_change_no_row(pool: Pool) -> None:
    lane = Lane(pool, await claim(pool))
    first = empty_checkpoint()
    first["channel_values"] = {"text": "inline", "list": ["blob"]}
    first["channel_versions"] = {"text": "1", "list": "1"}
    root: RunnableConfig = {"configurable": {"thread_id": str(lane.held.thread_id), "checkpoint_ns": ""}}
    put = await lane.saver.aput(root, first, {"source": "loop", "step": 0}, first["channel_versions"])
    await lane.saver.aput_writes(put, [("list", ["more"])], "task")
    before = await contents(pool)
    await take_away(pool, lane.held)

    stale = empty_checkpoint()
    stale["channel_values"], stale["channel_versions"] = {"list": ["stale"]}, {"list": "2"}
    writes: list[Callable[[Saver], Awaitable[Any]]] = [
        lambda saver: saver.aput(put, stale, {"source": "loop", "step": 1}, {"list": "2"}),
        lambda saver: saver.aput(root, first, {"source": "loop", "step": 7}, {}),
        lambda saver: saver.aput_writes(put, [("list", ["stale"])], "other"),
        lambda saver: saver.aput_writes(put, [("__error__", "stale")], "task"),
    ]
    for write in writes:
        other = Lane(pool, lane.held)
        with pytest.raises(LeaseLost):
            await write(other.saver)
        assert other.lost == 1
        with pytest.raises(LeaseLost):
            await write(other.saver)
        assert other.lost == 1
    assert await contents(pool) == before


async def test_a_write_waits_for_a_claim_that_commits_and_is_then_refused(pool: Pool) -> None:
    lane = Lane(pool, await claim(pool))
    before = await contents(pool)
    refused = anyio.Event()

    async def write() -> None:
        root: RunnableConfig = {"configurable": {"thread_id": str(lane.held.thread_id), "checkpoint_ns": ""}}
        with pytest.raises(LeaseLost):
            await lane.saver.aput(root, empty_checkpoint(), {"source": "loop", "step": 0}, {})
        refused.set()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as writers:
            async with pool.transaction() as claim_of_another:
                await rows.take_away(claim_of_another, lane.held)
                writers.start_soon(write)
                await somebody_waits(pool)
                assert not refused.is_set()
            await refused.wait()
    assert await contents(pool) == before


async def test_a_run_that_is_no_longer_running_writes_nothing(pool: Pool) -> None:
    lane = Lane(pool, await claim(pool))
    async with pool.connection() as conn:
        await conn.execute(
            "UPDATE matins.run SET status = 'success', node_id = NULL, ended_at = matins.now()"
            " WHERE run_id = $1",
            lane.held.run_id,
        )
    with pytest.raises(LeaseLost):
        await lane.saver.confirm()
    assert lane.lost == 1


async def test_a_clone_shares_the_loss_and_what_was_put(pool: Pool) -> None:
    lane = Lane(pool, await claim(pool))
    clone = copy.copy(lane.saver)
    widened = lane.saver.with_allowlist([("somewhere", "Thing")])
    assert isinstance(widened, Saver)
    assert widened is not lane.saver
    await lane.run("sync", "only")
    assert clone.last_checkpoint_id == widened.last_checkpoint_id == lane.saver.last_checkpoint_id is not None
    await take_away(pool, lane.held)
    with pytest.raises(LeaseLost):
        await widened.confirm()
    for saver in (lane.saver, clone, widened):
        with pytest.raises(LeaseLost):
            await saver.confirm()
    assert lane.lost == 1


async def test_writes_that_wait_travel_in_one_statement(pool: Pool) -> None:
    lane = Lane(pool, await claim(pool))
    async with pool.connection() as conn:
        async with anyio.create_task_group() as tasks:
            put: RunnableConfig = {
                "configurable": {
                    "thread_id": str(lane.held.thread_id),
                    "checkpoint_ns": "",
                    "checkpoint_id": "1",
                }
            }
            for task in range(20):
                tasks.start_soon(lane.saver.aput_writes, put, [("list", [task])], f"task {task}")
        found = await conn.fetch("SELECT DISTINCT xmin::text FROM checkpoint_writes")
        assert await conn.fetchval("SELECT count(*) FROM checkpoint_writes") == 20
        assert len(found) <= 2


async def test_a_cancelled_writer_takes_nobody_with_it(pool: Pool) -> None:
    lane = Lane(pool, await claim(pool))
    put: RunnableConfig = {
        "configurable": {"thread_id": str(lane.held.thread_id), "checkpoint_ns": "", "checkpoint_id": "1"}
    }

    async def write(task: str, scope: anyio.CancelScope) -> None:
        with scope:
            await lane.saver.aput_writes(put, [("list", [task])], task)

    first, second = anyio.CancelScope(), anyio.CancelScope()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks, pool.transaction() as locker:
            await locker.execute("SELECT FROM matins.run WHERE run_id = $1 FOR UPDATE", lane.held.run_id)
            tasks.start_soon(write, "first", first)
            tasks.start_soon(write, "second", second)
            await somebody_waits(pool)
            first.cancel()
    async with pool.connection() as conn:
        assert "second" in [
            row["task_id"] for row in await conn.fetch("SELECT task_id FROM checkpoint_writes")
        ]
