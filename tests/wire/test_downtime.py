"""A server that was away over some slots: what its crons then do, with a real stop, a real start and a moved clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from matins.engine.catching_up import AT_ONCE
from tests.support import databases, servers
from tests.support.engine import MOVABLE_CLOCK
from tests.support.servers import EXAMPLES, Server
from tests.support.waiting import until

SAID = {"messages": [{"role": "user", "content": "tick"}]}
OVERDUE = 500


@dataclass
class Away:
    """A server that a test stops, and the database that stays."""

    server: Server
    db: psycopg.Connection[tuple[Any, ...]]

    def for_hours(self, hours: int) -> None:
        """Kill the server, let so many hours pass, a minute more, and start it again."""
        self.server.kill()
        self.db.execute("UPDATE matins.test_offset SET by = by + %s", [timedelta(hours=hours, minutes=1)])
        self.server.start()

    def fires(self) -> list[tuple[Any, ...]]:
        return self.db.execute(
            "SELECT cron_id::text, outcome, trigger, scheduled_for, status, started_at, ended_at, recorded_at"
            " FROM matins.cron_fire ORDER BY scheduled_for"
        ).fetchall()

    def over(self, number: int) -> list[tuple[Any, ...]]:
        """The ledger, once it has so many rows and nothing of it is under way."""

        def look() -> list[tuple[Any, ...]] | None:
            fires = self.fires()
            is_over = all(each[1] != "waiting" and each[4] not in ("pending", "running") for each in fires)
            return fires if len(fires) >= number and is_over else None

        found: list[tuple[Any, ...]] = until(look, timeout_s=120)
        return found


@pytest.fixture
def away(postgres: str, tmp_path: Path) -> Iterator[Away]:
    with databases.database(postgres) as uri:
        env = {"DATABASE_URI": uri}
        with (
            servers.start(EXAMPLES, tmp_path, command="serve", env=env) as server,
            psycopg.connect(uri, autocommit=True) as db,
        ):
            db.execute(MOVABLE_CLOCK.encode())
            yield Away(server, db)


def test_after_three_slots_without_a_server_each_policy_does_as_it_says(away: Away) -> None:
    crons: dict[str, str] = {}
    for misfire in ("skip", "run_once", "run_all"):
        body = {
            "assistant_id": "echo",
            "schedule": "0 * * * *",
            "input": SAID,
            "policy": {"misfire": misfire},
        }
        made = httpx.post(f"{away.server.url}/runs/crons", json=body).raise_for_status().json()
        crons[made["cron_id"]] = misfire
    away.for_hours(3)
    fires = away.over(9)
    found = {
        misfire: [(each[1], each[2]) for each in fires if each[0] == cron_id]
        for cron_id, misfire in crons.items()
    }
    missed, caught_up = ("missed", "schedule"), ("fired", "catch_up")
    assert found == {
        "skip": [missed] * 3,
        "run_once": [missed, missed, caught_up],
        "run_all": [caught_up] * 3,
    }
    assert Counter(each[4] for each in fires if each[1] == "fired") == {"success": 4}
    away.server.kill()
    away.server.start()
    assert [each[:5] for each in away.over(9)] == [each[:5] for each in fires]  # nothing is fired twice


def test_many_overdue_crons_start_no_more_at_once_than_the_throttle(away: Away) -> None:
    body = {
        "assistant_id": "slow",
        "schedule": "0 * * * *",
        "input": {"steps": 1, "delay": 0.05},
        "policy": {"misfire": "run_once"},
    }
    made = httpx.post(f"{away.server.url}/runs/crons", json=body).raise_for_status().json()
    away.db.execute(
        "INSERT INTO matins.cron SELECT (jsonb_populate_record(c, jsonb_build_object('cron_id', gen_random_uuid()))).*"
        " FROM matins.cron AS c, generate_series(2, %s) WHERE c.cron_id = %s",
        [OVERDUE, made["cron_id"]],
    )
    away.for_hours(1)
    fires = away.over(OVERDUE)
    assert {(each[1], each[2], each[4]) for each in fires} == {("fired", "catch_up", "success")}
    assert len({each[0] for each in fires}) == OVERDUE == len(fires)
    marks = sorted([(each[7], 1) for each in fires] + [(each[6], -1) for each in fires])
    under_way = most = 0
    for _, step in marks:
        under_way += step
        most = max(most, under_way)
    assert 1 < most <= AT_ONCE
