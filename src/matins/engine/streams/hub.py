"""Live fan-out: what a run streams, to whoever listens in this process.

A subscription is opened before its run is submitted, so that nothing is missed. It buffers a bounded number of bytes
for a reader that is slower than its run; a reader that falls further behind is cut off (`is_broken`), which costs
nobody else anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import anyio

from matins.domain.frames import Frame
from matins.domain.ids import RunId

BUFFER_BYTES: Final = 8 * 1024 * 1024
"""What a subscription holds for a reader that does not keep up."""


class Subscription:
    """One listener, to the frames too or only for the end.

    `reply` is what `wait` and `join` answer, once the run has ended in this process.
    """

    def __init__(self, *, frames: bool) -> None:
        self._wants_frames: Final = frames
        self.has_ended = False
        self.is_broken = False
        self.reply: bytes | None = None
        self._frames: list[Frame] = []
        self._size = 0
        self._changed = anyio.Event()

    def put(self, frames: list[Frame]) -> None:
        """Add frames, or break the subscription when the reader is too far behind.

        What comes while nothing waits to be read is never too much, however large it is. What comes after the break
        is dropped, so that a reader never gets a frame behind a gap.
        """
        if not self._wants_frames or self.is_broken:
            return
        is_behind = bool(self._frames)
        self._size += sum(len(frame.data) for frame in frames)
        if is_behind and self._size > BUFFER_BYTES:
            self.is_broken = True
            self._frames.clear()
        else:
            self._frames += frames
        self._changed.set()

    def end(self, reply: bytes | None) -> None:
        """Say that no more will come."""
        self.has_ended = True
        self.reply = reply
        self._changed.set()

    async def receive(self, timeout_s: float) -> list[Frame]:
        """Give all frames there are, waiting for the first; empty after `timeout_s`, or when ended or broken."""
        if not self._frames and not self.has_ended and not self.is_broken:
            self._changed = anyio.Event()
            with anyio.move_on_after(timeout_s):
                await self._changed.wait()
        frames, self._frames = self._frames, []
        self._size = 0
        return frames


class Hub:
    """Who listens to which run."""

    def __init__(self) -> None:
        self._listeners: dict[RunId, list[Subscription]] = {}

    @contextmanager
    def subscribe(self, run_id: RunId, *, frames: bool = True) -> Iterator[Subscription]:
        """Listen to a run, from now to the end of the block; without `frames` only for its end."""
        subscription = Subscription(frames=frames)
        self._listeners.setdefault(run_id, []).append(subscription)
        try:
            yield subscription
        finally:
            self._listeners[run_id].remove(subscription)
            if not self._listeners[run_id]:
                del self._listeners[run_id]

    def publish(self, run_id: RunId, frames: list[Frame]) -> None:
        """Hand frames to all who listen to the run."""
        for subscription in self._listeners.get(run_id, ()):
            subscription.put(frames)

    def end(self, run_id: RunId, reply: bytes | None) -> None:
        """Tell all who listen that the run has ended."""
        for subscription in self._listeners.get(run_id, ()):
            subscription.end(reply)
