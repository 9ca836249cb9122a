from __future__ import annotations

import inspect
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import msgspec
import pytest

from matins import manifest
from matins.domain.errors import Unavailable
from matins.domain.runs import Held, StopReason
from matins.graphs.registry import Registry
from matins.graphs.state import answer
from matins.storage.pool import Conn, Pool
from matins.workers.protocol import Execute, Settled
from tests.support import rows
from tests.support.orders import ASSISTANT, Lane, claim, finish, order

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).parents[2] / "examples" / "langgraph.json"
Project = Callable[..., Registry]
T = TypeVar("T")


@pytest.fixture(scope="module")
def examples() -> Registry:
    return Registry.load(manifest.read(EXAMPLES))


def human(text: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}]}


def reply(settled: Settled) -> Any:
    return msgspec.json.decode(settled.reply)


def values(settled: Settled) -> Any:
    return msgspec.json.decode(settled.values or b"null")


async def checkpoints(pool: Pool, held: Held) -> int:
    async with pool.connection() as conn:
        found: int = await conn.fetchval(
            "SELECT count(*) FROM checkpoints WHERE thread_id = $1", str(held.thread_id)
        )
    return found


# How it ends


async def test_an_echo_run_streams_its_values_and_settles_with_them(pool: Pool, examples: Registry) -> None:
    held = await claim(pool)
    lane = Lane(examples, pool)
    settled = await lane.execute(order(held, "echo", input=human("hi")))
    assert settled.outcome == "success"
    assert [message["content"] for message in values(settled)["messages"]] == ["hi", "hi"]
    assert reply(settled) == values(settled)
    assert settled.has_next is False
    assert settled.checkpoint_id is not None
    assert lane.events == ["metadata", "values", "values"]
    assert lane.frames[0][1] == {"run_id": str(held.run_id), "attempt": 1}
    assert lane.frames[-1][1] == values(settled)


async def test_a_second_run_adds_to_the_thread(pool: Pool, examples: Registry) -> None:
    first = await claim(pool)
    await Lane(examples, pool).execute(order(first, "echo", input=human("one")))
    second = await claim(pool, thread_id=first.thread_id)
    settled = await Lane(examples, pool).execute(order(second, "echo", input=human("two")))
    assert [m["content"] for m in values(settled)["messages"]] == ["one", "one", "two", "two"]


async def test_a_graph_that_raises_ends_as_an_error_with_its_own_words(
    pool: Pool, examples: Registry
) -> None:
    lane = Lane(examples, pool)
    settled = await lane.execute(order(await claim(pool), "failing", input={"x": 1}))
    assert settled.outcome == "error"
    assert msgspec.json.decode(settled.error or b"") == {"error": "ValueError", "message": "boom happened"}
    assert settled.reply == b'{"__error__":{"error":"ValueError","message":"boom happened"}}'
    assert lane.frames[-1] == ("error", {"error": "ValueError", "message": "boom happened"})
    assert (values(settled), settled.has_next) == ({"x": 1}, True)


async def test_an_interrupt_is_a_success_that_asks_and_a_resume_goes_on(
    pool: Pool, examples: Registry
) -> None:
    held = await claim(pool)
    lane = Lane(examples, pool)
    settled = await lane.execute(
        order(held, "ask", input={"question": "name?"}, stream_mode=["values", "updates"])
    )
    assert (settled.outcome, settled.has_next) == ("success", True)
    (asked,) = msgspec.json.decode(settled.interrupts).values()
    (item,) = reply(settled)["__interrupt__"]
    assert asked == [{"id": item["id"], "value": {"q": "name?"}}]
    assert list(item) == ["value", "id", "response_schema"]
    assert item["response_schema"] is None
    assert re.fullmatch("[0-9a-f]{32}", item["id"])
    assert lane.frames[1:] == [
        ("values", {"question": "name?"}),
        ("updates", {"__interrupt__": [item]}),
        ("values", {"question": "name?", "__interrupt__": [item]}),
    ]
    assert values(settled) == {"question": "name?"}
    await finish(pool, held)
    for resume in ("Ada", {item["id"]: "Ada"}):
        again = await claim(pool)
        await Lane(examples, pool).execute(order(again, "ask", input={"question": "name?"}))
        then = await claim(pool, thread_id=again.thread_id)
        asked_id = resume
        if isinstance(resume, dict):
            state = await answer(
                "state",
                json.dumps({"graph_id": "ask", "thread_id": str(again.thread_id)}).encode(),
                registry=examples,
                pool=pool,
            )
            asked_id = {json.loads(state)["interrupts"][0]["id"]: "Ada"}
        settled = await Lane(examples, pool).execute(order(then, "ask", command={"resume": asked_id}))
        assert (values(settled)["answer"], settled.has_next) == ("Thank you, Ada.", False)
        assert settled.interrupts == b"{}"


