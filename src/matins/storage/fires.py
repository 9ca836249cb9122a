"""The ledger: what became of each slot. Rows are added by firing; here they are read, changed and trimmed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from asyncpg import Record

from matins.domain.access import Scope
from matins.domain.crons import Cron
from matins.domain.fires import OUTPUT_LENGTH, RECENT, RETENTION, Figures, Fire, Outcome, Trigger
from matins.domain.ids import CronId, RunId, ThreadId
from matins.domain.runs import RunStatus
from matins.storage import sql
from matins.storage.pool import Conn

QUEUED_AT_ONCE: Final = 100
"""How many slots that wait for their cron's previous run are found in a look."""


async def give_up(
    conn: Conn, cron_id: CronId, reason: str, *, outcome: Outcome, slot: datetime | None = None
) -> None:
    """Let no slot of a cron wait any longer, or not that one."""
    await conn.execute(sql.load("fires")["give_up_fires"].text, cron_id, outcome.value, reason, slot)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A slot that waits for its run, and what it is due to."""

    cron_id: CronId
    slot: datetime
    trigger: Trigger


async def waiting(conn: Conn, *, at_once: int) -> list[Waiting]:
    """Give slots that may be caught up now: of each cron the oldest, as many as `at_once` leaves room for.

    A cron that has a run in flight has none.
    """
    found = await conn.fetch(sql.load("fires")["list_waiting"].text, at_once, QUEUED_AT_ONCE)
    return [Waiting(CronId(row["cron_id"]), row["scheduled_for"], Trigger(row["trigger"])) for row in found]


async def known(
    conn: Conn, cron_id: CronId, slots: Sequence[datetime], *, window: timedelta
) -> list[tuple[datetime, Outcome | None]]:
    """Give for each slot, in order, the newest on record that is within `window` before it, and what became of it.

    Or the slot itself and None, when there is none on record. What a person has triggered is no slot.
    """
    found = await conn.fetch(sql.load("fires")["known_fires"].text, cron_id, list(slots), window)
    return [(row["scheduled_for"], row["outcome"] and Outcome(row["outcome"])) for row in found]


async def ask_for(conn: Conn, cron: Cron, slots: Sequence[datetime]) -> None:
    """Have slots wait for a run that have had none, on record or not. The caller holds the cron's row."""
    await conn.execute(
        sql.load("fires")["ask_for_fires"].text,
        cron.cron_id,
        list(slots),
        cron.thread_id,
        cron.assistant_id,
        cron.owner,
    )


async def lock_waiting(conn: Conn, cron_id: CronId, slot: datetime) -> bool:
    """Hold a slot that waits to the end of the transaction; False when it does not wait, or somebody else holds it."""
    return await conn.fetchrow(sql.load("fires")["lock_waiting"].text, cron_id, slot) is not None


async def newest_fired(conn: Conn, cron_ids: Sequence[CronId]) -> dict[CronId, datetime]:
    """Give the newest slot of each of these crons that has fired, or is going to be caught up."""
    found = await conn.fetch(sql.load("fires")["newest_fired"].text, list(cron_ids))
    return {CronId(row["cron_id"]): row["scheduled_for"] for row in found}


@dataclass(frozen=True, slots=True)
class InFlight:
    """A run of a cron that is pending or running."""

    run_id: RunId
    thread_id: ThreadId
    status: RunStatus


async def in_flight(conn: Conn, cron_ids: Sequence[CronId]) -> dict[CronId, list[InFlight]]:
    """Give the runs of these crons that are in flight, oldest first. The caller has taken the crons."""
    found: dict[CronId, list[InFlight]] = {}
    for row in await conn.fetch(sql.load("fires")["runs_of_crons"].text, list(cron_ids)):
        run = InFlight(row["run_id"], row["thread_id"], RunStatus(row["status"]))
        found.setdefault(CronId(row["cron_id"]), []).append(run)
    return found


async def waiting_of(conn: Conn, cron_ids: Sequence[CronId]) -> frozenset[CronId]:
    """Give those of these crons of which a slot waits for its previous run."""
    found = await conn.fetch(sql.load("fires")["crons_that_wait"].text, list(cron_ids))
    return frozenset(CronId(row["cron_id"]) for row in found)


