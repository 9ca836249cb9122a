"""Assistants: create, update, delete, and find the one that a run or a cron names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final, Protocol
from uuid import UUID, uuid4

import msgspec

from matins.domain.access import EVERYONE, Scope
from matins.domain.assistants import Assistant
from matins.domain.configs import mirrored, refuse_both
from matins.domain.errors import AlreadyExists, AssistantNotFound, GraphNotFound, Invalid, NotFound
from matins.domain.ids import AssistantId, system_assistant_id
from matins.storage import assistants, crons
from matins.storage.pool import Conn


class GraphFacts(msgspec.Struct, frozen=True):
    """What a worker says of a graph: its explicit name, and its description from langgraph.json."""

    name: str | None = None
    description: str | None = None


class Graphs(Protocol):
    """Whoever knows which graphs are served (the workers' pool)."""

    @property
    def graphs(self) -> bytes:
        """The graphs as JSON: graph id -> GraphFacts."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantRequest:
    """What a client asks for when it creates an assistant."""

    graph_id: str
    assistant_id: AssistantId | None = None
    name: str = "Untitled"
    description: str | None = None
    config: Mapping[str, object] = field(default_factory=dict)
    context: Mapping[str, object] = field(default_factory=dict)
    metadata: Mapping[str, object] = field(default_factory=dict)
    if_exists: str = "raise"


@dataclass(frozen=True, slots=True, kw_only=True)
class AssistantChange:
    """What a client wants changed. None leaves a part as it is; `clears_description` takes the description away."""

    graph_id: str | None = None
    name: str | None = None
    description: str | None = None
    clears_description: bool = False
    config: Mapping[str, object] | None = None
    context: Mapping[str, object] | None = None
    metadata: Mapping[str, object] | None = None


class Named:
    """Graphs of which only the ids are known, on a node that runs none."""

    def __init__(self, ids: list[str]) -> None:
        self.graphs: Final = msgspec.json.encode({graph_id: GraphFacts() for graph_id in ids})


def known(graphs: Graphs) -> dict[str, GraphFacts]:
    """Give the graphs that are served, by id."""
    return decode_graphs(graphs.graphs)


@lru_cache(maxsize=4)
def decode_graphs(graphs: bytes) -> dict[str, GraphFacts]:
    """Give what a worker says of its graphs, decoded once a generation."""
    return msgspec.json.decode(graphs, type=dict[str, GraphFacts])


async def create(conn: Conn, request: AssistantRequest, *, graphs: Graphs, scope: Scope) -> Assistant:
    """Create an assistant, or give the one that has its id when the request allows it. Must be in a transaction.

    Raises: GraphNotFound; AlreadyExists; BadRequest when both configurable and context are given.
    """
    served = known(graphs)
    if request.graph_id not in served:
        raise GraphNotFound(request.graph_id, list(served))
    refuse_both(request.config, request.context)
    config, context = mirrored(request.config, request.context)
    new = assistants.NewAssistant(
        assistant_id=request.assistant_id or AssistantId(uuid4()),
        graph_id=request.graph_id,
        name=request.name,
        description=request.description,
        config=msgspec.json.encode(config),
        context=msgspec.json.encode(context),
        metadata=msgspec.json.encode(request.metadata),
    )
    inserted = await assistants.insert(conn, new, scope=scope)
    if inserted is not None:
        return inserted
    existing = await assistants.get(conn, new.assistant_id, scope=scope)
    if existing is None or request.if_exists != "do_nothing":
        message = f"Assistant {new.assistant_id} already exists"
        raise AlreadyExists(message)
    return existing


async def update(
    conn: Conn, assistant_id: AssistantId, change: AssistantChange, *, graphs: Graphs, scope: Scope
) -> Assistant:
    """Make a new version of an assistant and let it be the active one. Must be in a transaction.

    A change of nothing makes one too. `metadata` is merged key by key, `config` and `context` are replaced; each of
    these mirrors the other where that is not given.
    Raises: AssistantNotFound; GraphNotFound; BadRequest when both configurable and context are given.
    """
    now = await assistants.lock(conn, assistant_id, scope=scope)
    if now is None:
        raise AssistantNotFound(assistant_id)
    served = known(graphs)
    if change.graph_id is not None and change.graph_id not in served:
        raise GraphNotFound(change.graph_id, list(served))
    config, context = change.config, change.context
    if config is None and context is None:
        config_json, context_json = now.config, now.context
    else:
        refuse_both(config or {}, context or {})
        if config is None:
            config = msgspec.json.decode(now.config, type=dict[str, object])
            config = {key: value for key, value in config.items() if key != "configurable"}
        config, context = mirrored(config, context or {})
        config_json, context_json = msgspec.json.encode(config), msgspec.json.encode(context)
    description = None if change.clears_description else now.description
    metadata = msgspec.json.decode(now.metadata, type=dict[str, object])
    return await assistants.update(
        conn,
        replace(
            now,
            graph_id=now.graph_id if change.graph_id is None else change.graph_id,
            name=now.name if change.name is None else change.name,
            description=description if change.description is None else change.description,
            config=config_json,
            context=context_json,
            metadata=msgspec.json.encode({**metadata, **(change.metadata or {})}),
        ),
    )


async def set_latest(conn: Conn, assistant_id: AssistantId, version: int, *, scope: Scope) -> Assistant:
    """Make a version of an assistant the active one, in every field. Must be in a transaction.

    Raises: AssistantNotFound; NotFound when there is no such version.
    """
    if await assistants.lock(conn, assistant_id, scope=scope) is None:
        raise AssistantNotFound(assistant_id)
    restored = await assistants.restore(conn, assistant_id, version)
    if restored is None:
        message = f"Version {version} not found for assistant {assistant_id}"
        raise NotFound(message)
    return restored


async def delete(conn: Conn, assistant_id: AssistantId, *, scope: Scope) -> None:
    """Delete an assistant and pause its crons, saying why. Must be in a transaction: it is one fact.

    Raises: AssistantNotFound.
    """
    if not await assistants.delete(conn, assistant_id, scope=scope):
        raise AssistantNotFound(assistant_id)
    await crons.pause_of_assistant(conn, assistant_id, f"its assistant {assistant_id} was deleted")


async def ensure_system(conn: Conn, graphs: Mapping[str, GraphFacts]) -> None:
    """Make the assistant that stands for each graph, or have it say what the graph says now."""
    for graph_id, facts in graphs.items():
        system = _system(graph_id, facts)
        if await assistants.insert(conn, system, scope=EVERYONE) is None:
            await assistants.refresh(conn, system)


async def resolve(conn: Conn, name_or_id: str, *, graphs: Graphs, scope: Scope) -> Assistant:
    """Give the assistant that a run or a cron names by its id or by its graph's name.

    A system assistant that was deleted is made again.
    Raises: Invalid when it is neither an id nor a graph; NotFound when no such assistant is there.
    """
    served = known(graphs)
    if name_or_id in served:
        assistant_id = system_assistant_id(name_or_id)
        found = await assistants.get(conn, assistant_id, scope=EVERYONE)
        return found or await _again(conn, name_or_id, served[name_or_id])
    try:
        assistant_id = AssistantId(UUID(name_or_id))
    except ValueError:
        message = (
            f"Invalid assistant: '{name_or_id}'. Must be either:\n- A valid assistant UUID, or\n"
            f"- One of the registered graphs: {', '.join(sorted(served))}"
        )
        raise Invalid(message) from None
    found = await assistants.get(conn, assistant_id, scope=scope)
    if found is not None:
        return found
    for graph_id, facts in served.items():
        if system_assistant_id(graph_id) == assistant_id:
            return await _again(conn, graph_id, facts)
    message = "Thread or assistant not found."
    raise NotFound(message)


async def _again(conn: Conn, graph_id: str, facts: GraphFacts) -> Assistant:
    await assistants.insert(conn, _system(graph_id, facts), scope=EVERYONE)
    made = await assistants.get(conn, system_assistant_id(graph_id), scope=EVERYONE)
    if made is None:
        raise AssistantNotFound(system_assistant_id(graph_id))
    return made


def _system(graph_id: str, facts: GraphFacts) -> assistants.NewAssistant:
    return assistants.NewAssistant(
        assistant_id=system_assistant_id(graph_id),
        graph_id=graph_id,
        name=facts.name or graph_id,
        description=facts.description,
        metadata=b'{"created_by":"system"}',
    )