async def test_a_breakpoint_stops_before_the_node_and_null_goes_on(pool: Pool, examples: Registry) -> None:
    held = await claim(pool)
    lane = Lane(examples, pool)
    settled = await lane.execute(
        order(held, "echo", input=human("hi"), interrupt_before="*", stream_mode=["updates"])
    )
    assert (settled.outcome, settled.has_next, settled.interrupts) == ("success", True, b"{}")
    assert lane.frames[1:] == [("updates", {"__interrupt__": []})]
    assert "__interrupt__" not in reply(settled)
    then = await claim(pool, thread_id=held.thread_id)
    settled = await Lane(examples, pool).execute(order(then, "echo", input=None))
    assert (len(values(settled)["messages"]), settled.has_next) == (2, False)


GOTO = """
from typing import TypedDict
from langgraph.graph import START, END, StateGraph
class State(TypedDict, total=False):
    x: int
    seen: str
def one(state: State): return {"seen": "one"}
def two(state): return {"seen": f"two {state.get('x')}"}
graph = StateGraph(State).add_node(one).add_node(two).add_edge(START, "one").add_edge("one", END).compile()
"""


@pytest.mark.parametrize(
    ("command", "seen"),
    [
        ({"goto": "two"}, "two 1"),
        ({"goto": ["two"]}, "two 1"),
        ({"goto": {"node": "two", "input": {"x": 9}}}, "two 9"),
        ({"goto": "two", "update": {"x": 5}}, "two 5"),
        ({"goto": "two", "update": [["x", 6]]}, "two 6"),
        ({}, "one"),
    ],
)
async def test_a_command_goes_where_it_says(pool: Pool, project: Project, command: object, seen: str) -> None:
    registry = project(GOTO, "graph")
    held = await claim(pool)
    await Lane(registry, pool).execute(order(held, "graph", input={"x": 1}))
    then = await claim(pool, thread_id=held.thread_id)
    settled = await Lane(registry, pool).execute(order(then, "graph", input={"x": 77}, command=command))
    assert (settled.outcome, values(settled)["seen"]) == ("success", seen)


async def test_a_run_may_start_from_an_older_checkpoint(pool: Pool, examples: Registry) -> None:
    held = await claim(pool)
    first = await Lane(examples, pool).execute(order(held, "echo", input=human("one")))
    second = await claim(pool, thread_id=held.thread_id)
    await Lane(examples, pool).execute(order(second, "echo", input=human("two")))
    third = await claim(pool, thread_id=held.thread_id)
    fork = {"checkpoint_id": first.checkpoint_id}
    settled = await Lane(examples, pool).execute(order(third, "echo", input=human("2"), checkpoint=fork))
    assert [m["content"] for m in values(settled)["messages"]] == ["one", "one", "2", "2"]


async def test_a_run_without_input_on_a_fresh_thread_is_an_error(pool: Pool, examples: Registry) -> None:
    settled = await Lane(examples, pool).execute(order(await claim(pool), "echo", input=None))
    assert reply(settled)["__error__"]["error"] == "EmptyInputError"
    assert settled.values is None


async def test_a_recursion_limit_is_kept(pool: Pool, examples: Registry) -> None:
    run = order(await claim(pool), "slow", input={"delay": 0, "steps": 9}, config={"recursion_limit": 3})
    settled = await Lane(examples, pool).execute(run)
    assert reply(settled)["__error__"]["error"] == "GraphRecursionError"


