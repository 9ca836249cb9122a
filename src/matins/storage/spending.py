"""What crons have spent, by their ledger: add to it, sum it up, take the mean, and how their newest runs ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from matins.domain.budgets import Spent
from matins.domain.fires import RECENT
from matins.domain.ids import CronId
from matins.domain.runs import Held, RunStatus
from matins.storage import sql
from matins.storage.pool import Conn


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """What a number of calls of models took together."""

    number: int
    input_tokens: int
    output_tokens: int
    tokens: int
    usd: float


async def add(conn: Conn, held: Held, calls: Calls, *, upto: int) -> bool:
    """Add calls of an attempt to the ledger's row of its run; False when they are in it already.

    `upto`: how many the attempt has made with these.
    """
    found = await conn.fetchval(
        sql.load("spending")["add_spending"].text,
        held.run_id,
        held.attempt,
        upto,
        calls.number,
        calls.input_tokens,
        calls.output_tokens,
        calls.tokens,
        calls.usd,
    )
    return found is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to sum up of a cron: what it used `since`; all its runs, if it `counts_runs`; its runs of 24 hours.

    The last are counted up to `most`.
    """

    cron_id: CronId
    since: datetime | None = None
    counts_runs: bool = False
    most: int = 0


async def spent(conn: Conn, asked: Sequence[Question]) -> dict[CronId, Spent]:
    """Sum up what the ledger has of each of these crons."""
    found = await conn.fetch(
        sql.load("spending")["sum_spending"].text,
        [each.cron_id for each in asked],
        [each.since for each in asked],
        [each.counts_runs for each in asked],
        [each.most for each in asked],
    )
    return {
        CronId(row["cron_id"]): Spent(row["runs_of_day"], row["runs"], row["tokens"], row["usd"])
        for row in found
    }


async def ends(
    conn: Conn, cron_id: CronId, *, since: datetime | None, limit: int
) -> list[tuple[datetime, RunStatus]]:
    """Give how the newest runs of a cron ended, by their slots, the newest first: a success, an error or a time-out."""
    found = await conn.fetch(sql.load("spending")["list_ends"].text, cron_id, since, limit)
    return [(row["scheduled_for"], RunStatus(row["status"])) for row in found]


async def mean(conn: Conn, cron_id: CronId) -> tuple[float, float] | None:
    """Give the tokens and dollars that the newest successes of a cron took on average; None without a success."""
    row = await conn.fetchrow(sql.load("spending")["mean_spending"].text, cron_id, RECENT)
    assert row is not None  # noqa: S101 - an aggregate always has a row
    return None if row["tokens"] is None else (row["tokens"], row["usd"])
