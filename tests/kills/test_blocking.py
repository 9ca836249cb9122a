"""User code that stands still, holds the GIL or ends its process: nobody else notices."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import anyio
import asyncpg
import httpx
import pytest

from tests.support import servers
from tests.support.pools import until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a server in /proc"),
]

PROJECT: Final = Path(__file__).parent / "project" / "langgraph.json"
BLOCKED_SECONDS: Final = 20.0
EVERY_SECONDS: Final = 0.1
BAR_SECONDS: Final = 0.25


STALL_SECONDS: Final = 0.05
"""When this process, which does next to nothing, was held up for longer, the machine stood still, not the server."""


@dataclass
class Measured:
    """What was asked again and again, every EVERY_SECONDS, each kind by a client of its own.

    What was asked while the machine stood still is not counted.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    stalls: list[tuple[float, float]] = field(default_factory=list)
    _is_over: bool = False

    @asynccontextmanager
    async def asking(self, questions: Mapping[str, Callable[[], Awaitable[None]]]) -> AsyncIterator[None]:
        """Ask for the length of the block."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch)
            for what, ask in questions.items():
                group.start_soon(self.keep_asking, what, ask)
            await until(lambda: all(len(self.seconds.get(what, ())) > 5 for what in questions))
            yield
            self._is_over = True

    async def keep_asking(self, what: str, ask: Callable[[], Awaitable[None]]) -> None:
        times = self.seconds.setdefault(what, [])
        while not self._is_over:
            began = time.monotonic()
            await ask()
            ended = time.monotonic()
            if not self.stood_still(began, ended):
                times.append(ended - began)
            await anyio.sleep(max(0.0, began + EVERY_SECONDS - time.monotonic()))

    def stood_still(self, began: float, ended: float) -> bool:
        """Whether the machine stood still at some time between."""
        return any(stalled < ended and began < over for stalled, over in self.stalls)

    async def _watch(self) -> None:
        last = time.monotonic()
        while not self._is_over:
            await anyio.sleep(0.01)
            now = time.monotonic()
            if now - last > STALL_SECONDS:
                self.stalls.append((last, now))
            last = now

    def report(self) -> None:
        held_up_s = sum(over - stalled for stalled, over in self.stalls)
        print(f"the machine stood still {len(self.stalls)} times, for {held_up_s:.2f} s in all")
        for what, times in self.seconds.items():
            ordered = sorted(times)
            p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
            print(f"{what}: {len(times)} times, median {ordered[len(times) // 2] * 1000:.0f} ms,"
                  f" p99 {p99 * 1000:.0f} ms, max {ordered[-1] * 1000:.0f} ms")  # fmt: skip


async def first_event(http: httpx.AsyncClient) -> None:
    """Begin a run and read up to its first event."""
    body = {"assistant_id": "steps", "input": {"steps": 1}}
    async with http.stream("POST", "/runs/stream", json=body) as response:
        response.raise_for_status()
        heard = ""
        async for text in response.aiter_text():
            heard += text
            if "event: metadata" in heard:
                return
    raise AssertionError(f"a stream without its first event: {heard!r}")


async def answer(http: httpx.AsyncClient, path: str) -> None:
    (await http.get(path)).raise_for_status()


@pytest.mark.parametrize(
    "what",
    [
        pytest.param({"do": "block", "seconds": BLOCKED_SECONDS}, id="blocks its loop"),
        pytest.param({"do": "burn", "seconds": BLOCKED_SECONDS}, id="burns the GIL"),
        pytest.param({"do": "exit"}, id="exits the process"),  # three times, each time it is tried again
    ],
)
async def test_nothing_waits_for_a_graph_that(what: dict[str, Any], tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    effects.touch()
    measured = Measured()
    with servers.start(PROJECT, tmp_path, env={"EFFECTS": str(effects)}) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            thread = (await http.post("/threads", json={})).json()["thread_id"]
            ran = await http.post(f"/threads/{thread}/runs/wait", json={"assistant_id": "steps", "input": {}})
            assert ran.json()["done"] == 1
            body = {"assistant_id": "steps", "schedule": "@every 1s", "input": {}, "on_run_completed": "keep"}
            cron = (await http.post("/runs/crons", json=body)).json()["cron_id"]
            await until(lambda: server.log.read_text().count("worker.ready") == 2)  # the desk is there
            questions = {
                "GET /ok": lambda: answer(http, "/ok"),
                "GET state": lambda: answer(http, f"/threads/{thread}/state"),
                "first event": lambda: first_event(http),
            }
            connection = await asyncpg.connect(server.database_uri)
            async with measured.asking(questions):
                began = await connection.fetchval("SELECT matins.now()")
                at = time.monotonic()
                ended = await http.post("/runs/wait", json={"assistant_id": "hostile", "input": what})
                over = await connection.fetchval("SELECT matins.now()")
            fires = await connection.fetch(
                "SELECT f.scheduled_for, f.recorded_at - f.scheduled_for AS recorded,"
                " r.created_at - f.scheduled_for AS created, r.started_at - f.scheduled_for AS started"
                " FROM matins.cron_fire f JOIN matins.run r USING (run_id)"
                " WHERE f.cron_id = $1 AND f.scheduled_for BETWEEN $2 AND $3 ORDER BY f.scheduled_for",
                cron, began, over - timedelta(seconds=0.5),
            )  # fmt: skip
            await connection.close()
    result = ended.json()
    blocked_s = (over - began).total_seconds()
    print(f"\n{what}: for {blocked_s:.1f} s: {result}")
    measured.report()
    assert int(blocked_s) - 1 <= len(fires) <= blocked_s + 1

    def was_held_up(fire: asyncpg.Record) -> bool:
        due = at + (fire["scheduled_for"] - began).total_seconds()
        return measured.stood_still(due, due + BAR_SECONDS)

    counted = [fire for fire in fires if not was_held_up(fire)]
    late = {
        name: [fire[name].total_seconds() for fire in counted] for name in ("recorded", "created", "started")
    }
    for name, seconds in late.items():
        print(f"cron: {len(seconds)} slots, {name} at most {max(seconds) * 1000:.0f} ms after the slot")
    assert len(counted) > len(fires) / 2
    assert max(late["recorded"] + late["created"]) < BAR_SECONDS
    assert {
        name: max(seconds) for name, seconds in measured.seconds.items() if max(seconds) >= BAR_SECONDS
    } == {}
    if what["do"] == "exit":
        assert result["__error__"]["error"] == "WorkerDied"
    else:
        assert result["took"] > BLOCKED_SECONDS / 2