async def test_an_unknown_graph_is_an_error_and_not_a_crash(pool: Pool, examples: Registry) -> None:
    settled = await Lane(examples, pool).execute(order(await claim(pool), "nope", input={}))
    assert reply(settled)["__error__"]["error"] == "GraphNotFound"


LEAVING = """
import asyncio, sys
from typing import TypedDict
from langgraph.graph import START, StateGraph
class State(TypedDict, total=False):
    how: str
class Shy(Exception):
    def __str__(self): raise RuntimeError("no")
def throw(how):
    if how == "exit": sys.exit("enough")
    if how == "key": raise KeyboardInterrupt
    if how == "cancel": raise asyncio.CancelledError
    if how == "shy": raise Shy
    if how == "surrogate": raise ValueError("bad \\ud800 \\x00")
async def a(state: State): throw(state["how"])
def s(state: State): throw(state["how"])
asynchronous = StateGraph(State).add_node(a).add_edge(START, "a").compile()
synchronous = StateGraph(State).add_node(s).add_edge(START, "s").compile()
def factory(): sys.exit("never")
"""


@pytest.mark.parametrize("graph", ["asynchronous", "synchronous"])
@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("exit", "SystemExit", "enough"),
        ("key", "KeyboardInterrupt", ""),
        ("cancel", "NodeCancelledError", None),
        ("shy", "Shy", ""),
        ("surrogate", "ValueError", "bad \ufffd \ufffd"),
    ],
)
async def test_whatever_a_node_raises_ends_its_run_and_nothing_else(
    pool: Pool, project: Project, graph: str, how: str, error: str, message: str | None
) -> None:
    settled = await Lane(project(LEAVING, graph), pool).execute(
        order(await claim(pool), graph, input={"how": how})
    )
    failure = reply(settled)["__error__"]
    assert (settled.outcome, failure["error"]) == ("error", error)
    assert message is None or failure["message"] == message


async def test_a_factory_that_exits_ends_its_run(pool: Pool, project: Project) -> None:
    settled = await Lane(project(LEAVING, "factory"), pool).execute(
        order(await claim(pool), "factory", input={})
    )
    assert reply(settled)["__error__"] == {"error": "SystemExit", "message": "never"}


# What a graph is told


TOLD = """
from dataclasses import dataclass
from typing import Any, TypedDict
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from pydantic import BaseModel, Field
class State(TypedDict, total=False):
    told: Any
@dataclass
class Context:
    model: str = "small"
class Aliased(BaseModel):
    model: str = Field("small", alias="modelName")
    size: int = Field(0, validation_alias="modelSize")
class Open(BaseModel, extra="allow"):
    model: str = "small"
def tell(state: State, config: RunnableConfig, runtime: Runtime):
    own = {k: v for k, v in config["configurable"].items() if not k.startswith(("__", "checkpoint"))}
    context = runtime.context.model_dump() if isinstance(runtime.context, BaseModel) else runtime.context
    about = {"metadata": config["metadata"], "context": context, "tags": config.get("tags")}
    return {"told": {"configurable": own, **about}}
plain = StateGraph(State).add_node(tell).add_edge(START, "tell").compile()
typed = StateGraph(State, context_schema=Context).add_node(tell).add_edge(START, "tell").compile()
aliased = StateGraph(State, context_schema=Aliased).add_node(tell).add_edge(START, "tell").compile()
open_ = StateGraph(State, context_schema=Open).add_node(tell).add_edge(START, "tell").compile()
"""


async def test_a_graph_knows_its_run(pool: Pool, project: Project) -> None:
    held = await claim(pool)
    config = {"configurable": {"user_id": "mallory", "c": 1, "__pregel_read": "x"}, "tags": ["t1"]}
    told = values(
        await Lane(project(TOLD, "plain"), pool).execute(
            order(held, "plain", input={"told": 0}, config=config, metadata={"mm": 1, "run_id": "forged"})
        )
    )["told"]
    assert told["configurable"] == {
        "c": 1, "thread_id": str(held.thread_id), "run_id": str(held.run_id), "assistant_id": str(ASSISTANT),
        "graph_id": "plain", "user_id": "", "langgraph_auth_user": None, "langgraph_auth_user_id": "",
        "langgraph_auth_permissions": [],
    }  # fmt: skip
    assert told["tags"] == ["t1"]
    expected = {"mm": 1, "graph_id": "plain", "run_id": str(held.run_id), "run_attempt": 1}
    assert expected.items() <= told["metadata"].items()
    assert {"assistant_id", "thread_id", "langgraph_version", "matins_version"} <= told["metadata"].keys()


