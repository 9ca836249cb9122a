"""Fire crons on time.

    read ahead   crons due within the next seconds, without lock or write; compute what each will need
    wait         to the instant, by this process's timer set to the database's clock
    fire         one transaction: take the crons as they were read, write each slot's row and its run, advance them

No leader: every node does the same, and `take` lets one of them through. A pause or an edit works up to the instant,
because it changes the revision that `take` compares. Firing waits on no graph, model or webhook, and a cron that
cannot be fired is paused with a reason while the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import msgspec
from anyio.abc import TaskStatus

from matins import telemetry
from matins.domain.access import EVERYONE
from matins.domain.assistants import Assistant
from matins.domain.configs import Json, section
from matins.domain.crons import LATE, Cron, CronPayload, Plan, Slot, plan
from matins.domain.errors import Error, Invalid, NotFound, Unavailable
from matins.domain.ids import AssistantId, CronId, RunId, ThreadId, uuid7
from matins.domain.runs import NewRun
from matins.domain.schedules import is_local, next_after
from matins.engine import assistants
from matins.engine.crons import TZDATA, unless_ended
from matins.engine.lease import Lease
from matins.engine.queue.claimer import Wake
from matins.engine.runs import RunRequest, kwargs_of, metadata_of
from matins.storage import crons, fires
from matins.storage.pool import Conn, Pool

LOOK_SECONDS: Final = 1.0
"""No wait is longer without asking the database's clock: laptops sleep."""

AHEAD_SECONDS: Final = 1.5
BATCH: Final = 500
SLOTS_AT_ONCE: Final = 500
"""How many slots are decided in one transaction: a long downtime is recorded in several."""

HELD_SECONDS: Final = 0.02
"""The pause when what is due is held by somebody else just now."""

FAILED_SECONDS: Final = 1.0
"""The pause after a cron that may not be to blame for it failed to fire."""

AWAY_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class _Foreseen:
    """What firing a cron on time will write, worked out before the instant."""

    fire: fires.Fire
    following: datetime | None

    def holds(self, now: datetime) -> bool:
        """Whether it is still what is to be done: the slot is not missed and the next one not due."""
        return now - self.fire.slot <= LATE and (self.following is None or self.following > now)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A cron that is about to be due, with what its runs need. `trouble`: why it cannot be fired."""

    cron: Cron
    assistant: Assistant | None = None
    payload: CronPayload | None = None
    foreseen: _Foreseen | None = None
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class _Decided:
    """What one transaction writes: rows of the ledger, following dates, and crons to pause, each with its reason."""

    rows: list[fires.Fire]
    following: dict[CronId, datetime | None]
    given_up: list[tuple[Cron, str]]

    def give_up(self, cron: Cron, reason: str) -> None:
        """Pause a cron that cannot be fired and put its slot on record as failed."""
        telemetry.log().error(telemetry.CRON_PAUSED, cron_id=str(cron.cron_id), reason=reason)
        self.given_up.append((cron, reason))
        if cron.next_run_date is not None:
            self.rows.append(fires.Fire(cron, cron.next_run_date, "failed", reason=reason))


class _DatabaseClock:
    """The database's time, told by this process's steady clock between two looks."""

    def __init__(self) -> None:
        self._at = 0.0
        self._time: datetime | None = None

    def set(self, now: datetime, asked_at: float) -> None:
        """Note the database's time; it was read at half the way there and back."""
        self._at = (asked_at + time.monotonic()) / 2
        self._time = now

    def now(self) -> datetime:
        """Give the database's time as far as is known here."""
        if self._time is None:
            raise RuntimeError("the clock was not set")
        return self._time + timedelta(seconds=time.monotonic() - self._at)


