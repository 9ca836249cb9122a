"""Webhook: what a run that has ended reports to the URL that it was given, and when a delivery is tried again.

A run that has a webhook has exactly one delivery, written in the transaction that ends the run, whatever ends it. A
run that is deleted, or rolled back, has no end to report, and takes a delivery that is still to be made with it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from matins.domain.configs import Json
from matins.domain.ids import CronId, RunId, ThreadId
from matins.domain.runs import Run, RunStatus
from matins.domain.threads import questions

_PAUSES: Final = (
    (6.0, 8.0),
    # For five minutes no longer than one: most of what is down is a deploy, and its first delivery follows at once.
    *[(59.0, 60.0)] * 5,
    (1_080.0, 1_320.0),
    (13_000.0, 15_800.0),
    (77_800.0, 95_000.0),
)
"""Seconds between a failed try and the next one, drawn between two bounds: 28 hours in all."""

MOST_TRIES: Final = len(_PAUSES) + 1


class DeliveryStatus(StrEnum):
    """Where a delivery is: still to be made, made, or given up after the last try."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery as stored, without what it delivers: of a run, or of a cron.

    `thread_id` is None when the thread went with the run.
    """

    delivery_id: UUID
    run_id: RunId | None
    cron_id: CronId | None
    thread_id: ThreadId | None
    url: str
    attempts: int
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    dead_at: datetime | None
    last_error: str | None
    created_at: datetime

    @property
    def status(self) -> DeliveryStatus:
        """Where it is."""
        if self.delivered_at is not None:
            return DeliveryStatus.DELIVERED
        return DeliveryStatus.PENDING if self.dead_at is None else DeliveryStatus.DEAD


def pause_s(tries: int) -> float | None:
    """Give how long to wait after that many tries have failed, in seconds; None when they were the last."""
    if tries >= MOST_TRIES:
        return None
    return random.uniform(*_PAUSES[tries - 1])  # noqa: S311 - spreads retries, guards nothing


class _Kwargs(msgspec.Struct):
    webhook: str | None = None


def webhook_of(run: Run) -> str | None:
    """Give the URL that the run reports to, if any."""
    return msgspec.json.decode(run.kwargs, type=_Kwargs).webhook


def host_of(url: str) -> str:
    """Give the host that a URL names: what deliveries are kept apart by. Nothing is decided by it."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


class _Report(msgspec.Struct, kw_only=True):
    """The run as the API shows it, and what it left. Source: observed on the wire; there without `__interrupt__`."""

    run_id: UUID
    thread_id: UUID
    assistant_id: UUID
    metadata: msgspec.Raw
    status: str
    kwargs: msgspec.Raw
    multitask_strategy: str
    created_at: str
    updated_at: str
    langsmith_session_name: None = None
    run_started_at: str | None
    run_ended_at: str | None
    values: msgspec.Raw
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    interrupts: list[Json] | msgspec.UnsetType = msgspec.field(name="__interrupt__", default=msgspec.UNSET)


def report(run: Run, *, values: bytes | None, interrupts: bytes | None) -> bytes:
    """Give what is delivered of a run that has ended, as JSON, but for the time at which it is sent.

    `values`: the root state, encoded. `interrupts`: the thread's pending ones, task id -> list, encoded.
    """
    has_failed = run.status in (RunStatus.ERROR, RunStatus.TIMEOUT)
    asked = questions(interrupts) if run.status is RunStatus.SUCCESS else []
    return msgspec.json.encode(
        _Report(
            run_id=run.run_id,
            thread_id=run.thread_id,
            assistant_id=run.assistant_id,
            metadata=msgspec.Raw(msgspec.json.format(run.metadata, indent=-1)),
            status=run.status.value,
            kwargs=msgspec.Raw(run.kwargs),
            multitask_strategy=run.multitask_strategy,
            created_at=_instant(run.created_at),
            updated_at=_instant(run.updated_at),
            run_started_at=_instant(run.started_at) if run.started_at else None,
            run_ended_at=_instant(run.ended_at) if run.ended_at else None,
            values=msgspec.Raw(values or b"{}"),
            error=msgspec.Raw(run.error) if has_failed and run.error else msgspec.UNSET,
            interrupts=asked or msgspec.UNSET,
        )
    )


def sent(payload: bytes, at: datetime) -> str:
    """Give a report as it is sent: with the time of this try."""
    return f'{payload[:-1].decode()},"webhook_sent_at":"{_instant(at)}"}}'


def _instant(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")
