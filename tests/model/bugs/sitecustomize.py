"""Put bugs into a server: Python imports this at its start, in each process that has this directory on its path.

The file that SEEDED_BUG names says which bug is there at the moment, so that one server serves for all of them. Each is
the mistake that is made when the part it belongs to is written for the first time.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any, Final

import anyio.lowlevel

HELD: Final = "FROM matins.run WHERE run_id = $1 AND attempt = $2 AND status = 'running'"
ANY_ATTEMPT: Final = "FROM matins.run WHERE run_id = $1 AND $2::integer > 0"
NONE_RUNS: Final = (
    "AND NOT EXISTS (SELECT FROM matins.run AS b WHERE b.thread_id = r.thread_id AND b.status = 'running')"
)
REWRITTEN: Final[dict[str, list[tuple[str, str, str, str]]]] = {
    "no fence": [
        ("checkpoints", "insert_held", HELD, ANY_ATTEMPT),
        ("checkpoints", "is_held", HELD, ANY_ATTEMPT),
    ],
    "two run at once": [
        ("queue", "find_heads", NONE_RUNS, ""),
        ("queue", "claim_runs", NONE_RUNS, ""),
    ],
    "not the oldest first": [
        ("queue", "find_heads", "h.priority DESC, h.seq LIMIT", "h.priority DESC, h.seq DESC LIMIT"),
        ("queue", "claim_runs", "thread_id, priority DESC, seq", "thread_id, priority DESC, seq DESC"),
    ],
    "interrupt leaves those that wait": [
        ("runs", "runs_in_flight", "status IN ('pending', 'running')", "status = 'running'"),
    ],
    "rollback keeps the checkpoints": [
        ("checkpoints", "delete_of_runs", "metadata ->> 'run_id' = ANY($1::text[])", "$1::text[] IS NULL"),
    ],
    "a cancelled run keeps the thread busy": [
        ("threads", "rest_thread", "ELSE t.resting_status END", "ELSE t.status END"),
    ],
    "a retry is no new attempt": [
        ("queue", "claim_runs", "attempt = r.attempt + 1", "attempt = greatest(r.attempt, 1)"),
    ],
}
"""What each bug makes of which statements: file, name, text, its replacement."""


def present() -> str:
    """Give the bug that is there now."""
    return Path(os.environ["SEEDED_BUG"]).read_text(encoding="utf-8")


def infest() -> None:
    """Let the statements and functions of this process be those of the bug that is present."""
    from matins.storage import checkpoints, queue, sql, threads  # noqa: PLC0415 - not in processes that have no bugs

    load, settle, lock = sql.load, queue.settle, threads.lock

    def load_wrongly(subject: str) -> dict[str, Any]:
        queries = load(subject)
        for where, name, text, instead in REWRITTEN.get(present(), []):
            if where == subject:
                queries = queries | {
                    name: dataclasses.replace(queries[name], text=queries[name].text.replace(text, instead))
                }
        return queries

    async def settle_in_two_transactions(conn: Any, held: Any, end: Any) -> Any:
        split: Any = _CommittingHalfway(conn)
        return await settle(split if present() == "settle in two transactions" else conn, held, end)

    async def look_without_the_lock(conn: Any, thread_id: Any, *, scope: Any) -> Any:
        if present() == "reject looks without the lock" and _caller() == "_insert":
            found = await threads.get(conn, thread_id, scope=scope)
            await anyio.lowlevel.checkpoint()
            return found
        return await lock(conn, thread_id, scope=scope)

    for module in (sql, checkpoints):
        module.load = load_wrongly  # type: ignore[attr-defined]
    queue.settle = settle_in_two_transactions
    threads.lock = look_without_the_lock


class _CommittingHalfway:
    """A connection in a transaction that is committed when a run has ended, before its thread is free."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)

    async def fetchrow(self, text: str, *values: Any) -> Any:
        row = await self._conn.fetchrow(text, *values)
        if row is not None and "ended_at" in text:
            await self._conn.execute("COMMIT")
            await self._conn.execute("BEGIN")
        return row


def _caller() -> str:
    return sys._getframe(2).f_code.co_name


if "SEEDED_BUG" in os.environ and {"matins.server", "matins.workers.host"} & set(sys.orig_argv):
    infest()
