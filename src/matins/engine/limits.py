"""What of a cron's due slots its limits leave: decided without a database.

A slot that goes beyond them is skipped, on record, and its cron is paused. One whose run is the last that a cron may
ever have fires, and its cron is paused with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from matins.domain.budgets import Room
from matins.domain.crons import Cron
from matins.domain.fires import Outcome
from matins.domain.ids import CronId
from matins.storage import fires


def within(
    rows: Iterable[fires.NewFire], rooms: Mapping[CronId, Room]
) -> tuple[list[fires.NewFire], list[tuple[Cron, str]]]:
    """Give the rows as they are to be written, and the crons to pause, each with its reason."""
    runs: Counter[CronId] = Counter()
    written: list[fires.NewFire] = []
    paused: dict[CronId, tuple[Cron, str]] = {}
    for row in rows:
        cron_id, found = row.cron.cron_id, row
        if cron_id in rooms and (row.run is not None or row.outcome == Outcome.WAITING):
            runs[cron_id] += 1
            if runs[cron_id] > rooms[cron_id].runs:
                reason = rooms[cron_id].reason
                found = fires.NewFire(row.cron, row.slot, "skipped", reason=reason, trigger=row.trigger)
                paused[cron_id] = (row.cron, reason)
        written.append(found)
    return written, list(paused.values())


def reached(rows: Sequence[fires.NewFire], rooms: Mapping[CronId, Room]) -> list[tuple[Cron, str]]:
    """Give the crons whose last run ever is among the rows, each with the reason."""
    runs = Counter(row.cron.cron_id for row in rows if row.run is not None)
    crons = {row.cron.cron_id: row.cron for row in rows}
    return [
        (crons[cron_id], rooms[cron_id].reason)
        for cron_id, number in runs.items()
        if cron_id in rooms and rooms[cron_id].is_final and number >= rooms[cron_id].runs
    ]
