"""What of a cron's due slots its limits leave: decided without a database.

A slot that goes beyond them is skipped, on record, and its cron is paused. One whose run is the last that a cron may
ever have fires, and its cron is paused with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from matins.domain.budgets import Room
from matins.domain.crons import Cron
from matins.domain.ids import CronId
from matins.storage import firing


def within(
    rows: Iterable[firing.NewFire], rooms: Mapping[CronId, Room]
) -> tuple[list[firing.NewFire], frozenset[CronId]]:
    """Give the rows as they are to be written, and the crons of which a slot was refused.

    Slots that wait are not counted: they are held to the limits when their turn comes.
    """
    runs: Counter[CronId] = Counter()
    written: list[firing.NewFire] = []
    refused: set[CronId] = set()
    for row in rows:
        cron_id, found = row.cron.cron_id, row
        if row.run is not None and cron_id in rooms:
            runs[cron_id] += 1
            if runs[cron_id] > rooms[cron_id].runs:
                reason = rooms[cron_id].reason
                found = firing.NewFire(row.cron, row.slot, "skipped", reason=reason, trigger=row.trigger)
                refused.add(cron_id)
        written.append(found)
    return written, frozenset(refused)


def reached(
    rows: Sequence[firing.NewFire], rooms: Mapping[CronId, Room], refused: frozenset[CronId]
) -> list[tuple[Cron, str]]:
    """Give the crons to pause, each with the reason: nothing is left, and a slot was refused or none can follow.

    `rows` as they are written: what overlaps have skipped has used nothing.
    """
    runs = Counter(row.cron.cron_id for row in rows if row.run is not None)
    crons = {row.cron.cron_id: row.cron for row in rows if row.cron.cron_id in rooms}
    return [
        (cron, rooms[cron_id].reason)
        for cron_id, cron in crons.items()
        if runs[cron_id] >= rooms[cron_id].runs
        and (cron_id in refused or (rooms[cron_id].is_final and runs[cron_id]))
    ]
