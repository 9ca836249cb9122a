"""Alert: what the server tells a cron's webhook of the cron itself, beside the reports of its runs."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from matins.domain.crons import Cron


class Kind(StrEnum):
    """What is told. Each is told once: of a streak of failures, of a pause, of a budget in its window."""

    PAUSED = "cron.paused"
    BUDGET_WARNING = "cron.budget_warning"
    FAILING = "cron.failing"
    RECOVERED = "cron.recovered"


class _Subject(msgspec.Struct, kw_only=True):
    cron_id: UUID
    thread_id: UUID | None
    assistant_id: UUID
    schedule: str
    timezone: str | None
    metadata: msgspec.Raw
    reason: str


class _Alert(msgspec.Struct, kw_only=True):
    """In the form that Standard Webhooks advises."""

    type: str
    timestamp: str
    data: _Subject


class _Payload(msgspec.Struct):
    webhook: str | None = None


def webhook_of(cron: Cron) -> str | None:
    """Give the URL that the cron's runs report to, if any; also of a payload that was meddled with."""
    try:
        return msgspec.json.decode(cron.payload, type=_Payload).webhook
    except msgspec.DecodeError:
        return None


def alert(kind: Kind, cron: Cron, *, reason: str, at: datetime) -> bytes:
    """Give what is delivered, as JSON."""
    subject = _Subject(
        cron_id=cron.cron_id,
        thread_id=cron.thread_id,
        assistant_id=cron.assistant_id,
        schedule=cron.schedule,
        timezone=cron.timezone,
        metadata=msgspec.Raw(msgspec.json.format(cron.metadata, indent=-1)),
        reason=reason,
    )
    return msgspec.json.encode(_Alert(type=kind.value, timestamp=at.isoformat(), data=subject))
