"""kill -9 under load: whatever dies, nothing that was promised is lost, and all of it goes on by itself."""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import anyio
import asyncpg
import pytest
from anyio import to_thread

from tests.support import load, servers
from tests.support.audit import Found, violations
from tests.support.load import Load, Progress
from tests.support.pools import until
from tests.support.servers import Server

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(0),  # as many rounds as are asked for; each has bounds of its own
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a server in /proc"),
]

PROJECT: Final = Path(__file__).parent / "project" / "langgraph.json"
ROUNDS: Final = int(os.environ.get("KILL_ROUNDS", "3"))
CRONS: Final = 20
QUIET_SECONDS: Final = 30.0
LONG_SECONDS: Final = 5.0
LANES: Final = 20
"""The load and the crons keep about 8 busy with waiting alone; on a machine that stalls, 10 are none too many."""
RECOVERY_SECONDS: Final = 60.0
RUNS_A_SECOND: Final = 10.0


@dataclass
class Site:
    """A server under load, and the file in which its graphs leave their marks."""

    server: Server
    load: Load
    effects: Path
    began: float = field(default_factory=time.monotonic)

    @property
    def run_worker(self) -> int:
        """The process that runs graphs: the one that left the last mark."""
        return int(self.effects.read_bytes().splitlines()[-1].split()[2])

    @property
    def desk(self) -> int:
        """The process that runs none."""
        return next(pid for pid in self.server.workers if pid != self.run_worker)


def kill_serving(site: Site) -> None:
    os.kill(site.server.serving, signal.SIGKILL)


def kill_worker(site: Site) -> None:
    site.load.claims.worker_kills += 1
    os.kill(site.run_worker, signal.SIGKILL)


def kill_desk(site: Site) -> None:
    site.load.claims.worker_kills += 1  # the roles may change hands before the signal arrives
    os.kill(site.desk, signal.SIGKILL)


def kill_postmaster(site: Site) -> None:
    os.kill(site.server.postmaster, signal.SIGKILL)


def kill_parent(site: Site) -> None:
    site.server.kill()
    site.server.launch()


def kill_everything(site: Site) -> None:
    site.server.kill_everything()
    site.server.launch()


def alternating(*kills: Callable[[Site], None]) -> Callable[[Site], None]:
    each = itertools.cycle(kills)

    def kill(site: Site) -> None:
        next(each)(site)

    return kill


@asynccontextmanager
async def under_load(directory: Path) -> AsyncIterator[Site]:
    """A server with the load and the crons of the issue; at the end of the block the load has stopped."""
    effects = directory / "effects"
    effects.touch()
    with servers.start(
        PROJECT,
        directory,
        args=["--no-reload"],
        env={"EFFECTS": str(effects), "LOG_LEVEL": "INFO", "N_JOBS_PER_WORKER": str(LANES)},
    ) as server:
        print(f"\ncold start {server.started_in_s:.2f} s")
        async with load.client(server.url) as http, anyio.create_task_group() as group:
            site = Site(server, Load(http), effects)
            await group.start(site.load.run)
            for number in range(CRONS):
                body: dict[str, Any] = {
                    "assistant_id": "steps",
                    "schedule": "@every 1s",
                    "input": load.QUICKEST,
                }
                if number % 4 > 1:
                    body["durability"] = "exit"
                if number % 4 == 1:
                    body["on_run_completed"] = "keep"
                thread = site.load.threads[number] if number % 2 == 0 else None
                await site.load.create_cron(body, thread_id=thread)
            site.began = time.monotonic()
            yield site
            site.load.stop()


async def recovered(site: Site, killed: float) -> tuple[float, float]:
    """Wait until a run that was acknowledged after the kill is done; seconds to the acknowledgement and to the end."""
    with anyio.fail_after(RECOVERY_SECONDS):
        first = await site.load.until(lambda each: each.at > killed and not each.done)
        since = {each.run_id for each in site.load.progress if each.at > killed and not each.done}

        def is_done(each: Progress) -> bool:
            if each.at > killed and not each.done:
                since.add(each.run_id)
            return each.done and each.run_id in since

        done = await site.load.until(is_done)
    return first.at - killed, done.at - killed


async def all_there(site: Site) -> None:
    """Wait until the run worker and the desk are ready and what had to wait for them is worked off."""

    def are_ready() -> bool:
        ready = {int(pid) for pid in re.findall(r"worker\.ready .*pid=(\d+)", site.server.log.read_text())}
        return len(ready.intersection(site.server.workers)) >= 2 and site.server.answers()

    with anyio.fail_after(RECOVERY_SECONDS):
        await until(are_ready)
        connection = await asyncpg.connect(site.server.database_uri)
        waiting = "SELECT count(*) FROM matins.run WHERE status = 'pending'"
        while await connection.fetchval(waiting) > CRONS:  # noqa: ASYNC110 - the server tells nobody
            await anyio.sleep(0.1)
        await connection.close()


