"""The run queue: claim, settle, release, reap. Every write names the attempt that makes it; see domain/runs.py."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from matins.domain.access import EVERYONE
from matins.domain.errors import LeaseLost
from matins.domain.frames import METADATA, Frame
from matins.domain.ids import NodeId, RunId, ThreadId
from matins.domain.runs import Change, Held, Run, RunStatus, StopReason, sources, target
from matins.domain.threads import resting_status
from matins.storage import fires, frames, idempotency, rows, sql, stops, threads, webhooks
from matins.storage.pool import Conn

LEASE_SECONDS: Final = 15.0
"""How long a node's lease lasts unless it is renewed."""

LEFT_BEHIND_SECONDS: Final = 60.0
"""How long a temporary run and its thread stay after its end for those who follow it from another node."""


@dataclass(frozen=True, slots=True)
class Head:
    """A thread's first run, as it was seen: under it so many processes died."""

    thread_id: ThreadId
    crashes: int


@dataclass(frozen=True, slots=True)
class Released:
    """A run that went back to the queue: the attempt that ended, the crashes charged so far, and a wish to stop."""

    held: Held
    crashes: int
    stop: StopReason | None


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended, and what its thread keeps of it. JSON in bytes; None keeps what the thread had.

    `event_seq` is the last number that this attempt used. `keeps`: the run's events are kept.
    """

    change: Change
    values: bytes | None = None
    interrupts: bytes | None = None
    has_next: bool = False
    checkpoint_id: str | None = None
    error: bytes | None = None
    event_seq: int = 0
    keeps: bool = False
    is_untouched: bool = False
    """The run was refused before it wrote anything: its thread keeps what it had."""
    reply: bytes = b"{}"
    """What those who wait for it are answered."""
    output: str | None = None
    """Of a cron's run, what it said in the end."""
    skipped: str | None = None
    """Why the run's slot is skipped after all: then nothing of the run is left, as if it had never been."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A run that the database says a node holds, whether it is wished to stop, and to be followed from elsewhere."""

    held: Held
    stop: StopReason | None
    is_followed: bool


def _stop(text: str | None) -> StopReason | None:
    return StopReason(text) if text else None


async def heads(conn: Conn, *, limit: int, least_priority: int | None = None) -> list[Head]:
    """Give threads whose first run is due and where nothing runs, in the order of the queue, without a lock.

    None whose first run has a lower priority than the least.

    Up to `limit` of those under which no process died, then up to `limit` of those under which one did: these start
    in few places, and must not hide the others behind them.
    """
    queries = sql.load("queue")
    found = await conn.fetch(queries["find_heads"].text, limit, least_priority)
    found += await conn.fetch(queries["find_crashed_heads"].text, limit, least_priority)
    return [Head(ThreadId(row["thread_id"]), row["crashes"]) for row in found]


async def claim(conn: Conn, seen: list[Head], *, node_id: NodeId, limit: int) -> list[Run]:
    """Claim the first runs of up to `limit` of these queues, where still nothing runs. Must be in a transaction.

    Locks threads, then decides in a statement of its own, so that it sees what others committed before the lock.
    A thread that somebody else holds is passed over.
    """
    crashes = {head.thread_id: head.crashes for head in seen}
    locked = await conn.fetch(sql.load("queue")["lock_heads"].text, list(crashes), limit)
    if not locked:
        return []
    free = [ThreadId(row["thread_id"]) for row in locked]
    claimed = await conn.fetch(
        sql.load("queue")["claim_runs"].text, free, node_id, [crashes[thread_id] for thread_id in free]
    )
    return [rows.run(row) for row in claimed]


async def seconds_to_next_due(conn: Conn) -> float | None:
    """Give the seconds until a run that waits for its time becomes due; None when none does."""
    seconds: float | None = await conn.fetchval(sql.load("queue")["seconds_to_next_due"].text)
    return seconds


async def settle(conn: Conn, held: Held, end: End) -> Run | None:
    """Record how a run ended and free its thread. Must be in a transaction; it locks the thread first.

    `is_followed` of the run that it gives: somebody on another node, or on the thread, is to be told.

    A temporary run's thread is deleted with everything on it, the run included; after LEFT_BEHIND_SECONDS, when
    somebody follows the run or waits for it on another node. What goes to its webhook, if it has one, is written with
    it. A run that was wished to be undone is, however it ended, and one that is skipped is gone; they report nothing:
    None.
    Raises: LeaseLost when that attempt no longer holds the run; nothing was written.
    """
    thread = await threads.lock(conn, held.thread_id, scope=EVERYONE)
    if end.skipped is not None:
        await _leave_no_trace(conn, await stops.skip(conn, held, end.skipped), held, end)
        return None
    row = await conn.fetchrow(
        sql.load("queue")["end_run"].text,
        held.run_id,
        held.attempt,
        target(end.change).value,
        [status.value for status in sources(end.change)],
        end.error,
        end.checkpoint_id,
    )
    if row is None:
        await _leave_no_trace(conn, await stops.undo_stopped(conn, held), held, end)
        return None
    run = rows.run(row)
    if run.cron_id is not None and end.output:
        await fires.keep_output(conn, run.run_id, end.output)
    values = end.values or (thread.values if thread else None)
    await webhooks.insert(conn, run, owner=row["owner"], values=values, interrupts=end.interrupts)
    if run.temporary and row["is_keyed"]:
        await idempotency.update_reply(conn, run.run_id, end.reply)
    if run.temporary and not run.is_followed:
        await threads.vacate(conn, run)
        return run
    if end.is_untouched:
        await threads.vacate(conn, replace(run, temporary=False), event_seq=end.event_seq)
        if run.is_followed or end.keeps:
            await _say_done(conn, held, end)
        return run
    resting = resting_status(failed=run.status in (RunStatus.ERROR, RunStatus.TIMEOUT), has_next=end.has_next)
    await conn.fetchrow(
        sql.load("queue")["free_thread"].text,
        held.thread_id,
        resting.value,
        end.values,
        end.interrupts,
        end.error,
        end.event_seq,
    )
    if run.is_followed or end.keeps:
        await _say_done(conn, held, end)
    return run


