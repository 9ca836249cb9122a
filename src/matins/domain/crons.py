"""Cron: a schedule that starts runs, and the rule for slots that were not served in time.

A slot is a due instant of a cron. Every slot gets exactly one row in the ledger: fired, with exactly one run, or the
reason why not. What an expression means is in schedules.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec

from matins.domain.ids import AssistantId, CronId, ThreadId

LATE: Final = timedelta(seconds=30)
"""A slot up to this late is late and still fires; later, it is missed."""

GRACE: Final = timedelta(days=1)
"""After a downtime the newest slot fires once if it is younger than this, though it was missed."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron as stored. `payload`, `metadata` and `creator` are encoded JSON.

    `priority` is for the threads of its runs, where they have none.
    """

    cron_id: CronId
    assistant_id: AssistantId
    thread_id: ThreadId | None
    owner: str
    creator: bytes | None
    schedule: str
    timezone: str | None
    end_time: datetime | None
    enabled: bool
    paused_reason: str | None
    next_run_date: datetime | None
    revision: int
    payload: bytes
    metadata: bytes
    on_run_completed: str | None
    created_at: datetime
    updated_at: datetime
    priority: int | None = None


class CronPayload(msgspec.Struct, frozen=True, kw_only=True):
    """What a cron's runs get, read from the stored body of the request that made it. Other keys are kept unread."""

    input: object = None
    config: dict[str, object] = {}
    configurable_headers: dict[str, str] = {}
    context: dict[str, object] = {}
    webhook: str | None = None
    interrupt_before: str | list[str] | None = None
    interrupt_after: str | list[str] | None = None
    multitask_strategy: str = "enqueue"
    stream_mode: str | list[str] = "values"
    stream_subgraphs: bool = False
    stream_resumable: bool = False
    durability: str | None = None
    checkpoint_during: bool = True


@dataclass(frozen=True, slots=True)
class Slot:
    """A due instant and what becomes of it: `fires`, or missed. `trigger` is `schedule` or `catch_up`."""

    at: datetime
    fires: bool
    trigger: str = "schedule"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about a cron that is due: its slots up to now, oldest first, and the date that follows the last."""

    slots: list[Slot]
    following: datetime | None


def plan(
    first: datetime,
    *,
    now: datetime,
    end_time: datetime | None,
    after: Callable[[datetime], datetime],
    limit: int,
) -> Plan:
    """Decide each due slot from `first` on, at most `limit` of them.

    A slot at most LATE late fires. An older one is missed, unless it is the newest due slot of all and younger than
    GRACE: that one fires as a catch-up. `after` gives the slot that follows an instant; slots later than `end_time`
    do not exist. When `limit` cuts the list, `following` is still due and the rest is planned with it.
    """
    slots: list[Slot] = []
    at: datetime | None = first if end_time is None or first <= end_time else None
    while at is not None and at <= now and len(slots) < limit:
        next_at = after(at)
        following = next_at if end_time is None or next_at <= end_time else None
        is_newest = following is None or following > now
        if now - at <= LATE:
            slots.append(Slot(at, fires=True))
        elif is_newest and now - at <= GRACE:
            slots.append(Slot(at, fires=True, trigger="catch_up"))
        else:
            slots.append(Slot(at, fires=False))
        at = following
    return Plan(slots, at)
