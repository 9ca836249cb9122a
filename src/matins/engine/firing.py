"""What becomes of due crons: from crons as they were read to the rows that one transaction writes.

No database and no clock here. `prepare` works out ahead what firing a cron on time will write; `decide` says at the
instant what is written of those that were taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import msgspec

from matins.domain import dates, policies
from matins.domain.assistants import Assistant
from matins.domain.budgets import UNLIMITED, Room
from matins.domain.configs import Json, section
from matins.domain.crons import LATE, Cron, CronPayload, Following, Plan, Slot, plan
from matins.domain.errors import Error, Invalid
from matins.domain.fires import RETENTION, Trigger
from matins.domain.ids import CronId, RunId, ThreadId, uuid7
from matins.domain.policies import Overlap, Policy
from matins.domain.runs import NewRun
from matins.engine.requests import RunRequest, kwargs_of, metadata_of
from matins.storage import firing

SLOTS_AT_ONCE: Final = 500
"""How many slots are decided in one transaction: a long downtime is recorded in several."""


@dataclass(frozen=True, slots=True)
class _Foreseen:
    """What firing a cron on time will write, worked out before the instant."""

    fire: firing.NewFire
    due_at: datetime
    following: Following

    def holds(self, now: datetime) -> bool:
        """Whether it is still what is to be done: the slot is not missed and the next one not due."""
        next_due_at = self.following.due_at
        return now - self.due_at <= LATE and (next_due_at is None or next_due_at > now)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A cron that is about to be due, with what its runs need.

    `room`: how many it may still have. `trouble`: why it cannot be fired. `is_suspect`: it may not let itself be fired.
    `last_fired`: the slot that it fired last, of a cron that wants to know.
    """

    cron: Cron
    assistant: Assistant | None = None
    payload: CronPayload | None = None
    policy: Policy = policies.DEFAULT
    overlap: Overlap = "allow"
    foreseen: _Foreseen | None = None
    room: Room = UNLIMITED
    is_suspect: bool = False
    trouble: str | None = None
    last_fired: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """What one transaction writes: rows of the ledger, following dates, and crons to pause, each with its reason."""

    rows: list[firing.NewFire]
    following: dict[CronId, Following]
    given_up: list[tuple[Cron, str]]


def prepare(cron: Cron, assistant: Assistant | str) -> Prepared:
    """Work out what firing the cron on time will write. `assistant` may be the reason why there is none."""
    if isinstance(assistant, str):
        return Prepared(cron, trouble=assistant)
    try:
        payload = msgspec.json.decode(cron.payload, type=CronPayload)
    except msgspec.DecodeError as unreadable:
        return Prepared(cron, trouble=f"its payload cannot be read: {unreadable}")
    try:
        policy = policies.read(msgspec.json.decode(cron.policy or b"{}", type=dict[str, object]))
        has_thread = cron.thread_id is not None
        overlap = policies.overlap_of(policy, strategy=payload.multitask_strategy, has_thread=has_thread)
    except (msgspec.DecodeError, Invalid) as unfit:
        return Prepared(cron, trouble=f"its policy cannot be used: {unfit}")
    prepared = Prepared(cron, assistant, payload, policy, overlap)
    due_at = cron.due_at
    try:
        planned = _planned(prepared, due_at, 1) if due_at else None
        if due_at is None or planned is None or not planned.slots:
            return prepared
        following = dates.following(cron, policy, planned.following)
        fire = fire_of(prepared, planned.slots[0])
        return replace(prepared, foreseen=_Foreseen(fire, due_at, following))
    except Exception:  # noqa: BLE001 - a wall: a bad row is found out when it is due, and keeps no other from being read
        return replace(prepared, is_suspect=True)


