"""Gauges: what is so just now, as whoever watches the server asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from matins.storage import sql
from matins.storage.pool import Conn

MOST_RUNS: Final = 10_000
"""No more runs are counted than that."""


@dataclass(frozen=True, slots=True)
class Gauges:
    """The database's time, when the next cron is due, when a cron's run last was a success, and runs by status."""

    now: datetime
    due_at: datetime | None
    last_success: datetime | None
    runs: dict[str, int]


async def read(conn: Conn) -> Gauges:
    """Read what costs next to nothing, however much there is."""
    row = await conn.fetchrow(sql.load("gauges")["read_gauges"].text, MOST_RUNS)
    assert row is not None  # noqa: S101 - a SELECT without FROM always has a row
    runs = {status: row[status] for status in ("pending", "running")}
    return Gauges(row["now"], row["due_at"], row["last_success"], runs)


async def crons_by_state(conn: Conn) -> dict[str, int]:
    """Count the crons that are `enabled` and those that are `paused`. Reads each: 30 ms for 100,000."""
    row = await conn.fetchrow(sql.load("gauges")["count_crons_by_state"].text)
    assert row is not None  # noqa: S101 - an aggregate always has a row
    return dict(row)
