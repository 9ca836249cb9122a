"""Runs: insert, get, list, delete, and the wish that one should stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matins.domain.access import Scope
from matins.domain.ids import AssistantId, NodeId, RunId, ThreadId
from matins.domain.runs import NewRun, Run, RunStatus
from matins.storage import rows, sql, webhooks
from matins.storage.pool import Conn


async def in_flight(conn: Conn, thread_id: ThreadId) -> list[tuple[RunId, RunStatus]]:
    """Give the pending and running runs of a thread, oldest first. The caller holds the thread's row."""
    found = await conn.fetch(sql.load("runs")["runs_in_flight"].text, thread_id)
    return [(RunId(row["run_id"]), RunStatus(row["status"])) for row in found]


async def insert(conn: Conn, run: NewRun, *, scope: Scope, claimed_by: NodeId | None) -> Run:
    """Insert a run: pending, or running at its first attempt when `claimed_by` names the node that starts it.

    The caller holds the thread's row and has seen that nothing is in flight if it claims.
    """
    row = await conn.fetchrow(
        sql.load("runs")["insert_run"].text,
        run.run_id,
        run.thread_id,
        run.assistant_id,
        scope.mints_as,
        run.metadata,
        run.kwargs,
        run.multitask_strategy,
        run.temporary,
        run.after_seconds,
        run.priority,
        run.cron_id,
        run.scheduled_for,
        run.creator,
        claimed_by,
        run.followed_on,
        run.awaited_on,
        run.parent_run_id,
    )
    assert row is not None  # noqa: S101 - an INSERT that returns has a row or raises
    return rows.run(row)


async def get(conn: Conn, run_id: RunId, *, thread_id: ThreadId | None, scope: Scope) -> Run | None:
    """Give the run, if it is on that thread (when one is named) and the scope may see it."""
    row = await conn.fetchrow(sql.load("runs")["get_run"].text, run_id, thread_id, scope.owner)
    return rows.run(row) if row else None


async def list_(
    conn: Conn, thread_id: ThreadId, *, scope: Scope, status: str | None, limit: int, offset: int
) -> list[Run]:
    """Give one page of a thread's runs, newest first."""
    found = await conn.fetch(
        sql.load("runs")["list_runs"].text, thread_id, scope.owner, status, limit, offset
    )
    return [rows.run(row) for row in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which runs: each part that is given must match. `metadata` is a JSON object to be contained."""

    metadata: bytes | None = None
    status: str | None = None
    thread_id: ThreadId | None = None
    assistant_id: AssistantId | None = None


async def search(conn: Conn, wanted: Filter, *, scope: Scope, limit: int, offset: int) -> list[Run]:
    """Give one page of the matching runs of all threads, newest first."""
    found = await conn.fetch(sql.load("runs")["search_runs"].text, *_wanted(wanted, scope), limit, offset)
    return [rows.run(row) for row in found]


async def count(conn: Conn, wanted: Filter, *, scope: Scope, limit: int) -> int:
    """Count the matching runs, no further than the limit."""
    number: int = await conn.fetchval(sql.load("runs")["count_runs"].text, *_wanted(wanted, scope), limit)
    return number


def _wanted(wanted: Filter, scope: Scope) -> tuple[object, ...]:
    return (scope.owner, wanted.metadata, wanted.status, wanted.thread_id, wanted.assistant_id)


@dataclass(frozen=True, slots=True)
class Listed:
    """A run that was listed, and its place in the order of creation."""

    run_id: RunId
    thread_id: ThreadId
    seq: int


async def list_in(
    conn: Conn, statuses: Sequence[str], *, scope: Scope, after: int, limit: int
) -> list[Listed]:
    """Give runs that are in flight, in one of these statuses, created later than `after`; the oldest first."""
    found = await conn.fetch(sql.load("runs")["list_runs_in"].text, list(statuses), scope.owner, after, limit)
    return [Listed(RunId(row["run_id"]), ThreadId(row["thread_id"]), row["seq"]) for row in found]


async def delete(conn: Conn, run_id: RunId, *, thread_id: ThreadId, scope: Scope) -> RunStatus | None:
    """Delete a run in whatever state, with its delivery; give the status it had, or None when there was none."""
    row = await conn.fetchrow(sql.load("runs")["delete_run"].text, run_id, thread_id, scope.owner)
    if row is None:
        return None
    await webhooks.delete_of_run(conn, run_id)
    return RunStatus(row["status"])
