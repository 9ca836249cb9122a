"""Backfill: put slots of the past on record to be run; catching_up.py starts them, a few at once, oldest first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from matins.domain import backfills
from matins.domain.access import Scope
from matins.domain.backfills import Past
from matins.domain.errors import Conflict, CronNotFound
from matins.domain.fires import Outcome
from matins.domain.ids import CronId
from matins.storage import crons, fires, spending
from matins.storage.pool import Conn


@dataclass(frozen=True, slots=True)
class Backfill:
    """The slots that were asked for, oldest first, and what those that run may come to; None where nobody knows."""

    slots: list[Past]
    estimated_tokens: int | None
    estimated_usd: float | None

    @property
    def count(self) -> int:
        """How many of them run."""
        return sum(each.fires for each in self.slots)


async def backfill(
    conn: Conn, cron_id: CronId, *, since: datetime, until: datetime, dry_run: bool, scope: Scope
) -> Backfill:
    """Have a cron's slots from `since` to before `until` run that had no run. Must be in a transaction.

    With `dry_run` they are only shown. Raises: CronNotFound; Conflict when the cron is off; Invalid when there can be
    no such slots, or are too many, or they may have been served.
    """
    cron = await crons.lock(conn, cron_id, scope=scope)
    if cron is None:
        raise CronNotFound(cron_id)
    if cron.done_at is not None:
        raise Conflict("It was to fire once, and is done: run it now instead")
    if not cron.enabled:
        raise Conflict("It is paused: resume it first, else its slots would wait for nobody")
    now, _ = await crons.clock(conn)
    counted = backfills.slots(cron, since, until, now=now)
    known = await fires.known(conn, cron_id, counted, window=backfills.window_of(cron))
    found = [backfills.decided(cron, at, outcome) for at, outcome in known if since <= at < until]
    if not dry_run:
        await fires.ask_for(
            conn, cron, [each.at for each in found if each.fires and each.outcome is not Outcome.WAITING]
        )
    mean, count = await spending.mean(conn, cron_id), sum(each.fires for each in found)
    return Backfill(
        found,
        estimated_tokens=None if mean is None else round(mean[0] * count),
        estimated_usd=None if mean is None else mean[1] * count,
    )
