"""Four schedulers on one database, one killed with -9 every two seconds: each slot once, and none is missing."""

from __future__ import annotations

import os
import random
import signal
import sys
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import anyio
import psycopg
import pytest

from matins.domain.crons import Cron
from matins.storage.pool import open_pool
from tests.support import databases, servers
from tests.support.engine import create_cron
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a server in /proc")

NODES: Final = 4
CRONS: Final = 100
KILLS: Final = 3 * int(os.environ.get("KILL_ROUNDS", "3"))
PAUSE_SECONDS: Final = 2
SECOND: Final = timedelta(seconds=1)


async def create(uri: str) -> list[Cron]:
    async with open_pool(uri, size=4) as pool:
        return [await create_cron(pool, "@every 1s") for _ in range(CRONS)]


def ledger(db: psycopg.Connection[tuple[Any, ...]]) -> list[tuple[UUID, datetime, str, float]]:
    return db.execute(
        "SELECT cron_id, scheduled_for, outcome, extract(epoch FROM recorded_at - scheduled_for)::float"
        " FROM matins.cron_fire"
    ).fetchall()


def test_schedulers_that_are_killed_miss_no_slot_and_fire_none_twice(postgres: str, tmp_path: Path) -> None:
    with databases.database(postgres) as uri, ExitStack() as stack:
        env = {"DATABASE_URI": uri}
        nodes = [
            stack.enter_context(
                servers.start(
                    servers.EXAMPLES, tmp_path, command="serve", env=env, args=["--roles", "scheduler"]
                )
            )
            for _ in range(NODES)
        ]
        db = stack.enter_context(psycopg.connect(uri, autocommit=True))
        crons = anyio.run(create, uri)
        chance = random.Random(20261127)
        for kill in range(1, KILLS + 1):
            wanted = kill * PAUSE_SECONDS * CRONS
            until(lambda most=wanted: count(db) >= most, timeout_s=30)  # type: ignore[misc]
            victim = chance.choice([node for node in nodes if node.answers()])
            os.kill(victim.serving, signal.SIGKILL)
        until(lambda: all(node.answers() for node in nodes), timeout_s=30)
        # None is late by more than the next look; what was due is recorded, then no more comes.
        until(
            lambda: (
                db.execute("SELECT min(next_run_date) > matins.now() FROM matins.cron").fetchone() == (True,)
            )
        )
        ends: dict[UUID, datetime] = dict(
            db.execute("UPDATE matins.cron SET enabled = false RETURNING cron_id, next_run_date").fetchall()
        )
        found = ledger(db)
        expected = {
            (cron.cron_id, slot)
            for cron in crons
            if cron.next_run_date is not None
            for slot in slots(cron.next_run_date, ends[cron.cron_id])
        }
        assert len(found) == len({row[:2] for row in found}), "a slot has two rows"
        assert {row[:2] for row in found} == expected
        assert {row[2] for row in found} == {"fired"}
        [(runs, apart)] = db.execute(
            "SELECT count(*), count(DISTINCT (cron_id, scheduled_for)) FROM matins.run WHERE cron_id IS NOT NULL"
        ).fetchall()
        assert runs == apart == len(expected)
    late = sorted(row[3] for row in found)
    print(
        f"{KILLS} kills of {NODES} schedulers, {len(found):,} slots of {CRONS} crons: late p50 "
        f"{1e3 * late[len(late) // 2]:.0f} ms, p99 {1e3 * late[int(len(late) * 0.99) - 1]:.0f} ms, "
        f"worst {1e3 * late[-1]:.0f} ms"
    )


def count(db: psycopg.Connection[tuple[Any, ...]]) -> int:
    """How many slots are on record: a second's worth is as many as there are crons."""
    [(number,)] = db.execute("SELECT count(*) FROM matins.cron_fire").fetchall()
    return int(number)


def slots(first: datetime, end: datetime) -> list[datetime]:
    """The slots of an interval of a second, by arithmetic alone."""
    return [first + number * SECOND for number in range(round((end - first) / SECOND))]
