"""Rows that tests start from."""

from __future__ import annotations

from uuid import UUID, uuid4

from matins.domain.ids import RunId, ThreadId
from matins.domain.runs import Held
from matins.storage.pool import Conn


async def running(conn: Conn, *, thread_id: UUID | None = None) -> Held:
    """Insert a thread and a run that this attempt holds."""
    thread, run = ThreadId(thread_id or uuid4()), RunId(uuid4())
    await conn.execute("INSERT INTO matins.thread (thread_id, status) VALUES ($1, 'busy')", thread)
    await conn.execute(
        "INSERT INTO matins.run (run_id, thread_id, assistant_id, kwargs, status, attempt, node_id)"
        " VALUES ($1, $2, $3, '{}', 'running', 1, $4)",
        run, thread, uuid4(), uuid4(),
    )  # fmt: skip
    return Held(run, thread, 1)


async def take_away(conn: Conn, held: Held) -> None:
    """Let another attempt claim the run."""
    await conn.execute("UPDATE matins.run SET attempt = attempt + 1 WHERE run_id = $1", held.run_id)
