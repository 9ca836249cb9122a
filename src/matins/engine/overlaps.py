"""What a slot does whose cron still has a run under way, or whose thread is busy: decided without a database.

skip             is skipped, on record
queue_one        waits on the thread, or in the ledger where each run has a thread of its own; is skipped when
                 another of its cron waits already
cancel_previous  stops the runs of its cron, never a person's, and waits for what is left
allow            starts beside them
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from matins.domain.ids import CronId, RunId, ThreadId
from matins.domain.policies import Overlap
from matins.domain.runs import RunStatus, StopReason
from matins.storage import fires, firing

QUEUED: Final = "waits for its previous run"


@dataclass(frozen=True, slots=True)
class UnderWay:
    """What was found in flight: of each cron that was asked about, its runs; which threads are busy.

    `waiting`: crons of which a slot waits in the ledger.
    """

    of_cron: Mapping[CronId, Sequence[fires.InFlight]]
    busy: frozenset[ThreadId]
    waiting: frozenset[CronId] = frozenset()


@dataclass(frozen=True, slots=True)
class Displacing:
    """A run that makes way for its cron's next one."""

    run_id: RunId
    thread_id: ThreadId
    reason: StopReason


def without_overlaps(
    rows: Iterable[firing.NewFire], overlaps: Mapping[CronId, Overlap], under_way: UnderWay
) -> tuple[list[firing.NewFire], list[Displacing]]:
    """Give the rows as they are to be written, and the runs to stop before that."""
    mine = defaultdict(list, {cron_id: list(runs) for cron_id, runs in under_way.of_cron.items()})
    busy, waiting = set(under_way.busy), set(under_way.waiting)
    written: list[firing.NewFire] = []
    displaced: list[Displacing] = []
    place: dict[RunId, int] = {}
    for row in rows:
        if row.run is None:
            written.append(row)
            continue
        cron, run = row.cron, row.run
        overlap, its = overlaps[cron.cron_id], mine[cron.cron_id]
        is_apart = run.thread_id != cron.thread_id
        has_waiting = (
            cron.cron_id in waiting if is_apart else any(each.status is RunStatus.PENDING for each in its)
        )
        reason = _why_not(overlap, its, is_busy=run.thread_id in busy, has_waiting=has_waiting)
        if reason is not None:
            written.append(replace(row, outcome="skipped", reason=reason, run=None))
            continue
        if overlap == "queue_one" and its and is_apart:
            # Its run has a thread of its own: there is no queue to wait in but the ledger.
            waiting.add(cron.cron_id)
            written.append(replace(row, outcome="waiting", reason=QUEUED, run=None))
            continue
        if overlap == "cancel_previous":
            stop = StopReason.ROLLBACK if run.multitask_strategy == "rollback" else StopReason.INTERRUPT
            for each in mine.pop(cron.cron_id, ()):
                if each.run_id in place:  # of this very moment: it is not there yet
                    late = written[place[each.run_id]]
                    reason = "its next slot was due already"
                    written[place[each.run_id]] = replace(late, outcome="skipped", reason=reason, run=None)
                else:
                    displaced.append(Displacing(each.run_id, each.thread_id, stop))
        mine[cron.cron_id].append(fires.InFlight(run.run_id, run.thread_id, RunStatus.PENDING))
        busy.add(run.thread_id)
        place[run.run_id] = len(written)
        written.append(row)
    return written, displaced


def _why_not(
    overlap: Overlap, mine: Sequence[fires.InFlight], *, is_busy: bool, has_waiting: bool
) -> str | None:
    """Say why the slot is skipped; None when it is not."""
    if overlap == "skip" and mine:
        return "its previous run was still under way"
    if overlap == "skip" and is_busy:
        return "its thread was busy"
    if overlap == "queue_one" and has_waiting:
        return "another of its runs was waiting already"
    return None
