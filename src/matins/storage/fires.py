"""The ledger: take due crons, record what became of their slots with the runs they started, advance them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from matins.domain.crons import Cron
from matins.domain.ids import CronId
from matins.domain.priorities import priority_in_queue
from matins.domain.runs import NewRun
from matins.storage import sql
from matins.storage.pool import Conn


@dataclass(frozen=True, slots=True)
class Fire:
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


@dataclass(frozen=True, slots=True)
class Taken:
    """Crons whose rows and whose threads' rows are held, and the database's time after that."""

    cron_ids: frozenset[CronId]
    now: datetime | None


async def take(conn: Conn, planned: list[Cron]) -> Taken:
    """Lock those of the planned crons that are still as they were read and due, and their threads.

    Waits for nobody: a cron that another node fires, or whose thread is held just now, is not taken this time.
    """
    found = await conn.fetch(
        sql.load("crons")["take_crons"].text,
        [cron.cron_id for cron in planned],
        [cron.next_run_date for cron in planned],
        [cron.revision for cron in planned],
    )
    wanted = {row["thread_id"] for row in found} - {None}
    held = await conn.fetch(sql.load("crons")["take_threads"].text, list(wanted)) if wanted else []
    free = {row["thread_id"] for row in held} | {None}
    taken = [row for row in found if row["thread_id"] in free]
    return Taken(frozenset(row["cron_id"] for row in taken), max((row["now"] for row in taken), default=None))


async def advance(conn: Conn, following: dict[CronId, datetime | None]) -> None:
    """Move taken crons to their following dates. The caller holds the rows."""
    await conn.execute(sql.load("crons")["advance_crons"].text, list(following), list(following.values()))


async def record(conn: Conn, planned: list[Fire]) -> list[Fire]:
    """Write fires and their runs in the transaction that advances the crons; give them as they were written.

    A slot that is on record already gets neither a second row nor a run. The run of a cron without a thread gets a
    fresh one; one that is to be rejected on a busy thread is skipped. The caller has taken the crons.
    """
    fires = await _without_overlaps(conn, planned)
    inserted = await conn.fetch(
        sql.load("crons")["insert_fires"].text,
        [fire.cron.cron_id for fire in fires],
        [fire.slot for fire in fires],
        [fire.outcome for fire in fires],
        [fire.reason for fire in fires],
        [fire.trigger for fire in fires],
        [fire.run.run_id if fire.run else None for fire in fires],
        [fire.run.thread_id if fire.run else fire.cron.thread_id for fire in fires],
        [fire.cron.assistant_id for fire in fires],
        [fire.cron.owner for fire in fires],
    )
    new = {(row["cron_id"], row["scheduled_for"]) for row in inserted}
    written = [fire for fire in fires if (fire.cron.cron_id, fire.slot) in new]
    fired = [(fire, fire.run) for fire in written if fire.run]
    if fired:
        await _insert_runs(conn, fired)
    return written


async def _without_overlaps(conn: Conn, planned: list[Fire]) -> list[Fire]:
    """Give the fires, those skipped that may not wait and whose thread is busy, with a run or with each other."""
    careful = {fire.cron.thread_id for fire in planned if _may_not_wait(fire)}
    if not careful:
        return planned
    busy = {
        row["thread_id"] for row in await conn.fetch(sql.load("runs")["busy_threads"].text, list(careful))
    }
    fires: list[Fire] = []
    for fire in planned:
        if _may_not_wait(fire) and fire.cron.thread_id in busy:
            fires.append(replace(fire, outcome="skipped", reason="its thread was busy", run=None))
            continue
        if fire.run:
            busy.add(fire.cron.thread_id)
        fires.append(fire)
    return fires


def _may_not_wait(fire: Fire) -> bool:
    """Whether the fire is of a cron on a thread that would rather be skipped than queue."""
    return (
        fire.cron.thread_id is not None and fire.run is not None and fire.run.multitask_strategy == "reject"
    )


async def _insert_runs(conn: Conn, fired: list[tuple[Fire, NewRun]]) -> None:
    fresh = [(fire, run) for fire, run in fired if fire.cron.thread_id is None]
    if fresh:
        await conn.execute(
            sql.load("crons")["insert_fired_threads"].text,
            [run.thread_id for _, run in fresh],
            [fire.cron.owner for fire, _ in fresh],
            [run.metadata for _, run in fresh],
            [fire.config for fire, _ in fresh],
            [fire.cron.priority for fire, _ in fresh],
        )
    kept = {run.thread_id: fire for fire, run in fired if fire.cron.thread_id is not None}
    if kept:
        await conn.execute(
            sql.load("crons")["occupy_fired_threads"].text,
            list(kept),
            [fire.whose for fire in kept.values()],
            [fire.config for fire in kept.values()],
            [fire.cron.priority for fire in kept.values()],
        )
    await conn.execute(
        sql.load("crons")["insert_fired_runs"].text,
        [run.run_id for _, run in fired],
        [run.thread_id for _, run in fired],
        [run.assistant_id for _, run in fired],
        [fire.cron.owner for fire, _ in fired],
        [run.creator for _, run in fired],
        [run.cron_id for _, run in fired],
        [run.scheduled_for for _, run in fired],
        [run.metadata for _, run in fired],
        [run.kwargs for _, run in fired],
        [run.multitask_strategy for _, run in fired],
        [run.temporary for _, run in fired],
        priority_in_queue(1),
    )
