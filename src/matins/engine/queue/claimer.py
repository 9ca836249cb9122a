"""Claim runs for the lanes that are free, as soon as there is one of each.

Woken by whatever makes a run claimable here; a poll is behind it, for what other nodes do and for wakes that were
lost. A lane is reserved before a run is claimed, so that nothing is claimed that cannot start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyio.abc import TaskStatus

from matins import telemetry
from matins.domain.errors import Unavailable
from matins.domain.runs import CRASH_LIMIT, Run
from matins.engine.lease import Lease
from matins.engine.queue.lane import Lanes
from matins.engine.streams.wake import Wake
from matins.storage import queue
from matins.storage.pool import Conn, Pool
from matins.workers.pool import Pool as Workers

POLL_SECONDS: Final = 1.0

HELD_SECONDS: Final = 0.02
"""The pause when a run could start and somebody else held its thread just now: whoever that was wakes nobody."""

BATCH: Final = 50
SPARE: Final = 50
"""How many more queues than lanes are looked at, in case somebody else holds the first ones."""


class Claimer:
    """Takes runs from the queue to the lanes of this node; while the scheduler `is_pressed`, none of a cron's."""

    def __init__(
        self,
        *,
        pool: Pool,
        workers: Workers,
        lanes: Lanes,
        lease: Lease,
        wake: Wake,
        is_pressed: Callable[[], bool],
    ) -> None:
        self._pool: Final = pool
        self._workers: Final = workers
        self._lanes: Final = lanes
        self._lease: Final = lease
        self._wake: Final = wake
        self._is_pressed: Final = is_pressed
        self.is_draining = False

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Claim until cancelled; with `is_draining` set, claim nothing."""
        task_status.started()
        while True:
            pause_s = POLL_SECONDS
            try:
                if self._lease.is_held and not self.is_draining:
                    claimed, is_short = await self._claim()
                    if claimed:
                        continue
                    due_s = await self._pool.run(queue.seconds_to_next_due, transaction=False)
                    pause_s = min(POLL_SECONDS, max(due_s, 0.001)) if due_s is not None else POLL_SECONDS
                    pause_s = min(pause_s, HELD_SECONDS) if is_short else pause_s
            except Unavailable as away:
                telemetry.log().warning(telemetry.DATABASE_AWAY, error=str(away))
            except Exception:  # noqa: BLE001 - the wall of a loop iteration: the next look may do better
                telemetry.log().exception(telemetry.LOOP_FAILED)
            await self._wake.wait(pause_s)

    async def _claim(self) -> tuple[int, bool]:
        """Start runs that wait, in lanes that are free; give how many, and whether there were lanes for more."""
        free = max(self._workers.free_lanes(crashes=crashes) for crashes in range(CRASH_LIMIT))
        if free == 0:
            return 0, False
        limit = min(BATCH, free) + SPARE
        least = 0 if self._is_pressed() else None
        heads = await self._pool.run(
            lambda conn: queue.heads(conn, limit=limit, least_priority=least), transaction=False
        )
        started, is_short = 0, False
        for crashes in sorted({head.crashes for head in heads}):
            alike = [head for head in heads if head.crashes == crashes]
            of_these, tried = await self._start(alike, crashes=crashes)
            started, is_short = started + of_these, is_short or of_these < tried
        return started, is_short

    async def _start(self, heads: list[queue.Head], *, crashes: int) -> tuple[int, int]:
        """Start runs under which equally many processes died; give how many, and how many there were lanes for."""
        # No more than are needed: a run that is submitted meanwhile wants a lane at once.
        wanted = min(BATCH, len(heads), self._workers.free_lanes(crashes=crashes))
        kept = [self._workers.reserve(crashes=crashes) for _ in range(wanted)]
        reservations = [each for each in kept if each is not None]
        tried = len(reservations)
        if not tried:
            return 0, 0
        try:

            async def work(conn: Conn) -> list[Run]:
                return await queue.claim(conn, heads, node_id=self._lease.node_id, limit=tried)

            runs = await self._pool.run(work)
            for run in runs:
                self._lanes.start(run, reservations.pop())
        finally:
            for reservation in reservations:
                reservation.release()
        return len(runs), tried
