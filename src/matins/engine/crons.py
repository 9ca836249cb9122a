"""Crons as clients deal with them: create, update."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Final

import msgspec

from matins.domain import dates, policies
from matins.domain.access import Scope
from matins.domain.budgets import DEFAULT_CEILINGS, Ceilings
from matins.domain.configs import Json, section
from matins.domain.crons import Cron, CronPayload, instant_of_end
from matins.domain.errors import Conflict, CronNotFound, Invalid, NotFound
from matins.domain.fires import Outcome
from matins.domain.ids import AssistantId, CronId, ThreadId, uuid7
from matins.domain.policies import Given
from matins.domain.schedules import InvalidSchedule, is_once, once, zone_within
from matins.engine import assistants
from matins.storage import crons, fires, threads
from matins.storage.pool import Conn

TZDATA: Final = version("tzdata")
"""The time zone rules that dates are computed with."""


_HEADERS: Final = "configurable_headers"

PAUSED: Final = "its cron was paused before it could be caught up"


@dataclass(frozen=True, slots=True, kw_only=True)
class CronRequest:
    """What a client asks for when it creates a cron. `payload` is the body as it was sent.

    Either `schedule` or `after_seconds`: once, so many seconds from now, at the next whole second.
    The id is minted with the request, so that a repeated creation makes no second cron.
    """

    cron_id: CronId = field(default_factory=lambda: CronId(uuid7()))
    assistant_id: str
    schedule: str | None = None
    after_seconds: float | None = None
    timezone: str | None = None
    end_time: str | None = None
    enabled: bool = True
    on_run_completed: str | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    payload: Mapping[str, object] = field(default_factory=dict)
    priority: int | None = None
    policy: Given = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the request: what each of its runs gets of them. Kept in the payload, as `configurable_headers`."""
    key: str | None = None
    declared: bytes | None = None
    """Of a cron that the project declares: its key, and the declaration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CronChange:
    """What a client wants changed. None leaves a part as it is; `clears_end_time` takes the end away.

    `payload` is the body as it was sent; its fields replace those of the cron's payload, but for the assistant and the
    headers that it was created with.
    """

    schedule: str | None = None
    timezone: str | None = None
    end_time: str | None = None
    clears_end_time: bool = False
    enabled: bool | None = None
    on_run_completed: str | None = None
    metadata: Mapping[str, object] | None = None
    policy: Given = field(default_factory=dict)
    """The fields to change; null takes one back to its default."""
    payload: Mapping[str, object] = field(default_factory=dict)
    assistant_id: AssistantId | None = None
    thread_id: ThreadId | msgspec.UnsetType | None = msgspec.UNSET
    clears_timezone: bool = False
    drops_metadata: Collection[str] = ()
    """What only a declaration changes. The caller has found the assistant and holds the thread."""


async def create(
    conn: Conn,
    request: CronRequest,
    *,
    thread_id: ThreadId | None,
    graphs: assistants.Graphs,
    scope: Scope,
    ceilings: Ceilings = DEFAULT_CEILINGS,
) -> Cron:
    """Create a cron on a thread, or without one. Must be in a transaction.

    Its first slot is the first instant of its schedule after now: creating never fires.
    Raises: Conflict when its owner has as many as the server allows, Invalid, InvalidSchedule, NotFound.
    """
    if request.enabled:
        await _leave_room(conn, scope, ceilings)
    assistant = await assistants.resolve(conn, request.assistant_id, graphs=graphs, scope=scope)
    if thread_id is not None and await threads.lock(conn, thread_id, scope=scope) is None:
        message = (
            f"Thread with ID '{thread_id}' not found. Please verify the ID is correct and the thread hasn't been "
            "deleted or expired."
        )
        raise NotFound(message)
    now, _ = await crons.clock(conn)  # only now: the thread may have been held for a while
    schedule = _schedule(request, now)
    end_time = _end_time(request.end_time, now)
    payload = {k: v for k, v in request.payload.items() if k != _HEADERS}
    payload["assistant_id"] = str(assistant.assistant_id)
    if request.headers:
        payload[_HEADERS] = request.headers
    asked = Cron(
        cron_id=request.cron_id,
        assistant_id=assistant.assistant_id,
        thread_id=thread_id,
        owner=scope.mints_as,
        creator=None,
        schedule=schedule,
        timezone=request.timezone or zone_within(schedule),
        end_time=end_time,
        enabled=request.enabled,
        paused_reason=None,
        next_run_date=None,
        revision=1,
        payload=_payload(payload, request.cron_id),
        metadata=msgspec.json.encode(request.metadata),
        on_run_completed=None if thread_id else request.on_run_completed or "delete",
        created_at=now,
        updated_at=now,
        priority=request.priority,
        policy=_policy(request.policy, payload, thread_id),
        key=request.key,
        declared=request.declared,
    )
    first = dated(asked, _first(asked, now))
    if first.next_run_date is None and is_once(schedule):
        raise Invalid("end_time: it is earlier than the only time at which the cron would fire")
    inserted = await crons.insert(conn, first, tzdata=TZDATA)
    cron = inserted or await crons.get(conn, request.cron_id, scope=scope)  # there from a former try
    if cron is None:
        raise CronNotFound(request.cron_id)
    return cron


async def update(
    conn: Conn,
    cron_id: CronId,
    change: CronChange,
    *,
    scope: Scope,
    ceilings: Ceilings = DEFAULT_CEILINGS,
) -> Cron:
    """Change a cron. Must be in a transaction.

    A new schedule or time zone, and switching on, start from now: a slot that went by meanwhile never fires. The
    same schedule said again changes no date.
    Raises: Conflict when its owner has as many as the server allows, CronNotFound, Invalid, InvalidSchedule.
    """
    cron = await crons.lock(conn, cron_id, scope=scope)
    if cron is None:
        raise CronNotFound(cron_id)
    if change.enabled and not cron.enabled:
        await _leave_room(conn, scope, ceilings)
    now, _ = await crons.clock(conn)
    end_time = cron.end_time
    if change.clears_end_time:
        end_time = None
    elif change.end_time is not None:
        end_time = _end_time(change.end_time, now)
    schedule = change.schedule or cron.schedule
    timezone = change.timezone or (change.schedule and zone_within(change.schedule)) or cron.timezone
    if change.clears_timezone:
        timezone = None
    thread_id = cron.thread_id if change.thread_id is msgspec.UNSET else change.thread_id
    assistant_id = change.assistant_id or cron.assistant_id
    enabled = cron.enabled if change.enabled is None else change.enabled
    if change.enabled is False:
        await fires.give_up(conn, cron_id, PAUSED, outcome=Outcome.SKIPPED)
    payload = msgspec.json.decode(cron.payload, type=dict[str, object])
    changed = {k: v for k, v in change.payload.items() if k not in ("assistant_id", _HEADERS)}
    changed["assistant_id"] = str(assistant_id)
    metadata = msgspec.json.decode(cron.metadata, type=dict[str, object])
    metadata = {name: value for name, value in metadata.items() if name not in change.drops_metadata}
    policy = msgspec.json.decode(cron.policy or b"{}", type=dict[str, object])
    wanted = replace(
        cron,
        assistant_id=assistant_id,
        thread_id=thread_id,
        schedule=schedule,
        timezone=timezone,
        end_time=end_time,
        enabled=enabled,
        payload=_payload({**payload, **changed}, cron_id),
        metadata=msgspec.json.encode({**metadata, **(change.metadata or {})}),
        policy=_policy({**policy, **change.policy}, {**payload, **changed}, thread_id),
        on_run_completed=None if thread_id else change.on_run_completed or cron.on_run_completed or "delete",
    )
    following = cron.next_run_date
    if (schedule, timezone) != (cron.schedule, cron.timezone) or (enabled and not cron.enabled):
        following = _first(wanted, now)
    elif enabled and following is None:
        following = dates.after(wanted, now)
    return await crons.update(conn, dated(wanted, following), tzdata=TZDATA)


async def pause(conn: Conn, cron_id: CronId, reason: str, *, scope: Scope) -> Cron:
    """Switch a cron off, and keep why. Must be in a transaction. Raises: CronNotFound."""
    cron = await crons.lock(conn, cron_id, scope=scope)
    if cron is None:
        raise CronNotFound(cron_id)
    await crons.pause(conn, cron, reason)
    await fires.give_up(conn, cron_id, PAUSED, outcome=Outcome.SKIPPED)
    return await crons.get(conn, cron_id, scope=scope) or cron


async def resume(conn: Conn, cron_id: CronId, *, scope: Scope, ceilings: Ceilings = DEFAULT_CEILINGS) -> Cron:
    """Switch a cron on. It goes on from now: a slot that went by meanwhile never fires. Must be in a transaction.

    Raises: CronNotFound, InvalidSchedule.
    """
    return await update(conn, cron_id, CronChange(enabled=True), scope=scope, ceilings=ceilings)


async def _leave_room(conn: Conn, scope: Scope, ceilings: Ceilings) -> None:
    """Refuse one cron more that is on, of an owner who has as many as the server allows. Raises: Conflict."""
    if scope.owner is None or math.isinf(ceilings.crons_per_user):
        return
    most = int(ceilings.crons_per_user)
    await crons.lock_owner(conn, scope.owner)
    if await crons.count(conn, crons.Filter(enabled=True), scope=scope, limit=most) >= most:
        raise Conflict(
            f"You have {most} crons that are on, the most that this server allows (MATINS_CRONS_PER_USER). "
            "Pause or delete one."
        )


def dated(cron: Cron, following: datetime | None) -> Cron:
    """Give the cron with its next slot, unless that is later than its end, and when that fires.

    Raises: Invalid.
    """
    if following is None or (cron.end_time is not None and following > cron.end_time):
        return replace(cron, next_run_date=None, due_at=None)
    policy = policies.read(msgspec.json.decode(cron.policy or b"{}", type=dict[str, object]))
    return replace(cron, next_run_date=following, due_at=dates.due(cron, policy, following))


def _schedule(request: CronRequest, now: datetime) -> str:
    """Give the schedule that was asked for, in either way. Raises: Invalid."""
    if request.after_seconds is None:
        if request.schedule is None:
            raise Invalid('"schedule" is a required property')
        return request.schedule
    if request.schedule is not None:
        raise Invalid("Name either `schedule` or `after_seconds`")
    return once(now + timedelta(seconds=request.after_seconds))


def _first(cron: Cron, now: datetime) -> datetime:
    """Give the first slot from now on. Raises: InvalidSchedule when there is none any more."""
    first = dates.after(cron, now)
    if first is None:
        said = "It was to fire once, and is done" if cron.done_at else "Its time has gone by"
        raise InvalidSchedule(cron.schedule, f"{said}; give it a time to come, or run it now.")
    return first


def _end_time(text: str | None, now: datetime) -> datetime | None:
    """Give the end as an aware time; one without an offset is UTC.

    Raises: Invalid when it is no ISO 8601 time, or has gone by.
    """
    if text is None:
        return None
    end_time = instant_of_end(text)
    if end_time <= now:
        message = f"Invalid end_time: '{text}' has already passed."
        raise Invalid(message)
    return end_time


def _payload(body: Mapping[str, object], cron_id: CronId) -> bytes:
    """Give what is stored of a body: as sent, the assistant resolved, the cron's own id in its configuration.

    Raises: Invalid when a run could not be made from it.
    """
    config: Json = section(body, "config")
    config["configurable"] = {**section(config, "configurable"), "cron_id": str(cron_id)}
    payload = {**body, "config": config}
    try:
        msgspec.convert(payload, CronPayload)
    except msgspec.ValidationError as unfit:
        raise Invalid(str(unfit)) from None
    return msgspec.json.encode(payload)


def _policy(given: Given, payload: Mapping[str, object], thread_id: ThreadId | None) -> bytes | None:
    """Give what is stored of a policy: the fields that were given.

    Raises: Invalid when it is none, or does not fit the `multitask_strategy` that was given.
    """
    kept = {name: value for name, value in given.items() if value is not None}
    policy, strategy = policies.read(kept), payload.get("multitask_strategy")
    policies.overlap_of(
        policy, strategy=strategy if isinstance(strategy, str) else None, has_thread=thread_id is not None
    )
    return msgspec.json.encode(kept) if kept else None