class Scheduler:
    """Fires the crons that are due, for as long as it runs."""

    def __init__(
        self, *, pool: Pool, graphs: assistants.Graphs, lease: Lease, wake: Wake, on_fired: Callable[[], None]
    ) -> None:
        self._pool: Final = pool
        self._graphs: Final = graphs
        self._lease: Final = lease
        self._wake: Final = wake
        self._on_fired: Final = on_fired
        self._clock: Final = _DatabaseClock()
        self.is_draining = False

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Fire until cancelled. One bad look does not end it."""
        task_status.started()
        zones_checked = False
        while True:
            pause_s = LOOK_SECONDS
            try:
                if not zones_checked:
                    await self._recompute_zones()
                    zones_checked = True
                if self._lease.is_held and not self.is_draining:
                    pause_s = await self._look()
            except Unavailable as away:
                telemetry.log().warning(telemetry.DATABASE_AWAY, error=str(away))
                pause_s = AWAY_SECONDS
            except Exception:  # noqa: BLE001 - the wall of a loop iteration: the next look may do better
                telemetry.log().exception(telemetry.SCHEDULER_FAILED)
                zones_checked = True  # crons with old dates are better than none
            if pause_s > 0:
                await self._wake.wait(pause_s)

    async def _look(self) -> float:
        """Read ahead, fire what is due, and give how long nothing more will be."""

        async def work(conn: Conn) -> tuple[datetime, datetime | None, list[Cron]]:
            asked_at = time.monotonic()
            now, following = await crons.clock(conn)
            self._clock.set(now, asked_at)
            ahead = await crons.due(conn, ahead_s=AHEAD_SECONDS, limit=BATCH) if following else []
            return now, following, ahead

        now, following, ahead = await self._pool.run(work, transaction=False)
        if not ahead:
            return (
                min(LOOK_SECONDS, max(0.0, (following - now).total_seconds() - 1))
                if following
                else LOOK_SECONDS
            )
        prepared = await self._pool.run(lambda conn: self._prepare(conn, ahead), transaction=False)
        first = min(cron.next_run_date for cron in ahead if cron.next_run_date)
        wait_s = (first - self._clock.now()).total_seconds()
        if wait_s > LOOK_SECONDS:
            return wait_s - LOOK_SECONDS
        # A hair longer: the database must agree that it has come.
        await self._wake.wait(max(0.0, wait_s + 0.001))
        instant = self._clock.now()
        due = [each for each in prepared if each.cron.next_run_date and each.cron.next_run_date <= instant]
        if not due:
            return 0.0
        return await self._fire_all(due)

    async def _prepare(self, conn: Conn, ahead: list[Cron]) -> list[_Prepared]:
        """Find what each cron's runs need: its assistant, once for all that share it, and its payload."""
        found: dict[AssistantId, Assistant | str] = {}
        for assistant_id in {cron.assistant_id for cron in ahead}:
            try:
                found[assistant_id] = await assistants.resolve(
                    conn, str(assistant_id), graphs=self._graphs, scope=EVERYONE
                )
            except (NotFound, Invalid):
                found[assistant_id] = f"its assistant {assistant_id} does not exist"
        prepared = []
        for cron in ahead:
            assistant = found[cron.assistant_id]
            if isinstance(assistant, str):
                prepared.append(_Prepared(cron, trouble=assistant))
                continue
            try:
                payload = msgspec.json.decode(cron.payload, type=CronPayload)
                prepared.append(_foresee(_Prepared(cron, assistant, payload)))
            except msgspec.DecodeError as unreadable:
                prepared.append(_Prepared(cron, trouble=f"its payload cannot be read: {unreadable}"))
        return prepared

    async def _fire_all(self, due: list[_Prepared]) -> float:
        """Fire what is due in one transaction, or one by one if that fails; give how long to pause then."""
        try:
            return 0.0 if await self._fire(due) else HELD_SECONDS
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 - the wall of a loop iteration: find the bad one, fire the rest
            telemetry.log().exception(telemetry.SCHEDULER_FAILED, crons=len(due))
        taken = [await self._fire_alone(each) for each in due]
        return 0.0 if all(taken) else FAILED_SECONDS

    async def _fire_alone(self, each: _Prepared) -> int:
        try:
            return await self._fire([each])
        except Unavailable:
            raise
        except Exception as refused:  # noqa: BLE001 - the same wall: the others go on
            telemetry.log().exception(telemetry.SCHEDULER_FAILED, cron_id=str(each.cron.cron_id))
            slot = each.cron.next_run_date
            if not isinstance(refused, Error) and slot and self._clock.now() - slot <= LATE:
                return 0  # perhaps no fault of the cron's: tried again for as long as its slot may fire
            trouble = f"it could not be fired: {type(refused).__name__}"
        try:
            return await self._fire([replace(each, trouble=trouble)])
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 - the same wall: not even that can be written of it
            telemetry.log().exception(telemetry.SCHEDULER_FAILED, cron_id=str(each.cron.cron_id))
            return 0

    async def _fire(self, due: list[_Prepared]) -> int:
        """Fire the slots of these crons up to now, by the database's clock; give how many crons were taken."""

        async def work(conn: Conn) -> tuple[fires.Taken, list[fires.Fire]]:
            taken = await fires.take(conn, [each.cron for each in due])
            if taken.now is None:
                return taken, []
            decided = _decide([each for each in due if each.cron.cron_id in taken.cron_ids], taken.now)
            for cron, reason in decided.given_up:
                await crons.pause(conn, cron, reason)
            written = await fires.record(conn, decided.rows)
            await fires.advance(conn, decided.following)
            return taken, written

        taken, rows = await self._pool.run(work)
        # After the commit: whoever was woken before it would find nothing, and sleep on.
        if any(row.run for row in rows):
            self._on_fired()
        for row in rows:
            _log(row, taken.now or row.slot)
        return len(taken.cron_ids)

    async def _recompute_zones(self) -> None:
        """Give crons whose dates were computed with other time zone rules their dates by the present ones."""

        async def work(conn: Conn) -> int:
            stale = await crons.of_other_zones(conn, TZDATA)
            now, _ = await crons.clock(conn)
            for cron in stale:
                locked = await crons.lock(conn, cron.cron_id, scope=EVERYONE)
                if locked is None or locked.revision != cron.revision:
                    continue
                await crons.update(conn, _redated(locked, now), tzdata=TZDATA)
            return len(stale)

        while await self._pool.run(work):
            pass


