"""Threads: insert, get, lock, search, count, update, delete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

import msgspec

from matins.domain.access import EVERYONE, Scope
from matins.domain.ids import ThreadId
from matins.domain.runs import Run
from matins.domain.threads import Thread, TimeToLive
from matins.storage import checkpoints, order, rows, sql
from matins.storage.pool import Conn

FEW: Final = 3_000
"""How many matching threads are sorted as fast as ten of them are met among a million: some 3,000 rows are read."""

WALK: Final = 6_000
"""How many threads are gone through in search of a page; twice what it takes when FEW of a million match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which threads: each part that is given must match. `metadata` and `values` are JSON objects to be contained."""

    ids: list[UUID] | None = None
    metadata: bytes | None = None
    values: bytes | None = None
    status: str | None = None


async def insert(
    conn: Conn, thread_id: ThreadId, *, scope: Scope, metadata: bytes = b"{}", ttl: TimeToLive | None = None
) -> Thread | None:
    """Insert a fresh thread and give it, or None when the id is taken."""
    row = await conn.fetchrow(
        sql.load("threads")["insert_thread"].text,
        thread_id,
        scope.mints_as,
        metadata,
        ttl.strategy if ttl else None,
        ttl.minutes if ttl else None,
    )
    return rows.thread(row) if row else None


async def get(conn: Conn, thread_id: ThreadId, *, scope: Scope) -> Thread | None:
    """Give the thread, if the scope may see it."""
    row = await conn.fetchrow(sql.load("threads")["get_thread"].text, thread_id, scope.owner)
    return rows.thread(row) if row else None


async def lock(conn: Conn, thread_id: ThreadId, *, scope: Scope) -> Thread | None:
    """Hold the thread's row to the end of the transaction and give it as it is now."""
    row = await conn.fetchrow(sql.load("threads")["lock_thread"].text, thread_id, scope.owner)
    return rows.thread(row) if row else None


async def newest_checkpoint(conn: Conn, thread_id: ThreadId) -> str | None:
    """Give the id of the thread's newest root checkpoint."""
    checkpoint_id: str | None = await conn.fetchval(sql.load("threads")["newest_checkpoint"].text, thread_id)
    return checkpoint_id


async def resting_checkpoint(conn: Conn, thread_id: ThreadId) -> str | None:
    """Give the id of the newest root checkpoint that no run is at work on: what the one under way began from."""
    checkpoint_id: str | None = await conn.fetchval(sql.load("threads")["resting_checkpoint"].text, thread_id)
    return checkpoint_id


async def search(
    conn: Conn,
    wanted: Filter,
    *,
    scope: Scope,
    sort_by: str,
    direction: order.Direction,
    limit: int,
    offset: int,
    extract: bytes | None = None,
) -> list[Thread]:
    """Give one page of the matching threads.

    `extract` is an object of paths, `{"alias": ["values", "messages", "-1"]}`; then threads come with `extracted`.
    Raises: Invalid when `sort_by` is no sortable column.
    """
    queries = sql.load("threads")

    async def fetch(query: sql.Query, *more: object) -> list[Thread]:
        text = order.ordered(query, order.THREADS, "thread_id", sort_by, direction)
        found = await conn.fetch(text, *_others(wanted, scope), limit, offset, extract, *more)
        return [rows.thread(row) for row in found]

    if wanted.metadata is None:
        return await fetch(queries["search_threads"])
    if sort_by == "updated_at" and await count(conn, wanted, scope=scope, limit=FEW + 1) > FEW:
        found = await fetch(queries["walk_threads"], wanted.metadata, WALK)
        if len(found) == limit:
            return found  # else there may be more among those that were not looked at
    return await fetch(queries["search_threads_by_metadata"], wanted.metadata)


async def count(conn: Conn, wanted: Filter, *, scope: Scope, limit: int | None = None) -> int:
    """Count the matching threads; with a limit, no further than that."""
    queries = sql.load("threads")
    number: int
    if wanted.metadata is None:
        number = await conn.fetchval(queries["count_threads"].text, *_others(wanted, scope), limit)
    elif scope == EVERYONE and wanted == Filter(metadata=wanted.metadata) and _is_tag(wanted.metadata):
        number = await conn.fetchval(queries["count_threads_tagged"].text, wanted.metadata, limit)
    else:
        number = await conn.fetchval(
            queries["count_threads_by_metadata"].text, *_others(wanted, scope), limit, wanted.metadata
        )
    return number


def _others(wanted: Filter, scope: Scope) -> tuple[object, ...]:
    """Give the parameters of every search and count: all that is filtered by but metadata."""
    return scope.owner, wanted.ids, wanted.values, wanted.status


def _is_tag(metadata: bytes) -> bool:
    """Whether the filter is one key with a plain value, as they stand in thread_tag."""
    pairs = msgspec.json.decode(metadata, type=dict[str, object])
    return len(pairs) == 1 and not isinstance(next(iter(pairs.values())), dict | list)


async def update(
    conn: Conn, thread_id: ThreadId, *, scope: Scope, metadata: bytes, ttl: TimeToLive | None = None
) -> Thread | None:
    """Merge `metadata` shallowly into the thread's and give the thread, or None when there is none."""
    row = await conn.fetchrow(
        sql.load("threads")["update_thread"].text,
        thread_id,
        scope.owner,
        metadata,
        ttl.strategy if ttl else None,
        ttl.minutes if ttl else None,
    )
    return rows.thread(row) if row else None


async def occupy(
    conn: Conn, thread_id: ThreadId, *, metadata: bytes, config: bytes | None, priority: int | None = None
) -> None:
    """Mark the thread busy with a run that was just inserted. The caller holds its row.

    It gets the priority if it has none yet.
    """
    await conn.execute(sql.load("threads")["occupy_thread"].text, thread_id, metadata, config, priority)


async def vacate(conn: Conn, run: Run, *, event_seq: int = 0) -> None:
    """Leave the thread of a run that ended without leaving a state. The caller holds its row.

    It goes, if it was there for this run alone; else it gets back the status of its state, unless others are in flight.
    """
    if run.temporary:
        await delete(conn, [run.thread_id], scope=EVERYONE)
    else:
        await conn.execute(sql.load("threads")["rest_thread"].text, run.thread_id, event_seq)


async def copy(conn: Conn, thread_id: ThreadId, *, target: ThreadId, scope: Scope) -> Thread | None:
    """Insert a copy of a thread with its checkpoints, at rest and without runs; None when there is none to copy.

    Must run in a transaction: it is one fact. A run under way there may go on meanwhile.
    """
    row = await conn.fetchrow(
        sql.load("threads")["copy_thread"].text, thread_id, scope.owner, target, scope.mints_as
    )
    if row is None:
        return None
    await checkpoints.copy(conn, source=str(thread_id), target=str(target))
    return rows.thread(row)


async def delete(conn: Conn, thread_ids: list[ThreadId], *, scope: Scope) -> list[ThreadId]:
    """Delete threads with their runs, events, crons, checkpoints and deliveries; give the ids that were there.

    Must run in a transaction: it is one fact.
    """
    gone = await conn.fetch(sql.load("threads")["delete_threads"].text, thread_ids, scope.owner)
    deleted = [ThreadId(row["thread_id"]) for row in gone]
    if deleted:
        await conn.execute(
            sql.load("threads")["delete_thread_checkpoints"].text, [str(each) for each in deleted]
        )
    return deleted
