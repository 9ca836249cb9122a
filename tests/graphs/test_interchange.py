"""A database that LangGraph's own saver wrote reads the same with ours, and the other way round."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from operator import add
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Send, interrupt
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row

from matins.graphs.checkpoints import Saver, types_of
from matins.storage.pool import Pool
from tests.support import rows

pytestmark = pytest.mark.anyio


@dataclass
class Point:
    x: int
    y: float


class Colour(Enum):
    RED = "red"


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    text: str
    number: int
    ratio: float
    flag: bool
    nothing: None
    point: Point
    colour: Colour
    parts: Annotated[list[str], add]
    deltas: Annotated[
        list[str], DeltaChannel(lambda so_far, new: [*so_far, *chain(*new)], snapshot_frequency=3)
    ]


def inner_graph() -> CompiledStateGraph[Any, Any, Any, Any]:
    def ask(state: State) -> State:
        return {"parts": [f"asked and told {interrupt('what?')}"], "deltas": ["inner"]}

    def before(state: State) -> State:
        return {"parts": ["before"], "text": "inner"}

    graph = StateGraph(State)
    graph.add_node("before", before)
    graph.add_node("ask", ask)
    graph.add_edge(START, "before")
    graph.add_edge("before", "ask")
    return graph.compile()


def outer_graph(saver: BaseCheckpointSaver[Any]) -> CompiledStateGraph[Any, Any, Any, Any]:
    def first(state: State) -> State:
        return {
            "messages": [AIMessage("hello", id="2", usage_metadata=None)],
            "text": "naïve ☃",
            "number": 2**60,
            "ratio": 0.1,
            "flag": True,
            "nothing": None,
            "point": Point(1, 2.5),
            "colour": Colour.RED,
            "deltas": ["first"],
        }

    def part(state: State) -> State:
        return {"parts": [state["text"]], "deltas": [state["text"]]}

    def fan_out(state: State) -> Sequence[Send]:
        return [Send("part", {"text": letter}) for letter in "abc"]

    def last(state: State) -> State:
        return {"deltas": ["last"], "number": 3}

    graph = StateGraph(State)
    graph.add_node("first", first)
    graph.add_node("part", part)
    graph.add_node("inner", inner_graph())
    graph.add_node("last", last)
    graph.add_edge(START, "first")
    graph.add_conditional_edges("first", fan_out, ["part"])
    graph.add_edge("part", "inner")
    graph.add_edge("inner", "last")
    graph.add_edge("last", END)
    return graph.compile(checkpointer=saver)


ALLOWED = {(Point.__module__, "Point"), (Colour.__module__, "Colour")}


@pytest.fixture
async def theirs(database: str) -> AsyncIterator[AsyncPostgresSaver]:
    connection = await AsyncConnection[DictRow].connect(database, autocommit=True, row_factory=dict_row)
    async with connection:
        yield AsyncPostgresSaver(connection, serde=Saver.serde_for(ALLOWED))


@pytest.fixture
async def ours(pool: Pool) -> Saver:
    async with pool.connection() as conn:
        held = await rows.running(conn)
    return Saver.for_run(pool, held, lambda: pytest.fail("the run is held"), allowed=ALLOWED)


async def everything(saver: BaseCheckpointSaver[Any], thread_id: str) -> dict[str, Any]:
    """Read all that a saver can tell of a thread."""
    everywhere: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    tuples = [found async for found in saver.alist(everywhere)]
    assert len({found.config["configurable"]["checkpoint_ns"] for found in tuples}) == 2
    one_by_one = [await saver.aget_tuple(found.config) for found in tuples]
    assert one_by_one == tuples
    newest = [
        await saver.aget_tuple({"configurable": {"thread_id": thread_id, "checkpoint_ns": namespace}})
        for namespace in sorted({found.config["configurable"]["checkpoint_ns"] for found in tuples})
    ]
    histories = [
        await saver.aget_delta_channel_history(config=found.config, channels=["deltas", "parts", "number"])
        for found in tuples
    ]
    graph = outer_graph(saver)
    states = [state async for state in graph.aget_state_history(everywhere)]
    return {
        "tuples": tuples,
        "newest": newest,
        "histories": histories,
        "states": states,
        "subgraphs": await graph.aget_state(everywhere, subgraphs=True),
    }


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("writer", ["theirs", "ours"])
async def test_each_reads_what_the_other_wrote_and_goes_on_from_it(
    theirs: AsyncPostgresSaver, ours: Saver, pool: Pool, writer: str, durability: Any
) -> None:
    savers: list[BaseCheckpointSaver[Any]] = [theirs, ours]
    if writer == "ours":
        savers.reverse()
    thread_id = str(uuid4())
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}, "metadata": {"who": "x\0y"}}
    said = {"messages": [HumanMessage("hi", id="1")]}
    await outer_graph(savers[0]).ainvoke(said, config, durability=durability)
    interrupted = await everything(theirs, thread_id)
    assert interrupted["states"][0].interrupts
    assert await everything(ours, thread_id) == interrupted
    assert await everything(Saver.reading(pool, allowed=ALLOWED), thread_id) == interrupted

    end = await outer_graph(savers[1]).ainvoke(Command(resume="this"), config, durability=durability)
    assert end["deltas"] == ["first", "a", "b", "c", "first", "a", "b", "c", "inner", "last"]
    assert end["parts"][-1] == "asked and told this"
    assert end["point"] == Point(1, 2.5)
    assert end["colour"] is Colour.RED
    finished = await everything(theirs, thread_id)
    assert finished["states"][0].values == end
    assert await everything(ours, thread_id) == finished


async def test_the_rows_are_the_same(theirs: AsyncPostgresSaver, pool: Pool) -> None:
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {
        "text": "t", "number": 1, "ratio": 0.5, "flag": False, "nothing": None, "list": [1], "gone": "old",
        "unchanged": {"a": 1},
    }  # fmt: skip
    versions: dict[str, str | int | float] = dict.fromkeys(checkpoint["channel_values"], "00001.5")
    checkpoint["channel_versions"] = {**versions, "empty": "00001.5"}
    new = {**versions, "empty": "00001.5"}
    del new["unchanged"]
    writes = [("list", [2]), ("text", "u"), ("__interrupt__", ["why"])]

    async def write(saver: BaseCheckpointSaver[Any], thread_id: str) -> list[list[tuple[Any, ...]]]:
        config: RunnableConfig = {
            "configurable": {"thread_id": thread_id, "checkpoint_ns": "", "checkpoint_id": "0", "user": "me"},
            "metadata": {"score": 1.5},
        }
        put = await saver.aput(config, checkpoint, {"source": "loop", "step": 1, "parents": {}}, new)
        await saver.aput_writes(put, writes, "task", "~path")
        await saver.aput_writes(put, [("list", ["not this"])], "task", "~path")
        await saver.aput_writes(put, [("__interrupt__", ["why now"])], "task", "~path")
        async with pool.connection() as conn:
            return [
                [
                    tuple(row)[1:]
                    for row in await conn.fetch(
                        f"SELECT * FROM {table} WHERE thread_id = $1 ORDER BY {by}", thread_id
                    )
                ]
                for table, by in (
                    ("checkpoints", "checkpoint_id"),
                    ("checkpoint_blobs", "channel"),
                    ("checkpoint_writes", "idx"),
                )
            ]

    async with pool.transaction() as conn:
        mine = Saver.for_thread(conn)
        await mine.aput({"configurable": {"thread_id": "x", "checkpoint_ns": ""}}, checkpoint, {}, {})
        await mine.adelete_thread("x")
    async with pool.connection() as conn:
        assert await write(Saver.for_thread(conn), "ours") == await write(theirs, "theirs")


async def test_sends_of_the_old_format_are_found(theirs: AsyncPostgresSaver, ours: Saver) -> None:
    root: RunnableConfig = {"configurable": {"thread_id": "old", "checkpoint_ns": ""}}
    parent, child = empty_checkpoint(), empty_checkpoint()
    child["channel_versions"] = {"a": "00002.1"}
    config = await theirs.aput(root, parent, {}, {})
    await theirs.aput_writes(config, [("__pregel_tasks", Send("node", 1))], "b", "2")
    await theirs.aput_writes(config, [("__pregel_tasks", Send("node", 2))], "a", "1")
    await theirs.aput(config, child, {}, {"a": "00002.1"})
    found = await ours.aget_tuple(root)
    assert found == await theirs.aget_tuple(root)
    assert isinstance(found, CheckpointTuple)
    assert found.checkpoint["channel_values"]["__pregel_tasks"] == [Send("node", 2), Send("node", 1)]


async def test_values_that_jsonb_would_change_or_refuse_come_back(
    ours: Saver, theirs: AsyncPostgresSaver
) -> None:
    values = {
        "nul": "a\0b", "surrogate": "a\ud800b", "nan": float("nan"), "infinite": float("-inf"),
        "large": 1e300, "colour": Colour.RED, "integer": 2**80, "whole": 3.0, "plain": "a\\u0000b",
    }  # fmt: skip
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = values
    checkpoint["channel_versions"] = dict.fromkeys(values, "1")
    root: RunnableConfig = {
        "configurable": {
            "thread_id": "t",
            "checkpoint_ns": "",
            "temperature": float("nan"),
            "half": "\udc00",
        },
    }
    metadata: Any = {"source": "loop", "step": 1, "parents": {"a\0": "b\\u0000"}}
    config = await ours.aput(root, checkpoint, metadata, checkpoint["channel_versions"])
    await ours.aput_writes(config, [("nul", "a\0b"), ("surrogate", {"key": "\udfff"})], "task")
    for saver in (ours, theirs):
        found = await saver.aget_tuple(root)
        assert found is not None
        read = found.checkpoint["channel_values"]
        assert str(read.pop("nan")) == "nan"
        assert read.pop("surrogate") == "a?b"
        assert read == {key: value for key, value in values.items() if key not in ("nan", "surrogate")}
        assert type(read["whole"]) is type(read["large"]) is float
        assert found.metadata["parents"] == {"a": "b\\u0000"}
        assert found.metadata.get("half") == "?"
        assert "temperature" not in found.metadata
        assert found.pending_writes == [("task", "nul", "a\0b"), ("task", "surrogate", {"key": "?"})]


async def test_the_state_that_a_run_ends_on_is_remembered_as_the_database_has_it(
    ours: Saver, pool: Pool
) -> None:
    reader = Saver.reading(pool, allowed=ALLOWED)
    async with pool.connection() as conn:
        thread_id = str(await conn.fetchval("SELECT thread_id FROM matins.run"))
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    graph = outer_graph(ours)
    asked: Any
    for asked in ({"messages": [HumanMessage("hi", id="1")]}, Command(resume="this")):
        await graph.ainvoke(asked, config)
        remembered = ours._access.memory.get(thread_id, "", None)  # type: ignore[attr-defined]
        assert remembered is not None
        assert await ours.aget_tuple(config) == ours._decode(remembered) == await reader.aget_tuple(config)
        assert await graph.aget_state(config) == await outer_graph(reader).aget_state(config)
        assert ours.last_checkpoint_id == remembered.row.checkpoint_id
        assert await ours.aget_tuple(
            {"configurable": {"thread_id": thread_id, "checkpoint_id": ours.last_checkpoint_id}}
        ) == await reader.aget_tuple(config)


async def test_a_run_that_goes_on_from_an_older_checkpoint_remembers_rightly(ours: Saver, pool: Pool) -> None:
    async with pool.connection() as conn:
        thread_id = str(await conn.fetchval("SELECT thread_id FROM matins.run"))
    reader = Saver.reading(pool, allowed=ALLOWED)
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    graph = outer_graph(ours)
    await graph.ainvoke({"messages": [HumanMessage("hi", id="1")]}, config)
    history = [state async for state in graph.aget_state_history(config)]
    await graph.aupdate_state(history[1].config, {"text": "changed"}, as_node="first")
    assert await ours.aget_tuple(config) == await reader.aget_tuple(config)
    await graph.ainvoke(None, history[2].config)
    assert await ours.aget_tuple(config) == await reader.aget_tuple(config)
    assert await graph.aget_state(config) == await outer_graph(reader).aget_state(config)


async def test_types_come_back_when_schema_or_module_names_them(pool: Pool) -> None:
    class Loose(TypedDict):
        anything: Any

    def one(state: Loose) -> Loose:
        return {"anything": [Point(1, 2.0), Colour.RED]}

    graph = StateGraph(Loose)
    graph.add_node("one", one)
    graph.add_edge(START, "one")
    listed = types_of([sys.modules[__name__]])
    assert listed == ALLOWED
    async with pool.connection() as conn:
        held = await rows.running(conn)
    config: RunnableConfig = {"configurable": {"thread_id": str(held.thread_id)}}
    saver = Saver.for_run(pool, held, lambda: None, allowed=listed)
    await graph.compile(checkpointer=saver).ainvoke({"anything": 0}, config)
    known = await graph.compile(checkpointer=Saver.reading(pool, allowed=listed)).aget_state(config)
    assert known.values == {"anything": [Point(1, 2.0), Colour.RED]}
    unknown = await graph.compile(checkpointer=Saver.reading(pool)).aget_state(config)
    assert unknown.values == {"anything": [{"x": 1, "y": 2.0}, "red"]}


async def test_a_connection_that_dies_costs_only_a_moment(ours: Saver, pool: Pool) -> None:
    async with pool.connection() as conn:
        thread_id = str(await conn.fetchval("SELECT thread_id FROM matins.run"))
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}

    async def cut(state: State) -> State:
        async with pool.transaction() as conn:
            await conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        return {"text": "cut"}

    def after(state: State) -> dict[str, list[str]]:
        return {"parts": ["after"]}

    graph = StateGraph(State)
    graph.add_node("cut", cut)
    graph.add_node("after", after)
    graph.add_edge(START, "cut")
    graph.add_edge("cut", "after")
    await graph.compile(checkpointer=ours).ainvoke({"messages": []}, config)
    found = await Saver.reading(pool).aget_tuple(config)
    assert found is not None
    assert found.checkpoint["channel_values"]["text"] == "cut"
    assert found.checkpoint["channel_values"]["parts"] == ["after"]
