"""Assistants: insert, get, search, count, delete."""

from __future__ import annotations

from dataclasses import dataclass

from matins.domain.access import Scope
from matins.domain.assistants import Assistant
from matins.domain.ids import AssistantId
from matins.storage import order, rows, sql
from matins.storage.pool import Conn


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which assistants: each part that is given must match. `name` is a part of the name, in any case."""

    graph_id: str | None = None
    name: str | None = None
    metadata: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAssistant:
    """An assistant about to be created. `config`, `context` and `metadata` are encoded JSON."""

    assistant_id: AssistantId
    graph_id: str
    name: str
    description: str | None = None
    config: bytes = b"{}"
    context: bytes = b"{}"
    metadata: bytes = b"{}"


async def insert(conn: Conn, new: NewAssistant, *, scope: Scope) -> Assistant | None:
    """Insert an assistant at version 1 and give it, or None when the id is taken."""
    row = await conn.fetchrow(
        sql.load("assistants")["insert_assistant"].text,
        new.assistant_id,
        scope.mints_as,
        new.graph_id,
        new.name,
        new.description,
        new.config,
        new.context,
        new.metadata,
    )
    return rows.assistant(row) if row else None


async def refresh(conn: Conn, system: NewAssistant) -> None:
    """Give a system assistant that nobody has changed the name and the description that its graph has now."""
    await conn.execute(
        sql.load("assistants")["refresh_assistant"].text,
        system.assistant_id,
        system.name,
        system.description,
    )


async def get(conn: Conn, assistant_id: AssistantId, *, scope: Scope) -> Assistant | None:
    """Give the assistant, if the scope may see it; system assistants are everyone's to see."""
    row = await conn.fetchrow(sql.load("assistants")["get_assistant"].text, assistant_id, scope.owner)
    return rows.assistant(row) if row else None


async def search(
    conn: Conn,
    wanted: Filter,
    *,
    scope: Scope,
    sort_by: str,
    direction: order.Direction,
    limit: int,
    offset: int,
) -> list[Assistant]:
    """Give one page of the matching assistants.

    Raises: Invalid when `sort_by` is no sortable column.
    """
    text = order.ordered(
        sql.load("assistants")["search_assistants"], order.ASSISTANTS, "assistant_id", sort_by, direction
    )
    found = await conn.fetch(text, scope.owner, wanted.graph_id, wanted.name, wanted.metadata, limit, offset)
    return [rows.assistant(row) for row in found]


async def count(conn: Conn, wanted: Filter, *, scope: Scope, limit: int | None = None) -> int:
    """Count the matching assistants; with a limit, no further than that."""
    number: int = await conn.fetchval(
        sql.load("assistants")["count_assistants"].text,
        scope.owner,
        wanted.graph_id,
        wanted.name,
        wanted.metadata,
        limit,
    )
    return number


async def delete(conn: Conn, assistant_id: AssistantId, *, scope: Scope) -> bool:
    """Delete the assistant and its versions; False when there is none."""
    deleted = await conn.fetchval(sql.load("assistants")["delete_assistant"].text, assistant_id, scope.owner)
    return deleted is not None