async def _leave_no_trace(conn: Conn, gone: Run | None, held: Held, end: End) -> None:
    """Leave the thread of a run that is gone. Raises: LeaseLost when there was none to go."""
    if gone is None:
        raise LeaseLost(str(held.run_id))
    await threads.vacate(conn, gone, event_seq=end.event_seq)
    if gone.is_followed:  # who saw it begin sees it end; else nothing of it is left
        await _say_done(conn, held, end)


async def _say_done(conn: Conn, held: Held, end: End) -> None:
    """Keep that the run is done, where its events are kept: the thread's stream shows it."""
    done = Frame(METADATA, b'{"status":"run_done","run_id":"%b"}' % str(held.run_id).encode())
    await frames.append_to_thread(conn, held.thread_id, done, held=held, used=end.event_seq)


async def was_settled(conn: Conn, held: Held) -> bool:
    """Whether that attempt was the one that ended its run; also true of a run that is gone with its thread."""
    settled: bool = await conn.fetchval(sql.load("queue")["was_settled"].text, held.run_id, held.attempt)
    return settled


async def release(conn: Conn, held: list[Held], *, charge: int) -> list[Released]:
    """Put runs back into the queue, charging each `charge` crashes; give those that were still held."""
    freed = await conn.fetch(
        sql.load("queue")["release_runs"].text,
        [each.run_id for each in held],
        [each.attempt for each in held],
        charge,
    )
    return [
        Released(Held(row["run_id"], row["thread_id"], row["attempt"]), row["crashes"], _stop(row["stop"]))
        for row in freed
    ]


async def retry(conn: Conn, held: Held, *, after_s: float, most: int, before: datetime | None) -> bool:
    """Put a run back into the queue after an error that may pass, to be tried again in `after_s` seconds.

    False when it was tried `most` times, when that would not be `before`, or when it is to stop.
    """
    found = await conn.fetchval(
        sql.load("queue")["retry_run"].text, held.run_id, held.attempt, after_s, most, before
    )
    return found is not None


async def held_by(conn: Conn, node_id: NodeId) -> list[Claimed]:
    """Give the runs that a node holds, as the database has it."""
    found = await conn.fetch(sql.load("queue")["held_by_node"].text, node_id)
    return [
        Claimed(Held(row["run_id"], row["thread_id"], row["attempt"]), _stop(row["stop"]), row["is_followed"])
        for row in found
    ]


async def of_dead_nodes(
    conn: Conn, *, node_id: NodeId, known_dead: list[NodeId] | None, limit: int
) -> list[Held]:
    """Give runs of the nodes that are `known_dead`; when it is None, of all whose lease has run out."""
    found = await conn.fetch(sql.load("queue")["runs_of_dead_nodes"].text, node_id, known_dead, limit)
    return [Held(RunId(row["run_id"]), ThreadId(row["thread_id"]), row["attempt"]) for row in found]


async def reap_left_behind(conn: Conn, *, limit: int) -> int:
    """Delete threads that temporary runs left behind, LEFT_BEHIND_SECONDS after their end; give how many.

    Must be in a transaction.
    """
    found = await conn.fetch(sql.load("queue")["reap_left_behind"].text, LEFT_BEHIND_SECONDS, limit)
    return len(await threads.delete(conn, [ThreadId(row["thread_id"]) for row in found], scope=EVERYONE))


async def renew(conn: Conn, *, node_id: NodeId, name: str, version: str) -> float:
    """Renew a node's lease for LEASE_SECONDS and give for how long it has been held without a gap, in seconds."""
    tenure_s: float = await conn.fetchval(
        sql.load("queue")["renew_lease"].text, node_id, name, version, LEASE_SECONDS
    )
    return tenure_s


async def leave(conn: Conn, node_ids: list[NodeId]) -> None:
    """Strike nodes off: this one as it goes, or others that are known to be dead."""
    await conn.execute(sql.load("queue")["leave"].text, node_ids)


async def max_connections(conn: Conn) -> int:
    """Give how many connections the database takes, over all its clients."""
    number: int = await conn.fetchval(sql.load("queue")["max_connections"].text)
    return number


async def other_nodes(conn: Conn, node_id: NodeId) -> list[NodeId]:
    """Give every other node on record or named by a running run, alive or not."""
    return [row["node_id"] for row in await conn.fetch(sql.load("queue")["other_nodes"].text, node_id)]


async def forget_nodes(conn: Conn) -> None:
    """Strike off nodes that have been gone for an hour."""
    await conn.execute(sql.load("queue")["forget_nodes"].text)