@pytest.mark.parametrize(
    ("graph", "given", "context"),
    [
        ("typed", {"context": {"model": "big"}}, {"model": "big"}),
        ("typed", {"config": {"configurable": {"model": "big", "other": 1}}}, {"model": "big"}),
        ("typed", {}, {"model": "small"}),
        (
            "aliased",
            {"context": {"modelName": "big", "modelSize": 3, "other": 1}},
            {"model": "big", "size": 3},
        ),
        ("open_", {"context": {"model": "big", "other": 1}}, {"model": "big", "other": 1}),
        ("plain", {"context": {"c": 1}}, {"c": 1}),
        ("plain", {"config": {"configurable": {"c": 1}}}, {"c": 1}),
        ("plain", {}, None),
    ],
)
async def test_context_and_configurable_mirror_each_other(
    pool: Pool, project: Project, graph: str, given: dict[str, Any], context: object
) -> None:
    run = order(await claim(pool), graph, input={"told": 0}, **given)
    told = values(await Lane(project(TOLD, graph), pool).execute(run))["told"]
    assert told["context"] == context
    if "context" in given:
        assert given["context"].items() <= told["configurable"].items()


# Stops


WORK = """
import anyio
from typing import TypedDict
from langgraph.config import get_stream_writer
from langgraph.graph import START, END, StateGraph
started = []
second = anyio.Event()
goes_on = anyio.Event()
class State(TypedDict, total=False):
    n: int
    stubborn: bool
async def step(state: State):
    started.append(state.get("n", 0))
    get_stream_writer()(state.get("n", 0))
    try:
        if state.get("n", 0) == 2:
            second.set()
            await goes_on.wait()
        await anyio.sleep(0.02)
    except BaseException:
        if not state.get("stubborn"): raise
    return {"n": state.get("n", 0) + 1}
def more(state): return "step" if state["n"] < 6 else END
graph = StateGraph(State).add_node(step).add_edge(START, "step").add_conditional_edges("step", more).compile()
"""


def inside(registry: Registry) -> dict[str, Any]:
    """Give the variables of the graph's module."""
    entry = registry._entries["graph"]
    assert entry.graph is not None
    node: Any = entry.graph.nodes["step"].bound
    found: dict[str, Any] = node.afunc.__globals__
    return found


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize(
    "mode", ["custom", "values", "events"]
)  # LangGraph runs a node differently when it streams
async def test_an_interrupted_run_keeps_its_last_checkpoint_and_knows_what_is_left(
    pool: Pool, project: Project, durability: str, stubborn: bool, mode: str
) -> None:
    registry = project(WORK, "graph")
    lane = Lane(registry, pool)
    run = order(
        await claim(pool), "graph", input={"n": 0, "stubborn": stubborn}, durability=durability, stream_mode=[mode]
    )  # fmt: skip
    settled = await during_second(registry, lane, run, lambda: lane.stop.ask(StopReason.INTERRUPT))
    assert (settled.outcome, settled.reason, settled.reply) == ("stopped", "interrupt", b"{}")
    assert inside(registry)["started"] == [0, 1, 2]
    # A node that swallows its cancellation has done its work, and LangGraph keeps it; but at the exit, once it is
    # broken off, not that of a node in a task of its own.
    kept = 3 if stubborn and (mode != "custom" or durability != "exit") else 2
    assert (values(settled)["n"], settled.has_next) == (kept, True)
    assert await state_of(pool, registry, run) == values(settled)
    assert "error" not in lane.events


async def state_of(pool: Pool, registry: Registry, run: Execute) -> Any:
    """Give the values that the thread of a run of WORK has in the database."""
    asked = msgspec.json.encode({"graph_id": "graph", "thread_id": run.thread_id})
    return msgspec.json.decode(await answer("state", asked, registry=registry, pool=pool))["values"]


