"""Many clients at once: what the machine, which does one thing after another, cannot bring about."""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

from tests.model.gate import HELD
from tests.model.machine import STRATEGIES
from tests.model.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(0)]

RACES = int(os.environ.get("MODEL_RACES", "200"))
AT_ONCE = 100
CANCELLERS = 20
THREADS = 10
STOPS_WITHIN_SECONDS = 5.0
TERMINAL = {"success", "error", "interrupted"}
BUSY = "Thread is already running a task. Wait for it to finish or choose a different multitask strategy."


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with httpx.AsyncClient(base_url=world.http.base_url, timeout=60, limits=limits) as client:
        yield client


def body(strategy: str, *steps: str) -> dict[str, Any]:
    plan = [[step, "go"] for step in steps]
    return {"assistant_id": "paced", "input": {"todo": plan}, "multitask_strategy": strategy}


async def come_to_rest(world: World, http: httpx.AsyncClient, thread_ids: list[str]) -> dict[str, str]:
    """Wait until nothing is in flight; gives the status of every run that is there."""
    found: dict[str, str] = {}
    for thread_id in thread_ids:
        runs = (await http.get(f"/threads/{thread_id}/runs?limit=1000")).json()
        for run in runs:
            if run["status"] not in TERMINAL:
                await http.get(f"/threads/{thread_id}/runs/{run['run_id']}/join")
        runs = (await http.get(f"/threads/{thread_id}/runs?limit=1000")).json()
        found |= {run["run_id"]: run["status"] for run in runs}
        thread = (await http.get(f"/threads/{thread_id}")).json()
        assert thread["status"] != "busy"
    assert set(found.values()) <= TERMINAL
    assert world.violations() == []
    return found


def overlaps(world: World, thread_ids: list[str]) -> list[Any]:
    """Give the pairs of runs of a thread that executed at the same time, by the database's clock."""
    return world.database.execute(
        "SELECT a.run_id, b.run_id FROM matins.run AS a JOIN matins.run AS b USING (thread_id)"
        " WHERE thread_id = ANY(%s) AND a.seq < b.seq AND a.started_at < b.ended_at AND b.started_at < a.ended_at",
        [thread_ids],
    ).fetchall()


async def test_posts_to_one_thread_never_run_two_at_once(world: World, http: httpx.AsyncClient) -> None:
    thread_id = (await http.post("/threads", json={})).json()["thread_id"]
    told: Counter[tuple[int, str]] = Counter()
    accepted: dict[str, str] = {}
    turns = iter(random.choices(STRATEGIES, k=RACES))

    async def client() -> None:
        for strategy in turns:
            answer = await http.post(f"/threads/{thread_id}/runs", json=body(strategy, "a", "b"))
            told[answer.status_code, strategy] += 1
            if answer.is_success:
                accepted[answer.json()["run_id"]] = strategy
            else:
                assert answer.json()["detail"] == BUSY

    with world.gate.wide_open():
        async with anyio.create_task_group() as group:
            for _ in range(AT_ONCE):
                group.start_soon(client)
        statuses = await come_to_rest(world, http, [thread_id])
    sys.stdout.write(f"\n{dict(told)}; at the end {Counter(statuses.values())}\n")
    assert told.total() == RACES
    assert {told_of for told_of in told if told_of[0] != 200} <= {(409, "reject")}
    assert statuses.keys() <= accepted.keys()
    assert overlaps(world, [thread_id]) == []


async def test_cancellations_meet_their_runs_anywhere(world: World, http: httpx.AsyncClient) -> None:
    thread_ids = [(await http.post("/threads", json={})).json()["thread_id"] for _ in range(THREADS)]
    turns = iter(range(RACES))
    told: Counter[str] = Counter()
    cancelled: dict[str, str] = {}

    async def create(path: str) -> httpx.Response:
        """Create a run; one that is refused is none."""
        while True:
            steps = random.choice([("a", "b"), ("a", HELD)])
            answer = await http.post(path, json=body(random.choice(STRATEGIES), *steps))
            if answer.is_success:
                return answer
            assert answer.json()["detail"] == BUSY
            told["refused"] += 1

    async def client(thread_id: str) -> None:
        for _ in turns:
            runs = f"/threads/{thread_id}/runs"
            path = f"{runs}/{(await create(runs)).json()['run_id']}"
            await anyio.sleep(random.uniform(0, 0.2))  # wherever that finds it
            action = random.choice(["interrupt", "interrupt", "rollback"])
            stopped = await http.post(f"{path}/cancel?action={action}")
            if stopped.is_success:
                await http.get(f"{path}/join")
            run = await http.get(path)
            status = run.json()["status"] if run.is_success else "gone"
            told[f"cancel {action} {stopped.status_code}: {status}"] += 1
            assert stopped.status_code in (202, 404)
            assert status in {*TERMINAL, "gone"}
            cancelled[path] = status

    with world.gate.wide_open():
        async with anyio.create_task_group() as group:
            for number in range(CANCELLERS):
                group.start_soon(client, thread_ids[number % THREADS])
        await come_to_rest(world, http, thread_ids)
    slowest_s = world.slowest_stop_s()
    sys.stdout.write(f"\n{dict(sorted(told.items()))}; stopped after {slowest_s:.2f} s at the most\n")
    assert len(cancelled) == RACES
    assert slowest_s <= STOPS_WITHIN_SECONDS
    assert overlaps(world, thread_ids) == []
    for path, status in cancelled.items():  # what was told stays so: no run comes back
        now = await http.get(path)
        assert (now.json()["status"] if now.is_success else "gone") in (status, "gone")
