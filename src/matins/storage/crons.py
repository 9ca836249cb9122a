"""Crons: insert, get, search, update, pause, delete; and what is due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from matins.domain.access import Scope
from matins.domain.crons import Cron
from matins.domain.ids import AssistantId, CronId, ThreadId
from matins.storage import order, rows, sql
from matins.storage.pool import Conn


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which crons: each part that is given must match. `metadata` is a JSON object to be contained."""

    assistant_id: AssistantId | None = None
    thread_id: ThreadId | None = None
    enabled: bool | None = None
    metadata: bytes | None = None


async def insert(conn: Conn, cron: Cron, *, tzdata: str) -> Cron | None:
    """Insert a cron and give it as stored, its revision and times the database's, or None when its id is taken."""
    row = await conn.fetchrow(
        sql.load("crons")["insert_cron"].text,
        cron.cron_id,
        cron.assistant_id,
        cron.thread_id,
        cron.owner,
        cron.creator,
        cron.schedule,
        cron.timezone,
        tzdata,
        cron.end_time,
        cron.enabled,
        cron.next_run_date,
        cron.payload,
        cron.metadata,
        cron.on_run_completed,
        cron.priority,
        cron.policy,
        cron.due_at,
        cron.key,
        cron.declared,
    )
    return rows.cron(row) if row else None


async def get(conn: Conn, cron_id: CronId, *, scope: Scope) -> Cron | None:
    """Give the cron, if the scope may see it."""
    row = await conn.fetchrow(sql.load("crons")["get_cron"].text, cron_id, scope.owner)
    return rows.cron(row) if row else None


async def lock(conn: Conn, cron_id: CronId, *, scope: Scope) -> Cron | None:
    """Hold the cron's row to the end of the transaction and give it as it is now."""
    row = await conn.fetchrow(sql.load("crons")["lock_cron"].text, cron_id, scope.owner)
    return rows.cron(row) if row else None


async def search(
    conn: Conn,
    wanted: Filter,
    *,
    scope: Scope,
    sort_by: str,
    direction: order.Direction,
    limit: int,
    offset: int,
) -> list[Cron]:
    """Give one page of the matching crons.

    Raises: Invalid when `sort_by` is no sortable column.
    """
    text = order.ordered(sql.load("crons")["search_crons"], order.CRONS, "cron_id", sort_by, direction)
    found = await conn.fetch(
        text,
        scope.owner,
        wanted.assistant_id,
        wanted.thread_id,
        wanted.enabled,
        wanted.metadata,
        limit,
        offset,
    )
    return [rows.cron(row) for row in found]


async def count(conn: Conn, wanted: Filter, *, scope: Scope, limit: int | None = None) -> int:
    """Count the matching crons; with a limit, no further than that."""
    number: int = await conn.fetchval(
        sql.load("crons")["count_crons"].text,
        scope.owner,
        wanted.assistant_id,
        wanted.thread_id,
        wanted.enabled,
        wanted.metadata,
        limit,
    )
    return number


async def update(conn: Conn, cron: Cron, *, tzdata: str) -> Cron:
    """Write an edited cron as a new revision. The caller holds its row."""
    row = await conn.fetchrow(
        sql.load("crons")["update_cron"].text,
        cron.cron_id,
        cron.schedule,
        cron.timezone,
        tzdata,
        cron.end_time,
        cron.enabled,
        cron.next_run_date,
        cron.payload,
        cron.metadata,
        cron.on_run_completed,
        cron.policy,
        cron.due_at,
        cron.assistant_id,
        cron.thread_id,
    )
    assert row is not None  # noqa: S101 - the caller holds the row
    return rows.cron(row)


async def lock_owner(conn: Conn, owner: str) -> None:
    """Let nobody else count this owner's crons until the end of the transaction."""
    await conn.fetchval(sql.load("crons")["lock_owner"].text, owner)


async def lock_keys(conn: Conn) -> None:
    """Let no other node do anything about declared crons to the end of the transaction."""
    await conn.fetchval(sql.load("crons")["lock_keys"].text)


