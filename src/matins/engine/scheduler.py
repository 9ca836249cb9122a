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
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from anyio.abc import TaskStatus

from matins import telemetry
from matins.domain import dates
from matins.domain.access import EVERYONE
from matins.domain.assistants import Assistant
from matins.domain.budgets import DEFAULT_CEILINGS, UNLIMITED, Ceilings
from matins.domain.crons import LATE, Cron
from matins.domain.errors import Error, Invalid, NotFound, Unavailable
from matins.domain.fires import Outcome
from matins.domain.ids import AssistantId, CronId
from matins.domain.policies import Overlap
from matins.domain.runs import RunStatus
from matins.domain.schedules import is_local
from matins.engine import alerts, assistants, spending
from matins.engine.crons import TZDATA, dated
from matins.engine.firing import Prepared, decide, prepare
from matins.engine.lease import Lease
from matins.engine.limits import reached, within
from matins.engine.looks import LOOK_SECONDS, Looks
from matins.engine.metrics import Metrics
from matins.engine.overlaps import Displacing, UnderWay, without_overlaps
from matins.engine.questions import without_unanswered
from matins.engine.streams.wake import Wake
from matins.storage import crons, fires, stops
from matins.storage.pool import Conn, Pool

AHEAD: Final = timedelta(seconds=1.5)
BATCH: Final = 500
"""How many crons are taken in one transaction; halved each time that the database does not answer."""

BEHIND: Final = 20
"""How many of them may be so late that their slots are missed: a long downtime must not hold up what is due now."""

HELD_SECONDS: Final = 0.02
"""The pause when what is due is held by somebody else just now."""

FAILED_SECONDS: Final = 1.0
"""The pause after a cron that may not be to blame for it failed to fire."""