async def busy_threads(conn: Conn, thread_ids: Sequence[ThreadId]) -> frozenset[ThreadId]:
    """Give those of the threads that have a run in flight. The caller holds their rows."""
    found = await conn.fetch(sql.load("runs")["busy_threads"].text, list(thread_ids))
    return frozenset(ThreadId(row["thread_id"]) for row in found)


async def skip(conn: Conn, run_id: RunId, reason: str) -> None:
    """Put on record that the slot of a run was skipped after all. The caller deletes the run."""
    await conn.execute(sql.load("fires")["skip_fire"].text, run_id, reason)


@dataclass(frozen=True, slots=True)
class ToBeAsked:
    """The slot whose condition is to be asked, and the newest one of its cron whose run was a success."""

    scheduled_for: datetime
    last_success: datetime | None


async def to_be_asked(conn: Conn, run_id: RunId) -> ToBeAsked | None:
    """Give the slot of a run about which its cron's condition is to be asked.

    None when a person has triggered it, or something of it has begun: its thread has a checkpoint more.
    """
    row = await conn.fetchrow(sql.load("fires")["fire_to_be_asked"].text, run_id)
    return ToBeAsked(row["scheduled_for"], row["last_success"]) if row else None


async def keep_output(conn: Conn, run_id: RunId, output: str) -> None:
    """Keep the last words of a cron's run, cut to OUTPUT_LENGTH."""
    await conn.execute(sql.load("fires")["keep_output"].text, run_id, output[:OUTPUT_LENGTH])


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which fires of a cron: each part that is given must match. Slots from `since` on, and before `until`."""

    cron_id: CronId
    outcome: str | None = None
    status: str | None = None
    trigger: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def list_(conn: Conn, wanted: Filter, *, scope: Scope, limit: int, offset: int) -> list[Fire]:
    """Give one page of a cron's fires, the newest slot first. The cron may be gone."""
    found = await conn.fetch(sql.load("fires")["list_fires"].text, *_wanted(wanted, scope), limit, offset)
    return [_fire(row) for row in found]


async def get_of_run(conn: Conn, run_id: RunId) -> Fire | None:
    """Give the fire that started the run, if one did."""
    row = await conn.fetchrow(sql.load("fires")["get_fire_of_run"].text, run_id)
    return _fire(row) if row else None


async def count(conn: Conn, wanted: Filter, *, scope: Scope, limit: int) -> int:
    """Count a cron's fires, no further than the limit."""
    number: int = await conn.fetchval(sql.load("fires")["count_fires"].text, *_wanted(wanted, scope), limit)
    return number


async def figures(conn: Conn, cron_ids: Sequence[CronId]) -> dict[CronId, Figures]:
    """Give what the newest RECENT slots of each of these crons come to, where it has had any."""
    found = await conn.fetch(sql.load("fires")["sum_fires"].text, list(cron_ids), RECENT)
    return {
        CronId(row["cron_id"]): Figures(
            scheduled_for=row["scheduled_for"],
            outcome=Outcome(row["outcome"]),
            reason=row["reason"],
            trigger=Trigger(row["trigger"]),
            run_id=row["run_id"],
            status=row["status"],
            last_success=row["last_success"],
            streak=row["streak"],
            p50_s=row["p50_s"],
            tokens_7d=row["tokens_7d"],
            cost_usd_7d=row["cost_usd_7d"],
        )
        for row in found
    }


async def trim(conn: Conn, *, limit: int) -> int:
    """Delete fires past RETENTION, at most `limit` of them, and give how many that were."""
    return len(await conn.fetch(sql.load("fires")["trim_fires"].text, RETENTION.total_seconds(), limit))


def _wanted(wanted: Filter, scope: Scope) -> tuple[object, ...]:
    parts = (wanted.outcome, wanted.status, wanted.trigger, wanted.since, wanted.until)
    return (wanted.cron_id, scope.owner, *parts)


def _fire(row: Record) -> Fire:
    return Fire(
        cron_id=row["cron_id"],
        scheduled_for=row["scheduled_for"],
        outcome=Outcome(row["outcome"]),
        reason=row["reason"],
        trigger=Trigger(row["trigger"]),
        run_id=row["run_id"],
        thread_id=row["thread_id"],
        assistant_id=row["assistant_id"],
        recorded_at=row["recorded_at"],
        status=row["status"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        error=row["error"],
        output=row["output"],
        retries=row["retries"],
        model_calls=row["model_calls"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        tokens=row["tokens"],
        cost_usd=row["cost_usd"],
    )