async def during_second(registry: Registry, lane: Lane, run: Execute, act: Callable[[], Any]) -> Settled:
    """Execute a run of WORK and do something while its node works for the third time."""
    settled: list[Settled] = []

    async def execute() -> None:
        settled.append(await lane.execute(run))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(execute)
            await inside(registry)["second"].wait()
            done = act()
            if inspect.isawaitable(done):
                await done
            inside(registry)["goes_on"].set()
    return settled[0]


async def test_a_stop_before_the_start_starts_nothing(pool: Pool, project: Project) -> None:
    registry = project(WORK, "graph")
    lane = Lane(registry, pool)
    lane.stop.ask(StopReason.INTERRUPT)
    settled = await lane.execute(order(await claim(pool), "graph", input={"n": 0}))
    assert (settled.outcome, inside(registry)["started"]) == ("stopped", [])


async def test_a_run_that_takes_too_long_says_so(pool: Pool, examples: Registry) -> None:
    lane = Lane(examples, pool)
    lane.on_frame = lambda _: lane.stop.ask(StopReason.TIMEOUT)
    settled = await lane.execute(order(await claim(pool), "slow", input={"delay": 60}))
    assert (settled.outcome, settled.reason) == ("timeout", "timeout")
    assert reply(settled)["__error__"]["error"] == "TimeoutError"


async def test_a_stop_that_comes_too_late_changes_nothing(pool: Pool, examples: Registry) -> None:
    lane = Lane(examples, pool)
    settled = await lane.execute(order(await claim(pool), "echo", input=human("hi")))
    lane.stop.ask(StopReason.INTERRUPT)
    await anyio.lowlevel.checkpoint()
    assert settled.outcome == "success"


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("mode", ["custom", "values", "events"])
async def test_a_run_whose_lease_is_taken_starts_no_further_node_and_says_nothing_more(
    pool: Pool, project: Project, durability: str, stubborn: bool, mode: str
) -> None:
    registry = project(WORK, "graph")
    held = await claim(pool)
    lane = Lane(registry, pool)
    sent = kept = -1

    async def take_away() -> None:
        nonlocal sent, kept
        async with pool.connection() as conn:
            await rows.take_away(conn, held)
        sent, kept = len(lane.frames), await checkpoints(pool, held)

    run = order(
        held, "graph", input={"n": 0, "stubborn": stubborn}, durability=durability, stream_mode=[mode]
    )  # fmt: skip
    settled = await during_second(registry, lane, run, take_away)
    assert (settled.outcome, settled.values, settled.error) == ("lost", None, None)
    assert inside(registry)["started"] == [0, 1, 2]
    # LangChain tells how the node that was under way ended, before the fence is asked.
    assert {event for event, _ in lane.frames[sent:]} <= ({"events"} if mode == "events" else set())
    assert await checkpoints(pool, held) == kept


# Attempts


@pytest.mark.parametrize(("durability", "repeated"), [("sync", [2, 3]), ("exit", [0, 1, 2, 3])])
async def test_a_new_attempt_goes_on_where_the_last_one_was_saved(
    pool: Pool, project: Project, durability: str, repeated: list[int]
) -> None:
    source = WORK.replace('n"] < 6', 'n"] < 4')
    registry = project(source, "graph")
    held = await claim(pool)
    inside(registry)["goes_on"].set()
    lane = Lane(registry, pool)
    lane.on_frame = lambda frame: lane.stop.ask(StopReason.LOST) if frame.data == b"2" else None
    run = order(held, "graph", input={"n": 0}, durability=durability, stream_mode=["custom"])
    assert (await lane.execute(run)).outcome == "lost"
    async with pool.connection() as conn:
        if durability == "exit":  # what a process that was killed leaves behind
            await conn.execute("DELETE FROM checkpoints")
        await rows.take_away(conn, held)
    inside(registry)["started"].clear()
    again = Lane(registry, pool)
    settled = await again.execute(msgspec.structs.replace(run, attempt=2))
    assert (settled.outcome, values(settled)["n"]) == ("success", 4)
    assert inside(registry)["started"] == repeated
    assert again.frames[0] == ("metadata", {"run_id": str(held.run_id), "attempt": 2})


