"""The replay log of streams: append, read after, trim."""

from __future__ import annotations

from matins.domain.errors import LeaseLost
from matins.domain.frames import Frame
from matins.domain.ids import RunId, ThreadId
from matins.domain.runs import Held
from matins.storage import sql
from matins.storage.pool import Conn


async def append(conn: Conn, held: Held, frames: list[Frame]) -> None:
    """Keep frames, numbered by their `seq`, in one fenced statement. Repeating it changes nothing.

    Raises: LeaseLost when that attempt no longer holds the run; nothing was written.
    """
    row = await conn.fetchrow(
        sql.load("frames")["append_events"].text,
        held.run_id,
        held.attempt,
        [frame.seq for frame in frames],
        [frame.event for frame in frames],
        [frame.data for frame in frames],
    )
    if row is None or not row["held"]:
        raise LeaseLost(str(held.run_id))


async def read_after(conn: Conn, run_id: RunId, seq: int, *, limit: int) -> list[Frame]:
    """Give the kept frames of a run after `seq`, in order."""
    found = await conn.fetch(sql.load("frames")["read_events"].text, run_id, seq, limit)
    return [Frame(row["event"], row["data"], row["seq"]) for row in found]


async def last_seq(conn: Conn, thread_id: ThreadId) -> int:
    """Give the last sequence number that the thread has used, over all its runs."""
    seq: int | None = await conn.fetchval(sql.load("frames")["last_event"].text, thread_id)
    return seq or 0


async def delete_of_run(conn: Conn, run_id: RunId) -> None:
    """Forget what a run has streamed."""
    await conn.execute(sql.load("frames")["delete_events"].text, run_id)


async def trim(conn: Conn, *, older_than_s: float, limit: int) -> int:
    """Forget frames older than the retention, at most `limit` of them, and give how many that were."""
    return len(await conn.fetch(sql.load("frames")["trim_events"].text, older_than_s, limit))
