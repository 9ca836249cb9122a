"""Fire: what became of a slot of a cron. A row of the ledger, which outlives the run, its thread and the cron."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from matins.domain.ids import AssistantId, CronId, RunId, ThreadId
from matins.domain.runs import RunStatus

RETENTION: Final = timedelta(days=90)
"""How long the ledger is kept."""

RECENT: Final = 100
"""How many of a cron's newest slots its figures are about."""

OUTPUT_LENGTH: Final = 1000
"""How many characters are kept of what a run said in the end."""


STATUSES: Final = (*RunStatus, "deleted")
"""What a fire says of its run: its status, or that it was deleted while it was in flight."""


class Outcome(StrEnum):
    """What became of a slot."""

    FIRED = "fired"
    MISSED = "missed"
    SKIPPED = "skipped"
    FAILED = "failed"  # its run could not be started
    WAITING = "waiting"  # to be caught up, or for the previous run of its cron


class Trigger(StrEnum):
    """What a slot is due to."""

    SCHEDULE = "schedule"
    CATCH_UP = "catch_up"
    MANUAL = "manual"
    BACKFILL = "backfill"


@dataclass(frozen=True, slots=True)
class Fire:
    """A row of the ledger. `reason` says why a slot did not fire.

    `status`, `started_at`, `ended_at`, `error` (JSON) and `output` are its run's, as it was last; a run that was
    deleted while it was in flight is `deleted`. All None without a run. `retries` says how often it was tried again
    after an error, the rest what its calls of models took; `cost_usd` is of those whose price is known.
    """

    cron_id: CronId
    scheduled_for: datetime
    outcome: Outcome
    reason: str | None
    trigger: Trigger
    run_id: RunId | None
    thread_id: ThreadId | None
    assistant_id: AssistantId | None
    recorded_at: datetime
    status: str | None
    started_at: datetime | None
    ended_at: datetime | None
    error: bytes | None
    output: str | None
    retries: int
    model_calls: int
    input_tokens: int
    output_tokens: int
    tokens: int
    cost_usd: float

    @property
    def lateness(self) -> timedelta:
        """How long after the slot it was recorded."""
        return self.recorded_at - self.scheduled_for


@dataclass(frozen=True, slots=True)
class Figures:
    """What the newest slots of a cron come to; the first six are of the newest slot itself.

    `streak`: how many runs in a row, up to the newest that ended, were a success; below zero, how many failed.
    `p50_s`: the median of how long its successes took, in seconds. `tokens_7d`, `cost_usd_7d`: used in the last 7 days.
    """

    scheduled_for: datetime
    outcome: Outcome
    reason: str | None
    trigger: Trigger
    run_id: RunId | None
    status: str | None
    last_success: datetime | None
    streak: int
    p50_s: float | None
    tokens_7d: int
    cost_usd_7d: float