async def test_a_new_attempt_that_nothing_was_saved_of_starts_over_on_an_old_thread(
    pool: Pool, examples: Registry
) -> None:
    first = await claim(pool)
    await Lane(examples, pool).execute(order(first, "echo", input=human("one")))
    second = await claim(pool, thread_id=first.thread_id, attempt=3)
    settled = await Lane(examples, pool).execute(order(second, "echo", input=human("two")))
    assert [m["content"] for m in values(settled)["messages"]] == ["one", "one", "two", "two"]


COMMANDED = """
import operator
import anyio
from typing import Annotated, TypedDict
from langgraph.graph import START, StateGraph
works = anyio.Event()
lasts = [0]
class State(TypedDict, total=False):
    n: Annotated[int, operator.add]
    did: Annotated[list, operator.add]
async def step(state: State):
    works.set()
    await anyio.sleep(lasts[0])
    return {"did": ["step"]}
graph = StateGraph(State).add_node(step).add_edge(START, "step").compile()
"""


@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("goto", ["step", {"node": "step", "input": {}}])
async def test_a_command_counts_once_however_often_its_run_is_tried(
    pool: Pool, project: Project, durability: str, goto: object
) -> None:
    registry = project(COMMANDED, "graph")
    first = await claim(pool)
    await Lane(registry, pool).execute(order(first, "graph", input={"n": 0}))
    for times in (1, 2):  # the same command again, in a run of its own, counts again
        held = await claim(pool, thread_id=first.thread_id)
        command = {"update": {"n": 1}, "goto": goto}
        run = order(held, "graph", command=command, durability=durability)
        lane = Lane(registry, pool)
        inside(registry).update(works=anyio.Event(), lasts=[60])
        async with anyio.create_task_group() as group:
            group.start_soon(lane.execute, run)
            await inside(registry)["works"].wait()
            lane.stop.ask(StopReason.LOST)
        async with pool.connection() as conn:
            await rows.take_away(conn, held)
        inside(registry)["lasts"][0] = 0
        settled = await Lane(registry, pool).execute(msgspec.structs.replace(run, attempt=2))
        assert settled.outcome == "success"
        assert values(settled) == {"n": times, "did": ["step"] * (times + 1)}


class _Away(Pool):
    """A database that is away from the second write on."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool._pool)
        self.writes = 0

    async def run(
        self, work: Callable[[Conn], Awaitable[T]], *, transaction: bool = True, patience_s: float = 8
    ) -> T:
        self.writes += 1
        if self.writes > 2:
            raise Unavailable
        return await super().run(work, transaction=transaction, patience_s=patience_s)


@pytest.mark.parametrize(("attempt", "outcome"), [(1, "lost"), (4, "lost"), (5, "error")])
async def test_a_run_that_the_database_was_away_for_goes_back_to_the_queue_but_not_for_ever(
    pool: Pool, project: Project, attempt: int, outcome: str
) -> None:
    held = await claim(pool, attempt=attempt)
    run = order(held, "graph", input={"n": 0}, durability="sync")
    registry = project(WORK, "graph")
    inside(registry)["goes_on"].set()
    settled = await Lane(registry, _Away(pool)).execute(run)
    assert settled.outcome == outcome


STEPS = """
import operator
from typing import Annotated, TypedDict
from langgraph.graph import START, StateGraph
class State(TypedDict, total=False):
    did: Annotated[list, operator.add]
def build():
    steps = StateGraph(State)
    for name in "abc":
        steps.add_node(name, lambda state, name=name: {"did": [name]})
    return steps.add_edge(START, "a").add_edge("a", "b").add_edge("b", "c")
