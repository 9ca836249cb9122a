"""Assistants and their versions: insert, get, search, count, update, restore, list, delete."""

from __future__ import annotations

from dataclasses import dataclass

from matins.domain.access import Scope
from matins.domain.assistants import Assistant, Version
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


async def lock(conn: Conn, assistant_id: AssistantId, *, scope: Scope) -> Assistant | None:
    """Hold the assistant's row to the end of the transaction and give it as it is now."""
    row = await conn.fetchrow(sql.load("assistants")["lock_assistant"].text, assistant_id, scope.owner)
    return rows.assistant(row) if row else None


async def update(conn: Conn, assistant: Assistant) -> Assistant:
    """Write an edited assistant as a new version and give it. The caller holds its row."""
    row = await conn.fetchrow(
        sql.load("assistants")["update_assistant"].text,
        assistant.assistant_id,
        assistant.graph_id,
        assistant.name,
        assistant.description,
        assistant.config,
        assistant.context,
        assistant.metadata,
    )
    assert row is not None  # noqa: S101 - the caller holds the row
    return rows.assistant(row)


async def restore(conn: Conn, assistant_id: AssistantId, version: int) -> Assistant | None:
    """Make a version the active one, in every field; None when there is none. The caller holds the row."""
    row = await conn.fetchrow(sql.load("assistants")["restore_assistant"].text, assistant_id, version)
    return rows.assistant(row) if row else None


async def versions(
    conn: Conn, assistant_id: AssistantId, *, metadata: bytes | None, limit: int, offset: int
) -> list[Version]:
    """Give versions whose metadata contains that, the newest first. Whose they are is settled before."""
    found = await conn.fetch(
        sql.load("assistants")["list_assistant_versions"].text, assistant_id, metadata, limit, offset
    )
    return [rows.version(row) for row in found]


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
