"""What code of a graph is told of its run: by config, by runtime, by functions of LangGraph's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from matins import manifest
from matins.graphs.configure import clients_own
from matins.graphs.registry import Registry
from matins.graphs.store import opened_store
from matins.graphs.users import user_of
from matins.storage.pool import Pool
from matins.workers.protocol import Settled
from tests.support.orders import ASSISTANT, Lane, claim, order

pytestmark = pytest.mark.anyio

Project = Callable[..., Registry]
ALICE = {"identity": "alice", "permissions": ["read"], "team": "blue"}

TOLD = """
from dataclasses import dataclass, asdict
from typing import Any, TypedDict
import functools, threading
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config, get_store, get_stream_writer
from langgraph.func import entrypoint
from langgraph.graph import StateGraph, START
from langgraph.runtime import Runtime, get_runtime
from langgraph.store.base import BaseStore
from langgraph_sdk.auth.types import BaseUser
from langgraph_sdk.runtime import ServerRuntime
from pydantic import BaseModel

class State(TypedDict, total=False):
    told: Any

@dataclass
class Context:
    model: str = "small"
    temperature: float = 0.5

class Checked(BaseModel):
    model: str

def built(node, context=None):
    graph = StateGraph(State, context_schema=context)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    return graph.compile()
"""


@pytest.fixture
def execute(project: Project, pool: Pool) -> Any:
    """Load the source and run one of its graphs."""

    async def run(source: str, graph: str, *, creator: Any = None, **kwargs: Any) -> tuple[Lane, Settled]:
        lane = Lane(project(TOLD + source, graph), pool)
        held = await claim(pool)
        asked = order(held, graph, **{"input": {}, **kwargs})
        if creator is not None:
            asked = msgspec.structs.replace(asked, creator=msgspec.json.encode(creator))
        return lane, await lane.execute(asked)

    return run


def told(settled: Settled) -> Any:
    assert settled.outcome == "success", settled.error
    return json.loads(settled.values or b"null")["told"]


CONFIGURABLE = """
def node(state, config: RunnableConfig):
    own = {k: v for k, v in config["configurable"].items() if not k.startswith(("__", "checkpoint"))}
    user = own.pop("langgraph_auth_user")
    return {"told": [own, user and [isinstance(user, BaseUser), dict(user), user.team, user["identity"]]]}
graph = built(node)
"""


async def test_config_names_the_run_and_its_user(execute: Any) -> None:
    _, settled = await execute(CONFIGURABLE, "graph", creator=ALICE, config={"configurable": {"mine": 1}})
    own, user = told(settled)
    assert own == {
        "mine": 1,
        "thread_id": own["thread_id"],
        "run_id": str(settled.run_id),
        "assistant_id": str(ASSISTANT),
        "graph_id": "graph",
        "user_id": "alice",
        "langgraph_auth_user_id": "alice",
        "langgraph_auth_permissions": ["read"],
    }
    assert user == [True, {**ALICE, "display_name": "alice", "is_authenticated": True}, "blue", "alice"]


async def test_without_a_user_config_says_so_whatever_the_client_claims(execute: Any) -> None:
    claims = {
        "langgraph_auth_user": {"identity": "root"},
        "langgraph_auth_user_id": "root",
        "langgraph_auth_permissions": ["all"],
        "user_id": "root",
        "run_id": "mine",
        "__pregel_runtime": {},
    }
    _, settled = await execute(CONFIGURABLE, "graph", config={"configurable": claims})
    own, user = told(settled)
    assert user is None
    assert (own["user_id"], own["langgraph_auth_user_id"], own["langgraph_auth_permissions"]) == ("", "", [])
    assert own["run_id"] == str(settled.run_id)


def test_what_a_factory_is_asked_for_a_state_with_is_not_the_clients_claim_of_a_user_either() -> None:
    assert clients_own({"langgraph_auth_user": {"identity": "root"}, "mine": 1}) == {"mine": 1}


@pytest.mark.parametrize("creator", [None, b"null", b"{}", b'{"name": "nobody"}', b'"alice"'])
def test_who_is_not_identified_is_no_user(creator: bytes | None) -> None:
    assert user_of(creator) is None


def test_a_user_is_read_by_items_and_by_attributes() -> None:
    user = user_of(json.dumps({**ALICE, "display_name": "Alice", "is_authenticated": False}).encode())
    assert user is not None
    assert (user.identity, user.display_name, user.is_authenticated) == ("alice", "Alice", False)
    assert (user["team"], user.team, user.get("nothing", 1), "team" in user) == ("blue", "blue", 1, True)
    with pytest.raises(AttributeError, match="'salary'"):
        _ = user.salary
    with pytest.raises(KeyError):
        _ = user["salary"]


@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_runtime_has_the_context_the_execution_and_the_server(execute: Any, kind: str) -> None:
    source = f"""
{kind} node(state, runtime: Runtime[Context]):
    about, server = runtime.execution_info, runtime.server_info
    assert get_runtime(Context).context is runtime.context
    return {{"told": [
        [type(runtime.context).__name__, asdict(runtime.context)],
        [about.thread_id, about.run_id, about.node_attempt],
        [server.assistant_id, server.graph_id, server.user.identity],
    ]}}