plain = build().compile()
before = build().compile(interrupt_before=["b"])
after = build().compile(interrupt_after=["a"])
"""


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize(
    ("graph", "stops", "did"),
    [
        ("plain", {"interrupt_before": ["b"]}, ["a"]),
        ("plain", {"interrupt_after": ["a"]}, ["a"]),
        ("plain", {"interrupt_before": "*"}, []),
        ("plain", {"interrupt_after": "*"}, ["a"]),
        ("before", {}, ["a"]),
        ("after", {}, ["a"]),
        ("plain", {}, ["a", "b", "c"]),
    ],
)
async def test_a_new_attempt_of_a_run_that_had_stopped_or_ended_runs_nothing(
    pool: Pool, project: Project, durability: str, graph: str, stops: dict[str, Any], did: list[str]
) -> None:
    registry = project(STEPS, graph)
    held = await claim(pool)
    run = order(held, graph, input={"did": []}, durability=durability, **stops)
    first = await Lane(registry, pool).execute(run)
    assert values(first) == {"did": did}
    kept = await checkpoints(pool, held)
    async with pool.connection() as conn:
        await rows.take_away(conn, held)
    again = await Lane(registry, pool).execute(msgspec.structs.replace(run, attempt=2))
    assert again == msgspec.structs.replace(first, attempt=2)
    assert await checkpoints(pool, held) == kept


@pytest.mark.parametrize("steps_lost", [1, 2])
async def test_a_new_attempt_of_a_run_that_died_between_its_breakpoints_goes_on(
    pool: Pool, project: Project, steps_lost: int
) -> None:
    registry = project(STEPS, "plain")
    held = await claim(pool)
    run = order(held, "plain", input={"did": []}, durability="sync", interrupt_after=["b"])
    await Lane(registry, pool).execute(run)
    async with pool.connection() as conn:  # the step's writes were saved, not yet the checkpoint they make
        await conn.execute(
            "DELETE FROM checkpoints WHERE checkpoint_id IN (SELECT checkpoint_id FROM checkpoints"
            " WHERE thread_id = $1 ORDER BY checkpoint_id DESC LIMIT $2)",
            str(held.thread_id),
            steps_lost,
        )
        await rows.take_away(conn, held)
    settled = await Lane(registry, pool).execute(msgspec.structs.replace(run, attempt=2))
    assert (settled.outcome, values(settled), settled.has_next) == ("success", {"did": ["a", "b"]}, True)


async def test_a_new_attempt_does_the_last_step_whose_checkpoint_was_not_saved(
    pool: Pool, project: Project
) -> None:
    registry = project(STEPS, "plain")
    held = await claim(pool)
    run = order(held, "plain", input={"did": []}, durability="sync")
    whole = await Lane(registry, pool).execute(run)
    async with pool.connection() as conn:
        await conn.execute("DELETE FROM checkpoints WHERE checkpoint_id = $1", whole.checkpoint_id)
        await rows.take_away(conn, held)
    settled = await Lane(registry, pool).execute(msgspec.structs.replace(run, attempt=2))
    assert (values(settled), settled.has_next) == ({"did": ["a", "b", "c"]}, False)
    assert settled.checkpoint_id not in (None, whole.checkpoint_id)


# The way out


async def test_a_slow_link_holds_the_graph_and_loses_nothing(pool: Pool, project: Project) -> None:
    registry = project(
        """
import anyio
from typing import TypedDict
from langgraph.config import get_stream_writer
from langgraph.graph import START, END, StateGraph
class State(TypedDict, total=False):
    n: int
written = []
fifth = anyio.Event()
async def step(state: State):
    write = get_stream_writer()
    write("x" * 40_000)
    written.append(1)
    if len(written) == 5: fifth.set()
    return {"n": state.get("n", 0) + 1}
