from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from matins import manifest
from matins.domain.errors import GraphNotFound
from matins.graphs.checkpoints import Saver
from matins.graphs.registry import GraphFailed, Registry

pytestmark = pytest.mark.anyio
Project = Callable[..., Registry]

KINDS = """
import contextlib
from typing import Any, TypedDict
from langchain_core.runnables import RunnableConfig
from langgraph.func import entrypoint
from langgraph.graph import START, StateGraph
from langgraph_sdk.runtime import ServerRuntime
log = []
class State(TypedDict, total=False):
    x: Any
def builder(said=None):
    return StateGraph(State).add_node("n", lambda state: {"x": said}).add_edge(START, "n")
uncompiled = builder("uncompiled")
compiled = builder("compiled").compile()
named = builder("named").compile(name="My agent")
@entrypoint()
def function(x): return {"x": "function"}
def nothing(): return builder("nothing")
def sync(config: RunnableConfig): return builder(config["configurable"]["who"]).compile()
def untyped(anything): return builder(anything["configurable"]["who"])
async def asynchronous(config): return builder(config["configurable"]["who"])
async def runtime(runtime: ServerRuntime):
    ert = runtime.execution_runtime
    return builder([runtime.access_context, ert.context if ert else None])
async def both(config: RunnableConfig, rt: ServerRuntime[dict]):
    return builder(config["configurable"]["who"] + rt.access_context)
def optional(config: RunnableConfig, size: int = 3): return builder(size)
@contextlib.contextmanager
def opened():
    log.append("in")
    yield builder("opened")
    log.append("out")
@contextlib.asynccontextmanager
async def aopened(config: RunnableConfig):
    log.append("in")
    try:
        yield builder("aopened").compile()
    finally:
        log.append("out")
def wrong(): return 5
"""


async def said(registry: Registry, graph_id: str, **opening: Any) -> object:
    config: RunnableConfig = {"configurable": {"who": "me", "thread_id": "1"}}
    saver = InMemorySaver()
    async with registry.open(graph_id, config, checkpointer=saver, **opening) as graph:
        assert graph.checkpointer is saver
        found: object = (await graph.ainvoke({"x": 0}, config))["x"]
    return found


@pytest.mark.parametrize(
    ("graph_id", "expected"),
    [
        ("uncompiled", "uncompiled"),
        ("compiled", "compiled"),
        ("function", "function"),
        ("nothing", "nothing"),
        ("sync", "me"),
        ("untyped", "me"),
        ("asynchronous", "me"),
        ("runtime", ["threads.create_run", {"c": 1}]),
        ("both", "methreads.create_run"),
        ("optional", 3),
        ("opened", "opened"),
        ("aopened", "aopened"),
    ],
)
async def test_each_kind_of_graph_is_lent_compiled_with_our_checkpointer(
    project: Project, graph_id: str, expected: object
) -> None:
    assert await said(project(KINDS, graph_id), graph_id, context={"c": 1}) == expected


async def test_lending_leaves_the_graph_of_its_author_as_it_was(project: Project) -> None:
    registry = project(KINDS, "compiled")
    await said(registry, "compiled")
    entry = registry._entries["compiled"]
    assert entry.graph is not None
    assert entry.graph.checkpointer is None


@pytest.mark.parametrize("graph_id", ["opened", "aopened"])
async def test_a_context_manager_is_left_after_each_use(project: Project, graph_id: str) -> None:
    registry = project(KINDS, graph_id)
    factory = registry._entries[graph_id].factory
    assert factory is not None
    log: list[str] = factory.__wrapped__.__globals__["log"]  # type: ignore[attr-defined]
    for _ in range(2):
        async with registry.open(graph_id, {}, checkpointer=None):
            assert log[-1] == "in"
    assert log == ["in", "out", "in", "out"]


async def test_a_factory_knows_why_it_is_called(project: Project) -> None:
    registry = project(KINDS, "runtime")
    config: RunnableConfig = {"configurable": {}}
    async with registry.open("runtime", config, checkpointer=None, access="threads.read") as graph:
        assert await graph.ainvoke({"x": 0}) == {"x": ["threads.read", None]}


async def test_a_graph_is_described_by_the_name_its_author_gave_it(project: Project, tmp_path: Path) -> None:
    described = project(KINDS, "compiled", "named", "sync").describe()
    assert described == {
        "compiled": {"name": None, "description": None},
        "named": {"name": "My agent", "description": None},
        "sync": {"name": None, "description": None},
    }


async def test_an_unknown_graph_is_not_found(project: Project) -> None:
    with pytest.raises(GraphNotFound, match=r"'nope' not found. Expected one of: \['compiled'\]"):
        async with project(KINDS, "compiled").open("nope", {}, checkpointer=None):
            pass


