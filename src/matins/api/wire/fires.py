"""Shapes of the ledger of crons."""

from __future__ import annotations

from uuid import UUID

import msgspec

from matins.api.wire.json import instant
from matins.domain.fires import Figures
from matins.domain.fires import Fire as Stored


class Fire(msgspec.Struct, kw_only=True):
    """What became of a slot of a cron.

    `scheduled_for` is the slot. `outcome`: `fired`, with a run; `missed`, `skipped`, `failed`, or `waiting` to
    be caught up, with a `reason`.
    `trigger`: `schedule`, or `catch_up` after a downtime. `lateness_ms`: how long after the slot it was recorded.
    `status`, `started_at`, `ended_at`, `error` and `output` are its run's, as it was last; they stay when run and
    thread are gone. `output` is the text of the last message, or the values, cut to 1,000 characters. `retries` says
    how often it was tried again after an error that may pass. The rest is what its calls of models took; `cost_usd` is
    of those whose price is known.
    """

    cron_id: UUID
    scheduled_for: str
    outcome: str
    reason: str | None
    trigger: str
    recorded_at: str
    lateness_ms: int
    run_id: UUID | None
    thread_id: UUID | None
    assistant_id: UUID | None
    status: str | None
    started_at: str | None
    ended_at: str | None
    error: msgspec.Raw | None
    output: str | None
    retries: int
    model_calls: int
    input_tokens: int
    output_tokens: int
    tokens: int
    cost_usd: float


def fire(stored: Stored) -> Fire:
    """Give a fire as clients see it."""
    return Fire(
        cron_id=stored.cron_id,
        scheduled_for=stored.scheduled_for.isoformat(),
        outcome=stored.outcome.value,
        reason=stored.reason,
        trigger=stored.trigger.value,
        recorded_at=instant(stored.recorded_at),
        lateness_ms=round(stored.lateness.total_seconds() * 1000),
        run_id=stored.run_id,
        thread_id=stored.thread_id,
        assistant_id=stored.assistant_id,
        status=stored.status,
        started_at=instant(stored.started_at) if stored.started_at else None,
        ended_at=instant(stored.ended_at) if stored.ended_at else None,
        error=msgspec.Raw(stored.error) if stored.error else None,
        output=stored.output,
        retries=stored.retries,
        model_calls=stored.model_calls,
        input_tokens=stored.input_tokens,
        output_tokens=stored.output_tokens,
        tokens=stored.tokens,
        cost_usd=stored.cost_usd,
    )


class LastFire(msgspec.Struct, kw_only=True):
    """The newest slot of a cron, as in its ledger."""

    scheduled_for: str
    outcome: str
    reason: str | None
    trigger: str
    run_id: UUID | None
    status: str | None


def last_fire(figures: Figures) -> LastFire:
    """Give the newest slot as clients see it."""
    return LastFire(
        scheduled_for=figures.scheduled_for.isoformat(),
        outcome=figures.outcome.value,
        reason=figures.reason,
        trigger=figures.trigger.value,
        run_id=figures.run_id,
        status=figures.status,
    )
