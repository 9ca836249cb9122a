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


async def thread(conn: Conn) -> ThreadId:
    """Insert a thread on which nothing happened."""
    thread_id = ThreadId(uuid4())
    await conn.execute("INSERT INTO matins.thread (thread_id) VALUES ($1)", thread_id)
    return thread_id


async def pending(
    conn: Conn, thread_id: UUID, *, priority: int = 0, due_in_s: float = 0, temporary: bool = False
) -> RunId:
    """Insert a run that waits on a thread."""
    run = RunId(uuid4())
    await conn.execute("UPDATE matins.thread SET status = 'busy' WHERE thread_id = $1", thread_id)
    await conn.execute(
        "INSERT INTO matins.run (run_id, thread_id, assistant_id, kwargs, priority, due_at, temporary)"
        " VALUES ($1, $2, $3, '{}', $4, matins.now() + make_interval(secs => $5), $6)",
        run, thread_id, uuid4(), priority, due_in_s, temporary,
    )  # fmt: skip
    return run