AWAY_SECONDS: Final = 0.2


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
        self,
        *,
        pool: Pool,
        graphs: assistants.Graphs,
        lease: Lease,
        wake: Wake,
        looks: Looks,
        metrics: Metrics,
        on_fired: Callable[[], None],
        on_displaced: Callable[[Displacing, RunStatus], None],
        ceilings: Ceilings = DEFAULT_CEILINGS,
    ) -> None:
        self._ceilings: Final = ceilings
        self._pool: Final = pool
        self._graphs: Final = graphs
        self._lease: Final = lease
        self._wake: Final = wake
        self._looks: Final = looks
        self._metrics: Final = metrics
        self._on_fired: Final = on_fired
        self._on_displaced: Final = on_displaced
        self._clock: Final = _DatabaseClock()
        self._batch = BATCH

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Fire until cancelled. One bad look does not end it."""
        self._looks.rest()
        task_status.started()
        zones_are_old = True
        while True:
            pause_s = LOOK_SECONDS
            try:
                if zones_are_old:
                    zones_are_old = await self._recompute_zones()
                if self._lease.is_held:
                    pause_s = await self._look()
                    self._looks.note(self._clock.now())
                    self._batch = min(BATCH, 2 * self._batch)
                else:
                    self._looks.rest()
            except Unavailable as away:
                telemetry.log().warning(telemetry.DATABASE_AWAY, error=str(away))
                self._looks.fail(str(away))
                pause_s = AWAY_SECONDS
                # Perhaps it is there, and they are too large to be read or written at once.
                self._batch = max(1, self._batch // 2)
            except Exception:  # noqa: BLE001 - the wall of a loop iteration: the next look may do better
                telemetry.log().exception(telemetry.SCHEDULER_FAILED)
                self._looks.fail("an error, which is in its log")
                zones_are_old = False  # crons with old dates are better than none
            if pause_s > 0 and not zones_are_old:
                await self._wake.wait(pause_s)

    async def _look(self) -> float:
        """Read ahead, fire what is due, and give how long nothing more will be."""

        async def work(conn: Conn) -> tuple[datetime, datetime | None, list[Cron]]:
            asked_at = time.monotonic()
            now, following = await crons.clock(conn)
            self._clock.set(now, asked_at)
            if following is None:
                return now, None, []
            behind = await crons.due(conn, until=now - LATE, limit=min(BEHIND, self._batch))
            most = max(1, self._batch - len(behind))
            ahead = await crons.due(conn, after=now - LATE, until=now + AHEAD, limit=most)
            return now, following, [*behind, *ahead]

        now, following, ahead = await self._pool.run(work, transaction=False)
        if not ahead:
            return (
                min(LOOK_SECONDS, max(0.0, (following - now).total_seconds() - 1))
                if following
                else LOOK_SECONDS
            )
        prepared = await self._pool.run(lambda conn: self._prepare(conn, ahead), transaction=False)
        first = min(cron.due_at for cron in ahead if cron.due_at)
        wait_s = (first - self._clock.now()).total_seconds()
        if wait_s > LOOK_SECONDS:
            return wait_s - LOOK_SECONDS
        # A hair longer: the database must agree that it has come.
        await self._wake.wait(max(0.0, wait_s + 0.001))
        instant = self._clock.now()
        due = [each for each in prepared if each.cron.due_at and each.cron.due_at <= instant]
        if not due:
            return 0.0
        return await self._fire_all(due)

    async def _prepare(self, conn: Conn, ahead: list[Cron]) -> list[Prepared]:
        """Find what each cron's slots need: its assistant, once for all that share it, its payload, its last slot."""
        found: dict[AssistantId, Assistant | str] = {}
        for assistant_id in {cron.assistant_id for cron in ahead}:
            try:
                found[assistant_id] = await assistants.resolve(
                    conn, str(assistant_id), graphs=self._graphs, scope=EVERYONE
                )
            except (NotFound, Invalid):
                found[assistant_id] = f"its assistant {assistant_id} does not exist"
        prepared = [prepare(cron, found[cron.assistant_id]) for cron in ahead]
        left = await spending.rooms(
            conn, [(each.cron, each.policy) for each in prepared if each.trouble is None], self._ceilings
        )
        spaced = [each.cron.cron_id for each in prepared if each.policy.min_interval_seconds]
        last = await fires.newest_fired(conn, spaced) if spaced else {}
        return [
            replace(each, room=left.get(cron_id, UNLIMITED), last_fired=last.get(cron_id))
            if (cron_id := each.cron.cron_id) in left or cron_id in last
            else each
            for each in prepared
        ]

    async def _fire_all(self, due: list[Prepared]) -> float:
        """Fire what is due in one transaction, or one by one if that fails; give how long to pause then.

        What may spoil it for the others comes after them, by itself.
        """
        suspect = [each for each in due if each.is_suspect]
        sound = [each for each in due if not each.is_suspect]
        try:
            taken = [await self._fire(sound)] if sound else []
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 - the wall of a loop iteration: find the bad one, fire the rest
            telemetry.log().exception(telemetry.SCHEDULER_FAILED, crons=len(sound))
            suspect = due
            taken = []
        if not suspect:
            return 0.0 if all(taken) else HELD_SECONDS
        taken += [await self._fire_alone(each) for each in suspect]
        return 0.0 if all(taken) else FAILED_SECONDS

    async def _fire_alone(self, each: Prepared) -> int:
        try:
            return await self._fire([each])
        except Unavailable:
            raise
        except Exception as refused:  # noqa: BLE001 - the same wall: the others go on
            telemetry.log().exception(telemetry.SCHEDULER_FAILED, cron_id=str(each.cron.cron_id))
            due_at = each.cron.due_at
            if not isinstance(refused, Error) and due_at and self._clock.now() - due_at <= LATE:
                return 0  # perhaps no fault of the cron's: tried again for as long as its slot may fire
            trouble = f"it could not be fired: {type(refused).__name__}"
        try:
            return await self._fire([replace(each, trouble=trouble)])
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 - the same wall: not even that can be written of it
            telemetry.log().exception(telemetry.SCHEDULER_FAILED, cron_id=str(each.cron.cron_id))
            return 0

    async def _fire(self, due: list[Prepared]) -> int:
        """Fire the slots of these crons up to now, by the database's clock; give how many crons were taken."""
        displaced: list[tuple[Displacing, RunStatus]] = []

        async def work(conn: Conn) -> tuple[fires.Taken, list[fires.NewFire]]:
            taken = await fires.take(conn, [each.cron for each in due])
            if taken.now is None:
                return taken, []
            decided = decide(
                [each for each in due if each.cron.cron_id in taken.cron_ids], taken.now, hold=taken.hold
            )
            mine = {each.cron.cron_id: each for each in due}
            rooms = {cron_id: each.room for cron_id, each in mine.items()}
            of_policy = {cron_id: each.policy for cron_id, each in mine.items()}
            rows, over = within(decided.rows, rooms)
            rows = await without_unanswered(conn, rows, taken, of_policy)
            rows, displacing = await self._without_overlaps(conn, rows, due)
            for cron, reason in decided.given_up:
                await alerts.pause(conn, cron, reason, waiting=Outcome.FAILED)
            for cron, reason in (*over, *reached(rows, rooms)):
                await alerts.pause(conn, cron, reason)
            displaced.clear()
            displaced.extend(await _displace(conn, displacing))
            written = await fires.record(conn, rows)
            await fires.advance(conn, decided.following)
            return taken, written

        taken, rows = await self._pool.run(work)
        # After the commit: whoever was woken before it would find nothing, and sleep on.
        if any(row.run or row.outcome == "waiting" for row in rows):
            self._on_fired()
        for each, status in displaced:
            self._on_displaced(each, status)
        for row in rows:
            self._metrics.recorded(row, taken.now)
        return len(taken.cron_ids)

    async def _without_overlaps(
        self, conn: Conn, rows: list[fires.NewFire], due: list[Prepared]
    ) -> tuple[list[fires.NewFire], list[Displacing]]:
        """Give the rows as their crons' policies have them, and the runs to stop."""
        overlaps: dict[CronId, Overlap] = {each.cron.cron_id: each.overlap for each in due}
        careful = {row.cron.cron_id for row in rows if row.run and overlaps[row.cron.cron_id] != "allow"}
        if not careful:
            return rows, []
        threads = {
            row.run.thread_id
            for row in rows
            if row.run and row.run.thread_id == row.cron.thread_id and overlaps[row.cron.cron_id] == "skip"
        }
        under_way = UnderWay(
            await fires.in_flight(conn, list(careful)),
            await fires.busy_threads(conn, list(threads)) if threads else frozenset(),
        )
        return without_overlaps(rows, overlaps, under_way)

    async def _recompute_zones(self) -> bool:
        """Give crons whose dates were computed with other time zone rules their dates by the present ones.

        Some at a time, the earliest first; whether there may be more.
        """

        async def work(conn: Conn) -> bool:
            stale = await crons.of_other_zones(conn, TZDATA)
            now, _ = await crons.clock(conn)
            for cron in stale:
                locked = await crons.lock(conn, cron.cron_id, scope=EVERYONE)
                if locked is None or locked.revision != cron.revision:
                    continue
                await crons.update(conn, _redated(locked, now), tzdata=TZDATA)
            return bool(stale)

        return await self._pool.run(work)


async def _displace(conn: Conn, displacing: list[Displacing]) -> list[tuple[Displacing, RunStatus]]:
    """Stop runs that make way; one whose thread somebody holds just now is left to end by itself."""
    if not displacing:
        return []
    held = await fires.take_threads(conn, list({each.thread_id for each in displacing}))
    stopped = [
        (each, await stops.stop(conn, each.run_id, each.reason))
        for each in displacing
        if each.thread_id in held
    ]
    return [(each, status) for each, status in stopped if status is not None]


def _redated(cron: Cron, now: datetime) -> Cron:
    """Give the cron with its next date by the present time zone rules, if it depends on them."""
    try:
        if cron.timezone is None or not is_local(cron.schedule):
            return cron
        if cron.next_run_date is None or cron.next_run_date <= now:
            return cron  # due meanwhile: it fires as it is
        following = dates.after(cron, now)
        return cron if following is None else dated(cron, following)
    except Invalid:
        return cron  # paused with a reason when it is due
