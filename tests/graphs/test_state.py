from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from matins import manifest
from matins.domain.errors import BadRequest, Conflict, GraphNotFound, ThreadNotFound
from matins.domain.runs import Held
from matins.graphs.registry import Registry
from matins.graphs.state import answer
from matins.storage.pool import Pool
from tests.support.engine import Twice
from tests.support.orders import Lane, claim, finish, order

pytestmark = pytest.mark.anyio

Project = Callable[..., Registry]
EXAMPLES = Path(__file__).parents[2] / "examples" / "langgraph.json"
EMPTY: dict[str, Any] = {
    "values": {}, "next": [], "tasks": [], "metadata": None, "created_at": None, "checkpoint": None,
    "parent_checkpoint": None, "interrupts": [], "checkpoint_id": None, "parent_checkpoint_id": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def examples() -> Registry:
    return Registry.load(manifest.read(EXAMPLES))


class Desk:
    """Asks as the serving process would, about one thread."""

    def __init__(self, pool: Pool, registry: Registry, graph_id: str) -> None:
        self.pool, self.registry, self.graph_id = pool, registry, graph_id
        self.thread_id = uuid4()

    async def run(self, **kwargs: Any) -> Held:
        held = await claim(self.pool, thread_id=self.thread_id)
        settled = await Lane(self.registry, self.pool).execute(order(held, self.graph_id, **kwargs))
        assert settled.outcome in ("success", "error")
        await finish(self.pool, held)
        return held

    async def ask(self, method: str, **params: Any) -> Any:
        params = {"graph_id": self.graph_id, "thread_id": str(self.thread_id), **params}
        return json.loads(
            await answer(method, json.dumps(params).encode(), registry=self.registry, pool=self.pool)
        )

    async def thread(self) -> dict[str, Any]:
        async with self.pool.connection() as conn:
            row = await conn.fetchrow("SELECT * FROM matins.thread WHERE thread_id = $1", self.thread_id)
        assert row is not None
        return dict(row)


async def test_a_thread_without_checkpoints_has_an_empty_state_and_no_history(
    pool: Pool, examples: Registry
) -> None:
    desk = Desk(pool, examples, "echo")
    assert await desk.ask("state") == EMPTY
    assert await desk.ask("history", limit=10) == []


async def test_an_unknown_checkpoint_gives_an_empty_state_that_names_it(
    pool: Pool, examples: Registry
) -> None:
    desk = Desk(pool, examples, "echo")
    state = await desk.ask("state", checkpoint_id="abc")
    assert state["checkpoint"] == {"checkpoint_id": "abc", "thread_id": str(desk.thread_id)}
    assert (state["values"], state["created_at"]) == ({}, None)


async def test_an_interrupted_thread_shows_its_task_and_question(pool: Pool, examples: Registry) -> None:
    desk = Desk(pool, examples, "ask")
    held = await desk.run(input={"question": "name?"}, config={"configurable": {}})
    state = await desk.ask("state")
    assert list(state) == list(EMPTY)
    assert (state["values"], state["next"]) == ({"question": "name?"}, ["ask"])
    (task,) = state["tasks"]
    assert list(task) == ["id", "name", "path", "error", "interrupts", "checkpoint", "state", "result"]
    assert (task["name"], task["path"]) == ("ask", ["__pregel_pull", "ask"])
    assert (task["error"], task["checkpoint"], task["state"], task["result"]) == (None, None, None, None)
    assert task["interrupts"] == state["interrupts"]
    assert state["interrupts"][0]["value"] == {"q": "name?"}
    assert list(state["interrupts"][0]) == ["id", "value"]
    assert state["metadata"]["run_id"] == str(held.run_id)
    assert (state["metadata"]["source"], state["metadata"]["step"]) == ("loop", 0)
    assert state["created_at"].endswith("+00:00")
    assert list(state["checkpoint"]) == ["checkpoint_id", "thread_id", "checkpoint_ns"]
    assert state["checkpoint_id"] == state["checkpoint"]["checkpoint_id"]
    assert state["parent_checkpoint_id"] == state["parent_checkpoint"]["checkpoint_id"]


async def test_history_is_newest_first_and_pages_by_every_form_of_before(
    pool: Pool, examples: Registry
) -> None:
    desk = Desk(pool, examples, "nested")
    await desk.run(input={"x": 1})
    states = await desk.ask("history", limit=10)
    assert [state["metadata"]["step"] for state in states] == [2, 1, 0, -1]
    assert await desk.ask("history") == states[:1]
    first = states[0]["checkpoint_id"]
    for before in (
        first,
        {"checkpoint_id": first},
        {"configurable": {"checkpoint_id": first}},
        states[0]["checkpoint"],
    ):
        assert await desk.ask("history", limit=10, before=before) == states[1:]
    assert await desk.ask("history", limit=10, metadata={"step": 1}) == states[1:2]
    assert await desk.ask("state", checkpoint_id=states[2]["checkpoint_id"]) == states[2]
    with pytest.raises(BadRequest, match="before"):
        await desk.ask("history", before={"bogus": 1})


SUBGRAPH = """
from typing import TypedDict
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
class State(TypedDict, total=False):
    x: int
    y: str
def ask(state: State): return {"y": interrupt("inner?")}
def count(state: State): return {"x": 2}
sub = StateGraph(State).add_node(count).add_node(ask).add_edge(START, "count").add_edge("count", "ask")
sub = sub.compile()
graph = StateGraph(State).add_node("sub", sub).add_edge(START, "sub").compile()
"""


async def test_the_state_of_an_interrupted_subgraph_can_be_read_by_what_its_parent_says(
    pool: Pool, project: Any
) -> None:
    desk = Desk(pool, project(SUBGRAPH, "graph"), "graph")
    await desk.run(input={"x": 1})
    (task,) = (await desk.ask("state"))["tasks"]
    namespace = f"sub:{task['id']}"
    assert task["checkpoint"] == {"thread_id": str(desk.thread_id), "checkpoint_ns": namespace}
    assert task["state"] is None
    state = await desk.ask("state", subgraphs=True)
    (task,) = state["tasks"]
    nested = task["state"]
    assert task["checkpoint"] is None
    assert (nested["values"], nested["next"]) == ({"x": 2}, ["ask"])
    assert set(nested["checkpoint"]["checkpoint_map"]) == {"", namespace}
    assert nested["checkpoint"]["checkpoint_ns"] == namespace
    assert state["interrupts"] == nested["interrupts"] != []
    alone = await desk.ask("state", checkpoint=nested["checkpoint"])
    assert (alone["values"], alone["checkpoint"]) == (nested["values"], nested["checkpoint"])
    history = await desk.ask("history", limit=5, checkpoint={"checkpoint_ns": namespace})
    assert [each["values"] for each in history] == [{"x": 2}, {"x": 1}, {}]


async def test_a_failed_task_shows_its_error_as_python_writes_it(pool: Pool, examples: Registry) -> None:
    desk = Desk(pool, examples, "failing")
    await desk.run(input={"x": 1})
    (task,) = (await desk.ask("state"))["tasks"]
    assert task["error"] == "ValueError('boom happened')"


async def test_an_update_writes_the_checkpoint_and_what_the_thread_shows(
    pool: Pool, examples: Registry
) -> None:
    desk = Desk(pool, examples, "ask")
    await desk.run(input={"question": "name?"})
    before = await desk.ask("state")
    written = await desk.ask("update_state", values={"answer": "Bob"}, as_node="ask")
    assert list(written) == ["checkpoint", "configurable", "checkpoint_id"]
    assert written["checkpoint"] == written["configurable"]
    assert written["checkpoint"] == {
        "checkpoint_id": written["checkpoint_id"], "thread_id": str(desk.thread_id), "checkpoint_ns": "",
    }  # fmt: skip
    after = await desk.ask("state")
    assert (after["values"], after["next"]) == ({"question": "name?", "answer": "Bob"}, ["thank"])
    assert after["parent_checkpoint_id"] == before["checkpoint_id"]
    assert (after["metadata"]["source"], after["metadata"]["graph_id"]) == ("update", "ask")
    thread = await desk.thread()
    assert json.loads(thread["values"]) == after["values"]
    assert (thread["status"], json.loads(thread["interrupts"]), thread["error"]) == ("interrupted", {}, None)
    await desk.ask("update_state", values={"answer": "done"}, as_node="thank")
    assert (await desk.thread())["status"] == "idle"


async def test_an_update_may_start_from_an_older_checkpoint(pool: Pool, examples: Registry) -> None:
    desk = Desk(pool, examples, "nested")
    await desk.run(input={"x": 1})
    older = (await desk.ask("history", limit=10))[2]
    await desk.ask("update_state", values={"x": 40}, as_node="outer", checkpoint=older["checkpoint"])
    state = await desk.ask("state")
    assert (state["values"]["x"], state["next"]) == (40, ["child"])
    assert state["parent_checkpoint_id"] == older["checkpoint_id"]


async def test_an_update_of_nothing_is_a_new_checkpoint_with_the_same_values(
    pool: Pool, examples: Registry
) -> None:
    desk = Desk(pool, examples, "echo")
    await desk.run(input={"messages": [{"role": "user", "content": "hi"}]})
    before = await desk.ask("state")
    await desk.ask("update_state", values=None)
    await desk.ask("update_state", values={})
    after = await desk.ask("state")
    assert after["values"] == before["values"]
    assert after["checkpoint_id"] > before["checkpoint_id"]


async def test_a_refused_update_changes_nothing(pool: Pool, examples: Registry) -> None:
    desk = Desk(pool, examples, "echo")
    await desk.run(input={"messages": [{"role": "user", "content": "hi"}]})
    history, thread = await desk.ask("history", limit=10), await desk.thread()
    with pytest.raises(BadRequest, match=r"^Node nonode does not exist$"):
        await desk.ask("update_state", values={"messages": []}, as_node="nonode")
    with pytest.raises(BadRequest):
        await desk.ask("update_state", values={"messages": [{"no": "message"}]}, as_node="answer")
    with pytest.raises(BadRequest):
        await desk.ask("update_state", values=5, as_node="answer")
    with pytest.raises(BadRequest, match="NotImplementedError"):
        await desk.ask("update_state", values={"messages": [5]}, as_node="answer")
    assert (await desk.ask("history", limit=10), await desk.thread()) == (history, thread)


UNWILLING = """
import sys
from typing import Annotated, TypedDict
from langgraph.graph import START, StateGraph
class Odd(Exception): pass
calls = []
def reduce(old, new):
    calls.append(new)
    if new == "missing": open("/nowhere/to/be/found")
    if new == "odd": raise Odd("odd")
    if new == "leaves": sys.exit("bye")
    return new
class State(TypedDict, total=False):
    x: Annotated[str, reduce]
graph = StateGraph(State).add_node("a", lambda state: {}).add_edge(START, "a").compile()
"""


@pytest.mark.parametrize(
    ("what", "said"), [("missing", "FileNotFoundError"), ("odd", "Odd: odd"), ("leaves", "SystemExit: bye")]
)
async def test_what_a_reducer_raises_is_the_callers_to_know_and_is_not_tried_again(
    pool: Pool, project: Project, what: str, said: str
) -> None:
    registry = project(UNWILLING, "graph")
    desk = Desk(pool, registry, "graph")
    await desk.run(input={})
    with pytest.raises(BadRequest, match=said):
        await desk.ask("update_state", values={"x": what}, as_node="a")
    graph = registry._entries["graph"].graph
    assert graph is not None
    assert graph.channels["x"].operator.__globals__["calls"] == [what]  # type: ignore[union-attr]


async def test_an_update_whose_commit_was_not_answered_is_done_once(pool: Pool, examples: Registry) -> None:
    desk = Desk(Twice(pool), examples, "echo")
    await desk.run(input={"messages": [{"role": "user", "content": "hi"}]})
    before = await desk.ask("history", limit=10)
    updated = await desk.ask("update_state", values={"messages": [{"role": "ai", "content": "once"}]})
    after = await desk.ask("history", limit=10)
    assert len(after) == len(before) + 1
    assert after[0]["checkpoint_id"] == updated["checkpoint_id"]
    assert [message["content"] for message in after[0]["values"]["messages"]].count("once") == 1


@pytest.mark.parametrize("status", ["pending", "running"])
async def test_a_thread_with_a_run_in_flight_is_not_updated(
    pool: Pool, examples: Registry, status: str
) -> None:
    desk = Desk(pool, examples, "echo")
    await claim(pool, thread_id=desk.thread_id)
    if status == "pending":
        async with pool.connection() as conn:
            await conn.execute("UPDATE matins.run SET status = 'pending', node_id = NULL")
    with pytest.raises(Conflict, match=rf"^Thread {desk.thread_id} has in-flight runs$"):
        await desk.ask("update_state", values={"messages": []}, as_node="answer")
    assert await desk.ask("history") == []


async def test_what_does_not_exist_is_named(pool: Pool, examples: Registry) -> None:
    desk = Desk(pool, examples, "echo")
    with pytest.raises(ThreadNotFound):
        await desk.ask("update_state", values={})
    with pytest.raises(GraphNotFound, match="'nope'"):
        await desk.ask("state", graph_id="nope")
    with pytest.raises(BadRequest, match="nonsense"):
        await desk.ask("nonsense")
    with pytest.raises(BadRequest):
        await desk.ask("state", thread_id="x")
    assert isinstance(desk.thread_id, UUID)


CONFIGURED = """
from typing import Any, TypedDict
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
class State(TypedDict, total=False):
    x: Any
def graph(config: RunnableConfig):
    assert not any(key.startswith("__") for key in config["configurable"])
    node = "node_of_" + config["configurable"]["who"]
    return StateGraph(State).add_node(node, lambda state: {"x": 1}).add_edge(START, node)
"""


async def test_a_factory_gets_the_configurable_of_the_last_run(pool: Pool, project: Project) -> None:
    desk = Desk(pool, project(CONFIGURED, "graph"), "graph")
    config = {"configurable": {"who": "me", "thread_id": "forged", "checkpoint_id": "x", "__pregel_read": 1}}
    await desk.run(input={"x": 0}, config={"configurable": {"who": "me"}}, interrupt_before=["node_of_me"])
    assert (await desk.ask("state", config=config))["next"] == ["node_of_me"]
    assert len(await desk.ask("history", config=config, limit=10)) == 2
    await desk.ask("update_state", config=config, values={"x": 2}, as_node="node_of_me")
    assert (await desk.ask("state", config=config))["values"] == {"x": 2}


@pytest.mark.parametrize("method", ["state", "history", "update_state"])
async def test_a_factory_that_fails_is_a_bad_request_that_says_how(
    pool: Pool, project: Project, method: str
) -> None:
    desk = Desk(pool, project(CONFIGURED, "graph"), "graph")
    await desk.run(input={"x": 0}, config={"configurable": {"who": "me"}})
    with pytest.raises(BadRequest, match=r"^Graph 'graph' could not be made: KeyError: 'who'$"):
        await desk.ask(method)
