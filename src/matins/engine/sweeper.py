"""Sweep away threads whose time to live is over: delete them, or all their checkpoints but the newest.

No leader: every node does the same, and what one holds the others pass over. In bites, each a transaction, so that
neither a request nor another node waits for long. A thread is never swept while it is in use: while a run is in
flight on it, or while a cron will fire on it. A cron that is paused, or has ended, goes with its thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import anyio
from anyio.abc import TaskStatus

from matins import telemetry
from matins.domain.access import EVERYONE
from matins.domain.errors import Unavailable
from matins.domain.ids import ThreadId
from matins.engine.lease import Lease
from matins.manifest.checkpointer import Sweeping
from matins.storage import checkpoints, sweeping, threads
from matins.storage.pool import Conn, Pool

BITE: Final = 50
"""How many threads are held at once. With a thousand checkpoints each they are deleted within a second."""

PATIENCE_SECONDS: Final = 8.0
"""How long one bite is tried for."""

FAILURES: Final = 3
"""How many threads may fail by themselves before it is the database that is away."""


@dataclass(slots=True)
class Swept:
    """What a sweep did."""

    deleted: int = 0
    pruned: int = 0
    failed: int = 0


class Sweeper:
    """Sweeps at once and then at every interval, for as long as this node holds its lease."""

    def __init__(self, *, pool: Pool, lease: Lease, config: Sweeping) -> None:
        self._pool: Final = pool
        self._lease: Final = lease
        self._config: Final = config

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Sweep until cancelled. One sweep that fails does not end it."""
        task_status.started()
        while True:
            try:
                if self._lease.is_held:
                    await self.sweep()
            except Unavailable as away:
                telemetry.log().warning(telemetry.DATABASE_AWAY, error=str(away))
            except Exception:  # noqa: BLE001 - the wall of a loop iteration: the next sweep may do better
                telemetry.log().exception(telemetry.LOOP_FAILED)
            await anyio.sleep(self._config.interval_s)

    async def sweep(self) -> Swept:
        """Sweep once, at most as many threads as the configuration says.

        Raises: Unavailable when the database is away; what was swept before is.
        """
        swept = Swept()
        found = await self._pool.run(
            lambda conn: sweeping.find(conn, default=self._config.default, limit=self._config.limit),
            transaction=False,
        )
        try:
            for bite in _bites(found):
                await self._take(bite, swept)
        finally:
            if swept.deleted or swept.pruned:
                telemetry.log().info(telemetry.THREADS_SWEPT, deleted=swept.deleted, pruned=swept.pruned)
        return swept

    async def _take(self, bite: Sequence[ThreadId], swept: Swept) -> None:
        """Sweep these together, or one by one when that takes the database too long."""
        try:
            deleted, pruned = await self._pool.run(
                lambda conn: self._sweep(conn, list(bite)), patience_s=PATIENCE_SECONDS
            )
        except Unavailable:
            if len(bite) > 1:
                for each in bite:
                    await self._take([each], swept)
                return
            swept.failed += 1
            if swept.failed == FAILURES:
                raise
            telemetry.log().exception(telemetry.LOOP_FAILED, thread_id=str(bite[0]))
            return
        swept.deleted += deleted
        swept.pruned += pruned

    async def _sweep(self, conn: Conn, bite: list[ThreadId]) -> tuple[int, int]:
        """Sweep those that nobody uses; give how many were deleted and pruned. Must be in a transaction."""
        held = await sweeping.lock(conn, bite, default=self._config.default)
        gone = [thread_id for thread_id, strategy in held.items() if strategy == "delete"]
        kept = [thread_id for thread_id, strategy in held.items() if strategy != "delete"]
        if gone:
            await threads.delete(conn, gone, scope=EVERYONE)
        # Those of a DeltaChannel have to keep what they have; marked with the others, they are not looked at again.
        whole = await checkpoints.list_delta_threads(conn, thread_ids=[str(each) for each in kept])
        pruned = [thread_id for thread_id in kept if str(thread_id) not in whole]
        for thread_id in pruned:
            await checkpoints.keep_latest(conn, thread_id=str(thread_id))
        await sweeping.mark(conn, kept)
        return len(gone), len(pruned)


def _bites(found: list[ThreadId]) -> Iterator[list[ThreadId]]:
    for start in range(0, len(found), BITE):
        yield found[start : start + BITE]
