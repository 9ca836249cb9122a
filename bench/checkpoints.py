"""Runs a second of a one-node graph, 8 at once in one process, by what saves its checkpoints. fsync is on.

    python bench/checkpoints.py [--seconds 4] [--rounds 3]

Medians of the rounds; a connection pool of 10 for both savers on Postgres, which is the embedded one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypedDict
from uuid import uuid4

import anyio
import asyncpg

os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"  # read when LangGraph is imported

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from matins.domain.ids import RunId, ThreadId
from matins.domain.runs import Held
from matins.embedded import EmbeddedPostgres
from matins.graphs.checkpoints import Saver
from matins.storage.migrate import migrate
from matins.storage.pool import open_pool

AT_ONCE = 8

Graph: TypeAlias = CompiledStateGraph[Any, Any, Any, Any]
SaveWith: TypeAlias = Callable[[], Awaitable[tuple[BaseCheckpointSaver[Any] | None, str]]]
"""Gives the saver of a run and its thread's id."""


class State(TypedDict):
    """What the graph keeps."""

    messages: Annotated[list[AnyMessage], add_messages]


async def echo(state: State) -> dict[str, Any]:
    """Answer with what was said."""
    return {"messages": [AIMessage(state["messages"][-1].content)]}


def build() -> Graph:
    """Give the one-node graph."""
    graph = StateGraph(State)
    graph.add_node("echo", echo)
    graph.add_edge(START, "echo")
    return graph.compile()


async def rate(save_with: SaveWith, *, seconds: float, at_once: int = AT_ONCE) -> float:
    """Run for that long; `save_with()` gives the saver of a run and its thread's id."""
    graph = build()
    done = 0
    end = time.perf_counter() + seconds

    async def lane() -> None:
        nonlocal done
        while time.perf_counter() < end:
            saver, thread_id = await save_with()
            mine = graph.copy({"checkpointer": saver})
            config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
            async for _ in mine.astream({"messages": [HumanMessage("hi")]}, config):
                pass
            if saver is not None:
                await mine.aget_state(config)  # what a run ends with
            done += 1

    started = time.perf_counter()
    async with anyio.create_task_group() as lanes:
        for _ in range(at_once):
            lanes.start_soon(lane)
    return done / (time.perf_counter() - started)


async def main(uri: str, seconds: float, rounds: int) -> None:
    """Measure and print."""
    await migrate(uri)
    admin = await asyncpg.connect(uri)
    for setting in ("fsync", "synchronous_commit"):
        print(setting, await admin.fetchval(f"SHOW {setting}"))
    runs = [(uuid4(), uuid4()) for _ in range(20_000)]
    await admin.execute(
        "INSERT INTO matins.thread (thread_id) SELECT unnest($1::uuid[])", [t for t, _ in runs]
    )
    await admin.execute(
        "INSERT INTO matins.run (run_id, thread_id, assistant_id, kwargs, status, attempt, node_id)"
        " SELECT run, thread, thread, '{}', 'running', 1, thread"
        " FROM unnest($1::uuid[], $2::uuid[]) AS new (thread, run)",
        [t for t, _ in runs],
        [r for _, r in runs],
    )
    await admin.execute("VACUUM ANALYZE matins.run")
    memory = InMemorySaver()
    async with (
        open_pool(uri, size=10) as pool,
        AsyncConnectionPool(
            uri, min_size=10, max_size=10, open=False,
            kwargs={"autocommit": True, "row_factory": dict_row, "prepare_threshold": 0},
        ) as theirs,
    ):  # fmt: skip
        postgres = AsyncPostgresSaver(theirs)  # type: ignore[arg-type]  # the row factory is in the kwargs

        async def none() -> tuple[BaseCheckpointSaver[Any] | None, str]:
            return None, str(uuid4())

        async def in_memory() -> tuple[BaseCheckpointSaver[Any] | None, str]:
            return memory, str(uuid4())

        async def langgraphs() -> tuple[BaseCheckpointSaver[Any] | None, str]:
            return postgres, str(uuid4())

        async def ours() -> tuple[BaseCheckpointSaver[Any] | None, str]:
            thread_id, run_id = runs.pop()
            return Saver.for_run(pool, Held(RunId(run_id), ThreadId(thread_id), 1), lambda: None), str(
                thread_id
            )

        savers: dict[str, SaveWith] = {
            "no checkpointer": none,
            "in memory": in_memory,
            "AsyncPostgresSaver": langgraphs,
            "Matins, fenced": ours,
        }
        rates: dict[str, list[float]] = {name: [] for name in savers}
        alone: dict[str, list[float]] = {name: [] for name in savers}
        for save_with in savers.values():
            await rate(save_with, seconds=1)
        for _ in range(rounds):  # in turn, so that other load on the machine meets all of them
            for name, save_with in savers.items():
                rates[name].append(await rate(save_with, seconds=seconds))
                alone[name].append(await rate(save_with, seconds=seconds / 2, at_once=1))
        for name in savers:
            print(
                f"{name:20} {statistics.median(rates[name]):7.1f} runs/s at {AT_ONCE} at once,"
                f" {1000 / statistics.median(alone[name]):6.2f} ms each alone"
            )
    await admin.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        server = EmbeddedPostgres(Path(directory) / "data")
        server.start()
        try:
            anyio.run(main, server.uri, asked.seconds, asked.rounds)
        finally:
            server.stop()
