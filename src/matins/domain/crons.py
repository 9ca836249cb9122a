"""Cron: a schedule that starts runs, and the rule for slots that were not served in time.

A slot is a due instant of a cron. Every slot gets exactly one row in the ledger: fired, with exactly one run, or the
reason why not. What an expression means is in schedules.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from matins.domain.errors import Invalid
from matins.domain.ids import AssistantId, CronId, ThreadId
from matins.domain.policies import Policy

LATE: Final = timedelta(seconds=30)
"""A slot up to this late is late and still fires; later, it is missed."""

KEPT_WHEN_DONE: Final = timedelta(days=7)
"""How long a cron that was to fire once is shown after that."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron as stored. `payload`, `metadata` and `creator` are encoded JSON.

    `priority` is for the threads of its runs, where they have none. `policy`: what was given of it, as JSON. `due_at`:
    when the slot `next_run_date` fires, which with jitter is a while later. `done_at`: since when there is no more
    to do for a cron that was to fire once.
    `key`: what the project declares it under; `declared`: as it was declared last (domain/declarations.py), as JSON.
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
    policy: bytes | None = None
    due_at: datetime | None = None
    done_at: datetime | None = None
    key: str | None = None
    declared: bytes | None = None

    @property
    def delay(self) -> timedelta:
        """How long after its next slot it fires."""
        if self.due_at is None or self.next_run_date is None:
            return timedelta()
        return self.due_at - self.next_run_date


class CronPayload(msgspec.Struct, frozen=True, kw_only=True):
    """What a cron's runs get, read from the stored body of the request that made it. Other keys are kept unread."""

    input: object = None
    config: dict[str, object] = {}
    configurable_headers: dict[str, str] = {}
    context: dict[str, object] = {}
    webhook: str | None = None
    interrupt_before: str | list[str] | None = None
    interrupt_after: str | list[str] | None = None
    multitask_strategy: str | None = None
    stream_mode: str | list[str] = "values"
    stream_subgraphs: bool = False
    stream_resumable: bool = False
    durability: str | None = None
    checkpoint_during: bool = True


@dataclass(frozen=True, slots=True)
class Slot:
    """A due instant and what becomes of it: `fires`, or missed. `trigger`: `schedule`, or `catch_up` when it is old."""

    at: datetime
    fires: bool
    trigger: str = "schedule"


@dataclass(frozen=True, slots=True)
class Following:
    """What comes after a cron's slots: its next one, and when that fires; nothing at all when the cron `is_done`."""

    date: datetime | None
    due_at: datetime | None
    is_done: bool = False


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
    after: Callable[[datetime], datetime | None],
    limit: int,
    policy: Policy,
    due: Callable[[datetime], datetime] = lambda slot: slot,
) -> Plan:
    """Decide each due slot from `first` on, at most `limit` of them.

    A slot at most LATE late fires. An older one is missed, unless the policy's `misfire` has it caught up and it is
    younger than its grace: each (`run_all`), or the newest due slot of all (`run_once`). `after` gives the slot that
    follows an instant; slots later than `end_time` do not exist. `due` says when a slot fires, from where its lateness
    is counted: not before it, and before the next one does. When `limit` cuts the list, `following` is still due
    and the rest is planned with it.
    """
    grace = timedelta(seconds=policy.grace_seconds)
    slots: list[Slot] = []
    at: datetime | None = first if end_time is None or first <= end_time else None
    due_at = None if at is None else due(at)
    while at is not None and due_at is not None and due_at <= now and len(slots) < limit:
        following = after(at)
        if following is not None and end_time is not None and following > end_time:
            following = None
        next_due_at = None if following is None else due(following)
        is_newest = next_due_at is None or next_due_at > now
        if now - due_at <= LATE:
            slots.append(Slot(at, fires=True))
        elif now - due_at <= grace and (
            policy.misfire == "run_all" or (policy.misfire == "run_once" and is_newest)
        ):
            slots.append(Slot(at, fires=True, trigger="catch_up"))
        else:
            slots.append(Slot(at, fires=False))
        at, due_at = following, next_due_at
    return Plan(slots, at)


def instant_of_end(text: str) -> datetime:
    """Give a cron's end, as it was written, in UTC; one without an offset is UTC.

    Raises: Invalid when it is no ISO 8601 time.
    """
    try:
        end_time = datetime.fromisoformat(text)
    except ValueError:
        message = f"Invalid end_time: '{text}'. Use ISO 8601, for example '2030-01-31T09:00:00+00:00'."
        raise Invalid(message) from None
    if end_time.tzinfo is None:
        end_time = end_time.replace(tzinfo=UTC)
    try:
        return end_time.astimezone(UTC)
    except OverflowError:
        message = f"Invalid end_time: '{text}' is out of range."
        raise Invalid(message) from None