def decide(due: list[Prepared], now: datetime, *, hold: str | None = None) -> Decided:
    """Decide the slots of taken crons up to now; a long downtime of many of them is cut into several transactions.

    While all crons are held, for the reason `hold`, their slots are skipped.
    A cron that cannot be fired is given up with its last due slot; all of them are on record as failed.
    """
    decided = Decided([], {}, [])
    limit = max(1, SLOTS_AT_ONCE // len(due))
    for each in due:
        cron, trouble = each.cron, each.trouble
        if trouble is None and each.foreseen is not None and each.foreseen.holds(now):
            decided.rows.extend(_spaced(each, [each.foreseen.fire]))
            decided.following[cron.cron_id] = each.foreseen.following
            continue
        try:
            planned = _planned(each, now, limit)
            following = dates.following(cron, each.policy, planned.following)
        except Error as unfit:  # the row's schedule is no schedule any more
            trouble = trouble or f"its schedule is invalid: {unfit}"
            planned = Plan([Slot(cron.next_run_date, fires=False)] if cron.next_run_date else [], None)
            following = Following(None, None)
        if trouble is None:
            decided.rows.extend(_spaced(each, [fire_of(each, slot) for slot in planned.slots]))
        else:
            decided.rows.extend(
                firing.NewFire(cron, slot.at, "failed", reason=trouble) for slot in planned.slots
            )
        if trouble is None or (following.due_at is not None and following.due_at <= now):
            decided.following[cron.cron_id] = following
        else:
            decided.given_up.append((cron, trouble))
    if hold is not None:
        decided.rows[:] = [_held(row, hold) for row in decided.rows]
    return decided


def _spaced(each: Prepared, rows: list[firing.NewFire]) -> list[firing.NewFire]:
    """Give a cron's rows, oldest first, as its policy has them that may want time between two slots that fire."""
    least = timedelta(seconds=each.policy.min_interval_seconds)
    if not least:
        return rows
    last, spaced = each.last_fired, []
    for row in rows:
        if row.run is None and row.outcome != "waiting":
            spaced.append(row)
        elif last is not None and row.slot - last < least:
            reason = f"less than {least.total_seconds():g} s after its last"
            spaced.append(replace(row, outcome="skipped", reason=reason, run=None))
        else:
            spaced.append(row)
            last = row.slot
    return spaced


def _held(row: firing.NewFire, hold: str) -> firing.NewFire:
    if row.run is None:
        return row
    return firing.NewFire(
        row.cron, row.slot, "skipped", reason=f"all crons are paused: {hold}", trigger=row.trigger
    )


def _planned(each: Prepared, now: datetime, limit: int) -> Plan:
    """Decide the cron's slots up to now, at most `limit` of them; none that the ledger would not keep.

    Raises: InvalidSchedule, InvalidTimezone.
    """
    cron = each.cron
    if cron.next_run_date is None:
        return Plan([], None)
    begin = now - max(RETENTION, timedelta(seconds=each.policy.grace_seconds))
    return plan(
        cron.next_run_date if cron.next_run_date >= begin else dates.after(cron, begin) or cron.next_run_date,
        now=now,
        end_time=cron.end_time,
        after=lambda slot: dates.after(cron, slot),
        limit=limit,
        policy=each.policy,
        due=lambda slot: dates.due(cron, each.policy, slot),
    )


def fire_of(each: Prepared, slot: Slot) -> firing.NewFire:
    """Give the row of a slot and, when it fires now, its run."""
    if not slot.fires or each.assistant is None or each.payload is None:
        return firing.NewFire(each.cron, slot.at, "missed", reason="nobody was there to fire it in time")
    if slot.trigger == Trigger.CATCH_UP:
        return firing.NewFire(each.cron, slot.at, "waiting", reason="to be caught up", trigger=slot.trigger)
    return fired(each, slot.at, Trigger(slot.trigger))


def fired(each: Prepared, at: datetime, trigger: Trigger) -> firing.NewFire:
    """Give the row of a slot that fires, and its run. The cron was prepared without trouble."""
    if each.assistant is None or each.payload is None:
        raise ValueError(each.trouble)
    cron, assistant, payload = each.cron, each.assistant, each.payload
    own: Json = msgspec.json.decode(cron.metadata, type=dict[str, object])
    request = RunRequest(
        assistant_id=str(assistant.assistant_id),
        input=payload.input,
        metadata={**own, "cron_id": str(cron.cron_id), "scheduled_for": at.isoformat()},
        config=_without_cron(payload.config),
        headers=payload.configurable_headers,
        context=payload.context,
        webhook=payload.webhook,
        interrupt_before=payload.interrupt_before,
        interrupt_after=payload.interrupt_after,
        stream_mode=[payload.stream_mode] if isinstance(payload.stream_mode, str) else payload.stream_mode,
        stream_subgraphs=payload.stream_subgraphs,
        stream_resumable=payload.stream_resumable,
        durability=payload.durability or ("async" if payload.checkpoint_during else "exit"),
    )
    forks = each.policy.context == "fork"
    temporary = forks or (cron.thread_id is None and cron.on_run_completed != "keep")
    kwargs = kwargs_of(request, assistant, temporary=temporary)
    if each.policy != policies.DEFAULT:
        given: Json = msgspec.json.decode(cron.policy or b"{}", type=dict[str, object])
        kwargs = msgspec.structs.replace(kwargs, policy=given, next_slot=_next_slot(cron, at, trigger))
    if forks and cron.thread_id is not None:
        kwargs = msgspec.structs.replace(kwargs, forked_from=cron.thread_id)
    return firing.NewFire(
        cron,
        at,
        "fired",
        trigger=trigger.value,
        run=NewRun(
            run_id=RunId(uuid7()),
            thread_id=ThreadId(uuid7()) if forks or cron.thread_id is None else cron.thread_id,
            assistant_id=assistant.assistant_id,
            metadata=msgspec.json.encode(metadata_of(request.metadata, assistant)),
            kwargs=msgspec.json.encode(kwargs),
            multitask_strategy=payload.multitask_strategy or "enqueue",
            temporary=temporary,
            cron_id=cron.cron_id,
            scheduled_for=at,
            creator=cron.creator,
        ),
        whose=msgspec.json.encode(
            {"graph_id": assistant.graph_id, "assistant_id": str(assistant.assistant_id)}
        ),
        config=msgspec.json.encode(kwargs.config),
    )


def _next_slot(cron: Cron, at: datetime, trigger: Trigger) -> datetime | None:
    """Give the slot that follows one that is due now; None when there is none, or the slot is of long ago."""
    if trigger in (Trigger.CATCH_UP, Trigger.BACKFILL):
        return None
    try:
        return dates.after(cron, at)
    except Invalid:
        return None


def _without_cron(config: Mapping[str, object]) -> Json:
    """Give a payload's config without the cron's id, which must not be mirrored into the context of the graph."""
    return {
        **config,
        "configurable": {k: v for k, v in section(config, "configurable").items() if k != "cron_id"},
    }
