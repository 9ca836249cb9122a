"""Fire crons on time.

    read ahead   crons due within the next seconds, without lock or write; compute what each will need
    wait         to the instant, by this process's timer set to the database's clock
    fire         one transaction a batch: take the crons as they were read, write each slot's row and its run, advance
                 them; some batches at once, and when none is left the runs are told of

No leader: every node does the same, and `take` lets one of them through. A pause or an edit works up to the instant,
because it changes the revision that `take` compares. Firing waits on no graph, model or webhook, and a cron that
cannot be fired is paused with a reason while the others go on.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskStatus

from matins import telemetry
from matins.domain import dates
from matins.domain.access import EVERYONE
from matins.domain.budgets import DEFAULT_CEILINGS, Ceilings
from matins.domain.crons import LATE, Cron
from matins.domain.errors import Error, Invalid, Unavailable
from matins.domain.fires import Outcome
from matins.domain.ids import CronId
from matins.domain.policies import Overlap
from matins.domain.runs import RunStatus
from matins.domain.schedules import is_local
from matins.engine import alerts, assistants
from matins.engine.clock import DatabaseClock
from matins.engine.crons import TZDATA, dated
from matins.engine.firing import Prepared, decide
from matins.engine.lease import Lease
from matins.engine.limits import reached, within
from matins.engine.looks import LOOK_SECONDS, Looks
from matins.engine.metrics import Metrics
from matins.engine.overlaps import Displacing, UnderWay, without_overlaps
from matins.engine.questions import without_unanswered
from matins.engine.reading_ahead import AHEAD, ReadingAhead
from matins.engine.streams.wake import Wake
from matins.storage import crons, fires, firing, stops
from matins.storage.pool import Conn, Pool

BATCH: Final = 500
"""How many crons are taken in one transaction; halved each time that the database does not answer."""

AT_ONCE: Final = 3
"""How many of these transactions are under way at once: one is worked out while the database writes the others."""

HELD_SECONDS: Final = 0.02
"""The pause when what is due is held by somebody else just now."""

FAILED_SECONDS: Final = 1.0
"""The pause after a cron that may not be to blame for it failed to fire."""

NEAR_SECONDS: Final = 0.5
"""What is due no later is waited for in the look that has found it: the clock is fresh, and nothing is asked again."""

HERD_SECONDS: Final = 2.0
"""Runs of crons wait until all slots are written that are due, for they would hold these up; but not longer."""

AWAY_SECONDS: Final = 0.2
_BREATH: Final = 20  # how many lines are written before others have their turn


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
        self._pool: Final = pool
        self._lease: Final = lease
        self._wake: Final = wake
        self._looks: Final = looks
        self._metrics: Final = metrics
        self._on_fired: Final = on_fired
        self._on_displaced: Final = on_displaced
        self._clock: Final = DatabaseClock()
        self._ahead: Final = ReadingAhead(pool=pool, graphs=graphs, ceilings=ceilings, now=self._clock.now)
        self._batch = BATCH
        self._untold: Final[deque[tuple[firing.NewFire, datetime | None]]] = deque()
        self._is_firing = False
        self._again_at: datetime | None = None  # when the first of those that have fired is due again
        self._has_untold_runs = False
        self._busy_since: float | None = None
        self._fired: Final = Wake()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Fire until cancelled. One bad look does not end it."""
        self._looks.rest()
        task_status.started()
        async with anyio.create_task_group() as group:
            group.start_soon(self._tell)
            await self._keep_looking()

    async def _keep_looking(self) -> None:
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
            self._tell_of_runs(is_idle=pause_s > 0)
            if pause_s > 0 and not zones_are_old:
                await self._wake.wait(pause_s)

    async def _look(self) -> float:
        """Read ahead, fire what is due, and give how long nothing more will be."""
        began = time.monotonic()

        async def work(conn: Conn) -> tuple[datetime, datetime | None]:
            asked_at = time.monotonic()
            now, following = await crons.clock(conn)
            self._clock.set(now, asked_at)
            return now, following

        now, following = await self._pool.run(work, transaction=False)
        if following is None or following - now > AHEAD:
            self._ahead.forget()
            return min(LOOK_SECONDS, (following - now - AHEAD).total_seconds()) if following else LOOK_SECONDS
        near, are_all_ready = await self._ahead.read(chunk=self._batch)
        wait_s = (following - self._clock.now()).total_seconds()
        if near:
            return await self._fire_in_time(deque(near), until=began + LOOK_SECONDS, may_wait=are_all_ready)
        self._tell_of_runs(is_idle=wait_s > 0)
        if not are_all_ready:
            return 0.0
        return min(LOOK_SECONDS, wait_s - NEAR_SECONDS) if wait_s > LOOK_SECONDS else HELD_SECONDS

    async def _fire_in_time(self, near: deque[Prepared], *, until: float, may_wait: bool) -> float:
        """Fire each when it is due, for as long as the look may last; give how long nothing more will be.

        Unless it `may_wait`, there is more to be worked out meanwhile.
        """
        self._again_at = None
        while near:
            wait_s = (_due_at(near[0]) - self._clock.now()).total_seconds()
            self._tell_of_runs(is_idle=wait_s > 0)
            if wait_s > 0 and not may_wait:
                return 0.0
            if wait_s > 0 and time.monotonic() + wait_s > until:
                return max(0.0, wait_s - NEAR_SECONDS)
            # A hair longer: the database must agree that it has come.
            was_woken = await self._wake.wait(max(0.0, wait_s + 0.001))
            instant, due = self._clock.now(), list[Prepared]()
            while near and _due_at(near[0]) <= instant:
                due.append(near.popleft())
            pause_s = await self._fire_chunks(due) if due else 0.0
            is_again_due = self._again_at is not None and bool(near) and self._again_at <= _due_at(near[0])
            if pause_s > 0 or was_woken or is_again_due or not self._lease.is_held:
                return pause_s
        return 0.0

    def is_pressed(self) -> bool:
        """Whether slots are being written whose time has come, and not for too long."""
        return self._busy_since is not None and time.monotonic() - self._busy_since < HERD_SECONDS

    def _tell_of_runs(self, *, is_idle: bool) -> None:
        """Tell that runs wait, unless more slots are due.

        After their commit, for whoever was woken before it would find nothing, and sleep on.
        """
        if is_idle:
            self._busy_since = None
        if self._has_untold_runs and not self.is_pressed():
            self._has_untold_runs = False
            self._on_fired()

    async def _fire_chunks(self, due: list[Prepared]) -> float:
        """Fire what is due, so many in a transaction and some of these at once; give how long to pause then."""
        chunks = iter([due[at : at + self._batch] for at in range(0, len(due), self._batch)])
        pauses: list[float] = []
        away: list[Unavailable] = []

        async def fire() -> None:
            for chunk in chunks:
                try:
                    pauses.append(await self._fire_all(chunk))
                except Unavailable as gone:
                    away.append(gone)
                    return

        self._is_firing = True
        self._busy_since = self._busy_since or time.monotonic()
        gc.disable()  # with a herd prepared a collection takes a tenth of a second, and finds nothing
        try:
            async with anyio.create_task_group() as group:
                for _ in range(min(AT_ONCE, -(-len(due) // self._batch))):
                    group.start_soon(fire)
        finally:
            gc.enable()
            self._is_firing = False
            self._fired()
        if away:
            raise away[0]
        return max(pauses)

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

        following: list[datetime] = []

        async def work(conn: Conn) -> tuple[firing.Taken, list[firing.NewFire]]:
            taken = await firing.take(conn, [each.cron for each in due])
            if taken.now is None:
                return taken, []
            decided = decide(
                [each for each in due if each.cron.cron_id in taken.cron_ids], taken.now, hold=taken.hold
            )
            mine = {each.cron.cron_id: each for each in due}
            rooms = {cron_id: each.room for cron_id, each in mine.items()}
            of_policy = {cron_id: each.policy for cron_id, each in mine.items()}
            rows, refused = within(decided.rows, rooms)
            rows = await without_unanswered(conn, rows, taken, of_policy)
            rows, displacing = await self._without_overlaps(conn, rows, due)
            for cron, reason in decided.given_up:
                await alerts.pause(conn, cron, reason, waiting=Outcome.FAILED)
            for cron, reason in reached(rows, rooms, refused):
                await alerts.pause(conn, cron, reason)
            displaced.clear()
            displaced.extend(await _displace(conn, displacing))
            written = await firing.record(conn, rows)
            await firing.advance(conn, decided.following)
            following[:] = [each.due_at for each in decided.following.values() if each.due_at]
            return taken, written

        taken, rows = await self._pool.run(work)
        self._again_at = min([*following, *([self._again_at] if self._again_at else [])], default=None)
        if any(row.run or row.outcome == "waiting" for row in rows):
            self._has_untold_runs = True
        for each, status in displaced:
            self._on_displaced(each, status)
        self._untold.extend((row, taken.now) for row in rows)
        return len(taken.cron_ids)

    async def _tell(self) -> None:
        """Tell of what was recorded, when there is nothing to fire: a line for each takes its time, too."""
        try:
            while True:
                await self._fired.wait(LOOK_SECONDS)
                while self._untold and not self._is_firing:
                    for _ in range(min(len(self._untold), _BREATH)):
                        self._metrics.recorded(*self._untold.popleft())
                    await anyio.lowlevel.checkpoint()
        finally:
            for each in self._untold:
                self._metrics.recorded(*each)

    async def _without_overlaps(
        self, conn: Conn, rows: list[firing.NewFire], due: list[Prepared]
    ) -> tuple[list[firing.NewFire], list[Displacing]]:
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
        queued = [cron_id for cron_id in careful if overlaps[cron_id] == "queue_one"]
        under_way = UnderWay(
            await fires.in_flight(conn, list(careful)),
            await fires.busy_threads(conn, list(threads)) if threads else frozenset(),
            await fires.waiting_of(conn, queued) if queued else frozenset(),
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
    held = await firing.take_threads(conn, list({each.thread_id for each in displacing}))
    stopped = [
        (each, await stops.stop(conn, each.run_id, each.reason))
        for each in displacing
        if each.thread_id in held
    ]
    return [(each, status) for each, status in stopped if status is not None]


def _due_at(each: Prepared) -> datetime:
    """When a cron is due that was read because it is."""
    if each.cron.due_at is None:
        raise ValueError(f"cron {each.cron.cron_id} was read ahead and is not due")
    return each.cron.due_at


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