def more(state): return "step" if state["n"] < 20 else END
graph = StateGraph(State).add_node(step).add_edge(START, "step").add_conditional_edges("step", more).compile()
""",
        "graph",
    )
    written: list[int] = inside(registry)["written"]
    fifth: anyio.Event = inside(registry)["fifth"]
    lane = Lane(registry, pool)
    lane.gate = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(
            lane.execute, order(await claim(pool), "graph", input={"n": 0}, stream_mode=["custom"])
        )
        with anyio.move_on_after(0.5):
            await fifth.wait()
        assert 1 <= len(written) <= 4  # one batch under way, one outbox full
        lane.gate.set()
    assert lane.events == ["metadata"] + ["custom"] * 20


async def test_many_events_leave_in_batches_and_in_order(pool: Pool, examples: Registry) -> None:
    lane = Lane(examples, pool)
    await lane.execute(order(await claim(pool), "events", input={"n": 5000}, stream_mode=["custom"]))
    assert [data["i"] for event, data in lane.frames if event == "custom"] == list(range(5000))
    assert len(lane.batches) < 50


# Other kinds of graphs


FUNCTIONAL = """
from langgraph.func import entrypoint, task
from langgraph.types import interrupt
@task
def double(x): return 2 * x
@entrypoint()
async def number(x): return await double(x)
@entrypoint()
async def asking(x): return [await double(x), interrupt("more?")]
"""


async def test_a_function_gives_its_result_whatever_it_is(pool: Pool, project: Project) -> None:
    lane = Lane(project(FUNCTIONAL, "number"), pool)
    settled = await lane.execute(order(await claim(pool), "number", input=21))
    assert (settled.outcome, settled.reply, values(settled)) == ("success", b"42", 42)
    assert lane.frames[-1] == ("values", 42)


async def test_a_function_that_asks_answers_with_its_question_alone(pool: Pool, project: Project) -> None:
    registry = project(FUNCTIONAL, "asking")
    held = await claim(pool)
    settled = await Lane(registry, pool).execute(order(held, "asking", input=21))
    assert [item["value"] for item in reply(settled)["__interrupt__"]] == ["more?"]
    assert settled.has_next is True
    then = await claim(pool, thread_id=held.thread_id)
    settled = await Lane(registry, pool).execute(order(then, "asking", command={"resume": "yes"}))
    assert reply(settled) == [42, "yes"]


TWO_QUESTIONS = """
from typing import Annotated, TypedDict
import operator
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
class State(TypedDict, total=False):
    said: Annotated[list, operator.add]
def a(state: State): return {"said": [interrupt("a?")]}
def b(state: State): return {"said": [interrupt("b?")]}
graph = StateGraph(State).add_node(a).add_node(b).add_edge(START, "a").add_edge(START, "b").compile()
"""


async def test_two_questions_at_once_are_answered_by_id(pool: Pool, project: Project) -> None:
    registry = project(TWO_QUESTIONS, "graph")
    held = await claim(pool)
    settled = await Lane(registry, pool).execute(order(held, "graph", input={"said": []}))
    asked = {item["value"]: item["id"] for item in reply(settled)["__interrupt__"]}
    assert set(asked) == {"a?", "b?"}
    plain = await claim(pool, thread_id=held.thread_id)
    refused = await Lane(registry, pool).execute(order(plain, "graph", command={"resume": "x"}))
    assert reply(refused)["__error__"]["error"] == "RuntimeError"
    assert "multiple pending interrupts" in reply(refused)["__error__"]["message"]
    then = await claim(pool, thread_id=held.thread_id)
    resume = {asked["a?"]: 1, asked["b?"]: 2}
    settled = await Lane(registry, pool).execute(order(then, "graph", command={"resume": resume}))
    assert (values(settled)["said"], settled.has_next) == ([1, 2], False)


async def test_a_graph_may_keep_its_own_classes_in_its_state(pool: Pool, project: Project) -> None:
    source = """
from dataclasses import dataclass
from pydantic import BaseModel
from typing import Any, TypedDict
from langgraph.graph import START, StateGraph
@dataclass
class Plan:
    steps: int
class Note(BaseModel):
    text: str
class State(TypedDict, total=False):
    plan: Any
    kind: str
def one(state: State): return {"plan": [Plan(3), Note(text="x")]}
def two(state: State): return {"kind": " ".join(type(each).__name__ for each in state["plan"])}
graph = StateGraph(State).add_node(one).add_node(two).add_edge(START, "one").add_edge("one", "two").compile()
"""
    registry = project(source, "graph")
    held = await claim(pool)
    run = order(held, "graph", input={"kind": ""}, interrupt_before=["two"])
    settled = await Lane(registry, pool).execute(run)
    assert values(settled)["plan"] == [{"steps": 3}, {"text": "x"}]
    then = await claim(pool, thread_id=held.thread_id)
    settled = await Lane(registry, pool).execute(order(then, "graph", input=None))
    assert values(settled)["kind"] == "Plan Note"
