"""What the API asks about a graph itself: its drawing, schemas, subgraphs, messages. No thread, no database.

A schema that cannot be written, because a type has none, is null: the others are still worth knowing.
"""

from __future__ import annotations

import functools
import operator
import types
import typing
from collections.abc import Callable
from typing import Any, Final

import msgspec
import typing_extensions
from langchain_core.runnables import RunnableConfig
from pydantic import ConfigDict, TypeAdapter, create_model
from pydantic.errors import PydanticUserError

from matins.domain.errors import BadRequest
from matins.graphs.configure import clients_own
from matins.graphs.lending import opened
from matins.graphs.openings import holds_messages
from matins.graphs.registry import Graph, Registry
from matins.graphs.serde import encode

Json = dict[str, Any]
METHODS: Final = frozenset({"graph", "schemas", "subgraphs", "holds_messages"})


class _Asked(msgspec.Struct, kw_only=True):
    """The parameters of every call; each uses its own."""

    graph_id: str
    config: Json = {}
    """The assistant's, which a factory may ask for."""
    xray: int | bool = False
    namespace: str | None = None
    recurse: bool = False


async def answer(method: str, params: bytes, *, registry: Registry) -> bytes:
    """Answer a Call: `graph`, `schemas`, `subgraphs`, or `holds_messages`, which is a yes or no.

    Raises: BadRequest, GraphNotFound.
    """
    try:
        asked = msgspec.json.decode(params, type=_Asked)
    except msgspec.DecodeError as bad:
        raise BadRequest(str(bad)) from bad
    config: RunnableConfig = {"configurable": clients_own(asked.config.get("configurable"))}
    async with opened(registry, asked.graph_id, config, checkpointer=None, access="assistants.read") as graph:
        match method:
            case "graph":
                drawn = await graph.aget_graph(config, xray=asked.xray)
                return encode(drawn.to_json())
            case "schemas":
                return encode({"graph_id": asked.graph_id, **_schemas(graph, asked.graph_id)})
            case "subgraphs":
                found = graph.aget_subgraphs(namespace=asked.namespace, recurse=asked.recurse)
                return encode({name: _schemas(inner, name) async for name, inner in found})
            case "holds_messages":
                return encode(holds_messages(graph))
            case _:
                raise BadRequest(f"Unknown call: {method}")


def _schemas(graph: Any, name: str) -> Json:
    """Give the five schemas of a graph. With a schema of its context, its configuration has the same one."""
    builder = getattr(graph, "builder", None)  # of a StateGraph; a functional graph has types alone
    context = _written(graph.get_context_jsonschema, graph.context_schema)
    return {
        "input_schema": _written(
            graph.get_input_jsonschema, getattr(builder, "input_schema", None) or graph.InputType
        ),
        "output_schema": _written(
            graph.get_output_jsonschema, getattr(builder, "output_schema", None) or graph.OutputType
        ),
        "state_schema": _written(functools.partial(_state_schema, graph, name), None),
        "config_schema": context or {},
        "context_schema": context,
    }


def _state_schema(graph: Graph, name: str) -> Json:
    """Give the schema of what a graph's state shows."""
    fields: Json = {
        channel: (_extended(graph.channels[channel].UpdateType), None)  # type: ignore[union-attr]
        for channel in graph.stream_channels_list
    }
    if list(fields) == ["__root__"]:
        return TypeAdapter(fields["__root__"][0]).json_schema()
    model = create_model(f"{name}_state", __config__=ConfigDict(arbitrary_types_allowed=True), **fields)
    return model.model_json_schema()


def _written(write: Callable[[], Json | None], of: Any) -> Json | None:
    """Write a schema; where pydantic refuses a TypedDict of `typing`, that of its like."""
    try:
        try:
            return write()
        except PydanticUserError:
            if of is None:
                raise
            return TypeAdapter(_extended(of)).json_schema()
    except Exception:  # noqa: BLE001 - a wall: any type may stand in a user's state
        return None


def _extended(hint: Any) -> Any:
    """Give the type with every TypedDict of `typing` in it made one that pydantic takes before Python 3.12."""
    if typing.is_typeddict(hint):
        fields = {}
        for name, of in typing_extensions.get_type_hints(hint, include_extras=True).items():
            # Said of the field itself, or else of the whole: postponed annotations hide it from `__required_keys__`.
            said: Any = typing_extensions.get_origin(of)
            is_optional = said is typing_extensions.NotRequired or (
                said is not typing_extensions.Required and name not in hint.__required_keys__
            )
            fields[name] = typing_extensions.NotRequired[_extended(of)] if is_optional else _extended(of)
        return typing_extensions.TypedDict(hint.__name__, fields)  # type: ignore[operator]
    origin, arguments = typing_extensions.get_origin(hint), typing_extensions.get_args(hint)
    if origin in (typing_extensions.Required, typing_extensions.NotRequired, typing_extensions.ReadOnly):
        return _extended(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, (_extended(argument) for argument in arguments))
    if origin is typing.Annotated:
        return typing.Annotated[(_extended(arguments[0]), *arguments[1:])]
    if isinstance(origin, type) and arguments and origin is not type:
        return types.GenericAlias(origin, tuple(_extended(argument) for argument in arguments))
    return hint
