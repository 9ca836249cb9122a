"""Shapes of assistants."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from matins.api.wire.json import Config, Json, Limit, Offset, Order, compact, instant
from matins.domain.assistants import Assistant as Stored
from matins.domain.assistants import Version as StoredVersion


class Version(msgspec.Struct, kw_only=True):
    """What an assistant was at some time. Source: observed, keys in this order."""

    assistant_id: UUID
    graph_id: str
    config: msgspec.Raw
    context: msgspec.Raw
    metadata: msgspec.Raw
    name: str
    created_at: str
    version: int
    description: str | None


def version(stored: StoredVersion) -> Version:
    """Give a stored version as clients see it."""
    return Version(**_said(stored))


def _said(stored: StoredVersion) -> dict[str, Any]:
    return {
        "assistant_id": stored.assistant_id,
        "graph_id": stored.graph_id,
        "config": msgspec.Raw(stored.config),
        "context": msgspec.Raw(stored.context),
        "metadata": compact(stored.metadata),
        "name": stored.name,
        "created_at": instant(stored.created_at),
        "version": stored.version,
        "description": stored.description,
    }


class Assistant(msgspec.Struct, kw_only=True):
    """An assistant. Source: observed, keys in this order."""

    assistant_id: UUID
    graph_id: str
    config: msgspec.Raw
    context: msgspec.Raw
    metadata: msgspec.Raw
    name: str
    created_at: str
    updated_at: str
    version: int
    description: str | None


def assistant(stored: Stored) -> Assistant:
    """Give a stored assistant as clients see it."""
    return Assistant(updated_at=instant(stored.updated_at), **_said(stored))


class AssistantCreate(msgspec.Struct, kw_only=True):
    """What creates an assistant."""

    graph_id: str
    assistant_id: UUID | msgspec.UnsetType = msgspec.UNSET
    config: Config = msgspec.field(default_factory=Config)
    context: Json = {}
    metadata: Json = {}
    if_exists: Literal["raise", "do_nothing"] = "raise"
    name: str = "Untitled"
    description: str | None = None


class AssistantPatch(msgspec.Struct, kw_only=True):
    """What changes an assistant; each change is a new version."""

    graph_id: str | msgspec.UnsetType = msgspec.UNSET
    config: Config | msgspec.UnsetType = msgspec.UNSET
    context: Json | msgspec.UnsetType = msgspec.UNSET
    metadata: Json | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType | None = msgspec.UNSET


class Latest(msgspec.Struct, kw_only=True):
    """Which version is to be the active one."""

    version: Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]


class Versions(msgspec.Struct, kw_only=True):
    """Which versions to list."""

    metadata: Json = {}
    limit: Limit = 10
    offset: Offset = 0


class AssistantCount(msgspec.Struct, kw_only=True):
    """Which assistants to count. `name` is a part of the name, in any case."""

    metadata: Json = {}
    graph_id: str | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET


class AssistantSearch(AssistantCount, kw_only=True):
    """Which assistants to find."""

    limit: Limit = 10
    offset: Offset = 0
    sort_by: Literal["assistant_id", "created_at", "updated_at", "name", "graph_id"] = "created_at"
    sort_order: Order = "desc"
    select: list[
        Literal[
            "assistant_id",
            "graph_id",
            "name",
            "description",
            "config",
            "context",
            "created_at",
            "updated_at",
            "metadata",
            "version",
        ]
    ] = []


class Drawing(msgspec.Struct, kw_only=True):
    """A graph as nodes and edges. Source: LangChain's drawing of a graph as JSON."""

    nodes: list[Json]
    edges: list[Json]


class Schemas(msgspec.Struct, kw_only=True):
    """JSON Schemas of a graph; null where there is none, or none can be written."""

    input_schema: Json | None
    output_schema: Json | None
    state_schema: Json | None
    config_schema: Json | None
    context_schema: Json | None


class GraphSchemas(Schemas, kw_only=True):
    """The schemas of an assistant's graph."""

    graph_id: str
