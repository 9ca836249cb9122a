"""What a thread shows of its newest checkpoint, when somebody other than a run has written it."""

from __future__ import annotations

from matins.domain.ids import ThreadId
from matins.domain.threads import ThreadStatus
from matins.storage import sql
from matins.storage.pool import Conn


async def write_state(
    conn: Conn, thread_id: ThreadId, *, values: bytes | None, interrupts: bytes, status: ThreadStatus
) -> bool:
    """Show the state that was just written, and no error; give whether somebody follows the thread.

    The caller holds the thread's row, and no run of it is in flight.
    """
    is_followed: bool | None = await conn.fetchval(
        sql.load("thread_state")["write_state"].text, thread_id, values, interrupts, status
    )
    return bool(is_followed)
