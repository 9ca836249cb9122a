"""Backfill: slots of the past that a person wants to have run. Which there are, and which of them may."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from matins.domain import dates
from matins.domain.crons import Cron
from matins.domain.errors import Invalid
from matins.domain.fires import RETENTION, Outcome
from matins.domain.schedules import interval_of

MOST: Final = 1000
"""How many slots are asked for at once at most."""

REACH: Final = RETENTION - timedelta(days=1)
"""How far the ledger of an old cron surely reaches back: a day less than it is kept, for it is being trimmed."""

_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Past:
    """A slot of the past, what the ledger says of it, and why it does not run, or None if it does."""

    at: datetime
    outcome: Outcome | None
    reason: str | None

    @property
    def fires(self) -> bool:
        """Whether it runs, or waits for that already."""
        return self.reason is None


def slots(cron: Cron, since: datetime, until: datetime, *, now: datetime) -> list[datetime]:
    """Give the slots from `since` to before `until`, oldest first, as the cron's schedule is at present.

    `@every` is counted back from the next slot, and gives one more, whose window reaches back to before `until`.
    Raises: Invalid when they cannot be, or are too many.

    """
    if until > now:
        raise Invalid("until: slots to come cannot be filled in; name a time that has gone by")
    if since >= until:
        raise Invalid("since: must be before `until`")
    if cron.created_at < now - RETENTION and since < now - REACH:
        raise Invalid(
            f"since: the ledger is kept for {RETENTION.days} days, so that slots before "
            f"{(now - REACH).isoformat(timespec='seconds')} may have been served"
        )
    found: list[datetime] = []
    end = until + window_of(cron) - timedelta.resolution
    at = _first(cron, max(since, _FIRST))
    while at is not None and at < end and (cron.end_time is None or at <= cron.end_time):
        if len(found) == MOST:
            raise Invalid(
                f"There are more than {MOST:,} slots from `since` to `until`; ask for less at a time"
            )
        found.append(at)
        at = dates.after(cron, at)
    return found


def window_of(cron: Cron) -> timedelta:
    """Give how far back from a slot the ledger's own is the same one.

    `@every` counts anew when a cron is resumed: then what is on record lies beside what is counted back.
    """
    return interval_of(cron.schedule) or timedelta.resolution


def decided(cron: Cron, at: datetime, outcome: Outcome | None) -> Past:
    """Say whether a slot may run: one that was served never does again."""
    if outcome is Outcome.FIRED:
        return Past(at, outcome, "it has had its run")
    if outcome is None and cron.next_run_date is not None and at >= cron.next_run_date:
        return Past(at, outcome, "its cron is about to fire it")
    return Past(at, outcome, None)


def _first(cron: Cron, since: datetime) -> datetime | None:
    interval = interval_of(cron.schedule)
    if interval is None:
        return dates.after(cron, since - timedelta.resolution)
    counted_from = cron.next_run_date or cron.created_at.replace(microsecond=0)
    return counted_from - (counted_from - since) // interval * interval
