"""Shapes of backfills."""

from __future__ import annotations

import msgspec

from matins.engine.backfilling import Backfill


class CronBackfill(msgspec.Struct, kw_only=True):
    """Which slots of the past are to run: from `since` to before `until`, ISO 8601 times, at most 1,000.

    With `dry_run` nothing is changed.
    """

    since: str
    until: str
    dry_run: bool = False


class PastSlot(msgspec.Struct, kw_only=True):
    """A slot, what the ledger said of it, if it did, whether it runs, and else why not."""

    scheduled_for: str
    outcome: str | None
    fires: bool
    reason: str | None


class Backfilled(msgspec.Struct, kw_only=True):
    """The slots that were asked for, the oldest first. `count`: how many of them run.

    What they may take goes by the cron's newest successes; null where there is nothing to go by.
    """

    dry_run: bool
    count: int
    slots: list[PastSlot]
    estimated_tokens: int | None
    estimated_usd: float | None


def backfilled(found: Backfill, *, dry_run: bool) -> Backfilled:
    """Give a backfill as clients see it."""
    return Backfilled(
        dry_run=dry_run,
        count=found.count,
        slots=[
            PastSlot(
                scheduled_for=each.at.isoformat(),
                outcome=each.outcome and each.outcome.value,
                fires=each.fires,
                reason=each.reason,
            )
            for each in found.slots
        ],
        estimated_tokens=found.estimated_tokens,
        estimated_usd=found.estimated_usd,
    )