async def get_by_key(conn: Conn, key: str) -> Cron | None:
    """Give the cron that the project declares, or once declared, under a key."""
    row = await conn.fetchrow(sql.load("crons")["get_cron_by_key"].text, key)
    return rows.cron(row) if row else None


async def declared(conn: Conn) -> list[Cron]:
    """Give the crons that the project declared when it was last asked, by key."""
    return [rows.cron(row) for row in await conn.fetch(sql.load("crons")["declared_crons"].text)]


async def declare(conn: Conn, cron_id: CronId, declaration: bytes | None) -> None:
    """Keep what a cron is declared to be, or None: no longer. Its revision stays: it fires as it did."""
    await conn.execute(sql.load("crons")["declare_cron"].text, cron_id, declaration)


async def delete(conn: Conn, cron_id: CronId, *, scope: Scope) -> bool:
    """Delete the cron; False when there is none. Its ledger stays."""
    return await conn.fetchval(sql.load("crons")["delete_cron"].text, cron_id, scope.owner) is not None


async def pause(conn: Conn, cron: Cron, reason: str) -> bool:
    """Switch a cron off, unless it was edited since; whether it was on."""
    found = await conn.fetchval(sql.load("crons")["pause_cron"].text, cron.cron_id, cron.revision, reason)
    return bool(found)


async def pause_of_assistant(conn: Conn, assistant_id: AssistantId, reason: str) -> None:
    """Switch off all crons of an assistant."""
    await conn.execute(sql.load("crons")["pause_crons_of_assistant"].text, assistant_id, reason)


async def purge_done(conn: Conn, *, older_than: timedelta, limit: int) -> int:
    """Delete crons that were to fire once and have been done for so long, at most `limit`; give how many."""
    purged = await conn.fetch(sql.load("crons")["purge_done_crons"].text, older_than.total_seconds(), limit)
    return len(purged)


async def clock(conn: Conn) -> tuple[datetime, datetime | None]:
    """Give the database's time and when the next slot of any cron is due."""
    row = await conn.fetchrow(sql.load("crons")["next_due"].text)
    assert row is not None  # noqa: S101 - a SELECT without FROM always has a row
    return row["now"], row["due_at"]


@dataclass(frozen=True, slots=True)
class Due:
    """What tells whether a cron that is due soon is still what it was."""

    cron_id: CronId
    revision: int
    next_run_date: datetime | None
    due_at: datetime


async def due(conn: Conn, *, until: datetime, limit: int, after: datetime | None = None) -> list[Due]:
    """Look, without locking, at the crons that are due later than `after` and not later than `until`, in order."""
    found = await conn.fetch(sql.load("crons")["due_crons"].text, after, until, limit)
    return [Due(*row) for row in found]


async def get_many(conn: Conn, cron_ids: Sequence[CronId]) -> list[Cron]:
    """Give those of the crons that are there, in the order of the ids."""
    return [rows.cron(row) for row in await conn.fetch(sql.load("crons")["get_crons"].text, list(cron_ids))]


async def of_other_zones(conn: Conn, tzdata: str) -> list[Cron]:
    """Give some crons in a time zone whose next date was computed with other rules than `tzdata`, the earliest."""
    return [rows.cron(row) for row in await conn.fetch(sql.load("crons")["stale_zones"].text, tzdata)]


@dataclass(frozen=True, slots=True)
class Hold:
    """All crons of the server are held: why, and since when."""

    reason: str
    since: datetime


async def hold(conn: Conn, reason: str) -> Hold:
    """Hold all crons of the server, each one's own state kept."""
    row = await conn.fetchrow(sql.load("crons")["hold_crons"].text, reason)
    assert row is not None  # noqa: S101 - an INSERT that returns has a row or raises
    return Hold(row["reason"], row["since"])


async def let_go(conn: Conn) -> None:
    """Let the crons of the server fire again."""
    await conn.execute(sql.load("crons")["let_crons_go"].text)


async def get_hold(conn: Conn) -> Hold | None:
    """Give why all crons of the server are held, or None when they are not."""
    row = await conn.fetchrow(sql.load("crons")["get_hold"].text)
    return Hold(row["reason"], row["since"]) if row else None
