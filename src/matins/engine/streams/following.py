"""Follow a run to its end, wherever it runs: its frames as they come, what it kept, and what `wait` answers.

What listens is a subscription of the hub, opened by the caller before the run is submitted or looked up.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from matins.domain.access import EVERYONE
from matins.domain.errors import Unavailable
from matins.domain.frames import Frame
from matins.domain.ids import RunId
from matins.domain.runs import Run
from matins.engine import replies
from matins.engine.streams.hub import Subscription
from matins.storage import frames as frame_log
from matins.storage import runs
from matins.storage.pool import Pool
from matins.workers.pool import Pool as Workers

HEARTBEAT_SECONDS: Final = 5.0
"""Source: the contract's heartbeat, independent of other data."""

LOOK_SECONDS: Final = 1.0
"""How often the database is asked after a run that is followed here and carried elsewhere, or by nobody yet."""

_PAGE: Final = 1000


class Following:
    """Runs as those see them who wait for them. `holds`: whether a run is under way on this node."""

    def __init__(self, *, pool: Pool, workers: Workers, holds: Callable[[RunId], bool]) -> None:
        self._pool: Final = pool
        self._workers: Final = workers
        self._holds: Final = holds

    async def follow(self, run: Run, subscription: Subscription) -> AsyncIterator[list[Frame] | None]:
        """Give the run's frames as they come, in batches, until it has ended, wherever it runs.

        None says that a heartbeat is due.
        Raises: Unavailable when the reader fell too far behind.
        """
        beat_at = time.monotonic() + HEARTBEAT_SECONDS
        patience_s = 0.0 if run.status.is_terminal else LOOK_SECONDS
        while True:
            frames = await subscription.receive(patience_s)
            if frames:
                yield frames
            elif subscription.is_broken:
                message = "The reader fell too far behind."
                raise Unavailable(message)
            elif subscription.has_ended:
                return
            elif await self._has_ended(run):
                if rest := await subscription.receive(0):  # it was carried here while we asked
                    yield rest
                return
            if time.monotonic() >= beat_at:
                yield None
                beat_at = time.monotonic() + HEARTBEAT_SECONDS

    async def replay(
        self, run: Run, subscription: Subscription, *, after: int | None
    ) -> AsyncIterator[list[Frame] | None]:
        """Give the run's kept frames after that number, then follow it; with `after` None only what is still to come.

        No frame is given twice: what was kept and is live too is told by its number.
        """
        seen = after
        if after is not None:
            while True:
                kept = await self._kept(run, seen or 0)
                if not kept:
                    break
                seen = kept[-1].seq
                yield kept
        async for frames in self.follow(run, subscription):
            if frames is None or seen is None:
                yield frames
                continue
            fresh = [frame for frame in frames if frame.seq == 0 or frame.seq > seen]
            if fresh:
                seen = max(seen, fresh[-1].seq)
                yield fresh

    async def reply(self, run: Run, subscription: Subscription) -> AsyncIterator[bytes | None]:
        """Give None whenever a heartbeat is due and, when the run has ended, what `wait` and `join` answer."""
        async for frames in self.follow(run, subscription):
            if frames is None:
                yield None
        if subscription.reply is not None:
            yield subscription.reply
        else:
            yield await replies.on_record(self._pool, self._workers, run)

    async def _kept(self, run: Run, after: int) -> list[Frame]:
        return await self._pool.run(
            lambda conn: frame_log.read_after(conn, run.run_id, after, limit=_PAGE), transaction=False
        )

    async def _has_ended(self, run: Run) -> bool:
        """Ask the database, unless the run is under way here."""
        if self._holds(run.run_id):
            return False
        now = await self._pool.run(
            lambda conn: runs.get(conn, run.run_id, thread_id=None, scope=EVERYONE), transaction=False
        )
        return now is None or now.status.is_terminal
