"""Shapes of webhooks' deliveries."""

from __future__ import annotations

from uuid import UUID

import msgspec

from matins.api.wire.json import instant
from matins.domain.webhooks import Delivery as Stored


class Delivery(msgspec.Struct, kw_only=True):
    """What one run reports to its webhook, and what became of it: `pending`, `delivered` or `dead`.

    Or what is told of a cron: then `cron_id` is there, and `run_id` is null.

    `delivery_id` is the report's `webhook-id`. `attempts` counts the tries, `next_attempt_at` says when the next one
    is, `last_error` why the last one failed. `thread_id` is null when the thread went with the run.
    """

    delivery_id: UUID
    run_id: UUID | None
    cron_id: UUID | None
    thread_id: UUID | None
    url: str
    status: str
    attempts: int
    next_attempt_at: str | None
    delivered_at: str | None
    dead_at: str | None
    last_error: str | None
    created_at: str


def delivery(stored: Stored) -> Delivery:
    """Give a stored delivery as clients see it."""
    return Delivery(
        delivery_id=stored.delivery_id,
        run_id=stored.run_id,
        cron_id=stored.cron_id,
        thread_id=stored.thread_id,
        url=stored.url,
        status=stored.status.value,
        attempts=stored.attempts,
        next_attempt_at=instant(stored.next_attempt_at) if stored.next_attempt_at else None,
        delivered_at=instant(stored.delivered_at) if stored.delivered_at else None,
        dead_at=instant(stored.dead_at) if stored.dead_at else None,
        last_error=stored.last_error,
        created_at=instant(stored.created_at),
    )
