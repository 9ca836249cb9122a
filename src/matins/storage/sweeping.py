"""Threads whose time to live is over: find, lock, mark.

It is counted from `updated_at`, which every use of a thread moves; a trigger keeps `expires_at` of those that have a
time to live of their own. A thread that was swept and kept is marked until it is used again.
"""

from __future__ import annotations

from matins.domain.ids import ThreadId
from matins.domain.threads import TimeToLive
from matins.storage import sql
from matins.storage.pool import Conn


async def find(conn: Conn, *, default: TimeToLive | None, limit: int) -> list[ThreadId]:
    """Give threads that have expired, without a lock. `default` is for those that have no time to live of their own."""
    minutes = default.minutes if default else None
    found = await conn.fetch(sql.load("sweeping")["find_expired"].text, minutes, limit)
    return [row["thread_id"] for row in found]


async def lock(conn: Conn, thread_ids: list[ThreadId], *, default: TimeToLive | None) -> dict[ThreadId, str]:
    """Hold those of the threads that are still expired and not in use, and give what is to become of each.

    A thread is in use when somebody holds it, when a run is in flight on it, or when a cron will fire on it.
    """
    queries = sql.load("sweeping")
    found = await conn.fetch(
        queries["lock_expired"].text,
        thread_ids,
        default.strategy if default else None,
        default.minutes if default else None,
    )
    locked = {ThreadId(row["thread_id"]): str(row["strategy"]) for row in found}
    for row in await conn.fetch(queries["threads_in_use"].text, list(locked)):
        del locked[row["thread_id"]]
    return locked


async def mark(conn: Conn, thread_ids: list[ThreadId]) -> None:
    """Leave these alone until they are used again. The caller holds their rows."""
    await conn.execute(sql.load("sweeping")["mark_swept"].text, thread_ids)