async def test_a_function_that_makes_no_graph_says_so_when_used(project: Project) -> None:
    with pytest.raises(GraphFailed, match=r"graphs\.wrong: its function gave int, not a graph"):
        async with project(KINDS, "wrong").open("wrong", {}, checkpointer=None):
            pass


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        ("x = 1", "graph", r"graphs\.graph: .*\.py has no variable 'graph'"),
        ("graph = 5", "graph", r"graphs\.graph: 'graph' in .*\.py is int, not a graph"),
        ("class graph: pass", "graph", r"graphs\.graph: 'graph' in .* is type, not a graph"),
        ("\n1/0", "graph", r"graphs\.graph: .*\.py:3: ZeroDivisionError: division by zero"),
        (
            "import nowhere_to_be_found",
            "graph",
            r"graphs\.graph: .*\.py:2: ModuleNotFoundError: No module named",
        ),
        ("def broken(:", "graph", r"graphs\.graph: .*\.py:2: SyntaxError"),
        ("import sys; sys.exit(3)", "graph", r"graphs\.graph: .*\.py:2: SystemExit: 3"),
        ("def graph(a, b): pass", "graph", r"graphs\.graph: parameter 'a' of graph is neither"),
        (
            "from langgraph.graph import StateGraph\ngraph = StateGraph(dict)",
            "graph",
            r"graphs\.graph: does not compile: ValueError",
        ),
    ],
)
def test_a_graph_that_cannot_be_loaded_is_one_line_that_names_its_key(
    project: Project, source: str, name: str, message: str
) -> None:
    with pytest.raises(GraphFailed, match=message) as refused:
        project(source, name)
    assert refused.value.message.splitlines()[0] == refused.value.message
    assert ("Traceback" in refused.value.trace) == ("Error" in message or "Exit" in message)


def test_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "langgraph.json").write_text('{"graphs": {"a": "nowhere.at_all:graph"}}')
    with pytest.raises(GraphFailed, match=r"graphs\.a: .*No module named 'nowhere'"):
        Registry.load(manifest.read(tmp_path / "langgraph.json"))


def load(folder: Path, content: str) -> Registry:
    (folder / "langgraph.json").write_text(content)
    return Registry.load(manifest.read(folder / "langgraph.json"))


COMPILED = """
from __future__ import annotations
from langgraph.graph import START, StateGraph
graph = StateGraph(dict).add_node("n", lambda state: {}).add_edge(START, "n").compile(name=__name__)
"""


def test_a_file_is_imported_by_the_name_its_neighbours_use(tmp_path: Path) -> None:
    package = tmp_path / "neighbours_pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "agent.py").write_text(COMPILED + "from .helper import x\n")
    (package / "helper.py").write_text("x = 1")
    registry = load(tmp_path, '{"dependencies": ["."], "graphs": {"a": "./neighbours_pkg/agent.py:graph"}}')
    assert registry.describe()["a"]["name"] == "neighbours_pkg.agent"


def test_files_of_one_name_and_names_of_the_standard_library_do_not_clash(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "agent_twin.py").write_text(COMPILED + f"graph.name = '{folder}'\n")
    (tmp_path / "queue.py").write_text(COMPILED + "graph.name = 'mine'\n")
    registry = load(
        tmp_path,
        '{"dependencies": [".", "./one", "./two"], "graphs": {"a": "./one/agent_twin.py:graph",'
        ' "b": "./two/agent_twin.py:graph", "c": "./queue.py:graph"}}',
    )
    names = [about["name"] for about in registry.describe().values()]
    assert names == ["one", "two", "mine"]
    assert sys.modules["queue"].__file__ != str(tmp_path / "queue.py")


def test_a_checkpoint_may_be_read_into_the_classes_of_the_users_modules(project: Project) -> None:
    source = """
from dataclasses import dataclass
from langgraph.graph import START, StateGraph
@dataclass
class Plan:
    steps: int
graph = StateGraph(dict).add_node("n", lambda state: {}).add_edge(START, "n").compile()
"""
    registry = project(source, "graph")
    assert {name for _, name in registry.allowed} >= {"Plan"}
    assert all("langgraph" not in module for module, _ in registry.allowed)


def test_an_installed_package_that_a_graph_is_named_by_is_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "installed_pkg"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "plans.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Plan: steps: int\n"
    )
    (package / "graph.py").write_text(COMPILED + "from installed_pkg import plans\n")
    monkeypatch.syspath_prepend(package.parent)
    registry = load(tmp_path, '{"graphs": {"a": "installed_pkg.graph:graph"}}')
    assert registry.allowed == {("installed_pkg.plans", "Plan")}


async def test_what_a_factory_imports_may_be_read_by_the_graph_it_makes(
    project: Project, tmp_path: Path
) -> None:
    (tmp_path / "imported_late.py").write_text("from enum import Enum\nclass Colour(Enum): RED = 1\n")
    source = """
from langgraph.graph import START, StateGraph
def graph():
    import imported_late
    return StateGraph(dict).add_node("n", lambda state: {}).add_edge(START, "n").compile()
"""
    registry = project(source, "graph")
    colour = ("imported_late", "Colour")
    assert colour not in registry.allowed
    saver = InMemorySaver(serde=Saver.serde_for(registry.allowed))
    async with registry.open("graph", {}, checkpointer=saver) as graph:
        red = sys.modules["imported_late"].Colour.RED
        assert isinstance(graph.checkpointer, InMemorySaver)
        serde = graph.checkpointer.serde
        assert serde.loads_typed(serde.dumps_typed(red)) is red
    assert colour in registry.allowed
