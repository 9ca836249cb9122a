"""Fire: take due crons, write what became of their slots with the runs they start, advance the crons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from matins.domain.crons import Cron, Following
from matins.domain.dates import DONE
from matins.domain.ids import CronId, ThreadId
from matins.domain.priorities import priority_in_queue
from matins.domain.runs import NewRun
from matins.storage import sql
from matins.storage.copying import copy, fields, json, jsonb, smallint
from matins.storage.pool import Conn

_FIRE: Final = (
    *("cron_id", "scheduled_for", "owner", "outcome", "reason", "trigger", "run_id", "thread_id"),
    *("assistant_id", "status"),
)
_THREAD: Final = ("thread_id", "owner", "status", "is_tagged", "metadata", "config", "priority")
_RUN: Final = (
    *("run_id", "thread_id", "assistant_id", "cron_id", "scheduled_for", "owner", "multitask_strategy"),
    *("temporary", "creator", "metadata", "kwargs", "priority"),
)


class _Rows(NamedTuple):
    """The rows of a slot as COPY takes them; that of its run without the last column, its priority."""

    fire: bytes
    run: bytes = b""
    thread: bytes = b""


@dataclass(frozen=True, slots=True)
class NewFire:
    """One row of the ledger: what became of a slot. `run` is there exactly when `outcome` is `fired`.

    As JSON, `whose`: what the thread of a cron on a thread is to say of the run; `config`: what the run is called with.
    """

    cron: Cron
    slot: datetime
    outcome: str
    reason: str | None = None
    trigger: str = "schedule"
    run: NewRun | None = None
    whose: bytes = b"{}"
    config: bytes = b"{}"
    rows: _Rows = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make its rows now: a cron on time is worked out before its instant, and written at it."""
        object.__setattr__(self, "rows", _rows(self))


@dataclass(frozen=True, slots=True)
class Taken:
    """Crons whose rows and whose threads' rows are locked, and the database's time after that.

    `hold`: why all crons of the server are held, if they are. `asked`: threads that wait for an answer, and since when.
    """

    cron_ids: frozenset[CronId]
    now: datetime | None
    hold: str | None = None
    asked: Mapping[ThreadId, datetime] = field(default_factory=dict)


async def take(conn: Conn, planned: list[Cron]) -> Taken:
    """Lock those of the planned crons that are still as they were read and due, and their threads.

    Waits for nobody: a cron that another node fires, or whose thread is held just now, is not taken this time.
    """
    found = await conn.fetch(
        sql.load("firing")["take_crons"].text,
        [cron.cron_id for cron in planned],
        [cron.next_run_date for cron in planned],
        [cron.revision for cron in planned],
    )
    wanted = {row["thread_id"] for row in found} - {None}
    held = await take_threads(conn, list(wanted)) if wanted else {}
    free = {*held, None}
    taken = [row for row in found if row["thread_id"] in free]
    return Taken(
        frozenset(row["cron_id"] for row in taken),
        max((row["now"] for row in taken), default=None),
        taken[0]["hold"] if taken else None,
        {thread_id: asked_at for thread_id, asked_at in held.items() if asked_at is not None},
    )


async def take_threads(conn: Conn, thread_ids: Sequence[ThreadId]) -> dict[ThreadId, datetime | None]:
    """Lock those of the threads that nobody else holds; since when each waits for an answer, or None."""
    found = await conn.fetch(sql.load("firing")["take_threads"].text, list(thread_ids))
    return {ThreadId(row["thread_id"]): row["asked_at"] for row in found}


