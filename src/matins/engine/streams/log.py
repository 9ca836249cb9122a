"""What is kept of one attempt's stream: numbered, and in the database before anyone sees it."""

from __future__ import annotations

from matins.domain.frames import Frame
from matins.domain.runs import Held
from matins.storage import frames as frame_log
from matins.storage.pool import Pool


class Log:
    """Numbers and keeps the frames of a run, when it is asked to: from its start or from some moment on.

    `seq` is the last number that is kept, 0 while none is. `is_followed`: by others than those the hub tells.
    """

    def __init__(self, pool: Pool, held: Held, *, is_followed: bool) -> None:
        self.seq = 0
        self.keeps = is_followed
        self.is_followed = is_followed
        self._pool = pool
        self._held = held

    def follow(self) -> None:
        """Keep what comes from now on for somebody who follows."""
        self.keeps = self.is_followed = True

    async def keep(self, frames: list[Frame]) -> list[Frame]:
        """Give the frames: numbered, once they are kept; as they are, where nobody asked for that.

        Raises: LeaseLost when another attempt holds the run.
        """
        if not self.keeps:
            return frames
        last = self.seq or await self._last()
        numbered = [Frame(frame.event, frame.data, last + at) for at, frame in enumerate(frames, 1)]
        await self._pool.run(lambda conn: frame_log.append(conn, self._held, numbered), transaction=False)
        self.seq = last + len(frames)
        return numbered

    async def _last(self) -> int:
        """Give the thread's last number: its numbers go on over all its runs."""
        return await self._pool.run(
            lambda conn: frame_log.last_seq(conn, self._held.thread_id), transaction=False
        )
