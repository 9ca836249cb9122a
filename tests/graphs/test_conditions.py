"""When a cron's condition is asked, and what it may do to the worker: nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import uuid4

import anyio
import msgspec
import pytest

from matins.domain.runs import Held, StopReason
from matins.graphs import conditions
from matins.graphs.registry import Registry
from matins.storage.pool import Pool
from matins.workers.protocol import Execute
from tests.support.orders import Lane, claim, order

pytestmark = pytest.mark.anyio

Project = Callable[..., Registry]

CODE = """
import asyncio
import time
from typing import TypedDict
from langgraph.graph import START, StateGraph

class State(TypedDict, total=False):
    n: int

graph = StateGraph(State).add_node("step", lambda state: {"n": 1}).add_edge(START, "step").compile()

def no():
    return False

def sleeps():
    time.sleep(1)
    return False

async def hangs():
    await asyncio.sleep(60)
"""


async def fire(pool: Pool, held: Held, named: str, *, trigger: str = "schedule", **policy: str) -> Execute:
    """Have the run be a cron's with that condition."""
    cron_id = uuid4()
    async with pool.connection() as conn:
        await conn.execute("UPDATE matins.run SET cron_id = $2 WHERE run_id = $1", held.run_id, cron_id)
        await conn.execute(
            "INSERT INTO matins.cron_fire (cron_id, scheduled_for, outcome, trigger, run_id, status)"
            " VALUES ($1, now(), 'fired', $2, $3, 'running')",
            cron_id, trigger, held.run_id,
        )  # fmt: skip
    asked = order(held, "graph", input={"n": 0}, policy={"condition": named, **policy})
    return msgspec.structs.replace(asked, cron_id=cron_id)


@pytest.fixture
def registry(project: Project) -> Registry:
    return project(CODE, "graph")


def of(registry: Registry, name: str) -> str:
    [spec] = registry.manifest.graphs.values()
    assert spec.path is not None
    return f"./{spec.path.name}:{name}"


async def test_a_no_is_said_before_anything_is_streamed_or_written(pool: Pool, registry: Registry) -> None:
    held = await claim(pool)
    lane = Lane(registry, pool)
    settled = await lane.execute(await fire(pool, held, of(registry, "no")))
    assert (settled.outcome, settled.reason) == ("skipped", f"its condition {of(registry, 'no')} said no")
    assert lane.frames == []
    async with pool.connection() as conn:
        written = await conn.fetchval(
            "SELECT count(*) FROM checkpoints WHERE thread_id = $1", str(held.thread_id)
        )
    assert written == 0


@pytest.mark.parametrize("trigger", ["schedule", "catch_up", "backfill", "manual"])
async def test_it_is_asked_of_every_slot_but_not_when_a_person_wants_it_now(
    pool: Pool, registry: Registry, trigger: str
) -> None:
    asked = await fire(pool, await claim(pool), of(registry, "no"), trigger=trigger)
    settled = await Lane(registry, pool).execute(asked)
    assert settled.outcome == ("success" if trigger == "manual" else "skipped")


async def test_it_is_asked_until_something_of_the_run_has_begun(pool: Pool, registry: Registry) -> None:
    held = await claim(pool, attempt=2)  # the first was handed back before it came to anything
    asked = await fire(pool, held, of(registry, "no"))
    assert (await Lane(registry, pool).execute(asked)).outcome == "skipped"
    assert (await Lane(registry, pool).execute(order(held, "graph", input={"n": 0}))).outcome == "success"
    assert (await Lane(registry, pool).execute(asked)).outcome == "success", "it has begun"


@pytest.mark.parametrize("named", ["sleeps", "hangs"])
async def test_one_that_takes_too_long_has_failed(
    pool: Pool, registry: Registry, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setattr(conditions, "PATIENCE_SECONDS", 0.2)
    asked = await fire(pool, await claim(pool), of(registry, named), on_condition_error="skip")
    settled = await Lane(registry, pool).execute(asked)
    assert settled.outcome == "skipped"
    assert settled.reason == f"its condition {of(registry, named)} failed: it took longer than 0.2 s"
    asked = await fire(pool, await claim(pool), of(registry, named))
    assert (await Lane(registry, pool).execute(asked)).outcome == "success"


async def test_one_that_blocks_holds_up_no_other_run(pool: Pool, registry: Registry) -> None:
    other, blocked = await claim(pool), await claim(pool)
    asked = await fire(pool, blocked, of(registry, "sleeps"))
    ended: list[str] = []

    async def run(name: str, execute: Execute) -> None:
        await Lane(registry, pool).execute(execute)
        ended.append(name)

    async with anyio.create_task_group() as group:
        group.start_soon(run, "blocked", asked)
        group.start_soon(run, "other", order(other, "graph", input={"n": 0}))
    assert ended == ["other", "blocked"]


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [(StopReason.INTERRUPT, "stopped"), (StopReason.TIMEOUT, "timeout"), (StopReason.LOST, "lost")],
)
async def test_a_stop_is_felt_while_it_is_asked(
    pool: Pool, registry: Registry, reason: StopReason, outcome: str
) -> None:
    asked = await fire(pool, await claim(pool), of(registry, "hangs"), on_condition_error="skip")
    lane = Lane(registry, pool)
    outcomes: list[str] = []

    async def run() -> None:
        outcomes.append((await lane.execute(asked)).outcome)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await _stop_soon(lane, reason)
    assert outcomes == [outcome]


async def _stop_soon(lane: Lane, reason: StopReason) -> None:
    while lane.stop._lane is None:  # noqa: ASYNC110 - it sets no event
        await anyio.sleep(0.01)
    lane.stop.ask(reason)


async def test_asking_costs_next_to_nothing(pool: Pool, registry: Registry) -> None:
    asked = await fire(pool, await claim(pool), of(registry, "no"))
    await Lane(registry, pool).execute(asked)  # imported once
    began = time.perf_counter()
    for _ in range(20):
        await Lane(registry, pool).execute(asked)
    assert (time.perf_counter() - began) / 20 < 0.05
