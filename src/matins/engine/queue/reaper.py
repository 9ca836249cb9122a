"""Put back what nobody carries: runs of dead nodes, and runs that the database says are ours and nobody here holds.

Also carries out what was wished for on another node: that a run stop, or that its stream be kept.
"""

from __future__ import annotations

from typing import Final

import anyio
from anyio.abc import TaskStatus

from matins import telemetry
from matins.domain.crons import KEPT_WHEN_DONE
from matins.domain.errors import Unavailable
from matins.domain.ids import NodeId
from matins.domain.runs import Held, StopReason
from matins.engine.lease import Lease
from matins.engine.queue.lane import Lanes
from matins.engine.streams.wake import GATHER_SECONDS, Wakes
from matins.storage import checkpoints, crons, fires, frames, idempotency, queue
from matins.storage.pool import Pool

BEAT_SECONDS: Final = 2.0
SWEEP_SECONDS: Final = 60.0
TIDY_SECONDS: Final = 3600.0
_BATCH: Final = 1000
_BITE: Final = 10_000


class Reaper:
    """Keeps the queue honest.

    `known_dead`: nodes that are known to have died though their lease runs on: the one whose place this process
    took, or, where this node is the only one, all others. `retention_s`: for how long streams can be replayed.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        lanes: Lanes,
        lease: Lease,
        wakes: Wakes,
        predecessor: NodeId | None,
        is_alone: bool,
        retention_s: float,
    ) -> None:
        self._pool: Final = pool
        self._lanes: Final = lanes
        self._lease: Final = lease
        self._wakes: Final = wakes
        self._predecessor: Final = predecessor
        self._is_alone: Final = is_alone
        self._retention_s: Final = retention_s
        self._unclaimed: set[Held] = set()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Put back what dead predecessors held, then look every BEAT_SECONDS, and for wishes when woken."""
        await self._bury(await self._known_dead())
        task_status.started()
        beat_at = anyio.current_time() + BEAT_SECONDS
        sweep_at = tidy_at = beat_at
        while True:
            await self._wakes.holds.wait(max(0.0, beat_at - anyio.current_time()))
            now = anyio.current_time()
            try:
                if now < beat_at:
                    await self._heed()
                    await anyio.sleep(GATHER_SECONDS)
                    continue
                beat_at = now + BEAT_SECONDS
                if not self._lease.is_held:
                    continue
                await self._compare()
                if self._lease.may_reap:
                    await self._reap(None)
                if now >= sweep_at:
                    sweep_at = now + SWEEP_SECONDS
                    await self._pool.run(lambda conn: queue.reap_left_behind(conn, limit=_BATCH))
                if now >= tidy_at:
                    tidy_at = now + min(TIDY_SECONDS, self._retention_s)
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
                lambda conn: frames.trim(conn, older_than_s=self._retention_s, limit=_BITE)
            )
        trimmed = _BITE
        while trimmed == _BITE:
            trimmed = await self._pool.run(lambda conn: idempotency.trim(conn, limit=_BITE))
        trimmed = _BITE
        while trimmed == _BITE:
            trimmed = await self._pool.run(lambda conn: fires.trim(conn, limit=_BITE))
        trimmed = _BITE
        while trimmed == _BITE:
            trimmed = await self._pool.run(
                lambda conn: crons.purge_done(conn, older_than=KEPT_WHEN_DONE, limit=_BITE)
            )

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
        self._carry_out(on_record)
        lost = {claimed.held for claimed in on_record} - set(self._lanes.held)
        twice = lost & self._unclaimed
        self._unclaimed = lost - twice
        await self._release(list(twice))

    async def _heed(self) -> None:
        """Carry out what was wished for on another node; the rest of the comparison has its own pace."""
        if self._lanes.held:
            on_record = await self._pool.run(
                lambda conn: queue.held_by(conn, self._lease.node_id), transaction=False
            )
            self._carry_out(on_record)

    def _carry_out(self, on_record: list[queue.Claimed]) -> None:
        for claimed in on_record:
            if claimed.stop is not None:
                self._lanes.stop(claimed.held.run_id, claimed.stop)
            if claimed.is_followed:
                self._lanes.keep(claimed.held)

    async def _release(self, held: list[Held]) -> None:
        if not held:
            return
        released = await self._pool.run(lambda conn: queue.release(conn, held, charge=0))
        for each in released:
            telemetry.log().info(
                telemetry.RUN_REAPED, run_id=str(each.held.run_id), attempt=each.held.attempt
            )
        self._wakes.tell_queue()
