"""Stop runs: those that wait at once, those that run by a wish that their settling obeys. And undo them, or skip them.

The caller holds the thread's row. Only a release comes without it, so a run may go back into the queue meanwhile.
"""

from __future__ import annotations

from dataclasses import replace

from matins.domain.access import EVERYONE
from matins.domain.ids import RunId, ThreadId
from matins.domain.runs import Held, Run, RunStatus, StopReason
from matins.domain.webhooks import webhook_of
from matins.storage import checkpoints, fires, frames, rows, sql, threads, webhooks
from matins.storage.pool import Conn


async def stop(conn: Conn, run_id: RunId, reason: StopReason) -> RunStatus | None:
    """Stop a run: INTERRUPT or ROLLBACK. Give how it was found, or None when it had ended.

    PENDING: it has ended, or with ROLLBACK is gone. RUNNING: it is to stop; a wish to undo it outdoes every other.
    """
    for _ in range(2):
        row = await conn.fetchrow(sql.load("runs")["lock_pending_run"].text, run_id)
        if row is not None:
            if StopReason.ROLLBACK in (reason, row["stop"]):
                await _undo(conn, run_id, row["thread_id"], has_begun=row["attempt"] > 0)
            else:
                await _cancel_pending(conn, run_id)
            return RunStatus.PENDING
        if await conn.fetchrow(sql.load("runs")["ask_to_stop"].text, run_id, reason.value):
            return RunStatus.RUNNING
    return None


async def undo_stopped(conn: Conn, held: Held) -> Run | None:
    """Undo the run that this attempt holds, if that is wished; give it as it was, or None when it is not so."""
    row = await conn.fetchrow(sql.load("runs")["lock_run_to_undo"].text, held.run_id, held.attempt)
    if row is None:
        return None
    await _undo(conn, held.run_id, held.thread_id, has_begun=True)
    return rows.run(row)


async def skip(conn: Conn, held: Held, reason: str) -> Run | None:
    """Have the slot of the run that this attempt holds skipped, and the run gone; None when the attempt holds none.

    Give it as it was: `temporary` also when its thread was made for it alone, to be kept.
    """
    row = await conn.fetchrow(sql.load("runs")["lock_run_to_skip"].text, held.run_id, held.attempt)
    if row is None:
        return None
    await fires.skip(conn, held.run_id, reason)
    await frames.delete_of_run(conn, held.run_id)
    await conn.execute(sql.load("runs")["delete_undone_run"].text, held.run_id)
    return replace(rows.run(row), temporary=row["is_alone"])


async def _cancel_pending(conn: Conn, run_id: RunId) -> None:
    """End a pending run. Its webhook, if it has one, is told of the state that the thread has without it."""
    row = await conn.fetchrow(sql.load("runs")["cancel_pending_run"].text, run_id)
    if row is None or webhook_of(run := rows.run(row)) is None:
        return
    thread = await threads.get(conn, run.thread_id, scope=EVERYONE)
    values = thread.values if thread else None
    await webhooks.insert(conn, run, owner=row["owner"], values=values, interrupts=None)


async def _undo(conn: Conn, run_id: RunId, thread_id: ThreadId, *, has_begun: bool) -> None:
    """Delete a run with all that it wrote, and put back what it wrote over."""
    if has_begun:
        await checkpoints.undo(conn, run_id=run_id, thread_id=thread_id)
        await frames.delete_of_run(conn, run_id)
    await conn.execute(sql.load("runs")["delete_undone_run"].text, run_id)
