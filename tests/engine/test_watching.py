from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from structlog.testing import capture_logs

from matins.domain.errors import Unavailable
from matins.engine import heartbeat, looks
from matins.engine.heartbeat import Heartbeat
from matins.engine.looks import Looks
from matins.engine.metrics import Metrics
from matins.storage.pool import Conn, Pool
from tests.support.engine import create_cron, running, scheduling, until

pytestmark = pytest.mark.anyio

T = TypeVar("T")
NOW = datetime(2030, 1, 31, 9, tzinfo=UTC)
AGO = """
    UPDATE matins.cron SET next_run_date = matins.now() - $2::interval, due_at = matins.now() - $2 WHERE cron_id = $1
"""


class Away(Pool):
    """A pool whose database can be away."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool._pool)
        self.is_away = False

    async def run(
        self, work: Callable[[Conn], Awaitable[T]], *, transaction: bool = True, patience_s: float = 8
    ) -> T:
        if self.is_away:
            raise Unavailable("The database is away.")
        return await super().run(work, transaction=transaction, patience_s=patience_s)


async def _now(found: Any) -> Any:
    return found


async def test_a_look_without_a_database_is_none_and_the_next_one_with_it_is(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "STALLED_SECONDS", 0.5)
    away, seen = Away(pool), Looks()
    async with scheduling(away, looks=seen) as due:
        await seen.next()
        assert seen.stalled is None
        assert seen.last is not None
        away.is_away = True
        due()
        line = await until(lambda: _now(seen.stalled))
        assert re.fullmatch(
            r"The scheduler of this node has not looked at its crons for \d s: The database is away\.", line
        )
        away.is_away = False
        await seen.next()
        assert seen.stalled is None


async def test_without_the_database_a_scrape_tells_of_this_process(pool: Pool) -> None:
    away, seen = Away(pool), Looks()
    metrics = Metrics(pool=away, looks=seen, lanes_in_use=lambda: 3)
    away.is_away = True
    text = (await metrics.scrape()).decode()
    assert "\nmatins_database_up 0.0\n" in text
    assert "\nmatins_lanes_in_use 3.0\n" in text
    assert "matins_crons{" not in text
    assert "last_look" not in text, "there was none"
    away.is_away = False
    seen.note(NOW)
    text = (await metrics.scrape()).decode()
    found = re.search(r"^matins_scheduler_last_look_timestamp_seconds (.*)$", text, re.MULTILINE)
    assert found is not None
    assert float(found[1]) == NOW.timestamp()
    assert '\nmatins_crons{state="enabled"} 0.0\n' in text
    assert "matins_cron_last_success" not in text, "there was none"


async def test_a_slot_that_nobody_serves_is_a_lag(pool: Pool) -> None:
    cron = await create_cron(pool, "0 9 * * *")
    metrics = Metrics(pool=pool, looks=Looks(), lanes_in_use=lambda: 0)
    assert "\nmatins_scheduler_lag_seconds 0.0\n" in (await metrics.scrape()).decode()
    async with pool.connection() as conn:
        await conn.execute(AGO, cron.cron_id, timedelta(seconds=90))
    [line] = [
        line
        for line in (await metrics.scrape()).decode().splitlines()
        if line.startswith("matins_scheduler_lag")
    ]
    assert 90 <= float(line.split()[1]) < 100


def counts(text: str) -> dict[str, float]:
    found = re.findall(
        r"^matins_cron_fires_total\{outcome=\"(\w+)\",trigger=\"(\w+)\"\} (.*)$", text, re.MULTILINE
    )
    return {f"{outcome} {trigger}": float(number) for outcome, trigger, number in found if float(number)}


async def test_what_is_caught_up_counts_as_it_waits_and_as_it_fires_and_is_not_called_late(
    pool: Pool,
) -> None:
    metrics = Metrics(pool=pool, looks=Looks(), lanes_in_use=lambda: 0)
    cron = await create_cron(pool, "@every 1h")
    async with pool.connection() as conn:
        await conn.execute(AGO, cron.cron_id, timedelta(minutes=210))
    with capture_logs() as logged:
        async with scheduling(pool, metrics=metrics):
            await until(lambda: _now([line for line in logged if line["event"] == "cron.fired"]))
    text = (await metrics.scrape()).decode()
    assert counts(text) == {"missed schedule": 3, "waiting catch_up": 1, "fired catch_up": 1}
    assert "\nmatins_cron_fire_lateness_seconds_count 0.0\n" in text
    async with pool.connection() as conn:
        ledger = await conn.fetch(
            "SELECT outcome, trigger, run_id FROM matins.cron_fire ORDER BY scheduled_for"
        )
    [fired] = [line for line in logged if line["event"] == "cron.fired"]
    assert (fired["trigger"], fired["run_id"]) == ("catch_up", str(ledger[-1]["run_id"]))
    missed = [line for line in logged if line["event"] == "cron.missed"]
    assert [line["outcome"] for line in missed] == ["missed"] * 3 + ["waiting"]
    assert all(line["reason"] for line in missed)


async def test_crons_are_counted_no_more_often_than_they_are_worth(pool: Pool) -> None:
    metrics = Metrics(pool=pool, looks=Looks(), lanes_in_use=lambda: 0)
    await metrics.scrape()
    waits_s = metrics._counts_again_at - anyio.current_time()
    assert 0 < waits_s < 60, "among few, soon"
    metrics._counts_again_at = anyio.current_time() + 60
    await create_cron(pool, "0 9 * * *")
    assert '\nmatins_crons{state="enabled"} 0.0\n' in (await metrics.scrape()).decode()
    metrics._counts_again_at = 0
    assert '\nmatins_crons{state="enabled"} 1.0\n' in (await metrics.scrape()).decode()


class Watcher:
    """Hears heartbeats on a port, and answers each with a status."""

    def __init__(self, status: int) -> None:
        self.heard = 0
        self.url = ""
        self._status = status
        self._more = anyio.Event()

    async def hears(self, number: int) -> None:
        while self.heard < number:
            await self._more.wait()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Watcher]:
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no query
            self.url = f"http://127.0.0.1:{port}/secret"
            async with anyio.create_task_group() as group:
                group.start_soon(listener.serve, self._answer)
                yield self
                group.cancel_scope.cancel()

    async def _answer(self, link: SocketStream) -> None:
        async with link:
            await link.receive()
            self.heard += 1
            self._more.set()
            self._more = anyio.Event()
            await link.send(
                f"HTTP/1.1 {self._status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
            )


async def test_a_heart_beats_after_a_look_and_not_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "EVERY_SECONDS", 0.02)
    seen = Looks()
    async with Watcher(200).listening() as watcher, running(Heartbeat(watcher.url, looks=seen)):
        for beat in range(1, 4):
            await anyio.wait_all_tasks_blocked()
            assert watcher.heard == beat - 1, "nobody has looked"
            with anyio.fail_after(10):
                while watcher.heard < beat:
                    seen.note(NOW)
                    await anyio.sleep(0.01)


async def test_a_heartbeat_that_nobody_hears_is_logged_and_the_next_one_goes_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeat, "EVERY_SECONDS", 0.01)
    seen = Looks()

    async def look() -> None:
        while True:
            seen.note(NOW)
            await anyio.sleep(0.01)

    with capture_logs() as logged:
        async with Watcher(500).listening() as watcher, anyio.create_task_group() as group:
            group.start_soon(look)
            with anyio.fail_after(10):
                async with running(Heartbeat(watcher.url, looks=seen)):
                    await watcher.hears(3)
            async with running(Heartbeat("http://127.0.0.1:1/secret", looks=seen)):
                await until(lambda: _now(len({line["reason"] for line in logged}) == 2))
            group.cancel_scope.cancel()
    assert {line["event"] for line in logged} == {"heartbeat.failed"}
    assert {line["reason"] for line in logged} == {"it answered 500", "it cannot be reached: ConnectError"}
    assert "secret" not in str(logged)
