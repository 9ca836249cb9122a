"""Shapes of crons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias
from uuid import UUID

import msgspec

from matins.api.wire.fires import LastFire, last_fire
from matins.api.wire.json import Config, Json, Limit, Offset, Order, compact, instant
from matins.api.wire.runs import Durability, Mode, Nodes, Webhook
from matins.domain import policies
from matins.domain.crons import Cron as Stored
from matins.domain.errors import Invalid
from matins.domain.fires import Figures
from matins.domain.policies import Policy
from matins.domain.previews import MOST, Occurrence, in_words
from matins.storage.crons import Hold as Held

Named: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]


class Cron(msgspec.Struct, kw_only=True):
    """A cron. `paused_reason` is there when the server switched it off. Source: observed, keys in this order.

    `next_fire_at` is there with jitter, which fires `next_run_date` a while later.
    What follows is ours, and there as soon as it had a slot. `last_success` is the newest slot whose run was a success.
    Of its newest 100 slots, `streak` says how many runs in a row were one (below zero: how many failed), and
    `p50_duration_ms` is the median of how long successes took. `tokens_7d` and `cost_usd_7d`: what it used in 7 days.
    `key`: what the project declares it under, where it does.
    """

    cron_id: UUID
    assistant_id: UUID
    thread_id: UUID | None
    user_id: str
    end_time: str | None
    schedule: str
    timezone: str | None
    payload: msgspec.Raw
    next_run_date: str | None
    metadata: msgspec.Raw
    on_run_completed: str | None
    enabled: bool
    created_at: str
    updated_at: str
    paused_reason: str | msgspec.UnsetType = msgspec.UNSET
    last_fire: LastFire | msgspec.UnsetType = msgspec.UNSET
    last_success: str | msgspec.UnsetType | None = msgspec.UNSET
    streak: int | msgspec.UnsetType = msgspec.UNSET
    p50_duration_ms: int | msgspec.UnsetType | None = msgspec.UNSET
    key: str | msgspec.UnsetType = msgspec.UNSET
    tokens_7d: int | msgspec.UnsetType = msgspec.UNSET
    cost_usd_7d: float | msgspec.UnsetType = msgspec.UNSET
    policy: Policy | msgspec.UnsetType = msgspec.UNSET
    next_fire_at: str | msgspec.UnsetType | None = msgspec.UNSET


def cron(stored: Stored, figures: Figures | None = None) -> Cron:
    """Give a stored cron as clients see it. Its dates are written without a fraction when they have none."""
    shown = Cron(
        cron_id=stored.cron_id,
        assistant_id=stored.assistant_id,
        thread_id=stored.thread_id,
        user_id=stored.owner,
        end_time=stored.end_time.isoformat() if stored.end_time else None,
        schedule=stored.schedule,
        timezone=stored.timezone,
        payload=msgspec.Raw(stored.payload),
        next_run_date=stored.next_run_date.isoformat() if stored.next_run_date else None,
        metadata=compact(stored.metadata),
        on_run_completed=stored.on_run_completed,
        enabled=stored.enabled,
        created_at=instant(stored.created_at),
        updated_at=instant(stored.updated_at),
        paused_reason=stored.paused_reason or msgspec.UNSET,
    )
    shown.policy = _policy(stored)
    if shown.policy and shown.policy.jitter_seconds:
        shown.next_fire_at = stored.due_at.isoformat() if stored.due_at else None
    shown.key = stored.key or msgspec.UNSET
    if figures is not None:
        shown.last_fire = last_fire(figures)
        shown.last_success = figures.last_success.isoformat() if figures.last_success else None
        shown.streak = figures.streak
        shown.p50_duration_ms = None if figures.p50_s is None else round(1000 * figures.p50_s)
        shown.tokens_7d, shown.cost_usd_7d = figures.tokens_7d, figures.cost_usd_7d
    return shown


class _Said(msgspec.Struct):
    """What is needed of a payload, which may be large."""

    multitask_strategy: str | None = None


def _policy(stored: Stored) -> Policy | msgspec.UnsetType:
    """Give the policy that holds, defaults and all; of a row that was meddled with there may be none to show."""
    try:
        policy = policies.read(msgspec.json.decode(stored.policy or b"{}", type=dict[str, Any]))
        said = msgspec.json.decode(stored.payload, type=_Said)
        has_thread = stored.thread_id is not None
        overlap = policies.overlap_of(policy, strategy=said.multitask_strategy, has_thread=has_thread)
    except (Invalid, msgspec.DecodeError):
        return msgspec.UNSET
    return msgspec.structs.replace(policy, overlap=overlap)


class _OfRuns(msgspec.Struct, kw_only=True):
    """What each run of a cron gets. `policy` says what the cron does when things are not as planned."""

    input: Any = None
    metadata: Json | msgspec.UnsetType = msgspec.UNSET
    config: Config = msgspec.field(default_factory=Config)
    context: Json = {}
    webhook: Webhook | msgspec.UnsetType = msgspec.UNSET
    interrupt_before: Nodes | msgspec.UnsetType = msgspec.UNSET
    interrupt_after: Nodes | msgspec.UnsetType = msgspec.UNSET
    multitask_strategy: Literal["reject", "interrupt", "rollback", "enqueue"] = "enqueue"
    on_run_completed: Literal["delete", "keep"] | msgspec.UnsetType = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    stream_mode: Mode | list[Mode] = "values"
    stream_subgraphs: bool = False
    stream_resumable: bool = False
    durability: Durability | msgspec.UnsetType = msgspec.UNSET
    checkpoint_during: bool = True
    policy: Policy | msgspec.UnsetType = msgspec.UNSET


class CronCreate(_OfRuns, kw_only=True):
    """What creates a cron. What it says of a run is what each of its runs gets; unknown fields are kept.

    Either `schedule` or `after_seconds`: once, so many seconds from now.
    """

    assistant_id: str
    schedule: str | msgspec.UnsetType = msgspec.UNSET
    after_seconds: Annotated[float, msgspec.Meta(gt=0, le=315_360_000)] | msgspec.UnsetType = msgspec.UNSET
    timezone: Named | msgspec.UnsetType = msgspec.UNSET
    end_time: str | msgspec.UnsetType = msgspec.UNSET


class CronPatch(_OfRuns, kw_only=True):
    """What changes a cron. `end_time: null` takes the end away."""

    schedule: Named | msgspec.UnsetType = msgspec.UNSET
    timezone: Named | msgspec.UnsetType = msgspec.UNSET
    end_time: str | msgspec.UnsetType | None = msgspec.UNSET


Change: TypeAlias = Annotated[CronPatch, msgspec.Meta(extra_json_schema={"minProperties": 1})]
"""A change changes something."""


class CronCount(msgspec.Struct, kw_only=True):
    """Which crons to count."""

    assistant_id: UUID | msgspec.UnsetType = msgspec.UNSET
    thread_id: UUID | msgspec.UnsetType = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    metadata: Json = {}


class CronSearch(CronCount, kw_only=True):
    """Which crons to find."""

    limit: Limit = 10
    offset: Offset = 0
    sort_by: Literal[
        "cron_id", "assistant_id", "thread_id", "next_run_date", "end_time", "created_at", "updated_at"
    ] = "created_at"
    sort_order: Order = "desc"
    select: list[
        Literal[
            "cron_id",
            "assistant_id",
            "thread_id",
            "on_run_completed",
            "end_time",
            "schedule",
            "timezone",
            "created_at",
            "updated_at",
            "user_id",
            "payload",
            "next_run_date",
            "metadata",
            "enabled",
        ]
    ] = []


Reason: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class CronPause(msgspec.Struct, kw_only=True):
    """Why a cron, or all of them, are paused: shown as `paused_reason`, or with each slot that is skipped."""

    reason: Reason = "paused by a client"


class CronHold(msgspec.Struct, kw_only=True):
    """Whether all crons of the server are paused, why, and since when. Each one's own state is kept."""

    paused: bool
    reason: str | None = None
    since: str | None = None