async def record(conn: Conn, planned: list[NewFire]) -> list[NewFire]:
    """Write fires and their runs in the transaction that advances the crons; give them as they were written.

    A slot that is on record already gets neither a second row nor a run. A run whose thread is not its cron's gets a
    fresh one. The caller has taken the crons.
    """
    old = await conn.fetch(
        sql.load("firing")["fires_on_record"].text,
        [fire.cron.cron_id for fire in planned],
        [fire.slot for fire in planned],
    )
    on_record = {(row["cron_id"], row["scheduled_for"]) for row in old}
    written = [fire for fire in planned if (fire.cron.cron_id, fire.slot) not in on_record]
    if written:
        await copy(conn, "cron_fire", _FIRE, [fire.rows.fire for fire in written])
    await _insert_runs(conn, [(fire, fire.run) for fire in written if fire.run])
    return written


async def start(conn: Conn, fire: NewFire) -> None:
    """Start the run of a slot that waited to be caught up. The caller holds its row, and its cron's and thread's."""
    assert fire.run is not None  # noqa: S101 - the caller made it
    await conn.execute(
        sql.load("firing")["start_fire"].text,
        fire.cron.cron_id,
        fire.slot,
        fire.run.run_id,
        fire.run.thread_id,
        fire.run.assistant_id,
    )
    await _insert_runs(conn, [(fire, fire.run)])


async def post(conn: Conn, run: NewRun) -> None:
    """Insert a run that takes to a thread what was said on a copy of it: after all that waits there.

    It is the thread's owner's, and counts as no fire. The caller holds the thread's row.
    """
    await conn.execute(
        sql.load("firing")["insert_posting"].text,
        run.run_id,
        run.thread_id,
        run.assistant_id,
        run.metadata,
        run.kwargs,
        run.creator,
        priority_in_queue(1),
    )


async def advance(conn: Conn, following: dict[CronId, Following]) -> None:
    """Move taken crons to what follows; those that are done are switched off. The caller holds the rows."""
    await conn.execute(
        sql.load("firing")["advance_crons"].text,
        list(following),
        [each.date for each in following.values()],
        [each.due_at for each in following.values()],
        [each.is_done for each in following.values()],
        DONE,
    )


async def _insert_runs(conn: Conn, fired: list[tuple[NewFire, NewRun]]) -> None:
    """Insert runs, those of a thread in the order of their slots, and the threads of those that have none yet.

    A cron's run gives way to a person's on threads with the same priority.
    """
    if not fired:
        return
    priorities = {run.thread_id: fire.cron.priority for fire, run in fired}
    fresh = [fire.rows.thread for fire, _ in fired if fire.rows.thread]
    if fresh:
        await copy(conn, "thread", _THREAD, fresh)
    kept = {run.thread_id: fire for fire, run in fired if fire.cron.thread_id == run.thread_id}
    if kept:
        occupied = await conn.fetch(
            sql.load("firing")["occupy_fired_threads"].text,
            list(kept),
            [fire.whose for fire in kept.values()],
            [fire.config for fire in kept.values()],
            [fire.cron.priority for fire in kept.values()],
        )
        priorities |= {row["thread_id"]: row["priority"] for row in occupied}
    await copy(
        conn,
        "run",
        _RUN,
        [fire.rows.run + smallint(priority_in_queue(priorities[run.thread_id]) - 1) for fire, run in fired],
    )


def _rows(fire: NewFire) -> _Rows:
    cron, run = fire.cron, fire.run
    recorded = fields(
        *(cron.cron_id, fire.slot, cron.owner, fire.outcome, fire.reason, fire.trigger),
        *(run.run_id if run else None, run.thread_id if run else cron.thread_id, cron.assistant_id),
        "pending" if run else None,
    )
    if run is None:
        return _Rows(recorded)
    started = (
        fields(run.run_id, run.thread_id, run.assistant_id, run.cron_id, run.scheduled_for, cron.owner)
        + fields(run.multitask_strategy, run.temporary)
        + json(run.creator)
        + jsonb(run.metadata)
        + json(run.kwargs)
    )
    if run.thread_id == cron.thread_id:
        return _Rows(recorded, started)
    thread = fields(run.thread_id, cron.owner, "busy", False) + jsonb(run.metadata) + json(fire.config)
    return _Rows(recorded, started, thread + smallint(cron.priority))
