"""Looks: when the scheduler last looked at what is due, for all that ask whether it still does. Asks no database."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Final

import anyio

LOOK_SECONDS: Final = 1.0
"""The scheduler waits no longer without asking the database's clock: laptops sleep."""

STALLED_SECONDS: Final = 3 * LOOK_SECONDS
"""After this long without a look something is wrong."""


class Looks:
    """The looks of one node's scheduler. `last` is the newest one, by the database's clock."""

    def __init__(self) -> None:
        self.last: datetime | None = None
        self._at = time.monotonic()
        self._trouble = ""
        self._next = anyio.Event()

    def note(self, now: datetime) -> None:
        """Note that a look is done, at `now` by the database's clock."""
        self.last = now
        self.rest()
        self._next.set()
        self._next = anyio.Event()

    def rest(self) -> None:
        """Note that there is nothing to look at: the node has just started, or holds no lease."""
        self._at, self._trouble = time.monotonic(), ""

    def fail(self, trouble: str) -> None:
        """Note why a look came to nothing. It is no look."""
        self._trouble = trouble

    async def next(self) -> None:
        """Wait for a look that is done from now on."""
        await self._next.wait()

    @property
    def stalled(self) -> str | None:
        """Why and for how long there was no look, in a line; None when there was one of late."""
        quiet_s = time.monotonic() - self._at
        if quiet_s <= STALLED_SECONDS:
            return None
        line = f"The scheduler of this node has not looked at its crons for {quiet_s:.0f} s"
        return f"{line}: {self._trouble}" if self._trouble else f"{line}."
