from __future__ import annotations

import time

import anyio
import pytest

from matins.domain.frames import Frame
from matins.workers.flight import NotStarted, Outcome
from matins.workers.protocol import Settled
from tests.support.pools import Running, RunPool

pytestmark = pytest.mark.anyio


async def _run_to_end(running: Running) -> float:
    """As the engine does: a run that was not started is offered again, as a new attempt. Gives seconds."""
    started = time.monotonic()
    outcome: Outcome = NotStarted()
    while isinstance(outcome, NotStarted):
        outcome = await running.execute("echo", 1)
    assert isinstance(outcome, Settled)
    assert outcome.outcome == "success"
    return time.monotonic() - started


@pytest.mark.parametrize(("function", "argument"), [("block", 3.0), ("hold_gil", 1_000_000)])
async def test_a_worker_that_stands_still_holds_up_no_call_and_no_new_run(
    run_pool: RunPool, function: str, argument: float
) -> None:
    async with run_pool(surplus_s=0.5) as running:
        outcomes: list[Outcome] = []
        began: list[float] = []

        async def seen(_: list[Frame]) -> None:
            began.append(time.monotonic())

        async def execute() -> None:
            outcomes.append(await running.execute(function, argument, on_frames=seen))

        with anyio.fail_after(60):
            running.group.start_soon(execute)
            await running.until(lambda: bool(began))
            runs: list[float] = []
            calls: list[float] = []
            while not outcomes:
                runs.append(await _run_to_end(running))
                asked = time.monotonic()
                await running.pool.call("pid", b"", timeout_s=5)
                calls.append(time.monotonic() - asked)
                await anyio.sleep(0.02)
            assert isinstance(outcomes[0], Settled)
            assert len(runs) > 10
            assert max(runs) < 0.25
            assert max(calls) < 0.25
            # A third process was started for the one that stood still; when that one is back, one goes.
            await running.until(lambda: len(running.spawned) == 3)
            await running.until(lambda: len(running.alive) == 2)
            await running.until(lambda: running.pool.ready_count == 2)


async def test_calls_behind_one_that_blocks_are_asked_elsewhere_and_it_is_not(run_pool: RunPool) -> None:
    async with run_pool() as running:
        waits: list[float] = []

        async def block() -> None:
            await running.pool.call("block", b"0.8", timeout_s=5)

        async def ask() -> None:
            asked = time.monotonic()
            await running.pool.call("pid", b"", timeout_s=5)
            waits.append(time.monotonic() - asked)

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(block)
                await anyio.sleep(0.02)
                for _ in range(3):
                    group.start_soon(ask)
                await anyio.sleep(0.3)
                group.start_soon(ask)
        assert len(waits) == 4
        assert max(waits) < 0.25
        assert running.pool.ready_count == 2


async def test_every_worker_standing_still_costs_a_bounded_number_of_processes(run_pool: RunPool) -> None:
    async with run_pool(lanes=1) as running:
        done: list[Outcome] = []

        async def execute() -> None:
            done.append(await running.execute("block", 2.0))

        with anyio.fail_after(60):
            for _ in range(7):
                running.group.start_soon(execute)
            await anyio.sleep(2.5)
            assert len(running.spawned) <= 1 + 4
            await running.until(lambda: len(done) == 7)


async def test_plain_load_starts_no_process(run_pool: RunPool) -> None:
    """Two cores, ten lanes that compute 20 ms at a time, calls in between: slow is not blocked."""
    async with run_pool() as running:
        outcomes: list[Outcome] = []

        async def execute() -> None:
            while len(outcomes) < 20:
                outcomes.append(await running.execute("compute", 0.02))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(execute)
                while len(outcomes) < 20:
                    await running.pool.call("pid", b"", timeout_s=5)
                    await anyio.sleep(0.01)
        assert len(running.spawned) == 2
        assert sum(isinstance(outcome, Settled) for outcome in outcomes) > 15
        assert not any(isinstance(outcome, NotStarted) for outcome in outcomes)


async def test_the_line_that_blocks_is_named_once(
    run_pool: RunPool, capfd: pytest.CaptureFixture[str]
) -> None:
    async with run_pool() as running:
        with anyio.fail_after(20):
            await running.execute("block", 2.5)
        lines = [line for line in capfd.readouterr().err.splitlines() if "toy_worker.py:" in line]
        assert len(lines) == 1
        assert "block" in lines[0]