graph = built(node, Context)
"""
    _, settled = await execute(source, "graph", creator=ALICE, context={"model": "large", "unknown": 1})
    context, execution, server = told(settled)
    assert context == ["Context", {"model": "large", "temperature": 0.5}]
    assert execution[1:] == [str(settled.run_id), 1]
    assert server == [str(ASSISTANT), "graph", "alice"]


@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_what_a_node_writes_is_streamed(execute: Any, kind: str) -> None:
    source = f"""
{kind} node(state, runtime: Runtime):
    get_stream_writer()({{"by": "function"}})
    runtime.stream_writer({{"by": "runtime"}})
graph = built(node)
"""
    lane, settled = await execute(source, "graph", stream_mode=["custom"])
    assert settled.outcome == "success", settled.error
    assert [frame for frame in lane.frames if frame[0] == "custom"] == [
        ("custom", {"by": "function"}),
        ("custom", {"by": "runtime"}),
    ]


async def test_previous_is_what_the_last_run_of_the_thread_returned(project: Project, pool: Pool) -> None:
    source = """
@entrypoint()
async def graph(asked, *, previous=None, runtime: Runtime):
    assert runtime.previous == previous
    return {"told": [previous, asked]}
"""
    registry = project(TOLD + source, "graph")
    held = await claim(pool)
    first = await Lane(registry, pool).execute(order(held, "graph", input=1))
    again = await claim(pool, thread_id=held.thread_id)
    second = await Lane(registry, pool).execute(order(again, "graph", input=2))
    assert told(first) == [None, 1]
    assert told(second) == [{"told": [None, 1]}, 2]


FACTORY = """
async def {name}(runtime: ServerRuntime{brackets}):
    ran = runtime.execution_runtime
    told = [
        runtime.access_context,
        runtime.user and runtime.ensure_user().identity,
        None if ran is None else [type(ran.context).__name__, ran.context],
    ]
    def node(state):
        return {{"told": told}}
    return built(node)
"""


@pytest.mark.parametrize(
    ("brackets", "context"),
    [
        ("[Context]", ["Context", {"model": "large", "temperature": 0.5}]),
        ("[Checked]", ["Checked", {"model": "large"}]),
        ("", ["dict", {"model": "large", "more": 1}]),
        ("[dict]", ["dict", {"model": "large", "more": 1}]),
    ],
)
async def test_a_factory_is_told_why_for_whom_and_with_what_context(
    execute: Any, brackets: str, context: Any
) -> None:
    source = FACTORY.format(name="graph", brackets=brackets)
    _, settled = await execute(source, "graph", creator=ALICE, context={"model": "large", "more": 1})
    assert told(settled) == ["threads.create_run", "alice", context]


async def test_a_factory_without_a_user_gets_none(execute: Any) -> None:
    _, settled = await execute(FACTORY.format(name="graph", brackets=""), "graph")
    assert told(settled)[1] is None


async def test_a_factory_that_insists_on_a_user_fails_its_run_without_one(execute: Any) -> None:
    _, settled = await execute("def graph(runtime: ServerRuntime):\n    runtime.ensure_user()\n", "graph")
    assert settled.outcome == "error"
    assert b"PermissionError" in (settled.error or b"")


async def test_a_factory_whose_context_cannot_be_built_fails_its_run(execute: Any) -> None:
    source = FACTORY.format(name="graph", brackets="[Checked]")
    _, settled = await execute(source, "graph", context={"model": {"not": "a string"}})
    assert settled.outcome == "error"
    assert b"ValidationError" in (settled.error or b"")


async def test_a_factory_that_is_asked_for_its_structure_has_no_execution(project: Project) -> None:
    registry = project(TOLD + FACTORY.format(name="graph", brackets="[Context]"), "graph")
    async with registry.open("graph", {}, checkpointer=None, access="assistants.read") as graph:
        assert (await graph.ainvoke({}))["told"] == ["assistants.read", None, None]


STORES = """
from langgraph.store.memory import InMemoryStore
async def node(state, runtime: Runtime, *, store: BaseStore):
    assert get_store() is runtime.store is store
    return {"told": type(store).__name__}
inner = built(node)
own = StateGraph(State).add_node("node", node).add_edge(START, "node").compile(store=InMemoryStore())
outer = StateGraph(State).add_node("inner", inner).add_edge(START, "inner").compile()
"""


@pytest.mark.parametrize("graph", ["inner", "outer", "own"])
async def test_the_store_of_a_graph_and_its_subgraphs_is_the_servers(
    graph: str, project: Project, pool: Pool, database: str, tmp_path: Path
) -> None:
    project(TOLD + STORES, graph)
    async with opened_store(database) as store:
        registry = Registry.load(manifest.read(tmp_path / "langgraph.json"), store=store)
        held = await claim(pool)
        assert told(await Lane(registry, pool).execute(order(held, graph, input={}))) == "Store"
