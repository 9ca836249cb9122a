"""Live fan-out: what a run streams, to whoever listens in this process.

A subscription is opened before its run is submitted or looked up, so that nothing is missed. It buffers a bounded
number of bytes for a reader that is slower than its run. One that falls further behind costs nobody else anything:
where what it missed is kept, it reads that from the log, at its own pace; else it is cut off (`is_broken`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

import anyio

from matins.domain.frames import Frame
from matins.domain.ids import RunId, ThreadId

BUFFER_BYTES: Final = 8 * 1024 * 1024
"""What a subscription holds for a reader that does not keep up."""

PIECE_BYTES: Final = 256 * 1024
"""How much a reader is given at once."""

Topic: TypeAlias = RunId | ThreadId


class Subscription:
    """One listener to a run or a thread, to the frames too or only for the end.

    `reply` is what `wait` and `join` answer, once the run has ended in this process. `kept`: the log holds all up to
    this number, whether or not it came by here. `thread_id` is set once what is listened to is known to be there.
    """

    def __init__(self, topic: Topic, *, frames: bool) -> None:
        self.topic: Final = topic
        self.wants_frames: Final = frames
        self.thread_id: ThreadId | None = None
        self.has_ended = False
        self.is_broken = False
        self.reply: bytes | None = None
        self.kept = 0
        self._frames: list[Frame] = []
        self._size = 0
        self._changed = anyio.Event()

    @property
    def is_of_thread(self) -> bool:
        """Whether it listens to all runs of a thread."""
        return self.topic == self.thread_id

    def put(self, frames: list[Frame]) -> None:
        """Add frames, or none of the frames there are when the reader is too far behind.

        What comes while nothing waits to be read is never too much, however large it is. What comes after the break
        is dropped, so that a reader never gets a frame behind a gap.
        """
        if not self.wants_frames or self.is_broken:
            return
        is_behind = bool(self._frames)
        self._size += sum(len(frame.data) for frame in frames)
        if is_behind and self._size > BUFFER_BYTES:
            self.is_broken = 0 in (self._frames[0].seq, frames[-1].seq)
            self.kept = max(self.kept, frames[-1].seq)
            self._frames.clear()
            self._size = 0
        else:
            self._frames += frames
        self._changed.set()

    def ring(self, kept: int) -> None:
        """Say up to which number the log holds everything."""
        if self.wants_frames and kept > self.kept:
            self.kept = kept
            self._changed.set()

    def end(self, reply: bytes | None) -> None:
        """Say that no more will come."""
        if not self.has_ended:
            self.has_ended = True
            self.reply = reply
        self._changed.set()

    async def receive(self, timeout_s: float) -> list[Frame]:
        """Give the next frames, waiting for the first; empty after `timeout_s`, or when something else happened."""
        if not self._frames and not self.has_ended and not self.is_broken:
            with anyio.move_on_after(timeout_s):
                await self._changed.wait()
        self._changed = anyio.Event()
        taken = self._frames
        if self._size > PIECE_BYTES:
            taken = self._frames[: self._piece()]
        self._frames = self._frames[len(taken) :]
        self._size -= sum(len(frame.data) for frame in taken)
        return taken

    def _piece(self) -> int:
        """Give how many frames make a piece: one at the least."""
        size = 0
        for at, frame in enumerate(self._frames):
            size += len(frame.data)
            if size > PIECE_BYTES:
                return max(1, at)
        return len(self._frames)


class Hub:
    """Who listens to which run, and to which thread."""

    def __init__(self) -> None:
        self._listeners: dict[Topic, list[Subscription]] = {}
        self._threads: Counter[ThreadId] = Counter()

    @contextmanager
    def subscribe(self, topic: Topic, *, frames: bool = True) -> Iterator[Subscription]:
        """Listen to a run or a thread, from now to the end of the block; without `frames` only for its end."""
        subscription = Subscription(topic, frames=frames)
        self._listeners.setdefault(topic, []).append(subscription)
        try:
            yield subscription
        finally:
            self._listeners[topic].remove(subscription)
            if not self._listeners[topic]:
                del self._listeners[topic]
            if subscription.thread_id:
                self._threads[subscription.thread_id] -= 1
                if not self._threads[subscription.thread_id]:
                    del self._threads[subscription.thread_id]

    def begin(self, subscription: Subscription, thread_id: ThreadId) -> None:
        """Say that what is listened to is there, on that thread: from now on it may be found gone."""
        if subscription.thread_id is None:
            subscription.thread_id = thread_id
            self._threads[thread_id] += 1

    @property
    def subscriptions(self) -> list[Subscription]:
        """All who listen."""
        return [each for listeners in self._listeners.values() for each in listeners]

    def follows(self, thread_id: ThreadId) -> bool:
        """Whether somebody listens to the thread or to a run of it."""
        return thread_id in self._threads

    def publish(self, topic: Topic, frames: list[Frame]) -> None:
        """Hand frames to all who listen."""
        for subscription in self._listeners.get(topic, ()):
            subscription.put(frames)

    def ring(self, topic: Topic, kept: int) -> None:
        """Tell all who listen up to which number the log holds everything."""
        for subscription in self._listeners.get(topic, ()):
            subscription.ring(kept)

    def end(self, topic: Topic, reply: bytes | None) -> None:
        """Tell all who listen that the run has ended, or the thread is gone."""
        for subscription in self._listeners.get(topic, ()):
            subscription.end(reply)
