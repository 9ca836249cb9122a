"""What a server promised, held against what it has: every broken promise as a line of text.

    claims  what clients were told, and what graphs did outside the database
    found   what the database holds

Counts slots by itself, from each cron's first one in steps of its interval. Reads no code of the server's.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Self

import asyncpg

LATE: Final = timedelta(seconds=30)
"""A slot that is later than this is missed, or fires as the one that catches up."""

CRASH_LIMIT: Final = 3


@dataclass(frozen=True, slots=True)
class AcknowledgedCron:
    """A cron of which a client knows that it is due at `first`, every `step`, up to `last`."""

    first: datetime
    last: datetime
    step: timedelta = timedelta(seconds=1)

    @property
    def slots(self) -> set[datetime]:
        """Every instant at which it was due."""
        return {self.first + at * self.step for at in range((self.last - self.first) // self.step + 1)}


@dataclass(slots=True)
class Claims:
    """What clients were told. `runs`: whether the run is temporary; `finished`: runs seen at their last node."""

    runs: dict[str, bool] = field(default_factory=dict)
    threads: set[str] = field(default_factory=set)
    crons: dict[str, AcknowledgedCron] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    of_crons: set[str] = field(default_factory=set)
    worker_kills: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """A row of `run`."""

    run_id: str
    status: str = "success"
    crashes: int = 0
    error: str | None = None
    cron_id: str | None = None
    slot: datetime | None = None


@dataclass(frozen=True, slots=True)
class Fire:
    """A row of `cron_fire`; `ended`: when its run did."""

    cron_id: str
    slot: datetime
    recorded: datetime
    outcome: str = "fired"
    trigger: str = "schedule"
    run_id: str | None = None
    ended: datetime | None = None


@dataclass(slots=True)
class Found:
    """What the database holds. `threads`: the status of each."""

    runs: list[Run] = field(default_factory=list)
    threads: dict[str, str] = field(default_factory=dict)
    crons: set[str] = field(default_factory=set)
    fires: list[Fire] = field(default_factory=list)

    @classmethod
    async def read(cls, connection: asyncpg.Connection[Any]) -> Self:
        """Read it, in one snapshot."""
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            runs = await connection.fetch(
                "SELECT run_id::text, status, crashes, error::text, cron_id::text, scheduled_for FROM matins.run"
            )
            threads = await connection.fetch("SELECT thread_id::text, status FROM matins.thread")
            crons = await connection.fetch("SELECT cron_id::text FROM matins.cron")
            fires = await connection.fetch(
                "SELECT cron_id::text, scheduled_for, recorded_at, outcome, trigger, run_id::text, ended_at"
                " FROM matins.cron_fire"
            )
        return cls(
            [Run(*row) for row in runs],
            {row["thread_id"]: row["status"] for row in threads},
            {row["cron_id"] for row in crons},
            [Fire(*row) for row in fires],
        )


def violations(claims: Claims, found: Found) -> list[str]:
    """Give every broken promise; an empty list when all are kept."""
    return [*_of_runs(claims, found), *_of_threads(claims, found), *_of_crons(claims, found)]


def _of_runs(claims: Claims, found: Found) -> list[str]:
    rows = {run.run_id: run for run in found.runs}
    broken = []
    for run_id, temporary in claims.runs.items():
        if run_id not in rows and not temporary:
            broken.append(f"run {run_id} was acknowledged and is gone")
        if run_id not in claims.finished:
            broken.append(f"run {run_id} was acknowledged and never came to its end")
    for run in found.runs:
        if run.status in ("pending", "running"):
            broken.append(f"run {run.run_id} is still {run.status}")
        elif run.status != "success" and not (run.crashes + 1 >= CRASH_LIMIT and claims.worker_kills):
            broken.append(f"run {run.run_id} ended as {run.status}, which no kill explains: {run.error}")
        if run.crashes > min(claims.worker_kills, CRASH_LIMIT):
            broken.append(
                f"run {run.run_id} was charged {run.crashes} crashes; workers killed: {claims.worker_kills}"
            )
    return broken


def _of_threads(claims: Claims, found: Found) -> list[str]:
    gone = [f"thread {each} was acknowledged and is gone" for each in claims.threads - found.threads.keys()]
    busy = [f"thread {each} is still busy" for each, status in found.threads.items() if status == "busy"]
    return gone + busy


def _of_crons(claims: Claims, found: Found) -> list[str]:
    broken = [f"cron {each} was acknowledged and is gone" for each in claims.crons.keys() - found.crons]
    by_cron: dict[str, list[Fire]] = defaultdict(list)
    for fire in found.fires:
        by_cron[fire.cron_id].append(fire)
    for cron_id, cron in claims.crons.items():
        recorded = Counter(fire.slot for fire in by_cron[cron_id])
        broken += [f"cron {cron_id}: slot {at} has no row" for at in sorted(cron.slots - recorded.keys())]
        broken += [f"cron {cron_id}: {at} is no slot" for at in sorted(recorded.keys() - cron.slots)]
        broken += [f"cron {cron_id}: slot {at} has {n} rows" for at, n in recorded.items() if n > 1]
    rows = {run.run_id: run for run in found.runs}
    for fire in found.fires:
        broken += [
            f"cron {fire.cron_id}, slot {fire.slot}: {wrong}"
            for wrong in _of_fire(fire, claims, rows, by_cron[fire.cron_id])
        ]
    by_slot = Counter((run.cron_id, run.slot) for run in found.runs if run.cron_id)
    broken += [f"cron {cron}, slot {slot}: {n} runs" for (cron, slot), n in by_slot.items() if n > 1]
    fired = {fire.run_id for fire in found.fires}
    strangers = claims.of_crons | {run.run_id for run in found.runs if run.cron_id}
    broken += [f"run {each} of a cron has no row in the ledger" for each in strangers - fired]
    return broken


def _of_fire(fire: Fire, claims: Claims, rows: dict[str, Run], siblings: list[Fire]) -> list[str]:
    late = fire.recorded - fire.slot
    broken = []
    if fire.outcome == "missed" and late <= LATE:
        broken.append(f"missed, only {late} late")
    if fire.outcome == "skipped" and not any(_was_in_flight(each, fire) for each in siblings):
        broken.append("skipped, and no run of its cron was in flight")
    if fire.outcome not in ("fired", "missed", "skipped"):
        broken.append(fire.outcome)
    if fire.outcome == "fired":
        if late > LATE and fire.trigger != "catch_up":
            broken.append(f"fired on schedule, {late} late")
        run = rows.get(fire.run_id or "")
        if run is not None and (run.cron_id, run.slot) != (fire.cron_id, fire.slot):
            broken.append(f"its run {run.run_id} is of another slot")
        if fire.run_id not in claims.finished:
            broken.append(f"its run {fire.run_id} never came to its end")
    return broken


def _was_in_flight(other: Fire, fire: Fire) -> bool:
    """Whether the run of an older slot had not ended when this one was recorded."""
    is_older = other.slot < fire.slot and other.run_id is not None
    return is_older and (other.ended is None or other.ended > fire.recorded)