def held(stored: Held | None) -> CronHold:
    """Give what holds all crons as clients see it."""
    if stored is None:
        return CronHold(paused=False)
    return CronHold(paused=True, reason=stored.reason, since=instant(stored.since))


class CronPreview(msgspec.Struct, kw_only=True):
    """What to preview: a schedule with its time zone, or a cron that is there. `after`: an ISO 8601 time, or now."""

    schedule: Named | msgspec.UnsetType = msgspec.UNSET
    timezone: Named | msgspec.UnsetType = msgspec.UNSET
    cron_id: UUID | msgspec.UnsetType = msgspec.UNSET
    after: str | msgspec.UnsetType = msgspec.UNSET
    count: Annotated[int, msgspec.Meta(ge=1, le=MOST)] = 10


class Date(msgspec.Struct, kw_only=True):
    """A date to come: in UTC, in the schedule's own time zone, and what the clock does there, if it does anything."""

    at: str
    local: str
    note: str | None


class Dates(msgspec.Struct, kw_only=True):
    """The dates to come of a schedule, and the schedule in words, if there are words for it."""

    schedule: str
    timezone: str
    description: str | None
    dates: list[Date]


def dates(schedule: str, timezone: str, found: Sequence[Occurrence]) -> Dates:
    """Give a preview as clients see it."""
    return Dates(
        schedule=schedule,
        timezone=timezone,
        description=in_words(schedule),
        dates=[Date(at=each.at.isoformat(), local=each.local.isoformat(), note=each.note) for each in found],
    )
