from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matins import manifest
from matins.domain.errors import BadRequest, GraphNotFound
from matins.graphs.registry import Registry
from matins.graphs.structure import answer

pytestmark = pytest.mark.anyio

Project = Callable[..., Registry]
EXAMPLES = Path(__file__).parents[2] / "examples" / "langgraph.json"
TYPES = """
import typing
from dataclasses import dataclass
from typing import Annotated, TypedDict
import typing_extensions
from langgraph.func import entrypoint
from langgraph.graph import START, StateGraph
from pydantic import BaseModel

def add(old, new): return new
def node(state): return {}
def of(state, **more):
    return StateGraph(state, **more).add_node("node", node).add_edge(START, "node").compile()

class Item(TypedDict):
    name: str
class Old(TypedDict, total=False):
    x: typing.Required[int]
    items: Annotated[list[Item], add]
    either: Item | None
class New(typing_extensions.TypedDict):
    x: int
class Model(BaseModel):
    x: int = 3
@dataclass
class Data:
    x: int = 4
class Context(TypedDict):
    tone: str
class Thing: ...
class Odd(TypedDict):
    thing: Thing

old, new, model, data = of(Old), of(New), of(Model), of(Data)
knowing = of(New, context_schema=Context)
odd = of(Odd)
inner = of(New)
middle = StateGraph(New).add_node("inner", inner).add_edge(START, "inner").compile()
outer = StateGraph(New).add_node("middle", middle).add_edge(START, "middle").compile()
@entrypoint()
def functional(number: int) -> str: return str(number)
def factory(config):
    return of(New) if config["configurable"]["kind"] == "new" else of(Model)
"""


async def ask(registry: Registry, method: str, graph_id: str, **more: Any) -> Any:
    params = json.dumps({"graph_id": graph_id, **more}).encode()
    return json.loads(await answer(method, params, registry=registry))


@pytest.mark.parametrize(
    ("graph_id", "fields"),
    [
        ("old", {"x", "items", "either"}),
        ("new", {"x"}),
        ("model", {"x"}),
        ("data", {"x"}),
        ("knowing", {"x"}),
    ],
)
async def test_a_graph_has_schemas_whatever_its_state_is_written_as(
    project: Project, graph_id: str, fields: set[str]
) -> None:
    schemas = await ask(project(TYPES, graph_id), "schemas", graph_id)
    assert list(schemas) == [
        "graph_id",
        "input_schema",
        "output_schema",
        "state_schema",
        "config_schema",
        "context_schema",
    ]
    assert schemas["graph_id"] == graph_id
    for name in ("input_schema", "output_schema", "state_schema"):
        assert set(schemas[name]["properties"]) == fields, name
    assert schemas["state_schema"]["title"] == f"{graph_id}_state"
    if graph_id == "knowing":
        assert schemas["config_schema"] == schemas["context_schema"]
        assert set(schemas["context_schema"]["properties"]) == {"tone"}
    else:
        assert (schemas["config_schema"], schemas["context_schema"]) == ({}, None)


async def test_a_typed_dict_of_typing_is_read_as_deep_as_it_goes(project: Project) -> None:
    schema = (await ask(project(TYPES, "old"), "schemas", "old"))["input_schema"]
    assert schema["required"] == ["x"]
    assert schema["$defs"]["Item"]["properties"] == {"name": {"title": "Name", "type": "string"}}
    assert schema["properties"]["items"]["items"] == {"$ref": "#/$defs/Item"}


async def test_what_has_no_schema_is_null_and_the_rest_is_there(project: Project) -> None:
    registry = project(TYPES, "odd", "functional")
    odd = await ask(registry, "schemas", "odd")
    assert odd["input_schema"] is None
    assert odd["graph_id"] == "odd"
    functional = await ask(registry, "schemas", "functional")
    assert functional["input_schema"]["type"] == "integer"
    assert functional["output_schema"]["type"] == "string"


async def test_subgraphs_are_found_by_their_nodes_and_as_deep_as_asked(project: Project) -> None:
    registry = project(TYPES, "outer", "new")
    assert list(await ask(registry, "subgraphs", "outer")) == ["middle"]
    every = await ask(registry, "subgraphs", "outer", recurse=True)
    assert list(every) == ["middle", "middle|inner"]
    assert every["middle|inner"]["state_schema"]["title"] == "middle|inner_state"
    assert await ask(registry, "subgraphs", "outer", namespace="middle") == {"middle": every["middle"]}
    assert await ask(registry, "subgraphs", "outer", namespace="nobody", recurse=True) == {}
    assert await ask(registry, "subgraphs", "new") == {}


async def test_a_graph_is_drawn_with_its_subgraphs_when_asked(project: Project) -> None:
    registry = project(TYPES, "outer")
    drawn = await ask(registry, "graph", "outer")
    assert [node["id"] for node in drawn["nodes"]] == ["__start__", "middle", "__end__"]
    assert drawn["edges"] == [
        {"source": "__start__", "target": "middle"},
        {"source": "middle", "target": "__end__"},
    ]
    inside = await ask(registry, "graph", "outer", xray=1)
    assert "middle:inner" in [node["id"] for node in inside["nodes"]]


async def test_a_factory_gets_the_assistants_configuration(project: Project) -> None:
    registry = project(TYPES, "factory")
    config = {"configurable": {"kind": "model"}}
    schema = (await ask(registry, "schemas", "factory", config=config))["input_schema"]
    assert schema["properties"]["x"]["default"] == 3
    with pytest.raises(BadRequest, match="could not be made: KeyError"):
        await ask(registry, "graph", "factory")


async def test_every_example_can_be_asked_about() -> None:
    registry = Registry.load(manifest.read(EXAMPLES))
    for graph_id in registry.ids:
        schemas = await ask(registry, "schemas", graph_id)
        assert None not in {name: schemas[name] for name in schemas if name != "context_schema"}.values()
        assert (await ask(registry, "graph", graph_id, xray=True))["nodes"]
    with pytest.raises(GraphNotFound):
        await ask(registry, "schemas", "nope")
    with pytest.raises(BadRequest):
        await answer("schemas", b"[]", registry=registry)
    with pytest.raises(BadRequest, match="nonsense"):
        await ask(registry, "nonsense", "echo")
