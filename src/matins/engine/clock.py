"""The database's time, by which everything is due, without asking it for each glance."""

from __future__ import annotations

import time
from datetime import datetime, timedelta


class DatabaseClock:
    """The database's time, told by this process's steady clock between two looks."""

    def __init__(self) -> None:
        self._at = 0.0
        self._time: datetime | None = None

    def set(self, now: datetime, asked_at: float) -> None:
        """Note the database's time; it was read at half the way there and back."""
        self._at = (asked_at + time.monotonic()) / 2
        self._time = now

    def now(self) -> datetime:
        """Give the database's time as far as is known here."""
        if self._time is None:
            raise RuntimeError("the clock was not set")
        return self._time + timedelta(seconds=time.monotonic() - self._at)
