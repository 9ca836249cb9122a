"""Catch up slots that were missed: a few at a time, of each cron one after the other, oldest first.

The scheduler puts them on record as `waiting`, so that what is due now never waits for them. A downtime of many crons
is then worked off without a stampede, by whichever node has a look.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyio.abc import TaskStatus

from matins import telemetry
from matins.domain.access import EVERYONE
from matins.domain.budgets import DEFAULT_CEILINGS, Ceilings
from matins.domain.errors import Invalid, NotFound, Unavailable
from matins.domain.fires import Outcome
from matins.domain.ids import CronId
from matins.engine import alerts, assistants, spending
from matins.engine.crons import PAUSED
from matins.engine.firing import fired, prepare
from matins.engine.lease import Lease
from matins.engine.metrics import Metrics
from matins.engine.questions import UNANSWERED, is_unanswered
from matins.engine.streams.wake import Wake
from matins.storage import crons, fires, firing
from matins.storage.pool import Conn, Pool

AT_ONCE: Final = 10
"""How many slots of a server are caught up at once."""

LOOK_SECONDS: Final = 1.0

DELETED: Final = "its cron was deleted before it could be caught up"


class CatchingUp:
    """Starts what waits to be caught up. `wake` is raised when something waits, or when a run of a cron has ended."""

    def __init__(
        self,
        *,
        pool: Pool,
        graphs: assistants.Graphs,
        lease: Lease,
        wake: Wake,
        metrics: Metrics,
        on_fired: Callable[[], None],
        ceilings: Ceilings = DEFAULT_CEILINGS,
    ) -> None:
        self._ceilings: Final = ceilings
        self._pool: Final = pool
        self._graphs: Final = graphs
        self._lease: Final = lease
        self._wake: Final = wake
        self._metrics: Final = metrics
        self._on_fired: Final = on_fired

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Catch up until cancelled. One bad look does not end it."""
        task_status.started()
        while True:
            try:
                if self._lease.is_held and await self._look():
                    self._on_fired()
            except Unavailable as away:
                telemetry.log().warning(telemetry.DATABASE_AWAY, error=str(away))
            except Exception:  # noqa: BLE001 - the wall of a loop iteration: the next look may do better
                telemetry.log().exception(telemetry.LOOP_FAILED)
            await self._wake.wait(LOOK_SECONDS)

    async def _look(self) -> int:
        """Start what there is room for, each slot in a transaction of its own; give how many were started."""
        found = await self._pool.run(lambda conn: fires.waiting(conn, at_once=AT_ONCE), transaction=False)
        started = 0
        for each in found:
            try:
                row = await self._pool.run(lambda conn, of=each: self._start(conn, of))  # type: ignore[misc]
                if row is not None:
                    started += 1
                    self._metrics.recorded(row)
            except Unavailable:
                raise
            except Exception as refused:  # noqa: BLE001 - the wall of a loop iteration: a bad cron keeps no other waiting
                telemetry.log().exception(telemetry.SCHEDULER_FAILED, cron_id=str(each.cron_id))
                reason = f"it could not be fired: {type(refused).__name__}"
                await self._pool.run(lambda conn, of=each.cron_id, why=reason: _fail(conn, of, why))  # type: ignore[misc]
        return started

    async def _start(self, conn: Conn, waiting: fires.Waiting) -> firing.NewFire | None:
        """Start the run of a slot that waits; None when it goes on waiting, or will not run any more."""
        cron_id, slot = waiting.cron_id, waiting.slot
        cron, held = await crons.get(conn, cron_id, scope=EVERYONE), {}
        if cron is not None and cron.thread_id is not None:
            held = await firing.take_threads(conn, [cron.thread_id])
            if not held:
                return None
        cron = await crons.lock(conn, cron_id, scope=EVERYONE)
        if not await fires.lock_waiting(conn, cron_id, slot):
            return None
        if cron is None or not (cron.enabled or cron.done_at):
            await fires.give_up(conn, cron_id, DELETED if cron is None else PAUSED, outcome=Outcome.SKIPPED)
            return None
        try:
            assistant = await assistants.resolve(
                conn, str(cron.assistant_id), graphs=self._graphs, scope=EVERYONE
            )
        except (NotFound, Invalid):
            await _fail(conn, cron_id, f"its assistant {cron.assistant_id} does not exist")
            return None
        prepared = prepare(cron, assistant)
        if prepared.trouble is not None:
            await _fail(conn, cron_id, prepared.trouble)
            return None
        if await fires.in_flight(conn, [cron_id]):
            return None
        left = await spending.room_of(conn, cron, prepared.policy, self._ceilings)
        if left.runs < 1:
            if not left.is_ceiling:  # else it waits: what is made up for must not switch off what is due
                await alerts.pause(conn, cron, left.reason)
            return None
        if await is_unanswered(conn, cron, prepared.policy, held):
            await fires.give_up(conn, cron_id, UNANSWERED, outcome=Outcome.SKIPPED, slot=slot)
            return None
        fire = fired(prepared, slot, waiting.trigger)
        await firing.start(conn, fire)
        if left.is_final and left.runs <= 1:
            await alerts.pause(conn, cron, left.reason)
        return fire


async def _fail(conn: Conn, cron_id: CronId, reason: str) -> None:
    """Pause a cron that cannot be fired; what waits of it has failed."""
    cron = await crons.lock(conn, cron_id, scope=EVERYONE)
    if cron is not None:
        await alerts.pause(conn, cron, reason, waiting=Outcome.FAILED)
    else:
        await fires.give_up(conn, cron_id, reason, outcome=Outcome.FAILED)