async def came_to_rest(site: Site, connection: asyncpg.Connection[Any]) -> tuple[list[str], float]:
    """End the crons, wait until all promises are kept; those that are not, and for how long it was quiet then."""
    now: datetime = await connection.fetchval("SELECT matins.now()")
    last = now.replace(microsecond=0) + timedelta(seconds=6)
    async with anyio.create_task_group() as group:
        for cron_id in list(site.load.claims.crons):
            group.start_soon(site.load.end_cron, cron_id, last)
    assert await connection.fetchval("SELECT matins.now()") < last, "the crons were not ended in time"
    await anyio.sleep((last - now).total_seconds())
    quiet = time.monotonic()
    while True:
        marks = [line.split() for line in site.effects.read_text().splitlines()]
        site.load.claims.finished = {run_id for run_id, _, _, what in marks if what == "end"}
        site.load.claims.of_crons = {run_id for run_id, cron_id, _, _ in marks if cron_id != "-"}
        broken = violations(site.load.claims, await Found.read(connection))
        quiet_s = time.monotonic() - quiet
        if not broken or quiet_s > QUIET_SECONDS:
            return broken, quiet_s
        if quiet_s > LONG_SECONDS:
            print(f"{quiet_s:.1f} s after the last slot: {broken[0]}, and {len(broken) - 1} more")
        await anyio.sleep(0.25)


async def report(connection: asyncpg.Connection[Any], site: Site) -> None:
    fires = await connection.fetchrow(
        "SELECT count(*) AS n, count(*) FILTER (WHERE outcome = 'missed') AS missed,"
        " count(*) FILTER (WHERE outcome = 'skipped') AS skipped,"
        " percentile_disc(ARRAY[0.5, 0.99, 1]) WITHIN GROUP (ORDER BY recorded_at - scheduled_for) AS late"
        " FROM matins.cron_fire"
    )
    assert fires is not None
    charged = await connection.fetchval("SELECT count(*) FROM matins.run WHERE crashes > 0")
    late = ", ".join(f"{each.total_seconds():.3f}" for each in fires["late"])
    print(
        f"{len(site.load.claims.runs)} runs acknowledged, {fires['n']} slots of crons, {fires['missed']} missed,"
        f" {fires['skipped']} skipped;"
        f" lateness p50, p99, max {late} s; {charged} kept runs charged; refusals {dict(site.load.refusals)}"
    )


@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(kill_serving, id="the serving process"),
        pytest.param(kill_worker, id="a worker"),
        pytest.param(kill_desk, id="the desk"),
        pytest.param(alternating(kill_parent, kill_everything), id="the parent and all"),
        pytest.param(kill_postmaster, id="the postmaster"),
    ],
)
async def test_nothing_that_was_promised_is_lost_by_kills_of(
    kill: Callable[[Site], None], tmp_path: Path
) -> None:
    times: list[tuple[float, float]] = []
    async with under_load(tmp_path) as site:
        await recovered(site, time.monotonic())
        for _ in range(ROUNDS):
            began = time.monotonic()
            await all_there(site)
            print(f"all there, and the backlog worked off, after {time.monotonic() - began:.1f} s")
            await anyio.sleep(random.uniform(0.2, 1.2))  # not always at the same moment of what goes on
            killed = time.monotonic()
            await to_thread.run_sync(kill, site)
            times.append(await recovered(site, killed))
        site.load.stop()
        took_s = time.monotonic() - site.began
        connection = await asyncpg.connect(site.server.database_uri)
        broken, quiet_s = await came_to_rest(site, connection)
        await report(connection, site)
        await connection.close()
    rate = len(site.load.claims.runs) / took_s
    for what, seconds in zip(("first 2xx", "first run done"), zip(*times, strict=True), strict=True):
        print(f"{what}: median {statistics.median(seconds):.2f} s, max {max(seconds):.2f} s")
    print(
        f"{ROUNDS} kills in {took_s:.0f} s, {rate:.1f} runs/s; all promises kept {quiet_s:.1f} s after the last slot"
    )
    print(*site.load.complaints, sep="\n")
    assert broken == []
    assert site.load.complaints == []
    assert rate >= RUNS_A_SECOND
