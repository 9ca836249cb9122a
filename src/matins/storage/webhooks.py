"""The outbox: what runs that have ended report to their webhooks, and what is told of crons.

Written with what it tells of, delivered afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from asyncpg import Record

from matins.domain.access import Scope
from matins.domain.ids import CronId, RunId, uuid7
from matins.domain.runs import Run
from matins.domain.webhooks import Delivery, DeliveryStatus, host_of, report, webhook_of
from matins.storage import sql
from matins.storage.pool import Conn

CLAIM_SECONDS: Final = 60.0
"""How long a delivery is one node's to make: longer than a try takes. Then it is tried again."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that is to be made now: its how manieth try it is, and when it was claimed."""

    delivery_id: UUID
    run_id: RunId | None
    cron_id: CronId | None
    url: str
    host: str
    payload: bytes
    attempt: int
    claimed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which deliveries: each part that is given must match."""

    run_id: RunId | None = None
    status: DeliveryStatus | None = None


async def insert(conn: Conn, run: Run, *, owner: str, values: bytes | None, interrupts: bytes | None) -> None:
    """Write what a run that has just ended reports, if it has a webhook; a second report of it is none.

    `values`: the state it leaves; `interrupts`: what its thread waits for, task id -> list. Both encoded.
    """
    url = webhook_of(run)
    if url is None:
        return
    await conn.execute(
        sql.load("webhooks")["insert_delivery"].text,
        uuid7(),
        run.run_id,
        None if run.temporary else run.thread_id,
        owner,
        url,
        host_of(url),
        report(run, values=values, interrupts=interrupts),
    )


async def insert_alert(conn: Conn, cron_id: CronId, *, owner: str, url: str, payload: bytes) -> None:
    """Write what is told of a cron."""
    await conn.execute(
        sql.load("webhooks")["insert_alert"].text, uuid7(), cron_id, owner, url, host_of(url), payload
    )


async def due_hosts(conn: Conn) -> list[str]:
    """Give the hosts to which something is to be delivered now."""
    return [row["host"] for row in await conn.fetch(sql.load("webhooks")["list_due_hosts"].text)]


async def claim(conn: Conn, rooms: dict[str, int]) -> list[Claimed]:
    """Claim what is due, for each of these hosts at most so many, for CLAIM_SECONDS."""
    found = await conn.fetch(
        sql.load("webhooks")["claim_deliveries"].text, list(rooms), list(rooms.values()), CLAIM_SECONDS
    )
    return [
        Claimed(
            delivery_id=row["delivery_id"],
            run_id=row["run_id"],
            cron_id=row["cron_id"],
            url=row["url"],
            host=row["host"],
            payload=row["payload"],
            attempt=row["attempts"],
            claimed_at=row["claimed_at"],
        )
        for row in found
    ]


async def settle(conn: Conn, delivery_id: UUID) -> None:
    """Record that it was delivered."""
    await conn.execute(sql.load("webhooks")["settle_delivery"].text, delivery_id)


async def retry(conn: Conn, claimed: Claimed, *, after_s: float | None, error: str) -> None:
    """Record that a try failed: it is tried again after so many seconds, or given up when that is None."""
    await conn.execute(
        sql.load("webhooks")["retry_delivery"].text, claimed.delivery_id, claimed.attempt, after_s, error
    )


async def list_(conn: Conn, wanted: Filter, *, scope: Scope, limit: int, offset: int) -> list[Delivery]:
    """Give one page of the matching deliveries, the newest first."""
    found = await conn.fetch(
        sql.load("webhooks")["list_deliveries"].text,
        scope.owner,
        wanted.run_id,
        wanted.status,
        limit,
        offset,
    )
    return [_delivery(row) for row in found]


async def count(conn: Conn, wanted: Filter, *, scope: Scope, limit: int) -> int:
    """Count the matching deliveries, no further than the limit."""
    number: int = await conn.fetchval(
        sql.load("webhooks")["count_deliveries"].text, scope.owner, wanted.run_id, wanted.status, limit
    )
    return number


async def get(conn: Conn, delivery_id: UUID, *, scope: Scope) -> Delivery | None:
    """Give the delivery, if the scope may see it."""
    row = await conn.fetchrow(sql.load("webhooks")["get_delivery"].text, delivery_id, scope.owner)
    return _delivery(row) if row else None


async def replay(conn: Conn, delivery_id: UUID, *, scope: Scope) -> Delivery | None:
    """Let a delivery that has ended begin anew, and give it; None when there is none that has ended."""
    row = await conn.fetchrow(sql.load("webhooks")["replay_delivery"].text, delivery_id, scope.owner)
    return _delivery(row) if row else None


async def delete_of_run(conn: Conn, run_id: RunId) -> None:
    """Delete what a run that is deleted has reported, or has still to."""
    await conn.execute(sql.load("webhooks")["delete_delivery_of_run"].text, run_id)


async def forget(conn: Conn, *, delivered_s: float, dead_s: float, limit: int) -> int:
    """Delete deliveries that ended longer ago than that, at most so many of each kind; give how many there were."""
    gone = await conn.fetch(sql.load("webhooks")["forget_deliveries"].text, delivered_s, dead_s, limit)
    return len(gone)


def _delivery(row: Record) -> Delivery:
    return Delivery(**dict(row))
