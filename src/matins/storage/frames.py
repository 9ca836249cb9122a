"""The replay log of streams: append, read after, trim; and who follows what from where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from matins.domain.errors import LeaseLost
from matins.domain.frames import Frame
from matins.domain.ids import NodeId, RunId, ThreadId
from matins.domain.runs import Held
from matins.storage import sql
from matins.storage.pool import Conn


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look showed of a run or a thread: whether it is over or gone, and the last number kept of it."""

    topic: UUID
    thread_id: ThreadId | None
    is_over: bool
    last_seq: int


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


async def append_to_thread(
    conn: Conn, thread_id: ThreadId, frame: Frame, *, held: Held | None = None, used: int = 0
) -> None:
    """Keep an event that only the thread's stream shows, under the number after `used` and all that are kept.

    The caller holds the thread's row, and nothing runs on it.
    """
    await conn.execute(
        sql.load("frames")["append_thread_event"].text,
        thread_id,
        held.run_id if held else None,
        held.attempt if held else None,
        frame.event,
        frame.data,
        used,
    )


async def read_after(conn: Conn, run_id: RunId, seq: int, *, limit: int) -> list[Frame]:
    """Give the kept frames of a run after `seq`, in order."""
    found = await conn.fetch(sql.load("frames")["read_events"].text, run_id, seq, limit)
    return [Frame(row["event"], row["data"], row["seq"]) for row in found]


async def read_thread_after(conn: Conn, thread_id: ThreadId, seq: int, *, limit: int) -> list[Frame]:
    """Give what is kept of a thread after `seq`, over all its runs, in order."""
    found = await conn.fetch(sql.load("frames")["read_thread_events"].text, thread_id, seq, limit)
    return [Frame(row["event"], row["data"], row["seq"]) for row in found]


async def last_seq(conn: Conn, thread_id: ThreadId) -> int:
    """Give the last sequence number that the thread has used, over all its runs."""
    seq: int | None = await conn.fetchval(sql.load("frames")["last_event"].text, thread_id)
    return seq or 0


async def delete_of_run(conn: Conn, run_id: RunId) -> None:
    """Forget what a run has streamed."""
    await conn.execute(sql.load("frames")["delete_events"].text, run_id)


async def end_of_thread(conn: Conn, thread_id: ThreadId) -> tuple[int, int]:
    """Give the last number that the thread has used, and the last one that is kept; 0 for none."""
    row = await conn.fetchrow(sql.load("frames")["end_of_thread"].text, thread_id)
    return (row["last_seq"] or 0, row["kept"] or 0) if row else (0, 0)


async def look(conn: Conn, run_ids: Sequence[RunId], thread_ids: Sequence[ThreadId]) -> list[Seen]:
    """Look after all these runs and threads at once."""
    found = await conn.fetch(sql.load("frames")["look"].text, run_ids, thread_ids)
    return [Seen(row["id"], row["thread_id"], row["is_over"], row["last_seq"] or 0) for row in found]


async def follow_runs(
    conn: Conn, node_id: NodeId, *, followed: Sequence[RunId], awaited: Sequence[RunId]
) -> None:
    """Record that on a node somebody follows the events of runs, or waits for their replies.

    Must be in a transaction. A run that has ended meanwhile is passed over.
    """
    await conn.execute(sql.load("frames")["lock_threads_of_runs"].text, [*followed, *awaited])
    await conn.execute(sql.load("frames")["follow_runs"].text, followed, awaited, node_id)


async def follow_threads(conn: Conn, thread_ids: Sequence[ThreadId], *, for_s: float) -> None:
    """Have the events of these threads' runs kept for the next seconds."""
    await conn.execute(sql.load("frames")["follow_threads"].text, thread_ids, for_s)


async def trim(conn: Conn, *, older_than_s: float, limit: int) -> int:
    """Forget frames older than the retention, at most `limit` of them, and give how many that were."""
    return len(await conn.fetch(sql.load("frames")["trim_events"].text, older_than_s, limit))
