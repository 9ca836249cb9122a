"""Put back what nobody carries: runs of dead nodes, and runs that the database says are ours and nobody here holds.

Also carries out stops that were wished for on another node.
"""

from __future__ import annotations

from typing import Final

import anyio
from anyio.abc import TaskStatus

from matins import telemetry
from matins.domain.errors import Unavailable
from matins.domain.ids import NodeId
from matins.domain.runs import Held, StopReason
from matins.engine.lease import Lease
from matins.engine.queue.claimer import Wake
from matins.engine.queue.lane import Lanes
from matins.storage import checkpoints, frames, idempotency, queue
from matins.storage.pool import Pool

BEAT_SECONDS: Final = 2.0
RETENTION_SECONDS: Final = 24 * 3600.0
"""How long streams can be replayed."""

_BATCH: Final = 1000
_BITE: Final = 10_000
_BEATS_AN_HOUR: Final = int(3600 / BEAT_SECONDS)


class Reaper:
    """Keeps the queue honest.

    `known_dead`: nodes that are known to have died though their lease runs on: the one whose place this process
    took, or, where this node is the only one, all others.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        lanes: Lanes,
        lease: Lease,
        wake: Wake,
        predecessor: NodeId | None,
        is_alone: bool,
    ) -> None:
        self._pool: Final = pool
        self._lanes: Final = lanes
        self._lease: Final = lease
        self._wake: Final = wake
        self._predecessor: Final = predecessor
        self._is_alone: Final = is_alone
        self._unclaimed: set[Held] = set()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Put back what dead predecessors held, then look every BEAT_SECONDS."""
        await self._bury(await self._known_dead())
        task_status.started()
        beat = 0
        while True:
            await anyio.sleep(BEAT_SECONDS)
            try:
                if not self._lease.is_held:
                    continue
                await self._compare()
                if self._lease.may_reap:
                    await self._reap(None)
                beat += 1
                if beat % _BEATS_AN_HOUR == 1:
                    await self._tidy()
            except Unavailable as away:
                telemetry.log().warning(telemetry.DATABASE_AWAY, error=str(away))
            except Exception:  # noqa: BLE001 - the wall of a loop iteration: the next beat may do better
                telemetry.log().exception(telemetry.LOOP_FAILED)

    async def _tidy(self) -> None:
        """Forget nodes long gone, how to undo runs that have ended, and what is past its retention, in bites."""
        await self._pool.run(queue.forget_nodes)
        await self._pool.run(checkpoints.forget_undo)
        trimmed = _BITE
        while trimmed == _BITE:
            trimmed = await self._pool.run(
                lambda conn: frames.trim(conn, older_than_s=RETENTION_SECONDS, limit=_BITE)
            )
        trimmed = _BITE
        while trimmed == _BITE:
            trimmed = await self._pool.run(lambda conn: idempotency.trim(conn, limit=_BITE))

    async def _known_dead(self) -> list[NodeId]:
        dead = [self._predecessor] if self._predecessor is not None else []
        if self._is_alone:
            dead += await self._pool.run(lambda conn: queue.other_nodes(conn, self._lease.node_id))
        return dead

    async def _bury(self, dead: list[NodeId]) -> None:
        if dead:
            while await self._reap(dead):
                pass
            await self._pool.run(lambda conn: queue.leave(conn, dead))

    async def _reap(self, known_dead: list[NodeId] | None) -> int:
        """Put back runs of these nodes, or of all without a lease, and give how many there were."""
        held = await self._pool.run(
            lambda conn: queue.of_dead_nodes(
                conn, node_id=self._lease.node_id, known_dead=known_dead, limit=_BATCH
            )
        )
        await self._release(held)
        return len(held)

    async def _compare(self) -> None:
        """Hold what is on record against what is under way.

        Put back claims whose COMMIT was not answered: ours on record for two beats and held by nobody here. Stop
        lanes whose run is not ours any more: deleted, or another's by now.
        """
        under_way = set(self._lanes.held)  # before the look: what starts meanwhile is not missed on record
        on_record = await self._pool.run(lambda conn: queue.held_by(conn, self._lease.node_id))
        for held in under_way - {claimed.held for claimed in on_record}:
            self._lanes.stop(held.run_id, StopReason.LOST, attempt=held.attempt)
        for claimed in on_record:
            if claimed.stop is not None:
                self._lanes.stop(claimed.held.run_id, claimed.stop)
        lost = {claimed.held for claimed in on_record} - set(self._lanes.held)
        twice = lost & self._unclaimed
        self._unclaimed = lost - twice
        await self._release(list(twice))

    async def _release(self, held: list[Held]) -> None:
        if not held:
            return
        released = await self._pool.run(lambda conn: queue.release(conn, held, charge=0))
        for each in released:
            telemetry.log().info(
                telemetry.RUN_REAPED, run_id=str(each.held.run_id), attempt=each.held.attempt
            )
        self._wake()