def _redated(cron: Cron, now: datetime) -> Cron:
    """Give the cron with its next date by the present time zone rules, if it depends on them."""
    try:
        if cron.timezone is None or not is_local(cron.schedule):
            return cron
        following = next_after(cron.schedule, cron.timezone, now)
        return replace(cron, next_run_date=unless_ended(following, cron.end_time))
    except Invalid:
        return cron  # paused with a reason when it is due


def _decide(due: list[_Prepared], now: datetime) -> _Decided:
    """Decide the slots of taken crons; a long downtime of many of them is cut into several transactions."""
    decided = _Decided([], {}, [])
    limit = max(1, SLOTS_AT_ONCE // len(due))
    for each in due:
        trouble = each.trouble
        if trouble is None and each.foreseen is not None and each.foreseen.holds(now):
            decided.rows.append(each.foreseen.fire)
            decided.following[each.cron.cron_id] = each.foreseen.following
            continue
        try:
            planned = None if trouble else _planned(each.cron, now, limit)
        except Error as unfit:  # the row's schedule is no schedule any more
            planned, trouble = None, f"its schedule is invalid: {unfit}"
        if planned is None:
            decided.give_up(each.cron, trouble or "")
            continue
        decided.rows.extend(_fire_of(each, slot) for slot in planned.slots)
        decided.following[each.cron.cron_id] = planned.following
    return decided


def _foresee(each: _Prepared) -> _Prepared:
    """Give the cron with what firing it on time will write; a bad one is found out when it is due."""
    slot = each.cron.next_run_date
    try:
        planned = _planned(each.cron, slot, 1) if slot else None
        if planned is None or not planned.slots:
            return each
        return replace(each, foreseen=_Foreseen(_fire_of(each, planned.slots[0]), planned.following))
    except Exception:  # noqa: BLE001 - a wall: one bad row must not keep the others from being read
        return each


def _planned(cron: Cron, now: datetime, limit: int) -> Plan:
    """Decide the cron's slots up to now, at most `limit` of them.

    Raises: InvalidSchedule, InvalidTimezone.
    """
    if cron.next_run_date is None:
        return Plan([], None)
    zone = cron.timezone or "UTC"
    return plan(
        cron.next_run_date,
        now=now,
        end_time=cron.end_time,
        after=lambda slot: next_after(cron.schedule, zone, slot),
        limit=limit,
    )


def _fire_of(each: _Prepared, slot: Slot) -> fires.Fire:
    if not slot.fires or each.assistant is None or each.payload is None:
        return fires.Fire(each.cron, slot.at, "missed", reason="nobody was there to fire it in time")
    return fires.Fire(
        each.cron,
        slot.at,
        "fired",
        trigger=slot.trigger,
        run=_run_of(each.cron, each.assistant, each.payload, slot),
        whose=msgspec.json.encode(
            {"graph_id": each.assistant.graph_id, "assistant_id": str(each.assistant.assistant_id)}
        ),
    )


def _run_of(cron: Cron, assistant: Assistant, payload: CronPayload, slot: Slot) -> NewRun:
    own: Json = msgspec.json.decode(cron.metadata, type=dict[str, object])
    request = RunRequest(
        assistant_id=str(assistant.assistant_id),
        input=payload.input,
        metadata={**own, "cron_id": str(cron.cron_id), "scheduled_for": slot.at.isoformat()},
        config=_without_cron(payload.config),
        context=payload.context,
        webhook=payload.webhook,
        interrupt_before=payload.interrupt_before,
        interrupt_after=payload.interrupt_after,
        stream_mode=[payload.stream_mode] if isinstance(payload.stream_mode, str) else payload.stream_mode,
        stream_subgraphs=payload.stream_subgraphs,
        stream_resumable=payload.stream_resumable,
        durability=payload.durability or ("async" if payload.checkpoint_during else "exit"),
    )
    temporary = cron.thread_id is None and cron.on_run_completed != "keep"
    return NewRun(
        run_id=RunId(uuid7()),
        thread_id=cron.thread_id or ThreadId(uuid7()),
        assistant_id=assistant.assistant_id,
        metadata=msgspec.json.encode(metadata_of(request.metadata, assistant)),
        kwargs=kwargs_of(request, assistant, temporary=temporary),
        multitask_strategy=payload.multitask_strategy,
        temporary=temporary,
        cron_id=cron.cron_id,
        scheduled_for=slot.at,
        creator=cron.creator,
    )


def _without_cron(config: Mapping[str, object]) -> Json:
    """Give a payload's config without the cron's id, which must not be mirrored into the context of the graph."""
    return {
        **config,
        "configurable": {k: v for k, v in section(config, "configurable").items() if k != "cron_id"},
    }


def _log(row: fires.Fire, now: datetime) -> None:
    late_s = round((now - row.slot).total_seconds(), 3)
    event = telemetry.CRON_FIRED if row.outcome == "fired" else telemetry.CRON_MISSED
    telemetry.log().info(
        event, cron_id=str(row.cron.cron_id), slot=row.slot.isoformat(), late_s=late_s, outcome=row.outcome
    )
