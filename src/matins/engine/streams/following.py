"""Follow a run to its end, wherever it runs, or a thread for good: frames as they come, and what was kept of them.

What listens is a subscription of the hub, opened by the caller before the run is submitted or looked up. Where frames
have numbers, each is given once and in order: what the live ones leave out is read from the log.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeAlias

import msgspec

from matins.domain.errors import Unavailable
from matins.domain.frames import Frame
from matins.domain.ids import RunId, ThreadId
from matins.domain.runs import Run, RunKwargs
from matins.engine import replies
from matins.engine.streams.hub import Hub, Subscription
from matins.engine.streams.watch import PAGE, Watch
from matins.storage import frames as frame_log
from matins.storage.pool import Pool
from matins.workers.pool import Pool as Workers

HEARTBEAT_SECONDS: Final = 5.0
"""Source: the contract's heartbeat, independent of other data."""

_Read: TypeAlias = Callable[[int], Awaitable[list[Frame]]]
"""Gives a page of what is kept after a number."""


class Following:
    """Runs and threads as those see them who wait for them. `holds`: whether a run is under way on this node."""

    def __init__(
        self, *, pool: Pool, workers: Workers, hub: Hub, watch: Watch, holds: Callable[[RunId], bool]
    ) -> None:
        self._pool: Final = pool
        self._workers: Final = workers
        self._hub: Final = hub
        self._watch: Final = watch
        self._holds: Final = holds

    async def follow(
        self, run: Run, subscription: Subscription, *, after: int | None = None, is_new: bool = False
    ) -> AsyncIterator[list[Frame] | None]:
        """Give the run's frames as they come, in batches, until it has ended, wherever it runs.

        Those that are kept after the number `after` come first; with None only what is still to come. `is_new`: the run
        was submitted while the subscription listened, and is given from its beginning. None in between says that a
        heartbeat is due.
        Raises: Unavailable when the reader fell too far behind.
        """

        async def read(seen: int) -> list[Frame]:
            return await self._pool.run(
                lambda conn: frame_log.read_after(conn, run.run_id, seen, limit=PAGE), transaction=False
            )

        is_here = self._holds(run.run_id)
        seen = 0
        if subscription.wants_frames and not (is_new and is_here):
            last = await self._last(run)
            # No number is beyond the last one: what is still to come has a larger one, whatever the client says.
            seen = last if after is None and not is_new else min(after or 0, last)
            subscription.ring(last)
        if run.status.is_terminal:
            subscription.end(None)
        self._hub.begin(subscription, run.thread_id)
        if not is_here:
            self._watch.wake()
        async for frames in _exactly(subscription, read, seen):
            yield frames

    async def follow_thread(
        self, thread_id: ThreadId, subscription: Subscription, *, after: int | None
    ) -> AsyncIterator[list[Frame] | None]:
        """Give what happens on the thread, under its numbers, until it is deleted; first what is kept after `after`.

        `Watch.keep_thread` was called before. None says that a heartbeat is due.
        """

        async def read(seen: int) -> list[Frame]:
            return await self._pool.run(
                lambda conn: frame_log.read_thread_after(conn, thread_id, seen, limit=PAGE), transaction=False
            )

        last, kept = await self._pool.run(
            lambda conn: frame_log.end_of_thread(conn, thread_id), transaction=False
        )
        subscription.ring(kept)
        self._hub.begin(subscription, thread_id)
        self._watch.wake()
        seen = last if after is None else min(after, last)
        async for frames in _exactly(subscription, read, seen):
            yield frames

    async def reply(self, run: Run, subscription: Subscription) -> AsyncIterator[bytes | None]:
        """Give None whenever a heartbeat is due and, when the run has ended, what `wait` and `join` answer."""
        async for frames in self.follow(run, subscription):
            if frames is None:
                yield None
        if subscription.reply is not None:
            yield subscription.reply
        else:
            yield await replies.on_record(self._pool, self._workers, run)

    async def _last(self, run: Run) -> int:
        [seen] = await self._pool.run(lambda conn: frame_log.look(conn, [run.run_id], []), transaction=False)
        return seen.last_seq


async def _exactly(subscription: Subscription, read: _Read, seen: int) -> AsyncIterator[list[Frame] | None]:
    """Give what comes to the subscription; what has a number after `seen`, once and without a gap.

    A thread's stream passes over what is not kept any more: runs that were undone meanwhile.
    """
    beat_at = time.monotonic() + HEARTBEAT_SECONDS
    while True:
        frames = await subscription.receive(max(0.0, beat_at - time.monotonic()))
        fresh = [frame for frame in frames if frame.seq == 0 or frame.seq > seen]
        first = next((frame.seq for frame in fresh if frame.seq), seen + 1)
        newest = max([seen, *[frame.seq for frame in fresh[-1:]]])
        if first > seen + 1 or subscription.kept > newest:
            if unnumbered := [frame for frame in fresh if frame.seq == 0]:
                yield unnumbered
            while page := await read(seen):
                seen = page[-1].seq
                yield page
            if seen < max(subscription.kept, newest) and not subscription.is_of_thread:
                message = "Some of the stream is not kept any more."
                raise Unavailable(message)
            seen = max(seen, subscription.kept, newest)
        elif fresh:
            seen = newest
            yield fresh
        elif subscription.is_broken:
            message = "The reader fell too far behind."
            raise Unavailable(message)
        elif subscription.has_ended and not frames:
            return
        if time.monotonic() >= beat_at:
            yield None
            beat_at = time.monotonic() + HEARTBEAT_SECONDS


def is_resumable(run: Run) -> bool:
    """Whether the run's events have numbers that a client may come back with."""
    return msgspec.json.decode(run.kwargs, type=RunKwargs).resumable
